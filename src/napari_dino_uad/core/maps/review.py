"""A reader's decisions, notes and corrections of findings, with one undo for all of them.

A decision is kept with the voxels it was made on, not with the number of a finding: numbers change
when the threshold moves. A finding takes the decision of the judged region that covers most of it,
if that is at least half of it. So a decision follows a finding that shrinks, splits or grows a
little, and waits while the finding is gone; but a small rejected region never rejects the lesion
that it grows into.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    from napari_dino_uad.core.maps.findings import Finding

__all__ = ["REVIEW_ENDING", "Correction", "Decision", "Judgement", "Review"]

#: How the names of saved reviews end.
REVIEW_ENDING = ".review.json"

Decision = Literal["open", "accepted", "rejected"]

# A decision holds for a finding if its region covers at least this share of it.
_COVERED = 0.5


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a reader thinks of a region.

    Attributes
    ----------
    decision : {"open", "accepted", "rejected"}
    note : str
        The reader's own words.
    runs : ndarray of int64, (R, 2)
        The region's voxels: start and length of each run in the flat canonical grid (S, P, L).
    """

    decision: Decision
    note: str
    runs: NDArray[np.int64]

    @property
    def voxels(self) -> NDArray[np.int64]:
        """Indices of the region's voxels in the flat canonical grid."""
        starts, lengths = self.runs[:, 0], self.runs[:, 1]
        before = np.cumsum(lengths) - lengths
        return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))

    @classmethod
    def from_dict(cls, values: Any, size: int) -> Judgement:
        """Build a judgement from values of a file.

        Parameters
        ----------
        values : object
            A mapping with "decision", "note" and "runs".
        size : int
            Number of voxels of the scan.

        Raises
        ------
        InputError
            If the values are no judgement on a scan of this size.
        """
        wrong = InputError("Expected decisions on regions of the scan, got other values.")
        if not isinstance(values, dict) or values.get("decision") not in get_args(Decision):
            raise wrong
        try:
            runs = np.asarray(values.get("runs"), dtype=np.int64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError):
            raise wrong from None
        inside = (runs[:, 0] >= 0) & (runs[:, 1] > 0) & (runs[:, 1] <= size - runs[:, 0])
        rising = runs[1:, 0] >= runs[:-1].sum(axis=1)
        if not inside.all() or not rising.all() or not isinstance(values.get("note"), str):
            raise wrong
        return cls(values["decision"], values["note"], runs)


@dataclass(frozen=True, eq=False)
class Correction:
    """Voxels that a reader changed in one go, with what was there before and after.

    Attributes
    ----------
    voxels : ndarray of int64, (V,)
        Indices in the flat canonical grid (S, P, L).
    before, after : ndarray of int8, (V,)
        Values as in `FindingSettings.edits`.
    """

    voxels: NDArray[np.int64]
    before: NDArray[np.int8]
    after: NDArray[np.int8]

    @classmethod
    def between(
        cls,
        before: NDArray[np.int8] | None,
        after: NDArray[np.int8] | None,
        slices: Iterable[int] | None = None,
    ) -> Correction:
        """Compare all corrections before and after a step.

        Parameters
        ----------
        before, after : ndarray of int8, (S, P, L), or None
            As in `FindingSettings.edits`; None is no correction.
        slices : iterable of int, optional
            Where they differ; all slices are compared if not given.
        """
        known = before if before is not None else after
        if known is None:
            nothing = np.zeros(0, dtype=np.int8)
            return cls(np.zeros(0, dtype=np.int64), nothing, nothing)
        size = known[0].size
        zero = np.zeros(size, dtype=np.int8)
        parts: list[tuple[NDArray[Any], ...]] = []
        for number in range(len(known)) if slices is None else slices:
            was = zero if before is None else before[number].ravel()
            now = zero if after is None else after[number].ravel()
            where = np.flatnonzero(was != now)
            parts.append((where + number * size, was[where], now[where]))
        return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def undone(self, edits: NDArray[np.int8] | None, shape: tuple[int, ...]) -> Any:
        """Return all corrections without this one."""
        return self._with(self.before, edits, shape)

    def redone(self, edits: NDArray[np.int8] | None, shape: tuple[int, ...]) -> Any:
        """Return all corrections with this one again."""
        return self._with(self.after, edits, shape)

    def _with(
        self, values: NDArray[np.int8], edits: NDArray[np.int8] | None, shape: tuple[int, ...]
    ) -> NDArray[np.int8] | None:
        made = np.zeros(shape, dtype=np.int8) if edits is None else edits.copy()
        made.ravel()[self.voxels] = values
        return made if made.any() else None


@dataclass(frozen=True, eq=False)
class _State:
    """What the reader has judged so far, and the step that led here."""

    step: str
    judgements: tuple[Judgement, ...]
    correction: Correction | None = None


# Labels, the judgements matched with them, and which holds for each label.
_Matched = tuple[NDArray[np.uint8], tuple[Judgement, ...], dict[int, Judgement]]


