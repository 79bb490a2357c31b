"""What an installation brings: all of it is locked, and under licences that are listed."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from licences_page import GROUPS, PAGE, installed, is_known, licence, page  # noqa: E402

sys.path.pop(0)
LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")


def locked() -> dict[str, str]:
    lines = (ROOT / "lock.txt").read_text(encoding="utf-8").splitlines()
    pairs = [LINE.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(pairs), "every line of lock.txt is name==version"
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs if pair}


def is_the_locked_environment() -> bool:
    """Whether this environment is what make installs: not that of make test-lowest, for one."""
    here = {canonicalize_name(one.metadata["Name"]): one.version for one in distributions()}
    wanted = locked()
    return all(here.get(name) == wanted.get(name) for name in ("torch", "napari", "numpy", "pyqt6"))


needs_the_lock = pytest.mark.skipif(
    not is_the_locked_environment(), reason="needs the versions of lock.txt, as make installs them"
)


@needs_the_lock
def test_all_that_is_installed_is_locked():
    wanted = locked()
    needed = {name: one.version for extra in GROUPS for name, one in installed(extra).items()}
    assert len(needed) > 100
    assert {name: wanted.get(name) for name in needed} == needed, "run make lock"


@pytest.mark.parametrize("extra", GROUPS)
def test_licences_are_of_a_kind_that_is_listed(extra):
    terms = {name: licence(one) for name, one in installed(extra).items()}
    assert {name: one for name, one in terms.items() if not is_known(name, one)} == {}


def test_only_qt_is_under_the_gpl():
    for extra in GROUPS:
        for name, one in installed(extra).items():
            copyleft = re.search(r"(?<!L)GPL", licence(one))
            assert not copyleft or name in ("pyqt5", "pyqt6"), name
            # Nobody gets it who did not ask for it.
            assert not copyleft or extra == name


@needs_the_lock
def test_the_page_of_licences_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python scripts/licences_page.py"
