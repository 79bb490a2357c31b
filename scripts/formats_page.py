"""Write docs/formats.md: what opens, what is offered and what is refused, from a list of cases."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))


def main() -> None:
    from format_cases import page

    with tempfile.TemporaryDirectory() as folder:
        text = page(Path(folder))
    (ROOT / "docs" / "formats.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
