"""Nothing that is read is run: every call that could do so is found in the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import napari_dino_uad

PACKAGE = Path(napari_dino_uad.__file__).parent
# Calls that run what they read, or may.
RUNNING = {
    "eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open", "dill.load", "dill.loads",
    "joblib.load", "cloudpickle.load", "cloudpickle.loads", "yaml.load", "yaml.unsafe_load",
    "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "pandas.read_pickle",
}  # fmt: skip
# What a process of a crew is given by the process that started it.
OWN = {("core/crew.py", "pickle.loads")}
# Calls that are safe with one argument only.
GUARDED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
# Modules that may reach another machine, and what they do it for.
NETWORK = {
    "core/backbones/hub.py": "the weights of a backbone, when they are asked for",
    "core/crew.py": "a Dask scheduler whose address the user gives",
}
LIBRARIES = {
    "socket", "ssl", "http", "urllib", "urllib3", "ftplib", "smtplib", "requests", "httpx",
    "aiohttp", "huggingface_hub", "distributed", "dask", "pooch",
}  # fmt: skip


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield f"{name}:{node.lineno}", ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> object:
    found = [one.value for one in call.keywords if one.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


def test_the_source_is_searched():
    assert len(list(trees())) > 200
    assert any(function == "torch.load" for _, function, _ in calls())


def test_nothing_that_is_read_is_run():
    # `re.compile` and the like are other functions.
    found = {(place, function) for place, function, _ in calls() if function in RUNNING}
    assert {(place.partition(":")[0], function) for place, function in found} == OWN, found


def test_loaders_of_pickles_take_plain_data_only():
    for place, function, call in calls():
        if function in GUARDED:
            name, value = GUARDED[function]
            assert keyword(call, name) is value, f"{place}: {function} without {name}={value}"


def test_no_shell_is_started():
    for place, _, call in calls():
        assert keyword(call, "shell") is not True, place


def test_archives_are_not_unpacked_as_they_say():
    for place, function, _ in calls():
        assert not function.endswith((".extractall", ".unpack_archive")), place


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_only_two_modules_can_reach_another_machine():
    found = {name for name, tree in trees() if imported(tree) & LIBRARIES}
    assert found == set(NETWORK)
