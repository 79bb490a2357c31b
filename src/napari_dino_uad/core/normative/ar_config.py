"""Settings of the autoregressive model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.ar_embedding import Standardise
from napari_dino_uad.core.normative.ar_errors import Whitening
from napari_dino_uad.core.normative.ar_network import MODES, Mode, live_taps, seen_offsets
from napari_dino_uad.core.precision import PRECISIONS, Precision

__all__ = ["LOSSES", "AutoregressiveConfig", "Loss"]

Loss = Literal["mse", "cosine", "nll"]
LOSSES: tuple[Loss, ...] = ("mse", "cosine", "nll")


@dataclass(frozen=True)
class AutoregressiveConfig:
    """Settings of an `Autoregressive` model.

    Attributes
    ----------
    mode : {"causal", "bidirectional", "standard"}
        What may foretell a patch: those before it in raster order; all around but the patch
        itself; all with the patch (an autoencoder, for comparison).
    combine : {"auto", "none", "mean", "min"}
        For "causal": "none" reads in raster order alone; the others add a second network that
        reads backwards and combine the two scores. "auto" is "mean" for "causal".
    kernel_size, first_kernel_size : int
        Odd edge of the kernels of the later layers and of the first.
    dilations : tuple of int
        Dilation of each layer; the last value is reused for the layers after it.
    hole : int
        For "bidirectional": half-width, in taps, of what the first layer hides around the
        centre. With its dilation this is how far a lesion may reach without foretelling itself.
    hidden, depth : int
        Channels between layers, and number of layers.
    standardise : {"none", "channel", "pca"}
        What is predicted: embeddings as they are, standardised per channel, or principal
        components.
    components : int
        Principal components to keep.
    power : float
        0 keeps the components' sizes, 1 whitens them.
    position : int
        Frequencies of the position features that the network is told; 0 tells it nothing.
    loss : {"mse", "cosine", "nll"}
        What is minimised; "nll" also predicts a variance for each channel.
    score : {"mse", "cosine", "nll"}
        What is the anomaly score; "nll" needs the loss "nll".
    whitening : {"none", "channel", "full"}
        For the score "mse": divide errors by their healthy variance per channel, or by their
        whole covariance.
    shrinkage : float
        In [0, 1], of that covariance.
    position_map : bool
        Compare scores with the healthy mean at the same grid position.
    position_smoothing : float
        Standard deviation in patches of the Gaussian that smooths those means.
    dropout : float
        Share of hidden activations set to 0 in training.
    clip : float
        Largest norm of the gradient; 0 does not clip.
    noise_probability, noise_scale : float
        How often a batch's input (never its target) gets Gaussian noise, and its size relative
        to each channel's spatial standard deviation.
    epochs, batch_slices : int
        Passes over the slices, and slices a step. 0 epochs are 10, and more where the slices are
        so few that those would be less than 500 steps.
    learning_rate, weight_decay : float
        Of AdamW.
    schedule : {"constant", "cosine"}
        Learning rate over the epochs; "cosine" falls to nothing after a short rise.
    precision : {"auto", "float32", "bfloat16"}
        Of the network's products, in training and scoring. "auto" takes bfloat16 where the
        processor has such products, which halves the time; weights, losses and scores stay in
        float32.
    seed : int
        Makes the fit repeatable.
    """

    mode: Mode = "causal"
    combine: Literal["auto", "none", "mean", "min"] = "auto"
    kernel_size: int = 3
    first_kernel_size: int = 3
    dilations: tuple[int, ...] = (6, 6)
    hole: int = 0
    hidden: int = 128
    depth: int = 2
    standardise: Standardise = "pca"
    components: int = 64
    power: float = 0.5
    position: int = 0
    loss: Loss = "mse"
    score: Loss = "mse"
    whitening: Whitening = "channel"
    shrinkage: float = 0.0
    position_map: bool = True
    position_smoothing: float = 1.0
    dropout: float = 0.0
    clip: float = 1.0
    noise_probability: float = 0.2
    noise_scale: float = 0.03
    epochs: int = 0
    batch_slices: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["constant", "cosine"] = "cosine"
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        # A file header gives a list.
        object.__setattr__(self, "dilations", tuple(int(value) for value in self.dilations))
        for name, value, choices in (
            ("mode", self.mode, MODES),
            ("combination", self.combine, ("auto", "none", "mean", "min")),
            ("standardisation", self.standardise, ("none", "channel", "pca")),
            ("loss", self.loss, LOSSES),
            ("score", self.score, LOSSES),
            ("whitening", self.whitening, ("none", "channel", "full")),
            ("schedule", self.schedule, ("constant", "cosine")),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in choices:
                raise InputError(
                    f"The {name} must be one of {', '.join(choices)}, but {value!r} came."
                )
        for name in ("kernel_size", "first_kernel_size"):
            value = getattr(self, name)
            if value < 1 or value % 2 == 0:
                raise InputError(f"A {name.replace('_', ' ')} is odd, but {value} came.")
        if self.depth < 2 or not self.dilations or min(self.dilations) < 1:
            raise InputError(
                "The network needs 2 layers or more and dilations of 1 or more, but "
                f"{self.depth} layers and dilations {self.dilations} came."
            )
        for name, least in (("hidden", 1), ("components", 1), ("batch_slices", 1), ("epochs", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name.replace('_', ' ')} must be {least} or more, but {getattr(self, name)} "
                    "came."
                )
        if not 0 <= self.dropout < 1:
            raise InputError(f"Dropout lies in [0, 1), but {self.dropout} came.")
        if not 0 <= self.shrinkage <= 1:
            raise InputError(f"Shrinkage lies in [0, 1], but {self.shrinkage} came.")
        if self.hole and (self.mode != "bidirectional" or self.hole >= self.first_kernel_size // 2):
            raise InputError(
                f"A hole of {self.hole} taps fits only the first kernel of the bidirectional "
                f"mode, inside it, but the mode is {self.mode} and the kernel's edge "
                f"{self.first_kernel_size}."
            )
        if self.mode != "standard" and self.first_kernel_size == 1:
            raise InputError(
                "A first kernel of edge 1 sees nothing once its centre is hidden; give 3 or more."
            )
        if self.combination != "none" and self.mode != "causal":
            raise InputError(
                "Only the causal mode has a second reading direction to combine, but "
                f"combine={self.combine!r} came with mode={self.mode!r}."
            )
        if self.score == "nll" and self.loss != "nll":
            raise InputError(
                "The score 'nll' needs a predicted variance: give the loss 'nll' too, but "
                f"{self.loss!r} came."
            )

    @property
    def combination(self) -> Literal["none", "mean", "min"]:
        """How the scores of two reading directions are combined; "none" where there is one."""
        if self.combine == "auto":
            return "mean" if self.mode == "causal" else "none"
        return self.combine

    @property
    def kernels(self) -> list[int]:
        """Kernel edge of each layer."""
        return [self.first_kernel_size, *[self.kernel_size] * (self.depth - 1)]

    @property
    def layer_dilations(self) -> list[int]:
        """Dilation of each layer."""
        given = list(self.dilations[: self.depth])
        return given + [given[-1]] * (self.depth - len(given))

    @property
    def blind_radius(self) -> int:
        """Chebyshev radius in patches of what no prediction sees; -1 if it sees its target.

        A patch within this distance takes no part, so a lesion smaller than it cannot foretell
        itself. The paper's bidirectional mode hides the centre in its first layer alone, and
        the next layer brings it back unless its dilation is too small to reach: -1 then.
        """
        taps = [
            (live_taps(self.mode, kernel, index == 0, self.hole), dilation)
            for index, (kernel, dilation) in enumerate(
                zip(self.kernels, self.layer_dilations, strict=True)
            )
        ]
        seen = seen_offsets(taps)
        middle = len(seen) // 2
        radius = -1
        while radius < middle:
            inner = slice(middle - radius - 1, middle + radius + 2)
            if seen[inner, inner].any():
                break
            radius += 1
        return radius
