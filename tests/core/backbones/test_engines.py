"""Engines: the embeddings of each, halving where memory runs out, and which one is chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from napari_dino_uad import detect, drain, load_backbone, read_volume
from napari_dino_uad.cli import app
from napari_dino_uad.core.backbones.backbone import Backbone, backbone_spec
from napari_dino_uad.core.backbones.engines import choice as engine_choice
from napari_dino_uad.core.backbones.engines.choice import available_engines, choose_engine, decide
from napari_dino_uad.core.backbones.engines.measurement import SMALLEST_COSINE, Measured, remembered
from napari_dino_uad.core.backbones.engines.openvino_engine import (
    ConvertedNetworks,
    OpenVinoEngine,
    _Compiled,
)
from napari_dino_uad.core.backbones.engines.torch_engine import Engine, EngineSpec, TorchEngine
from napari_dino_uad.core.backbones.weights import create_network
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.cache import FeatureCache
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing

openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="the extra openvino is not installed"
)
TORCH, TORCH_16 = (EngineSpec("torch", "cpu", one) for one in ("float32", "bfloat16"))
OPENVINO = EngineSpec("openvino", "cpu", "float32")


def untrained(key: str) -> Backbone:
    """Make a backbone with random weights."""
    torch.manual_seed(0)
    spec = backbone_spec(key)
    return Backbone(spec, create_network(spec))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Give a test a cache of its own, and the choice of all engines."""
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", str(tmp_path))
    monkeypatch.delenv("NAPARI_DINO_UAD_ENGINE")
    return tmp_path


def slices(volume, backbone: Backbone, input_size: int, count: int = 4) -> torch.Tensor:
    scan = prepare(volume, Preprocessing(input_size=input_size))
    indices = np.linspace(len(scan) * 0.2, len(scan) * 0.8, count).astype(int)
    return scan.images(indices, scan.grid(backbone.spec.stride, backbone.spec.multiple))


def smallest_cosine(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(F.cosine_similarity(found.double(), expected.double(), dim=1).min())


def volumes(ill):
    """Give a synthetic head, and real scans where they are."""
    yield ill.volume
    folder = os.environ.get("NAPARI_DINO_UAD_DATA")
    if folder:
        yield read_volume(sorted(Path(folder).glob("lgg/valid/*_flair.nii.gz"))[0])
        yield read_volume(Path(folder) / "glioma" / "fg6692_flair.nii.gz")


# Embeddings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "input_size"),
    [
        ("efficientnet-lite0", 256),
        ("dinov2-vits14", 224),
        ("dinov2-vits14-reg@6,12", 112),
        ("dinov3-vits16", 112),
        ("dinov3-convnext-tiny", 128),
    ],
)
def test_engines_give_the_same_embeddings(cache, key, input_size, ill):
    loaded = load_backbone() if key == "efficientnet-lite0" else untrained(key)
    drain(choose_engine(loaded, "cpu", input_size=input_size))
    [(_, measured)] = remembered()
    assert [one.engine for one in measured] == [one.description for one in available_engines("cpu")]
    faithful = [one for one in measured if one.faithful]
    assert faithful[0].engine == "torch cpu float32"
    for volume in volumes(ill):
        images = slices(volume, loaded, input_size)
        expected = loaded.embed(images)
        for one in faithful:
            library, _, precision = one.engine.split()
            placed = drain(choose_engine(loaded, "cpu", f"{library} {precision}", input_size))
            assert placed.engine.spec.description == one.engine
            embeddings = placed.embed(images)
            assert embeddings.dtype == torch.float32
            assert smallest_cosine(embeddings, expected) >= SMALLEST_COSINE


def test_an_engine_with_other_embeddings_is_refused(cache, backbone, monkeypatch):
    class Coarse(TorchEngine):
        """Rounds as bfloat16 does not."""

        def run(self, images):
            embeddings = super().run(images)
            return (embeddings * 2).round() / 2 if self.spec == TORCH_16 else embeddings

    monkeypatch.setattr(engine_choice, "TorchEngine", Coarse)
    monkeypatch.setattr(engine_choice, "available_engines", lambda *_: [TORCH, TORCH_16])
    assert drain(choose_engine(backbone)).engine.spec == TORCH
    with pytest.raises(InputError, match=r"bfloat16 gives other embeddings \(a cosine of 0"):
        drain(choose_engine(backbone, engine="bfloat16"))


