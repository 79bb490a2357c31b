"""What a report of a problem needs to know of a machine, without names or paths."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["describe_system"]

_PACKAGES = (
    "napari-dino-uad",
    "napari",
    "npe2",
    "magicgui",
    "PyQt6",
    "PyQt5",
    "PySide6",
    "torch",
    "torchvision",
    "timm",
    "openvino",
    "numpy",
    "scipy",
    "SimpleITK",
    "pydicom",
    "highdicom",
    "distributed",
)
_MISSING = "not installed"


def describe_system() -> list[tuple[str, str]]:
    """Return names and values: system, Python, memory, packages and engines."""
    from napari_dino_uad.core.backbones.engines.choice import available_engines
    from napari_dino_uad.core.limits import total_memory

    rows = [
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Python", platform.python_version()),
        ("processors", str(os.cpu_count())),
        ("memory", f"{total_memory() / 1e9:.1f} GB"),
    ]
    for name in _PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, _MISSING))
    engines = ", ".join(spec.description for spec in available_engines())
    return [*rows, ("engines", engines)]
