"""Stochastic EM of a truncated Dirichlet process mixture.

N. Schulthess and E. Konukoglu, MICCAI 2025 (arXiv 2509.19997): sufficient statistics are averaged
exponentially over batches. The epoch with the best likelihood on healthy validation patches is
kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.mixture.components import Components, Prior, Statistics
from napari_dino_uad.core.normative.mixture.mixture import Mixture, new_components
from napari_dino_uad.core.normative.mixture.settings import DPMMConfig
from napari_dino_uad.core.normative.mixture.start import Clustering, kmeans
from napari_dino_uad.core.normative.mixture.weights import log_stick_weights, update_concentration
from napari_dino_uad.core.normative.resumable import check_fingerprint
from napari_dino_uad.core.pipeline import in_background
from napari_dino_uad.core.progress import Inner, Progress

__all__ = ["LIVING_WEIGHT", "Training"]

T = TypeVar("T")

#: Components below this weight are dropped after the epoch. The paper's threshold.
LIVING_WEIGHT = 1e-6

# Initial alpha of a learned concentration, as in the paper.
_CONCENTRATION = 2.0

# Patches per component in the sample for k-means.
_SAMPLE = 100

# Held-out patches of a component below which their number says nothing.
_LEAST_PROMISED = 5

# Patches whose densities are in memory together when the validation likelihood is computed.
_CHUNK = 4096


@dataclass(frozen=True)
class _State:
    """The result of an epoch; an M-step gives the densities."""

    statistics: Statistics
    log_weights: torch.Tensor
    concentration: float

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        return {
            f"{prefix}.mass": self.statistics.mass,
            f"{prefix}.first": self.statistics.first,
            f"{prefix}.second": self.statistics.second,
            f"{prefix}.log_weights": self.log_weights,
            f"{prefix}.concentration": torch.tensor(self.concentration, dtype=torch.float64),
        }

    @classmethod
    def of(cls, tensors: dict[str, torch.Tensor], prefix: str, device: torch.device) -> _State:
        own = {
            name: tensors[f"{prefix}.{name}"].to(device, copy=True)
            for name in ("mass", "first", "second", "log_weights")
        }
        return cls(
            Statistics(own["mass"], own["first"], own["second"]),
            own["log_weights"],
            float(tensors[f"{prefix}.concentration"]),
        )


class Training:
    """EM over patches held in memory.

    Parameters
    ----------
    settings : DPMMConfig
    patches, held_out : torch.Tensor, (N, C) and (V, C)
        Patches to fit on, and healthy ones to choose the epoch; both are centred in place.
    device : torch.device
        Device of the products; patches stay where they are and are moved batch by batch.
    telling : bool
        Whether the held-out patches show enough of the anatomy to drop components for not being
        used by them.

    Attributes
    ----------
    history : list of float
        Mean negative log-likelihood of `held_out` after each epoch.
    best_epoch : int
        Epoch with the lowest value, counted from 1.
    """

    def __init__(
        self,
        settings: DPMMConfig,
        patches: torch.Tensor,
        held_out: torch.Tensor,
        device: torch.device,
        telling: bool = False,
    ) -> None:
        self._telling = telling
        self._settings = settings
        self._device = device
        self._components = new_components(settings.covariance)
        # On the sphere the origin matters. Elsewhere, subtracting the mean avoids differences of
        # large numbers in single precision.
        origin = torch.zeros_like(patches[0]) if settings.covariance == "vmf" else patches.mean(0)
        self._patches = patches.sub_(origin)
        self._held_out = held_out.sub_(origin)
        self._origin = origin.to(device)
        self._prior = Prior(
            settings.lambda_, settings.prior_patches, len(patches), settings.shared_spread
        )
        self._batch = min(settings.batch_patches, len(patches))
        self._steps = len(patches) // self._batch
        self._concentration = (
            _CONCENTRATION if settings.concentration is None else settings.concentration
        )
        self._best: _State | None = None
        self.history: list[float] = []
        self.best_epoch = 0

    def waiting_for(
        self, call: Callable[[], T], progress: Progress
    ) -> Generator[Progress, None, T]:
        """Run a part of the training, yielding progress repeatedly if it is slow.

        A pipeline can be cancelled only where it yields, and slow components take seconds per step.
        """
        if not self._components.slow:
            return call()
        running = Inner(in_background(call))
        for _ in running:
            yield progress
        value: T = running.value[0]
        return value

    # Start --------------------------------------------------------------------------------

    def start(self) -> Iterator[Progress]:
        """Place the components, yielding progress."""
        generator = torch.Generator().manual_seed(self._settings.seed)
        last = Progress("Starting the mixture", 1, 1)
        if self._settings.start == "random":
            yield from self.waiting_for(lambda: self._start_randomly(generator), last)
            yield last
            return
        count = self._settings.components
        chosen = torch.randperm(len(self._patches), generator=generator)[: _SAMPLE * count]
        sample = self._patches[chosen].to(self._device)
        steps = Inner(kmeans(sample, count, generator, self._components.unit_length))
        for done, total in steps:
            yield Progress("Starting the mixture", done, total)
        yield from self.waiting_for(lambda: self._start_from(sample, steps.value), last)

    def _start_from(self, sample: torch.Tensor, clustering: Clustering) -> None:
        """Use clusters as responsibilities and maximise."""
        count, channels = clustering.centres.shape
        statistics = self._components.empty(count, channels, self._device)
        weights = torch.full((len(sample),), 1 / len(sample), device=self._device)
        for part, labels, share in zip(
            sample.split(_CHUNK),
            clustering.labels.split(_CHUNK),
            weights.split(_CHUNK),
            strict=True,
        ):
            self._components.add_pairs(statistics, part, labels, share)
        self._statistics = statistics
        self._maximise()

    def _start_randomly(self, generator: torch.Generator) -> None:
        """Use embeddings of the first batch as means, with its variance and random sticks."""
        settings = self._settings
        first = self._patches[torch.randperm(len(self._patches), generator=generator)]
        first = first[: max(self._batch, settings.components)].to(self._device)
        self._components.broad(first[: settings.components].clone(), first.var(0), settings.lambda_)
        # v ~ Beta(1, alpha), by inversion of its distribution function 1 - (1 - v)^alpha.
        uniform = torch.rand(settings.components, generator=generator, dtype=torch.float64)
        log_rest = torch.log1p(-uniform) / self._concentration
        log_stick = torch.log(-torch.expm1(log_rest)).clamp_min(-700)
        log_stick[-1] = 0.0
        log_stick[1:] += log_rest[:-1].cumsum(0)
        self._log_weights = log_stick.to(first)
        channels = first.shape[1]
        self._statistics = self._components.empty(settings.components, channels, self._device)

    # Steps --------------------------------------------------------------------------------

    def step(self, x: torch.Tensor, rho: float) -> None:
        """Take one EM step.

        Parameters
        ----------
        x : torch.Tensor, (N, C)
            Centred patches.
        rho : float
            Weight of this batch in the running statistics.
        """
        joint = self._components.log_density(x, self._log_weights)
        responsibilities = torch.softmax(joint, dim=1)
        self._statistics.scale_(1 - rho)
        self._components.accumulate(self._statistics, x, responsibilities, rho / len(x))
        self._maximise()

    def _maximise(self) -> None:
        """Update components, sticks and concentration from the statistics."""
        mass, truncation = self._statistics.mass, self._settings.components
        self._components.maximise(self._statistics, self._prior)
        arguments = (mass, self._concentration, self._batch, truncation)
        self._log_weights = log_stick_weights(*arguments)
        if self._settings.concentration is None:
            self._concentration = update_concentration(*arguments)

    def _drop_dead(self) -> None:
        """Drop components without weight; the others keep the order of their sticks."""
        living = self._log_weights > math.log(LIVING_WEIGHT)
        if not bool(living.all()):
            self._statistics = self._statistics.keep(living)
            self._log_weights = torch.log_softmax(self._log_weights[living], 0)
            self._components.maximise(self._statistics, self._prior)

    def run(self) -> Iterator[Progress]:
        """Run the remaining epochs, yielding progress after every batch."""
        settings = self._settings
        while not self.finished:
            epoch = len(self.history)
            # One seed per epoch, so that a resumed fit sees the same batches.
            shuffle = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch + 1)
            order = torch.randperm(len(self._patches), generator=shuffle)
            for number in range(self._steps):
                chosen = order[number * self._batch : (number + 1) * self._batch]
                t = epoch * self._steps + number + 1
                # A random start has no statistics yet, so its first batch replaces them.
                alone = t == 1 and settings.start == "random"
                rho = 1.0 if alone else settings.step(t)
                x = self._patches[chosen].to(self._device)
                now = self._progress(t)
                yield from self.waiting_for(partial(self.step, x, rho), now)
                yield now
            yield from self.waiting_for(self._drop_dead, now)
            yield from self._validate()

    @property
    def finished(self) -> bool:
        """Whether no further epoch is needed."""
        settings, history = self._settings, self.history
        if len(history) >= settings.epochs:
            return True
        if settings.patience is None or len(history) <= settings.patience:
            return False
        before, recent = history[: -settings.patience], history[-settings.patience :]
        return min(recent) > min(before) - settings.least_gain

    def _progress(self, step: int) -> Progress:
        settings = self._settings
        epoch = min((step - 1) // self._steps + 1, settings.epochs)
        return Progress(
            "Fitting the mixture",
            step,
            settings.epochs * self._steps,
            f"epoch {epoch} of {settings.epochs}, {len(self._log_weights)} components",
        )

    def _validate(self) -> Generator[Progress, None, None]:
        """Compute the validation likelihood, and keep the epoch if it is the best."""
        total = 0.0
        now = self._progress((len(self.history) + 1) * self._steps)
        for part in self._held_out.split(_CHUNK):
            total -= yield from self.waiting_for(partial(self._log_likelihood, part), now)
            yield now
        loss = total / len(self._held_out)
        if not math.isfinite(loss):
            raise InputError(
                f"Expected a finite likelihood of the mixture, got {loss}; give a larger ridge, or "
                "embeddings without infinite values."
            )
        if loss < min(self.history, default=math.inf):
            self._best = yield from self.waiting_for(self._state, now)
            self.best_epoch = len(self.history) + 1
        self.history.append(loss)
        # Yield between epochs, where a caller can save the state.
        yield self._progress(len(self.history) * self._steps)

    def _log_likelihood(self, patches: torch.Tensor) -> float:
        """Return the summed log-likelihood of patches."""
        joint = self._components.log_density(patches.to(self._device), self._log_weights)
        return float(torch.logsumexp(joint, dim=1).double().sum())

    def _state(self) -> _State:
        running = self._statistics
        copy = Statistics(running.mass.clone(), running.first.clone(), running.second.clone())
        # Copied, since a file has no room for tensors that share memory.
        return _State(copy, self._log_weights.clone(), self._concentration)

    # Results ------------------------------------------------------------------------------

    def best(self) -> Mixture:
        """Return the mixture of the best epoch, with the largest component first.

        Raises
        ------
        RuntimeError
            If no epoch has finished.
        """
        if self._best is None:
            raise RuntimeError("no epoch has been finished")
        order = torch.argsort(self._best.log_weights, descending=True, stable=True)
        components = new_components(self._settings.covariance)
        components.maximise(self._best.statistics.keep(order), self._prior)
        log_weights = self._best.log_weights[order]
        shared = self._shared(components, log_weights)
        if not bool(shared.all()):
            components = new_components(self._settings.covariance)
            components.maximise(self._best.statistics.keep(order[shared]), self._prior)
            log_weights = torch.log_softmax(log_weights[shared], 0)
        return Mixture(components, log_weights, self._origin, self._best.concentration)

    def _shared(self, components: Components, log_weights: torch.Tensor) -> torch.Tensor:
        """Return which components held-out patches use as much as their weights promise, (K,)."""
        share, count = self._settings.held_out_share, len(self._held_out)
        if share == 0 or not self._telling:
            return torch.ones_like(log_weights, dtype=torch.bool)
        used = torch.zeros_like(log_weights)
        for part in self._held_out.split(_CHUNK):
            joint = components.log_density(part.to(self._device), log_weights)
            used += torch.softmax(joint, dim=1).sum(0)
        promised = log_weights.exp() * count
        shared = (used >= share * promised) | (promised < _LEAST_PROMISED)
        return shared if bool(shared.any()) else torch.ones_like(shared)

    def state(self) -> dict[str, torch.Tensor]:
        """Return what `restore` needs to resume; call it after a finished epoch."""
        assert self._best is not None
        out = self._state().tensors("running") | self._best.tensors("best")
        out["history"] = torch.tensor(self.history, dtype=torch.float64)
        out["best_epoch"] = torch.tensor(self.best_epoch)
        out["origin"] = self._origin
        return out

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Resume from the output of `state`.

        Raises
        ------
        OtherFitError
            If the state is of other patches or settings.
        """
        check_fingerprint(state.get("origin"), self._origin)
        running = _State.of(state, "running", self._device)
        self._statistics, self._log_weights = running.statistics, running.log_weights
        self._concentration = running.concentration
        self._best = _State.of(state, "best", self._device)
        self.history = state["history"].tolist()
        self.best_epoch = int(state["best_epoch"])
        self._components.maximise(self._statistics, self._prior)
