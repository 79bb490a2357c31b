"""Where a backbone runs: a library on a device in a precision.

What an engine computes is the same everywhere, up to rounding: `engine_choice` takes none whose
embeddings differ from those of torch in single precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.patch_embedder import PatchEmbedder

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

#: Devices as users read them.
DEVICE_WORDS = {"cpu": "CPU", "cuda": "NVIDIA GPU", "mps": "Apple GPU", "intel-gpu": "Intel GPU"}

_LIBRARY_WORDS = {"torch": "torch", "openvino": "OpenVINO"}

# Slices at once. A processor is no faster with more, and answers sooner with few; a graphics
# processor wants to be filled.
_BATCH = {"cpu": 2, "cuda": 16, "mps": 8, "intel-gpu": 8}

# What torch, OpenVINO and the drivers say when memory runs out, where the type does not tell.
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
    """What an engine is.

    Attributes
    ----------
    library : {"torch", "openvino"}
        What computes.
    device : {"cpu", "cuda", "mps", "intel-gpu"}
        What it computes on.
    precision : {"float32", "bfloat16", "float16"}
        What it multiplies in.
    """

    library: Library
    device: str
    precision: Precision

    @property
    def description(self) -> str:
        """Its name in caches and files, as "torch cpu float32"."""
        return f"{self.library} {self.device} {self.precision}"

    @property
    def words(self) -> str:
        """Its name for users, as "CPU, OpenVINO bfloat16"."""
        return f"{DEVICE_WORDS[self.device]}, {_LIBRARY_WORDS[self.library]} {self.precision}"


#: What every other engine is held against.
REFERENCE = EngineSpec("torch", "cpu", "float32")


class Engine(ABC):
    """Runs the module of a backbone; a batch that memory cannot hold is halved.

    Parameters
    ----------
    spec : EngineSpec
        What it is.

    Attributes
    ----------
    batch : int
        How many slices are best given at once.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.batch = _BATCH[spec.device]
        self._largest: int | None = None
        self._note = ""

    @abstractmethod
    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the maps of images (B, 3, H, W), whatever memory that takes."""

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the maps of layers, in parts where memory does not hold them all.

        Parameters
        ----------
        images : torch.Tensor, (B, 3, H, W)
            Normalised input.

        Returns
        -------
        torch.Tensor of float32 or float16, (B, V)
            As `PatchEmbedder.forward` gives them, on the engine's device.

        Raises
        ------
        InputError
            If memory does not hold a single slice.
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
                # Here and not above: until the error is let go of, so is nothing it holds.
                self._halve(len(part))
            else:
                rest = rest[len(part) :]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def start(self, images: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begin to compute maps; what it returns is called for them, and waits.

        Engines that can compute several batches at once do; the others are done by then.

        Parameters
        ----------
        images : torch.Tensor, (B, 3, H, W)
            As for `maps`, which says what may be raised here or there.
        """
        maps = self.maps(images)
        return lambda: maps

    def take_note(self) -> str:
        """Return what the user should hear of, once; mostly nothing."""
        note, self._note = self._note, ""
        return note

    def _halve(self, count: int) -> None:
        self._largest = self.batch = count // 2
        self._note = (
            f"Memory ran out ({self.spec.words}); going on with {self._largest} "
            f"slice{'s' if self._largest > 1 else ''} at once instead of {count}."
        )


class TorchEngine(Engine):
    """Runs a module in torch; its attention is torch's fused scaled-dot-product attention.

    Parameters
    ----------
    spec : EngineSpec
        With the library torch. CUDA and MPS are untested.
    module : PatchEmbedder
        What it runs; moved to the device.
    """

    def __init__(self, spec: EngineSpec, module: PatchEmbedder) -> None:
        import torch

        super().__init__(spec)
        # Convolutions run faster on images whose channels lie side by side.
        self._channels_last = spec.device in ("cpu", "cuda")
        if self._channels_last:
            module.to(memory_format=torch.channels_last)
        self._module = module.to(spec.device)

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the maps of images (B, 3, H, W)."""
        import torch

        if self.spec.device == "cuda":
            # From pinned memory the copy runs beside the computation, and nobody waits for it.
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
    """Say whether an error means that memory ran out, on whatever device."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)
