"""Settings of the Dirichlet process mixture, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from napari_dino_uad.core.errors import InputError

__all__ = ["COVARIANCES", "SCORES", "Covariance", "DPMMConfig", "Score"]

Covariance = Literal["diag", "full", "spherical", "vmf"]
Score = Literal["cosine", "euclidean", "mahalanobis", "likelihood"]
COVARIANCES: tuple[Covariance, ...] = get_args(Covariance)
SCORES: tuple[Score, ...] = get_args(Score)

# lambda of the paper: what is added to the diagonal of every covariance.
_RIDGES: dict[Covariance, float] = {"diag": 1e-6, "spherical": 1e-6, "vmf": 1e-6, "full": 1e-3}


@dataclass(frozen=True)
class DPMMConfig:
    """Settings of a `DPMM`.

    `DPMMConfig.paper` gives the paper's own. The defaults depart from them where the paper's
    lose most of the mixture or overfit; each entry says so.

    Attributes
    ----------
    components : int
        Truncation K; the data decide how many of them live. The paper takes 500; here 192 find
        lesions as well, in less than half the time.
    covariance : {"diag", "full", "spherical", "vmf"}
        Spread of each component: one variance for each channel, a whole covariance matrix, one
        variance, or, on embeddings brought to unit length, the concentration of a von
        Mises-Fisher distribution.
    shared_spread : bool
        One spread for all components, the pooled one: the limit of a strong prior.
    prior_patches : float
        How many patches of the pooled spread within components are added to each component's
        own patches: the mode under an inverse-gamma prior on variances (inverse-Wishart for
        "full"; for "vmf" on the mean resultant length). With a few hundred strongly correlated
        patches a component and several hundred channels, its own variances alone overfit. 0
        gives the paper's formula.
    ridge : float or None
        Added to every variance (for "vmf" 1 / ridge bounds the concentration). None is the
        paper's: 1e-6, or 1e-3 for "full".
    start : {"kmeans", "random"}
        "random" takes K embeddings of the first batch as means and that batch's variance for
        each, as the paper does; on embeddings of several hundred dimensions almost all
        components then die within an epoch. "kmeans" starts from a clustering of a sample
        (spherical k-means for "vmf").
    schedule : {"constant", "decaying"}
        Step t moves the running statistics by `step_size`, or by t ** -`step_size`.
    step_size : float
        rho. Under "constant" the share of the new batch in the running statistics, and 1 is
        plain EM on each batch.
    epochs : int
        Passes over the patches.
    patience : int or None
        Stop when the validation likelihood has not improved for so many epochs; None never
        stops before the end.
    least_gain : float
        Nats a patch that count as an improvement for `patience`.
    batch_patches : int
        Patches a step.
    max_patches : int
        Patches drawn from the healthy slices to fit on.
    concentration : float or None
        alpha of the Dirichlet process; None learns it, starting at 2.
    foreground : bool
        Fit on tissue patches only; the paper's comparisons fit on all.
    pca : int
        Principal components that the embeddings are reduced to; 0 keeps the embeddings.
    position : float
        Weight of a patch's two grid coordinates in [-1, 1], appended to its embedding; 1 is
        the paper's, 0 leaves them out.
    score : {"cosine", "euclidean", "mahalanobis", "likelihood"}
        How far from normal a patch is: 1 - the largest cosine with a mean, the distance to the
        nearest mean, the same in units of its spread, or the negative log-likelihood.
    seed : int
        Makes the fit repeatable.

    Raises
    ------
    InputError
        If a value is out of its range; the message names the range.
    """

    components: int = 192
    covariance: Covariance = "diag"
    shared_spread: bool = False
    prior_patches: float = 300.0
    ridge: float | None = None
    start: Literal["kmeans", "random"] = "kmeans"
    schedule: Literal["constant", "decaying"] = "constant"
    step_size: float = 0.05
    epochs: int = 20
    patience: int | None = 2
    least_gain: float = 0.5
    batch_patches: int = 4096
    max_patches: int = 200_000
    concentration: float | None = None
    foreground: bool = True
    pca: int = 0
    position: float = 0.0
    score: Score = "cosine"
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("covariance", self.covariance, COVARIANCES)
        _one_of("start", self.start, ("kmeans", "random"))
        _one_of("schedule", self.schedule, ("constant", "decaying"))
        _one_of("score", self.score, SCORES)
        _at_least("components", self.components, 2)
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_patches", self.batch_patches, 1)
        _at_least("max_patches", self.max_patches, 1)
        _at_least("pca", self.pca, 0)
        _at_least("prior_patches", self.prior_patches, 0)
        _at_least("position", self.position, 0)
        _at_least("least_gain", self.least_gain, 0)
        if self.patience is not None:
            _at_least("patience", self.patience, 1)
        if not 0 < self.step_size <= 1:
            raise InputError(f"The step size must lie in (0, 1], but {self.step_size} came.")
        if self.concentration is not None and not 0 < self.concentration < math.inf:
            raise InputError(
                f"The concentration must be positive, but {self.concentration} came; leave it "
                "out to have it learned."
            )
        if self.ridge is not None and not 0 < self.ridge < math.inf:
            raise InputError(f"The ridge must be positive, but {self.ridge} came.")

    @classmethod
    def paper(cls, covariance: Covariance = "diag", **others: Any) -> DPMMConfig:
        """Return the settings of the MICCAI 2025 paper.

        Parameters
        ----------
        covariance : {"diag", "full", "spherical"}
            The paper's variants.
        **others
            Any setting, to depart from it.

        Notes
        -----
        A truncation of 500, a step of 12 images of 32 x 32 patches, 40 epochs, no foreground
        mask, and formulas without a prior.
        """
        values: dict[str, Any] = {
            "components": 500,
            "covariance": covariance,
            "prior_patches": 0.0,
            "start": "random",
            "step_size": 0.2,
            "epochs": 40,
            "patience": None,
            "batch_patches": 12 * 1024,
            "foreground": False,
        }
        return cls(**(values | others))

    @property
    def lambda_(self) -> float:
        """What is added to every variance."""
        return _RIDGES[self.covariance] if self.ridge is None else self.ridge

    def step(self, t: int) -> float:
        """Return the step size of step t, counted from 1."""
        return self.step_size if self.schedule == "constant" else float(t) ** -self.step_size


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"The {name} must be one of {', '.join(choices)}, but {value!r} came.")


def _at_least(name: str, value: float, least: int) -> None:
    if not least <= value < math.inf:
        raise InputError(f"The setting {name} must be a number from {least} up, but {value} came.")
