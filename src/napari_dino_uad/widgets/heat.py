"""The two layers of a detection, heat and findings, which lie directly above their scan."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_dino_uad.layer_data import METADATA
from napari_dino_uad.widgets.layers import cut_colormap, layer_geometry, slice_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer
    from napari.viewer import Viewer

__all__ = ["ResultLayers"]

_ROLES = ("anomaly", "findings")
_COLOURS = "autumn"


class ResultLayers:
    """Heat and findings of one scan layer.

    Layers are held by reference: a name may be changed, and may belong to another layer.

    Parameters
    ----------
    viewer : Viewer
        Where the layers are shown; held weakly.
    scan : Image
        The layer they lie on.

    Attributes
    ----------
    heat : Image or None
    findings : Labels or None
        None until they are shown, and once the user has deleted them.
    attached : bool
        Whether the pair is where we put it, and so goes where its scan goes.
    """

    def __init__(self, viewer: Viewer, scan: Image) -> None:
        self._viewer = weakref.ref(viewer)
        self.scan = scan
        self.heat: Image | None = None
        self.findings: Labels | None = None
        self.attached = True
        self._limits = (0.0, 1.0)
        self._hidden_with_scan: list[Layer] = []
        self._placing = False
        self._named_for = scan.name

    @property
    def viewer(self) -> Viewer:
        """The viewer; only while it is open."""
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer is closed")
        return viewer

    @property
    def pair(self) -> list[Layer]:
        """The layers there are, from the lower to the upper one."""
        return [layer for layer in (self.heat, self.findings) if layer is not None]

    # Showing ------------------------------------------------------------------------------

    def show_heat(
        self, array: NDArray[np.float32], limits: tuple[float, float], threshold: float
    ) -> None:
        """Lay a map over the scan.

        Parameters
        ----------
        array : ndarray of float32, (S, P, L)
            Filled in place while slices come in.
        limits : tuple of float
            Scores of the first and the last colour.
        threshold : float
            Score where the heat begins.
        """
        self._limits = limits
        data = array.reshape(self.scan.data.shape)
        colormap = cut_colormap(limits, threshold, _COLOURS)
        if self.heat is None:
            self.heat = Image(
                data,
                name=self._name("anomaly"),
                contrast_limits=limits,
                colormap=colormap,
                interpolation2d="linear",
                blending="translucent",
                metadata=self._metadata("anomaly"),
                **layer_geometry(self.scan),
            )
        else:
            self.heat.data = data
            self.heat.contrast_limits = limits
            self.heat.colormap = colormap
        self.place()

    def show_findings(self, labels: NDArray[np.uint8]) -> None:
        """Show labels (S, P, L) as contours; the layer gets a copy."""
        data = labels.reshape(self.scan.data.shape)
        if self.findings is None:
            self.findings = Labels(
                data.copy(),
                name=self._name("findings"),
                metadata=self._metadata("findings"),
                **layer_geometry(self.scan),
            )
            self.findings.contour = 1
        elif self.findings.data.shape == data.shape and self.findings.data.dtype == data.dtype:
            # In place, and of 8 bits: anything else redraws a hundred times slower.
            np.copyto(self.findings.data, data)
            self.findings.refresh(extent=False)
        else:
            self.findings.data = data.copy()
        if self.findings not in self.viewer.layers:
            self.place()

    def reveal(self) -> None:
        """Show the scan and its pair, which the user may have hidden."""
        for layer in (self.scan, *self.pair):
            layer.visible = True

    def place(self) -> None:
        """Put the pair directly above the scan, and hide it if the scan is hidden."""
        viewer = self._viewer()
        if viewer is None or self.scan not in viewer.layers:
            return
        layers = viewer.layers
        selected = layers.selection.active
        below: Layer = self.scan
        self._placing = True
        for layer in self.pair:
            target = layers.index(below) + 1
            if layer not in layers:
                layers.insert(target, layer)
            elif layers.index(layer) != target:
                layers.move(layers.index(layer), target)
            below = layer
            if not self.scan.visible and layer.visible:
                layer.visible = False
                self._hidden_with_scan.append(layer)
        self._placing = False
        self.attached = True
        if selected is not None and selected in layers and layers.selection.active != selected:
            # The scan stays selected: its contrast is what a reader adjusts next.
            layers.selection.active = selected

    def forget_undo(self) -> None:
        """Let go of the steps that undo goes back: they are those of other findings.

        napari does so for a layer that may not be edited any more.
        """
        if self.findings is not None:
            mode = self.findings.mode
            self.findings.editable = False
            self.findings.editable = True
            self.findings.mode = mode

    # What the user does to the layers -----------------------------------------------------

    def on_moved(self, layer: Layer) -> bool:
        """Follow a layer that the user has moved; return whether the pair has to move too."""
        if self._placing:
            return False
        if layer in self.pair:
            # Where the user wants it is where it stays, until the next detection.
            self.attached = False
        return layer is self.scan and self.attached and bool(self.pair)

    def on_renamed(self) -> None:
        """Name the pair for its scan, if that has another name now."""
        if self.scan.name == self._named_for:
            return
        self._named_for = self.scan.name
        for layer, role in zip((self.heat, self.findings), _ROLES, strict=True):
            if layer is not None:
                layer.name = self._name(role)

    def on_visible(self) -> None:
        """Hide the pair with its scan, so that it does not lie on another one."""
        if not self.scan.visible:
            self._hidden_with_scan = [layer for layer in self.pair if layer.visible]
        for layer in self._hidden_with_scan:
            layer.visible = self.scan.visible
        if self.scan.visible:
            self._hidden_with_scan = []

    def drop_deleted(self) -> list[str]:
        """Let go of layers that the user has deleted; return which: "anomaly", "findings"."""
        gone = self.deleted()
        if "anomaly" in gone:
            self.heat = None
        if "findings" in gone:
            self.findings = None
        return gone

    def deleted(self) -> list[str]:
        """List which layers are not in the viewer any more."""
        if self._placing:
            return []
        layers = self.viewer.layers
        return [
            role
            for role, layer in zip(_ROLES, (self.heat, self.findings), strict=True)
            if layer is not None and layer not in layers
        ]

    def remove(self) -> None:
        """Take both layers out of the viewer."""
        viewer, pair = self._viewer(), self.pair
        self.heat = self.findings = None
        for layer in pair:
            if viewer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)

    # Drawing ------------------------------------------------------------------------------

    def refresh(self, indices: Sequence[int] | None = None, axis: int = 0) -> None:
        """Draw the heat again where it changed.

        Parameters
        ----------
        indices : sequence of int, optional
            Slices that changed; all if not given.
        axis : int
            Axis of the volume along which they lie.
        """
        if self.heat is None:
            return
        if indices is None:
            self.heat.refresh(extent=False)
        elif self._visible(indices, axis + self.heat.ndim - 3):
            self.heat.refresh(thumbnail=False, extent=False)

    def cut(self, threshold: float) -> None:
        """Move the score where the heat begins."""
        if self.heat is not None:
            self.heat.colormap = cut_colormap(self._limits, threshold, _COLOURS)

    def slice_on_screen(self) -> tuple[Any, ...] | None:
        """Return where in the layers' arrays the slice on screen lies; None where 3D is shown."""
        hidden = self._hidden()
        if len(hidden) != self.scan.ndim - 2:
            return None
        where: list[Any] = [slice(None)] * self.scan.ndim
        for axis in hidden:
            where[axis] = slice_index(self.viewer, self.scan, axis)
        return tuple(where)

    def _visible(self, indices: Sequence[int], axis: int) -> bool:
        """Return whether any of these slices is on screen now."""
        return axis not in self._hidden() or slice_index(self.viewer, self.scan, axis) in indices

    def _hidden(self) -> list[int]:
        """List the axes of the scan that are not displayed, and so have a slider."""
        dims = self.viewer.dims
        offset = dims.ndim - self.scan.ndim
        return [axis for axis in range(self.scan.ndim) if axis + offset not in dims.displayed]

    def _name(self, role: str) -> str:
        return f"{role}: {self.scan.name}"

    def _metadata(self, role: str) -> dict[str, Any]:
        volume = self.scan.metadata.get(METADATA, {}).get("volume")
        entry = {"role": role} | ({} if volume is None else {"volume": volume})
        return {METADATA: entry}
