"""The pipelines of Detect, which run in threads: load and detect."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.widgets.results.found import Detected, finish_map
from napari_dino_uad.widgets.session import read_model, session

if TYPE_CHECKING:
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.scans.volume import Volume
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["Drawing", "detector", "loader"]

# napari imports these when the first labels layer is made, and the window would freeze for half a
# second.
_LABELS_NEED = ("pandas", "scipy.linalg", "skimage.color.colorconv")


@dataclass(frozen=True)
class Drawing:
    """The map's array, filled by the worker and shown by the window.

    Attributes
    ----------
    array : ndarray of float32, (S, P, L)
    indices : list of int
        The latest slices.
    axis : int
        Axis along which they lie.
    warning : str
        Why the model may not fit this scan, judged by the slices so far; empty if it does.
    """

    array: NDArray[np.float32]
    indices: list[int]
    axis: int
    warning: str


def loader(
    path: Path | None,
) -> Callable[[], Generator[Progress, None, tuple[str, FittedModel, str] | None]]:
    """Return a pipeline that loads a model file, if any, and its backbone.

    torch, timm and the backbone take seconds to load, so this starts when the dock opens.
    """

    def pipeline() -> Generator[Progress, None, tuple[str, FittedModel, str] | None]:
        from napari_dino_uad.core import detect as _detect  # noqa: F401 - imports torch
        from napari_dino_uad.core.backbones.backbone import DEFAULT_BACKBONE

        yield Progress("Loading", 0, 1)
        for module in _LABELS_NEED:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
            yield Progress("Loading", 0, 1)
        if path is None:
            yield from session().place(session().backbone(DEFAULT_BACKBONE))
            return None
        name, model = yield from read_model(path)
        try:
            yield from session().backbone_of(model)
        except InputError as error:
            return name, model, str(error)
        return name, model, ""

    return pipeline


def detector(
    read: Callable[[], Volume], detection: Detection, first: int
) -> Callable[[], Generator[Progress, None, Detected]]:
    """Return a pipeline that detects, and brings each batch onto the voxels of the scan.

    Parameters
    ----------
    read : callable
        Makes the volume.
    detection : Detection
        The detection to run. It is read now; the pipeline does not use it.
    first : int
        Slice on screen.
    """
    model, name, low = detection.model, detection.model_name, detection.limits[0]
    settings, tissue_only = detection.settings, detection.settings.tissue_only

    def pipeline() -> Generator[Progress, None, Detected]:
        from napari_dino_uad.core.detect import SliceMaps, detect
        from napari_dino_uad.core.maps.domain_shift import measure_shift
        from napari_dino_uad.core.slices.planes import plane_axis, to_plane

        started = time.perf_counter()
        volume = read()
        backbone = yield from session().backbone_of(model)
        plane = model.preprocessing.plane
        array = np.full(volume.shape, low, dtype=np.float32)
        view = to_plane(array, plane)
        detecting = Inner(detect(volume, model, backbone=backbone, first_slice=first))
        waiting: list[int] = []
        told = False
        for progress in detecting:
            part = progress.result
            if isinstance(part, SliceMaps):
                heat = part.scores()
                view[part.indices] = np.where(part.foreground, heat, low) if tissue_only else heat
                waiting += part.indices
                shift = measure_shift(part.level, model.levels)
                told = told or (bool(np.isfinite(part.level)) and not shift.doubtful)
                if not told:
                    # No heat before it can be told whether the model fits the scan.
                    yield replace(progress, result=None)
                    continue
                drawing = Drawing(array, waiting, plane_axis(plane), shift.warning)
                waiting = []
                yield replace(progress, result=drawing)
            else:
                yield progress
        yield Progress("Finishing", 1, 1, volume.name)
        return finish_map(array, detecting.value, settings, name, started)

    return pipeline
