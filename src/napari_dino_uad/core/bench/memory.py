"""Scores of patches that are computed once for all maps of one fitted model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch

    from napari_dino_uad.core.model import FittedModel
    from napari_dino_uad.core.normative.base import NormativeModel

__all__ = ["Scores", "remembering"]

#: Scores of tissue patches, by a digest of the embeddings and their tissue.
Scores = dict[bytes, "torch.Tensor"]


class _Remembering:
    """A fitted normative model that looks its scores up before it computes them."""

    def __init__(self, model: NormativeModel, scores: Scores) -> None:
        self._model = model
        self._scores = scores
        self.method = model.method

    @property
    def patchwise(self) -> bool:
        return self._model.patchwise

    def score_tissue(self, features: torch.Tensor, tissue: torch.Tensor) -> torch.Tensor:
        """Score tissue as the model does."""
        from xxhash import xxh3_128

        digest = xxh3_128(features.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
        digest.update(tissue.contiguous().numpy().tobytes())
        key = digest.digest()
        if key not in self._scores:
            self._scores[key] = self._model.score_tissue(features, tissue)
        return self._scores[key]

    def config(self) -> dict[str, Any]:
        return self._model.config()

    def summary(self) -> str:
        return self._model.summary()


def remembering(model: FittedModel, scores: Scores) -> FittedModel:
    """Return a model that keeps its scores, or finds them, in `scores`."""
    views = tuple(
        dataclasses.replace(
            view, normative=cast("NormativeModel", _Remembering(view.normative, scores))
        )
        for view in model.views
    )
    return dataclasses.replace(model, views=views)
