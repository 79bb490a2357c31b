"""The reader for napari: opens scans on canonical axes, in mm, with their file's geometry."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_dino_uad.core.scans.volume import Series, Volume

__all__ = ["get_reader"]

LayerData = tuple[NDArray[Any], dict[str, Any], str]

# What napari takes for "read, and there is no layer".
_NO_LAYER: list[Any] = [(None,)]

# Files of a folder that are looked at to see whether it holds DICOM.
_PROBES = 2000


def get_reader(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return a function that reads a path, or None if it is not a scan or a label map.

    napari calls it in the thread of the window, so it looks at no more than names and a few bytes.

    Parameters
    ----------
    path : str or list of str
        A file, a folder with a DICOM series or a stack of images, or the slices of one scan.

    Returns
    -------
    callable or None
        Takes the path and returns layer data, for a labels layer if the file holds labels. With a
        window on screen it reads in a thread, shows errors there and then returns no layer;
        without one it raises `InputError` if the file is damaged.
    """
    from napari_dino_uad.core.scans.dicom.headers import is_dicom
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
    """Return whether a folder holds slices of a scan, or scans, of which reading it names one."""
    from napari_dino_uad.core.scans.dicom.headers import is_dicom
    from napari_dino_uad.core.scans.formats import VOLUME_SUFFIXES, stack_files

    if stack_files(folder):
        return True
    probes = list(islice(_files(folder), _PROBES))
    volumes = any(one.name.lower().endswith(VOLUME_SUFFIXES) for one in probes)
    return volumes or any(map(is_dicom, probes))


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if name[0] != ".")


def _read(path: str | list[str]) -> list[LayerData]:
    """Read on behalf of napari: in a thread if its window is on screen, else at once."""
    from napari_dino_uad.notifications import show_notices
    from napari_dino_uad.widgets.reading import Cancelled, read_beside

    paths = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    name, window = paths[0].name, _window()
    try:
        offers = read_beside(window, f"Looking into {name}…", partial(_offers, paths))
        read = _choose(paths, offers)
        volume, layer = read_beside(window, f"Reading {name}…", partial(_load, read))
    except Cancelled:
        return _NO_LAYER
    except InputError as error:
        if window is None:
            raise
        from napari.utils.notifications import show_error

        # napari would ask for another reader, and not show the sentence.
        show_error(str(error))
        return _NO_LAYER
    show_notices(volume.named_notices)
    if window is not None:
        from napari_dino_uad.widgets.opening import after_opening

        after_opening()
    return [_told_from_others(layer)]


def _told_from_others(layer: LayerData) -> LayerData:
    """Give a mask a colour that no layer of the viewer has."""
    data, keywords, kind = layer
    if kind != "labels":
        return layer
    import napari

    from napari_dino_uad.widgets.label_looks import recolour_mask

    viewer = napari.current_viewer()
    return data, recolour_mask(keywords, () if viewer is None else viewer.layers), kind


def _window() -> QWidget | None:
    """Return napari's window if it is on screen and this is its thread."""
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None or threading.current_thread() is not threading.main_thread():
        return None
    from napari_dino_uad.widgets.window import main_window

    return main_window()


def _offers(paths: list[Path]) -> list[Any]:
    """List the DICOM series of a path, or the volumes of a file; none of a stack of images."""
    from napari_dino_uad.core.scans.dicom.reading import is_dicom, series_in
    from napari_dino_uad.core.scans.several import list_volumes

    path = paths[0]
    if len(paths) > 1:
        return []
    if path.is_dir() or is_dicom(path):
        return list(series_in(path))
    return list(list_volumes(path))


def _load(read: Callable[[], Volume]) -> tuple[Volume, LayerData]:
    """Read a volume and prepare its layer, which takes as long for a large one."""
    from napari_dino_uad.core.scans.labels import is_label_volume
    from napari_dino_uad.layer_data import labels_layer, volume_layer

    _import_what_layers_need()
    volume = read()
    if volume.label_names or is_label_volume(volume):
        from napari_dino_uad.widgets.label_looks import look_of_labels

        data, keywords, kind = labels_layer(volume, volume.array, volume.name)
        return volume, (data, keywords | look_of_labels(volume.name, data), kind)
    heat = _saved_heat(volume)
    return volume, volume_layer(volume) if heat is None else heat


def _saved_heat(volume: Volume) -> LayerData | None:
    """Return the layer of a map that was saved with its record, as heat; None of anything else."""
    from napari_dino_uad.core.results import saved_threshold
    from napari_dino_uad.layer_data import METADATA, volume_layer
    from napari_dino_uad.widgets.layers import cut_colormap
    from napari_dino_uad.widgets.settings import setting

    threshold = None if volume.path is None else saved_threshold(volume.path)
    if threshold is None:
        return None
    highest = float(volume.array.max())
    limits = (threshold, max(highest, threshold + 1e-3))
    data, keywords, kind = volume_layer(volume)
    return (
        data,
        keywords
        | {
            "contrast_limits": limits,
            "colormap": cut_colormap(limits, threshold, setting("colours")),
            "blending": "translucent",
            # A result, which is not offered as a scan.
            "metadata": {METADATA: {**keywords["metadata"][METADATA], "role": "anomaly"}},
        },
        kind,
    )


def _import_what_layers_need() -> None:
    """Import what napari and our results import with the first layer; the window would wait."""
    import pint
    import scipy.ndimage
    import scipy.spatial.transform  # noqa: F401 - turns the camera

    import napari_dino_uad.core.maps.domain_shift
    import napari_dino_uad.core.maps.finding_rows
    import napari_dino_uad.core.maps.review
    import napari_dino_uad.core.results  # noqa: F401

    pint.Unit("mm")


def _choose(paths: list[Path], offers: list[Any]) -> Callable[[], Volume]:
    """Return what reads the one series or volume there is, or the one the user chooses."""
    from napari_dino_uad.core.scans.volume import read_stack, read_volume

    path = paths[0]
    if len(paths) > 1:
        return partial(read_stack, paths)
    if offers and not isinstance(offers[0], str):
        return _choose_series(path, offers)
    if len(offers) > 1:
        return _choose_volume(path, offers)
    return partial(read_volume, path, allow_constant=True)


def _choose_series(path: Path, series: list[Series]) -> Callable[[], Volume]:
    from napari_dino_uad.core.scans.formats import case_name
    from napari_dino_uad.core.scans.volume import read_series

    if len(series) == 1:
        return partial(read_series, series[0], path, allow_constant=True)
    if not _can_ask():
        listed = "; ".join(f"{one.label} ({one.slices_text})" for one in series)
        raise InputError(
            f"{path.name} holds {len(series)} DICOM series: {listed}; read one with "
            "read_volume(path, series=UID)."
        )
    from napari_dino_uad.widgets.series_picker import pick_series

    chosen = pick_series(path.name, series)
    return partial(read_series, chosen, path, f"{case_name(path)} {chosen.label}")


def _choose_volume(path: Path, volumes: list[str]) -> Callable[[], Volume]:
    from napari_dino_uad.core.scans.volume import read_volume

    if not _can_ask():
        return partial(read_volume, path, allow_constant=True)
    from napari_dino_uad.widgets.series_picker import pick_volume

    number = pick_volume(path.name, volumes)

    def read() -> Volume:
        volume = read_volume(path, volume=number, allow_constant=True)
        return replace(volume, name=f"{volume.name} {volumes[number - 1]}")

    return read


def _can_ask() -> bool:
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() is not None
