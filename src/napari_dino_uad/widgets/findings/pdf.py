"""The report as one page of PDF, printed by Qt from the same HTML."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QMarginsF, QSizeF
from qtpy.QtGui import QPageLayout, QPageSize, QPainter, QPdfWriter, QTextDocument

from napari_dino_uad.core.storage.atomic import staged, writing

__all__ = ["write_pdf"]

_DPI = 96
_MARGIN_MM = 16.0


def write_pdf(path: Path, html: str) -> None:
    """Print an HTML page on one sheet of A4; a longer one is made smaller. May run in a thread.

    Parameters
    ----------
    path : Path
        File to write.
    html : str
        From `render_report`, as it is printed.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with writing(path), staged(path.parent) as partial:
        writer = QPdfWriter(str(partial / path.name))
        writer.setResolution(_DPI)
        writer.setTitle("Anomaly report")
        writer.setCreator("napari-dino-uad")
        writer.setPageSize(QPageSize(QPageSize.PageSizeId.A4))
        margins = QMarginsF(_MARGIN_MM, _MARGIN_MM, _MARGIN_MM, _MARGIN_MM)
        writer.setPageMargins(margins, QPageLayout.Unit.Millimeter)
        width, height = float(writer.width()), float(writer.height())
        document = QTextDocument()
        document.setDocumentMargin(0)
        document.setHtml(html)
        document.setPageSize(QSizeF())
        document.setTextWidth(width)
        scale = min(1.0, height / max(1.0, document.size().height()))
        if scale < 1:
            # Wider lines are fewer, so the page fills up again.
            document.setTextWidth(width / scale)
            scale = min(scale, height / document.size().height())
        painter = QPainter(writer)
        painter.scale(scale, scale)
        document.drawContents(painter)
        painter.end()
