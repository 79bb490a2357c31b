"""The pipelines of Inspect, which run in threads: explain a slice, or a whole scan."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from napari_dino_uad.core.progress import Progress
from napari_dino_uad.widgets.session import session

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.explain.overlays import Overlay
    from napari_dino_uad.core.explain.slices import Explainer, SliceExplanation

__all__ = ["overlayer", "slice_explainer"]


def _opened(
    anomaly: AnomalyMap, explainer: Explainer | None
) -> Generator[Progress, None, Explainer]:
    """Return an explainer of a map, with the map's own backbone."""
    from napari_dino_uad.core.explain.slices import Explainer

    if explainer is not None:
        return explainer
    backbone = yield from session().backbone_of(anomaly.model)
    return Explainer(anomaly, backbone)


def slice_explainer(
    anomaly: AnomalyMap, index: int, explainer: Explainer | None
) -> Callable[[], Generator[Progress, None, tuple[Explainer, SliceExplanation | None]]]:
    """Return a pipeline that explains a slice.

    Parameters
    ----------
    anomaly : AnomalyMap
        A finished map.
    index : int
        The slice, in the map's first plane.
    explainer : Explainer, optional
        Of the same map, from an earlier run.
    """

    def pipeline() -> Generator[Progress, None, tuple[Explainer, SliceExplanation | None]]:
        waiting = Progress("Explaining", 0, 1)
        yield waiting
        opened = yield from _opened(anomaly, explainer)
        if index not in opened.scored:
            return opened, None
        for one in opened.slices([index]):
            if one is not None:
                return opened, one
            yield waiting
        return opened, None

    return pipeline


def overlayer(
    anomaly: AnomalyMap, kind: str, explainer: Explainer | None
) -> Callable[[], Generator[Progress, None, Overlay]]:
    """Return a pipeline that explains all slices of a scan.

    Parameters
    ----------
    anomaly, explainer
        As in `slice_explainer`.
    kind : str
        A key of `OVERLAYS`.
    """

    def pipeline() -> Generator[Progress, None, Overlay]:
        from napari_dino_uad.core.explain.overlays import explain_scan

        opened = yield from _opened(anomaly, explainer)
        return (yield from explain_scan(opened, kind))

    return pipeline
