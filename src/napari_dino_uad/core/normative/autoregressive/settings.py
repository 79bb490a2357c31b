"""Settings of the autoregressive model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.autoregressive.embedding import Standardise
from napari_dino_uad.core.normative.autoregressive.errors import Whitening
from napari_dino_uad.core.normative.autoregressive.network import (
    MODES,
    Mode,
    live_taps,
    seen_offsets,
)
from napari_dino_uad.core.precision import PRECISIONS, Precision

__all__ = ["LOSSES", "AutoregressiveConfig", "AutoregressiveFitted", "Loss"]

Loss = Literal["mse", "cosine", "nll"]
LOSSES: tuple[Loss, ...] = ("mse", "cosine", "nll")


# Above these the network takes all memory; nothing sensible is near them.
_MOST = {
    "kernel_size": 63, "first_kernel_size": 63, "depth": 64, "hidden": 65_536,
    "components": 65_536, "position": 16,
}  # fmt: skip
_LARGEST_DILATION = 1000


@dataclass(frozen=True)
class AutoregressiveFitted:
    """What a fit found besides tensors.

    Attributes
    ----------
    best_epoch : int
        Epoch, from 1, whose network was kept.
    """

    best_epoch: int

    def __post_init__(self) -> None:
        if self.best_epoch < 1:
            raise InputError(f"The best epoch is 1 or later, got {self.best_epoch}.")


@dataclass(frozen=True)
class AutoregressiveConfig:
    """Settings of an `Autoregressive` model.

    Attributes
    ----------
    mode : {"causal", "bidirectional", "standard"}
        Which patches predict a patch: those before it in raster order (causal); all around it but
        not itself (bidirectional); all, including itself (standard: an autoencoder, for
        comparison).
    combine : {"auto", "none", "mean", "min"}
        For "causal": "none" reads in raster order only. The others add a second network that reads
        backwards, and combine the two scores. "auto" is "mean" for "causal".
    kernel_size, first_kernel_size : int
        Odd kernel size of the later layers and of the first layer.
    dilations : tuple of int
        Dilation of each layer; the last value is repeated for further layers.
    hole : int
        For "bidirectional": half-width, in taps, of the square hidden around the centre in the
        first layer. Times the dilation, this is how far a lesion may extend without predicting
        itself.
    hidden, depth : int
        Number of channels between layers, and number of layers.
    standardise : {"none", "unit", "channel", "pca"}
        What is predicted: raw embeddings ("none"), embeddings of unit length times the root of
        their channels ("unit"), embeddings standardised per channel, or principal components.
    components : int
        Number of principal components to keep.
    power : float
        0 keeps the variances of the components, 1 whitens them.
    position : int
        Number of frequencies of the position features given to the network; 0 gives none.
    loss : {"mse", "cosine", "nll"}
        Training loss; "nll" also predicts a variance for each channel.
    score : {"mse", "cosine", "nll"}
        Anomaly score; "nll" needs the loss "nll".
    whitening : {"none", "channel", "full"}
        For the score "mse": divide errors by their healthy deviation per channel, or by the root
        of their full covariance.
    whitening_power : float
        Power of that deviation: 1 makes all channels count alike, less lets those with large
        errors, which vary most, count more.
    root : bool
        For the score "mse": whether the score is the root of the mean squared error. Squares of
        rare large errors outweigh the many moderate ones of a faint lesion.
    shrinkage : float
        Shrinkage of that covariance, in [0, 1].
    position_map : bool
        Whether to compare scores with the healthy mean at the same grid position.
    position_smoothing : float
        Standard deviation in patches of the Gaussian that smooths those means.
    dropout : float
        Share of hidden activations set to 0 during training.
    clip : float
        Maximum norm of the gradient; 0 turns clipping off.
    noise_probability, noise_scale : float
        How often Gaussian noise is added to a batch's input (never to its target), and the noise
        size relative to each channel's spatial standard deviation.
    epochs, batch_slices : int
        Passes over the slices, and slices per step. 0 epochs means 6, or more if needed for 500
        steps.
    learning_rate, weight_decay : float
        Learning rate and weight decay of AdamW.
    schedule : {"constant", "cosine"}
        Learning rate over the epochs; "cosine" falls to 0 after a short warm-up.
    precision : {"auto", "float32", "bfloat16"}
        Precision of the network's products, in training and scoring. "auto" is bfloat16 if the
        hardware supports it, which halves the time. Weights, losses and scores stay in float32.
    seed : int
        Seed of the fit; the same seed gives the same model.
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
    whitening_power: float = 0.25
    root: bool = True
    shrinkage: float = 0.0
    position_map: bool = True
    position_smoothing: float = 1.0
    dropout: float = 0.0
    clip: float = 1.0
    noise_probability: float = 0.2
    noise_scale: float = 0.03
    epochs: int = 0
    batch_slices: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    schedule: Literal["constant", "cosine"] = "cosine"
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        # A model file stores a list.
        object.__setattr__(self, "dilations", tuple(int(value) for value in self.dilations))
        self._check_choices()
        self._check_ranges()
        self._check_together()

    def _check_choices(self) -> None:
        """Refuse a name that is not among those of its setting."""
        for name, value, choices in (
            ("mode", self.mode, MODES),
            ("combination", self.combine, ("auto", "none", "mean", "min")),
            ("loss", self.loss, LOSSES),
            ("score", self.score, LOSSES),
            ("whitening", self.whitening, ("none", "channel", "full")),
            ("standardisation", self.standardise, ("none", "unit", "channel", "pca")),
            ("schedule", self.schedule, ("constant", "cosine")),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in choices:
                raise InputError(
                    f"The {name} must be one of {', '.join(choices)}, got {value!r}; choose one."
                )

    def _check_ranges(self) -> None:
        """Refuse a number that is out of its range by itself."""
        for name in ("kernel_size", "first_kernel_size"):
            value = getattr(self, name)
            if value < 1 or value % 2 == 0:
                raise InputError(
                    f"The {name.replace('_', ' ')} must be odd, got {value}; change it."
                )
        if self.depth < 2 or not self.dilations or min(self.dilations) < 1:
            raise InputError(
                "The network needs at least 2 layers and dilations of at least 1, got "
                f"{self.depth} layers and dilations {self.dilations}; raise them."
            )
        for name, least in (
            ("hidden", 1), ("components", 1), ("batch_slices", 1), ("epochs", 0), ("position", 0),
            ("hole", 0), ("seed", 0), ("power", 0), ("position_smoothing", 0), ("clip", 0),
            ("noise_probability", 0), ("noise_scale", 0), ("learning_rate", 0), ("weight_decay", 0),
        ):  # fmt: skip
            if not least <= getattr(self, name) < math.inf:
                raise InputError(
                    f"The setting {name.replace('_', ' ')} must be {least} or more, got "
                    f"{getattr(self, name)}; raise it."
                )
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise InputError(
                    f"{name.replace('_', ' ')} must be {most:,} or less, got {getattr(self, name)}."
                )
        if max(self.dilations) > _LARGEST_DILATION or len(self.dilations) > _MOST["depth"]:
            raise InputError(
                f"Dilations must be {_LARGEST_DILATION:,} or less and at most one a layer, got "
                f"{len(self.dilations)} with the largest {max(self.dilations)}."
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"Dropout must be in [0, 1), got {self.dropout}; change it.")
        for name in ("shrinkage", "whitening_power"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"{name.replace('_', ' ').capitalize()} must be in [0, 1], got "
                    f"{getattr(self, name)}; change it."
                )

    def _check_together(self) -> None:
        """Refuse settings that exclude one another."""
        if self.hole and (self.mode != "bidirectional" or self.hole >= self.first_kernel_size // 2):
            raise InputError(
                f"A hole of {self.hole} taps must be in the bidirectional mode and inside its "
                f"first kernel, got mode {self.mode} and kernel size {self.first_kernel_size}; "
                "lower the hole."
            )
        if self.mode != "standard" and self.first_kernel_size == 1:
            raise InputError(
                "A first kernel of size 1 sees nothing once its centre is hidden; give 3 or more."
            )
        if self.combination != "none" and self.mode != "causal":
            raise InputError(
                "Only the causal mode has two reading directions to combine, got "
                f"combine={self.combine!r} with mode={self.mode!r}; give combine='none'."
            )
        if self.score == "nll" and self.loss != "nll":
            raise InputError(
                f"The score 'nll' needs the loss 'nll', which predicts a variance, got "
                f"{self.loss!r}; give the loss 'nll' too."
            )

    @classmethod
    def paper(cls, **others: Any) -> AutoregressiveConfig:
        """Return the settings of the network that the paper published (arXiv 2603.02974).

        Parameters
        ----------
        **others
            Settings to change.

        Notes
        -----
        A causal network of 5 layers with dilation 4 and 256 channels, which reads all channels of
        the embeddings in one direction; 40 epochs in batches of 64 slices; the mean squared error
        as loss and score, without statistics of healthy errors.
        """
        values: dict[str, Any] = {
            "combine": "none",
            "dilations": (4,),
            "hidden": 256,
            "depth": 5,
            "standardise": "unit",
            "whitening": "none",
            "root": False,
            "position_map": False,
            "clip": 0.0,
            "epochs": 40,
            "batch_slices": 64,
            "learning_rate": 1e-3,
            "schedule": "constant",
        }
        return cls(**(values | others))

    @property
    def combination(self) -> Literal["none", "mean", "min"]:
        """How the scores of two reading directions are combined; "none" if there is only one."""
        if self.combine == "auto":
            return "mean" if self.mode == "causal" else "none"
        return self.combine

    @property
    def error_whitening(self) -> Whitening:
        """What is undone of healthy errors: the other scores have no place for it."""
        return self.whitening if self.score == "mse" else "none"

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
        """Chebyshev radius in patches that no prediction sees; -1 if it sees its own target.

        Patches within this radius are not used, so a smaller lesion cannot predict itself. The
        paper's bidirectional mode hides the centre only in its first layer. The next layer brings
        it back, unless its dilation is too small to reach it; the radius is -1 then.
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