@openvino
def test_converted_networks_are_kept_unless_damaged(cache, backbone, monkeypatch):
    images = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    expected = backbone.embed(images)
    first = backbone.on(OpenVinoEngine(OPENVINO, backbone)).embed(images)
    assert smallest_cosine(first, expected) > 0.99999
    [folder] = (cache / "networks").iterdir()
    convert = OpenVinoEngine._convert
    monkeypatch.setattr(OpenVinoEngine, "_convert", None)
    again = backbone.on(OpenVinoEngine(OPENVINO, backbone)).embed(images)
    assert torch.equal(again, first)
    monkeypatch.setattr(OpenVinoEngine, "_convert", convert)
    weights = folder / "network.bin"
    weights.write_bytes(weights.read_bytes()[:1000])
    mended = backbone.on(OpenVinoEngine(OPENVINO, backbone)).embed(images)
    assert torch.equal(mended, first)
    assert weights.stat().st_size > 1_000_000
    told = CliRunner().invoke(app, ["cache", "info"]).output
    assert "networks  0.01 GB" in told
    assert "0.01 GB freed" in CliRunner().invoke(app, ["cache", "clear"]).output
    assert not list((cache / "networks").iterdir())


def test_old_networks_make_room(tmp_path):
    networks = ConvertedNetworks(tmp_path, limit_bytes=250)

    def save(path):
        path.write_bytes(bytes(100))

    for number, name in enumerate("abc"):
        networks.keep(name, save)
        os.utime(networks.folder / name, (number, number))
    assert networks.find("a") is None
    assert networks.find("b") is not None
    # Used a moment ago.
    networks.keep("d", save)
    assert networks.find("c") is None
    assert networks.find("b") is not None

    def full(path):
        path.write_bytes(bytes(10))
        raise RuntimeError("iostream error")

    networks.keep("e", full)
    assert networks.find("e") is None
    assert networks.size_bytes() == 200


@openvino
def test_openvino_takes_the_threads_of_torch(cache, backbone):
    threads = torch.get_num_threads()
    engine = OpenVinoEngine(OPENVINO, backbone)
    try:
        torch.set_num_threads(1)
        backbone.on(engine).embed(torch.zeros(1, 3, 64, 64))
        [compiled] = engine._compiled.values()
        assert compiled.network.get_property("INFERENCE_NUM_THREADS") == 1
    finally:
        torch.set_num_threads(threads)


@openvino
def test_light_networks_run_slices_side_by_side(cache, backbone):
    engine = OpenVinoEngine(OPENVINO, backbone)
    assert engine.batch >= 2 * torch.get_num_threads()
    placed = backbone.on(engine)
    images = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    alone = [placed.maps(image[None]) for image in images]
    first, second = placed.start(images[:3]), placed.start(images[3:])
    # A cancelled pipeline never asks for what it has begun.
    placed.start(images)
    assert torch.equal(second(), torch.cat(alone[3:]))
    assert torch.equal(first(), torch.cat(alone[:3]))


@openvino
def test_out_of_memory_computes_in_parts(cache, backbone, monkeypatch):
    placed = backbone.on(OpenVinoEngine(OPENVINO, backbone))
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = placed.maps(images)
    start = _Compiled.start

    def small(self, images):
        def fail():
            raise RuntimeError("Exception from src/inference: std::bad_alloc")

        return start(self, images) if len(images) < 3 else fail

    monkeypatch.setattr(_Compiled, "start", small)
    assert torch.equal(placed.start(images)(), expected)
    assert "continuing with 2 slices per batch" in placed.engine.take_note()
    assert placed.engine.batch == 2


