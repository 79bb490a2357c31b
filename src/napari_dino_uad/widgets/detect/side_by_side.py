"""Two maps of one scan beside each other, in napari's grid, with one threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_dino_uad.layer_data import METADATA
from napari_dino_uad.widgets.layers import hide_layers, layer_geometry
from napari_dino_uad.widgets.results.found import fill_map
from napari_dino_uad.widgets.results.result_layers import ResultLayers
from napari_dino_uad.widgets.threshold import HIGHEST_RATE, LOWEST_RATE, colour_ticks

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.finding_settings import FindingSettings
    from napari_dino_uad.widgets.results.detection import Detection
    from napari_dino_uad.widgets.results.store import Results

__all__ = ["SideBySide"]

# Scan, heat and findings.
_LAYERS = 3


class SideBySide:
    """Shows the scan once more, with the heat and the findings of a second model.

    Parameters
    ----------
    viewer : Viewer
    results : Results
    """

    def __init__(self, viewer: Viewer, results: Results) -> None:
        self._viewer, self._results = viewer, results
        self._detection: Detection | None = None
        self._second: AnomalyMap | None = None
        self._beside: ResultLayers | None = None
        self._hidden: list[Layer] = []
        self._before: dict[str, Any] = {}

    @property
    def shown(self) -> bool:
        """Whether two maps are on screen."""
        return self._beside is not None

    @property
    def broken(self) -> bool:
        """Whether the user has deleted one of the layers, or left the grid."""
        beside = self._beside
        if beside is None:
            return False
        gone = beside.scan not in self._viewer.layers or beside.deleted()
        return bool(gone) or not self._viewer.canvas.grid.enabled

    def why_not(self, detection: Detection) -> str:
        """Return why two maps cannot be shown beside each other; empty if they can."""
        layers = detection.layers
        if "overlay" in layers.explained:
            return "Choose Nothing in Inspect first."
        if len(layers.pair) + 1 != _LAYERS:
            return "The heat or findings layer was deleted; press Detect first."
        return ""

    def show(
        self,
        detection: Detection,
        name: str,
        second: AnomalyMap,
        labels: NDArray[np.uint8],
        settings: FindingSettings,
    ) -> None:
        """Put the second map beside the first, or bring it up to date.

        Parameters
        ----------
        detection : Detection
            Of the first model, shown on the left.
        name : str
            Of the second model, shown on the right.
        second : AnomalyMap
        labels : ndarray of uint8, (S, P, L)
            Findings of the second model.
        settings : FindingSettings
            Of both.
        """
        if self._beside is not None and detection is self._detection and second is self._second:
            self._beside.show_findings(labels)
            self.cut(settings.rate)
            return
        self.hide()
        self._detection, self._second = detection, second
        scan, layers = detection.scan, self._viewer.layers
        # The ring of Inspect would shift the layers of the grid.
        detection.layers.explain("place", None)
        own = [scan, *detection.layers.pair]
        self._hidden = hide_layers(one for one in layers if one not in own)
        for one in own:
            one.visible = True
        active = layers.selection.active
        # The top of the list is the left half, and what lies below it the right one.
        for one in own:
            layers.move(layers.index(one), len(layers))
        beside = self._layers(scan, name, second, labels, settings)
        layers.selection.active = active
        grid = self._viewer.canvas.grid
        self._before = {key: getattr(grid, key) for key in ("stride", "shape", "enabled")}
        # Counted from the top of the list, by a negative stride from napari 0.9 on.
        grid.stride = -_LAYERS if hasattr(self._viewer, "canvas") else _LAYERS
        grid.shape, grid.enabled = (1, 2), True
        # At last: listeners ask whether something is missing whenever the list changes.
        self._beside = beside
        self._results.beside.append(beside)
        if detection.layers.heat is not None and beside.heat is not None:
            beside.heat.opacity = detection.layers.heat.opacity
        self._redraw()

    def _layers(
        self,
        scan: Image,
        name: str,
        second: AnomalyMap,
        labels: NDArray[np.uint8],
        settings: FindingSettings,
    ) -> ResultLayers:
        """Put a copy of the scan below it in the list, with heat and findings."""
        look: dict[str, Any] = {"rgb": True}
        if not scan.rgb:
            look = {"colormap": scan.colormap, "contrast_limits": scan.contrast_limits}
        copy = Image(
            scan.data,
            name=f"{scan.name} by {name}",
            metadata={METADATA: {**scan.metadata.get(METADATA, {}), "role": "comparison"}},
            **look,
            **layer_geometry(scan),
        )
        self._viewer.layers.insert(self._viewer.layers.index(scan), copy)
        calibration = second.model.calibration
        limits = calibration.threshold(HIGHEST_RATE), calibration.threshold(LOWEST_RATE)
        scores = np.empty(second.volume.shape, dtype=np.float32)
        fill_map(scores, second, limits[0], settings.tissue_only, settings.without_scalp)
        beside = ResultLayers(self._viewer, copy)
        threshold = calibration.threshold(settings.rate)
        beside.show_heat(scores, limits, threshold, colour_ticks(calibration))
        beside.show_findings(labels)
        return beside

    def cut(self, rate: float) -> None:
        """Move the threshold of the second map to a rate of false alarms."""
        if self._beside is not None and self._second is not None:
            self._beside.cut(self._second.model.calibration.threshold(rate))

    def _redraw(self) -> None:
        """Fit the view, and draw outlines anew: napari draws layers elsewhere in its grid."""
        self._viewer.reset_view()
        if self._detection is not None:
            self._detection.layers.redraw_findings()
        if self._beside is not None:
            self._beside.redraw_findings()

    def hide(self) -> None:
        """Remove the second map and leave the grid as it was."""
        beside, hidden, before = self._beside, self._hidden, self._before
        if beside is None:
            return
        self._beside, self._hidden, self._before = None, [], {}
        self._results.beside.remove(beside)
        beside.remove()
        layers = self._viewer.layers
        if beside.scan in layers:
            layers.remove(beside.scan)
        for one in hidden:
            if one in layers:
                one.visible = True
        for name, value in before.items():
            setattr(self._viewer.canvas.grid, name, value)
        self._redraw()
        self._detection = self._second = None
