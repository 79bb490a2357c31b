"""Benchmarks: every method on one split, with several seeds, through `fit` and `evaluate`.

A run is one method with one seed and one way to make its map; a method is fitted once for all its
maps. Each run is saved when it finishes, and reused as long as the data, the settings and the
core's code are unchanged, so that a stopped benchmark can resume.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import platform
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dino_uad import __version__
from napari_dino_uad.core.bench.memory import Scores, remembering
from napari_dino_uad.core.bench.variants import (
    DEFAULT_MAPS,
    MAPS,
    NO_MODEL,
    brightness_model,
    check_maps,
    maps_of,
)
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluate import EvaluationSettings, evaluate
from napari_dino_uad.core.features.cache import FeatureCache, content_digest, open_cache
from napari_dino_uad.core.features.extract import cache_entry, extract_features, scored_slices
from napari_dino_uad.core.fit import calibrate, fit, remap
from napari_dino_uad.core.model_file import load_model, save_model
from napari_dino_uad.core.normative.methods import find_method
from napari_dino_uad.core.progress import Inner, Progress
from napari_dino_uad.core.slices.healthy import healthy_slices
from napari_dino_uad.core.slices.prepared import prepare
from napari_dino_uad.core.slices.preprocessing import Preprocessing
from napari_dino_uad.core.storage.records import (
    are_as_recorded,
    read_sealed,
    record_files,
    write_sealed,
)

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone
    from napari_dino_uad.core.bench.splits import Split

__all__ = ["bench"]

# Subfolder of finished runs and the remains of stopped ones.
_RUNS = "runs"

# The spread is that over seeds.
_MEASURED = EvaluationSettings(bootstrap=0, froc_rates=())


@dataclass(frozen=True)
class _Setting:
    """Settings shared by all runs of a benchmark."""

    split: Split
    backbone: Backbone
    preprocessing: Preprocessing
    batch: int
    store: FeatureCache | None
    runs: Path

    @property
    def cache(self) -> FeatureCache | bool:
        return False if self.store is None else self.store


def bench(
    split: Split,
    methods: Mapping[str, dict[str, Any]],
    seeds: Sequence[int],
    out: Path,
    *,
    backbone: Backbone,
    maps: Sequence[str] = DEFAULT_MAPS,
    batch: int | None = None,
    cache: FeatureCache | bool = True,
    overwrite: bool = False,
) -> Generator[Progress, None, dict[str, Any]]:
    """Fit and evaluate every method with every seed.

    Parameters
    ----------
    split : Split
        The data.
    methods : mapping of str to dict
        Settings by method; an empty dict means the defaults.
    seeds : sequence of int
        Seeds of the fits.
    out : Path
        Folder of the results; finished runs are kept in its subfolder `runs`.
    backbone : Backbone
        Embeds the slices, once for all runs.
    maps : sequence of str
        Keys of `variants.MAPS`; one row of the table for each.
    batch : int, optional
        Slices per batch of the backbone; default the engine's own.
    cache : FeatureCache or bool
        As in `fit`. Without a cache, every fit and evaluation embeds again, and reports that.
    overwrite : bool
        Whether to repeat finished runs.

    Yields
    ------
    Progress
        For every step of every run.

    Returns
    -------
    dict
        "split", "about", "features" (slices and seconds of embedding, or None if everything was
        already cached), and "runs", a list of plain values.

    Raises
    ------
    InputError
        If there is no method or no seed, a method is unknown, or a scan cannot be used.
    """
    if not methods or not seeds:
        raise InputError("Expected at least one method and one seed, got none; name some.")
    for method in methods:
        if method not in NO_MODEL:
            find_method(method)
    check_maps(list(maps))
    preprocessing = Preprocessing(input_size=backbone.spec.input_size)
    setting = _Setting(
        split,
        backbone,
        preprocessing,
        batch or backbone.engine.batch,
        open_cache(cache),
        out / _RUNS,
    )
    common = _common_request(setting)
    wanted = {
        setting.runs / f"{split.name}-{method}-{seed}-{name}.json": _plain(
            {**common, "method": method, "settings": settings, "seed": seed, "maps": name}
        )
        for method, settings in methods.items()
        # Without a model, all seeds are alike.
        for seed in (seeds[:1] if method in NO_MODEL else seeds)
        for name in maps_of(method, list(maps))
    }
    features_path = setting.runs / f"{split.name}-features.json"
    runs = []
    embedded = False
    remembered: dict[Path, Scores] = {}
    for path, request in wanted.items():
        run = None if overwrite else _read(path, request)
        if run is None:
            if not embedded and setting.store is not None:
                # Before the first run, so that no method's fit includes work shared by all.
                yield from _embed(setting, features_path, common)
                embedded = True
            fit_path = _leftovers(path)[0]
            if fit_path not in remembered:
                # Of one fit at a time, so that memory stays small.
                remembered = {fit_path: {}}
            running = Inner(_run(setting, path, request, remembered[fit_path]))
            for progress in running:
                named = f"{request['method']}, seed {request['seed']}, {request['maps']}"
                step = f"{named}: {progress.step}"
                yield dataclasses.replace(progress, step=step)
            run = running.value
        runs.append(run)
    # Models are removed last: what was stopped before is evaluated again, but not fitted again.
    for path in wanted:
        for leftover in _leftovers(path):
            leftover.unlink(missing_ok=True)
    return {
        "split": split.name,
        "about": split.about,
        "features": _read(features_path, common),
        "runs": runs,
    }


def _common_request(setting: _Setting) -> dict[str, Any]:
    """Return the inputs that a finished run must match to be reused."""
    return _plain(
        {
            "split": setting.split.name,
            "data": setting.split.digest(),
            "backbone": setting.backbone.spec.key,
            "backbone_sha256": setting.backbone.sha256,
            "engine": setting.backbone.engine.spec.description,
            "preprocessing": setting.preprocessing.to_dict(),
            "version": __version__,
            "source": _source_digest(),
            "torch": version("torch"),
        }
    )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as they look after a round trip through a file."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _source_digest() -> str:
    """Return a digest of the core's code, without the benchmarks, because results depend on it."""
    core = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(core.rglob("*.py")):
        inside = path.relative_to(core)
        if inside.parts[0] != "bench":
            digest.update(inside.as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _read(path: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """Read a result of an earlier benchmark; None if it is damaged or of another request."""
    found = read_sealed(path)
    return found if found is not None and found.get("request") == request else None


def _embed(
    setting: _Setting, path: Path, request: dict[str, Any]
) -> Generator[Progress, None, None]:
    """Embed what is not in the cache yet, and record how long that took."""
    split, backbone = setting.split, setting.backbone
    cases = [(case, True) for case in split.train]
    # Calibration and evaluation detect in the whole scan.
    cases += [(case, False) for case in (*split.valid, *split.test)]
    computed, seconds = 0, 0.0
    for number, (case, healthy_only) in enumerate(cases):
        step = Progress("Embedding", number, len(cases), case.name)
        yield step
        volume = case.read()
        scan = prepare(volume, setting.preprocessing)
        grid = scan.grid(backbone.spec.stride, backbone.spec.multiple)
        name = content_digest(volume.content, volume.spacing_mm)
        entry = cache_entry(setting.store, name, scan, grid, backbone)
        assert entry is not None
        if healthy_only:
            indices = healthy_slices(scan, case.read_mask(volume), setting.preprocessing.plane)
        else:
            indices = scored_slices(scan, grid)
        known = entry.known()
        missing = [index for index in indices.tolist() if not known[index]]
        clock = time.perf_counter()
        for _ in extract_features(scan, grid, backbone, missing, setting.batch, entry=entry):
            yield step
        seconds += time.perf_counter() - clock
        computed += len(missing)
    yield Progress("Embedding", len(cases), len(cases))
    if computed:
        write_sealed(path, {"request": request, "slices": computed, "seconds": seconds})


def _run(
    setting: _Setting, path: Path, request: dict[str, Any], scores: Scores
) -> Generator[Progress, None, dict[str, Any]]:
    """Fit, make the map as requested, evaluate, and write the run.

    The time that scoring takes is measured where no other map of the fit left its `scores`.
    """
    alone = not scores
    maps = MAPS[request["maps"]]
    if request["method"] in NO_MODEL:
        built = brightness_model(request["method"], maps, setting.backbone, setting.preprocessing)
        seconds, size = 0.0, 0
        model = yield from calibrate(
            built,
            setting.split.valid,
            backbone=setting.backbone,
            batch=setting.batch,
            cache=setting.cache,
        )
    else:
        seconds = yield from _fit_once(setting, path, request)
        model_path = _leftovers(path)[0]
        size = model_path.stat().st_size
        # Evaluate what a user gets: a model that has been saved and loaded.
        model = remembering(load_model(model_path), scores)
        if model.maps != maps:
            model = yield from remap(
                model,
                setting.split.valid,
                maps,
                backbone=setting.backbone,
                batch=setting.batch,
                cache=setting.cache,
            )
    evaluation = yield from evaluate(
        setting.split.test,
        model,
        backbone=setting.backbone,
        batch=setting.batch,
        cache=setting.cache,
        settings=_MEASURED,
    )
    run = {
        "request": request,
        "label": _label(request["method"], model.normative.config()),
        "summary": model.summary(),
        "fit_seconds": seconds,
        "features_cached": setting.store is not None,
        "score_ms_a_slice": (
            1000 * evaluation.metrics["seconds"]["model"] / evaluation.metrics["slices_scored"]
            if alone
            else None
        ),
        "model_bytes": size,
        "metrics": evaluation.metrics,
        "cases": evaluation.cases,
        **_circumstances(setting),
    }
    write_sealed(path, run)
    return run


def _fit_once(
    setting: _Setting, path: Path, request: dict[str, Any]
) -> Generator[Progress, None, float]:
    """Fit and save the model of a run, unless another run did; return the seconds of the fit."""
    model_path, fit_path = _leftovers(path)
    request = {name: value for name, value in request.items() if name != "maps"}
    fitted = _read(fit_path, request)
    if fitted is None or not are_as_recorded(path.parent, fitted["files"], [model_path.name]):
        started = time.perf_counter()
        model = yield from fit(
            setting.split.train,
            valid=setting.split.valid,
            method=request["method"],
            settings=request["settings"],
            backbone=setting.backbone,
            preprocessing=setting.preprocessing,
            seed=request["seed"],
            batch=setting.batch,
            cache=setting.cache,
            # The seconds are those of a whole fit.
            resume=False,
        )
        seconds = time.perf_counter() - started
        save_model(model, model_path)
        files = record_files([model_path])
        fitted = {"request": request, "seconds": seconds, "files": files}
        write_sealed(fit_path, fitted)
    return float(fitted["seconds"])


def _circumstances(setting: _Setting) -> dict[str, Any]:
    """Return the machine and the date of a run."""
    import torch

    return {
        "machine": {
            "threads": torch.get_num_threads(),
            "engine": setting.backbone.engine.spec.words,
            "python": platform.python_version(),
        },
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _leftovers(path: Path) -> tuple[Path, Path]:
    """Return where the runs of one fit keep its model and its record until all are evaluated."""
    fit_name = path.stem.rpartition("-")[0]
    return path.with_name(f"{fit_name}.safetensors"), path.with_name(f"{fit_name}.fit.json")


def _label(method: str, config: dict[str, Any]) -> str:
    """Return a method's name for the table; a fusion is followed by its members."""
    members = config.get("members")
    if not members:
        return f"`{method}`"
    named = [f"`{member}`" for member in members]
    return f"`{method}` of {', '.join(named[:-1])} and {named[-1]}"
