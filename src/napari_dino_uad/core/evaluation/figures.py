"""Curves of one or several evaluations as SVG, PNG and CSV."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.metrics import PRO_LIMIT
from napari_dino_uad.core.storage.atomic import csv_text, staged

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FIGURES", "Figure", "curve_svg", "figures_of", "save_curves"]

#: Title, axes and columns of each curve; those of "froc" are of whole lesions.
FIGURES = {
    "roc": ("ROC", "false-positive rate", "fpr", "sensitivity", "tpr"),
    "pr": ("Precision and recall", "recall", "recall", "precision", "precision"),
    "pro": ("Overlap of regions", "false-positive rate", "fpr", "mean overlap", "pro"),
    "froc": ("FROC", "false findings a scan", "false_findings", "lesions met", "sensitivity"),
}

# Apart for colour-blind eyes (Okabe and Ito), dark enough on white.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_WIDTH, _HEIGHT = 340, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 28, 44
_TICKS = 5
# Of a picture, for sharp lines on dense screens.
_SCALE = 3


@dataclass(frozen=True)
class Figure:
    """One plot.

    Attributes
    ----------
    title, across, up : str
        Title and names of the axes.
    widest : float
        End of the horizontal axis; both axes begin at 0, and the vertical one ends at 1.
    lines : list of (str, list of (float, float))
        Name and points of each curve.
    """

    title: str
    across: str
    up: str
    widest: float
    lines: list[tuple[str, list[tuple[float, float]]]]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point is drawn."""
        return (
            _LEFT + min(x / self.widest, 1.0) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - y * (_HEIGHT - _TOP - _BOTTOM),
        )

    def ticks(self) -> Iterator[tuple[str, tuple[float, float], str, tuple[float, float]]]:
        """Go through the ticks: text and place on the horizontal, and on the vertical axis."""
        for number in range(_TICKS + 1):
            share = number / _TICKS
            yield (
                f"{self.widest * share:.3g}",
                self.place(self.widest * share, 0),
                f"{share:.1f}",
                self.place(0, share),
            )

    @property
    def legend(self) -> bool:
        """Whether the curves need names."""
        return len(self.lines) > 1


def figures_of(curves: Mapping[str, Mapping[str, Any]], convention: str) -> dict[str, Figure]:
    """Make the figures of evaluations, each curve once for each.

    Parameters
    ----------
    curves : mapping of str to mapping
        `Evaluation.curves` by the name of the evaluation.
    convention : {"tissue", "all"}
        Which pixels count.

    Returns
    -------
    dict of str to Figure
        By the keys of `FIGURES`; without curves that no evaluation has.
    """
    out = {}
    for key, (title, across, x, up, y) in FIGURES.items():
        lines = []
        for name, found in curves.items():
            curve = found.get(key) if key == "froc" else found.get(convention, {}).get(key)
            if curve:
                lines.append((name, _points(key, curve[x], curve[y])))
        if lines:
            widest = 1.0
            if key == "froc":
                widest = _round_end(max(point[0] for _, line in lines for point in line))
            if key == "pro":
                widest = PRO_LIMIT
            scope = "" if key == "froc" else f", over {convention}"
            out[key] = Figure(f"{title}{scope}", across, up, widest, lines)
    return out


def _round_end(value: float) -> float:
    """Return the end of an axis whose ticks are round numbers."""
    return _TICKS * next(
        (step for step in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if step * _TICKS >= value), 200.0
    )


def _points(key: str, across: Sequence[float], up: Sequence[float]) -> list[tuple[float, float]]:
    """Return the points of a curve from left to right, with the ends that counts leave out."""
    points = list(zip(across, up, strict=True))
    if key in ("roc", "pro"):
        return [(0.0, 0.0), *points, (1.0, 1.0)] if key == "roc" else [(0.0, 0.0), *points]
    return points


