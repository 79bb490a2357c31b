"""The settings in a dialog of our own, for a napari whose Preferences have no page for plugins."""

from __future__ import annotations

from functools import partial

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from napari_dino_uad.widgets.forms import wide_form
from napari_dino_uad.widgets.settings import SETTINGS, change_setting, setting

__all__ = ["SettingsDialog"]


class SettingsDialog(QDialog):
    """Shows all settings; each is kept as it is changed.

    Parameters
    ----------
    parent : QWidget, optional
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Settings of DINO UAD")
        self.controls = {name: _control(name) for name in SETTINGS}
        rows = [
            ("" if isinstance(control, QCheckBox) else SETTINGS[name].title, control)
            for name, control in self.controls.items()
        ]
        layout = QVBoxLayout(self)
        layout.addLayout(wide_form(rows))
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        layout.addWidget(buttons)


def _control(name: str) -> QWidget:
    """Make the control of a setting."""
    one, value, change = SETTINGS[name], setting(name), partial(change_setting, name)
    control: QWidget
    if isinstance(one.default, bool):
        control = QCheckBox(one.title)
        control.setChecked(value)
        control.toggled.connect(change)
    elif isinstance(one.default, float):
        control = QDoubleSpinBox()
        control.setRange(0.1, 10_000)
        control.setDecimals(1)
        control.setValue(value)
        control.valueChanged.connect(change)
    elif one.choices:
        control = QComboBox()
        control.addItems(one.choices)
        control.setCurrentText(value)
        control.currentTextChanged.connect(change)
    else:
        control = QLineEdit(value)
        control.editingFinished.connect(lambda: change(control.text().strip()))
    control.setToolTip(one.tooltip)
    return control
