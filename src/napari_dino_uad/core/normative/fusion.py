"""Fusion: the scores of several models become healthy p-values, which are combined.

Scores of different models have no common scale; p-values on healthy tissue do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.base import NormativeModel, tensors_under
from napari_dino_uad.core.normative.resumable import Resumable
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.storage.tensor_schema import TensorSpec, scoped

if TYPE_CHECKING:
    from napari_dino_uad.core.features.feature_set import FeatureSet

__all__ = ["COMBINATIONS", "Combine", "Fusion", "FusionConfig"]

Combine = Literal["stouffer", "fisher", "rank"]
COMBINATIONS: tuple[Combine, ...] = get_args(Combine)

# A model finds a patch abnormal if its p-value on healthy tissue is below this.
_AGREEMENT_RATE = 0.05
# Least -log p: a score below all healthy ones must not be infinitely normal.
_LEAST_SURPRISE = 1e-4
# Rates between which the slope of the healthy tail is measured, for extrapolation beyond it.
_TAIL_RATES = (1e-2, 1e-3)


@dataclass(frozen=True)
class FusionConfig:
    """Settings of a `Fusion`.

    Attributes
    ----------
    members : tuple of str
        Methods to combine, two or more; each is fitted with its own defaults. The default is the
        combination that did best in docs/experiments.md.
    combine : {"stouffer", "fisher", "rank"}
        "stouffer" turns each p into the deviation z that exceeds it in a normal distribution and
        sums z over the members, divided by the root of their number (S. A. Stouffer et al., "The
        American Soldier", 1949, vol. 1, p. 45): a moderate score of every member counts as much
        as a high score of one. "fisher" sums -log p (R. A. Fisher, "Statistical Methods for
        Research Workers", 1925, section 21.1), so that one very certain member dominates.
        "rank" averages the ranks 1 - p, so that all members must agree.
    seed : int
        Seed of the fit; the same seed gives the same model.
    """

    members: tuple[str, ...] = ("dpmm", "ar")
    combine: Combine = "stouffer"
    seed: int = 0

    def __post_init__(self) -> None:
        # A file header gives a list.
        object.__setattr__(self, "members", tuple(self.members))
        if len(self.members) < 2 or len(set(self.members)) < len(self.members):
            raise InputError(
                "A fusion needs two or more different members, got "
                f"{', '.join(self.members) or 'none'}; name others."
            )
        if self.seed < 0:
            raise InputError(f"The seed is 0 or more, got {self.seed}.")
        if "fusion" in self.members:
            raise InputError("A fusion cannot be a member of itself; give other methods.")
        if self.combine not in COMBINATIONS:
            raise InputError(
                f"Members are combined by {', '.join(COMBINATIONS)}, got "
                f"{self.combine!r}; choose one."
            )


@dataclass(frozen=True)
class FusionFitted:
    """Results of a fit besides tensors.

    Attributes
    ----------
    member_configs : dict of dict
        Result of `config` of each member.
    pixels : dict of int
        Number of healthy patches in the calibration of each member.
    """

    member_configs: dict[str, dict[str, Any]]
    pixels: dict[str, int]

    def __post_init__(self) -> None:
        if self.member_configs.keys() != self.pixels.keys():
            raise InputError("The members with settings differ from those with healthy patches.")
        if min(self.pixels.values(), default=0) < 1:
            raise InputError("Every member needs 1 healthy patch or more.")


class Fusion(Resumable, NormativeModel):
    """Several models fitted on the same healthy embeddings.

    Parameters
    ----------
    settings : FusionConfig, optional

    Attributes
    ----------
    members_ : dict of NormativeModel
        Members by method, in order.
    calibrations_ : dict of Calibration
        Scores of each member on healthy validation patches.
    """

    method: ClassVar[str] = "fusion"
    saved = (FusionConfig, FusionFitted)

    def __init__(self, settings: FusionConfig | None = None) -> None:
        self.settings = settings or FusionConfig()
        self.members_: dict[str, NormativeModel] = {}
        self.calibrations_: dict[str, Calibration] = {}

    def fit(self, train: FeatureSet, valid: FeatureSet) -> Iterator[Progress]:
        """Fit every member and measure its scores on healthy tissue.

        A stopped fit resumes after the last finished epoch of its members when `fit` is called
        again with the same slices.

        Parameters
        ----------
        train, valid : FeatureSet
            Healthy slices.

        Yields
        ------
        Progress
            After every batch of every member.
        """
        from napari_dino_uad.core.normative.methods import new_normative

        self.members_ = {
            name: new_normative(name, self.settings.seed, {}) for name in self.settings.members
        }
        self.calibrations_ = {}
        for name, member in self.members_.items():
            yield from self._fit_member(name, member, train, valid)
            healthy: dict[int, list[NDArray[np.float32]]] = {}
            done = 0
            for features, mask, scan in valid.transformed():
                with torch.inference_mode():
                    scores = member.score_tissue(features, torch.from_numpy(mask)).numpy()
                healthy.setdefault(scan, []).append(scores)
                done += len(features)
                yield Progress(f"{name}: measuring healthy tissue", done, len(valid))
            self.calibrations_[name] = Calibration.from_scans(
                [np.concatenate(parts) for parts in healthy.values()]
            )
        self._state = None

    def _fit_member(
        self, name: str, member: NormativeModel, train: FeatureSet, valid: FeatureSet
    ) -> Iterator[Progress]:
        """Fit one member; remember its training, even when it is finished, for a stopped fit."""
        states = 0
        if isinstance(member, Resumable):
            stopped = tensors_under(f"{name}.", self._state or {})
            if stopped:
                member.resume_from(stopped)
        for progress in member.fit(train, valid):
            if isinstance(member, Resumable) and member.states_kept > states:
                states = member.states_kept
                own = {f"{name}.{key}": one for key, one in member.training_state().items()}
                self._remember({**(self._state or {}), **own})
            yield dataclasses.replace(progress, step=f"{name}: {progress.step}")

    @property
    def patchwise(self) -> bool:
        """Whether the score of a patch depends on that patch alone."""
        return all(member.patchwise for member in self.members_.values())

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """Score embeddings, (B, C, h, w) -> (B, h, w): p-values, combined; higher is rarer."""
        return self._combined(member.score(features) for member in self.members_.values())

    def score_tissue(self, features: torch.Tensor, tissue: torch.Tensor) -> torch.Tensor:
        """Score the tissue in embeddings, (B, C, h, w) and (B, h, w) -> (N,), as `score` does."""
        members = self.members_.values()
        return self._combined(member.score_tissue(features, tissue) for member in members)

    def _combined(self, scores: Iterable[torch.Tensor]) -> torch.Tensor:
        """Combine the scores of the members, given in their order and with equal shapes."""
        surprise = np.stack(
            [
                _surprise(one.numpy(), calibration)
                for one, calibration in zip(scores, self.calibrations_.values(), strict=True)
            ]
        )
        if self.settings.combine == "rank":
            combined = -np.expm1(-surprise).mean(0)
        elif self.settings.combine == "fisher":
            combined = surprise.sum(0)
        else:
            combined = _deviation(surprise).sum(0) / np.sqrt(len(surprise))
        return torch.from_numpy(combined.astype(np.float32))

    def explain(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the p-values of each member and their agreement.

        Returns
        -------
        dict
            "p_METHOD" of each member and "agreement", the share of members that find a patch
            rarer than 5 % on healthy tissue; each (B, h, w).
        """
        maps = {
            f"p_{name}": torch.from_numpy(
                self.calibrations_[name].false_positive_rate(member.score(features).numpy())
            ).float()
            for name, member in self.members_.items()
        }
        agreeing = torch.stack([one < _AGREEMENT_RATE for one in maps.values()])
        return {**maps, "agreement": agreeing.float().mean(0)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors of every member, under its name, and its healthy scores."""
        out: dict[str, torch.Tensor] = {}
        for name, member in self.members_.items():
            out |= {f"{name}.{key}": tensor for key, tensor in member.tensors().items()}
            for key, array in self.calibrations_[name].tensors().items():
                out[f"{name}.calibration.{key}"] = torch.from_numpy(np.array(array))
        return out

    def config(self) -> dict[str, Any]:
        """Return the settings of the fusion and of every member."""
        return {
            **dataclasses.asdict(self.settings),
            "member_configs": {name: member.config() for name, member in self.members_.items()},
            "pixels": {name: one.pixels for name, one in self.calibrations_.items()},
        }

    @classmethod
    def described(
        cls, saved: tuple[FusionConfig, FusionFitted], channels: int
    ) -> dict[str, TensorSpec]:
        """Return what `tensors` must hold."""
        from napari_dino_uad.core.normative.config import read_config
        from napari_dino_uad.core.normative.methods import find_method

        settings, fitted = saved
        if set(settings.members) != fitted.member_configs.keys():
            raise InputError(
                f"The members are {', '.join(settings.members)}, but there are settings of "
                f"{', '.join(fitted.member_configs) or 'none'}."
            )
        specs: dict[str, TensorSpec] = {}
        for name in settings.members:
            where = f"the member {name}: "
            own = read_config(name, fitted.member_configs[name], where)
            specs |= scoped(f"{name}.", find_method(name).model_class().described(own, channels))
            calibration = Calibration.described(fitted.pixels[name])
            specs |= scoped(f"{name}.calibration.", calibration)
        return specs

    @classmethod
    def restore(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Fusion:
        """Build a fitted fusion from its file."""
        from napari_dino_uad.core.normative.config import read_config
        from napari_dino_uad.core.normative.methods import find_method

        settings, fitted = read_config(cls.method, config)
        configs, pixels = fitted.member_configs, fitted.pixels
        model = cls(settings)
        for name in model.settings.members:
            own = tensors_under(f"{name}.", tensors)
            saved = tensors_under("calibration.", own)
            arrays = {key: own.pop(f"calibration.{key}").numpy() for key in saved}
            model.calibrations_[name] = Calibration(**arrays, pixels=pixels[name])
            model.members_[name] = find_method(name).model_class().restore(configs[name], own)
        return model

    def summary(self) -> str:
        """Describe the fitted model in one line."""
        members = "; ".join(member.summary() for member in self.members_.values())
        return f"fusion ({self.settings.combine}) of {members}"


def _surprise(scores: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float32]:
    """Return -log p of scores; beyond the highest healthy score the tail is extrapolated.

    Otherwise all scores above the healthy ones would be equally abnormal.
    """
    surprise = -np.log(calibration.false_positive_rate(scores))
    first, second = (calibration.threshold(rate) for rate in _TAIL_RATES)
    slope = np.log(_TAIL_RATES[0] / _TAIL_RATES[1]) / max(second - first, 1e-12)
    beyond = np.maximum(scores - calibration.scores[-1], 0)
    return np.asarray(surprise + slope * beyond, dtype=np.float32)


def _deviation(surprise: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the normal deviation that is exceeded with probability p, given -log p.

    It takes the logarithm because p itself underflows to 0 for very abnormal patches.
    """
    from scipy.special import ndtri_exp

    return -np.asarray(ndtri_exp(-np.maximum(surprise.astype(np.float64), _LEAST_SURPRISE)))
