"""The OpenVINO engine, on the CPU or an Intel GPU, and the cache of converted networks.

OpenVINO comes with the optional extra ``openvino``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.backbones.engines.torch_engine import (
    Engine,
    EngineSpec,
    Precision,
    is_out_of_memory,
)
from napari_dino_uad.core.storage.atomic import staged
from napari_dino_uad.core.storage.folders import cache_home
from napari_dino_uad.core.storage.temporary import sweep

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.backbones.patch_embedder import PatchEmbedder

__all__ = ["ConvertedNetworks", "OpenVinoEngine", "has_openvino", "openvino_specs"]

# OpenVINO's names of the devices and of the precisions.
_DEVICES = {"cpu": "CPU", "intel-gpu": "GPU"}
_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

# Increase this when the same weights convert to a different network.
_NETWORK_VERSION = 3

# Networks kept in memory: one per input size. Most cohorts have one size.
_IN_MEMORY = 4

# A network with fewer parameters runs on several slices in parallel, each with few threads. Its
# layers are small: with all threads on one slice, the threads wait for each other after every
# layer, and the slowest, perhaps held up by another pipeline stage, delays them all.
_LIGHT_PARAMETERS = 10_000_000
_MOST_STREAMS = 8

# Slices per stream in a batch: with more, less time is lost waiting for the last ones.
_SLICES_PER_STREAM = 4

# File of the network's structure; its weights are beside it.
_STRUCTURE = "network.xml"

_IMPORTING = threading.Lock()


def has_openvino() -> bool:
    """Return whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


def _openvino() -> Any:
    """Import OpenVINO without its telemetry.

    At import and at every conversion, OpenVINO reports to a Google server unless the user has
    opted out. A hospital's machine must not do that because of us. If the telemetry package
    cannot be imported, OpenVINO works without it.
    """
    with _IMPORTING:
        name = "openvino_telemetry"
        if name not in sys.modules and "openvino" not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]  # makes its import fail
            try:
                import openvino

                # Converts networks. OpenVINO imports it only on first use.
                import openvino.tools.ovc
            finally:
                del sys.modules[name]
        import openvino
    return openvino


def openvino_specs(graphics: bool) -> list[EngineSpec]:
    """List the engines that OpenVINO offers on this machine; empty if it is not installed.

    Parameters
    ----------
    graphics : bool
        Whether to include an Intel GPU. It is untested.
    """
    if not has_openvino():
        return []
    core = _openvino().Core()
    cpu: list[Precision] = ["float32"]
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        cpu.append("bfloat16")
    specs = [EngineSpec("openvino", "cpu", precision) for precision in cpu]
    if graphics and any(device.startswith("GPU") for device in core.available_devices):
        specs += [
            EngineSpec("openvino", "intel-gpu", precision) for precision in ("float16", "float32")
        ]
    return specs


class OpenVinoEngine(Engine):
    """The OpenVINO engine.

    It uses as many threads as torch may use at the time; with a window open, that is one fewer
    than there are cores.

    Parameters
    ----------
    spec : EngineSpec
        An engine with library openvino.
    backbone : Backbone
        Its module is converted for each input size.
    """

    def __init__(self, spec: EngineSpec, backbone: Backbone) -> None:
        import torch

        super().__init__(spec)
        self._backbone = backbone
        self._core = _openvino().Core()
        self._home = cache_home()
        self._compiled: dict[tuple[int, int, int], _Compiled] = {}
        parameters = sum(one.numel() for one in backbone.module.parameters())
        self._light = spec.device == "cpu" and parameters < _LIGHT_PARAMETERS
        if self._light:
            self.batch = _SLICES_PER_STREAM * self._streams(torch.get_num_threads())

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the maps of images (B, 3, H, W)."""
        return self._start(images)()

    def start(self, images: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Start computing maps; those of an earlier call may still be running."""

        def maps() -> torch.Tensor:
            try:
                return finish()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            return self.maps(images)

        # If memory runs out, `self.maps` computes in parts once the maps are requested.
        try:
            finish = self._start(images)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return partial(self.maps, images)
        return maps

    def _start(self, images: torch.Tensor) -> Callable[[], torch.Tensor]:
        import torch

        height, width = images.shape[-2:]
        key = (height, width, torch.get_num_threads())
        if key not in self._compiled:
            if len(self._compiled) == _IN_MEMORY:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[key] = self._compile(*key)
        finish = self._compiled[key].start(images.numpy())
        return lambda: torch.from_numpy(finish())

    def _streams(self, threads: int) -> int:
        """Return how many slices are computed in parallel with this many threads."""
        return min(threads, _MOST_STREAMS) if self._light else 1

    def _compile(self, height: int, width: int, threads: int) -> _Compiled:
        """Compile the network for an input size."""
        streams = self._streams(threads)
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _TYPES[self.spec.precision],
            "NUM_STREAMS": streams,
        }
        if self.spec.device == "cpu":
            # Pinned threads of two processes would compete for the same core.
            config |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        elif self._home is not None:
            # OpenVINO's own cache. It saves a third of a second on a CPU, much more on a GPU.
            config |= {"CACHE_DIR": str(self._home / "compiled")}
        network = self._network(height, width)
        compiled = self._core.compile_model(network, _DEVICES[self.spec.device], config)
        return _Compiled(compiled, streams > 1)

    def _network(self, height: int, width: int) -> Any:
        """Read the converted network from disk, or convert it."""
        if self._home is None:
            return self._convert(height, width)
        networks = ConvertedNetworks(self._home)
        spec = self._backbone.spec
        parts = [
            f"{_NETWORK_VERSION} {spec.key} layers {spec.layers}",
            self._backbone.sha256,
            f"{height} x {width}",
            *(f"{name} {version(name)}" for name in ("openvino", "torch", "timm")),
        ]
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]
        path = networks.find(name)
        if path is not None:
            try:
                return self._core.read_model(path)
            except RuntimeError:
                # Damaged: convert again.
                networks.remove(name)
        network = self._convert(height, width)
        networks.keep(name, lambda path: _openvino().save_model(network, path, False))
        return network

    def _convert(self, height: int, width: int) -> Any:
        """Convert the module to OpenVINO for inputs (any number, 3, height, width).

        Uses tracing, although torch calls it outdated: `torch.export` imports triton, which makes
        a window on Linux crash (see `widgets.workers`), and takes twice as long.
        """
        import torch

        module = self._backbone.module
        module.prepare(height, width)
        ov = _openvino()
        with warnings.catch_warnings(), torch.no_grad():
            # Warnings that tracing is outdated, and that it fixes the input size, as intended.
            warnings.simplefilter("ignore")
            example = torch.zeros(1, 3, height, width)
            traced = torch.jit.trace(_in_half(module), example, check_trace=False)
        return ov.convert_model(traced, input=[ov.PartialShape([-1, 3, height, width])])


