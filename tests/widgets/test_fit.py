"""Fit, in a headless viewer."""

from __future__ import annotations

import pytest
import torch
from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QScrollArea

from napari_dino_uad import drain, load_model
from napari_dino_uad.core.backbones import hub as backbone_hub
from napari_dino_uad.core.backbones.backbone import backbone_spec
from napari_dino_uad.core.backbones.weights import create_network
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.methods import METHODS
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.layer_data import volume_layer
from napari_dino_uad.widgets.fit import FitWidget
from napari_dino_uad.widgets.fit.course import Course, kept_fits
from napari_dino_uad.widgets.session import Session, session

LONG_MS = 180_000


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def widget(qtbot, viewer):
    session().models.clear()
    widget = FitWidget(viewer)
    qtbot.addWidget(widget)
    qtbot.waitUntil(lambda: widget.advanced.form is not None, timeout=LONG_MS)
    yield widget
    for job in (widget.job, widget.looking, widget.loading, widget.saving):
        job.cancel()


def choose(qtbot, widget, entries, count):
    widget.add(entries)
    qtbot.waitUntil(lambda: len(widget.cases) == count, timeout=LONG_MS)


def make_small(widget):
    for name, value in {"components": 30, "epochs": 2, "max_patches": 8000}.items():
        widget.advanced.form.controls[name].value = value


def test_every_method_can_be_chosen(widget):
    for key in METHODS:
        widget.method.value = key
        assert widget.advanced.form.controls
        assert all(one.native.toolTip() for one in widget.advanced.form.controls.values())


def test_fit_on_a_folder_then_save_and_load(qtbot, widget, heads, tmp_path):
    assert not widget.run.start.isEnabled()
    assert widget.advanced.maps.lesions == "either"
    choose(qtbot, widget, [heads / "healthy"], 4)
    make_small(widget)
    widget.advanced.lesions.value = "bright"
    with qtbot.waitSignal(widget.job.succeeded, timeout=LONG_MS):
        widget.fit()
    assert widget.fitted is not None
    assert widget.fitted.normative.settings.components == 30
    assert widget.fitted.maps.lesions == "bright"
    assert "bright lesions" in widget.result.text.text()
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


def test_cancel_says_what_is_kept_and_fit_what_was_reused(qtbot, widget, heads):
    choose(qtbot, widget, [heads / "healthy"], 4)
    make_small(widget)
    widget.advanced.form.controls["epochs"].value = 6
    with qtbot.waitSignal(
        widget.job.progressed,
        timeout=LONG_MS,
        check_params_cb=lambda one: one.step == "Fitting the mixture" and one.done > 3,
    ):
        widget.fit()
    widget.cancel()
    assert widget.run.text.startswith("Cancelled at fitting the mixture, ")
    assert "kept for 14 days" in widget.run.text
    qtbot.waitUntil(lambda: bool(kept_fits()), timeout=LONG_MS)
    assert "stopped fit" in kept_fits()
    with qtbot.waitSignal(widget.job.succeeded, timeout=LONG_MS):
        widget.fit()
    text = widget.kept.text()
    assert text.startswith("Kept from before: the features of all ")
    assert "resumed at epoch" in text
    assert not kept_fits()


def test_a_dock_closed_during_a_fit_keeps_it_and_says_so(qtbot, widget, heads, monkeypatch):
    told = []
    monkeypatch.setattr("napari.utils.notifications.show_info", told.append)
    choose(qtbot, widget, [heads / "healthy"], 4)
    with qtbot.waitSignal(widget.job.progressed, timeout=LONG_MS):
        widget.fit()
    widget.release()
    assert not widget.job.running
    assert len(told) == 1 and "kept for 14 days" in told[0]
    widget.release()
    assert len(told) == 1


def test_a_cache_that_is_off_keeps_nothing_and_says_so(monkeypatch):
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", "off")
    course = Course()
    assert course.describe_stop() == "Cancelled before it began."
    course.take(Progress("Reading healthy scans", 3, 40))
    assert course.describe_stop() == (
        "Cancelled at reading healthy scans, 3 of 40. Nothing is kept, since the cache is off."
    )
    assert kept_fits() == "" == course.describe_reuse()


def test_a_model_is_told_in_words_and_plotted(qtbot, widget, model):
    widget._show_model(model, "Loaded mine.")
    assert widget.result.text.text() == (
        "<b>Loaded mine.</b> Healthy tissue of 3 scans, axial slices, for bright or dark lesions; "
        "calibrated on 1 other."
    )
    qtbot.waitUntil(lambda: widget.result.scores is not None, timeout=LONG_MS)
    [curve] = widget.result.scores.listDataItems()
    assert curve.yData.max() > 3
    assert widget.result.isVisibleTo(widget)
    assert not widget.result.details.button.isChecked()
    [losses] = widget.result.history.listDataItems()
    assert losses.yData.tolist() == model.normative.history_


def test_fit_and_save_stay_in_sight(qtbot, widget, model):
    qtbot.waitUntil(lambda: widget.result.scores is not None, timeout=LONG_MS)
    widget.resize(350, 500)
    widget.show()
    qtbot.waitExposed(widget)
    widget._show_model(model, "Loaded mine.")
    area = widget.findChild(QScrollArea)
    qtbot.waitUntil(lambda: area.verticalScrollBar().value() > 0)
    plot = widget.result.scores
    top = plot.mapTo(area.viewport(), plot.rect().topLeft()).y()
    assert 0 <= top <= area.viewport().height() - plot.height()
    for button in (widget.run.start, widget.result.save):
        corner = button.mapTo(widget, button.rect().bottomRight())
        assert widget.rect().contains(corner)


