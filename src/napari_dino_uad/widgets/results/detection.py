"""The result of one scan, which picture, panel and saved files are read from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.maps.finding_rows import finding_rows, row_columns
from napari_dino_uad.core.maps.review import Correction, Review
from napari_dino_uad.widgets.layers import scan_shape
from napari_dino_uad.widgets.results.found import fill_map, painted_slices
from napari_dino_uad.widgets.results.result_layers import ResultLayers
from napari_dino_uad.widgets.results.texts import slice_count
from napari_dino_uad.widgets.threshold import (
    HIGHEST_RATE,
    LOWEST_RATE,
    colour_ticks,
    histogram_edges,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.maps.domain_shift import Differences
    from napari_dino_uad.core.maps.finding_rows import FindingRow
    from napari_dino_uad.core.maps.finding_settings import FindingSettings
    from napari_dino_uad.core.maps.findings import Finding
    from napari_dino_uad.core.maps.review import Judgement
    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.widgets.results.found import Detected, Found

__all__ = ["Detection"]


class Detection:
    """The detection on one scan, running, stopped or finished, with its two layers.

    It keeps its model, so that it does not change when another model is chosen.

    Parameters
    ----------
    viewer : Viewer
        The viewer of its layers.
    scan : Image
        The layer of the scan.
    model_name : str
        Name of the model in the panel.
    model : FittedModel
        The model that scores the scan.
    settings : FindingSettings
        Threshold, smallest size and tissue at the start.

    Attributes
    ----------
    anomaly : AnomalyMap or None
        The finished map.
    found : Found or None
        The findings shown; they follow `settings` with a delay.
    limits : tuple of float
        Scores of the first and the last colour: the same for all scans of a model.
    edges : ndarray of float64
        Edges of the histogram's bins.
    histogram : ndarray of float64 or None
        Shares of this scan's scores.
    warning : str
        Why the model may not fit this scan; empty if it does.
    remark : str
        That the scan is at the edge of what the model knows; empty if it is not.
    trusted : bool
        Whether the user wants to see the map in spite of the warning.
    differences : Differences or None
        What distinguishes the scan from the model's cohort.
    message : str
        How the run ended, for the line below the button.
    slices_done : int
        Number of slices shown so far.
    layers : ResultLayers
    review : Review
        The user's decisions and notes.
    """

    def __init__(
        self,
        viewer: Viewer,
        scan: Image,
        model_name: str,
        model: FittedModel,
        settings: FindingSettings,
    ) -> None:
        self.scan = scan
        self.model_name = model_name
        self.model = model
        self.settings = settings
        self.layers = ResultLayers(viewer, scan)
        calibration = model.calibration
        self.limits = (calibration.threshold(HIGHEST_RATE), calibration.threshold(LOWEST_RATE))
        self.edges = histogram_edges(calibration)
        self.histogram: NDArray[np.float64] | None = None
        self.anomaly: AnomalyMap | None = None
        self.found: Found | None = None
        self.warning = self.remark = ""
        self.trusted = False
        self.differences: Differences | None = None
        self.message = ""
        self.slices_done = 0
        self._filled_without_scalp = settings.without_scalp
        self.deleted: list[str] = []
        self.review = Review()
        self._numbers: NDArray[np.uint8] | None = None
        self._rows: tuple[Found, tuple[Judgement, ...], list[FindingRow]] | None = None
        self._array: NDArray[np.float32] | None = None
        # The labels as drawn here; where the layer differs, the user has painted.
        self._drawn: NDArray[np.uint8] | None = None
        # Whether `_drawn` are the labels of `found`; not while the threshold is dragged.
        self._drawn_found = False

    @property
    def threshold(self) -> float:
        """The score at the chosen rate."""
        return self.model.calibration.threshold(self.settings.rate)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Scores and labels of the colour bar, in false-positive rates."""
        return colour_ticks(self.model.calibration)

    @property
    def held(self) -> bool:
        """Whether heat and findings wait until the user asks for them in spite of the warning."""
        return bool(self.warning) and not self.trusted

    def warn(self, warning: str) -> None:
        """Take the warning of the slices so far; its words stay while it does."""
        if bool(warning) != bool(self.warning):
            self.warning = warning
            self.layers.hold(self.held)

    def trust(self) -> None:
        """Show heat and findings in spite of the warning."""
        self.trusted = True
        self.layers.hold(False)

    @property
    def findings(self) -> list[Finding]:
        """The findings shown."""
        return [] if self.found is None else self.found.findings

    @property
    def current(self) -> bool:
        """Whether the findings shown belong to the settings."""
        found = self.found
        return found is not None and self._drawn_found and found.settings.same(self.settings)

    @property
    def numbered(self) -> NDArray[np.uint8] | None:
        """Labels whose numbers stay while the findings are corrected; None after other settings."""
        found = self.found
        if found is None:
            return self._numbers
        return found.labels if found.settings == self.settings else None

    # Review -------------------------------------------------------------------------------

    @property
    def rows(self) -> list[FindingRow]:
        """A row for each finding shown, with its place in words and the user's decision."""
        found, anomaly = self.found, self.anomaly
        if found is None or anomaly is None:
            return []
        judged, known = self.review.judgements, self._rows
        if known is None or known[0] is not found or known[1] is not judged:
            # Kept, because a table asks at every movement of the slider.
            judgements = self.review.of(found.labels, found.findings)
            rows = finding_rows(found.findings, anomaly.tissue_frame, judgements)
            known = self._rows = (found, judged, rows)
        return known[2]

    def show_review(self) -> None:
        """Give the findings layer the decisions and notes."""
        rows = self.rows
        rejected = frozenset(row.label for row in rows if row.decision == "rejected")
        self.layers.describe(row_columns(rows), rejected)

    def reopen(
        self, settings: FindingSettings, review: Review, numbered: NDArray[np.uint8] | None
    ) -> None:
        """Take a saved review, with the numbers that its findings had."""
        self.settings, self.review, self._numbers = settings, review, numbered

    # A run --------------------------------------------------------------------------------

    def begin(self, array: NDArray[np.float32], earlier: Detection | None) -> None:
        """Show the first slices, in place of the earlier result of this scan.

        Parameters
        ----------
        array : ndarray of float32, (S, P, L)
            The map; it is filled while it is computed.
        earlier : Detection, optional
            The scan's result so far. Its layers are reused, because napari needs a quarter of a
            second to make one, and the window freezes meanwhile. The user's corrections are kept.
        """
        self._array = array
        if earlier is not None:
            earlier.absorb()
            self.settings = replace(self.settings, edits=earlier.settings.edits)
            self.review = earlier.review
            self.layers = earlier.layers
            if earlier.model is self.model:
                self.trusted = earlier.trusted
            for role in list(self.layers.explained):
                self.layers.explain(role, None)
        self.layers.hold(self.held)
        if self.layers.findings is not None:
            self._draw(np.zeros(array.shape, dtype=np.uint8))
        self.layers.show_heat(array, self.limits, self.threshold, self.ticks)

    def finish(self, detected: Detected) -> None:
        """Take the finished map; the array shown has its values already."""
        self.anomaly = detected.anomaly
        self.warning, self.remark = detected.warning, detected.remark
        self.differences = detected.differences
        self.layers.hold(self.held)
        self.histogram = detected.histogram
        count = slice_count(len(detected.anomaly.scan))
        self.message = f"{count} in {detected.seconds:.1f} s"
        if self.settings.tissue_only == detected.tissue_only:
            self.layers.refresh()
        else:
            self.fill()

    def fill(self) -> None:
        """Write the whole map into the layer, with or without the background."""
        if self._array is None or self.anomaly is None:
            return
        tissue_only, scalped = self.settings.tissue_only, self.settings.without_scalp
        fill_map(self._array, self.anomaly, self.limits[0], tissue_only, scalped)
        self._filled_without_scalp = scalped
        self.layers.refresh()

    # Threshold and findings ---------------------------------------------------------------

    def choose(
        self,
        rate: float | None = None,
        minimum_size: float | None = None,
        tissue_only: bool | None = None,
        without_scalp: bool | None = None,
    ) -> None:
        """Change settings; the heat follows at once, the findings with `show`."""
        if self._drawn_found:
            # Only once for each movement of the slider: it takes longer than a frame.
            self.absorb()
        was = self.settings
        self.settings = replace(
            was,
            rate=was.rate if rate is None else rate,
            minimum_size=was.minimum_size if minimum_size is None else minimum_size,
            tissue_only=was.tissue_only if tissue_only is None else tissue_only,
            without_scalp=was.without_scalp if without_scalp is None else without_scalp,
        )
        if self.settings.tissue_only != was.tissue_only:
            self.fill()
        if self.settings.rate != was.rate:
            self.layers.cut(self.threshold, briefly=True)
            self._cut_slice()

    def show(self, found: Found) -> bool:
        """Show findings; return False if the settings have changed and a new search is due.

        Corrections that were painted during the search are taken first.
        """
        self.absorb()
        if not found.settings.same(self.settings) or self.anomaly is None:
            return False
        self.found = found
        self._draw(found.labels if found.copy is None else found.copy)
        self._drawn_found = True
        self.layers.settle()
        if self._filled_without_scalp != self.settings.without_scalp:
            # The search has found the scalp; here it would stop the window.
            self.fill()
        if self.layers.heat is None and self._array is not None:
            self.layers.show_heat(self._array, self.limits, self.threshold, self.ticks)
        self.deleted = []
        self.show_review()
        return True

    def absorb(self) -> bool:
        """Take the user's corrections from the findings layer; return whether any are new."""
        layer, drawn = self.layers.findings, self._drawn
        if layer is None or drawn is None or self.anomaly is None:
            return False
        data = np.asarray(layer.data)
        if data.size != drawn.size:
            return False
        painted = painted_slices(data.reshape(drawn.shape), drawn)
        if not painted:
            return False
        edits = self.settings.edits
        edits = np.zeros(drawn.shape, dtype=np.int8) if edits is None else edits.copy()
        found = self.found
        known = found is not None and found.settings == self.settings
        drawn = self._own_drawn()
        for index, (now, changed) in painted.items():
            edits[index][changed] = np.where(now[changed], 1, -1)
            if known and found is not None:
                # A voxel that is again as it was found, after undo for instance, is not corrected.
                edits[index][changed & (now == (found.automatic[index] > 0))] = 0
            drawn[index][changed] = now[changed]
        self._correct(edits if edits.any() else None, "brush stroke", painted)
        return True

    def _correct(
        self, edits: NDArray[np.int8] | None, step: str, slices: Iterable[int] | None = None
    ) -> None:
        """Take other corrections, as a step that can be undone."""
        self.review.correct(Correction.between(self.settings.edits, edits, slices), step)
        self.settings = replace(self.settings, edits=edits)

    def undo(self) -> bool:
        """Take back the last decision, note or correction; return whether findings change."""
        self.absorb()
        return self._recorrect(self.review.undo(), Correction.undone)

    def redo(self) -> bool:
        """Repeat the step taken back last; return whether findings change."""
        self.absorb()
        return self._recorrect(self.review.redo(), Correction.redone)

    def _recorrect(self, correction: Correction | None, step: Callable[..., Any]) -> bool:
        if correction is None or self.anomaly is None:
            return False
        edits = step(correction, self.settings.edits, self.anomaly.scores.shape)
        self.settings = replace(self.settings, edits=edits)
        # The stroke is on screen, also where no search has taken it yet.
        self._drawn_found = False
        return True

    def _own_drawn(self) -> NDArray[np.uint8]:
        """Return the labels as drawn, which may be changed: those found stay as they are."""
        if self._drawn is None:
            raise RuntimeError("nothing is drawn")
        if self.found is not None and self._drawn is self.found.labels:
            self._drawn = self._drawn.copy()
        return self._drawn

    def discard_edits(self) -> None:
        """Remove the user's corrections."""
        self.absorb()
        self._correct(None, "discarding of edits")

    def drop_deleted(self) -> None:
        """Forget layers that the user has deleted; the map and the corrections are kept."""
        if "findings" in self.layers.deleted():
            self.absorb()
        self.deleted += self.layers.drop_deleted()

    def _draw(self, labels: NDArray[np.uint8]) -> None:
        self._drawn = labels
        self._drawn_found = False
        self.layers.show_findings(labels)

    def _cut_slice(self) -> None:
        """Apply the threshold to the slice on screen only, which takes less than a frame."""
        layer, where = self.layers.findings, self.layers.slice_on_screen()
        if layer is None or where is None or self._drawn is None or self._array is None:
            return
        shape = scan_shape(self.scan)
        if layer.data.shape != shape:
            return
        drawn = self._own_drawn().reshape(shape)
        self._drawn_found = False
        above = self._array.reshape(shape)[where] > self.threshold
        part = np.where(above, np.maximum(drawn[where], 1), 0).astype(np.uint8)
        if self.settings.edits is not None:
            edits = self.settings.edits.reshape(shape)[where]
            part = np.where(edits > 0, np.maximum(part, 1), np.where(edits < 0, 0, part))
        drawn[where] = layer.data[where] = part
        self.layers.redraw_findings(briefly=True)
