"""What runs a backbone: a library on a device in a precision.

All engines give the same result up to rounding: `choose_engine` rejects those whose embeddings
differ from torch's in single precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones.patch_embedder import PatchEmbedder

__all__ = [
    "DEVICE_WORDS",
    "LIBRARIES",
    "PRECISIONS",
    "Engine",
    "EngineSpec",
    "Library",
    "Precision",
    "TorchEngine",
    "is_out_of_memory",
]

Library = Literal["torch", "openvino"]
Precision = Literal["float32", "bfloat16", "float16"]
LIBRARIES: tuple[Library, ...] = get_args(Library)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

#: Device names shown to users.
DEVICE_WORDS = {"cpu": "CPU", "cuda": "NVIDIA GPU", "mps": "Apple GPU", "intel-gpu": "Intel GPU"}

_LIBRARY_WORDS = {"torch": "torch", "openvino": "OpenVINO"}

# Slices per batch. A CPU is no faster with larger batches, and responds sooner with small ones; a
# GPU needs large ones.
_BATCH = {"cpu": 2, "cuda": 16, "mps": 8, "intel-gpu": 8}

# Words in the messages of torch, OpenVINO and drivers that mean out of memory, for errors whose
# type does not show it.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
)


@dataclass(frozen=True)
class EngineSpec:
    """The library, device and precision of an engine.

    Attributes
    ----------
    library : {"torch", "openvino"}
        Library that computes.
    device : {"cpu", "cuda", "mps", "intel-gpu"}
        Device that it runs on.
    precision : {"float32", "bfloat16", "float16"}
        Precision of multiplications.
    """

    library: Library
    device: str
    precision: Precision

    @property
    def description(self) -> str:
        """Name in caches and files, such as "torch cpu float32"."""
        return f"{self.library} {self.device} {self.precision}"

    @property
    def words(self) -> str:
        """Name for users, such as "CPU, OpenVINO bfloat16"."""
        return f"{DEVICE_WORDS[self.device]}, {_LIBRARY_WORDS[self.library]} {self.precision}"


#: The engine that all others are compared with.
REFERENCE = EngineSpec("torch", "cpu", "float32")


class Engine(ABC):
    """An engine, which runs the module of a backbone and halves batches too large for memory.

    Parameters
    ----------
    spec : EngineSpec
        Library, device and precision.

    Attributes
    ----------
    batch : int
        Best number of slices per call.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.batch = _BATCH[spec.device]
        self._largest: int | None = None
        self._note = ""

    @abstractmethod
    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the maps of images (B, 3, H, W), without regard to memory."""

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the maps of the layers, in parts if they do not fit in memory.

        Parameters
        ----------
        images : torch.Tensor, (B, 3, H, W)
            Normalised input.

        Returns
        -------
        torch.Tensor of float32 or float16, (B, V)
            As from `PatchEmbedder.forward`, on the engine's device.

        Raises
        ------
        InputError
            If a single slice does not fit in memory.
        """
        import torch

        parts: list[torch.Tensor] = []
        rest = images
        while len(rest):
            part = rest[: self._largest]
            try:
                parts.append(self.run(part))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    height, width = images.shape[-2:]
                    raise InputError(
                        f"Memory ran out ({self.spec.words}) with a single slice of {height} x "
                        f"{width} pixels; choose a smaller input size or backbone, or another "
                        "device."
                    ) from error
                failed = True
            else:
                failed = False
            if failed:
                # Outside the except block: the error keeps its tensors alive until it is released.
                self._halve(len(part))
            else:
                rest = rest[len(part) :]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def start(self, images: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Start computing maps; return a callable that waits for them.

        Engines that can, compute several batches at once; the others finish before returning.

        Parameters
        ----------
        images : torch.Tensor, (B, 3, H, W)
            As for `maps`. The errors of `maps` are raised here or by the returned callable.
        """
        maps = self.maps(images)
        return lambda: maps

    def take_note(self) -> str:
        """Return a message for the user and clear it; usually empty."""
        note, self._note = self._note, ""
        return note

    def _halve(self, count: int) -> None:
        self._largest = self.batch = count // 2
        self._note = (
            f"Memory ran out ({self.spec.words}); continuing with {self._largest} "
            f"slice{'s' if self._largest > 1 else ''} per batch instead of {count}."
        )


class TorchEngine(Engine):
    """The torch engine, which uses torch's fused scaled-dot-product attention.

    Parameters
    ----------
    spec : EngineSpec
        An engine with library torch. CUDA and MPS are untested.
    module : PatchEmbedder
        The module to run; it is moved to the device.
    """

    def __init__(self, spec: EngineSpec, module: PatchEmbedder) -> None:
        import torch

        super().__init__(spec)
        # Convolutions are faster in channels-last layout.
        self._channels_last = spec.device in ("cpu", "cuda")
        if self._channels_last:
            module.to(memory_format=torch.channels_last)
        self._module = module.to(spec.device)

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the maps of images (B, 3, H, W)."""
        import torch

        if self.spec.device == "cuda":
            # From pinned memory, the copy overlaps with the computation.
            images = images.pin_memory()
        images = images.to(self.spec.device, non_blocking=True)
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        lower = self.spec.precision != "float32"
        with (
            torch.inference_mode(),
            torch.autocast(self.spec.device, getattr(torch, self.spec.precision), enabled=lower),
        ):
            self._module.prepare(*images.shape[-2:])
            maps: torch.Tensor = self._module(images)
        return maps

    def _halve(self, count: int) -> None:
        import torch

        super()._halve(count)
        if self.spec.device == "cuda":
            torch.cuda.empty_cache()
        elif self.spec.device == "mps":
            torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on any device."""
    import torch

    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)
