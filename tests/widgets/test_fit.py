"""Fit, in a headless viewer."""

from __future__ import annotations

import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_dino_uad import load_model
from napari_dino_uad.core.normative.methods import METHODS
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.fit import FitWidget
from napari_dino_uad.widgets.session import session

LONG_MS = 180_000


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def widget(qtbot, viewer):
    session().models.clear()
    widget = FitWidget(viewer)
    qtbot.addWidget(widget)
    qtbot.waitUntil(lambda: widget._form is not None, timeout=LONG_MS)
    yield widget
    for job in (widget.job, widget.looking, widget.loading, widget.saving):
        job.cancel()


def choose(qtbot, widget, entries, count):
    widget.add(entries)
    qtbot.waitUntil(lambda: len(widget.cases) == count, timeout=LONG_MS)


def make_small(widget):
    for name, value in {"components": 30, "epochs": 2, "max_patches": 8000}.items():
        widget._form.controls[name].value = value


def test_every_method_can_be_chosen(widget):
    for key in METHODS:
        widget.method.value = key
        assert widget._form.controls
        assert all(one.native.toolTip() for one in widget._form.controls.values())


def test_fit_on_a_folder_then_save_and_load(qtbot, widget, heads, tmp_path):
    assert not widget.run.start.isEnabled()
    choose(qtbot, widget, [heads / "healthy"], 4)
    make_small(widget)
    with qtbot.waitSignal(widget.job.succeeded, timeout=LONG_MS):
        widget.fit()
    assert widget.fitted is not None
    assert widget.fitted.normative.settings.components == 30
    assert len(session().models) == 1
    with qtbot.waitSignal(widget.saving.succeeded, timeout=LONG_MS):
        widget.save(tmp_path / "mine.safetensors")
    assert load_model(tmp_path / "mine.safetensors").summary() == widget.fitted.summary()
    with qtbot.waitSignal(widget.loading.succeeded, timeout=LONG_MS):
        widget.load(tmp_path / "mine.safetensors")


def test_fit_on_open_layers(qtbot, widget, viewer, healthy):
    for head in healthy[:2]:
        data, keywords, _ = volume_layer(head.volume)
        viewer.add_layer(Image(data, **keywords))
    choose(qtbot, widget, list(viewer.layers), 2)
    make_small(widget)
    with qtbot.waitSignal(widget.job.succeeded, timeout=LONG_MS):
        widget.fit()
    assert widget.fitted.cohort["scans"] == 1


def test_cancel_frees_the_widget(qtbot, widget, heads):
    choose(qtbot, widget, [heads / "healthy"], 4)
    with qtbot.waitSignal(widget.job.progressed, timeout=LONG_MS):
        widget.fit()
    widget.cancel()
    assert not widget.job.running
    assert widget.fitted is None


def test_a_bad_scan_gets_a_sentence(qtbot, widget, tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / name).write_text("no image")
    choose(qtbot, widget, [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"], 2)
    with qtbot.waitSignal(widget.job.failed, timeout=LONG_MS) as failure:
        widget.fit()
    assert ".nii.gz" in failure.args[0]


def test_it_is_narrow(widget):
    assert widget.minimumSizeHint().width() <= 380