class _Compiled:
    """A network ready to run.

    Parameters
    ----------
    network : openvino.CompiledModel
        From images (any number, 3, H, W) to maps (as many, V).
    side_by_side : bool
        Whether each slice of a batch is a request of its own, run in parallel.
    """

    def __init__(self, network: Any, side_by_side: bool) -> None:
        self.network = network
        self._side_by_side = side_by_side
        self._idle: deque[Any] = deque()

    def start(self, images: NDArray[np.float32]) -> Callable[[], NDArray[np.float16]]:
        """Start computing the maps of images (B, 3, H, W); the returned callable gives (B, V)."""
        size = 1 if self._side_by_side else len(images)
        requests = []
        for start in range(0, len(images), size):
            request = self._idle.pop() if self._idle else self.network.create_infer_request()
            # The request keeps a reference to the images.
            request.start_async(images[start : start + size], share_inputs=True)
            requests.append(request)

        def finish() -> NDArray[np.float16]:
            for request in requests:
                request.wait()
            found = np.concatenate([one.get_output_tensor().data for one in requests])
            self._idle.extend(requests)
            return found

        return finish


def _in_half(module: PatchEmbedder) -> torch.nn.Module:
    """Wrap a module to return half precision, as maps are kept: half the data to move."""
    import torch

    class InHalf(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps: torch.Tensor = self.module(images)
            return maps.half()

    return InHalf().eval()


class ConvertedNetworks:
    """Converted networks in a folder; the least recently used are removed to make room.

    Each is a folder with a structure file and a weight file. It is complete or absent.

    Parameters
    ----------
    home : Path
        The folder from `cache_home`; networks have their own subfolder, created on first use.
    limit_bytes : int
        Size above which old networks are removed; the newest always stays.
    """

    def __init__(self, home: Path, limit_bytes: int = 4_000_000_000) -> None:
        self.folder = home / "networks"
        self.limit_bytes = limit_bytes

    def find(self, name: str) -> Path | None:
        """Return the structure file of a network, or None if it is not cached."""
        path = self.folder / name / _STRUCTURE
        try:
            os.utime(path.parent)
        except OSError:
            return None
        return path

    def keep(self, name: str, save: Callable[[Path], object]) -> None:
        """Keep a network, if the disk allows; otherwise it is converted again next time.

        Parameters
        ----------
        name : str
            Name of the network.
        save : callable
            Writes the network's structure to the given file, and its weights beside it.
        """
        try:
            with staged(self.folder) as partial:
                (partial / name).mkdir()
                save(partial / name / _STRUCTURE)
        except (OSError, RuntimeError):
            return
        entries = sorted(self._entries(), key=lambda entry: entry.stat().st_mtime)
        excess = self.size_bytes() - self.limit_bytes
        for entry in entries[:-1]:
            if excess <= 0:
                break
            excess -= _size(entry)
            _remove(entry)

    def remove(self, name: str) -> None:
        """Remove a network."""
        _remove(self.folder / name)

    def size_bytes(self) -> int:
        """Return the size of all networks on disk."""
        return sum(_size(entry) for entry in self._entries())

    def clear(self) -> int:
        """Remove all networks and return the number of bytes freed."""
        before = self.size_bytes()
        for entry in self._entries():
            _remove(entry)
        if self.folder.is_dir():
            sweep(self.folder)
        return before - self.size_bytes()

    def _entries(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        # The others are being written, or are left of a killed run.
        return [entry for entry in self.folder.iterdir() if entry.is_dir() and entry.name[0] != "."]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
