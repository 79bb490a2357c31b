"""Spatial autoregressive model of patch embeddings.

E. Erdil, N. Schulthess, G. Tombak and E. Konukoglu, "Spatial Autoregressive Modeling of DINOv3
Embeddings for Unsupervised Anomaly Detection", arXiv 2603.02974 (2026). A small convolutional
network predicts each patch embedding from others of its slice; where healthy anatomy does not
predict the content, the error is large. Inference is one pass, and memory does not grow
with the healthy cohort.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.autoregressive.embedding import Embedding, embedded_slices
from napari_dino_uad.core.normative.autoregressive.errors import (
    ErrorScale,
    cosine_error,
    gaussian_nll,
    measure_errors,
)
from napari_dino_uad.core.normative.autoregressive.network import ARNetwork
from napari_dino_uad.core.normative.autoregressive.settings import (
    AutoregressiveConfig,
    AutoregressiveFitted,
)
from napari_dino_uad.core.normative.autoregressive.training import Training
from napari_dino_uad.core.normative.base import NormativeModel, tensors_under
from napari_dino_uad.core.normative.patches import draw_patches
from napari_dino_uad.core.normative.resumable import Resumable, restoring, resuming_note
from napari_dino_uad.core.precision import computing_dtype
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.storage.tensor_schema import TensorSpec, history_spec

if TYPE_CHECKING:
    from napari_dino_uad.core.features.feature_set import FeatureSet

__all__ = ["Autoregressive", "AutoregressiveConfig"]

# Log variances are kept within these bounds, so that a channel predicted perfectly on the
# healthy scans cannot swamp all others.
_LOG_VARIANCE = (-8.0, 8.0)


class Autoregressive(Resumable, NormativeModel):
    """A network that predicts patch embeddings from their surroundings.

    Parameters
    ----------
    settings : AutoregressiveConfig, optional
    device : str or torch.device
        Where to train and score.

    Attributes
    ----------
    history_ : list of float
        Loss on the validation slices after each epoch.
    train_history_ : list of float
        Mean training loss of each epoch.
    best_epoch_ : int
        Epoch, from 1, whose network was kept.
    """

    method: ClassVar[str] = "ar"
    saved = (AutoregressiveConfig, AutoregressiveFitted)
    patchwise = False

    def __init__(
        self,
        settings: AutoregressiveConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings or AutoregressiveConfig()
        self.device = torch.device(device)
        self.history_: list[float] = []
        self.train_history_: list[float] = []
        self.best_epoch_ = 0
        self._embedding: Embedding | None = None
        self._networks: nn.ModuleList | None = None
        self._scales: list[ErrorScale] = []

    # Fitting ------------------------------------------------------------------------------

    def fit(self, train: FeatureSet, valid: FeatureSet) -> Iterator[Progress]:
        """Train on healthy slices and keep the epoch with the lowest loss on `valid`.

        A stopped fit resumes after its last finished epoch when `fit` is called again with the
        same slices. The model is the same as that of a fit that was never stopped.

        Parameters
        ----------
        train, valid : FeatureSet
            Healthy slices.

        Yields
        ------
        Progress
            After every batch.

        Raises
        ------
        InputError
            If no slice holds tissue, or a stopped fit is continued with other slices.
        """
        settings = self.settings
        self._scales = []
        total = len(train) + len(valid)
        step = "Standardising the embeddings"
        patches = yield from draw_patches(train, 100_000, settings.seed, True, False, step)
        embedding = Embedding.fit(
            patches, settings.standardise, settings.components, settings.power
        )
        del patches
        sets: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[], []]
        done = 0
        for parts, features in zip(sets, (train, valid), strict=True):
            for part in embedded_slices(features, embedding):
                parts.append(part)
                done += len(part[0])
                yield Progress(step, done, total)
        self._embedding = embedding.to(self.device)
        self._networks = self._build(embedding.channels)
        training = Training(self._networks, self._losses, settings, self.device, embedding.mean)
        if self._state is not None:
            training.restore(self._state)
            finished, epochs = len(training.history), training.epochs(sets[0])
            note = resuming_note(finished, epochs, finished >= epochs)
            yield Progress(step, total, total, note=note)
        for progress in training.run(*sets):
            if training.state is not None and training.state is not self._state:
                self._remember(training.state)
            yield progress
        self._state = None
        training.keep_best()
        self.history_ = training.history
        self.train_history_ = training.train_history
        self.best_epoch_ = training.best_epoch
        yield from self._measure(sets[0] + sets[1])

    @property
    def _directions(self) -> int:
        return 1 if self.settings.combination == "none" else 2

    def _build(self, channels: int) -> nn.ModuleList:
        """Build the untrained networks, one for each reading direction."""
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed)
        return nn.ModuleList(
            ARNetwork(
                channels,
                2 * channels if settings.loss == "nll" else channels,
                mode=settings.mode,
                hidden=settings.hidden,
                kernels=settings.kernels,
                dilations=settings.layer_dilations,
                hole=settings.hole,
                position=settings.position,
                generator=generator,
            )
            for _ in range(self._directions)
        ).to(self.device)

    def _predict(
        self,
        direction: int,
        x: torch.Tensor,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Predict (mean, log variance or None) in one reading direction."""
        if self._networks is None:
            raise InputError("This model is not fitted yet; call fit first.")
        # Backwards in raster order is forwards on the grid turned by 180 degrees.
        turned = x.flip(-2, -1) if direction else x
        dtype = computing_dtype(self.settings.precision, x.device)
        out = self._networks[direction](turned.to(dtype), dropout, generator).float()
        out = out.flip(-2, -1) if direction else out
        if self.settings.loss != "nll":
            return out, None
        mean, log_variance = out.chunk(2, dim=1)
        return mean, log_variance.clamp(*_LOG_VARIANCE)

    def _losses(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Return the loss at each patch, averaged over reading directions, (B, h, w)."""
        maps = []
        for direction in range(self._directions):
            mean, log_variance = self._predict(direction, inputs, dropout, generator)
            if log_variance is not None:
                maps.append(gaussian_nll(targets, mean, log_variance))
            elif self.settings.loss == "cosine":
                maps.append(cosine_error(targets, mean))
            else:
                maps.append((targets - mean).square().mean(dim=1))
        return torch.stack(maps).mean(0)

    def _measure(self, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[Progress]:
        """Fit the scale of errors on healthy slices, for each reading direction."""
        settings = self.settings
        scales = []
        for direction in range(self._directions):
            measuring = Inner(
                measure_errors(
                    parts,
                    partial(self._error, direction),
                    partial(self._raw, direction),
                    ErrorScale(relative=settings.score != "nll"),
                    whitening=settings.error_whitening,
                    shrinkage=settings.shrinkage,
                    power=settings.whitening_power,
                    position_smoothing=(
                        settings.position_smoothing if settings.position_map else None
                    ),
                    device=self.device,
                )
            )
            yield from measuring
            scales.append(measuring.value)
        self._scales = scales

    def _error(self, direction: int, x: torch.Tensor) -> torch.Tensor:
        """Return embeddings less predictions, (B, P, h, w)."""
        return x - self._predict(direction, x)[0]

    # Scoring ------------------------------------------------------------------------------

    def _raw(self, direction: int, x: torch.Tensor, scale: ErrorScale) -> torch.Tensor:
        """Score embedded slices in one direction, before positions are compared."""
        mean, log_variance = self._predict(direction, x)
        if self.settings.score == "cosine":
            return cosine_error(x, mean)
        if self.settings.score == "nll":
            assert log_variance is not None
            return gaussian_nll(x, mean, log_variance)
        squared = scale.squared(x - mean)
        return squared.sqrt() if self.settings.root else squared

    def _fitted(self) -> Embedding:
        if self._embedding is None or not self._scales:
            raise InputError("This model is not fitted yet; call fit first.")
        return self._embedding

    @torch.inference_mode()
    def score(self, features: torch.Tensor) -> torch.Tensor:
        """Score embeddings on the patch grid, (B, C, h, w) -> (B, h, w).

        Raises
        ------
        InputError
            If the model is not fitted.
        """
        x = self._fitted().apply(features.to(self.device))
        maps = [
            scale.compare(self._raw(direction, x, scale))
            for direction, scale in enumerate(self._scales)
        ]
        if len(maps) == 1:
            return maps[0].to(features.device)
        both = torch.stack(maps)
        combined = both.mean(0) if self.settings.combination == "mean" else both.amin(0)
        return combined.to(features.device)

    @torch.inference_mode()
    def embed(self, features: torch.Tensor) -> torch.Tensor:
        """Map embeddings to the space the network predicts in, (B, C, h, w) -> (B, P, h, w)."""
        return self._fitted().apply(features.to(self.device)).to(features.device)

    @torch.inference_mode()
    def expect(self, features: torch.Tensor) -> torch.Tensor:
        """Return the embeddings the network expects, as the mean over its reading directions.

        Parameters
        ----------
        features : torch.Tensor of float32, (B, C, h, w)

        Returns
        -------
        torch.Tensor of float32, (B, P, h, w)
            In the space of `embed`.
        """
        x = self._fitted().apply(features.to(self.device))
        predicted = [self._predict(direction, x)[0] for direction in range(len(self._scales))]
        return torch.stack(predicted).mean(0).to(features.device)

    @torch.inference_mode()
    def explain(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return maps that explain the score.

        Returns
        -------
        dict
            "error", (B, h, w): the score before positions are compared, averaged over reading
            directions; "cosine", (B, h, w): 1 - cosine of embedding and prediction; and where
            they exist "expected_error", (B, h, w): the healthy mean at each position;
            "deviation", (B, h, w): the predicted standard deviation, averaged over channels;
            "forward" and "backward", (B, h, w): the score of each reading direction.
        """
        x = self._fitted().apply(features.to(self.device))
        shape = (int(x.shape[-2]), int(x.shape[-1]))
        gathered: dict[str, list[torch.Tensor]] = {}
        for direction, scale in enumerate(self._scales):
            raw = self._raw(direction, x, scale)
            mean, log_variance = self._predict(direction, x)
            gathered.setdefault("error", []).append(raw)
            gathered.setdefault("cosine", []).append(cosine_error(x, mean))
            expected = scale.expected(shape)
            if expected is not None:
                gathered.setdefault("expected_error", []).append(expected.expand_as(raw))
            if log_variance is not None:
                deviation = torch.exp(0.5 * log_variance).mean(dim=1)
                gathered.setdefault("deviation", []).append(deviation)
            if len(self._scales) == 2:
                gathered[("forward", "backward")[direction]] = [scale.compare(raw)]
        return {
            name: torch.stack(maps).mean(0).to(features.device) for name, maps in gathered.items()
        }

    def to(self, device: torch.device | str) -> Autoregressive:
        """Move the fitted model to another device and return it."""
        self.device = torch.device(device)
        if self._networks is not None:
            self._networks.to(self.device)
        if self._embedding is not None:
            self._embedding = self._embedding.to(self.device)
        self._scales = [scale.to(self.device) for scale in self._scales]
        return self

    # Files --------------------------------------------------------------------------------

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the fitted state to save.

        Raises
        ------
        InputError
            If the model is not fitted.
        """
        embedding = self._fitted()
        assert self._networks is not None
        out = {
            "embedding.mean": embedding.mean,
            "embedding.scale": embedding.scale,
            "history": torch.tensor(self.history_),
            "train_history": torch.tensor(self.train_history_),
        }
        out |= {f"network.{name}": value for name, value in self._networks.state_dict().items()}
        for direction, scale in enumerate(self._scales):
            if scale.whitening is not None:
                out[f"errors.{direction}.whitening"] = scale.whitening
            if scale.position is not None:
                out[f"errors.{direction}.position"] = scale.position
        return {name: value.detach().cpu().contiguous() for name, value in out.items()}

    def config(self) -> dict[str, Any]:
        """Return the settings and the fitted numbers that are no tensors."""
        return {**dataclasses.asdict(self.settings), "best_epoch": self.best_epoch_}

    @classmethod
    def described(
        cls, saved: tuple[AutoregressiveConfig, AutoregressiveFitted], channels: int
    ) -> dict[str, TensorSpec]:
        """Return what `tensors` must hold, of an embedding in P channels and E epochs."""
        settings, fitted = saved
        embedding = Embedding.described(settings.standardise, settings.components, channels)
        specs = {f"embedding.{name}": spec for name, spec in embedding.items()}
        specs["history"] = specs["train_history"] = history_spec(fitted.best_epoch)
        network = ARNetwork.described(
            "P",
            "2P" if settings.loss == "nll" else "P",
            mode=settings.mode,
            hidden=settings.hidden,
            kernels=settings.kernels,
            hole=settings.hole,
            position=settings.position,
        )
        errors = ErrorScale.described(
            settings.error_whitening, settings.position_map, settings.score != "nll"
        )
        for direction in range(1 if settings.combination == "none" else 2):
            specs |= {f"network.{direction}.{name}": spec for name, spec in network.items()}
            specs |= {f"errors.{direction}.{name}": spec for name, spec in errors.items()}
        return specs

    @classmethod
    def restore(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Autoregressive:
        """Build a fitted model from its file.

        Raises
        ------
        InputError
            If the tensors do not fit the settings.
        """
        from napari_dino_uad.core.normative.config import read_config

        settings, fitted = read_config(cls.method, config)
        model = cls(settings)
        model.best_epoch_ = fitted.best_epoch
        with restoring():
            model.history_ = tensors["history"].tolist()
            model.train_history_ = tensors["train_history"].tolist()
            model._embedding = Embedding(tensors["embedding.mean"], tensors["embedding.scale"])
            model._networks = model._build(model._embedding.channels)
            model._networks.load_state_dict(tensors_under("network.", tensors))
        model._networks.eval().requires_grad_(False)
        model._scales = [
            ErrorScale(
                tensors.get(f"errors.{direction}.whitening"),
                tensors.get(f"errors.{direction}.position"),
                model.settings.score != "nll",
            )
            for direction in range(len(model._networks))
        ]
        return model

    def summary(self) -> str:
        """Describe the fitted model in one line."""
        settings = self.settings
        both = (
            "" if settings.combination == "none" else f", both directions by {settings.combination}"
        )
        weights = (
            0
            if self._networks is None
            else sum(parameter.numel() for parameter in self._networks.parameters())
        )
        return (
            f"AR, {settings.mode}{both}: {settings.depth} layers of {settings.hidden} channels, "
            f"{weights / 1e6:.2f} million weights, best epoch {self.best_epoch_} of "
            f"{len(self.history_)}"
        )
