"""Tiny models of every method, made by code, and every way to spoil a field of their files."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save

from napari_dino_uad import load_model
from napari_dino_uad.core.backbones.layer_maps import LayerLayout
from napari_dino_uad.core.backbones.table import backbone_spec
from napari_dino_uad.core.calibration import Calibration
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.features.context import Context
from napari_dino_uad.core.features.feature_set import FeatureSet
from napari_dino_uad.core.maps.score_map import MapSettings, ScoreScale
from napari_dino_uad.core.model import FittedModel, View
from napari_dino_uad.core.model_file import FORMAT_VERSION
from napari_dino_uad.core.model_schema import checksum
from napari_dino_uad.core.normative.fusion import Fusion, FusionConfig
from napari_dino_uad.core.normative.methods import new_normative
from napari_dino_uad.core.slices.preprocessing import Preprocessing

KEY = "efficientnet-lite0@1"
CHANNELS = 16
GRID = (6, 7)
HEADER = "napari_dino_uad"
MIXTURE = {"components": 4, "epochs": 1, "prior_patches": 20.0}
NETWORK = {"components": 5, "hidden": 6, "epochs": 1, "dilations": (1, 2), "precision": "float32"}

# By name: the method, its settings, and the planes it looks at.
KINDS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "diag": ("dpmm", MIXTURE, ("axial",)),
    "spherical": ("dpmm", MIXTURE | {"covariance": "spherical", "score": "euclidean"}, ("axial",)),
    "full": ("dpmm", MIXTURE | {"covariance": "full", "score": "mahalanobis"}, ("axial",)),
    "vmf": ("dpmm", MIXTURE | {"covariance": "vmf", "score": "likelihood"}, ("axial",)),
    "placed": ("dpmm", MIXTURE | {"pca": 3, "position": 0.5, "score": "likelihood"}, ("axial",)),
    "ar": ("ar", NETWORK, ("axial",)),
    "ar-nll": (
        "ar",
        NETWORK
        | {"loss": "nll", "score": "nll", "mode": "bidirectional", "standardise": "channel"}
        | {"position": 1},
        ("axial",),
    ),
    "ar-full": ("ar", NETWORK | {"whitening": "full", "position_map": False}, ("axial",)),
    "bank": ("memory-bank", {"patches": 40}, ("axial", "sagittal")),
    "fusion": ("fusion", {}, ("axial",)),
}


def healthy(seed: int) -> FeatureSet:
    features = FeatureSet(Context(), (CHANNELS,))
    chance = np.random.default_rng(seed)
    for _ in range(2):
        grid = chance.normal(size=(4, CHANNELS, *GRID)).astype(np.float16)
        features.add(grid, np.ones((4, *GRID), dtype=bool))
    return features


def tiny_normative(method: str, settings: dict[str, Any]) -> Any:
    if method == "fusion":
        model = Fusion(FusionConfig(members=("memory-bank", "ar")))
        chance = np.random.default_rng(2)
        for name, own in (("memory-bank", {"patches": 40}), ("ar", NETWORK)):
            model.members_[name] = tiny_normative(name, own)
            model.calibrations_[name] = Calibration.from_scans([chance.gamma(2, size=2000)])
        return model
    model = new_normative(method, 0, settings)
    for _ in model.fit(healthy(0), healthy(1)):
        pass
    return model


def tiny_model(kind: str) -> FittedModel:
    """Fit a model on noise in a second or less."""
    method, settings, planes = KINDS[kind]
    chance = np.random.default_rng(3)
    generator = torch.Generator().manual_seed(4)
    views = tuple(
        View(
            Preprocessing(plane=plane),
            tiny_normative(method, settings),
            ScoreScale(0.2, 0.7)
            if plane == "sagittal"
            else ScoreScale(0.2, 0.7, 0.4, 0.3, symmetry=0.5),
            F.normalize(torch.randn(5, CHANNELS, generator=generator), dim=1),
        )
        for plane in planes
    )
    return FittedModel(
        views=views,
        backbone_key=KEY,
        backbone_sha256="0" * 64,
        context=Context(),
        maps=MapSettings(),
        calibration=Calibration.from_scans([chance.gamma(2, size=3000) for _ in range(2)]),
        levels=Calibration.from_scans([chance.uniform(size=200) for _ in range(2)], least=1),
        cohort={
            "scans": 3, "validation_scans": 2, "slices": 8, "validation_slices": 8,
            "date": "2026-01-31", "seed": 0, "engine": "torch cpu float32",
        },
        versions={"torch": "2.9", "numpy": "2.0"},
    )  # fmt: skip


# Files ---------------------------------------------------------------------------------------


@dataclass
class Content:
    """What a model file holds."""

    header: Any
    tensors: dict[str, torch.Tensor]

    @classmethod
    def of(cls, path: Path) -> Content:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[HEADER])
            return cls(header, {name: file.get_tensor(name) for name in file.keys()})

    def write(self, path: Path, checked: str = "as it was") -> None:
        """Write the file.

        `checked` is "as it was" for the checksum that the file had, "anew" for that of the
        content, and "not" for a file of format 3, which has none.
        """
        header = self.header
        if isinstance(header, dict) and checked != "as it was":
            header = {key: one for key, one in header.items() if key != "checksum"}
            if checked == "anew":
                header["checksum"] = checksum(header, self.tensors)
            elif header.get("format_version") == FORMAT_VERSION:
                header["format_version"] = 3
        path.write_bytes(save(self.tensors, {HEADER: json.dumps(header)}))


# Mutations -----------------------------------------------------------------------------------


@dataclass
class Mutation:
    """A spoilt file.

    `may_differ` marks what no schema can tell from another fitted model; a checksum can.
    """

    name: str
    content: Content
    may_differ: bool = False


def _places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if where:
        yield where
    items: Any = ()
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in items:
        yield from _places(one, (*where, key))


def _parent(header: Any, where: tuple[Any, ...]) -> Any:
    for key in where[:-1]:
        header = header[key]
    return header


# A score scale may have any mean, and a number of a cohort changes no score.
_OTHERS = [
    None, "x", "", True, 2.5, -1, -1e9, 1e308, 10**18, float("nan"), float("inf"), -float("inf"),
    [], {}, [1, "a"], {"a": 1}, "1", 10**30,
]  # fmt: skip
_ANY_NUMBER = {"mean", "mirror_mean"}
# What files of earlier formats lack.
_NEWER = {
    "root", "whitening_power", "held_out_share", "lesions", "level", "spread", "brightness",
    "brightness_deviation",
}  # fmt: skip
# A switch the other way round and nothing asked for are other settings, not spoilt ones.
_SETTINGS = {"centring", "neighbours", "shared_spread", "position_map", "foreground"}


def header_mutations(content: Content) -> Iterator[Mutation]:
    """Delete, retype and misname every field of the header."""
    for where in _places(content.header):
        name = ".".join(map(str, where))
        key = where[-1]
        own = _parent(content.header, where)[key]
        changed = copy.deepcopy(content.header)
        del _parent(changed, where)[key]
        # Layers without a dilation of their own take the last one, and files of earlier formats
        # lack some settings.
        lacking = "dilations." in name or key in _NEWER
        yield Mutation(f"{name} deleted", Content(changed, content.tensors), lacking)
        for other in _OTHERS:
            if type(other) is type(own) and other == own:
                continue
            if key in _SETTINGS and isinstance(other, bool):
                continue
            number = type(other) in (int, float) and abs(other) < 1e12
            in_range = number and (key in _ANY_NUMBER or (type(own) is float and other == 2.5))
            changed = copy.deepcopy(content.header)
            _parent(changed, where)[key] = other
            yield Mutation(f"{name} = {other!r}", Content(changed, content.tensors), in_range)
        if isinstance(own, dict):
            changed = copy.deepcopy(content.header)
            _parent(changed, where)[key]["surplus"] = 1
            yield Mutation(f"{name}.surplus", Content(changed, content.tensors))
        if isinstance(own, list) and own:
            changed = copy.deepcopy(content.header)
            _parent(changed, where)[key].append(own[0])
            yield Mutation(f"{name} longer", Content(changed, content.tensors))
    for whole in (None, [], {}, "x", 3, [content.header], {**content.header, "surplus": 1}):
        yield Mutation(f"header {str(whole)[:20]}", Content(whole, content.tensors))


# Tensors whose number of rows stands nowhere else in the file.
_FREE = (
    "bank",
    "prototypes.0",
    "prototypes.1",
    "history",
    "train_history",
    "position",
    "scan_rates",
)


def tensor_mutations(content: Content) -> Iterator[Mutation]:
    """Spoil every tensor: its name, shape, dtype and values."""

    def with_(**changes: Any) -> Content:
        tensors = {k: v for k, v in {**content.tensors, **changes}.items() if v is not None}
        return Content(content.header, tensors)

    for name, own in content.tensors.items():
        free = name.endswith(_FREE)
        yield Mutation(f"{name} missing", with_(**{name: None}))
        yield Mutation(f"{name} renamed", with_(**{name: None, name + "x": own}))
        yield Mutation(f"{name} surplus", with_(**{name + "x": own.clone()}))
        for what, changed in (
            ("shorter", own[:-1].contiguous()),
            ("longer", torch.cat([own, own[:1]])),
            ("emptied", own[:0].contiguous()),
            ("narrower", own[..., :-1].contiguous()),
            ("no columns", own[..., :0].contiguous()),
            ("with an axis", own[None].clone()),
            ("flat", own.flatten().clone() if own.ndim > 1 else own[0].clone()),
            ("turned", own.mT.contiguous() if own.ndim > 1 else own[:, None].clone()),
        ):
            if changed.shape == own.shape:
                continue
            rows = changed.ndim == own.ndim and changed.numel() > 0 and own.shape[0] > 1
            yield Mutation(f"{name} {what}", with_(**{name: changed}), free and rows)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32,
                      torch.uint8, torch.bool):  # fmt: skip
            if dtype != own.dtype:
                yield Mutation(f"{name} {dtype}", with_(**{name: own.to(dtype)}))
        for value in (torch.nan, torch.inf, -torch.inf, 3e38):
            if own.dtype == torch.float16 and value == 3e38:
                continue
            one, every = own.clone(), torch.full_like(own, value)
            one.view(-1)[-1] = value
            yield Mutation(f"{name} with a {value}", with_(**{name: one}))
            yield Mutation(f"{name} of {value}", with_(**{name: every}))
    for kind in ("calibration", "levels"):
        parts = {key: one for key, one in content.tensors.items() if key.startswith(f"{kind}.")}
        for rows in (0, 1, 2, 50):
            cut = {key: one[..., :rows].contiguous() for key, one in parts.items()}
            yield Mutation(f"{kind} of {rows} rows", with_(**cut))
        thinned = {key: one[..., ::2].contiguous() for key, one in parts.items()}
        yield Mutation(f"{kind} of every other row", with_(**thinned))
        turned = {key: one.flip(-1).contiguous() for key, one in parts.items()}
        yield Mutation(f"{kind} turned", with_(**turned))
        for part, one in parts.items():
            yield Mutation(f"{part} turned", with_(**{part: one.flip(-1).contiguous()}))
            yield Mutation(f"{part} below 0", with_(**{part: -1 - one}), part.endswith(".scores"))
        zeros = {key: torch.zeros_like(one) for key, one in parts.items()}
        yield Mutation(f"{kind} of zeros", with_(**zeros))
    for name, own in content.tensors.items():
        if name.endswith(("deviations", "factors", "concentrations", "bank", "0", "projection")):
            yield Mutation(f"{name} of zeros", with_(**{name: torch.zeros_like(own)}))
            yield Mutation(
                f"{name} tenfold",
                with_(**{name: 10 * own}),
                "dev" in name or "fac" in name or "conc" in name,
            )


# Judging -------------------------------------------------------------------------------------


def results(model: FittedModel) -> list[Any]:
    """Return all of a model that a result depends on."""
    chance = np.random.default_rng(9)
    layout = LayerLayout.of(backbone_spec(KEY), GRID)
    maps = chance.normal(size=(2, layout.size)).astype(np.float16)
    tissue = np.ones((2, *GRID), dtype=bool)
    out: list[Any] = [model.context, model.maps, model.backbone_key, model.backbone_sha256]
    for view in model.views:
        out += [view.preprocessing, *model.score(maps, tissue, view)]
    for calibration in (model.calibration, model.levels):
        out += [calibration.pixels, *calibration.tensors().values()]
    return out


def outcome(path: Path, expected: list[Any]) -> str:
    """Load a file and say what came of it: "refused", "same", or what is wrong."""
    try:
        found = results(load_model(path))
    except InputError as error:
        told = str(error)
        sound = path.name in told and "\n" not in told and told.endswith(".") and len(told) < 700
        return "refused" if sound else f"told {told!r}"
    except Exception as error:  # noqa: BLE001  (a traceback is what is looked for)
        return f"{type(error).__name__}: {error}"
    arrays = [one for one in found if isinstance(one, np.ndarray)]
    if not all(np.isfinite(one).all() and one.any() for one in arrays):
        return "NaN or zeros"
    if len(found) != len(expected):
        return "different"
    equal = all(np.array_equal(*pair) if isinstance(pair[0], np.ndarray) else pair[0] == pair[1]
                for pair in zip(found, expected, strict=True))  # fmt: skip
    return "same" if equal else "different"
