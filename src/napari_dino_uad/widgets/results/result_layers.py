"""The two layers of a detection, heat and findings, directly above their scan."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_dino_uad.layer_data import METADATA
from napari_dino_uad.widgets.layers import (
    cut_colormap,
    hide_layers,
    layer_geometry,
    outline_colormap,
    scan_shape,
    slice_index,
    volume_of,
)
from napari_dino_uad.widgets.results.colour_bar import show_bar
from napari_dino_uad.widgets.results.heat_colours import paint_heat
from napari_dino_uad.widgets.results.outline import Outline
from napari_dino_uad.widgets.settings import setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer
    from napari.viewer import Viewer

__all__ = ["ResultLayers"]

_ROLES = ("anomaly", "findings")


class ResultLayers:
    """Heat and findings of one scan layer.

    Layers are kept by reference: their names may change, or be taken by other layers.

    Parameters
    ----------
    viewer : Viewer
        The viewer of the layers; kept as a weak reference.
    scan : Image
        The layer of the scan.

    Attributes
    ----------
    heat : Image or None
    findings : Labels or None
        None before they are shown, and after the user has deleted them.
    explained : dict of Layer
        What Inspect shows of the result: "overlay", within the pair, and "place", above it.
    redrawing : bool
        Whether the findings are being redrawn after a change that is not the user's.
    attached : bool
        Whether the pair follows its scan; not after the user has moved the pair.
    """

    def __init__(self, viewer: Viewer, scan: Image) -> None:
        self._viewer = weakref.ref(viewer)
        self.scan = scan
        self.heat: Image | None = None
        self.findings: Labels | None = None
        self.explained: dict[str, Layer] = {}
        self._heat_hidden = False
        self.attached = True
        self._limits = (0.0, 1.0)
        self._cut = 0.0
        self._settled = True
        self._ticks: Sequence[tuple[float, str]] = ()
        self.held = False
        self._outline = Outline(self)
        self._hidden_for_now: list[Layer] = []
        self.redrawing = False
        self._hidden_with_scan: list[Layer] = []
        self._placing = False
        self._named_for = scan.name
        self._rejected: frozenset[int] = frozenset()

    @property
    def viewer(self) -> Viewer:
        """The viewer; raises RuntimeError after it was closed."""
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer is closed")
        return viewer

    @property
    def pair(self) -> list[Layer]:
        """The layers that exist, the lower one first."""
        return [layer for layer in (self.heat, self.findings) if layer is not None]

    @property
    def stack(self) -> list[Layer]:
        """The pair with what Inspect shows of it, the lowest layer first."""
        overlay, place = self.explained.get("overlay"), self.explained.get("place")
        wanted = (self.heat, overlay, self.findings, place)
        return [layer for layer in wanted if layer is not None]

    # Showing ------------------------------------------------------------------------------

    def show_heat(
        self,
        array: NDArray[np.float32],
        limits: tuple[float, float],
        threshold: float,
        ticks: Sequence[tuple[float, str]] = (),
    ) -> None:
        """Show a map on the scan.

        Parameters
        ----------
        array : ndarray of float32, (S, P, L)
            Filled in place while the slices are computed.
        limits : tuple of float
            Scores of the first and the last colour.
        threshold : float
            Score at which the heat begins.
        ticks : sequence of (float, str)
            Scores and labels of the colour bar.
        """
        self._limits, self._cut, self._ticks = limits, threshold, ticks
        data = array.reshape(scan_shape(self.scan))
        colormap = cut_colormap(limits, threshold, setting("colours"))
        if self.heat is None:
            self.heat = Image(
                data,
                name=self._name("anomaly"),
                contrast_limits=limits,
                colormap=colormap,
                interpolation2d="linear",
                blending="translucent",
                visible=not self.held,
                metadata=self._metadata("anomaly"),
                **layer_geometry(self.scan),
            )
        else:
            self.heat.data = data
            self.heat.contrast_limits = limits
            paint_heat(self.viewer, self.heat, colormap)
        self.place()

    def show_findings(self, labels: NDArray[np.uint8]) -> None:
        """Show labels (S, P, L) as contours; the layer has a copy of them."""
        data = labels.reshape(scan_shape(self.scan))
        if self.findings is None:
            self.findings = Labels(
                data.copy(),
                name=self._name("findings"),
                colormap=outline_colormap(),
                visible=not self.held,
                metadata=self._metadata("findings"),
                **layer_geometry(self.scan),
            )
            self.findings.contour = 1
            self._rejected = frozenset()
        elif self.findings.data.shape == data.shape and self.findings.data.dtype == data.dtype:
            # In place, and in 8 bits: anything else redraws a hundred times slower.
            np.copyto(self.findings.data, data)
            self.redraw_findings()
        else:
            self.findings.data = data.copy()
        if self.findings not in self.viewer.layers:
            self.place()

    def redraw_findings(self, *, briefly: bool = False) -> None:
        """Redraw the findings after a change that is not the user's.

        Parameters
        ----------
        briefly : bool
            Whether another change follows soon: then smooth outlines are all that is drawn, which
            leaves out napari's own drawing of the layer below them.
        """
        if self.findings is None or (briefly and self._outline.draw()):
            return
        self.redrawing = True
        try:
            self.findings.refresh(thumbnail=not briefly, extent=False)
        finally:
            self.redrawing = False

    def reveal(self) -> None:
        """Show the scan and its pair, which the user may have hidden."""
        for layer in (self.scan, *([] if self.held else self.pair)):
            layer.visible = True

    def hold(self, held: bool) -> None:
        """Hide the pair until the user asks for it, or show it again."""
        if held == self.held:
            return
        self.held = held
        self._hidden_with_scan = []
        for layer in self.pair:
            layer.visible = not held

    def hide_for_now(self, hidden: bool) -> None:
        """Hide the pair while a key is held, and show it again."""
        if hidden and not self._hidden_for_now:
            self._hidden_for_now = hide_layers(self.pair)
        elif not hidden:
            layers, self._hidden_for_now = self._hidden_for_now, []
            for layer in layers:
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
        for layer in self.stack:
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
        if self.heat is not None:
            show_bar(viewer, self.heat, self._ticks)
        self._outline.attach()
        if selected is not None and selected in layers and layers.selection.active != selected:
            # Keep the scan selected: a reader adjusts its contrast next.
            layers.selection.active = selected

    def describe(self, columns: dict[str, list[Any]], rejected: frozenset[int]) -> None:
        """Give the findings layer a table of its labels, and rejected ones a faint outline.

        Parameters
        ----------
        columns : dict of list
            One value for each finding, with the label in "index".
        rejected : frozenset of int
            Labels.
        """
        if self.findings is None:
            return
        self.findings.features = columns
        if rejected != self._rejected:
            self._rejected = rejected
            self.findings.colormap = outline_colormap(rejected)

    # Changes by the user ---------------------------------------------------------------

    def on_moved(self, layer: Layer) -> bool:
        """Note that a layer was moved by the user; return whether the pair has to follow."""
        if self._placing:
            return False
        if layer in self.stack:
            # The pair stays where the user has put it, until the next detection.
            self.attached = False
        return layer is self.scan and self.attached and bool(self.stack)

    def on_renamed(self) -> None:
        """Rename the pair after its scan was renamed."""
        if self.scan.name == self._named_for:
            return
        self._named_for = self.scan.name
        for layer, role in zip((self.heat, self.findings), _ROLES, strict=True):
            if layer is not None:
                layer.name = self._name(role)
        for layer in self.explained.values():
            layer.name = layer.name.rpartition(": ")[0] + f": {self.scan.name}"

    def on_visible(self) -> None:
        """Hide the pair with its scan, so that it is not seen on another scan."""
        if not self.scan.visible:
            self._hidden_with_scan = [layer for layer in self.stack if layer.visible]
        for layer in self._hidden_with_scan:
            layer.visible = self.scan.visible
        if self.scan.visible:
            self._hidden_with_scan = []

    def drop_deleted(self) -> list[str]:
        """Forget layers that the user has deleted; return which: "anomaly", "findings"."""
        gone = self.deleted()
        if "anomaly" in gone:
            self.heat = None
        if "findings" in gone:
            self.findings = None
        if not self._placing:
            layers = self.viewer.layers
            self.explained = {role: one for role, one in self.explained.items() if one in layers}
            self._hide_heat()
        return gone

    def deleted(self) -> list[str]:
        """List the layers that are no longer in the viewer."""
        if self._placing:
            return []
        layers = self.viewer.layers
        return [
            role
            for role, layer in zip(_ROLES, (self.heat, self.findings), strict=True)
            if layer is not None and layer not in layers
        ]

    def remove(self) -> None:
        """Remove all layers from the viewer."""
        stack = self.stack
        self.heat = self.findings = None
        self.explained = {}
        self._delete(stack)

    def explain(self, role: str, layer: Layer | None) -> None:
        """Show what Inspect has found in place of what it showed before; None shows nothing.

        The heat is hidden below an overlay: their colours would mix.

        Parameters
        ----------
        role : {"overlay", "place"}
        layer : Layer, optional
        """
        before = self.explained.pop(role, None)
        if layer is not None:
            layer.name = f"{layer.name}: {self.scan.name}"
            layer.metadata = self._metadata("explanation")
            self.explained[role] = layer
        if before is not None:
            self._delete([before])
        if layer is not None:
            self.place()
        self._hide_heat()

    def _hide_heat(self) -> None:
        """Hide the heat while there is an overlay, and show it again afterwards."""
        overlay = "overlay" in self.explained
        if self.heat is None or overlay == self._heat_hidden:
            return
        if overlay and not self.heat.visible:
            return
        self._heat_hidden = overlay
        self.heat.visible = not overlay

    def _delete(self, layers: list[Layer]) -> None:
        viewer = self._viewer()
        for layer in layers:
            if viewer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)

    # Drawing ------------------------------------------------------------------------------

    def refresh(self, indices: Sequence[int] | None = None, axis: int = 0) -> None:
        """Redraw the heat where it changed.

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

    def cut(self, threshold: float, *, briefly: bool = False) -> None:
        """Set the score at which the heat begins.

        Parameters
        ----------
        threshold : float
        briefly : bool
            Whether another threshold follows soon; `settle` ends that.
        """
        self._cut = threshold
        if self.heat is not None:
            colours = cut_colormap(self._limits, threshold, setting("colours"))
            self._settled = paint_heat(self.viewer, self.heat, colours, briefly=briefly)

    def settle(self) -> None:
        """Tell napari of the colours that `cut` has drawn briefly."""
        if not self._settled:
            self.cut(self._cut)

    def recolour(self) -> None:
        """Take the colours of the settings."""
        self.cut(self._cut)

    def slice_on_screen(self) -> tuple[Any, ...] | None:
        """Return the index of the slice on screen in the layers' arrays; None in a 3D view."""
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
        """List the axes of the scan that are not displayed and have a slider."""
        dims = self.viewer.dims
        offset = dims.ndim - self.scan.ndim
        return [axis for axis in range(self.scan.ndim) if axis + offset not in dims.displayed]

    def _name(self, role: str) -> str:
        return f"{role}: {self.scan.name}"

    def _metadata(self, role: str) -> dict[str, Any]:
        volume = volume_of(self.scan)
        entry = {"role": role} | ({} if volume is None else {"volume": volume})
        return {METADATA: entry}
