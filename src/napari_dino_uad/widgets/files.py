"""Dialogs that choose files and folders, and open where the user chose last."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_dino_uad.widgets.settings import recall, remember

__all__ = [
    "already_there",
    "choose_file",
    "choose_files",
    "choose_folder",
    "choose_model",
    "choose_new_model",
    "may_replace",
]

_MODELS = "Models (*.safetensors)"
_MODEL_FOLDER = "model folder"


def choose_file(parent: QWidget, title: str, setting: str, kinds: str) -> Path | None:
    """Ask for an existing file.

    Parameters
    ----------
    parent : QWidget
        What the dialog belongs to.
    title : str
        Title of the dialog.
    setting : str
        Under which the folder is remembered.
    kinds : str
        Filter, in Qt's notation.

    Returns
    -------
    Path or None
        None if the user cancelled.
    """
    name, _ = QFileDialog.getOpenFileName(parent, title, recall(setting), kinds)
    return _chosen(name, setting)


def choose_files(parent: QWidget, title: str, setting: str, kinds: str) -> list[Path]:
    """Ask for existing files; parameters as in `choose_file`."""
    names, _ = QFileDialog.getOpenFileNames(parent, title, recall(setting), kinds)
    if names:
        _chosen(names[0], setting)
    return [Path(name) for name in names]


def choose_model(parent: QWidget) -> Path | None:
    """Ask for a model file to load; None if the user cancelled."""
    return choose_file(parent, "Load a model", _MODEL_FOLDER, _MODELS)


def choose_new_model(parent: QWidget) -> Path | None:
    """Ask for a model file to write; None if the user cancelled."""
    name, _ = QFileDialog.getSaveFileName(parent, "Save the model", recall(_MODEL_FOLDER), _MODELS)
    file = _chosen(name, _MODEL_FOLDER)
    return None if file is None else file.with_suffix(".safetensors")


def choose_folder(parent: QWidget, title: str, setting: str) -> Path | None:
    """Ask for a folder, and remember it; parameters as in `choose_file`."""
    name = QFileDialog.getExistingDirectory(parent, title, recall(setting))
    if not name:
        return None
    remember(setting, name)
    return Path(name)


def already_there(paths: Iterable[Path]) -> list[str]:
    """List the names of files that exist; what cannot be looked at fails later, when written."""
    try:
        return [path.name for path in paths if path.exists()]
    except OSError:
        return []


def may_replace(parent: QWidget, paths: Iterable[Path]) -> bool:
    """Ask before files that exist are replaced; return True if none does."""
    there = already_there(paths)
    if not there:
        return True
    answer = QMessageBox.question(
        parent,
        "Replace earlier results?",
        f"This folder already has {', '.join(there)}. Replace them?",
    )
    return bool(answer == QMessageBox.StandardButton.Yes)


def _chosen(name: str, setting: str) -> Path | None:
    if not name:
        return None
    remember(setting, str(Path(name).parent))
    return Path(name)
