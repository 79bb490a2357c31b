"""The Failures widget: find out where a model fails, case by case."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QHBoxLayout, QPushButton

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.failures import OUTCOMES
from napari_dino_uad.core.evaluation.filters import make_filter
from napari_dino_uad.widgets.controls import (
    DockWidget,
    RunControl,
    WrapLabel,
    allow,
    research_notice,
    rule,
    small_label,
)
from napari_dino_uad.widgets.cross_lines import cross_lines_of
from napari_dino_uad.widgets.dock_keys import DockKeys
from napari_dino_uad.widgets.failures.case_layers import COLOURS, CaseLayers
from napari_dino_uad.widgets.failures.pipelines import (
    Shown,
    case_opener,
    results_reader,
    sheet_maker,
)
from napari_dino_uad.widgets.failures.table import CaseTable
from napari_dino_uad.widgets.files import choose_folder
from napari_dino_uad.widgets.forms import in_row, line_edit
from napari_dino_uad.widgets.navigation import show_voxel
from napari_dino_uad.widgets.orientation import orientation_of
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.core.evaluation.failures import Failure
    from napari_dino_uad.core.evaluation.folder import EvaluationFolder

__all__ = ["FailuresWidget"]

_FIRST = ("case", "failure", "average_precision")
_LEFT_OUT = ("scan", "mask", "error")
_MARGIN = 2
_FILTER_HELP = (
    "Show only some cases. Parts are separated by commas: a condition such as "
    "average_precision < 0.3, one of the words missed, false, lesion and healthy, or part of a "
    "name or note."
)


class FailuresWidget(DockWidget):
    """Browse the cases of an evaluation that `evaluate` wrote; nothing is computed again.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.

    Attributes
    ----------
    folder : EvaluationFolder or None
        The results shown.
    shown : Shown or None
        The case on screen.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.folder: EvaluationFolder | None = None
        self.shown: Shown | None = None
        self._scans: Path | None = None
        self._failures: list[Failure] = []
        self._place = -1
        self._wanted: Failure | None = None
        self.layers = CaseLayers(self._viewer)
        self.lines = cross_lines_of(self._viewer)
        orientation_of(self._viewer)
        self._build()
        self.keys = DockKeys(
            self._viewer,
            self,
            {"Shift-N": partial(self.step, 1), "Shift-P": partial(self.step, -1)},
        )
        self._connect()
        self._refresh()

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.job = Job(self)
        self.sheet_job = Job(self)
        self.run = RunControl(
            self.job,
            "Open results…",
            "A folder that evaluate wrote, with metrics.json, cases.csv and maps.",
            "Stop opening.",
            remarks=False,
        )
        self.run.watch(self.sheet_job)
        self.moved = QPushButton("Where are the scans now?")
        self.moved.setToolTip("Choose the folder that scans and masks were moved to.")
        self.moved.hide()
        self.summary = WrapLabel()
        self.filter = line_edit("Filter, such as missed or max_dice < 0.5", _FILTER_HELP)
        self.table = CaseTable()
        self.before = QPushButton("◀ Failure")
        self.before.setToolTip("The failure before (Shift+P).")
        self.after = QPushButton("Failure ▶")
        self.after.setToolTip(
            "The next failure (Shift+N): lesions that no finding meets and findings that meet no "
            "lesion, the largest first, across the cases in the table."
        )
        self.where = small_label()
        self.rate = QComboBox()
        self.rate.setToolTip("Threshold, as a rate of false alarms in healthy tissue.")
        self.heat = QCheckBox("Heat")
        self.heat.setToolTip("Show the anomaly map of the case.")
        self.fill = QCheckBox("Filled")
        self.fill.setChecked(True)
        self.fill.setToolTip("Fill the regions; without it only their contours are drawn.")
        self.result = WrapLabel()
        self.result.setToolTip(
            "Dice and AP over tissue, as in the table; lesions and findings of the smallest size "
            "and above, as in the picture."
        )
        self.legend = small_label(
            " ".join(
                f'<span style="color:{COLOURS[value]}">■</span> {words}&nbsp; '
                for value, words in OUTCOMES.items()
            )
        )
        self.note = line_edit("Note on this case", "Kept in notes.csv beside the results.")
        self.sheet = QPushButton("Contact sheet…")
        self.sheet.setToolTip("Draw the twenty worst cases into one PNG or SVG file.")
        view = QHBoxLayout()
        view.addWidget(self.rate, 1)
        view.addWidget(self.heat)
        view.addWidget(self.fill)
        add = self.content.addWidget
        for widget in (self.run, self.moved, self.summary, self.filter, self.table):
            add(widget)
        self.content.addLayout(in_row(self.before, self.after))
        add(self.where)
        add(rule())
        self.content.addLayout(view)
        for widget in (self.result, self.legend, self.note, self.sheet):
            add(widget)
        self.content.addStretch()
        add(research_notice())

    def _connect(self) -> None:
        self.run.start.clicked.connect(self.choose)
        self.run.cancel.clicked.connect(self.job.cancel)
        self.job.succeeded.connect(self._on_done)
        self.job.stopped.connect(lambda: self.run.allow(""))
        self.job.failed.connect(self._on_failed)
        self.sheet_job.succeeded.connect(lambda path: self.run.say(f"Written: {path}"))
        self.sheet_job.failed.connect(self.run.complain)
        self.moved.clicked.connect(self.choose_scans)
        self.filter.editingFinished.connect(self._on_filter)
        self.table.opened.connect(self.open_case)
        self.before.clicked.connect(lambda _: self.step(-1))
        self.after.clicked.connect(lambda _: self.step(1))
        self.rate.currentIndexChanged.connect(self._on_rate)
        self.heat.toggled.connect(self._on_heat)
        self.fill.toggled.connect(self.layers.filled)
        self.note.editingFinished.connect(self._on_note)
        self.sheet.clicked.connect(self.choose_sheet)
        self.listen((self._viewer.layers.events.removed, self._on_removed))

    def _leave(self) -> None:
        self.keys.release()
        self.layers.remove()

    # Results ------------------------------------------------------------------------------

    def choose(self) -> None:
        """Ask for the folder of an evaluation."""
        path = choose_folder(self, "Results of an evaluation", "folders/evaluations")
        if path is not None:
            self.open(path)

    def open(self, path: Path) -> None:
        """Open the folder of an evaluation."""
        self._scans, self._wanted = None, None
        self.job.start(results_reader(path))
        self.run.allow("")

    def _on_done(self, result: Any) -> None:
        if isinstance(result, Shown):
            self._show_case(result)
        else:
            self._take(result)

    def _take(self, folder: EvaluationFolder) -> None:
        self.layers.remove()
        self.folder, self.shown, self._place = folder, None, -1
        rate = folder.metrics["lesions"]["rate"]
        with QSignalBlocker(self.rate):
            self.rate.clear()
            for one in sorted(folder.levels, reverse=True):
                self.rate.addItem(f"False alarms: {100 * one:g} %", one)
            self.rate.setCurrentIndex(self.rate.findData(rate))
        with QSignalBlocker(self.filter):
            self.filter.setText("")
        self._fill_table()
        self.run.say("" if folder.has_maps else "Written without maps: cases cannot be opened.")
        self._refresh()

    def _fill_table(self) -> None:
        """Show the cases that pass the filter, and the failures in them."""
        folder = self.folder
        if folder is None:
            return
        notes = folder.notes()
        largest: dict[str, Failure] = {}
        for failure in folder.failures:
            largest.setdefault(failure.case, failure)
        every = [
            {
                **row,
                "failure": largest[row["case"]].size if row["case"] in largest else None,
                "note": notes.get(row["case"], ""),
            }
            for row in folder.rows
        ]
        known = every[0] if every else {}
        names = [name for name in known if name not in (*_FIRST, *_LEFT_OUT, "note")]
        columns = [*_FIRST, "note", *names]
        try:
            passes = make_filter(self.filter.text(), columns)
        except InputError as error:
            self.run.complain(str(error))
            return
        rows = [row for row in every if passes(row)]
        kept = {row["case"] for row in rows}
        now = self._failures[self._place] if 0 <= self._place < len(self._failures) else None
        self._failures = [one for one in folder.failures if one.case in kept]
        self._place = self._failures.index(now) if now in self._failures else -1
        units = {one.unit for one in folder.failures}
        self.table.show_rows(columns, rows, units.pop() if len(units) == 1 else "")

    def _on_filter(self) -> None:
        if self.run.complaining:
            self.run.say("")
        self._fill_table()
        self._refresh()

    # A case -------------------------------------------------------------------------------

    def open_case(self, name: str) -> None:
        """Open a case, at its largest failure if it has one."""
        own = next((one for one in self._failures if one.case == name), None)
        if own is not None:
            self._place = self._failures.index(own)
        self._open(name, own)

    def step(self, by: int) -> None:
        """Go to the next failure across the cases in the table, or to the one before."""
        if not self._failures:
            return
        start = self._place if self._place >= 0 else (-1 if by > 0 else 0)
        self._place = (start + by) % len(self._failures)
        failure = self._failures[self._place]
        self.table.select(failure.case)
        if self.shown is not None and self.shown.case.name == failure.case and self.layers.scan:
            self._go(failure)
            self._refresh()
        else:
            self._open(failure.case, failure)

    def _open(self, name: str, failure: Failure | None) -> None:
        if self.folder is None:
            return
        self._wanted = failure
        rate = float(self.rate.currentData())
        known = self.shown.case if self.shown is not None and self.shown.case.name == name else None
        self.job.start(case_opener(self.folder, name, rate, self._scans, known))
        self.run.allow("")

    def _show_case(self, shown: Shown) -> None:
        folder = self.folder
        if folder is None:
            return
        again = self.shown is not None and self.shown.case is shown.case
        self.shown = shown
        limits = max(folder.levels), min(folder.levels)
        scores = folder.levels[limits[0]], folder.levels[limits[1]]
        if again and self.layers.scan is not None:
            self.layers.cut(shown.outcome, shown.threshold, scores)
        else:
            self.layers.show(shown.case, shown.outcome, shown.threshold, scores)
            self.layers.filled(self.fill.isChecked())
            self._on_heat(self.heat.isChecked())
            self._viewer.reset_view()
        self.moved.hide()
        self.run.say("")
        self.table.select(shown.case.name)
        if self._wanted is not None:
            self._go(self._wanted)
            self._wanted = None
        self._refresh()

    def _go(self, failure: Failure) -> None:
        scan = self.layers.scan
        if scan is None:
            return
        corners = [place[-scan.ndim :] for place in (failure.voxel, failure.low, failure.high)]
        low = [value - _MARGIN for value in corners[1]]
        high = [value + _MARGIN for value in corners[2]]
        show_voxel(self._viewer, scan, corners[0], (low, high))

    def _on_failed(self, text: str) -> None:
        self.run.complain(text)
        self.moved.setVisible("where the scans are now" in text)

    def choose_scans(self) -> None:
        """Ask where scans and masks are now, and open the case again."""
        path = choose_folder(self, "Folder of the scans and masks", "folders/moved_scans")
        case = self.table.case
        if path is not None and case:
            self._scans = path
            self.open_case(case)

    def _on_rate(self, _: int) -> None:
        if self.shown is not None:
            self._open(self.shown.case.name, None)

    def _on_heat(self, wanted: bool) -> None:
        if self.layers.heat is not None:
            self.layers.heat.visible = wanted

    def _on_removed(self, _: Any) -> None:
        if self.layers.drop_deleted():
            self.shown = None
            self._refresh()

    # Notes and sheet ----------------------------------------------------------------------

    def _on_note(self) -> None:
        if self.folder is None or self.shown is None:
            return
        name, text = self.shown.case.name, self.note.text().strip()
        try:
            if self.folder.notes().get(name, "") != text:
                self.folder.write_note(name, text)
                self._fill_table()
        except InputError as error:
            self.run.complain(str(error))

    def choose_sheet(self) -> None:
        """Ask for a file, and draw the contact sheet into it."""
        if self.folder is None:
            return
        name, _ = QFileDialog.getSaveFileName(
            self,
            "Contact sheet of the worst cases",
            str(self.folder.path / "worst.png"),
            "Pictures (*.png *.svg)",
        )
        if name:
            path = Path(name)
            path = path if path.suffix else path.with_suffix(".png")
            self.sheet_job.start(sheet_maker(self.folder, path, self._scans))

    # Texts --------------------------------------------------------------------------------

    def _refresh(self) -> None:
        folder, shown = self.folder, self.shown
        why = "" if folder is not None else "Open the results of an evaluation first."
        for widget in (self.filter, self.rate, self.sheet, self.table):
            allow(widget, why)
        for button in (self.before, self.after):
            allow(button, "" if self._failures else why or "The cases shown have no failure.")
        for control in (self.note, self.heat, self.fill):
            allow(control, "" if shown is not None else why or "Choose a case in the table first.")
        self.summary.setText(self._about() if folder is not None else _HINT)
        self.where.setText(self._about_failure())
        self.result.setText(self._about_case())
        name = "" if shown is None else shown.case.name
        text = "" if folder is None or not name else folder.notes().get(name, "")
        if self.note.property("case") != name or not self.note.hasFocus():
            with QSignalBlocker(self.note):
                self.note.setText(text)
        self.note.setProperty("case", name)

    def _about(self) -> str:
        folder = self.folder
        if folder is None:
            return ""
        pooled = folder.metrics["conventions"]["tissue"]
        lesions = folder.metrics["lesions"]
        precision = pooled["average_precision"]
        parts = [
            f"<b>{folder.path.name}</b>: {folder.metrics['model']['method'].upper()}",
            f"{len(self.table.rows)} of {len(folder.rows)} cases",
        ]
        if precision is not None:
            parts.append(f"AP {precision:.3f} over tissue")
        if lesions["lesions"]:
            met = round(lesions["sensitivity"] * lesions["lesions"])
            parts.append(f"{met} of {lesions['lesions']} lesions met")
        parts.append(
            f"{lesions['false_findings_a_scan']:.2f} false findings a scan at "
            f"{100 * lesions['rate']:g} %"
        )
        return ", ".join(parts) + "."

    def _about_failure(self) -> str:
        if self.folder is None:
            return ""
        if not self._failures:
            return "No failure in these cases."
        if self._place < 0:
            return f"{len(self._failures)} failures in these cases."
        failure = self._failures[self._place]
        rate = 100 * self.folder.metrics["lesions"]["rate"]
        return (
            f"{self._place + 1} of {len(self._failures)}, judged at {rate:g} %: {failure.text()}."
        )

    def _about_case(self) -> str:
        shown = self.shown
        if shown is None:
            return "Double-click a case to open it." if self.folder is not None else ""
        outcome = shown.outcome
        parts = [f"<b>{shown.case.name}</b> at {100 * shown.rate:g} %: Dice {outcome.dice:.2f}"]
        if outcome.average_precision is not None:
            parts.append(f"AP {outcome.average_precision:.2f}")
        if outcome.lesions:
            parts.append(f"{outcome.met} of {outcome.lesions} lesions met")
        parts.append(f"{outcome.false} false finding{'' if outcome.false == 1 else 's'}")
        return ", ".join(parts) + "."


_HINT = "Open the folder that evaluate wrote, to see where a model fails."
