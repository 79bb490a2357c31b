"""The page of the docs on what opens says what happens."""

from __future__ import annotations

from pathlib import Path

from format_cases import CASES, page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "formats.md"


def test_the_page_of_formats_is_up_to_date(tmp_path):
    text = page(tmp_path)
    assert PAGE.read_text(encoding="utf-8") == text, "run python scripts/formats_page.py"
    assert text.count("\n| ") == len(CASES) + 2