def curve_svg(figure: Figure) -> str:
    """Draw a figure as an SVG element."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="17" font-size="13" font-weight="bold">'
        f"{html.escape(figure.title)}</text>",
    ]
    for across, (x, bottom), up, (left, y) in figure.ticks():
        right, top = figure.place(figure.widest, 1)
        parts += [
            f'<path d="M{x:.1f} {bottom:.1f}V{top:.1f}M{left:.1f} {y:.1f}H{right:.1f}" '
            'stroke="#e2e2e2" fill="none"/>',
            f'<text x="{x:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">{across}</text>',
            f'<text x="{left - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{up}</text>',
        ]
    for number, (name, points) in enumerate(figure.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in _drawn(figure, points))
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if figure.legend:
            x, y = _legend_place(figure, number)
            parts.append(f'<text x="{x}" y="{y}" fill="{colour}">{html.escape(name)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts += [
        f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{figure.across}</text>',
        f'<text transform="translate(14 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{figure.up}</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def _drawn(figure: Figure, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return where the points inside the axes are drawn; at least two."""
    inside = [point for point in points if point[0] <= figure.widest] or points[:1]
    placed = [figure.place(*point) for point in inside]
    return placed if len(placed) > 1 else placed * 2


def _legend_place(figure: Figure, number: int) -> tuple[float, float]:
    """Return where a curve's name stands: in the corner that such curves leave free."""
    above = figure.title.startswith("Precision")
    start = _TOP + 16 if above else _HEIGHT - _BOTTOM - 8 - 15 * (len(figure.lines) - 1)
    return (_WIDTH - _RIGHT - 150, start + 15 * number)


def _picture(figure: Figure) -> Image:
    """Draw a figure as a picture."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), "white")
    draw = ImageDraw.Draw(picture)
    font, bold = (ImageFont.load_default(size * _SCALE) for size in (11, 13))

    def at(x: float, y: float) -> tuple[float, float]:
        return x * _SCALE, y * _SCALE

    draw.text(at(_LEFT, 5), figure.title, "black", bold)
    right, top = figure.place(figure.widest, 1)
    for across, (x, bottom), up, (left, y) in figure.ticks():
        draw.line([at(x, bottom), at(x, top)], "#e2e2e2", _SCALE)
        draw.line([at(left, y), at(right, y)], "#e2e2e2", _SCALE)
        draw.text(at(x, bottom + 4), across, "black", font, anchor="ma")
        draw.text(at(left - 5, y), up, "black", font, anchor="rm")
    for number, (name, points) in enumerate(figure.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        line = [at(*point) for point in _drawn(figure, points)]
        draw.line(line, colour, round(1.8 * _SCALE), joint="curve")
        if figure.legend:
            draw.text(at(*_legend_place(figure, number)), name, colour, font, anchor="ls")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    draw.text(at(middle, _HEIGHT - 22), figure.across, "black", font, anchor="ma")
    size = (_HEIGHT * _SCALE, 16 * _SCALE)
    label = Image.new("RGB", size, "white")
    at_middle = (size[0] - (_TOP + _HEIGHT - _BOTTOM) / 2 * _SCALE, 2 * _SCALE)
    ImageDraw.Draw(label).text(at_middle, figure.up, "black", font, anchor="ma")
    picture.paste(label.rotate(90, expand=True), (2 * _SCALE, 0))
    return picture


def save_curves(
    curves: Mapping[str, Mapping[str, Any]], folder: Path, convention: str = "tissue"
) -> list[Path]:
    """Write each curve as SVG, PNG and CSV.

    Parameters
    ----------
    curves : mapping of str to mapping
        `Evaluation.curves` by the name of the evaluation.
    folder : Path
        Created if needed.
    convention : {"tissue", "all"}
        Which pixels count.

    Returns
    -------
    list of Path
        ``roc_tissue.svg`` and so on; ``froc.svg``.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    paths = []
    with staged(folder) as partial:
        for key, figure in figures_of(curves, convention).items():
            stem = key if key == "froc" else f"{key}_{convention}"
            (partial / f"{stem}.svg").write_text(curve_svg(figure) + "\n", encoding="utf-8")
            _picture(figure).save(partial / f"{stem}.png", "PNG")
            _, _, x, _, y = FIGURES[key]
            rows = [
                {"evaluation": name, x: point[0], y: point[1]}
                for name, line in figure.lines
                for point in line
            ]
            text = csv_text(["evaluation", x, y], rows)
            (partial / f"{stem}.csv").write_text(text, encoding="utf-8", newline="")
            paths += [folder / f"{stem}{ending}" for ending in (".svg", ".png", ".csv")]
    return paths
