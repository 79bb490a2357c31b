"""The protocol of the two papers on the BMAD benchmark, and their published figures.

N. Schulthess et al., arXiv 2509.19997 (DPMM), and E. Erdil et al., arXiv 2603.02974 (AR): a model
is fitted on the healthy images of the training part, thresholds and epochs come from the healthy
images of the validation part, and all pixels of the test images count.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Generator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from napari_dino_uad.core.bench.splits import Split
from napari_dino_uad.core.bench.variants import MAPS
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluate import EvaluationSettings, evaluate
from napari_dino_uad.core.fit import fit
from napari_dino_uad.core.model_file import save_model
from napari_dino_uad.core.normative.methods import find_method
from napari_dino_uad.core.scans.cohort import find_cases
from napari_dino_uad.core.slices.preprocessing import Preprocessing
from napari_dino_uad.core.storage.folders import own_folder

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.evaluation.record import Evaluation
    from napari_dino_uad.core.features.context import Context
    from napari_dino_uad.core.progress import Progress
    from napari_dino_uad.core.scans.cases import Case

__all__ = ["DATASETS", "Preset", "bmad_split", "check_preset", "published", "reproduce"]

#: The data sets of the papers, by the names of the command.
DATASETS = {
    "brats": "BraTS2021, brain MRI",
    "liver": "BTCV and LiTS, liver CT",
    "resc": "RESC, retinal OCT",
}

#: "paper" has the settings that the papers publish and maps without further steps; "default" has
#: this package's own.
Preset = Literal["paper", "default"]


def check_preset(value: str) -> Preset:
    """Return a preset, once checked.

    Raises
    ------
    InputError
        If it is none.
    """
    if value not in get_args(Preset):
        raise InputError(f"A preset is paper or default, got {value!r}; choose one.")
    return cast("Preset", value)


# Names of the parts in the three layouts, in lower case.
_PARTS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}


def published(dataset: str) -> list[dict[str, Any]]:
    """Return the published figures on a data set, over all pixels.

    Returns
    -------
    list of dict
        "method", "auroc" and "aupr" as (mean, standard deviation) in shares of 1, or None, and
        "runtime_ms".
    """
    text = files("napari_dino_uad.core.bench").joinpath("bmad_pixel.json").read_text("utf-8")
    return [
        {
            "method": one["name"],
            "runtime_ms": one["runtime_ms"],
            **{
                name: None
                if one[name][dataset] is None
                else tuple(value / 100 for value in one[name][dataset])
                for name in ("auroc", "aupr")
            },
        }
        for one in json.loads(text)["methods"]
    ]


def bmad_split(root: Path, dataset: str, shots: int | None = None) -> Split:
    """Split a data set of the BMAD benchmark by its own folders.

    Parameters
    ----------
    root : Path
        The folder of the data set, with its training, validation and test parts.
    dataset : str
        One of `DATASETS`.
    shots : int, optional
        Fit on so many images only, evenly spread over the training part.

    Raises
    ------
    InputError
        If the data set is unknown, a part is missing, or an image that has lesions has no label.
    """
    if dataset not in DATASETS:
        raise InputError(f"There is no data set {dataset!r}; there are {', '.join(DATASETS)}.")
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; give the folder of the data set.")
    parts: dict[str, list[Case]] = {}
    for part, names in _PARTS.items():
        found = [path for path in sorted(root.iterdir()) if path.name.lower() in names]
        if len(found) != 1:
            raise InputError(
                f"{root} should have one folder {' or '.join(names)}, in small letters or not, as "
                f"the BMAD benchmark has, but it has {len(found)}."
            )
        parts[part] = find_cases(found, require_masks=part == "test")
    train = [case for case in parts["train"] if case.healthy]
    valid = [case for case in parts["valid"] if case.healthy]
    for name, cases in (("training", train), ("validation", valid)):
        if not cases:
            raise InputError(f"The {name} part of {root} has no images in a folder good.")
    if shots is not None:
        if not 1 <= shots <= len(train):
            raise InputError(f"Between 1 and {len(train)} shots are possible, got {shots}.")
        train = [train[number * len(train) // shots] for number in range(shots)]
    return Split(dataset, DATASETS[dataset], tuple(train), tuple(valid), tuple(parts["test"]))


def reproduce(
    split: Split,
    method: str,
    backbone: Backbone,
    out: Path,
    *,
    preset: Preset = "paper",
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    input_size: int | None = None,
    imagenet: bool = True,
    object_mask: bool = False,
    context: Context | None = None,
) -> Generator[Progress, None, Evaluation]:
    """Fit and evaluate as the papers do.

    Parameters
    ----------
    split : Split
        From `bmad_split`.
    method : str
        A method, such as "dpmm" or "ar".
    backbone : Backbone
    out : Path
        Folder for the model and the results.
    preset : {"paper", "default"}
        Settings and maps.
    settings : dict, optional
        Settings of the method that replace those of the preset.
    seed : int
    input_size : int, optional
        Shorter edge of the input in pixels, which sets the resolution of the features.
    imagenet, object_mask : bool
        As in `Preprocessing`.
    context : Context, optional
        As in `fit`.

    Yields
    ------
    Progress

    Returns
    -------
    Evaluation
        Its convention "all" is that of the papers.

    Raises
    ------
    InputError
        If the method has no published settings, or an image cannot be used.
    """
    config = find_method(method).config_class()
    values: dict[str, Any] = {}
    if preset == "paper":
        if not hasattr(config, "paper"):
            raise InputError(
                f"The method {method} has no settings published in these papers; take the preset "
                "default, or dpmm or ar."
            )
        values = dataclasses.asdict(config.paper())
        values.pop("seed", None)
    model = yield from fit(
        split.train,
        valid=split.valid,
        method=method,
        settings=values | (settings or {}),
        backbone=backbone,
        preprocessing=Preprocessing(
            input_size=input_size or backbone.spec.input_size,
            imagenet=imagenet,
            object_mask=object_mask,
        ),
        context=context,
        maps=MAPS["raw"] if preset == "paper" else None,
        seed=seed,
    )
    own_folder(out)
    save_model(model, out / "model.safetensors")
    wanted = EvaluationSettings(froc_rates=())
    return (
        yield from evaluate(
            split.test, model, backbone=backbone, settings=wanted, out=out, maps=False
        )
    )
