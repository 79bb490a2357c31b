"""Measurements of engines against each other, remembered on disk."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dino_uad.core.backbones.engines.torch_engine import Engine, EngineSpec
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.pipeline import in_background
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.slices.intensity import IntensityScale
from napari_dino_uad.core.slices.prepared import PreparedScan
from napari_dino_uad.core.slices.preprocessing import Preprocessing
from napari_dino_uad.core.storage.folders import cache_home
from napari_dino_uad.core.storage.records import read_sealed, write_sealed

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones.backbone import Backbone

__all__ = [
    "SMALLEST_COSINE",
    "Measured",
    "circumstances",
    "forget",
    "measure",
    "recall",
    "remember",
    "remembered",
]

#: Smallest accepted cosine between an engine's embedding of a patch and that of torch in float32.
SMALLEST_COSINE = 0.999

# The best round of each engine counts, because other programs may be running. Measuring stops
# after the patience, but not before two rounds.
_ROUNDS = 5
_PATIENCE_S = 20.0

# Slices the engines are measured on.
_SLICES = 2

# Increase this to invalidate older measurements.
_VERSION = 2

_FOLDER = "engines"

# Rounding takes a cosine a little beyond 1.
_MOST_COSINE = 1.001


@dataclass(frozen=True)
class Measured:
    """The measurement of an engine.

    Attributes
    ----------
    engine : str
        Description of the engine.
    cosine : float or None
        Smallest cosine over patches between its embedding and that of torch in single precision;
        None if it failed.
    seconds : float or None
        Seconds per slice; None if it failed or gives other embeddings.
    failure : str
        Why it cannot run; empty if it can.
    """

    engine: str
    cosine: float | None = None
    seconds: float | None = None
    failure: str = ""

    def __post_init__(self) -> None:
        if self.cosine is not None and not -_MOST_COSINE <= self.cosine <= _MOST_COSINE:
            raise InputError(f"A cosine lies in [-1, 1], got {self.cosine}.")
        if self.seconds is not None and not 0 < self.seconds < np.inf:
            raise InputError(f"An engine takes more than 0 seconds, got {self.seconds}.")
        if self.seconds is not None and not self.faithful:
            raise InputError(f"{self.engine} was timed without the right embeddings.")

    @property
    def faithful(self) -> bool:
        """Whether its embeddings equal those of torch in single precision, up to rounding."""
        return self.cosine is not None and self.cosine >= SMALLEST_COSINE


# Measurements of this process, used when nothing is kept on disk.
_known: dict[str, list[Measured]] = {}


def measure(
    backbone: Backbone,
    specs: list[EngineSpec],
    make: Callable[[EngineSpec], Engine],
    input_size: int,
) -> Generator[Progress, None, list[Measured]]:
    """Run engines on the same slices, in turn.

    Parameters
    ----------
    backbone : Backbone
        The backbone to run.
    specs : list of EngineSpec
        The engines; the first is the reference for the others.
    make : callable
        Makes an engine.
    input_size : int
        Edge of the slices in pixels.

    Yields
    ------
    Progress
        Before every run.

    Returns
    -------
    list of Measured
        In the order of `specs`.
    """
    step = "Measuring this computer (once)"
    images = _probe(backbone, input_size)
    running: dict[EngineSpec, Backbone] = {}
    measured: dict[EngineSpec, Measured] = {}
    expected: torch.Tensor | None = None
    total = len(specs) + _ROUNDS
    for number, spec in enumerate(specs):
        now = Progress(step, number, total, spec.words)
        yield now
        try:
            placed = backbone.on(make(spec))
            embedding = Inner(in_background(partial(placed.embed, images)))
            for _ in embedding:
                yield now
            embeddings = embedding.value[0].cpu()
            expected = embeddings if expected is None else expected
            cosine = _smallest_cosine(embeddings, expected)
        except InputError:
            # A single slice does not fit in memory.
            raise
        except Exception as error:  # whatever fails here, the other engines may run
            if expected is None:
                raise
            reason = " ".join(str(error).split())[:300]
            measured[spec] = Measured(spec.description, failure=f"{type(error).__name__}: {reason}")
            continue
        measured[spec] = Measured(spec.description, cosine)
        if measured[spec].faithful:
            running[spec] = placed
    best = dict.fromkeys(running, np.inf)
    started = time.perf_counter()
    for number in range(_ROUNDS):
        for spec, placed in running.items():
            now = Progress(step, len(specs) + number, total, spec.words)
            timing = Inner(in_background(partial(_seconds, placed, images)))
            for _ in timing:
                yield now
            best[spec] = min(best[spec], timing.value[0])
        if number > 0 and time.perf_counter() - started > _PATIENCE_S:
            break
    return [replace(measured[spec], seconds=best.get(spec)) for spec in specs]


def _seconds(backbone: Backbone, images: torch.Tensor) -> float:
    """Time the backbone per slice, called as the pipelines call it, from a thread."""
    # Use the engine's own batch size: some engines are slower with smaller batches.
    count = max(len(images), backbone.engine.batch)
    batch = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
    clock = time.perf_counter()
    backbone.maps(batch).cpu()
    return (time.perf_counter() - clock) / count


def _probe(backbone: Backbone, input_size: int) -> torch.Tensor:
    """Build network input like slices of a head: texture, noise and surrounding air.

    Air is the hardest: embeddings are small there, so rounding matters most.
    """
    chance = np.random.default_rng(0)
    edge = np.linspace(-1, 1, input_size, dtype=np.float32)
    inside = (edge[:, None] / 0.9) ** 2 + (edge / 0.75) ** 2 < 1
    values = np.zeros((_SLICES, input_size, input_size), dtype=np.float32)
    for waves in (2, 5, 12, 30):
        phase = chance.uniform(0, 2 * np.pi, (_SLICES, 2, 1, 1)).astype(np.float32)
        values += np.sin(waves * edge[:, None] + phase[:, 0]) * np.sin(waves * edge + phase[:, 1])
    values = 0.5 + 0.12 * values + 0.03 * chance.standard_normal(values.shape, dtype=np.float32)
    values = np.where(inside, values, 0).clip(0, 1).astype(np.float32)
    scan = PreparedScan(
        slices=values,
        scale=IntensityScale(0.0, 1.0),
        foreground=values > 0,
        spacing_mm=(5.0, 1.0, 1.0),
        preprocessing=Preprocessing(input_size=input_size),
    )
    grid = scan.grid(backbone.spec.stride, backbone.spec.multiple)
    return scan.images(range(_SLICES), grid)


def _smallest_cosine(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the cosine of the patch whose embeddings differ most, (B, C, h, w) each."""
    import torch.nn.functional as F

    cosine = F.cosine_similarity(found.double(), expected.double(), dim=1)
    # Overflow counts as a difference.
    return float(cosine.nan_to_num(-1.0).min())


