"""The direction of imports: each wing of the core imports only wings below it."""

from __future__ import annotations

import ast
import gc
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
CORE = SOURCE / "napari_dino_uad" / "core"

#: From the ground up. A wing imports itself and the wings above it in this table, no others.
WINGS = {
    "ground": "errors crew limits memory metrics precision progress pipeline calibration storage",
    "scans": "a file or folder becomes a Volume, and back",
    "slices": "a Volume becomes network input",
    "backbones": "networks, their weights, and the engines that run them",
    "features": "embeddings through the cache",
    "normative": "what is normal: DPMM, AR, memory bank, fusion",
    "maps": "patch scores become a calibrated map and findings",
    "model": "a fitted model, and its file",
    "pipelines": "detect explain fit evaluate evaluation results dicom_export report saved_review",
    "bench": "benchmarks over a data set",
}
ORDER = list(WINGS)
_GROUND = WINGS["ground"].split()
_PIPELINES = WINGS["pipelines"].split()
_MODEL = ("model", "model_file", "model_schema")


def wing_of(module: str) -> str:
    """Return the wing of a module named from the core down, such as `scans.volume`."""
    first = module.split(".")[0]
    named = (
        ("ground", _GROUND),
        ("scans", ("volume",)),  # an earlier name
        ("pipelines", _PIPELINES),
        ("model", _MODEL),
    )
    for wing, members in named:
        if first in members:
            return wing
    return first


def parse(path: Path) -> ast.Module:
    """Parse a file, without the garbage collector: Python 3.11 fails if it runs meanwhile."""
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()


def imports_of(path: Path) -> set[str]:
    """Return the core's modules that a file imports, anywhere in it, named from the core down."""
    prefix = "napari_dino_uad.core"
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix(f"{prefix}.") for name in found if name.startswith(f"{prefix}.")}


MODULES = [path for path in sorted(CORE.rglob("*.py")) if path != CORE / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CORE)))
def test_a_wing_imports_only_wings_below_it(path):
    own = wing_of(".".join(path.relative_to(CORE).with_suffix("").parts))
    assert own in ORDER, f"add {path.name} to a wing"
    allowed = ORDER[: ORDER.index(own) + 1]
    wrong = {name for name in imports_of(path) if wing_of(name) not in allowed}
    assert not wrong


def test_every_wing_is_there():
    assert {wing_of(".".join(path.relative_to(CORE).parts)) for path in MODULES} >= set(ORDER) - {
        "ground",
        "model",
        "pipelines",
    }