@openvino
def test_openvino_sends_no_telemetry(cache):
    code = (
        "import sys, torch; from napari_dino_uad import load_backbone; "
        "from napari_dino_uad.core.backbones.engines.openvino_engine import OpenVinoEngine; "
        "from napari_dino_uad.core.backbones.engines.openvino_engine import openvino_specs; "
        "loaded = load_backbone(); engine = OpenVinoEngine(openvino_specs(False)[0], loaded); "
        "loaded.on(engine).embed(torch.zeros(1, 3, 64, 64)); "
        "assert 'openvino.tools.ovc' in sys.modules; "
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Memory --------------------------------------------------------------------------------------


class Small(Engine):
    """Holds some slices and no more."""

    def __init__(self, holds: int, error: Exception) -> None:
        super().__init__(EngineSpec("torch", "cpu", "float32"))
        self.batch, self.holds, self.error = 16, holds, error
        self.runs: list[int] = []

    def run(self, images):
        self.runs.append(len(images))
        if len(images) > self.holds:
            raise self.error
        return images[:, :1] + 1


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        RuntimeError("Exception from src/inference: std::bad_alloc"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_for_good(error):
    engine = Small(5, error)
    images = torch.arange(16.0).view(16, 1, 1, 1).expand(-1, 3, 2, 2)
    assert torch.equal(engine.maps(images), images[:, :1] + 1)
    assert engine.runs == [16, 8, 4, 4, 4, 4]
    assert engine.batch == 4
    note = engine.take_note()
    assert "continuing with 4 slices per batch" in note
    assert engine.take_note() == ""
    engine.runs.clear()
    assert len(engine.maps(images[:6])) == 6
    assert engine.runs == [4, 2]
    assert engine.take_note() == ""


def test_other_errors_and_a_single_slice_too_large_are_told():
    with pytest.raises(RuntimeError, match="shapes"):
        Small(1, RuntimeError("shapes do not fit")).maps(torch.zeros(4, 3, 2, 2))
    with pytest.raises(InputError, match=r"single slice of 2 x 2 pixels; choose a smaller"):
        Small(0, MemoryError()).maps(torch.zeros(4, 3, 2, 2))


def test_the_user_hears_of_a_halved_batch(model, ill):
    backbone = model.load_backbone()

    class Tight(TorchEngine):
        def run(self, images):
            if len(images) > 1:
                raise MemoryError
            return super().run(images)

    expected = drain(detect(ill.volume, model, backbone=backbone, cache=False))
    heard = []
    tight = backbone.on(Tight(TORCH, backbone.module))
    anomaly = drain(
        detect(ill.volume, model, backbone=tight, cache=False),
        lambda progress: heard.append(progress.note),
    )
    assert [note for note in heard if note] == [
        "Memory ran out (CPU, torch float32); continuing with 1 slice per batch instead of 2."
    ]
    np.testing.assert_allclose(anomaly.scores, expected.scores, atol=1e-4)


# Choice --------------------------------------------------------------------------------------


def measurements(*seconds: float | None) -> list[Measured]:
    engines = ("torch cpu float32", "torch cpu bfloat16", "openvino cpu float32")
    return [
        Measured(engine, 1.0 if taken else 0.9, taken)
        for engine, taken in zip(engines, seconds, strict=True)
    ]


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ((1.0, 0.9, 0.8), "torch cpu float32"),
        ((1.0, 0.9, 0.7), "openvino cpu float32"),
        ((1.0, 0.5, 0.7), "torch cpu bfloat16"),
        ((1.0, None, None), "torch cpu float32"),
    ],
)
def test_the_fastest_is_chosen_if_it_is_clearly_faster(seconds, chosen):
    measured = measurements(*seconds)
    assert decide(measured, [one.engine for one in measured]) == chosen


def test_what_was_asked_for_is_chosen_even_if_slower():
    assert decide(measurements(1.0, 0.5, 2.0), ["openvino cpu float32"]) == "openvino cpu float32"
    with pytest.raises(InputError, match=r"cosine of 0\.9000"):
        decide(measurements(1.0, None, 2.0), ["torch cpu bfloat16"])
    failed = [Measured("torch cpu float32", 1.0, 1.0), Measured("openvino", failure="E: no")]
    with pytest.raises(InputError, match="E: no"):
        decide(failed, ["openvino"])


def test_the_choice_is_measured_once_and_remembered(cache, backbone, monkeypatch):
    monkeypatch.setattr(engine_choice, "available_engines", lambda *_: [TORCH, TORCH_16])
    steps = []
    first = drain(choose_engine(backbone, input_size=64), steps.append)
    assert steps[0].step.startswith("Measuring")
    measure = engine_choice.measure
    monkeypatch.setattr(engine_choice, "measure", None)
    assert drain(choose_engine(backbone, input_size=64)).engine.spec == first.engine.spec
    with pytest.raises(TypeError):
        drain(choose_engine(backbone, input_size=96))
    monkeypatch.setattr(engine_choice, "measure", measure)
    [path] = (cache / "engines").glob("*.json")
    path.write_text(path.read_text()[:100])
    drain(choose_engine(backbone, input_size=64), steps.append)
    assert len(remembered()) == 1
    told = CliRunner().invoke(app, ["engines"])
    assert "efficientnet-lite0, input 64" in told.output
    assert "1 measurement forgotten" in CliRunner().invoke(app, ["engines", "--forget"]).output
    assert not remembered()


