"""`backbones` and `info`: list and download backbones, and show a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_dino_uad.cli.terminal import new_table, note, output, progress_bars, writable_folder

__all__ = ["register"]

# False-positive rates whose thresholds `info` shows.
_RATES = (0.1, 0.05, 0.01, 0.001)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    backbones = typer.Typer(help="List and download backbones, the networks that embed patches.")
    backbones.callback(invoke_without_command=True)(_backbones)
    backbones.command("list")(_list)
    backbones.command("download")(_download)
    app.add_typer(backbones, name="backbones")
    app.command("info")(_info)


def _backbones(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        _list()


def _list() -> None:
    """List the backbones: licence, size, and whether each is already on this machine."""
    from napari_dino_uad.core.backbones.backbone import BACKBONES, DEFAULT_BACKBONE
    from napari_dino_uad.core.backbones.hub import weights_here

    table = new_table(
        "key ", "layers", "dimension", "stride", "input", "licence ", "download MB",
        "here ",
    )  # fmt: skip
    for spec in BACKBONES.values():
        table.add_row(
            spec.key + (" (default)" if spec.key == DEFAULT_BACKBONE else ""),
            spec.layers_text,
            str(spec.dimension),
            str(spec.stride),
            str(spec.input_size),
            spec.licence,
            "embedded" if spec.embedded else f"{spec.download_mb:.0f}",
            "yes" if weights_here(spec) else "no",
        )
    output().print(table)


def _download(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Backbone; see the command backbones for the keys.")
    ],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for KEY.safetensors.")],
) -> None:
    """Download weights into one file, to be carried to a machine without a network.

    There, pass the file to fit and detect with --weights. An existing file is not downloaded
    again.
    """
    from napari_dino_uad.core.backbones.backbone import backbone_spec
    from napari_dino_uad.core.backbones.hub import download_weights, file_sha256
    from napari_dino_uad.core.progress import drain

    spec = backbone_spec(key)
    writable_folder(to)
    if not spec.embedded:
        note(f"Weights of {spec.name}, {spec.licence}, {spec.download_mb:.0f} MB")
    with progress_bars() as bars:
        path = drain(download_weights(spec, to), bars)
    console = output()
    console.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)
    console.print(f"SHA-256 {file_sha256(path)}", soft_wrap=True)


def _info(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="A model saved by fit.")
    ] = None,
    system: Annotated[
        bool,
        typer.Option(
            "--system",
            help="Show versions, engines and device of this machine, for a report of a problem. "
            "It has no path and no name of a person or machine.",
        ),
    ] = False,
) -> None:
    """Show what is in a model file, or what this machine has."""
    from napari_dino_uad.core.errors import InputError

    if model is None and not system:
        raise InputError(
            "Expected a model file; give one saved by fit, or --system for this machine."
        )
    if model is not None and system:
        raise InputError("Expected a model file or --system, got both; leave one out.")
    if model is None:
        from napari_dino_uad.cli.system import describe_system

        for name, value in describe_system():
            typer.echo(f"{name:24}{value}")
        return
    if not model.is_file():
        raise InputError(f"There is no model file at {model}; check the path.")
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
    say("planes", ", ".join(fitted.planes))
    say(
        "context",
        f"normalise {fitted.context.normalise}, neighbourhood {fitted.context.neighbourhood}",
    )
    weights = ", ".join(f"{view.scale.symmetry:g}" for view in fitted.views)
    say(
        "map",
        f"smoothing {fitted.maps.smoothing_mm:g} mm and edges within {fitted.maps.detail_mm:g} mm "
        f"(input pixels if a scan has no spacing), "
        f"weight of left-right symmetry {weights}, {fitted.lesions_text}, "
        f"{'' if fitted.maps.centring else 'not '}centred on each scan",
    )
    say("cohort", ", ".join(f"{key.replace('_', ' ')} {one}" for key, one in fitted.cohort.items()))
    say("calibration", f"{calibration.pixels} healthy pixels")
    for rate in _RATES:
        resolved = rate >= calibration.rates.min()
        text = "not resolved, too few pixels"
        if resolved:
            low, high = calibration.interval(rate)
            text = (
                f"{calibration.threshold(rate):.5g} (most healthy scans "
                f"{100 * low:.2g} to {100 * high:.2g} %)"
            )
        say(f"threshold at {100 * rate:g} % FPR", text)
    say("made with", ", ".join(f"{name} {number}" for name, number in fitted.versions.items()))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
