"""`cache`: what is kept on disk, so that a scan meets a backbone once."""

from __future__ import annotations

import typer

from napari_dino_uad.core.errors import InputError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    cache = typer.Typer(help="What is kept on disk.", no_args_is_help=True)
    cache.command("info")(_info)
    cache.command("clear")(_clear)
    app.add_typer(cache, name="cache")


def _info() -> None:
    """Say where the cache is and how full."""
    from napari_dino_uad.core.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, open_cache
    from napari_dino_uad.core.openvino_engine import ConvertedNetworks

    cache = open_cache()
    if cache is None:
        typer.echo(f"The cache is off: {FOLDER_VARIABLE} says so.")
        return
    usage = cache.usage()
    typer.echo(f"folder    {cache.folder} (change it with {FOLDER_VARIABLE})")
    typer.echo(f"scans     {usage.entries}, {usage.complete} of them complete")
    typer.echo(
        f"size      {usage.size_bytes / 1e9:.2f} of {usage.limit_bytes / 1e9:g} GB "
        f"(change the limit with {LIMIT_VARIABLE})"
    )
    networks = ConvertedNetworks(cache.folder.parent)
    typer.echo(f"networks  {networks.size_bytes() / 1e9:.2f} GB, converted for OpenVINO")


def _clear() -> None:
    """Remove embeddings and converted networks; they are made again when they are needed.

    Which engine was found fastest stays: `engines --forget` is for that.
    """
    from napari_dino_uad.core.cache import FOLDER_VARIABLE, open_cache
    from napari_dino_uad.core.openvino_engine import ConvertedNetworks

    cache = open_cache()
    if cache is None:
        raise InputError(f"There is no cache to clear, because {FOLDER_VARIABLE} is off.")
    free = cache.clear() + ConvertedNetworks(cache.folder.parent).clear()
    typer.echo(f"{free / 1e9:.2f} GB came free in {cache.folder.parent}.")
