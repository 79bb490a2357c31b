"""The healthy scans, and the masks of their lesions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QListWidget, QPushButton, QVBoxLayout, QWidget

from napari_dino_uad.widgets.controls import small_label
from napari_dino_uad.widgets.files import choose_files, choose_folder
from napari_dino_uad.widgets.fit.pipelines import Cohort, finder
from napari_dino_uad.widgets.forms import browse_button, combo_box, line_edit, text_of, wide_form
from napari_dino_uad.widgets.layer_masks import LayerScan, find_mask, mask_reader
from napari_dino_uad.widgets.layers import is_scan_layer, volume_reader
from napari_dino_uad.widgets.workers import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_dino_uad.core.scans.cohort import Case
    from napari_dino_uad.widgets.fit.pipelines import FoundCases

__all__ = ["HealthyScans"]

_FILES = (
    "Scans or tables "
    "(*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.dcm *.png *.jpg *.jpeg *.tif *.tiff *.csv *.tsv)"
)
_LAYER = "layer: "
# A pause in typing after which a pattern is tried.
_TYPED_MS = 300
_BUTTONS = {
    "files": ("Files…", "Add scan files."),
    "folder": (
        "Folder…",
        "Add a folder: its scans, or one scan if it holds DICOM or PNG slices.",
    ),
    "layers": (
        "Open layers",
        "Add the scans that are open. A labels layer named like a scan, followed by ' mask', "
        "marks its lesions.",
    ),
    "remove": ("Remove", "Remove the selected line from the list."),
}


class HealthyScans(QWidget):
    """The list of scans with their patterns, and the cases found there.

    Parameters
    ----------
    viewer : Viewer
        Its layers can be added.

    Attributes
    ----------
    cases : list of Case
        The scans that were found.
    refused : bool
        Whether none of those chosen can be used; `found` says why.

    Signals
    -------
    changed
        The cases are being looked for, or were found.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.looking = Job(self)
        self.cases: list[Case] = []
        self.refused = False
        self._patterns: tuple[str, str] | None = None
        self._build()
        self._connect()

    def _build(self) -> None:
        self.paths = QListWidget()
        self.paths.setFixedHeight(74)
        self.paths.setToolTip("Healthy scans, or scans whose lesions have masks.")
        self.buttons: dict[str, QPushButton] = {}
        row = QHBoxLayout()
        for key, (text, tooltip) in _BUTTONS.items():
            self.buttons[key] = QPushButton(text)
            self.buttons[key].setToolTip(tooltip)
            row.addWidget(self.buttons[key])
        self.pattern = line_edit(
            "all scans; or *_flair.nii.gz",
            "Which files of a folder are scans; * stands for what differs by case. In a BIDS data "
            "set FLAIR or ses-1_FLAIR; in a table split=train.",
        )
        self.mask_pattern = line_edit(
            "none; or *_lesion.nii.gz",
            "Lesion masks beside the scans, or ../masks/*.png in another folder; * stands for the "
            "name of the case. Slices with lesions, and those within 2 of them, are left out.",
        )
        self.mask_geometry = combo_box(
            [("must match the scan", "check"), ("ignored, file order", "ignore")],
            "Whether a mask must lie where its scan lies. If ignored, mask and scan are matched "
            "voxel by voxel in the order of their files: for masks saved without geometry.",
        )
        self.held_out = line_edit(
            "a fifth of the scans",
            "A folder or table of other healthy scans. The thresholds are calibrated on them.",
        )
        held_out = QHBoxLayout()
        held_out.addWidget(self.held_out)
        held_out.addWidget(browse_button("Choose the folder.", self._choose_held_out))
        self.found = small_label("No scans yet.")
        self.pair = QPushButton("Pair scans with masks")
        self.pair.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("<b>Healthy scans</b>"))
        layout.addWidget(self.paths)
        layout.addLayout(row)
        layout.addLayout(
            wide_form(
                [
                    ("Pattern", self.pattern),
                    ("Mask pattern", self.mask_pattern),
                    ("Mask geometry", self.mask_geometry.native),
                    ("Held out", held_out),
                ]
            )
        )
        layout.addWidget(self.found)
        layout.addWidget(self.pair)

    def _connect(self) -> None:
        self.buttons["files"].clicked.connect(self._add_files)
        self.buttons["folder"].clicked.connect(self._add_folder)
        self.buttons["layers"].clicked.connect(self._add_layers)
        self.buttons["remove"].clicked.connect(self._remove)
        self.typing = QTimer(self)
        self.typing.setSingleShot(True)
        self.typing.setInterval(_TYPED_MS)
        self.typing.timeout.connect(self._look)
        for edit in (self.pattern, self.mask_pattern):
            edit.textChanged.connect(self.typing.start)
        self.mask_geometry.changed.connect(self._look)
        self.pair.clicked.connect(self._fill_in_patterns)
        self.looking.succeeded.connect(self._on_found)
        self.looking.failed.connect(self._on_not_found)
        self.looking.stopped.connect(self.changed)

    # The list -----------------------------------------------------------------------------

    def add(self, entries: Sequence[Path | Image]) -> None:
        """Add files, folders or image layers."""
        for entry in entries:
            text = f"{_LAYER}{entry.name}" if isinstance(entry, Image) else str(entry)
            if not self.paths.findItems(text, Qt.MatchFlag.MatchExactly):
                self.paths.addItem(text)
        self._look()

    def _add_files(self) -> None:
        files = choose_files(self, "Healthy scans", "scans", _FILES)
        if files:
            self.add(files)

    def _add_folder(self) -> None:
        folder = choose_folder(self, "A folder of healthy scans", "scans")
        if folder is not None:
            self.add([folder])

    def _add_layers(self) -> None:
        self.add([layer for layer in self._viewer.layers if is_scan_layer(layer)])

    def _remove(self) -> None:
        for item in self.paths.selectedItems():
            self.paths.takeItem(self.paths.row(item))
        self._look()

    def _choose_held_out(self) -> None:
        folder = choose_folder(self, "Other healthy scans", "scans")
        if folder is not None:
            self.held_out.setText(str(folder))

    # Cases --------------------------------------------------------------------------------

    def read(self) -> Cohort:
        """Return the list with its patterns, ready for a worker thread.

        Layers are read now, with what was painted on their masks since the last time.

        Raises
        ------
        InputError
            If a layer cannot be used.
        """
        texts = [self.paths.item(row).text() for row in range(self.paths.count())]
        return Cohort(
            paths=[Path(text) for text in texts if not text.startswith(_LAYER)],
            files=[case for case in self.cases if isinstance(case.scan, Path)],
            layers=self._layers(texts),
            held_out=text_of(self.held_out),
            pattern=text_of(self.pattern),
            mask_pattern=text_of(self.mask_pattern),
            mask_geometry=self.mask_geometry.value,
        )

    def _layers(self, texts: Sequence[str]) -> list[LayerScan]:
        layers: list[LayerScan] = []
        for text in texts:
            name = text.removeprefix(_LAYER)
            if text.startswith(_LAYER) and name in self._viewer.layers:
                scan = self._viewer.layers[name]
                mask = find_mask(self._viewer.layers, scan)
                read_mask = None if mask is None else mask_reader(mask, scan)
                layers.append((volume_reader(scan), read_mask))
        return layers

    def _look(self, *_: Any) -> None:
        """Find the cases in the background: folders may be on a slow disk."""
        try:
            cohort = self.read()
        except ValueError as error:
            self._on_not_found(str(error))
            return
        self.looking.start(finder(cohort))
        self.changed.emit()

    def _on_found(self, found: FoundCases) -> None:
        self.cases = found.cases
        self.refused = not found.cases and bool(found.note)
        self._offer(found.patterns)
        if found.cases:
            masked = sum(case.mask is not None for case in found.cases)
            noun = "scan" if len(found.cases) == 1 else "scans"
            text = f"{len(found.cases)} {noun}."
            if masked:
                text += f" Lesion masks found for {masked}: slices with lesions are left out."
            self.found.setText(f"{text} {found.note}".strip())
        else:
            self.found.setText(found.note or "No scans yet.")
        self.changed.emit()

    def _on_not_found(self, text: str) -> None:
        self.cases = []
        self.refused = True
        self._offer(None)
        self.found.setText(text)
        self.changed.emit()

    def _offer(self, patterns: tuple[str, str] | None) -> None:
        """Show or hide the button that fills in patterns which pair scans with masks."""
        self._patterns = patterns
        if patterns is not None:
            self.pair.setToolTip(f"Fill in {patterns[0]} and {patterns[1]} as the patterns.")
        self.pair.setVisible(patterns is not None)

    def _fill_in_patterns(self) -> None:
        if self._patterns is not None:
            scan, mask = self._patterns
            self.pattern.setText(scan)
            self.mask_pattern.setText(mask)
