"""The table of backbones: what is available, under which licence, and which layers are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from napari_dino_uad.core.errors import InputError

__all__ = ["BACKBONES", "DEFAULT_BACKBONE", "BackboneSpec", "backbone_spec"]

DEFAULT_BACKBONE = "efficientnet-lite0"

_APACHE = "Apache-2.0"
_BSD = "BSD-3-Clause"
_DINOV3 = "DINOv3 License"

_DINO_RESNET = (
    "https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"
)


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and the layers to read from it.

    Attributes
    ----------
    key : str
        The name users type, such as ``dinov2-vits14``. Layers other than the table's are appended,
        as in ``dinov2-vits14@6,9,12``, so that the key and the weights determine the embeddings.
    timm_name : str
        Architecture and weights in timm.
    family : {"dino", "dinov2", "dinov3", "convnext", "cnn"}
        How embeddings are extracted; see `PatchEmbedder`.
    channels, strides : tuple of int
        Channels and stride of every layer that can be read: the blocks of a transformer, the
        stages of a convolutional network. A stride is the input pixels between patch centres.
    layers : tuple of int
        Layers to read, counted from 1, in ascending order.
    input_size : int
        Recommended shorter edge of the input in pixels.
    licence : str
        Licence of the weights.
    download_mb : float
        Size of the download in MB (1e6 bytes); 0 if the weights come with the installation.
    finest_stride : int
        Layers with a smaller stride are averaged to a grid of this stride.
    weights_url : str
        Where a file of weights is that timm does not have on the hub; empty for all others.
    """

    key: str
    timm_name: str
    family: Literal["dino", "dinov2", "dinov3", "convnext", "cnn"]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    layers: tuple[int, ...]
    input_size: int
    licence: str
    download_mb: float
    finest_stride: int = 1
    weights_url: str = ""

    @property
    def name(self) -> str:
        """Key of the network without layers."""
        return self.key.partition("@")[0]

    @property
    def levels(self) -> tuple[int, ...]:
        """Channels of each layer read."""
        return tuple(self.channels[layer - 1] for layer in self.layers)

    @property
    def dimension(self) -> int:
        """Channels of an embedding: those of all layers read, concatenated."""
        return sum(self.levels)

    @property
    def stride(self) -> int:
        """Input pixels between patch centres: the finest layer's stride, or `finest_stride`."""
        return max(self.finest_stride, min(self.strides[layer - 1] for layer in self.layers))

    @property
    def multiple(self) -> int:
        """Required divisor of the input's edges in pixels."""
        return max(self.stride, *(self.strides[layer - 1] for layer in self.layers))

    @property
    def embedded(self) -> bool:
        """Whether the weights come with the installation, so that no network is needed."""
        return self.download_mb == 0

    @property
    def layers_text(self) -> str:
        """The layers read, as users see them: ``6,9,12 of 12``."""
        return f"{_joined(self.layers)} of {len(self.channels)}"

    def reading(self, layers: Iterable[int]) -> BackboneSpec:
        """Return the same backbone, reading other layers.

        Parameters
        ----------
        layers : iterable of int
            Counted from 1, in any order.

        Raises
        ------
        InputError
            If `layers` is empty or names a layer that the network does not have.
        """
        chosen = tuple(sorted(set(layers)))
        count = len(self.channels)
        if not chosen or chosen[0] < 1 or chosen[-1] > count:
            raise InputError(
                f"The layers of {self.name} are counted from 1 to {count}, got "
                f"{_joined(chosen) or 'none'}; choose among those."
            )
        default = BACKBONES[self.name]
        if chosen == default.layers:
            return default
        return replace(default, key=f"{self.name}@{_joined(chosen)}", layers=chosen)


def _joined(layers: Iterable[int]) -> str:
    return ",".join(map(str, layers))


def _dinov2(size: str, name: str, blocks: int, dimension: int, mb: float) -> list[BackboneSpec]:
    return [
        BackboneSpec(
            key=f"dinov2-{size}{suffix}",
            timm_name=f"vit_{name}_patch14_{registers}dinov2.lvd142m",
            family="dinov2",
            channels=(dimension,) * blocks,
            strides=(14,) * blocks,
            layers=(blocks,),
            input_size=448,
            licence=_APACHE,
            download_mb=mb,
        )
        for suffix, registers in (("", ""), ("-reg", "reg4_"))
    ]


def _dino(size: str, name: str, dimension: int, mb: float) -> BackboneSpec:
    return BackboneSpec(
        key=f"dino-{size}",
        timm_name=f"vit_{name}_patch16_224.dino",
        family="dino",
        channels=(dimension,) * 12,
        strides=(16,) * 12,
        layers=(12,),
        input_size=448,
        licence=_APACHE,
        download_mb=mb,
    )


