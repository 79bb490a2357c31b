"""The Inspect widget: the user points at a place, and it tells what made the score there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QProgressBar, QPushButton

from napari_dino_uad.core.explain.overlays import OVERLAYS, kinds_of
from napari_dino_uad.widgets.controls import (
    DockWidget,
    WrapLabel,
    allow,
    research_notice,
    rule,
    small_label,
)
from napari_dino_uad.widgets.crosshair import crosshair_of
from napari_dino_uad.widgets.forms import combo_box, in_row, wide_form
from napari_dino_uad.widgets.inspect.overlay_layer import highlight, overlay_layer, place_layer
from napari_dino_uad.widgets.inspect.panel import PlacePanel
from napari_dino_uad.widgets.inspect.pipelines import overlayer, slice_explainer
from napari_dino_uad.widgets.inspect.texts import OVERLAY_HELP, why_nothing
from napari_dino_uad.widgets.pointer import Pointer, voxel_at
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.explain.overlays import Overlay
    from napari_dino_uad.core.explain.parts import Place
    from napari_dino_uad.core.explain.slices import Explainer, SliceExplanation
    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["InspectWidget"]

_NOTHING = "nothing"
_ELSEWHERE = "This is about the place of the ring. Press Crosshair to ask where you are now."
_HINT = "Click a place on the scan."
# Slices whose explanation is kept: a click on one of them is answered at once.
_KEPT = 8


class InspectWidget(DockWidget):
    """Explain why a place of a scan is marked, or is not.

    All it shows belongs to the finished map of the scan chosen, and to that map's own model.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.

    Attributes
    ----------
    place : Place or None
        The place asked about.
    explained : SliceExplanation or None
        Its slice; None until it is known.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._results = results_of(self._viewer)
        self.job = Job(self)
        self.overlay_job = Job(self)
        self.pointer = Pointer(self._viewer, self)
        self.place: Place | None = None
        self.explained: SliceExplanation | None = None
        self._detection: Detection | None = None
        self._anomaly: AnomalyMap | None = None
        self._explainer: Explainer | None = None
        self._slices: dict[int, SliceExplanation] = {}
        self._components: Overlay | None = None
        self._shown_kind = _NOTHING
        self._build()
        self._connect()
        self.pointer.on = True
        self._on_result()

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.head = WrapLabel("<b>Why is this marked?</b>")
        self.pick = QPushButton("Point")
        self.pick.setCheckable(True)
        self.pick.setChecked(True)
        self.pick.setToolTip("While this is on, a click on the scan asks about that place.")
        self.worst = QPushButton("Highest point")
        self.worst.setToolTip(
            "Ask about the highest point of the finding selected, or of the largest one."
        )
        self.here = QPushButton("Crosshair")
        self.here.setToolTip(
            "Ask about the place of the crosshair: where you clicked or jumped to last."
        )
        row = in_row(self.pick, self.worst, self.here)
        self.status = small_label()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.bar.hide()
        self.panel = PlacePanel()
        self.overlay = combo_box(self._choices, "An explanation of all slices, laid over the scan.")
        self.help = small_label()
        self.content.addWidget(self.head)
        self.content.addLayout(row)
        self.content.addWidget(self.status)
        self.content.addWidget(self.panel)
        self.content.addWidget(rule())
        self.content.addLayout(wide_form([("On the scan", self.overlay.native)]))
        self.content.addWidget(self.bar)
        self.content.addWidget(self.help)
        self.content.addStretch()
        self.content.addWidget(research_notice())

    def _connect(self) -> None:
        self.pick.toggled.connect(self._on_pick)
        self.worst.clicked.connect(self.ask_highest)
        self.here.clicked.connect(self.ask_crosshair)
        self.pointer.picked.connect(self._on_picked)
        self.overlay.changed.connect(self._on_overlay)
        self.job.succeeded.connect(self._on_slice)
        self.overlay_job.progressed.connect(self._on_progress)
        self.overlay_job.succeeded.connect(self._on_overlaid)
        self.overlay_job.stopped.connect(self.bar.hide)
        for job in (self.job, self.overlay_job):
            job.failed.connect(self._complain)
        self.listen(
            (self._results.scan_chosen, self._on_result),
            (self._results.changed, self._on_result),
            (self._results.updated, self._on_updated),
            (self._results.search.found, self._on_result),
            (crosshair_of(self._viewer).moved, self._on_moved),
        )

    def _leave(self) -> None:
        """Stop watching the mouse, and remove what lies on the scan."""
        self.pointer.on = False
        self._forget()

    # The result ---------------------------------------------------------------------------

    def _on_updated(self, detection: Detection) -> None:
        if detection is self._results.shown:
            self._on_result()

    def _on_result(self) -> None:
        """Follow the result of the scan chosen; forget the place if it is another one."""
        detection = self._results.shown
        anomaly = None if detection is None or detection.held else detection.anomaly
        if detection is not self._detection or anomaly is not self._anomaly:
            self._forget()
            self._detection, self._anomaly = detection, anomaly
            self.overlay.reset_choices()
        elif detection is not None and anomaly is not None:
            self._check_layers(detection)
            self.panel.show_threshold(detection.threshold)
        self._update_state()

    def _forget(self) -> None:
        """Drop everything that belongs to the result so far, with its layers."""
        detection = self._detection
        self._detection = self._anomaly = self._explainer = None
        self._slices = {}
        self._components = self.place = self.explained = None
        self._shown_kind = _NOTHING
        self.panel.clear()
        self.help.setText("")
        for job in (self.job, self.overlay_job):
            job.cancel()
        # Removing a layer comes back here, when everything is forgotten.
        for role in ("overlay", "place"):
            if detection is not None:
                detection.layers.explain(role, None)

    def _check_layers(self, detection: Detection) -> None:
        """Choose nothing if the user has deleted the overlay."""
        gone = "overlay" not in detection.layers.explained
        if self._shown_kind != _NOTHING and gone and not self.overlay_job.running:
            self._shown_kind = _NOTHING
            self.overlay.value = _NOTHING

    # Asking -------------------------------------------------------------------------------

    def _on_pick(self, on: bool) -> None:
        self.pointer.on = on
        self._update_state()

    def _on_picked(self, world: tuple[float, ...]) -> None:
        detection = self._detection
        if detection is None or self._anomaly is None:
            return
        voxel = voxel_at(detection.scan, world)
        if voxel is not None:
            crosshair_of(self._viewer).move(world)
            self.ask(voxel)

    def ask_highest(self, *_: Any) -> None:
        """Ask about the highest point of the finding selected, or of the first, and show it."""
        detection, anomaly = self._detection, self._anomaly
        if detection is None or anomaly is None or detection.found is None:
            return
        labels, layer = detection.found.labels, detection.layers.findings
        chosen = 1 if layer is None else int(layer.selected_label)
        inside = labels == (chosen if 1 <= chosen <= len(detection.findings) else 1)
        if not inside.any():
            return
        flat = np.flatnonzero(inside)
        best = flat[int(anomaly.scores.reshape(-1)[flat].argmax())]
        voxel = tuple(int(value) for value in np.unravel_index(best, labels.shape))
        scan = detection.scan
        crosshair_of(self._viewer).move(scan.data_to_world(voxel[-scan.ndim :]))
        self.ask((voxel[0], voxel[1], voxel[2]))

    def ask_crosshair(self, *_: Any) -> None:
        """Ask about the place of the crosshair."""
        self._on_picked(crosshair_of(self._viewer).position)

    def ask(self, voxel: tuple[int, int, int]) -> None:
        """Ask about a voxel (S, P, L) of the scan shown."""
        from napari_dino_uad.core.explain.parts import place_of

        detection, anomaly = self._detection, self._anomaly
        if detection is None or anomaly is None:
            return
        self.place = place_of(anomaly, voxel)
        self.explained = self._slices.get(self.place.index)
        self._mark(detection, voxel)
        if not anomaly.foreground[voxel]:
            self.job.cancel()
            self._say("This is background, which has no score. Click on tissue.")
            self.panel.clear()
        elif self.explained is not None:
            self.job.cancel()
            self._show_place()
        else:
            self._say("Reading this slice…")
            self.panel.setEnabled(False)
            self.job.start(slice_explainer(anomaly, self.place.index, self._explainer))

    @staticmethod
    def _mark(detection: Detection, voxel: tuple[int, int, int]) -> None:
        """Put the ring around a voxel; the layer is kept, since making one takes a while."""
        layer: Any = detection.layers.explained.get("place")
        if layer is None:
            detection.layers.explain("place", place_layer(detection.scan, voxel))
        else:
            layer.data = np.asarray([voxel[-detection.scan.ndim :]], dtype=float)

    def _on_slice(self, result: tuple[Explainer, SliceExplanation | None]) -> None:
        self._explainer, one = result
        self.explained = one
        if one is None:
            self._say("Too little tissue in this slice for a score.")
            self.panel.clear()
            return
        first = not self._slices
        self._slices = {**dict(list(self._slices.items())[1 - _KEPT :]), one.index: one}
        if first:
            self.overlay.reset_choices()
        self._show_place()
        self._update_state()

    def _show_place(self) -> None:
        """Show what is known of the place."""
        detection, one, place = self._detection, self.explained, self.place
        if detection is None or one is None or place is None:
            return
        self.panel.setEnabled(True)
        if not one.tissue[place.patch]:
            self._say("Too little tissue in this patch: its score is that of its neighbours.")
            self.panel.clear()
            return
        self.panel.show_place(detection, one, place, self._components)
        self._on_moved()
        self._highlight()

    def _on_moved(self, _: Any = None) -> None:
        """Say that the texts are not about the place of the crosshair, when it has moved on."""
        detection, place = self._detection, self.place
        if detection is None or place is None or self.explained is None or self.job.running:
            return
        if self.explained.index == place.index and self.explained.tissue[place.patch]:
            scan = detection.scan
            here = crosshair_of(self._viewer).voxel(scan) == place.voxel[-scan.ndim :]
            self._say("" if here else _ELSEWHERE)

    # Overlays -----------------------------------------------------------------------------

    def _choices(self, _: Any) -> list[tuple[str, str]]:
        one = next(iter(self._slices.values()), None)
        kinds = [] if one is None else kinds_of(one)
        return [("Nothing", _NOTHING), *((OVERLAYS[kind], kind) for kind in kinds)]

    def _on_overlay(self, *_: Any) -> None:
        kind, detection = self.overlay.value or _NOTHING, self._detection
        if kind == self._shown_kind or detection is None or self._anomaly is None:
            return
        # Removing the layer comes back to `_check_layers`, where nothing is shown then.
        self._shown_kind = _NOTHING
        self.overlay_job.cancel()
        detection.layers.explain("overlay", None)
        self._shown_kind = kind
        self.help.setText("")
        if kind != _NOTHING:
            self.bar.setRange(0, 0)
            self.bar.show()
            self.overlay_job.start(overlayer(self._anomaly, kind, self._explainer))

    def _on_progress(self, progress: Progress) -> None:
        self.bar.setRange(0, max(progress.total, 0))
        self.bar.setValue(progress.done)

    def _on_overlaid(self, overlay: Overlay) -> None:
        detection, anomaly = self._detection, self._anomaly
        if detection is None or anomaly is None or overlay.kind != self._shown_kind:
            return
        if overlay.kind == "component":
            self._components = overlay
        layer = overlay_layer(detection.scan, overlay, anomaly.model, self._component)
        detection.layers.explain("overlay", layer)
        self.help.setText(f"{OVERLAY_HELP[overlay.kind]} The heat is hidden meanwhile.")
        self._show_place()

    @property
    def _component(self) -> int:
        """Component at the place, counted from 0; -1 if there is none."""
        one, place = self.explained, self.place
        if one is None or place is None or one.component is None:
            return -1
        return int(one.component[place.patch])

    def _highlight(self) -> None:
        """Highlight the component of the place in the map of components."""
        detection, components = self._detection, self._components
        if detection is None or components is None or self._shown_kind != "component":
            return
        layer: Any = detection.layers.explained.get("overlay")
        if layer is not None:
            layer.colormap = highlight(int(components.array.max()), self._component)

    # State --------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self.status.setStyleSheet("")
        self.status.setText(text)
        self.status.setVisible(bool(text))

    def _complain(self, text: str) -> None:
        self._say(text)
        self.status.setStyleSheet("color: #e8604c; font-weight: bold;")
        self.panel.setEnabled(True)

    def _update_state(self) -> None:
        """Enable what can be used now, and explain why the rest cannot."""
        detection = self._detection
        why = why_nothing(self._results.shown, self._results.scan is not None)
        if why:
            self._say(why)
        elif self.place is None:
            self._say(_HINT if self.pointer.on else "Turn on pointing, or ask about the finding.")
        ready = not why and detection is not None
        found = ready and detection is not None and bool(detection.findings)
        allow(self.pick, why)
        allow(self.here, why)
        allow(self.worst, "" if found else why or "There is no finding above the threshold.")
        known = bool(self._slices)
        allow(self.overlay.native, why or ("" if known else "Ask about a place first."))
