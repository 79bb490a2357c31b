"""The grid of one volume of an NRRD file, of whatever axes and units its header has."""

from __future__ import annotations

import re

from napari_dino_uad.core.limits import FARTHEST_MM
from napari_dino_uad.core.scans.files.text_header import bad_header, mm_of_unit, numbers

__all__ = ["NrrdGrid"]

_WORDS = re.compile(r"[A-Za-z0-9 .?_-]*")
_VECTOR = re.compile(r"none|\(([^()]*)\)")
_QUOTED = re.compile(r'"([^"]*)"|(\S+)')


class NrrdGrid:
    """Writes a header of the grid of one volume in mm, of bytes that SimpleITK does not read."""

    def __init__(
        self,
        name: str,
        fields: dict[str, str],
        sizes: list[int],
        others: tuple[int | None, ...],
    ) -> None:
        self._name, self._fields, self._sizes = name, fields, sizes
        self._axes = [axis for axis in range(len(sizes)) if axis not in others]

    def text(self) -> str:
        """Return the header."""
        fields, name = self._fields, self._name
        lines = [
            "NRRD0005",
            "type: uchar",
            f"dimension: {len(self._axes)}",
            f"sizes: {' '.join(str(self._sizes[axis]) for axis in self._axes)}",
            "encoding: raw",
        ]
        for key in ("space", "space dimension"):
            if key in fields:
                # Time, where it is a fourth dimension of space, is the axis that is left out.
                text = _words(name, key, fields[key])
                lines.append(f"{key}: {text.removesuffix('-time').replace('4', '3')}")
        units = self._units("units", len(self._sizes))
        for key in ("spacings", "axis mins", "axis maxs"):
            if key in fields:
                values = [_number(name, key, word) for word in fields[key].split()]
                self._check(key, [value != "nan" for value in values])
                kept = [repr(float(values[axis]) * units[axis]) for axis in self._axes]
                lines.append(f"{key}: {' '.join(kept)}")
        if "centers" in fields:
            words = _words(name, "centers", fields["centers"]).split()
            if len(words) != len(self._sizes):
                raise bad_header(name, f"'centers': {fields['centers']!r}")
            lines.append(f"centers: {' '.join(words[axis] for axis in self._axes)}")
        if "space directions" in fields:
            vectors = self._vectors("space directions", len(self._sizes))
            self._check("space directions", [vector != "none" for vector in vectors])
            lines.append(f"space directions: {' '.join(vectors[axis] for axis in self._axes)}")
        if "space origin" in fields:
            (origin,) = self._vectors("space origin", 1)
            lines.append(f"space origin: {origin}")
        return "\n".join([*lines, "", ""])

    def _units(self, key: str, count: int) -> list[float]:
        """Return the millimetres of the unit of each axis, or each dimension of space."""
        if key not in self._fields:
            return [1.0] * count
        words = [one[0] or one[1] for one in _QUOTED.findall(self._fields[key])]
        spatial = range(count) if key == "space units" else self._axes
        if len(words) < count:
            raise bad_header(self._name, f"{key!r}: {self._fields[key]!r}")
        # The fourth dimension of space is time, in seconds.
        used = {axis for axis in spatial if axis < 3 or key == "units"}
        return [
            mm_of_unit(self._name, words[axis]) if axis in used else 1.0 for axis in range(count)
        ]

    def _check(self, key: str, present: list[bool]) -> None:
        """Refuse a field that has nothing for an axis in space, which would count as 1 mm."""
        if len(present) != len(self._sizes) or not all(present[axis] for axis in self._axes):
            raise bad_header(self._name, f"{key!r}: {self._fields[key]!r}")

    def _vectors(self, key: str, count: int) -> list[str]:
        """Read vectors such as (1,0,0) in mm, or none for an axis that does not lie in space."""
        out: list[str] = []
        name, text = self._name, self._fields[key]
        rest = text.strip()
        while rest and len(out) <= count:
            found = _VECTOR.match(rest)
            if found is None:
                raise bad_header(name, f"{key!r}: {text!r}")
            rest = rest[found.end() :].lstrip()
            if found[0] == "none":
                out.append("none")
                continue
            parts = found[1].split(",")
            values = numbers(name, key, " ".join(parts), len(parts))
            if not 2 <= len(values) <= 4:
                raise bad_header(name, f"{key!r}: {text!r}")
            units = self._units("space units", len(values))
            scaled = [value * unit for value, unit in zip(values, units, strict=True)]
            if not all(abs(one) <= FARTHEST_MM for one in scaled):
                raise bad_header(name, f"{key!r}: {text!r}")
            out.append(f"({','.join(map(repr, scaled[:3]))})")
        if len(out) != count:
            raise bad_header(name, f"{key!r}: {text!r}")
        return out


def _words(name: str, key: str, text: str) -> str:
    if not _WORDS.fullmatch(text):
        raise bad_header(name, f"{key!r}: {text!r}")
    return text


def _number(name: str, key: str, word: str) -> str:
    """Check a number of one axis; NaN stands for none."""
    return "nan" if word.lower() == "nan" else repr(numbers(name, key, word, 1)[0])
