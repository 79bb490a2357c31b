"""A form for a settings dataclass: a control for each field, with its docs as the tooltip."""

from __future__ import annotations

import dataclasses
import re
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, SpinBox
from magicgui.widgets.bases import ValueWidget
from qtpy.QtWidgets import QFormLayout, QLabel, QSizePolicy, QWidget

__all__ = ["SettingsForm", "describe_fields"]

_NARROW = 80


def describe_fields(settings: type) -> dict[str, str]:
    """Return the description of each attribute from the numpy docstring of a dataclass.

    Returns
    -------
    dict
        Text by field name, "" where the docstring has none.
    """
    names = [field.name for field in dataclasses.fields(settings)]
    out = dict.fromkeys(names, "")
    current: list[str] = []
    for line in (settings.__doc__ or "").splitlines():
        head = re.match(r"\s*(\w+(?:, \w+)*) : ", line)
        if head and head.group(1).split(", ")[0] in out:
            current = head.group(1).split(", ")
        elif line.strip():
            for name in current:
                out[name] = f"{out[name]} {line.strip()}".strip()
        else:
            current = []
    return out


class SettingsForm(QWidget):
    """Controls for the fields of a settings dataclass.

    Parameters
    ----------
    settings : dataclass
        An instance; its values are shown first. A field that is left alone keeps its value.
    hidden : tuple of str
        Fields that have a control elsewhere.
    """

    def __init__(self, settings: Any, hidden: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._settings = settings
        self.controls: dict[str, ValueWidget[Any]] = {}
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        hints, docs = get_type_hints(type(settings)), describe_fields(type(settings))
        for field in dataclasses.fields(settings):
            if field.name in hidden:
                continue
            control = _control(hints[field.name], getattr(settings, field.name))
            if control is None:
                continue
            control.native.setToolTip(docs[field.name])
            # Its widest value must not make the dock wider.
            control.native.setMinimumWidth(_NARROW)
            control.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            label = QLabel(field.name.replace("_", " ").capitalize())
            label.setToolTip(docs[field.name])
            form.addRow(label, control.native)
            self.controls[field.name] = control

    def changed(self) -> dict[str, Any]:
        """Return the fields whose value the user changed.

        Raises
        ------
        InputError
            If a field for a number holds other text.
        """
        out = {}
        for name, control in self.controls.items():
            value = _value(name, control)
            if value != getattr(self._settings, name):
                out[name] = value
        return out


def _control(hint: Any, value: Any) -> ValueWidget[Any] | None:
    origin = get_origin(hint)
    if origin is Literal:
        return ComboBox(choices=list(get_args(hint)), value=value)
    if origin in (Union, types.UnionType) and set(get_args(hint)) <= {int, float, type(None)}:
        line = LineEdit(value="" if value is None else str(value))
        line.native.setPlaceholderText("automatic")
        return line
    if hint is bool:
        return CheckBox(value=value)
    if hint is int:
        return SpinBox(value=value, min=0, max=10_000_000)
    if hint is float:
        # Enough digits for a ridge or a step size.
        step = 10.0 ** (len(f"{value:.0e}".split("e")[0]) - 2) if value else 0.1
        return FloatSpinBox(value=value, min=0.0, max=1e9, step=min(step, 1.0) * 0.1)
    return None


def _value(name: str, control: ValueWidget[Any]) -> Any:
    from napari_dino_uad.core.errors import InputError

    if not isinstance(control, LineEdit):
        return control.value
    text = str(control.value).strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"{name.replace('_', ' ').capitalize()} takes a number, or nothing for automatic; got "
            f"{text!r}, correct it under Advanced."
        ) from error