def test_with_the_cache_off_it_is_measured_once_a_process(backbone, monkeypatch):
    monkeypatch.setenv("NAPARI_DINO_UAD_CACHE", "off")
    monkeypatch.setattr(engine_choice, "available_engines", lambda *_: [TORCH, TORCH_16])
    drain(choose_engine(backbone, engine="torch", input_size=64))
    monkeypatch.setattr(engine_choice, "measure", None)
    drain(choose_engine(backbone, engine="torch", input_size=64))


def test_failing_engine_is_passed_over(cache, backbone, monkeypatch):
    class Broken(TorchEngine):
        def run(self, images):
            if self.spec == TORCH_16:
                raise RuntimeError("this processor\nis too old")
            return super().run(images)

    monkeypatch.setattr(engine_choice, "TorchEngine", Broken)
    monkeypatch.setattr(engine_choice, "available_engines", lambda *_: [TORCH, TORCH_16])
    assert drain(choose_engine(backbone, input_size=64)).engine.spec == TORCH
    with pytest.raises(InputError, match="RuntimeError: this processor is too old"):
        drain(choose_engine(backbone, engine="torch bfloat16", input_size=64))


@pytest.mark.parametrize("engine", ["onnx", "torch openvino", "float32 bfloat16", "torch torch"])
def test_an_unknown_engine_is_refused(cache, backbone, engine):
    with pytest.raises(InputError, match="An engine is auto, or one of torch, openvino"):
        drain(choose_engine(backbone, engine=engine))


def test_a_missing_openvino_or_device_is_told(cache, backbone, monkeypatch):
    monkeypatch.setattr(engine_choice, "has_openvino", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'napari-dino-uad\[openvino\]'"):
        drain(choose_engine(backbone, engine="openvino"))
    with pytest.raises(InputError, match="There is no engine 'float16' here; there are torch cpu"):
        drain(choose_engine(backbone, "cpu", "float16"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device cuda was asked for"):
            drain(choose_engine(backbone, "cuda"))


# Whole runs ----------------------------------------------------------------------------------


@openvino
def test_a_model_of_one_engine_detects_with_another(cache, model, ill):
    backbone = model.load_backbone()
    placed = drain(choose_engine(backbone, engine="openvino float32"))
    store = FeatureCache(cache / "features")
    first = drain(detect(ill.volume, model, backbone=backbone, cache=store))
    other = drain(detect(ill.volume, model, backbone=placed, cache=store))
    np.testing.assert_allclose(other.scores, first.scores, atol=1e-3)
    assert store.usage().complete == 2


@openvino
def test_the_command_line_says_what_runs_where(cache, heads, tmp_path):
    model = tmp_path / "m.safetensors"
    small = ["--set", "components=40", "--set", "epochs=1", "--set", "max_patches=4000"]
    fitted = CliRunner().invoke(
        app, ["fit", str(heads / "healthy"), "--out", str(model), "--engine", "openvino", *small]
    )
    assert fitted.exit_code == 0, fitted.output
    assert "efficientnet-lite0 on CPU, OpenVINO float32." in fitted.output
    told = CliRunner().invoke(app, ["info", str(model)])
    assert "engine openvino cpu float32" in told.output
    detected = CliRunner().invoke(
        app,
        ["detect", str(heads / "ill" / "p_flair.nii.gz"), "--model", str(model),
         "--out", str(tmp_path / "out"), "--engine", "torch float32"],
    )  # fmt: skip
    assert detected.exit_code == 0, detected.output
    assert "efficientnet-lite0 on CPU, torch float32." in detected.output
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert "found no GPU, so the CPU is used." in detected.output
    report = (tmp_path / "out" / "p_flair.json").read_text()
    assert '"engine": "torch cpu float32"' in report


def test_the_command_line_refuses_an_unknown_engine(heads, tmp_path):
    done = CliRunner().invoke(
        app,
        ["fit", str(heads / "healthy"), "--out", str(tmp_path / "m.safetensors"),
         "--engine", "tensorrt"],
    )  # fmt: skip
    assert done.exit_code == 2
    assert "An engine is auto" in done.output
