"""Training of the autoregressive networks, which can be stopped and resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.base import tensors_under
from napari_dino_uad.core.normative.resumable import OtherFitError, check_fingerprint
from napari_dino_uad.core.progress import Progress

if TYPE_CHECKING:
    from napari_dino_uad.core.normative.autoregressive.settings import AutoregressiveConfig

__all__ = ["Training"]

Parts = list[tuple[torch.Tensor, torch.Tensor]]

# Default number of epochs, and minimum number of steps, if the settings leave the epochs open.
_EPOCHS = 6
_LEAST_STEPS = 500

# Share of steps in which the learning rate rises, in the "cosine" schedule.
_WARM_UP = 0.1


class Training:
    """Training with AdamW over embedded slices held in memory.

    Parameters
    ----------
    networks : nn.ModuleList
        Networks to train.
    losses : callable
        (inputs, targets, dropout, generator) -> loss of each patch, (B, h, w).
    settings : AutoregressiveConfig
        Settings of the model.
    device : torch.device
        Device to train on.
    fingerprint : torch.Tensor
        Fingerprint of the slices, used to refuse resuming with others.

    Attributes
    ----------
    history, train_history : list of float
        Validation and training loss of each epoch.
    best_epoch : int
        Epoch with the lowest validation loss, counted from 1.
    state : dict of torch.Tensor or None
        State needed to resume after the last finished epoch.
    """

    def __init__(
        self,
        networks: nn.ModuleList,
        losses: Callable[..., torch.Tensor],
        settings: AutoregressiveConfig,
        device: torch.device,
        fingerprint: torch.Tensor,
    ) -> None:
        self._networks = networks
        self._losses = losses
        self._settings = settings
        self._device = device
        self._fingerprint = fingerprint.cpu()
        self._optimiser = torch.optim.AdamW(
            networks.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        # Order on the CPU; noise and dropout on the device of the data.
        self._order = torch.Generator().manual_seed(settings.seed)
        self._noise = torch.Generator(device=device).manual_seed(settings.seed + 1)
        self.history: list[float] = []
        self.train_history: list[float] = []
        self.best_epoch = 0
        self._best: dict[str, torch.Tensor] = {}
        self.state: dict[str, torch.Tensor] | None = None

    def run(self, train: Parts, valid: Parts) -> Iterator[Progress]:
        """Train until the last epoch, yielding after every batch.

        Parameters
        ----------
        train, valid : list of (torch.Tensor (B, P, h, w), torch.Tensor of bool (B, h, w))
            Embedded slices and their tissue.
        """
        settings = self._settings
        slices = _Slices(train)
        steps = len(slices.batches(settings.batch_slices, None))
        epochs = self._epochs(steps)
        total = steps * epochs
        for epoch in range(len(self.history), epochs):
            self._networks.train()
            summed, weight = 0.0, 0
            for step, batch in enumerate(slices.batches(settings.batch_slices, self._order)):
                self._set_rate(epoch * steps + step, total)
                loss, patches = self._step(*slices.take(batch, self._device))
                summed, weight = summed + loss * patches, weight + patches
                yield Progress(
                    "Training the network",
                    epoch * steps + step + 1,
                    total,
                    f"epoch {epoch + 1} of {epochs}",
                )
            self.train_history.append(summed / max(1, weight))
            yield from self._validate(valid, epoch, steps, total)
            self.state = self._snapshot()
            yield Progress(
                "Training the network",
                (epoch + 1) * steps,
                total,
                f"epoch {epoch + 1} of {epochs}, loss {self.history[-1]:.4f}",
            )

    def epochs(self, train: Parts) -> int:
        """Return the number of epochs of `run` on these slices."""
        return self._epochs(len(_Slices(train).batches(self._settings.batch_slices, None)))

    def _epochs(self, steps: int) -> int:
        return self._settings.epochs or max(_EPOCHS, math.ceil(_LEAST_STEPS / max(1, steps)))

    def _step(self, targets: torch.Tensor, mask: torch.Tensor) -> tuple[float, int]:
        """Take one step; return the mean loss and the number of patches."""
        settings = self._settings
        patches = int(mask.sum())
        inputs = targets
        noisy = torch.rand((), generator=self._noise, device=self._device)
        if settings.noise_scale > 0 and float(noisy) < settings.noise_probability:
            noise = torch.randn(targets.shape, generator=self._noise, device=self._device)
            spread = targets.std(dim=(-2, -1), keepdim=True)
            inputs = targets + settings.noise_scale * spread * noise
        if patches == 0:
            return 0.0, 0
        maps = self._losses(inputs, targets, settings.dropout, self._noise)
        loss = (maps * mask).sum() / patches
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if settings.clip > 0:
            nn.utils.clip_grad_norm_(self._networks.parameters(), settings.clip)
        self._optimiser.step()
        return float(loss.detach()), patches

    def _set_rate(self, step: int, total: int) -> None:
        rate = self._settings.learning_rate
        if self._settings.schedule == "cosine":
            warm = max(1, round(_WARM_UP * total))
            if step < warm:
                rate *= (step + 1) / warm
            else:
                rate *= 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def _validate(self, valid: Parts, epoch: int, steps: int, total: int) -> Iterator[Progress]:
        self._networks.eval()
        summed, weight = 0.0, 0
        for features, mask in valid:
            with torch.inference_mode():
                x = features.to(self._device, torch.float32)
                inside = mask.to(self._device)
                summed += float((self._losses(x, x) * inside).sum())
                weight += int(inside.sum())
            yield Progress(
                "Training the network",
                (epoch + 1) * steps,
                total,
                f"epoch {epoch + 1} of {total // steps}, validating",
            )
        self.history.append(summed / max(1, weight))
        if not math.isfinite(self.history[-1]):
            raise InputError(
                f"Expected a finite loss, got {self.history[-1]} in epoch {epoch + 1}; give a "
                "lower learning rate or clip the gradient."
            )
        if self.history[-1] <= min(self.history):
            self.best_epoch = epoch + 1
            self._best = {
                name: value.detach().clone() for name, value in self._networks.state_dict().items()
            }

    def keep_best(self) -> None:
        """Load the best epoch's weights into the networks, ready for scoring."""
        self._networks.load_state_dict(self._best)
        self._networks.eval().requires_grad_(False)

    # Stopping and resuming ----------------------------------------------------------------

    def _snapshot(self) -> dict[str, torch.Tensor]:
        state = {
            "fingerprint": self._fingerprint,
            "order": self._order.get_state(),
            "noise": self._noise.get_state(),
            "history": torch.tensor(self.history, dtype=torch.float64),
            "train_history": torch.tensor(self.train_history, dtype=torch.float64),
            "best_epoch": torch.tensor(self.best_epoch),
        }
        for name, value in self._networks.state_dict().items():
            state[f"network.{name}"] = value.detach().clone()
        for name, value in self._best.items():
            state[f"best.{name}"] = value
        for index, moments in self._optimiser.state_dict()["state"].items():
            for name, value in moments.items():
                state[f"adam.{index}.{name}"] = torch.as_tensor(value).clone()
        return state

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Resume from a state.

        Raises
        ------
        OtherFitError
            If the state is from other slices or settings.
        """
        check_fingerprint(state.get("fingerprint"), self._fingerprint)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors_under("adam.", state).items():
            index, kind = name.split(".")
            moments.setdefault(int(index), {})[kind] = value.clone()
        try:
            self._networks.load_state_dict(tensors_under("network.", state))
            self._optimiser.load_state_dict(
                {"state": moments, "param_groups": self._optimiser.state_dict()["param_groups"]}
            )
        except (RuntimeError, ValueError) as error:
            raise OtherFitError(
                "A stopped fit must continue with the settings it began with, got others; start a "
                "new fit."
            ) from error
        self._best = tensors_under("best.", state)
        self._order.set_state(state["order"])
        self._noise.set_state(state["noise"])
        self.history = state["history"].tolist()
        self.train_history = state["train_history"].tolist()
        self.best_epoch = int(state["best_epoch"])
        self.state = state


class _Slices:
    """Slices of one or more grid sizes, drawn in batches of equal grid size."""

    def __init__(self, parts: Parts) -> None:
        groups: dict[tuple[int, ...], Parts] = {}
        for features, mask in parts:
            groups.setdefault(tuple(features.shape[-2:]), []).append((features, mask))
        # Keep each scan's own tensors: joining them would double the memory.
        self._parts: Parts = [part for shape in sorted(groups) for part in groups[shape]]
        self._rows: list[list[tuple[int, int]]] = []
        number = 0
        for shape in sorted(groups):
            rows = []
            for features, _ in groups[shape]:
                rows += [(number, row) for row in range(len(features))]
                number += 1
            self._rows.append(rows)

    def batches(self, size: int, generator: torch.Generator | None) -> list[list[tuple[int, int]]]:
        """Draw the batches of an epoch; in order if there is no generator."""
        out = []
        for rows in self._rows:
            count = len(rows)
            order = (
                list(range(count))
                if generator is None
                else torch.randperm(count, generator=generator).tolist()
            )
            out += [[rows[i] for i in order[s : s + size]] for s in range(0, count, size)]
        if generator is not None and len(self._rows) > 1:
            out = [out[i] for i in torch.randperm(len(out), generator=generator).tolist()]
        return out

    def take(
        self, batch: list[tuple[int, int]], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features (B, P, h, w) in float32 and the mask (B, h, w) of a batch."""
        features = torch.stack([self._parts[part][0][row] for part, row in batch])
        mask = torch.stack([self._parts[part][1][row] for part, row in batch])
        return features.to(device, torch.float32), mask.to(device)
