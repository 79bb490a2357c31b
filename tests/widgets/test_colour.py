"""Pictures in colour in the window: opened by napari or by our reader, detected, judged."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from fundus import COLUMNS, ROWS, fundus
from napari_dino_uad import Case, drain, fit
from napari_dino_uad.core.scans.volume import volume_from_array
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.detect import DetectWidget
from napari_dino_uad.widgets.layers import volume_reader
from napari_dino_uad.widgets.results.readout import describe_point
from napari_dino_uad.widgets.results.store import results_of
from napari_dino_uad.widgets.results.texts import model_words
from napari_dino_uad.widgets.session import session

LONG_MS = 120_000


@pytest.fixture(scope="module")
def colour_model():
    eyes = [volume_from_array(fundus(n)[0], name=f"h{n}", colour=True) for n in range(12)]
    settings = {"components": 30, "epochs": 2, "max_patches": 10_000}
    return drain(fit([Case(eye, healthy=True) for eye in eyes], settings=settings))


def test_a_picture_opened_by_napari_is_detected_and_read_out(qtbot, colour_model):
    picture, mask = fundus(50, lesion=True)
    viewer = ViewerModel()
    scan = viewer.add_image(picture, rgb=True, name="eye")
    session().models.clear()
    widget = DetectWidget(viewer)
    qtbot.addWidget(widget)
    session().add_model("eyes", colour_model)
    qtbot.waitUntil(lambda: not widget.loading.running, timeout=LONG_MS)
    assert "pictures in colour" in model_words("eyes", colour_model)
    widget.threshold.rate = 0.01
    with qtbot.waitSignal(widget.findings_job.succeeded, timeout=LONG_MS):
        widget.detect()
    shown = results_of(viewer).shown
    layers = shown.layers
    assert layers.findings.data.shape == (ROWS, COLUMNS)
    assert (layers.findings.data[mask] > 0).mean() > 0.8
    place = tuple(int(one) for one in np.argwhere(mask)[0])
    text = describe_point(scan, shown, place)
    assert f"colour {', '.join(map(str, picture[place]))}" in text
    assert "score" in text
    for job in (widget.job, widget.findings_job, widget.loading, widget.saving):
        job.cancel()


def test_our_layer_gives_its_volume_back_and_a_changed_one_its_new_colours():
    picture, _ = fundus(0)
    volume = volume_from_array(picture, name="eye", colour=True)
    data, keywords, kind = volume_layer(volume)
    assert kind == "image"
    layer = Image(data, **keywords)
    assert layer.rgb
    assert volume_reader(layer)() is volume
    layer.data = 255 - picture
    other = volume_reader(layer)()
    assert np.array_equal(other.colour[0], 255 - picture)
    assert not np.allclose(other.array, volume.array)
