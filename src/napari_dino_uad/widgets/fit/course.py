"""What happened during a fit: what was read again from disk, and where it was stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dino_uad.core.storage.folders import cache_home

if TYPE_CHECKING:
    from napari_dino_uad.core.progress import Progress

__all__ = ["Course", "kept_fits"]

_ENGINE_STEP = "Loading the backbone"
_RESUMING = "Resuming the fit "
_GOES_ON = "Fit with the same scans and settings goes on from there."


class Course:
    """Follows the progress of one fit.

    Attributes
    ----------
    reused, slices : int
        Slices whose embeddings were on disk, and all slices.
    resumed : str
        Where the training went on, such as "at epoch 3 of 10"; empty if it began anew.
    engine : str
        What runs the backbone.
    notes : list of str
        Other notes for the user, such as on scans that could not be used.
    """

    def __init__(self) -> None:
        self.reused = self.slices = 0
        self.resumed = self.engine = ""
        self.notes: list[str] = []
        self._last: Progress | None = None

    def take(self, progress: Progress) -> None:
        """Take a step of the fit."""
        from napari_dino_uad.core.features.cohort_features import ReusedSlices

        self._last = progress
        if isinstance(progress.result, ReusedSlices):
            self.reused += progress.result.reused
            self.slices += progress.result.total
        note = progress.note
        if _RESUMING in note:
            self.resumed = note.partition(_RESUMING)[2].rstrip(".")
        elif progress.step == _ENGINE_STEP:
            self.engine = note or self.engine
        elif note and note not in self.notes:
            self.notes.append(note)

    def describe(self) -> str:
        """Return what was reused, and the notes."""
        return "\n".join(text for text in (self.describe_reuse(), *self.notes) if text)

    def describe_reuse(self) -> str:
        """Return what did not have to be computed again; empty if that is nothing."""
        parts = []
        if self.reused:
            whole = self.reused == self.slices
            count = f"all {self.slices:,}" if whole else f"{self.reused:,} of {self.slices:,}"
            parts.append(f"the features of {count} slices were on disk")
        if self.resumed:
            parts.append(f"the training was resumed {self.resumed}")
        text = " and ".join(parts)
        return f"Kept from before: {text}." if text else ""

    def describe_stop(self) -> str:
        """Return where the fit was stopped, and what becomes of it."""
        last = self._last
        if last is None:
            return "Cancelled before it began."
        where = f"{last.step[:1].lower()}{last.step[1:]}"
        if last.total > 1:
            where += f", {last.done} of {last.total}"
        if cache_home() is None:
            return f"Cancelled at {where}. Nothing is kept, since the cache is off."
        return f"Cancelled at {where}. What was computed is kept for 14 days: {_GOES_ON}"


def kept_fits() -> str:
    """Return that stopped fits are kept on this computer; empty if there are none."""
    from napari_dino_uad.core.storage.training_states import TrainingStates

    home = cache_home()
    count = 0 if home is None else TrainingStates(home).count()
    if not count:
        return ""
    if count == 1:
        return f"A stopped fit is kept on this computer. {_GOES_ON}"
    return f"{count} stopped fits are kept on this computer. {_GOES_ON}"
