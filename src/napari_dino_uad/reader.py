"""The reader for napari: opens scans on canonical axes, in mm, with their file's geometry."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    from napari_dino_uad.core.scans.volume import Series, Volume

__all__ = ["get_reader"]

LayerData = tuple[NDArray[Any], dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return a function that reads a path, or None if it is not a scan or a label map.

    Parameters
    ----------
    path : str or list of str
        A file, a folder with a DICOM series or a stack of images, or the slices of one scan.

    Returns
    -------
    callable or None
        Takes the path and returns layer data, for a labels layer if the file holds labels.
        Raises `InputError` if the file is damaged.
    """
    from napari_dino_uad.core.scans.dicom.reading import is_dicom
    from napari_dino_uad.core.scans.formats import IMAGE_SUFFIXES, VOLUME_SUFFIXES

    paths = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    if not paths or not all(one.exists() for one in paths):
        return None
    if len(paths) == 1 and paths[0].is_dir():
        return _read if _is_scan_folder(paths[0]) else None
    if any(one.is_dir() for one in paths):
        return None
    endings = (*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)
    if all(one.name.lower().endswith(endings) or is_dicom(one) for one in paths):
        return _read
    return None


def _is_scan_folder(folder: Path) -> bool:
    from napari_dino_uad.core.scans.dicom.reading import list_series
    from napari_dino_uad.core.scans.formats import stack_files

    return bool(stack_files(folder) or list_series(folder))


def _read(path: str | list[str]) -> list[LayerData]:
    from napari_dino_uad.core.scans.labels import is_label_volume
    from napari_dino_uad.layer_data import labels_layer, volume_layer
    from napari_dino_uad.notifications import show_notices

    volume = _volume([Path(one) for one in ([path] if isinstance(path, str) else path)])
    show_notices(volume.named_notices)
    _bind_keys()
    if volume.label_names or is_label_volume(volume):
        return [labels_layer(volume, volume.array, volume.name)]
    return [volume_layer(volume)]


def _bind_keys() -> None:
    """Make the keys for Detect work in the window that reads the scan, if there is one."""
    if threading.current_thread() is not threading.main_thread():
        return
    if "qtpy" in sys.modules and "napari" in sys.modules:
        from napari_dino_uad.widgets.shortcuts import scan_was_opened

        scan_was_opened()


def _volume(paths: list[Path]) -> Volume:
    from napari_dino_uad.core.scans.dicom.reading import is_dicom, series_in
    from napari_dino_uad.core.scans.formats import case_name
    from napari_dino_uad.core.scans.volume import read_series, read_stack, read_volume

    if len(paths) > 1:
        return read_stack(paths)
    path = paths[0]
    if path.is_dir() or is_dicom(path):
        series = series_in(path)
        if len(series) > 1:
            chosen = _choose(path, series)
            return read_series(chosen, path, f"{case_name(path)} {chosen.label}")
        return read_volume(path, allow_constant=True)
    return _one_volume(path)


def _one_volume(path: Path) -> Volume:
    """Read a file; where it has several volumes and there is a window, the one the user chooses."""
    from qtpy.QtWidgets import QApplication

    from napari_dino_uad.core.scans.several import list_volumes
    from napari_dino_uad.core.scans.volume import read_volume

    volumes = list_volumes(path)
    if len(volumes) == 1 or QApplication.instance() is None:
        return read_volume(path, allow_constant=True)
    from napari_dino_uad.widgets.series_picker import pick_volume

    number = pick_volume(path.name, volumes)
    if number is None:
        raise InputError(f"No volume of {path.name} was chosen; open the file again.")
    volume = read_volume(path, volume=number, allow_constant=True)
    return replace(volume, name=f"{volume.name} {volumes[number - 1]}")


def _choose(folder: Path, series: list[Series]) -> Series:
    """Ask which series to open."""
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None:
        listed = "; ".join(f"{one.label} ({one.slices} slices)" for one in series)
        raise InputError(
            f"{folder.name} holds {len(series)} DICOM series: {listed}; read one with "
            "read_volume(path, series=UID)."
        )
    from napari_dino_uad.widgets.series_picker import pick_series

    chosen = pick_series(folder.name, series)
    if chosen is None:
        raise InputError(f"No series of {folder.name} was chosen; open the folder again.")
    return chosen
