"""Settings of the Dirichlet process mixture, with validation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from napari_dino_uad.core.errors import InputError

__all__ = ["COVARIANCES", "SCORES", "Covariance", "DPMMConfig", "DPMMFitted", "Score"]

Covariance = Literal["diag", "full", "spherical", "vmf"]
Score = Literal["cosine", "euclidean", "mahalanobis", "likelihood"]
COVARIANCES: tuple[Covariance, ...] = get_args(Covariance)
SCORES: tuple[Score, ...] = get_args(Score)

# Far above the norm of any embedding: only the position would count.
_LARGEST_POSITION = 1000.0

# lambda of the paper, added to the diagonal of every covariance.
_RIDGES: dict[Covariance, float] = {"diag": 1e-6, "spherical": 1e-6, "vmf": 1e-6, "full": 1e-3}


@dataclass(frozen=True)
class DPMMConfig:
    """Settings of a `DPMM`.

    `DPMMConfig.paper` returns the paper's settings. The defaults differ where the paper's lose
    most components or overfit; each entry says so.

    Attributes
    ----------
    components : int
        Maximum number of components K; the data decide how many are used. The paper uses 500; 192
        find lesions as well, in less than half the time.
    covariance : {"diag", "full", "spherical", "vmf"}
        Spread of each component: one variance per channel ("diag"), a full covariance matrix
        ("full"), one variance ("spherical"), or the concentration of a von Mises-Fisher
        distribution on embeddings of unit length ("vmf").
    shared_spread : bool
        Whether all components share one pooled spread: the limit of a strong prior.
    prior_patches : float
        Number of patches with the pooled spread that are added to each component's own patches:
        the mode under an inverse-gamma prior on variances (inverse-Wishart for "full"; on the mean
        resultant length for "vmf"). Without it, a component with a few hundred strongly correlated
        patches and several hundred channels overfits. 0 gives the paper's formula.
    ridge : float or None
        Added to every variance (for "vmf", 1 / ridge bounds the concentration). None uses the
        paper's value: 1e-6, or 1e-3 for "full".
    start : {"kmeans", "random"}
        "random" uses K embeddings of the first batch as means and that batch's variance for each,
        as in the paper; in several hundred dimensions almost all components then die within an
        epoch. "kmeans" starts from a clustering of a sample (spherical k-means for "vmf").
    schedule : {"constant", "decaying"}
        Step t updates the running statistics by `step_size`, or by t ** -`step_size`.
    step_size : float
        rho. Under "constant", the weight of the new batch in the running statistics; 1 is plain EM
        on each batch.
    epochs : int
        Passes over the patches.
    patience : int or None
        Stop when the validation likelihood has not improved for this many epochs; None runs all
        epochs.
    least_gain : float
        Smallest improvement that counts for `patience`, in nats per patch.
    batch_patches : int
        Patches per step.
    max_patches : int
        Number of patches drawn from the healthy slices to fit on.
    concentration : float or None
        alpha of the Dirichlet process; None learns it, starting from 2.
    held_out_share : float
        Components that healthy validation patches use less than this share of their weight are
        dropped at the end: what hardly anybody else shows is not known to be normal, and a cohort
        of few people has more of it. 0 keeps all. Fewer than 3 validation scans, or 24 healthy
        slices of them, drop none.
    foreground : bool
        Whether to fit on tissue patches only; the paper's comparisons fit on all.
    pca : int
        Number of principal components to reduce embeddings to; 0 keeps them as they are.
    position : float
        Weight of a patch's two grid coordinates in [-1, 1], appended to its embedding; 1 is the
        paper's value, 0 leaves them out.
    score : {"cosine", "euclidean", "mahalanobis", "likelihood"}
        Anomaly score: 1 - the largest cosine with a mean, the distance to the nearest mean, that
        distance in units of the component's spread, or the negative log-likelihood.
    seed : int
        Seed of the fit; the same seed gives the same model.

    Raises
    ------
    InputError
        If a value is out of range; the message gives the range.
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
    held_out_share: float = 0.3
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
        _at_least("seed", self.seed, 0)
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_patches", self.batch_patches, 1)
        _at_least("max_patches", self.max_patches, 1)
        _at_least("pca", self.pca, 0)
        _at_least("prior_patches", self.prior_patches, 0)
        _at_least("position", self.position, 0)
        if self.position > _LARGEST_POSITION:
            raise InputError(
                f"The setting position must be {_LARGEST_POSITION:g} at most, got {self.position}."
            )
        _at_least("least_gain", self.least_gain, 0)
        if self.patience is not None:
            _at_least("patience", self.patience, 1)
        if not 0 <= self.held_out_share <= 1:
            raise InputError(
                f"The held-out share must be in [0, 1], got {self.held_out_share}; change it."
            )
        if not 0 < self.step_size <= 1:
            raise InputError(f"The step size must be in (0, 1], got {self.step_size}; change it.")
        if self.concentration is not None and not 0 < self.concentration < math.inf:
            raise InputError(
                f"The concentration must be positive, got {self.concentration}; leave it out to "
                "have it learned."
            )
        if self.ridge is not None and not 0 < self.ridge < math.inf:
            raise InputError(f"The ridge must be positive, got {self.ridge}; raise it.")

    @classmethod
    def paper(cls, covariance: Covariance = "diag", **others: Any) -> DPMMConfig:
        """Return the settings of the MICCAI 2025 paper.

        Parameters
        ----------
        covariance : {"diag", "full", "spherical"}
            A variant of the paper.
        **others
            Settings to change.

        Notes
        -----
        A truncation of 500, 12 images of 32 x 32 patches per step, 40 epochs, no foreground mask,
        and formulas without a prior.
        """
        values: dict[str, Any] = {
            "components": 500,
            "covariance": covariance,
            "prior_patches": 0.0,
            "start": "random",
            "step_size": 0.2,
            "epochs": 40,
            "patience": None,
            "held_out_share": 0.0,
            "batch_patches": 12 * 1024,
            "foreground": False,
        }
        return cls(**(values | others))

    @property
    def lambda_(self) -> float:
        """Value added to every variance."""
        return _RIDGES[self.covariance] if self.ridge is None else self.ridge

    def step(self, t: int) -> float:
        """Return the step size of step t, counted from 1."""
        return self.step_size if self.schedule == "constant" else float(t) ** -self.step_size


@dataclass(frozen=True)
class DPMMFitted:
    """What a fit found besides tensors.

    Attributes
    ----------
    best_epoch : int
        Epoch, from 1, whose state was kept.
    learned_concentration : float
        alpha of the Dirichlet process.
    """

    best_epoch: int
    learned_concentration: float

    def __post_init__(self) -> None:
        _at_least("best_epoch", self.best_epoch, 1)
        if not 0 < self.learned_concentration < math.inf:
            raise InputError(
                f"The learned concentration must be positive, got {self.learned_concentration}."
            )


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(
            f"The {name} must be one of {', '.join(choices)}, got {value!r}; choose one."
        )


def _at_least(name: str, value: float, least: int) -> None:
    if not least <= value < math.inf:
        raise InputError(
            f"The setting {name} must be a number from {least} up, got {value}; change it."
        )