def test_long_messages_do_not_widen_the_dock(widget):
    before = widget.minimumSizeHint().width()
    widget.run.complain("x" * 300)
    widget._tell_kept("a/very/long/path/" * 30)
    assert widget.minimumSizeHint().width() == before <= 380


def test_a_bad_scan_gets_a_sentence(qtbot, widget, tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / name).write_text("no image")
    choose(qtbot, widget, [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"], 2)
    with qtbot.waitSignal(widget.job.failed, timeout=LONG_MS) as failure:
        widget.fit()
    assert ".nii.gz" in failure.args[0]


def test_backbone_has_licence_and_weights_place(widget, tmp_path, monkeypatch):
    def told():
        return widget.chosen.backbone_text.text()

    assert "Apache-2.0. Weights: here already." in told()
    assert not widget.weights.isEnabled()
    widget.backbone.value = "dinov3-vits16"
    assert "DINOv3 License. Weights: 86 MB, a download, or a file you choose." in told()
    assert widget.layers.placeholderText() == "12 of 12"
    assert widget.weights.isEnabled()
    widget.weights.setText(str(tmp_path / "weights.pth"))
    assert "a file that is not there" in told()
    (tmp_path / "weights.pth").touch()
    widget.weights.setText(f" {tmp_path / 'weights.pth'} ")
    assert "the file chosen" in told()
    widget.weights.clear()
    monkeypatch.setattr(backbone_hub, "cached_weights", lambda spec: tmp_path / "weights.pth")
    widget.backbone.value = "dinov3-vitb16"
    assert "DINOv3 License. Weights: 343 MB, here already." in told()


def test_layers_that_are_not_there_get_a_sentence(qtbot, widget, heads):
    choose(qtbot, widget, [heads / "healthy"], 4)
    widget.layers.setText("6,99")
    widget.fit()
    assert not widget.job.running
    assert "counted from 1 to 5, got 6,99" in widget.run._status.text()


def test_fit_with_a_file_of_weights_and_detect_finds_it(
    qtbot, widget, heads, tmp_path, monkeypatch
):
    torch.manual_seed(0)
    network = create_network(backbone_spec("dinov2-vits14"))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    choose(qtbot, widget, [heads / "healthy"], 4)
    make_small(widget)
    widget.backbone.value = "dinov2-vits14"
    monkeypatch.setattr(
        QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "weights.pth"), "")
    )
    widget.chosen.browse.click()
    widget.layers.setText("1,2")
    widget.input_size.setValue(112)
    with qtbot.waitSignal(widget.job.succeeded, timeout=LONG_MS):
        widget.fit()
    model = widget.fitted
    assert model.backbone_key == "dinov2-vits14@1,2"
    # Here and in a later start of napari alike, without a word about the file.
    opened = session()
    placed = drain(opened.backbone_of(model))
    assert placed.module is opened.backbone(model.backbone_key).module
    later = drain(Session().backbone_of(model))
    assert later.sha256 == model.backbone_sha256
    # Choosing the backbone again brings its file back, and only its.
    widget.backbone.value = "dinov2-vitb14"
    assert widget.weights.text() == ""
    widget.backbone.value = "dinov2-vits14"
    assert widget.weights.text() == str(tmp_path / "weights.pth")


def test_what_is_not_here_is_downloaded_before_it_is_loaded(qtbot, widget, heads, monkeypatch):
    def fetch(spec):
        yield Progress(f"Downloading {spec.name}", 43, 86)
        raise InputError("There is no network.")

    monkeypatch.setattr(backbone_hub, "fetch_weights", fetch)
    choose(qtbot, widget, [heads / "healthy"], 4)
    widget.backbone.value = "dinov3-vits16"
    steps = []
    widget.job.progressed.connect(lambda progress: steps.append((progress.step, progress.done)))
    with qtbot.waitSignal(widget.job.failed, timeout=LONG_MS) as failure:
        widget.fit()
    assert steps == [("Downloading dinov3-vits16", 43)]
    assert failure.args[0] == "There is no network."


def test_it_is_narrow(widget):
    assert widget.minimumSizeHint().width() <= 380


def test_a_place_that_cannot_be_written_gets_a_sentence(qtbot, widget, model, tmp_path):
    widget.fitted = model
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "taken.safetensors").mkdir()
    for path, text in (
        (tmp_path / "file" / "mine.safetensors", "file is a file; choose a folder."),
        (tmp_path / "taken.safetensors", "it is a folder; choose the name of a file."),
        (tmp_path / ("x" * 300) / "m.safetensors", "the name is too long; choose a shorter one."),
    ):
        with qtbot.waitSignal(widget.saving.failed, timeout=LONG_MS) as failure:
            widget.save(path)
        assert failure.args[0].startswith("Cannot write ")
        assert failure.args[0].endswith(text)


def test_closing_the_dock_stops_a_fit(qtbot, make_napari_viewer):
    viewer = make_napari_viewer()
    dock, widget = viewer.window.add_plugin_dock_widget("napari-dino-uad", "Fit")
    qtbot.waitUntil(lambda: widget.advanced.form is not None, timeout=LONG_MS)

    def endless():
        while True:
            yield Progress("Fitting", 0, 1)

    job = widget.job
    job.start(endless)
    with qtbot.waitSignal(widget.destroyed, timeout=5000):
        qtbot.mouseClick(dock.title.close_button, Qt.MouseButton.LeftButton)
        assert not job.running
