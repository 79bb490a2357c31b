"""Model files are believed only after validation: one sentence, or the same result."""

from __future__ import annotations

import json

import pytest
import torch
from mutated_models import (
    HEADER,
    KINDS,
    Content,
    header_mutations,
    outcome,
    results,
    tensor_mutations,
    tiny_model,
)
from safetensors.torch import save

from napari_dino_uad import load_model, save_model
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.model_file import FORMAT_VERSION

# Of every kind of model so many spoilt files are tried, evenly among all; the first of them
# differs from kind to kind, so that together they try most fields.
TRIED = 40


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A sound file of each kind, what it holds and what comes of it."""
    made = {}

    def get(kind):
        if kind not in made:
            path = tmp_path_factory.mktemp(kind) / "model.safetensors"
            save_model(tiny_model(kind), path)
            made[kind] = path, Content.of(path), results(load_model(path))
        return made[kind]

    return get


def refused(path) -> str:
    with pytest.raises(InputError) as refusal:
        load_model(path)
    told = str(refusal.value)
    assert path.name in told
    assert "\n" not in told
    assert told.endswith(".")
    return told


def with_text(path, text: str):
    """Write a model file whose header is some text."""
    path.write_bytes(save({"a": torch.zeros(1)}, {HEADER: text}))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_files_are_refused_or_change_nothing(kind, saved, tmp_path):
    _, content, expected = saved(kind)
    path = tmp_path / "spoilt.safetensors"
    wrong = []
    for mutations in (header_mutations(content), tensor_mutations(content)):
        every = [one for one in mutations if not one.may_differ]
        step = max(1, len(every) // (TRIED // 2))
        for number, one in enumerate(every[list(KINDS).index(kind) % step :: step]):
            one.content.write(path, ("not", "anew")[number % 2])
            what = outcome(path, expected)
            if what not in ("refused", "same"):
                wrong.append((one.name, what))
    assert not wrong


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_format_3_give_the_same_scores(kind, saved, tmp_path):
    _, content, expected = saved(kind)
    old = tmp_path / "old.safetensors"
    content.write(old, "not")
    assert "checksum" not in Content.of(old).header
    assert outcome(old, expected) == "same"


def test_changes_are_told_by_the_checksum(saved, tmp_path):
    _, content, expected = saved("diag")
    path = tmp_path / "changed.safetensors"
    for kind in ("means", "header"):
        tensors = {name: one.clone() for name, one in content.tensors.items()}
        header = json.loads(json.dumps(content.header))
        if kind == "means":
            tensors["views.0.means"][0, 0] += 1
        else:
            header["cohort"]["date"] = "2026-02-01"
        changed = Content(header, tensors)
        changed.write(path)
        assert "is damaged: it is not as it was saved" in refused(path)
    # An edit whose checksum was made anew is another sound file.
    changed.write(path, "anew")
    assert outcome(path, expected) == "same"
    assert load_model(path).cohort["date"] == "2026-02-01"


def test_every_flipped_bit_is_refused(saved, tmp_path):
    sound, _, expected = saved("vmf")
    whole = sound.read_bytes()
    path = tmp_path / "flipped.safetensors"
    for place in range(0, len(whole), len(whole) // 100):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert outcome(path, expected) == "refused", place


def test_an_edit_is_told_by_the_field_that_is_wrong(saved, tmp_path):
    _, content, _ = saved("bank")
    path = tmp_path / "edited.safetensors"
    for where, value, told in (
        (("views", 1, "config", "patches"), "many", "views.1.config.patches: expected a valid int"),
        (("views", 0, "config", "surplus"), 1, "views.0.config.surplus is unknown"),
        (("maps", "smoothing_mm"), -1.0, "maps: The smoothing must be 0 to 1000 mm"),
        (("views", 0, "scale", "deviation"), 0.0, "views.0.scale: The deviation of healthy"),
        (("backbone", "key"), "dino9", "backbone: There is no backbone 'dino9'"),
        (("method",), "magic", "method: expected 'dpmm', 'ar', 'memory-bank', 'fusion' or 'mean'"),
    ):
        header = json.loads(json.dumps(content.header))
        place = header
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value
        Content(header, content.tensors).write(path, "anew")
        sentence = refused(path)
        assert "does not describe a model" in sentence
        assert told in sentence


def test_a_tensor_that_is_wrong_is_named(saved, tmp_path):
    _, content, _ = saved("diag")
    path = tmp_path / "edited.safetensors"
    for name, tensor, told in (
        ("views.0.means", torch.zeros(3, 16).half(), "has the shape (3, 16), expected (2, 16)"),
        ("views.0.origin", torch.full((16,), torch.nan), "holds values that are not finite"),
        ("views.0.deviations", torch.zeros(2, 16).half(), "expected above 0"),
        ("prototypes.0", torch.ones(5, 16).half(), "has rows that are not of length 1"),
        ("levels.scores", torch.zeros(7), "is of float32, expected float64"),
    ):
        rows = len(content.tensors["views.0.log_weights"])
        Content(content.header, content.tensors | {name: tensor}).write(path, "anew")
        told = told.replace("(2, 16)", f"({rows}, 16)")
        if name == "views.0.deviations" and rows != 2:
            Content(content.header, content.tensors | {name: torch.zeros(rows, 16).half()}).write(
                path, "anew"
            )
        sentence = refused(path)
        assert f"the tensor {name} " in sentence
        assert told in sentence


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"format_version": 5, "a": 1, "a": 2}', "names 'a' twice"),
        ('{"format_version": 5, "a": NaN}', "holds NaN"),
        ('{"format_version": 5, "a": -Infinity}', "holds -Infinity"),
        ('{"format_version": 5, "a": 1e999}', "too large"),
        ('{"format_version": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format_version": 5, "a": "\\ud800"}', "its text is not in UTF-8"),
        ('{"format_version": 4', "is not JSON"),
        (" " * 5_000_000, "its header would have 5,000"),
        ('{"format_version": "4"}', "expected a whole number"),
        ("[]", "expected a whole number"),
        ('{"format_version": 8}', "newer version"),
        ('{"format_version": 2}', "before the first release"),
        ('{"format_version": 5}', "has a checksum"),
        ('{"format_version": 3, "checksum": "x"}', "has no checksum"),
    ],
    ids=range(15),
)
def test_a_header_that_is_no_sound_json_is_refused(text, told, tmp_path):
    assert told in refused(with_text(tmp_path / "header.safetensors", text))


def test_a_file_that_is_no_sound_safetensors_is_refused(saved, tmp_path):
    whole = saved("diag")[0].read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, body = whole[8 : 8 + length], whole[8 + length :]
    path = tmp_path / "other.safetensors"

    def told_of(head: bytes, rest: bytes = body) -> str:
        path.write_bytes(len(head).to_bytes(8, "little") + head + rest)
        return refused(path)

    def with_(**changes) -> bytes:
        described = json.loads(header)
        described["views.0.means"].update(changes)
        return json.dumps(described).encode()

    assert "twice" in told_of(header.replace(b"views.0.means", b"views.0.origin"))
    assert "not in UTF-8" in told_of(header.replace(b"views.0.means", b"views.0.mean\xff"))
    assert "needs" in told_of(with_(shape=[2**62, 2**62]))
    assert "shape and offsets" in told_of(with_(shape=[-1, 3]))
    assert "dtype" in told_of(with_(dtype="F8_E4M3"))
    origin = json.loads(header)["views.0.origin"]
    overlapping = with_(**{key: origin[key] for key in ("dtype", "shape", "data_offsets")})
    assert "does not begin where the one before ends" in told_of(overlapping)
    assert "bytes" in told_of(header, body + b"1")
    assert "bytes" in told_of(header, body[:-1])
    path.write_bytes(whole[:5])
    assert "cut off" in refused(path)


def test_where_tensors_begin_in_the_file_changes_no_score(saved, tmp_path):
    _, content, expected = saved("full")
    path = tmp_path / "shifted.safetensors"
    header = json.dumps(Content.of(saved("full")[0]).header)
    for pad in range(1, 9):
        path.write_bytes(save(content.tensors, {HEADER: header, "pad": "x" * pad}))
        assert outcome(path, expected) == "same"


def test_a_model_that_would_not_load_is_not_saved(tmp_path):
    model = tiny_model("bank")
    model.normative.bank_[0] = torch.nan
    with pytest.raises(InputError, match=r"cannot be saved.*the tensor views.0.bank"):
        save_model(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_new_files_have_a_checksum(saved):
    header = saved("diag")[1].header
    assert header["format_version"] == FORMAT_VERSION == 7
    assert header["checksum"].startswith("sha256:")


def test_models_from_before_the_limit_of_the_level_score_as_they_did(saved, tmp_path):
    _, content, _ = saved("diag")
    path = tmp_path / "old.safetensors"
    header = json.loads(json.dumps(content.header))
    header["format_version"] = 6
    del header["maps"]["level_limit"]
    Content(header, content.tensors).write(path, "anew")
    assert load_model(path).maps.level_limit == 0
    # A file of today says what it wants; None is the default where brightness is compared.
    assert content.header["maps"]["level_limit"] is None


def test_models_that_compare_brightness_by_the_old_formula_are_refused(saved, tmp_path):
    _, content, expected = saved("diag")
    path = tmp_path / "old.safetensors"
    header = json.loads(json.dumps(content.header))
    header["format_version"] = 5
    Content(header, content.tensors).write(path, "anew")
    assert all(view["scale"]["brightness"] == 0 for view in header["views"])
    assert outcome(path, expected) == "same"
    for view in header["views"]:
        view["scale"] |= {"brightness": 1.2, "symmetry": 0.25}
    Content(header, content.tensors).write(path, "anew")
    assert "thresholds would not hold any more" in refused(path)
