"""`cache`: embeddings, networks and stopped fits on disk, which save work done before."""

from __future__ import annotations

import typer

from napari_dino_uad.core.errors import InputError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    cache = typer.Typer(help="Show or clear the cache on disk.", no_args_is_help=True)
    cache.command("info")(_info)
    cache.command("clear")(_clear)
    app.add_typer(cache, name="cache")


def _info() -> None:
    """Show where the cache is and how full it is."""
    from napari_dino_uad.core.backbones.engines.openvino_engine import ConvertedNetworks
    from napari_dino_uad.core.features.cache import LIMIT_VARIABLE, open_cache
    from napari_dino_uad.core.storage.folders import FOLDER_VARIABLE
    from napari_dino_uad.core.storage.training_states import TrainingStates

    cache = open_cache()
    if cache is None:
        typer.echo(f"The cache is turned off by {FOLDER_VARIABLE}.")
        return
    usage = cache.usage()
    typer.echo(f"folder    {cache.folder} (change it with {FOLDER_VARIABLE})")
    typer.echo(
        f"scans     {usage.entries}, {usage.complete} of them complete, {usage.in_use} in use"
    )
    typer.echo(
        f"size      {usage.size_bytes / 1e9:.2f} of {usage.limit_bytes / 1e9:g} GB "
        f"(change the limit with {LIMIT_VARIABLE})"
    )
    networks = ConvertedNetworks(cache.folder.parent)
    typer.echo(f"networks  {networks.size_bytes() / 1e9:.2f} GB, converted for OpenVINO")
    states = TrainingStates(cache.folder.parent)
    typer.echo(
        f"training  {states.size_bytes() / 1e9:.2f} GB, {states.count()} of stopped fits, each "
        "kept for 14 days"
    )


def _clear() -> None:
    """Remove embeddings and converted networks, which are made again when needed.

    The training of stopped fits is removed too; such a fit then starts anew.

    Engine measurements stay; remove them with `engines --forget`.
    """
    from napari_dino_uad.core.backbones.engines.openvino_engine import ConvertedNetworks
    from napari_dino_uad.core.features.cache import open_cache
    from napari_dino_uad.core.storage.folders import FOLDER_VARIABLE
    from napari_dino_uad.core.storage.training_states import TrainingStates

    cache = open_cache()
    if cache is None:
        raise InputError(
            f"Expected a cache to clear, but it is turned off by {FOLDER_VARIABLE}; unset that."
        )
    home = cache.folder.parent
    free = cache.clear() + ConvertedNetworks(home).clear() + TrainingStates(home).clear()
    typer.echo(f"{free / 1e9:.2f} GB freed in {home}.")
    kept = cache.usage().in_use
    if kept:
        scans, whose = ("scan is", "its") if kept == 1 else ("scans are", "their")
        typer.echo(f"{kept} {scans} in use by another run; {whose} embeddings were kept.")
