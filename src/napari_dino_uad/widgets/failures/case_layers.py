"""The layers of the case that the Failures dock shows."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_dino_uad.core.evaluation.failures import FALSE, FOUND, MISSED
from napari_dino_uad.layer_data import METADATA, volume_layer
from napari_dino_uad.widgets.layers import cut_colormap, layer_geometry, scan_shape
from napari_dino_uad.widgets.settings import setting

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_dino_uad.core.evaluation.failures import Outcome
    from napari_dino_uad.core.evaluation.folder import OpenedCase

__all__ = ["COLOURS", "CaseLayers"]

#: Colours of the outcomes, apart for colour-blind eyes (Okabe and Ito).
COLOURS = {FOUND: "#009e73", FALSE: "#e69f00", MISSED: "#cc79a7"}


def _colormap() -> DirectLabelColormap:
    colours: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    colours.update(COLOURS.items())
    return DirectLabelColormap(color_dict=colours)


class CaseLayers:
    """Scan, heat and outcome of one case; a new case takes the place of the former one.

    Parameters
    ----------
    viewer : Viewer
        Kept as a weak reference.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = weakref.ref(viewer)
        self.scan: Image | None = None
        self.heat: Image | None = None
        self.outcome: Labels | None = None

    def show(
        self, case: OpenedCase, outcome: Outcome, threshold: float, limits: tuple[float, float]
    ) -> None:
        """Show a case.

        Parameters
        ----------
        case : OpenedCase
        outcome : Outcome
            The case at the threshold.
        threshold : float
            Score at which the heat begins.
        limits : tuple of float
            Scores of the first and the last colour.
        """
        viewer = self._viewer()
        if viewer is None:
            return
        self.remove()
        data, keywords, _ = volume_layer(case.volume)
        self.scan = Image(data, **{**keywords, "name": case.name})
        place = layer_geometry(self.scan)
        # Air is not judged.
        scores = np.where(case.foreground, case.scores, np.float32(limits[0]))
        self.heat = Image(
            scores.reshape(scan_shape(self.scan)),
            name=f"anomaly: {case.name}",
            contrast_limits=limits,
            colormap=cut_colormap(limits, threshold, setting("colours")),
            interpolation2d="linear",
            blending="translucent",
            visible=False,
            metadata={METADATA: {"role": "anomaly", "volume": case.volume}},
            **place,
        )
        self.outcome = Labels(
            outcome.labels.reshape(scan_shape(self.scan)),
            name=f"outcome: {case.name}",
            colormap=_colormap(),
            opacity=0.55,
            metadata={METADATA: {"role": "outcome", "volume": case.volume}},
            **place,
        )
        self.outcome.editable = False
        for layer in (self.scan, self.heat, self.outcome):
            viewer.add_layer(layer)
        viewer.layers.selection.active = self.scan

    def cut(self, outcome: Outcome, threshold: float, limits: tuple[float, float]) -> None:
        """Show the same case at another threshold."""
        if self.outcome is not None:
            self.outcome.data = outcome.labels.reshape(self.outcome.data.shape)
        if self.heat is not None:
            self.heat.colormap = cut_colormap(limits, threshold, setting("colours"))

    def filled(self, filled: bool) -> None:
        """Fill the regions, or draw their contours only."""
        if self.outcome is not None:
            self.outcome.contour = 0 if filled else 1
            self.outcome.opacity = 0.55 if filled else 1.0

    def drop_deleted(self) -> bool:
        """Forget layers that the user deleted; return whether the scan was among them."""
        viewer = self._viewer()
        if viewer is None or self.scan is None:
            return False
        present = set(viewer.layers)
        if self.scan not in present:
            self.remove()
            return True
        if self.heat is not None and self.heat not in present:
            self.heat = None
        if self.outcome is not None and self.outcome not in present:
            self.outcome = None
        return False

    def remove(self) -> None:
        """Remove the layers of the case."""
        viewer = self._viewer()
        layers: list[Layer | None] = [self.outcome, self.heat, self.scan]
        self.scan = self.heat = self.outcome = None
        for layer in layers:
            if viewer is not None and layer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)
