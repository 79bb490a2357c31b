"""Give the README absolute addresses, as package indexes and the napari hub need them.

    python scripts/release_readme.py OWNER/NAME v1.2.3

The release workflow runs it before it builds: in the repository, addresses stay relative, so that
they are right in every fork and at every commit.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")


def absolute(text: str, repository: str, version: str) -> str:
    """Return a page whose links and pictures lead to a version of a repository on GitHub."""

    def place(found: re.Match[str]) -> str:
        picture, words, path = found.groups()
        host = "https://raw.githubusercontent.com" if picture else "https://github.com"
        kind = "" if picture else "/blob"
        return f"{picture}[{words}]({host}/{repository}{kind}/{version}/{path})"

    return _LINK.sub(place, text)


def with_urls(text: str, repository: str) -> str:
    """Return pyproject.toml with the addresses of the project."""
    home = f"https://github.com/{repository}"
    urls = {
        "Homepage": home,
        "Source": home,
        "Issues": f"{home}/issues",
        "Changelog": f"{home}/blob/main/CHANGELOG.md",
    }
    lines = ["[project.urls]", *(f'{name} = "{url}"' for name, url in urls.items())]
    before, after = text.split("[project.scripts]", 1)
    return f"{before}{chr(10).join(lines)}\n\n[project.scripts]{after}"


def main(repository: str, version: str) -> None:
    readme, project = ROOT / "README.md", ROOT / "pyproject.toml"
    text = absolute(readme.read_text(encoding="utf-8"), repository, version)
    readme.write_text(text, encoding="utf-8")
    text = with_urls(project.read_text(encoding="utf-8"), repository)
    project.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
