"""`python -m napari_dino_uad` is the command `napari-dino-uad`."""

from __future__ import annotations

from napari_dino_uad.cli import app

if __name__ == "__main__":
    app(prog_name="napari-dino-uad")
