"""What is known of one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_dino_uad.core.slices.crop import tight_box
from napari_dino_uad.core.slices.planes import plane_axis
from napari_dino_uad.widgets.controls import WrapLabel, small_label
from napari_dino_uad.widgets.inspect.parts_view import PartsView
from napari_dino_uad.widgets.inspect.pictures import PictureRow, shade
from napari_dino_uad.widgets.inspect.texts import (
    describe_method,
    describe_mirror,
    describe_typical,
    describe_where,
    verdict,
)
from napari_dino_uad.widgets.results.texts import place as place_text
from napari_dino_uad.widgets.session import session

if TYPE_CHECKING:
    from napari_dino_uad.core.detect import AnomalyMap
    from napari_dino_uad.core.explain.overlays import Overlay
    from napari_dino_uad.core.explain.parts import Place, ScoreParts
    from napari_dino_uad.core.explain.pictures import HealthyPictures
    from napari_dino_uad.core.explain.slices import SliceExplanation
    from napari_dino_uad.widgets.results.detection import Detection

__all__ = ["PlacePanel"]

_BRIGHTEST = 4.0
_PICTURES, _SIMILAR = 3, 4
_SIMILAR_TOOLTIP = (
    "A patch of a healthy scan with its surroundings, and how alike it is to this place: 1 is the "
    "same."
)


class PlacePanel(QWidget):
    """The verdict, the parts of the score, pictures, and what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: ScoreParts | None = None
        self.whose = small_label()
        self.verdict = WrapLabel()
        self.parts = PartsView()
        self.pictures = PictureRow(_PICTURES)
        self.facts = small_label()
        self.similar_text = small_label()
        self.similar = PictureRow(_SIMILAR)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.verdict,
            self.whose,
            self.parts,
            self.pictures,
            self.facts,
            self.similar_text,
            self.similar,
        ):
            layout.addWidget(widget)
        self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self._parts = None
        self.hide()

    def show_place(
        self,
        detection: Detection,
        one: SliceExplanation,
        place: Place,
        components: Overlay | None,
    ) -> None:
        """Show a place.

        Parameters
        ----------
        detection : Detection
            A finished detection.
        one : SliceExplanation
            Of the slice of the place.
        place : Place
        components : Overlay, optional
            The map of components of the scan, if it is known.
        """
        from napari_dino_uad.core.explain.parts import score_parts, typical_rate

        anomaly = detection.anomaly
        assert anomaly is not None
        model = anomaly.model
        self._parts = score_parts(anomaly, one, place)
        self.show_threshold(detection.threshold)
        side = anomaly.tissue_frame.side(place.voxel)
        where = f"{side[:1].upper()}{side[1:]}, " if side else ""
        self.whose.setText(
            f"{where}{place_text(anomaly.volume, place.voxel)}, {detection.scan.name}, "
            f"model {detection.model_name}"
        )
        lines = describe_method(model, one, place)
        if components is not None and one.component is not None:
            axis = plane_axis(anomaly.planes[0].plane)
            lines.append(describe_where(components, int(one.component[place.patch]), axis))
        lines += [
            describe_typical(typical_rate(anomaly, place)),
            describe_mirror(model, one, place),
        ]
        self.facts.setText("<br>".join(line for line in lines if line))
        self._show_pictures(anomaly, one, place)
        self._show_similar(session().pictures_of(model), one, place)
        self.show()

    def show_threshold(self, threshold: float) -> None:
        """Compare the place with a threshold; it takes less than a frame, for a slider."""
        if self._parts is not None:
            self.verdict.setText(verdict(self._parts, threshold))
            self.parts.show_parts(self._parts, threshold)

    def _show_similar(
        self, stored: HealthyPictures | None, one: SliceExplanation, place: Place
    ) -> None:
        """Show the healthy patches most like a place, where they are stored."""
        self.similar.setVisible(stored is not None)
        if stored is None:
            self.similar_text.setText("No pictures of healthy patches are stored with this model.")
            return
        self.similar_text.setText("<b>Most similar healthy patches</b>, with their similarity:")
        embedding = one.embeddings[(slice(None), *place.patch)]
        images = [
            (f"{cosine:.2f}", np.repeat(image[..., None], 3, axis=-1), _SIMILAR_TOOLTIP)
            for cosine, image in stored.nearest(embedding, _SIMILAR)
        ]
        middle = images[0][1].shape[0] / 2 if images else 0.0
        self.similar.show_images(images, (middle, middle))

    def _show_pictures(self, anomaly: AnomalyMap, one: SliceExplanation, place: Place) -> None:
        rows, columns = tight_box(one.tissue, 1)
        images = _with_expectation(one) if one.expected is not None else _without(anomaly, one)
        cut = [
            (name, np.where(one.tissue[..., None], image, 0)[rows, columns], tooltip)
            for name, image, tooltip in images
        ]
        at = (place.patch[0] + 0.5 - rows.start, place.patch[1] + 0.5 - columns.start)
        self.pictures.show_images(cut, at)


def _with_expectation(one: SliceExplanation) -> list[tuple[str, NDArray[np.uint8], str]]:
    """Picture what an autoregressive model expects."""
    assert one.observed is not None and one.expected is not None and one.residual is not None
    inside = one.residual[one.tissue]
    low, high = np.percentile(inside, [50, 99.8]) if inside.size else (0.0, 1.0)
    return [
        ("Observed", one.observed, "The embeddings of this slice, as colours."),
        (
            "Expected",
            one.expected,
            "What the model expects of healthy tissue, in the same colours.",
        ),
        ("Difference", shade(one.residual, float(low), float(high)), "Bright where they differ."),
    ]


def _without(
    anomaly: AnomalyMap, one: SliceExplanation
) -> list[tuple[str, NDArray[np.uint8], str]]:
    """Picture the model's score, the embeddings, and left against right."""
    model, scale = anomaly.model, anomaly.model.views[0].scale
    images = [
        ("Embeddings", one.colours, "Like colours are like tissue to the network."),
        (
            "Unlike healthy",
            shade(one.model, 0.0, _BRIGHTEST),
            "Bright where the model finds the tissue unlike the healthy scans.",
        ),
    ]
    if one.mirror is not None:
        low, deviation = scale.mirror_mean, scale.mirror_deviation
        if model.views[0].scale.symmetry == 0:
            low, deviation = 0.0, float(one.mirror.max()) / _BRIGHTEST
        images.append(
            (
                "Left and right",
                shade(one.mirror, low, low + _BRIGHTEST * deviation),
                "Bright where the tissue differs from the same place on the other side.",
            )
        )
    return images
