"""`cache`: the embeddings and networks on disk, which save running the backbone again."""

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


def _clear() -> None:
    """Remove embeddings and converted networks; they are made again when needed.

    Engine measurements stay; remove them with `engines --forget`.
    """
    from napari_dino_uad.core.backbones.engines.openvino_engine import ConvertedNetworks
    from napari_dino_uad.core.features.cache import open_cache
    from napari_dino_uad.core.storage.folders import FOLDER_VARIABLE

    cache = open_cache()
    if cache is None:
        raise InputError(
            f"Expected a cache to clear, but it is turned off by {FOLDER_VARIABLE}; unset that."
        )
    free = cache.clear() + ConvertedNetworks(cache.folder.parent).clear()
    typer.echo(f"{free / 1e9:.2f} GB freed in {cache.folder.parent}.")
    kept = cache.usage().in_use
    if kept:
        scans, whose = ("scan is", "its") if kept == 1 else ("scans are", "their")
        typer.echo(f"{kept} {scans} in use by another run; {whose} embeddings were kept.")
