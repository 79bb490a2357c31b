"""Unsupervised anomaly detection on DINO embeddings, in napari.

Everything is imported when it is first used, so that importing the package is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import load_backbone
    from napari_dino_uad.core.backbones.engines.choice import choose_engine
    from napari_dino_uad.core.detect import detect
    from napari_dino_uad.core.errors import InputError
    from napari_dino_uad.core.evaluate import evaluate
    from napari_dino_uad.core.evaluation.folder import read_evaluation
    from napari_dino_uad.core.fit import fit
    from napari_dino_uad.core.model_file import load_model, save_model
    from napari_dino_uad.core.progress import drain
    from napari_dino_uad.core.scans.cohort import Case, find_cases
    from napari_dino_uad.core.scans.volume import read_volume, write_volume

__version__ = "0.1.0"

_HOME = {
    "Case": "scans.cohort",
    "InputError": "errors",
    "choose_engine": "backbones.engines.choice",
    "detect": "detect",
    "drain": "progress",
    "evaluate": "evaluate",
    "find_cases": "scans.cohort",
    "fit": "fit",
    "load_backbone": "backbones.backbone",
    "load_model": "model_file",
    "read_evaluation": "evaluation.folder",
    "read_volume": "scans.volume",
    "save_model": "model_file",
    "write_volume": "scans.volume",
}

__all__ = [
    "Case",
    "InputError",
    "__version__",
    "choose_engine",
    "detect",
    "drain",
    "evaluate",
    "find_cases",
    "fit",
    "load_backbone",
    "load_model",
    "read_evaluation",
    "read_volume",
    "save_model",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.core.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
