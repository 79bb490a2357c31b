"""Memory bank: the baseline that both papers argue against.

Healthy patches are kept as they are, and the score of a patch is its distance to the nearest one.
After K. Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (PatchCore), CVPR
2022, with the cosine distance of S. Damm et al., "AnomalyDINO", WACV 2025. Exact, so memory and
time grow with the bank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.base import NormativeModel
from napari_dino_uad.core.normative.patches import draw_patches
from napari_dino_uad.core.progress import Progress
from napari_dino_uad.core.storage.tensor_schema import TensorSpec, unit_rows

if TYPE_CHECKING:
    from napari_dino_uad.core.features.feature_set import FeatureSet

__all__ = ["MemoryBank", "MemoryBankConfig"]

# The greedy choice measures distances between projections of this many dimensions, which keep
# them to a few per cent (Johnson and Lindenstrauss), as PatchCore does.
_PROJECTION = 128
_STEPS_A_YIELD = 20
# Query patches whose products with the whole bank are in memory at once.
_QUERIES = 2048


@dataclass(frozen=True)
class MemoryBankConfig:
    """Settings of a `MemoryBank`.

    Attributes
    ----------
    patches : int
        Healthy patches to keep.
    subsampling : {"random", "greedy"}
        "random" keeps a random sample; "greedy" keeps a coreset: it adds the patch farthest from
        those already kept, again and again (PatchCore, Eq. 4 and Algorithm 1), which takes minutes.
    candidates : int
        Patches that "greedy" chooses from.
    seed : int
        Seed of the fit; the same seed gives the same model.
    """

    patches: int = 20_000
    subsampling: Literal["random", "greedy"] = "random"
    candidates: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.patches < 1:
            raise InputError(f"A bank keeps 1 patch or more, got {self.patches}; raise it.")
        if self.subsampling not in ("random", "greedy"):
            raise InputError(
                f"The subsampling must be random or greedy, got {self.subsampling!r}; choose one."
            )
        if self.seed < 0:
            raise InputError(f"The seed is 0 or more, got {self.seed}.")
        if self.candidates < self.patches:
            raise InputError(
                f"{self.patches} patches cannot be chosen from {self.candidates} candidates; "
                "give at least as many."
            )


class MemoryBank(NormativeModel):
    """Healthy patches, and the distance to the nearest of them.

    Parameters
    ----------
    settings : MemoryBankConfig, optional

    Attributes
    ----------
    bank_ : torch.Tensor, (N, C)
        Patches of unit length, in half precision.
    """

    method: ClassVar[str] = "memory-bank"
    saved = (MemoryBankConfig,)
    patchwise = True

    def __init__(self, settings: MemoryBankConfig | None = None) -> None:
        self.settings = settings or MemoryBankConfig()
        self.bank_ = torch.empty(0, 0, dtype=torch.float16)
        self._transposed: torch.Tensor | None = None

    def fit(self, train: FeatureSet, valid: FeatureSet) -> Iterator[Progress]:
        """Keep healthy patches.

        Parameters
        ----------
        train, valid : FeatureSet
            Healthy slices; `valid` is not used.

        Yields
        ------
        Progress

        Raises
        ------
        InputError
            If no slice holds tissue.
        """
        settings = self.settings
        greedy = settings.subsampling == "greedy"
        limit = settings.candidates if greedy else settings.patches
        step = "Collecting healthy patches"
        patches = yield from draw_patches(train, limit, settings.seed, True, False, step)
        patches = F.normalize(patches, dim=1)
        generator = torch.Generator().manual_seed(settings.seed)
        if greedy and len(patches) > settings.patches:
            kept: list[int] = []
            for index in _farthest_first(patches, settings.patches, generator):
                kept.append(index)
                if len(kept) % _STEPS_A_YIELD == 0:
                    yield Progress("Choosing a coreset", len(kept), settings.patches)
            patches = patches[kept]
        self._keep(patches.half())

    def _keep(self, bank: torch.Tensor) -> None:
        self.bank_ = bank
        self._transposed = bank.float().T.contiguous()

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """Score embeddings: 1 - the cosine to the nearest healthy patch, (B, C, h, w) -> (B, h, w).

        Exact, as matrix products.
        """
        similarity, _ = self._nearest(features)
        return 1 - similarity

    def explain(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return which patch of the bank is nearest: "neighbour", (B, h, w) of int64."""
        return {"neighbour": self._nearest(features)[1]}

    def _nearest(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._transposed is not None, "the bank is empty: fit it first"
        batch, channels, height, width = features.shape
        flat = F.normalize(features.permute(0, 2, 3, 1).reshape(-1, channels), dim=1)
        found = [(part @ self._transposed).max(dim=1) for part in flat.split(_QUERIES)]
        shape = (batch, height, width)
        return (
            torch.cat([one.values for one in found]).reshape(shape),
            torch.cat([one.indices for one in found]).reshape(shape),
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the bank."""
        return {"bank": self.bank_}

    def config(self) -> dict[str, Any]:
        """Return the settings."""
        return dataclasses.asdict(self.settings)

    @classmethod
    def described(cls, saved: tuple[MemoryBankConfig], channels: int) -> dict[str, TensorSpec]:
        """Return what `tensors` must hold, of N patches."""
        [settings] = saved

        def small(bank: torch.Tensor) -> str:
            if len(bank) > settings.patches:
                return f"has more patches than the {settings.patches} of the settings"
            return unit_rows(bank)

        return {"bank": TensorSpec(("N", channels), "float16", rule=small)}

    @classmethod
    def restore(cls, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> MemoryBank:
        """Build a bank from its file."""
        from napari_dino_uad.core.normative.config import read_config

        [settings] = read_config(cls.method, config)
        model = cls(settings)
        model._keep(tensors["bank"])
        return model

    def summary(self) -> str:
        """Describe the fitted model in one line."""
        megabytes = self.bank_.numel() * self.bank_.element_size() / 1e6
        return (
            f"memory bank, {self.settings.subsampling} subsampling: {len(self.bank_)} patches, "
            f"{megabytes:.1f} MB"
        )


def _farthest_first(patches: torch.Tensor, count: int, generator: torch.Generator) -> Iterator[int]:
    """Yield indices of patches, each the farthest from all before it."""
    if patches.shape[1] > _PROJECTION:
        projection = torch.randn(patches.shape[1], _PROJECTION, generator=generator)
        patches = patches @ (projection / _PROJECTION**0.5)
    squares = patches.square().sum(1)
    index = int(torch.randint(len(patches), (1,), generator=generator))
    nearest = torch.full((len(patches),), torch.inf)
    for _ in range(count):
        yield index
        distance = squares + squares[index] - 2 * (patches @ patches[index])
        nearest = torch.minimum(nearest, distance)
        nearest[index] = -torch.inf
        index = int(nearest.argmax())