class Review:
    """The judgements on the findings of one scan, with undo and redo.

    Corrections of voxels are kept in `FindingSettings.edits`; here they are steps among the others,
    so that undo takes back whatever was done last.

    Parameters
    ----------
    judgements : sequence of Judgement
        The first state.
    """

    def __init__(self, judgements: Sequence[Judgement] = ()) -> None:
        self._states = [_State("", tuple(judgements))]
        self._now = 0
        self._matched: _Matched | None = None

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """All judgements, also on regions that are no finding now; the latest last."""
        return self._states[self._now].judgements

    def of(self, labels: NDArray[np.uint8], findings: Sequence[Finding]) -> dict[int, Judgement]:
        """Return the judgement that holds for each finding.

        Parameters
        ----------
        labels : ndarray of uint8, (S, P, L)
            The findings' voxels. They must not be changed in place later.
        findings : sequence of Finding
            One for each label.

        Returns
        -------
        dict
            By label; findings without a judgement are left out.
        """
        known = self._matched
        if known is None or known[0] is not labels or known[1] is not self.judgements:
            known = self._matched = (labels, self.judgements, self._match(labels, findings))
        return known[2]

    def _match(
        self, labels: NDArray[np.uint8], findings: Sequence[Finding]
    ) -> dict[int, Judgement]:
        flat = labels.ravel()
        sizes = {finding.label: finding.voxels for finding in findings}
        best: dict[int, float] = {}
        found: dict[int, Judgement] = {}
        for judgement in self.judgements:
            covered = np.bincount(flat[judgement.voxels])
            for label in (np.flatnonzero(covered[1:]) + 1).tolist():
                share = covered[label] / sizes[label]
                # Of two that cover the same, the later one counts.
                if share >= max(_COVERED, best.get(label, 0.0)):
                    best[label] = share
                    found[label] = judgement
        return found

    def judge(
        self,
        labels: NDArray[np.uint8],
        findings: Sequence[Finding],
        label: int,
        decision: Decision | None = None,
        note: str | None = None,
    ) -> bool:
        """Decide on a finding, or note something on it; return whether anything changed.

        Parameters
        ----------
        labels, findings
            As in `of`.
        label : int
            The finding.
        decision : {"open", "accepted", "rejected"}, optional
            The decision so far stays if not given.
        note : str, optional
            The note so far stays if not given.
        """
        before = self.of(labels, findings).get(label)
        was: Decision = "open" if before is None else before.decision
        words = "" if before is None else before.note
        if decision in (None, was) and note in (None, words):
            return False
        finding = next(one for one in findings if one.label == label)
        made = Judgement(decision or was, words if note is None else note, _runs(labels, finding))
        # Judgements on parts of this region are overruled by it.
        inside = np.zeros(labels.size, dtype=bool)
        inside[made.voxels] = True
        kept = [one for one in self.judgements if not inside[one.voxels].all()]
        what = "note on" if decision in (None, was) else _VERBS[made.decision]
        self._add(_State(f"{what} finding {label}", (*kept, made)))
        return True

    def correct(self, correction: Correction, step: str) -> None:
        """Keep a correction as a step, named as in "brush stroke"."""
        if len(correction.voxels):
            self._add(_State(step, self.judgements, correction))

    def _add(self, state: _State) -> None:
        self._states[self._now + 1 :] = [state]
        self._now += 1

    # Undo ---------------------------------------------------------------------------------

    @property
    def undo_text(self) -> str:
        """The step that `undo` takes back, such as "reject finding 2"; empty if there is none."""
        return self._states[self._now].step

    @property
    def redo_text(self) -> str:
        """The step that `redo` repeats; empty if there is none."""
        after = self._now + 1
        return self._states[after].step if after < len(self._states) else ""

    def undo(self) -> Correction | None:
        """Take back the last step, if there is one; return what it corrected."""
        if not self._now:
            return None
        correction = self._states[self._now].correction
        self._now -= 1
        return correction

    def redo(self) -> Correction | None:
        """Repeat the step taken back last, if there is one; return what it corrects."""
        if self._now + 1 == len(self._states):
            return None
        self._now += 1
        return self._states[self._now].correction


_VERBS: dict[Decision, str] = {"open": "reopen", "accepted": "accept", "rejected": "reject"}


def _runs(labels: NDArray[np.uint8], finding: Finding) -> NDArray[np.int64]:
    """Return start and length of the runs of a finding's voxels in the flat grid."""
    part = slice(finding.first_slice, finding.last_slice + 1)
    flat = np.flatnonzero(labels[part].ravel() == finding.label).astype(np.int64)
    flat += part.start * labels[0].size
    breaks = np.flatnonzero(np.diff(flat) != 1)
    first = flat[np.r_[0, breaks + 1]]
    last = flat[np.r_[breaks, flat.size - 1]]
    return np.stack([first, last - first + 1], axis=1)
