"""docs/reliability.md: what was tried to break the package, and what came of it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from sweeps import ROWS

__all__ = ["write_page"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"

#: Sweeps of `soak.py`, each with the number of cases for each format or method.
SWEEPS = {
    "scans": 1000, "models": 300, "weights": 100, "full-disk": 20, "power-cut": 20, "growth": 200,
}  # fmt: skip
#: Tests that are repeated more often than in `make test`: name, path, environment, cases.
TESTS = [
    ("files of pydicom, nibabel, highdicom, SimpleITK and pynrrd",
     "tests/faults/test_foreign_files.py", {"NAPARI_DINO_UAD_FILES": "pynrrd"}),
    ("geometry: flips, permutations, rotations, spacings", "tests/core/scans/test_geometry.py",
     {"NAPARI_DINO_UAD_EXAMPLES": "1000"}),
    ("killed with -9: fit, detect, evaluate, export, eviction",
     "tests/faults/test_interrupted_runs.py",
     {"NAPARI_DINO_UAD_KILLS": "20"}),
    ("folders that cannot be written, shares and files that vanish, clocks that are wrong",
     "tests/faults/test_hard_places.py", {}),
    ("detections in one window, finished and cancelled in turn",
     "tests/e2e/test_many_detections.py", {"NAPARI_DINO_UAD_DETECTS": "200"}),
    ("walk of random actions through the window", "tests/e2e/test_random_walk.py",
     {"NAPARI_DINO_UAD_WALK": "500"}),
]  # fmt: skip
_COUNTS = {
    "NAPARI_DINO_UAD_EXAMPLES",
    "NAPARI_DINO_UAD_KILLS",
    "NAPARI_DINO_UAD_WALK",
    "NAPARI_DINO_UAD_DETECTS",
}


@dataclass
class Row:
    """A line of the table."""

    name: str
    cases: str
    outcome: str
    wrong: int
    seconds: float
    memory_mb: float
    longest_s: float | None = None
    details: list[str] = field(default_factory=list)


def write_page(share: float, seed: int) -> int:
    """Run everything and write the page.

    Parameters
    ----------
    share : float
        Of the cases that each sweep tries; 1 takes about two hours.
    seed : int

    Returns
    -------
    int
        1 if anything failed.
    """
    rows = [row for kind, count in SWEEPS.items() for row in _sweep(kind, count, share, seed)]
    rows += [_test(*one, share) for one in TESTS if (ROOT / one[1]).is_file()]
    PAGE.write_text(_page(rows, share, seed), encoding="utf-8")
    print(f"Written: {PAGE}")
    return int(any(row.wrong for row in rows))


def _sweep(kind: str, count: int, share: float, seed: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "rows"
        script = str(Path(__file__).with_name("soak.py"))
        number = max(2, round(share * count))
        command = [sys.executable, script, kind, "--count", str(number), "--seed", str(seed)]
        seconds, memory, code, _ = _measured(command, {ROWS: str(found)})
        lines = found.read_text("utf-8").splitlines() if found.is_file() else []
        rows = []
        for values in map(json.loads, lines):
            outcomes = values["outcomes"]
            told = ", ".join(f"{number} {what}" for what, number in sorted(outcomes.items()))
            rows.append(
                Row(
                    f"{kind}: {values['name']}" if kind in ("scans", "models") else values["name"],
                    str(sum(outcomes.values())), told, values["wrong"], seconds / len(lines),
                    memory, values["longest_s"],
                )
            )  # fmt: skip
        if not rows or (code and not any(row.wrong for row in rows)):
            rows.append(Row(kind, str(number), f"ended with {code}", 1, seconds, memory))
        return rows


def _test(name: str, path: str, environment: dict[str, str], share: float) -> Row:
    scaled = {
        key: str(max(1, round(share * int(value)))) if key in _COUNTS else value
        for key, value in environment.items()
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path]
    with tempfile.TemporaryDirectory() as folder:
        if package := scaled.pop("NAPARI_DINO_UAD_FILES", ""):
            scaled["NAPARI_DINO_UAD_FILES"] = folder
            _unpack_source(package, Path(folder))
        seconds, memory, code, told = _measured(command, {**scaled, "QT_API": "pyqt6"})
        scaled.pop("NAPARI_DINO_UAD_FILES", None)
    found = re.findall(r"(\d+) (passed|failed|skipped)", told)
    numbers = {what: int(number) for number, what in found}
    times = next(iter(scaled.values()), "")
    cases = f"{numbers.get('passed', 0) + numbers.get('failed', 0)} tests"
    outcome = ", ".join(f"{number} {what}" for what, number in numbers.items()) or f"code {code}"
    wrong = numbers.get("failed", 0) or int(code != 0)
    return Row(name, f"{cases}, {times} each" if times else cases, outcome, wrong, seconds, memory)


def _unpack_source(package: str, folder: Path) -> None:
    """Download the source of a package, which has its test files; without a network, go on."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "-d", str(folder), package], check=False)
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as source:
            source.extractall(folder, filter="data")
        archive.unlink()


def _measured(command: list[str], environment: dict[str, str]) -> tuple[float, float, int, str]:
    """Run a command; return seconds, the largest process in MB, the exit code and its output."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        # wait4 has taken the exit code; Popen would wait for it again.
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        told = out.read().decode(errors="replace")
    # A long walk prints every action, so its error is far from the end.
    errors = [line for line in told.splitlines() if line.startswith("E  ")]
    print("\n".join([*errors[:20], told[-2000:]]), flush=True)
    return (
        time.monotonic() - begun, usage.ru_maxrss * 1024 / 1e6, process.returncode, told
    )  # fmt: skip


def _page(rows: list[Row], share: float, seed: int) -> str:
    wrong = sum(row.wrong for row in rows)
    text = [
        "# Reliability",
        "",
        "Written by `make soak`, which damages files, kills runs, cuts the power of disks and "
        "walks through the window at random. A case is fine if the result is that of the sound "
        "file or run, or if one sentence says what is wrong; a traceback, a hang, an end by a "
        "signal, or another result without a word is wrong.",
        "",
        f"{date.today()}, seed {seed}, {share:.0%} of all cases, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores. **Wrong: {wrong}.**",
        "",
        "| what | cases | what came of it | wrong | longest, s | all, s | largest process, MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        longest = "" if row.longest_s is None else f"{row.longest_s:.1f}"
        text.append(
            f"| {row.name} | {row.cases} | {row.outcome} | {row.wrong} | {longest} | "
            f"{row.seconds:.0f} | {row.memory_mb:.0f} |"
        )
    text += [
        "",
        "*Longest* is the longest time between two outcomes; damaged scans are read 50 in a "
        "process, so it is the time of a whole process there.",
        "",
        "*Refused*: one sentence. *Same*: as the sound file. *Other header, same size*: formats "
        "without a checksum, whose header was changed to another valid one. *Told*: the values "
        "differ and the notices say why. *May differ*: a setting of a model was changed, and its "
        "checksum made anew.",
    ]
    return "\n".join(text) + "\n"