# Remembering -------------------------------------------------------------------------------


def circumstances(backbone: Backbone, specs: list[EngineSpec], input_size: int) -> dict[str, Any]:
    """Return what a measurement is valid for: processor, backbone, input size, libraries."""
    import torch

    devices = {"processor": _processor(), "cores": os.cpu_count()}
    if specs[0].device == "cuda":
        devices["graphics"] = torch.cuda.get_device_name()
    return {
        "version": _VERSION,
        **devices,
        "backbone": backbone.spec.key,
        "layers": list(backbone.spec.layers),
        "weights": backbone.sha256,
        "input_size": input_size,
        "engines": [spec.description for spec in specs],
        "libraries": {name: _version(name) for name in ("torch", "timm", "openvino")},
    }


def remember(where: dict[str, Any], measured: list[Measured]) -> None:
    """Save measurements to disk if possible; otherwise they are repeated next time."""
    _known[_name(where)] = measured
    home = cache_home()
    if home is None:
        return
    path = home / _FOLDER / f"{_name(where)}.json"
    content = {**where, "measured": [asdict(one) for one in measured]}
    with suppress(InputError):
        write_sealed(path, content)


def recall(where: dict[str, Any]) -> list[Measured] | None:
    """Return the measurements made under the same circumstances, or None."""
    home = cache_home()
    if home is None:
        return _known.get(_name(where))
    found = _read(home / _FOLDER / f"{_name(where)}.json")
    return found[1] if found is not None and found[0] == where else None


def remembered() -> list[tuple[dict[str, Any], list[Measured]]]:
    """Return all measurements on disk with their circumstances, oldest first."""
    found = [_read(path) for path in sorted(_files(), key=lambda file: file.stat().st_mtime)]
    return [one for one in found if one is not None]


def forget() -> int:
    """Remove all measurements from disk and return their number."""
    files = _files()
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def _read(path: Path) -> tuple[dict[str, Any], list[Measured]] | None:
    """Read circumstances and measurements; None if the file is missing, damaged or was edited."""
    from pydantic import BaseModel

    class Remembered(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
        version: int
        processor: str
        cores: int | None
        graphics: str | None = None
        backbone: str
        layers: list[int]
        weights: str
        input_size: int
        engines: list[str]
        libraries: dict[str, str | None]
        measured: list[Measured]

    content = read_sealed(path)
    if content is None:
        return None
    try:
        stored = Remembered.model_validate_json(json.dumps(content))
    except ValueError:
        return None
    if not stored.engines or [one.engine for one in stored.measured] != stored.engines:
        return None
    del content["measured"]
    return content, stored.measured


def _files() -> list[Path]:
    home = cache_home()
    return [] if home is None else list((home / _FOLDER).glob("*.json"))


def _name(where: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(where, sort_keys=True).encode()).hexdigest()[:40]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's name; Python's own answer is often empty on Linux."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith(("model name", "cpu part")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
