"""Dialogs that choose files and folders, and open where the user chose last."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_dino_uad.widgets.settings import recall, remember

__all__ = ["MODEL_FILES", "choose_file", "choose_files", "choose_folder", "choose_new_file"]

#: Filter for model files.
MODEL_FILES = "Models (*.safetensors)"


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


def choose_new_file(parent: QWidget, title: str, setting: str, kinds: str) -> Path | None:
    """Ask for a file to write; parameters as in `choose_file`."""
    name, _ = QFileDialog.getSaveFileName(parent, title, recall(setting), kinds)
    return _chosen(name, setting)


def choose_folder(parent: QWidget, title: str, setting: str) -> Path | None:
    """Ask for a folder, and remember it; parameters as in `choose_file`."""
    name = QFileDialog.getExistingDirectory(parent, title, recall(setting))
    if not name:
        return None
    remember(setting, name)
    return Path(name)


def _chosen(name: str, setting: str) -> Path | None:
    if not name:
        return None
    remember(setting, str(Path(name).parent))
    return Path(name)
