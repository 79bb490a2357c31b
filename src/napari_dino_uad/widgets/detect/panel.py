"""The threshold, and the findings above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_dino_uad.core.maps.finding_settings import FindingSettings
from napari_dino_uad.core.maps.findings import SizeUnit
from napari_dino_uad.layer_data import METADATA
from napari_dino_uad.widgets.controls import WrapLabel, rule, small_label, warning_label
from napari_dino_uad.widgets.layers import layer_size_unit
from napari_dino_uad.widgets.results.texts import (
    describe_cursor,
    describe_deleted,
    describe_differences,
    describe_edits,
    describe_findings,
    describe_left_out,
    describe_scalp,
)
from napari_dino_uad.widgets.threshold import ThresholdControl

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["FindingsPanel"]

# Room in pixels for the buttons and the frame of a number box in napari's style.
_BUTTONS = 52


class FindingsPanel(QWidget):
    """Shows one detection: its warning, threshold, findings and corrections.

    Signals
    -------
    dragged
        The threshold moves.
    changed
        The threshold has stopped moving, or another setting changed.
    edits_discarded
        The user wants the findings without the corrections.
    trusted
        The user wants to see a map in spite of its warning.
    opacity_changed : float
        Of the heat, 0 to 1.
    """

    dragged = Signal()
    changed = Signal()
    edits_discarded = Signal()
    trusted = Signal()
    opacity_changed = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self.warning = warning_label()
        self.show_anyway = QPushButton("Show anyway")
        self.show_anyway.setToolTip("Show heat and volumes in spite of the warning.")
        self.show_anyway.hide()
        self.notices = small_label()
        self.opacity = _opacity_slider()
        self.threshold = ThresholdControl()
        self.minimum_size = QDoubleSpinBox()
        self.minimum_size.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.minimum_size.setToolTip(
            "Smaller findings are not shown; what counts is the part of a finding above the score "
            "that half as much healthy tissue exceeds. In ml; in mm² for a single slice; in pixels "
            "if the file has no spacing."
        )
        self._set_unit(SizeUnit.of((1.0, 1.0, 1.0), False, True))
        self.tissue_only = QCheckBox("Tissue only")
        self.tissue_only.setChecked(True)
        self.tissue_only.setToolTip(
            "Leave out the dark background, which the model has not learnt."
        )
        self.without_scalp = QCheckBox("Leave out scalp")
        self.without_scalp.setToolTip(
            "In heads with a skull, leave out what lies outside it. It can take away some of a "
            "lesion at the surface of the brain: up to 7 % of it in 15 patients with gliomas. It "
            "has no effect where no skull is found."
        )
        size_row = QHBoxLayout()
        size_row.addWidget(QLabel("Smallest"))
        size_row.addWidget(self.minimum_size)
        size_row.addStretch()
        size_row.addWidget(self.tissue_only)
        opacity_row = QHBoxLayout()
        opacity_row.addWidget(QLabel("Opacity"))
        opacity_row.addWidget(self.opacity, 1)
        self.summary = WrapLabel()
        self.edits = small_label()
        self.discard = QPushButton("Discard edits")
        self.discard.setToolTip("Remove everything that was painted or erased by hand.")
        self._edits_row = QWidget()
        edits_row = QHBoxLayout(self._edits_row)
        edits_row.setContentsMargins(0, 0, 0, 0)
        edits_row.addWidget(self.edits, 1)
        edits_row.addWidget(self.discard)
        self.scalp = small_label()
        self.left_out = small_label()
        self.deleted = small_label()
        self.cursor_text = small_label()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.warning)
        layout.addWidget(self.show_anyway)
        layout.addWidget(self.notices)
        layout.addWidget(rule())
        layout.addWidget(self.threshold)
        layout.addLayout(size_row)
        layout.addWidget(self.without_scalp)
        layout.addWidget(self.scalp)
        layout.addLayout(opacity_row)
        for widget in (
            self.summary,
            self._edits_row,
            self.left_out,
            self.deleted,
            self.cursor_text,
        ):
            layout.addWidget(widget)
        self.threshold.dragged.connect(lambda _: self.dragged.emit())
        self.threshold.rested.connect(lambda _: self.changed.emit())
        self.minimum_size.valueChanged.connect(lambda _: self.changed.emit())
        for box in (self.tissue_only, self.without_scalp):
            box.toggled.connect(lambda _: self.changed.emit())
        self.tissue_only.toggled.connect(self.without_scalp.setEnabled)
        self.discard.clicked.connect(lambda _: self.edits_discarded.emit())
        self.show_anyway.clicked.connect(lambda _: self.trusted.emit())
        self.opacity.valueChanged.connect(lambda value: self.opacity_changed.emit(value / 100))
        self.show_findings(None)

    @property
    def settings(self) -> FindingSettings:
        """The current settings."""
        return FindingSettings(
            self.threshold.rate,
            self.minimum_size.value(),
            self.tissue_only.isChecked(),
            without_scalp=self.without_scalp.isChecked(),
        )

    def show_detection(self, detection: Detection) -> None:
        """Show a detection, on the scale of its own model."""
        self._take_unit(detection.scan)
        self.threshold.set_calibration(detection.model.calibration)
        self.threshold.show_rate(detection.settings.rate)
        # A scan of another kind may look typical on this scale, which its level is taken off.
        if detection.histogram is not None and not detection.held:
            self.threshold.show_scan(detection.edges, detection.histogram)
        controls = (self.minimum_size, self.tissue_only, self.without_scalp)
        for control in controls:
            control.blockSignals(True)
        self.minimum_size.setValue(detection.settings.minimum_size)
        self.tissue_only.setChecked(detection.settings.tissue_only)
        self.without_scalp.setChecked(detection.settings.without_scalp)
        for control in controls:
            control.blockSignals(False)
        self._warn(describe_differences(detection), detection.held)
        self._notice(detection.scan, detection.remark)
        self.cursor_text.setText("")
        self.show_findings(detection)

    def show_nothing(self, scan: Image | None, model: FittedModel | None) -> None:
        """Show that a scan has no result, and the scale of the chosen model."""
        if scan is not None:
            self._take_unit(scan)
        self.threshold.set_calibration(None if model is None else model.calibration)
        self.threshold.show_rate(self.threshold.rate)
        self._warn("", False)
        self._notice(scan)
        self.cursor_text.setText("")
        self.show_findings(None)

    def show_findings(self, detection: Detection | None) -> None:
        """Show the findings, greyed out until they match the settings."""
        self.show_anyway.setVisible(detection is not None and detection.held)
        self.summary.setText("" if detection is None else describe_findings(detection))
        self.summary.setEnabled(detection is None or detection.current)
        edits = "" if detection is None else describe_edits(detection)
        self.edits.setText(edits)
        self._edits_row.setVisible(bool(edits))
        for label, describe in (
            (self.scalp, describe_scalp),
            (self.left_out, describe_left_out),
            (self.deleted, describe_deleted),
        ):
            text = "" if detection is None else describe(detection)
            label.setText(text)
            label.setVisible(bool(text))

    def read_cursor(
        self, detection: Detection | None, world: tuple[float, ...], *, again: bool = False
    ) -> None:
        """Describe what lies under the cursor.

        Parameters
        ----------
        detection : Detection or None
            The detection on screen.
        world : tuple of float
            Position of the cursor.
        again : bool
            Whether the slice has changed under a cursor at rest; an empty readout then stays
            empty.
        """
        if again and not self.cursor_text.text():
            return
        self.cursor_text.setText("" if detection is None else describe_cursor(detection, world))

    def show_opacity(self, opacity: float) -> None:
        """Move the slider of the opacity, without a signal."""
        with QSignalBlocker(self.opacity):
            self.opacity.setValue(round(100 * opacity))

    def _warn(self, text: str, held: bool) -> None:
        self.warning.setText(text)
        self.warning.setVisible(bool(text))
        self.show_anyway.setVisible(held)

    def _notice(self, scan: Image | None, remark: str = "") -> None:
        """Say what the user should know of how a scan was read, and of how typical it is."""
        lines = () if scan is None else _notices(scan)
        text = "\n".join(line for line in (*lines, remark) if line)
        self.notices.setText(text)
        self.notices.setVisible(bool(text))

    def _take_unit(self, scan: Image) -> None:
        unit = layer_size_unit(scan)
        if unit.name != self._unit.name:
            self._set_unit(unit)

    def _set_unit(self, unit: SizeUnit) -> None:
        """Show sizes in another unit, beginning with its own smallest size."""
        self._unit = unit
        with QSignalBlocker(self.minimum_size):
            self.minimum_size.setRange(0, 1000 * unit.smallest)
            self.minimum_size.setDecimals(unit.decimals)
            self.minimum_size.setSingleStep(unit.smallest / 2)
            self.minimum_size.setSuffix(f" {unit.name}")
            self.minimum_size.setValue(unit.smallest)
        # napari's style would make the box narrower than its text and its two buttons.
        longest = f"{1000 * unit.smallest:.{unit.decimals}f} {unit.name}"
        width = self.minimum_size.fontMetrics().horizontalAdvance(longest)
        self.minimum_size.setMinimumWidth(width + _BUTTONS)


def _opacity_slider() -> QSlider:
    slider = QSlider(Qt.Orientation.Horizontal)
    slider.setRange(0, 100)
    slider.setValue(100)
    slider.setToolTip(
        "How strongly the heat covers the scan. Higher scores are always more opaque than lower "
        "ones. Hold H to hide heat and outlines."
    )
    return slider


def _notices(scan: Image) -> tuple[str, ...]:
    """Return what the user should know of how a scan was read."""
    return tuple(scan.metadata.get(METADATA, {}).get("notices", ()))
