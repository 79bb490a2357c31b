"""The Evaluate widget: a model against lesion masks."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.texts import OVERALL, number
from napari_dino_uad.widgets.controls import (
    DockWidget,
    RunControl,
    WrapLabel,
    allow,
    research_notice,
    rule,
)
from napari_dino_uad.widgets.evaluate.figures import FiguresPanel
from napari_dino_uad.widgets.evaluate.pipelines import (
    Compared,
    Evaluated,
    cohort_evaluator,
    reporter,
    scan_evaluator,
)
from napari_dino_uad.widgets.files import choose_folder, choose_model
from napari_dino_uad.widgets.forms import (
    browse_button,
    combo_box,
    in_row,
    line_edit,
    text_of,
    wide_form,
)
from napari_dino_uad.widgets.layer_masks import mask_reader
from napari_dino_uad.widgets.layers import is_ours
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.session import read_model, session
from napari_dino_uad.widgets.threshold import format_rate
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["EvaluateWidget"]


class EvaluateWidget(DockWidget):
    """Compare a model's scores with lesion masks.

    Either the result of the scan shown with a labels layer, or a model with a folder of scans and
    masks; the latter gives the same numbers and files as the command line.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.

    Attributes
    ----------
    compared : Compared or None
        What is shown of the scan.
    evaluated : Evaluated or None
        What is shown of a folder.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._results = results_of(self._viewer)
        self.compared: Compared | None = None
        self.evaluated: Evaluated | None = None
        # Why the comparison of a detection failed.
        self._failure: tuple[Detection, str] | None = None
        self._build()
        self._connect()
        self._refresh()

    # Building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.job, self.scan_job = Job(self), Job(self)
        self.loading, self.report_job = Job(self), Job(self)
        self.masks = combo_box(
            lambda _: self._mask_layers(), "A labels layer with the lesions of the scan shown."
        )
        self.compare = QPushButton("Compare")
        self.compare.setToolTip("Compare at the threshold of Detect.")
        self.scan_text = WrapLabel()
        self.scans = line_edit(
            "Folder or table of scans and masks",
            "Or a folder of BIDS, of the BMAD benchmark, MVTec AD or VisA.",
        )
        self.pattern = line_edit("none", "Names of scans, such as *_flair.nii.gz; FLAIR in BIDS.")
        self.mask_pattern = line_edit("none", "File names of masks, such as *_lesion.nii.gz.")
        self.out = line_edit("Folder for the results", "What is there already is not done again.")
        self.model = combo_box(
            lambda _: list(session().models), "A model fitted here or loaded from a file."
        )
        load = QPushButton("Load…")
        load.setToolTip("Load a model file (.safetensors).")
        load.clicked.connect(self._load)
        models = QHBoxLayout()
        models.addWidget(self.model.native, 1)
        models.addWidget(load)
        self.run = RunControl(
            self.job,
            "Evaluate",
            "Score all scans, compare with their masks, and write the results.",
            "Stop; finished scans are kept, and the next run goes on.",
            remarks=False,
        )
        for job in (self.loading, self.report_job, self.scan_job):
            self.run.watch(job)
        self.figures = FiguresPanel()
        self.browse = QPushButton("Browse failures")
        self.browse.setToolTip("Look at missed lesions and false alarms one by one.")
        self.report = QPushButton("Write report")
        self.report.setToolTip("One HTML page with figures, curves and pictures, in the results.")
        add = self.content.addWidget
        add(QLabel("<b>The scan shown</b>"))
        row = QHBoxLayout()
        row.addWidget(self.masks.native, 2)
        row.addWidget(self.compare, 1)
        self.content.addLayout(row)
        add(self.scan_text)
        add(rule())
        add(QLabel("<b>A folder of scans and masks</b>"))
        pick = [
            self._with_browser(edit, title, setting)
            for edit, title, setting in (
                (self.scans, "Scans and masks", "folders/evaluated_scans"),
                (self.out, "Results", "folders/evaluations"),
            )
        ]
        rows = [
            ("Scans", pick[0]),
            ("Pattern", self.pattern),
            ("Masks", self.mask_pattern),
            ("Model", models),
            ("Results", pick[1]),
        ]
        self.content.addLayout(wide_form(rows))
        add(self.run)
        self.content.addLayout(in_row(self.browse, self.report))
        add(self.figures)
        self.content.addStretch()
        add(research_notice())

    def _with_browser(self, edit: Any, title: str, setting: str) -> QHBoxLayout:
        def choose() -> None:
            path = choose_folder(self, title, setting)
            if path is not None:
                edit.setText(str(path))

        return in_row(edit, browse_button(f"Choose: {title.lower()}.", choose))

    def _connect(self) -> None:
        self.compare.clicked.connect(self.compare_scan)
        self.run.start.clicked.connect(self.evaluate)
        self.run.cancel.clicked.connect(self.job.cancel)
        self.job.succeeded.connect(self._on_evaluated)
        self.scan_job.succeeded.connect(self._on_compared)
        self.loading.succeeded.connect(self._on_loaded)
        self.report_job.succeeded.connect(lambda path: self.run.say(f"Written: {path}"))
        self.scan_job.failed.connect(self._on_scan_failed)
        for job in (self.loading, self.report_job):
            job.failed.connect(self.run.complain)
        for job in (self.job, self.scan_job, self.loading, self.report_job):
            job.stopped.connect(self._refresh)
        for edit in (self.scans, self.pattern, self.mask_pattern, self.out):
            edit.textChanged.connect(self._refresh)
        self.model.changed.connect(self._refresh)
        self.browse.clicked.connect(self._browse)
        self.report.clicked.connect(self._write_report)
        self.follow_theme(self.figures.paint)
        self.listen(
            (self._results.scan_chosen, self._refresh),
            (self._results.changed, self._refresh),
            (self._results.updated, self._on_updated),
            (session().model_added, self._on_models),
        )

    # The scan shown -----------------------------------------------------------------------

    def _mask_layers(self) -> list[Labels]:
        return [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Labels) and not is_ours(layer)
        ]

    def compare_scan(self) -> None:
        """Compare the result of the scan shown with the labels layer chosen."""
        detection, mask = self._results.shown, self.masks.value
        if detection is None or mask is None:
            return
        self.compared = self._failure = None
        try:
            bring = mask_reader(mask, detection.scan)
        except InputError as error:
            self._on_scan_failed(str(error))
            return
        self.scan_job.start(scan_evaluator(detection, mask.name, bring))
        self._refresh()

    def _on_scan_failed(self, text: str) -> None:
        if self._results.shown is not None:
            self._failure = (self._results.shown, text)
        self._refresh()

    def _on_compared(self, compared: Compared) -> None:
        if compared.detection is self._results.shown:
            self.compared = compared
        self._refresh()

    def _on_updated(self, detection: Detection) -> None:
        if self.compared is not None and detection is self.compared.detection:
            self._refresh()

    def _scan_text(self) -> str:
        """Describe the comparison; it is out of date when the scan or the threshold changed."""
        compared, shown = self.compared, self._results.shown
        if shown is None or shown.anomaly is None:
            return "Press Detect on a scan first."
        if not self._mask_layers():
            return "Open or paint a labels layer with its lesions."
        if self._failure is not None and self._failure[0] is shown:
            return f'<span style="color: #e8604c">{html.escape(self._failure[1])}</span>'
        if compared is None or compared.detection is not shown:
            return ""
        rate = format_rate(compared.settings.rate)
        if compared.settings.rate != shown.settings.rate:
            return f"The threshold has moved from {rate}; press Compare again."
        if not compared.settings.same(shown.settings):
            return "The findings have changed since; press Compare again."
        row = compared.row
        parts = [f"{title} {number(row[name])}" for name, title in OVERALL.items() if row[name]]
        dice = row[f"dice_at_fpr_{compared.settings.rate:g}"]
        parts.append(f"Dice at {rate} FPR {dice:.3f}")
        return (
            f"<b>{shown.model_name}</b> against {compared.mask_name}, over tissue: "
            f"{', '.join(parts)}. {row['lesions_met']} of {row['lesions']} lesions met, "
            f"{row['false_findings']} false. {compared.note}"
        ).strip()

    # A folder -----------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Evaluate the model chosen on the folder."""
        scans, out = text_of(self.scans), text_of(self.out)
        if scans is None or out is None or not self.model.value:
            return
        patterns = text_of(self.pattern), text_of(self.mask_pattern)
        self.evaluated = None
        self.figures.show_evaluation(None)
        self.job.start(cohort_evaluator(Path(scans), patterns, self.model.value, Path(out)))
        self._refresh()

    def _on_evaluated(self, evaluated: Evaluated) -> None:
        self.evaluated = evaluated
        self.figures.show_evaluation(evaluated.folder)
        failed = len(evaluated.folder.failed)
        count = len(evaluated.folder.rows)
        text = f"{evaluated.model_name}: {count} scan{'' if count == 1 else 's'} evaluated"
        if failed:
            name, reason = next(iter(evaluated.folder.failed.items()))
            text += f"; {failed} could not be used, the first: {Path(name).name}: {reason}"
        self.run.say(f"{text.rstrip('.')}. Results in {evaluated.folder.path}")

    def _load(self) -> None:
        path = choose_model(self)
        if path is not None:
            self.loading.start(lambda: read_model(path))
            self._refresh()

    def _on_loaded(self, loaded: tuple[str, Any]) -> None:
        name, model = loaded
        known = session().add_model(name, model)
        self._on_models()
        self.model.value = known
        self.run.say("")

    def _on_models(self, *_: Any) -> None:
        self.model.reset_choices()
        self._refresh()

    def _browse(self) -> None:
        from napari_dino_uad.widgets.commands import open_dock

        if self.evaluated is not None:
            open_dock(self._viewer, "Failures").open(self.evaluated.folder.path)

    def _write_report(self) -> None:
        if self.evaluated is not None:
            self.report_job.start(reporter(self.evaluated.folder))
            self._refresh()

    def _refresh(self, *_: Any) -> None:
        present = self._mask_layers()
        if list(self.masks.choices) != present:
            self.masks.reset_choices()
        shown = self._results.shown
        ready = shown is not None and shown.anomaly is not None and bool(present)
        running = "Wait until the comparison is done." if self.scan_job.running else ""
        allow(self.compare, running if ready else "Needs a result and a labels layer.")
        if self.compared is not None and self.compared.detection is not shown:
            self.compared = None
        self.scan_text.setText(self._scan_text())
        reason = ""
        if not self.model.value:
            reason = "Load or fit a model first."
        elif text_of(self.scans) is None:
            reason = "Choose the folder of scans and masks."
        elif text_of(self.out) is None:
            reason = "Choose a folder for the results."
        self.run.allow(reason)
        running = "Wait until the report is written." if self.report_job.running else ""
        for button in (self.browse, self.report):
            allow(button, "Evaluate first." if self.evaluated is None else running)
