"""Dirichlet process mixture of patch embeddings.

N. Schulthess and E. Konukoglu, "Anomaly Detection by Clustering DINO Embeddings using a
Dirichlet Process Mixture", MICCAI 2025 (arXiv 2509.19997). A truncated stick-breaking mixture
of Gaussians, or of von Mises-Fisher distributions, fitted by stochastic EM with exponentially
averaged sufficient statistics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.base import NormativeModel
from napari_dino_uad.core.normative.mixture.mixture import Mixture
from napari_dino_uad.core.normative.mixture.scores import Directions, nearest
from napari_dino_uad.core.normative.mixture.settings import SCORES, DPMMConfig, DPMMFitted, Score
from napari_dino_uad.core.normative.mixture.space import EmbeddingSpace
from napari_dino_uad.core.normative.mixture.training import Training
from napari_dino_uad.core.normative.patches import draw_patches
from napari_dino_uad.core.normative.resumable import Resumable, restoring, resuming_note
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.storage.tensor_schema import TensorSpec, history_spec, unit_rows

if TYPE_CHECKING:
    from napari_dino_uad.core.features.feature_set import FeatureSet

__all__ = ["DPMM", "SCORES", "DPMMConfig"]

# Validation patches for the likelihood of an epoch. Its standard error is then a few tenths of a
# percent of the spread between patches.
_HELD_OUT_PATCHES = 20_000

# With fewer held-out scans or slices, a component may be missing in them by chance: they need not
# show the whole organ.
_TELLING_SCANS, _TELLING_SLICES = 3, 24


class DPMM(Resumable, NormativeModel):
    """Truncated stick-breaking mixture over patch embeddings.

    Parameters
    ----------
    settings : DPMMConfig, optional
    device : str or torch.device
        Device for fitting and scoring.

    Attributes
    ----------
    history_ : list of float
        Mean negative log-likelihood of the validation patches after each epoch.
    best_epoch_ : int
        Epoch, from 1, whose state was kept.
    """

    method: ClassVar[str] = "dpmm"
    saved = (DPMMConfig, DPMMFitted)

    def __init__(
        self, settings: DPMMConfig | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.settings = settings or DPMMConfig()
        self.device = torch.device(device)
        self.history_: list[float] = []
        self.best_epoch_ = 0
        self._space = EmbeddingSpace()
        self._mixture: Mixture | None = None
        self._directions: Directions | None = None

    # Fitting ------------------------------------------------------------------------------

    def fit(self, train: FeatureSet, valid: FeatureSet) -> Iterator[Progress]:
        """Fit by stochastic EM and keep the epoch that explains `valid` best.

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
            If there are too few healthy patches, or a stopped fit is continued with other
            slices.
        """
        settings = self.settings
        drawn = []
        limits = (settings.max_patches, min(settings.max_patches, _HELD_OUT_PATCHES))
        for features, limit in zip((train, valid), limits, strict=True):
            patches = Inner(
                draw_patches(
                    features,
                    limit,
                    settings.seed,
                    settings.foreground,
                    settings.position > 0,
                    "Drawing patches",
                )
            )
            yield from patches
            drawn.append(patches.value)
        if len(drawn[0]) < 2 * settings.components:
            raise InputError(
                f"{len(drawn[0])} healthy patches are too few for {settings.components} "
                "components; give more scans or ask for fewer components."
            )
        space = EmbeddingSpace.fit(
            drawn[0], settings.pca, settings.position, settings.covariance == "vmf"
        )
        yield Progress("Starting the mixture", 0, 0)
        training = Training(
            settings,
            space.project(drawn[0]),
            space.project(drawn[1]),
            self.device,
            telling=len(valid.chunks) >= _TELLING_SCANS and len(valid) >= _TELLING_SLICES,
        )
        del drawn, patches
        if self._state is None:
            yield from training.start()
        else:
            stopped, start = self._state, Progress("Starting the mixture", 0, 0)
            yield from training.waiting_for(lambda: training.restore(stopped), start)
            finished = len(training.history)
            note = resuming_note(finished, settings.epochs, training.finished)
            yield dataclasses.replace(start, note=note)
        epochs = len(training.history)
        for progress in training.run():
            if len(training.history) > epochs:
                epochs = len(training.history)
                self._remember((yield from training.waiting_for(training.state, progress)))
            yield progress
        self._state = None
        best = yield from training.waiting_for(training.best, Progress("Finishing", 0, 1))
        self._adopt(best, space)
        self.history_, self.best_epoch_ = training.history, training.best_epoch

    def _adopt(self, mixture: Mixture, space: EmbeddingSpace) -> None:
        self._mixture = mixture
        self._space = space.to(self.device)
        self._directions = Directions.of(mixture.means)

    # Using --------------------------------------------------------------------------------

    @property
    def patchwise(self) -> bool:
        """Whether the score of a patch depends on that patch alone."""
        return self.settings.position == 0

    @property
    def mixture(self) -> Mixture:
        """The living components, the most common first.

        Raises
        ------
        InputError
            If the model is not fitted.
        """
        if self._mixture is None:
            raise InputError("The mixture is not fitted yet; fit it, or load a fitted one.")
        return self._mixture

    def _nearest(
        self, features: torch.Tensor, score: Score
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the patches (N, D), their scores (N,) and their nearest components (N,)."""
        mixture = self.mixture
        assert self._directions is not None
        x = self._space.flatten(features.to(self.device))
        values, index = nearest(
            x, score, mixture.components, mixture.log_weights, mixture.origin, self._directions
        )
        return x, values, index

    @torch.inference_mode()
    def score(self, features: torch.Tensor) -> torch.Tensor:
        """Score embeddings on the patch grid, (B, C, h, w) -> (B, h, w).

        Raises
        ------
        InputError
            If the model is not fitted.
        """
        batch, _, height, width = features.shape
        values = self._nearest(features, self.settings.score)[1]
        return values.reshape(batch, height, width).to(features.device)

    @torch.inference_mode()
    def explain(
        self, features: torch.Tensor, components: Sequence[int] = ()
    ) -> dict[str, torch.Tensor]:
        """Return which component each patch is nearest to, and how likely it is.

        Parameters
        ----------
        features : torch.Tensor, (B, C, h, w)
        components : sequence of int
            Components to return maps of, n of them; 0 is the most common.

        Returns
        -------
        dict
            "component": (B, h, w) of int64, the nearest component under the model's score;
            "log_likelihood": (B, h, w); and if components are given, in nats,
            "component_log_likelihood", log p(x | k), and "responsibility", the posterior, each
            (B, n, h, w).

        Raises
        ------
        InputError
            If the model is not fitted, or has no such component.
        """
        batch, _, height, width = features.shape
        mixture = self.mixture
        count = len(mixture.components)
        wrong = [k for k in components if not 0 <= k < count]
        if wrong:
            raise InputError(
                f"Component {wrong[0]} was asked for, but the mixture has 0 to {count - 1}."
            )
        x, _, index = self._nearest(features, self.settings.score)
        joint = mixture.joint(x)
        total = torch.logsumexp(joint, dim=1)
        grid = (batch, height, width)
        maps = {"component": index.reshape(grid), "log_likelihood": total.reshape(grid)}
        if components:
            chosen = torch.tensor(components, device=self.device)
            own = joint[:, chosen]
            posterior = (own - total[:, None]).exp()
            density = own - mixture.log_weights[chosen]
            for name, flat in (
                ("component_log_likelihood", density),
                ("responsibility", posterior),
            ):
                maps[name] = flat.reshape(*grid, -1).permute(0, 3, 1, 2).contiguous()
        return {name: values.to(features.device) for name, values in maps.items()}

    def to(self, device: torch.device | str) -> DPMM:
        """Move the fitted model to another device and return it."""
        self.device = torch.device(device)
        if self._mixture is not None:
            moved = self._mixture.to(self.settings.covariance, self.device)
            self._adopt(moved, self._space)
        return self

    # Files --------------------------------------------------------------------------------

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the living components and their embedding space.

        Means and spreads are in half precision: scores after `restore` differ by less than 0.5 %
        of the larger of the score and 1 (the likelihood, and
        Mahalanobis distances of von Mises-Fisher components, 1 %).

        Raises
        ------
        InputError
            If the model is not fitted.
        """
        out = self.mixture.tensors() | {"history": torch.tensor(self.history_)}
        if self._space.projection is not None and self._space.mean is not None:
            out["space.mean"] = self._space.mean.cpu()
            out["space.projection"] = self._space.projection.cpu().contiguous()
        return out

    def config(self) -> dict[str, Any]:
        """Return the settings and the fitted numbers that are not tensors."""
        return {
            **dataclasses.asdict(self.settings),
            "best_epoch": self.best_epoch_,
            "learned_concentration": self.mixture.concentration,
        }

    @classmethod
    def described(
        cls, saved: tuple[DPMMConfig, DPMMFitted], channels: int
    ) -> dict[str, TensorSpec]:
        """Return what `tensors` must hold, of K components in D dimensions."""
        settings, fitted = saved

        if settings.pca > channels:
            raise InputError(
                f"The embeddings have {channels} channels, but {settings.pca} principal components."
            )
        dimensions = (settings.pca or channels) + (2 if settings.position else 0)
        specs = {
            **Mixture.described(settings, dimensions),
            "history": history_spec(fitted.best_epoch),
        }
        if settings.pca:
            specs["space.mean"] = TensorSpec((channels,))
            specs["space.projection"] = TensorSpec(
                (channels, settings.pca), rule=lambda axes: unit_rows(axes.T)
            )
        return specs

    @classmethod
    def restore(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> DPMM:
        """Build a fitted mixture from its file.

        Raises
        ------
        InputError
            If the tensors do not fit the settings.
        """
        from napari_dino_uad.core.normative.config import read_config

        settings, fitted = read_config(cls.method, config)
        model = cls(settings)
        model.best_epoch_ = fitted.best_epoch
        own = dict(tensors)
        with restoring():
            model.history_ = own.pop("history").tolist()
            space = EmbeddingSpace(
                settings.position,
                settings.covariance == "vmf",
                own.pop("space.mean", None),
                own.pop("space.projection", None),
            )
            mixture = Mixture.restore(
                settings.covariance, own, fitted.learned_concentration, model.device
            )
        model._adopt(mixture, space)
        return model

    def summary(self) -> str:
        """Describe the fitted model in one line."""
        settings = self.settings
        return (
            f"DPMM, {settings.covariance} covariance: {len(self.mixture.components)} of "
            f"{settings.components} components live, concentration "
            f"{self.mixture.concentration:.3g}, best epoch {self.best_epoch_} of "
            f"{len(self.history_)}"
        )
