"""The Fit widget, made of the scans, the model, the run and the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QScrollArea

from napari_dino_uad.widgets.controls import (
    DockWidget,
    RunControl,
    research_notice,
    rule,
    small_label,
)
from napari_dino_uad.widgets.files import choose_model, choose_new_model
from napari_dino_uad.widgets.fit.advanced import Advanced
from napari_dino_uad.widgets.fit.course import Course, kept_fits
from napari_dino_uad.widgets.fit.model_choice import ModelChoice
from napari_dino_uad.widgets.fit.pipelines import Request, fitter, load_settings, saver
from napari_dino_uad.widgets.fit.result import Result
from napari_dino_uad.widgets.fit.scans import HealthyScans
from napari_dino_uad.widgets.forms import text_of
from napari_dino_uad.widgets.session import read_model, session
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.core.scans.cohort import Case

__all__ = ["FitWidget"]

_LAID_OUT_MS = 50


class FitWidget(DockWidget):
    """Fit a model on healthy scans.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer the widget is docked in.

    Attributes
    ----------
    fitted : FittedModel or None
        The last model that was fitted or loaded.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.job = Job(self)
        self.loading = Job(self)
        self.saving = Job(self)
        self._settings_job = Job(self)
        self.fitted: FittedModel | None = None
        self._settings: dict[str, Any] = {}
        self._course = Course()
        self._build(self._viewer)
        self._connect()
        # The settings of the methods need torch, which takes seconds to import.
        self._settings_job.start(load_settings)
        self._on_backbone()
        self._update_state()

    def _build(self, viewer: Viewer) -> None:
        self.scans = HealthyScans(viewer)
        self.looking = self.scans.looking
        self.paths, self.pattern = self.scans.paths, self.scans.pattern
        self.mask_pattern, self.mask_geometry = self.scans.mask_pattern, self.scans.mask_geometry
        self.chosen = ModelChoice()
        self.method, self.plane = self.chosen.method, self.chosen.plane
        self.backbone, self.weights = self.chosen.backbone, self.chosen.weights
        self.advanced = Advanced()
        self.input_size, self.layers = self.advanced.input_size, self.advanced.layers
        self.run = RunControl(
            self.job,
            "Fit",
            "Learn what is normal from these scans.",
            "Stop; features and finished epochs are kept on disk where the cache is on.",
            remarks=False,
        )
        self.kept = small_label()
        self.result = Result()
        for widget in (self.scans, rule(), self.chosen, self.advanced.fold, self.result):
            self.content.addWidget(widget)
        self.content.addStretch()
        margins = self.content.contentsMargins()
        self.footer.setContentsMargins(margins.left(), 0, margins.right(), margins.bottom())
        for widget in (rule(), self.run, self.kept):
            self.footer.addWidget(widget)
        self.footer.addLayout(self.result.buttons)
        self.footer.addWidget(research_notice())

    def _connect(self) -> None:
        self.scans.changed.connect(self._update_state)
        self.backbone.changed.connect(self._on_backbone)
        self.method.changed.connect(self._on_method)
        self.run.start.clicked.connect(self.fit)
        self.run.cancel.clicked.connect(self.cancel)
        self.result.save.clicked.connect(self._choose_save)
        self.result.load.clicked.connect(self._choose_load)
        self._settings_job.succeeded.connect(self._on_settings)
        self.job.progressed.connect(self._on_progress)
        self.job.succeeded.connect(self._on_fitted)
        self.loading.progressed.connect(lambda progress: self._tell_kept(progress.note))
        self.loading.succeeded.connect(self._on_loaded)
        self.saving.succeeded.connect(self.run.say)
        for job in (self._settings_job, self.loading, self.saving):
            job.failed.connect(self.run.complain)
        self.job.stopped.connect(self._update_state)
        self.follow_theme(self.result.paint)

    @property
    def cases(self) -> list[Case]:
        """The healthy scans that were found."""
        return self.scans.cases

    def add(self, entries: Sequence[Path | Image]) -> None:
        """Add files, folders or image layers to the list of healthy scans."""
        self.scans.add(entries)

    # Choices ------------------------------------------------------------------------------

    def _on_backbone(self, *_: Any) -> None:
        from napari_dino_uad.core.backbones.backbone import backbone_spec

        spec = backbone_spec(self.backbone.value)
        self.advanced.show_backbone(spec.input_size, spec.layers_text)

    def _on_settings(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._on_method()
        self._tell_kept(kept_fits())
        self._update_state()

    def _tell_kept(self, text: str) -> None:
        self.kept.setText(text)
        self.kept.setVisible(bool(text))

    def _on_method(self, *_: Any) -> None:
        if self.method.value in self._settings:
            self.advanced.show_method(self._settings[self.method.value])

    # Fitting ------------------------------------------------------------------------------

    def fit(self, *_: Any) -> None:
        """Fit with the present choices."""
        if self.advanced.form is None or not self.cases:
            self._update_state()
            return
        try:
            request = self._read(self.advanced.form.changed())
        except ValueError as error:
            self.run.complain(str(error))
            return
        self.result.clear()
        self._tell_kept("")
        self._course = Course()
        self.job.start(fitter(request))
        self._update_state()

    def _read(self, settings: dict[str, Any]) -> Request:
        """Read all controls, so that the worker thread needs none of them."""
        from napari_dino_uad.core.backbones.backbone import backbone_spec

        return Request(
            cohort=self.scans.read(),
            method=self.method.value,
            settings=settings,
            backbone=backbone_spec(self.backbone.value, text_of(self.layers)).key,
            weights=self.chosen.weights_file,
            planes=self.chosen.planes,
            input_size=self.input_size.value(),
            window=self.advanced.window_level.value,
            neighbours=self.advanced.neighbours.isChecked(),
            maps=self.advanced.maps,
            seed=self.advanced.seed.value(),
            pictures=self.advanced.pictures.isChecked(),
        )

    def cancel(self, *_: Any) -> None:
        """Stop fitting."""
        if self.job.cancel():
            self.run.say(self._course.describe_stop())

    def release(self) -> None:
        """Stop all jobs; a fit that is running keeps what it has computed, and the user is told."""
        if self.job.running:
            from napari.utils.notifications import show_info

            show_info(self._course.describe_stop())
        super().release()

    def _on_progress(self, progress: Progress) -> None:
        self._course.take(progress)
        if text := self._course.describe():
            self._tell_kept(text)

    def _on_fitted(self, model: FittedModel) -> None:
        self.run.say("Fitted. Detect can use it now; save it to keep it.")
        name = session().add_model(f"{model.normative.method} (unsaved)", model)
        self._show_model(model, f"{name}.")

    def _show_model(self, model: FittedModel, head: str) -> None:
        self.fitted = model
        self.result.show_model(model, head, self._course.engine)
        self._update_state()
        # After the layout has made room for it.
        QTimer.singleShot(_LAID_OUT_MS, self._scroll_to_result)

    def _scroll_to_result(self) -> None:
        area = self.findChild(QScrollArea)
        if area is not None:
            # It is the last part; only down, since the dock must not move sideways.
            area.verticalScrollBar().setValue(area.verticalScrollBar().maximum())

    # Files --------------------------------------------------------------------------------

    def _choose_save(self) -> None:
        file = choose_new_model(self)
        if file is not None:
            self.save(file)

    def save(self, path: Path) -> None:
        """Write the last model to a file, in the background."""
        if self.fitted is not None:
            self.saving.start(saver(self.fitted, path))

    def _choose_load(self) -> None:
        file = choose_model(self)
        if file is not None:
            self.load(file)

    def load(self, path: Path) -> None:
        """Load a model file, in the background."""
        self.loading.start(lambda: read_model(path))

    def _on_loaded(self, result: tuple[str, FittedModel]) -> None:
        name, model = result
        session().add_model(name, model)
        self._show_model(model, f"Loaded {name}.")

    def _update_state(self, *_: Any) -> None:
        reason = ""
        if not self.cases:
            reason = "Choose healthy scans first."
            if self.scans.refused:
                reason = "No scan can be used yet; the line below the list says why."
        elif self.advanced.form is None:
            reason = "Loading…"
        self.run.allow("" if self.looking.running else reason)
        self.result.allow_saving(self.fitted is not None)