def _dinov3(
    size: str, name: str, blocks: int, dimension: int, mb: float, biases: str = "_qkvb"
) -> BackboneSpec:
    return BackboneSpec(
        key=f"dinov3-{size}",
        # The plain timm variants have no query and value biases. These are zero in Meta's weights,
        # but may not be in weights that a hospital has fine-tuned. The largest has none at all.
        timm_name=f"vit_{name}_patch16_dinov3{biases}.lvd1689m",
        family="dinov3",
        channels=(dimension,) * blocks,
        strides=(16,) * blocks,
        layers=(blocks,),
        input_size=448,
        licence=_DINOV3,
        download_mb=mb,
    )


def _convnext(size: str, width: int, mb: float) -> BackboneSpec:
    return BackboneSpec(
        key=f"dinov3-convnext-{size}",
        timm_name=f"convnext_{size}.dinov3_lvd1689m",
        family="convnext",
        channels=(width, 2 * width, 4 * width, 8 * width),
        strides=(4, 8, 16, 32),
        # Meta's `get_intermediate_layers(x)` returns stage 4 only (here "@4"): at 448 pixels that
        # is 14 x 14 patches of 32 pixels, too coarse for small lesions. With stage 3 there are as
        # many patches as in a ViT with patch size 16.
        layers=(3, 4),
        input_size=448,
        licence=_DINOV3,
        download_mb=mb,
    )


def _resnet(
    key: str, name: str, mb: float, width: int = 256, licence: str = _BSD, url: str = ""
) -> BackboneSpec:
    return BackboneSpec(
        key=key,
        # torchvision's original weights, used in the results of PatchCore and its successors.
        timm_name=f"{name}.tv_in1k",
        family="cnn",
        channels=(width, 2 * width, 4 * width, 8 * width),
        strides=(4, 8, 16, 32),
        layers=(2, 3),
        input_size=256,
        licence=licence,
        download_mb=mb,
        weights_url=url,
    )


_TABLE = [
    BackboneSpec(
        key=DEFAULT_BACKBONE,
        timm_name="tf_efficientnet_lite0.in1k",
        family="cnn",
        channels=(16, 24, 40, 112, 320),
        strides=(2, 4, 8, 16, 32),
        # Stride 2 captures contrast and edges, the deep layers texture and context. Stride 4 adds
        # nothing to them.
        layers=(1, 3, 4, 5),
        input_size=256,
        licence=_APACHE,
        download_mb=0,
        finest_stride=8,
    ),
    _dino("vits16", "small", 384, 87),
    _dino("vitb16", "base", 768, 343),
    _resnet("dino-resnet50", "resnet50", 94, licence=_APACHE, url=_DINO_RESNET),
    *_dinov2("vits14", "small", 12, 384, 88),
    *_dinov2("vitb14", "base", 12, 768, 346),
    *_dinov2("vitl14", "large", 24, 1024, 1217),
    *_dinov2("vitg14", "giant", 40, 1536, 4546),
    _dinov3("vits16", "small", 12, 384, 86),
    _dinov3("vits16plus", "small_plus", 12, 384, 115),
    _dinov3("vitb16", "base", 12, 768, 343),
    _dinov3("vitl16", "large", 24, 1024, 1212),
    _dinov3("vith16plus", "huge_plus", 32, 1280, 3362),
    _dinov3("vit7b16", "7b", 40, 4096, 26864, biases=""),
    _convnext("tiny", 96, 111),
    _convnext("small", 96, 198),
    _convnext("base", 128, 350),
    _convnext("large", 192, 785),
    _resnet("resnet18", "resnet18", 47, width=64),
    _resnet("resnet50", "resnet50", 102),
    _resnet("wide-resnet50-2", "wide_resnet50_2", 276),
]

#: Every backbone by key, with its default layers.
BACKBONES: dict[str, BackboneSpec] = {spec.key: spec for spec in _TABLE}


def backbone_spec(key: str, layers: str | None = None) -> BackboneSpec:
    """Look up a backbone.

    Parameters
    ----------
    key : str
        A key of `BACKBONES`, optionally followed by the layers to read: ``dinov2-vits14@6,9,12``.
    layers : str, optional
        The layers to read, such as ``6,9,12``, if the key does not contain them.

    Raises
    ------
    InputError
        If there is no such backbone (the message lists the choices) or no such layer.
    """
    name, at, text = key.partition("@")
    if name not in BACKBONES:
        raise InputError(f"There is no backbone {name!r}; choose one of {', '.join(BACKBONES)}.")
    if layers is not None:
        if at:
            raise InputError(
                f"The layers to read are given twice, in {key} and as {layers}; give them once."
            )
        at, text = "@", layers
    if not at:
        return BACKBONES[name]
    try:
        chosen = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"Layers must be whole numbers separated by commas, got {text!r}; write, say, 6,9,12."
        ) from error
    return BACKBONES[name].reading(chosen)
