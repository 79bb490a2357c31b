"""A backbone run by OpenVINO, on the CPU or an Intel GPU; converted networks are kept on disk.

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

from napari_dino_uad.core.cache import cache_home
from napari_dino_uad.core.engines import Engine, EngineSpec, Precision, is_out_of_memory

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones import Backbone
    from napari_dino_uad.core.patch_embedder import PatchEmbedder

__all__ = ["ConvertedNetworks", "OpenVinoEngine", "has_openvino", "openvino_specs"]

# Devices by the names that OpenVINO has for them, and what each computes in.
_DEVICES = {"cpu": "CPU", "intel-gpu": "GPU"}
_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

# Counts up when the same weights would be converted to another network.
_NETWORK_VERSION = 3

# Networks held in memory: one for each size of the input, and most cohorts have one.
_IN_MEMORY = 4

# A network with fewer parameters is run on several slices side by side, each in few threads. Its
# layers are small: with all threads on one slice they wait for each other after each, and when
# another stage of a pipeline holds one of them up, for that one.
_LIGHT_PARAMETERS = 10_000_000
_MOST_STREAMS = 8

# So many slices for each of them at once, because the last ones of a batch are waited for.
_SLICES_PER_STREAM = 4

# Of a converted network; its weights lie beside it.
_STRUCTURE = "network.xml"

_IMPORTING = threading.Lock()


def has_openvino() -> bool:
    """Say whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


def _openvino() -> Any:
    """Import OpenVINO with its telemetry left out.

    At its import, and at every conversion, OpenVINO tells a server of Google's of it unless the
    user has opted out. A hospital's machine must not do that on our account. Where the package
    that does the telling cannot be imported, OpenVINO goes on without.
    """
    with _IMPORTING:
        name = "openvino_telemetry"
        if name not in sys.modules and "openvino" not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]  # makes its import fail
            try:
                import openvino

                # Converts networks, and is imported by OpenVINO only when first asked for.
                import openvino.tools.ovc
            finally:
                del sys.modules[name]
        import openvino
    return openvino


def openvino_specs(graphics: bool) -> list[EngineSpec]:
    """List the engines that OpenVINO offers on this machine; none where it is not installed.

    Parameters
    ----------
    graphics : bool
        Whether an Intel GPU is wanted too. It is untested.
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
    """Runs the module of a backbone in OpenVINO.

    It takes as many threads as torch is allowed at the time: inside a window one fewer than there
    are cores.

    Parameters
    ----------
    spec : EngineSpec
        With the library openvino.
    backbone : Backbone
        Whose module it runs, converted for each size of the input.
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
        """Begin to compute maps, while those of an earlier call may still be computed."""

        def maps() -> torch.Tensor:
            try:
                return finish()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            return self.maps(images)

        # Where memory ran out it is done in parts, when it is asked for.
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
        """Say how many slices are computed side by side in so many threads."""
        return min(threads, _MOST_STREAMS) if self._light else 1

    def _compile(self, height: int, width: int, threads: int) -> _Compiled:
        """Make the network for a size of the input ready to run."""
        streams = self._streams(threads)
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _TYPES[self.spec.precision],
            "NUM_STREAMS": streams,
        }
        if self.spec.device == "cpu":
            # Pinned threads of two processes would fight for the same core.
            config |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        elif self._home is not None:
            # Its own cache: a third of a second is won on a CPU, much more on a GPU.
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
                # Damaged: made again.
                networks.remove(name)
        network = self._convert(height, width)
        networks.keep(name, lambda path: _openvino().save_model(network, path, False))
        return network

    def _convert(self, height: int, width: int) -> Any:
        """Convert the module to OpenVINO for inputs (any number, 3, height, width).

        By tracing, though torch calls that old: `torch.export` brings in triton, and with it
        what brings down a window on Linux (see `widgets.workers`); and it takes twice as long.
        """
        import torch

        module = self._backbone.module
        module.prepare(height, width)
        ov = _openvino()
        with warnings.catch_warnings(), torch.no_grad():
            # That tracing is old, and that it fixes the size of the input, which is meant.
            warnings.simplefilter("ignore")
            example = torch.zeros(1, 3, height, width)
            traced = torch.jit.trace(_in_half(module), example, check_trace=False)
        return ov.convert_model(traced, input=[ov.PartialShape([-1, 3, height, width])])


class _Compiled:
    """A network that is ready to run.

    Parameters
    ----------
    network : openvino.CompiledModel
        From images (any number, 3, H, W) to maps (as many, V).
    side_by_side : bool
        Whether each slice of a batch is a request of its own.
    """

    def __init__(self, network: Any, side_by_side: bool) -> None:
        self.network = network
        self._side_by_side = side_by_side
        self._idle: deque[Any] = deque()

    def start(self, images: NDArray[np.float32]) -> Callable[[], NDArray[np.float16]]:
        """Begin to compute the maps of images (B, 3, H, W); what it returns gives them, (B, V)."""
        size = 1 if self._side_by_side else len(images)
        requests = []
        for start in range(0, len(images), size):
            request = self._idle.pop() if self._idle else self.network.create_infer_request()
            # The request holds on to them.
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
    """Give the maps in half precision, as they are kept: they are half as much to move."""
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
    """Converted networks in a folder; those not used for longest make room for new ones.

    Each is a folder with a file of its structure and one of its weights, whole or not there.

    Parameters
    ----------
    home : Path
        That of `cache_home`; they lie in a folder of their own there, made when first needed.
    limit_bytes : int
        Size above which old ones are removed; the newest always stays.
    """

    def __init__(self, home: Path, limit_bytes: int = 4_000_000_000) -> None:
        self.folder = home / "networks"
        self.limit_bytes = limit_bytes

    def find(self, name: str) -> Path | None:
        """Return the file of a network's structure, or None if it is not there."""
        path = self.folder / name / _STRUCTURE
        try:
            os.utime(path.parent)
        except OSError:
            return None
        return path

    def keep(self, name: str, save: Callable[[Path], object]) -> None:
        """Keep a network, if the disk takes it; without it, it is made again next time.

        Parameters
        ----------
        name : str
            Of the network.
        save : callable
            Writes the network to the file of its structure, and its weights beside that.
        """
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        try:
            partial.mkdir(parents=True)
            save(partial / _STRUCTURE)
            partial.rename(self.folder / name)
        except (OSError, RuntimeError):
            _remove(partial)
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
        """Return what they take on disk."""
        return sum(_size(entry) for entry in self._entries())

    def clear(self) -> int:
        """Remove all and return how many bytes came free."""
        before = self.size_bytes()
        for entry in self._entries():
            _remove(entry)
        return before - self.size_bytes()

    def _entries(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [entry for entry in self.folder.iterdir() if entry.is_dir()]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
