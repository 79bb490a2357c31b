"""Models that are trained in epochs, and resume a stopped fit after its last finished epoch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.normative.base import NormativeModel
from napari_dino_uad.core.progress import Progress

if TYPE_CHECKING:
    from napari_dino_uad.core.features.feature_set import FeatureSet
    from napari_dino_uad.core.storage.training_states import TrainingFile

__all__ = [
    "OtherFitError",
    "Resumable",
    "check_fingerprint",
    "fit_resumably",
    "restoring",
    "resuming_note",
]

# A state is written at most once in this time, and at most this share of the time is spent on it.
_INTERVAL_S = 20.0
_SHARE = 0.05


class OtherFitError(InputError):
    """A training state belongs to a fit of other slices or settings."""


class Resumable:
    """The part of a model that remembers its training after each epoch.

    Attributes
    ----------
    states_kept : int
        Number of states remembered so far; it rises when an epoch has finished.
    """

    _state: dict[str, torch.Tensor] | None = None
    states_kept = 0

    def training_state(self) -> dict[str, torch.Tensor]:
        """Return the state of a stopped fit, to save and resume from.

        Raises
        ------
        InputError
            If no fit was stopped after its first epoch.
        """
        if self._state is None:
            raise InputError("There is no stopped fit to save: start one, and let an epoch finish.")
        return dict(self._state)

    def resume_from(self, state: dict[str, torch.Tensor]) -> None:
        """Make the next `fit` resume from a result of `training_state`."""
        self._state = dict(state)

    def _remember(self, state: dict[str, torch.Tensor]) -> None:
        """Remember the training after an epoch."""
        self._state = state
        self.states_kept += 1


def check_fingerprint(own: torch.Tensor | None, expected: torch.Tensor) -> None:
    """Refuse to resume a fit of other slices.

    Parameters
    ----------
    own : torch.Tensor or None
        Fingerprint in the state.
    expected : torch.Tensor
        Fingerprint of the slices at hand.

    Raises
    ------
    OtherFitError
        If they differ.
    """
    if own is None or own.shape != expected.shape or not torch.equal(own.to(expected), expected):
        raise OtherFitError(
            "A stopped fit must continue with the healthy slices it began with, got other slices; "
            "start a new fit."
        )


@contextmanager
def restoring() -> Iterator[None]:
    """Turn errors about missing or unfit tensors of a model file into one sentence.

    Raises
    ------
    InputError
        In place of a KeyError or RuntimeError.
    """
    try:
        yield
    except (KeyError, RuntimeError) as error:
        raise InputError(
            "The file's tensors do not fit its settings: it is damaged or was edited; fit "
            "the model again."
        ) from error


def resuming_note(finished: int, epochs: int, ended: bool) -> str:
    """Return the note for a fit that resumes.

    Parameters
    ----------
    finished, epochs : int
        Epochs that are finished, and the most there will be.
    ended : bool
        Whether no further epoch is needed.
    """
    if ended:
        return f"Resuming the fit after its last epoch, {finished}"
    return f"Resuming the fit at epoch {finished + 1} of {epochs}"


def fit_resumably(
    build: Callable[[], NormativeModel],
    train: FeatureSet,
    valid: FeatureSet,
    file: TrainingFile | None,
) -> Generator[Progress, None, NormativeModel]:
    """Fit a model, resuming from a file and keeping the training in it.

    The file is written after an epoch, at most every 20 s, and when the fit is stopped. It stays
    when the training has finished.

    Parameters
    ----------
    build : callable
        Returns a new unfitted model.
    train, valid : FeatureSet
        Healthy slices.
    file : TrainingFile or None
        Where the training is kept; None keeps nothing.

    Yields
    ------
    Progress
        After every batch; a note says where the fit resumes, or why it does not.

    Returns
    -------
    NormativeModel
        The same as that of a fit that was never stopped.
    """
    normative = build()
    if file is None or not isinstance(normative, Resumable):
        yield from normative.fit(train, valid)
        return normative
    try:
        state, problem = file.load(), ""
    except ValueError as error:
        state, problem = None, str(error)
    if state is not None:
        normative.resume_from(state)
        try:
            yield from _keeping(normative, normative.fit(train, valid), file)
        except OtherFitError:
            problem = "it is of other slices"
        else:
            return normative
        normative = build()
        assert isinstance(normative, Resumable)
    if problem:
        file.remove()
        note = f"The stopped fit kept on disk cannot be resumed: {problem}; a new one starts."
        yield Progress("Starting the fit", 0, 1, note=note)
    yield from _keeping(normative, normative.fit(train, valid), file)
    return normative


def _keeping(
    model: Resumable, steps: Iterator[Progress], file: TrainingFile
) -> Generator[Progress, None, None]:
    """Forward the steps of a fit, and write its state from time to time and at the end."""
    seen = 0
    unsaved: dict[str, torch.Tensor] | None = None
    due = time.monotonic() + _INTERVAL_S
    problem = ""
    try:
        for progress in steps:
            if model.states_kept > seen and not problem:
                seen, unsaved = model.states_kept, model.training_state()
                begun = time.monotonic()
                if begun >= due:
                    problem, unsaved = _save(file, unsaved), None
                    due = time.monotonic() + max(_INTERVAL_S, (time.monotonic() - begun) / _SHARE)
                    progress = dataclasses.replace(progress, note=problem or progress.note)
            yield progress
    finally:
        if unsaved is not None:
            _save(file, unsaved)


def _save(file: TrainingFile, state: dict[str, torch.Tensor]) -> str:
    """Write a state; return a note if that is impossible."""
    try:
        file.save(state)
    except InputError as error:
        return f"The fit goes on, but cannot be resumed if it is stopped: {error}"
    return ""
