"""The two layers of a detection, heat and findings, and what happens to them while one drags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.widgets.layers import (
    METADATA,
    cut_colormap,
    layer_geometry,
    put_layer,
    slice_index,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image
    from napari.viewer import Viewer

__all__ = ["ANOMALY", "FINDINGS", "HeatView"]

ANOMALY, FINDINGS = "anomaly", "findings"
_COLOURS = "autumn"


class HeatView:
    """Heat and findings over one scan layer.

    Parameters
    ----------
    viewer : Viewer
    scan : Image
        The layer the heat lies on.
    array : ndarray of float32, (S, P, L)
        The heat; filled in place while slices come in.
    limits : tuple of float
        Scores of the first and the last colour.
    """

    def __init__(
        self,
        viewer: Viewer,
        scan: Image,
        array: NDArray[np.float32],
        limits: tuple[float, float],
    ) -> None:
        self._viewer = viewer
        self.scan = scan
        self.array = array.reshape(scan.data.shape)
        self._limits = limits

    def show(self, threshold: float) -> None:
        """Lay the heat over the scan."""
        put_layer(
            self._viewer,
            ANOMALY,
            "add_image",
            self.array,
            layer_geometry(self.scan),
            contrast_limits=self._limits,
            colormap=cut_colormap(self._limits, threshold, _COLOURS),
            interpolation2d="linear",
            blending="translucent",
            metadata=self._metadata("anomaly"),
        )

    def refresh(self, indices: Sequence[int] | None = None, axis: int = 0) -> None:
        """Draw again what changed.

        Parameters
        ----------
        indices : sequence of int, optional
            Slices that changed; all if not given.
        axis : int
            Axis of the volume along which they lie.
        """
        if ANOMALY not in self._viewer.layers:
            return
        layer = self._viewer.layers[ANOMALY]
        if indices is None:
            layer.refresh(extent=False)
        elif self._visible(indices, axis + layer.ndim - 3):
            layer.refresh(thumbnail=False, extent=False)

    def _visible(self, indices: Sequence[int], axis: int) -> bool:
        """Say whether any of these slices can be seen now."""
        return axis not in self._hidden() or slice_index(self._viewer, self.scan, axis) in indices

    def _hidden(self) -> list[int]:
        """List the axes of the scan that are not displayed, and so have a slider."""
        offset = self._viewer.dims.ndim - self.scan.ndim
        return [
            axis
            for axis in range(self.scan.ndim)
            if axis + offset not in self._viewer.dims.displayed
        ]

    def cut(self, threshold: float) -> None:
        """Move the threshold: the heat at once, of the findings only what is on screen."""
        if ANOMALY in self._viewer.layers:
            self._viewer.layers[ANOMALY].colormap = cut_colormap(self._limits, threshold, _COLOURS)
        hidden = self._hidden()
        if FINDINGS not in self._viewer.layers or len(hidden) != self.scan.ndim - 2:
            return
        layer = self._viewer.layers[FINDINGS]
        if layer.data.shape != self.array.shape:
            return
        where: list[Any] = [slice(None)] * layer.ndim
        for axis in hidden:
            where[axis] = slice_index(self._viewer, self.scan, axis)
        part = tuple(where)
        # In place, and of 8 bits: anything else redraws a hundred times slower.
        layer.data[part] = np.where(
            self.array[part] > threshold, np.maximum(layer.data[part], 1), 0
        )
        layer.refresh(thumbnail=False, extent=False)

    def show_findings(self, labels: NDArray[np.uint8]) -> None:
        """Show labels (S, P, L) as contours."""
        layer = put_layer(
            self._viewer,
            FINDINGS,
            "add_labels",
            labels.reshape(self.array.shape),
            layer_geometry(self.scan),
            metadata=self._metadata("findings"),
        )
        layer.contour = 1

    def findings(self) -> NDArray[np.uint8] | None:
        """Return the labels as they are on screen, with what the user has painted."""
        if FINDINGS not in self._viewer.layers:
            return None
        return np.asarray(self._viewer.layers[FINDINGS].data)

    def _metadata(self, role: str) -> dict[str, Any]:
        volume = self.scan.metadata.get(METADATA, {}).get("volume")
        entry = {"role": role} | ({} if volume is None else {"volume": volume})
        return {METADATA: entry}
