"""Training states on disk, so that a stopped fit resumes at its last finished epoch."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dino_uad.core.storage.atomic import staged, writing
from napari_dino_uad.core.storage.tensor_file import checksum, read_tensors, write_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["TrainingFile", "TrainingStates"]

_SUFFIX = ".safetensors"
_HEADER = "napari_dino_uad_training"
# A fit that was not continued within this time is no longer wanted.
_KEPT_S = 14 * 86_400.0


class TrainingStates:
    """A folder with the states of unfinished fits.

    Parameters
    ----------
    home : Path
        The folder from `cache_home`; the states have their own subfolder, created on first use.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "training"

    def file(self, digest: str) -> TrainingFile:
        """Return the file of a fit, which need not exist.

        Parameters
        ----------
        digest : str
            Digest of everything that the training depends on.
        """
        return TrainingFile(self.folder / f"{digest}{_SUFFIX}")

    def sweep(self) -> None:
        """Remove the states that are older than 14 days."""
        for path in self._files():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _KEPT_S:
                    path.unlink()

    def count(self) -> int:
        """Return the number of states; a fit in several planes has one for each."""
        return len(self._files())

    def size_bytes(self) -> int:
        """Return the size of all states on disk."""
        size = 0
        for path in self._files():
            with suppress(OSError):
                size += path.stat().st_size
        return size

    def clear(self) -> int:
        """Remove all states and return the number of bytes freed."""
        before = self.size_bytes()
        for path in self._files():
            with suppress(OSError):
                path.unlink()
        return before - self.size_bytes()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{_SUFFIX}")) if self.folder.is_dir() else []


class TrainingFile:
    """The state of one unfinished fit.

    Attributes
    ----------
    path : Path
        A safetensors file with a checksum; its name is the digest of the fit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, torch.Tensor] | None:
        """Read the state; None if there is none.

        Raises
        ------
        ValueError
            If the file is damaged or cannot be read. The message is a clause such as "it is cut
            off".
        """
        if not self.path.exists():
            return None
        try:
            metadata, tensors = read_tensors(self.path)
        except OSError as error:
            raise ValueError(error.strerror or type(error).__name__) from error
        if metadata.get(_HEADER) != self._described(tensors):
            raise ValueError("its checksum does not match")
        return tensors

    def save(self, state: dict[str, torch.Tensor]) -> None:
        """Write the state, whole or not at all, in place of an older one.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        with writing(self.path), staged(self.path.parent) as partial:
            described = {_HEADER: self._described(tensors)}
            write_tensors(partial / self.path.name, tensors, described)

    def remove(self) -> None:
        """Remove the file, if it exists."""
        with suppress(OSError):
            self.path.unlink()

    def _described(self, tensors: dict[str, torch.Tensor]) -> str:
        """Return what the file's metadata must say; a renamed file is of another fit."""
        header = {"fit": self.path.stem}
        return json.dumps({**header, "checksum": checksum(header, tensors)})
