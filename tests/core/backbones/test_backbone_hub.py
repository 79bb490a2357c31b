"""Weights from the hub, with a hub of our own in its place: nothing here meets a network."""

from __future__ import annotations

import errno
import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import are_progress_bars_disabled
from safetensors.torch import save_file
from typer.testing import CliRunner

from napari_dino_uad import drain, load_backbone
from napari_dino_uad.cli import app
from napari_dino_uad.core.backbones import hub as backbone_hub
from napari_dino_uad.core.backbones.backbone import BACKBONES
from napari_dino_uad.core.backbones.hub import download_weights, fetch_weights
from napari_dino_uad.core.backbones.weights import create_network
from napari_dino_uad.core.errors import InputError

SPEC = BACKBONES["dinov3-vits16"]
REPOSITORY = "timm/vit_small_patch16_dinov3_qkvb.lvd1689m"


class Hub:
    """Stands in for the hub: one file, a cache, and how it goes wrong."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.file = folder / "at the hub.safetensors"
        save_file(create_network(SPEC).state_dict(), self.file)
        self.cache = folder / "cache"
        self.etag = hashlib.sha256(self.file.read_bytes()).hexdigest()
        self.error: Exception | None = None
        self.downloads = 0

    def metadata(self, url: str) -> SimpleNamespace:
        assert url.endswith(
            "timm/vit_small_patch16_dinov3_qkvb.lvd1689m/resolve/main/model.safetensors"
        )
        if self.error is not None:
            raise self.error
        return SimpleNamespace(etag=self.etag)

    def download(self, repository: str, name: str, local_dir: Path | None = None) -> str:
        assert repository == REPOSITORY
        # Ours are drawn instead.
        assert are_progress_bars_disabled()
        self.downloads += 1
        target = (local_dir or self.cache) / name
        target.parent.mkdir(exist_ok=True)
        return str(shutil.copyfile(self.file, target))

    def find(self, repository: str, name: str) -> str | None:
        path = self.cache / name
        return str(path) if path.exists() else None


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", hub.metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", hub.find)
    return hub


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_weights_are_downloaded_once_and_then_found(hub):
    assert "no" in next(line for line in run("backbones").output.splitlines() if SPEC.key in line)
    steps = []
    backbone = load_backbone(SPEC.key, on_progress=steps.append)
    assert (steps[-1].done, steps[-1].total) == (86, 86)
    assert hub.downloads == 1
    # From then on nothing is asked of the hub.
    hub.error = OSError("no network")
    assert load_backbone(SPEC.key).sha256 == backbone.sha256
    assert hub.downloads == 1
    assert not are_progress_bars_disabled()
    line = next(line for line in run("backbones").output.splitlines() if f" {SPEC.key} " in line)
    assert line.split()[-1] == "yes"


def test_a_download_tells_how_far_it_is(hub, monkeypatch):
    monkeypatch.setattr(backbone_hub, "_cache_folder", lambda spec: hub.cache)

    def slow(*arguments, **options):
        hub.cache.mkdir()
        (hub.cache / "abc.incomplete").write_bytes(bytes(40_000_000))
        while not seen:
            pass
        return hub.download(*arguments, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", slow)
    seen: list[int] = []
    for progress in fetch_weights(SPEC):
        assert progress.total == 86
        assert "DINOv3 License" in progress.step
        if progress.done == 40:
            seen.append(progress.done)
    assert seen


def test_weights_that_arrive_damaged_are_removed(hub, tmp_path):
    hub.etag = "0" * 64
    with pytest.raises(InputError, match="arrived damaged"):
        drain(fetch_weights(SPEC))
    assert not (hub.cache / "model.safetensors").exists()
    with pytest.raises(InputError, match="arrived damaged"):
        drain(download_weights(SPEC, tmp_path / "to"))
    assert not list((tmp_path / "to").glob("*.safetensors"))
    # A tag that is no checksum says nothing about the content.
    hub.etag = "5f7c"
    assert drain(fetch_weights(SPEC)).exists()


def test_a_full_disk_is_not_taken_for_a_missing_network(hub):
    hub.error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left") as failure:
        drain(fetch_weights(SPEC))
    assert not isinstance(failure.value, InputError)


@pytest.mark.parametrize("error", [OfflineModeIsEnabled("offline"), RuntimeError("client closed")])
def test_without_a_network_there_is_a_way_out(hub, error):
    hub.error = error
    with pytest.raises(InputError) as refusal:
        load_backbone(SPEC.key)
    told = str(refusal.value)
    assert "86 MB, DINOv3 License" in told
    assert "backbones download dinov3-vits16 --to FOLDER" in told
    assert "--weights" in told
    assert "efficientnet-lite0" in told


def test_download_leaves_one_whole_file(hub, tmp_path):
    folder = tmp_path / "usb" / "weights"
    result = run("backbones", "download", SPEC.key, "--to", folder)
    assert result.exit_code == 0, result.output
    [path] = folder.iterdir()
    assert path.name == "dinov3-vits16.safetensors"
    assert f"SHA-256 {hub.etag}" in result.output
    assert load_backbone(SPEC.key, path).sha256 == load_backbone(SPEC.key, hub.file).sha256
    # Other layers are of the same file, which is not downloaded again.
    again = run("backbones", "download", f"{SPEC.key}@6,12", "--to", folder)
    assert again.exit_code == 0
    assert f"SHA-256 {hub.etag}" in again.output
    assert hub.downloads == 1


def test_a_file_that_is_cut_off_is_downloaded_again(hub, tmp_path):
    path = tmp_path / "dinov3-vits16.safetensors"
    path.write_bytes(hub.file.read_bytes()[:1000])
    assert drain(download_weights(SPEC, tmp_path)) == path
    assert path.read_bytes() == hub.file.read_bytes()


def test_a_file_whose_header_is_damaged_is_downloaded_again(hub, tmp_path):
    # The library opens it, but no such numbers are ever weights.
    header = b'{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    path = tmp_path / "dinov3-vits16.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert drain(download_weights(SPEC, tmp_path)) == path
    assert path.read_bytes() == hub.file.read_bytes()


def test_what_is_in_the_cache_is_copied(hub, tmp_path):
    drain(fetch_weights(SPEC))
    hub.error = OSError("no network")
    path = drain(download_weights(SPEC, tmp_path / "to"))
    assert path.read_bytes() == hub.file.read_bytes()
    assert hub.downloads == 1


def test_download_without_a_network_ends_in_a_sentence(hub, tmp_path):
    hub.error = ConnectionError("unreachable")
    result = run("backbones", "download", SPEC.key, "--to", tmp_path / "to")
    assert result.exit_code == 2
    [sentence] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "could not be downloaded from huggingface.co/timm/" in sentence
    assert not list((tmp_path / "to").iterdir())


def test_what_comes_with_the_installation_is_not_downloaded(hub, tmp_path):
    result = run("backbones", "download", "efficientnet-lite0", "--to", tmp_path / "to")
    assert result.exit_code == 2
    assert "come with the installation" in result.stderr
    assert hub.downloads == 0
