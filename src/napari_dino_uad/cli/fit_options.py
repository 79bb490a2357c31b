"""The options of the command `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_dino_uad.core.maps.brightness import LESIONS
from napari_dino_uad.core.normative.methods import METHODS

__all__ = [
    "BackboneKey",
    "DetailMm",
    "InputSize",
    "Layers",
    "LesionsOption",
    "MethodKey",
    "Neighbourhood",
    "NoCentring",
    "NoImageNet",
    "Normalise",
    "Out",
    "PlaneOption",
    "Seed",
    "Settings",
    "SingleSlice",
    "SmoothingMm",
    "StorePictures",
    "Symmetry",
    "Valid",
    "Window",
]

Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="MODEL", help="The .safetensors file to write.")
]
MethodKey = Annotated[str, typer.Option(metavar="|".join(METHODS), help="Kind of model.")]
BackboneKey = Annotated[
    str, typer.Option(metavar="KEY", help="A key that the command backbones lists.")
]
Layers = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="Layers of the backbone to read and join, counted from 1: a transformer's "
        "blocks or a convolutional network's stages. Short for KEY@N,N,...",
    ),
]
PlaneOption = Annotated[
    str,
    typer.Option(
        metavar="axial|coronal|sagittal|all",
        help="Plane to cut slices in. all fits a model for each and averages their maps, for "
        "scans whose voxels are nearly cubes.",
    ),
]
Valid = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="SCANS...",
        help="Other healthy scans, to choose the epoch and calibrate thresholds with; all "
        "paths up to the next option. Without it a fifth of SCANS is held out.",
    ),
]
InputSize = Annotated[
    int | None,
    typer.Option(metavar="PIXELS", help="Shorter edge of the backbone's input."),
]
Window = Annotated[
    str | None,
    typer.Option(
        metavar="CENTRE,WIDTH",
        help="Fixed intensity window, or brain, stroke, lung, abdomen or bone for CT. "
        "Without it every scan is scaled to its own brightest tissue.",
    ),
]
SingleSlice = Annotated[
    bool,
    typer.Option(
        "--single-slice",
        help="Show the backbone each slice alone, not with its two neighbours as colours.",
    ),
]
NoImageNet = Annotated[
    bool,
    typer.Option(
        "--no-imagenet", help="Do not normalise the input with ImageNet's mean and deviation."
    ),
]
ObjectMask = Annotated[
    bool,
    typer.Option(
        "--object-mask",
        help="Learn and score the object alone, which the first principal component of an image's "
        "embeddings tells from a background that is not dark.",
    ),
]
Normalise = Annotated[
    str,
    typer.Option(
        metavar="l2|none",
        help="Whether each layer of the embeddings, and then the whole, has unit length.",
    ),
]
Neighbourhood = Annotated[
    int,
    typer.Option(
        metavar="PATCHES", help="Edge of the square of patches that is averaged; 1 for none."
    ),
]
SmoothingMm = Annotated[
    float, typer.Option(metavar="MM", help="Width of the Gaussian that smooths the map.")
]
DetailMm = Annotated[
    float,
    typer.Option(
        metavar="MM",
        help="Radius of the windows in which the map's edges follow the anatomy's; 0 for none.",
    ),
]
Symmetry = Annotated[
    str,
    typer.Option(
        metavar="auto|WEIGHT",
        help="Weight of the comparison of left and right beside the model's score; auto "
        "compares where healthy slices are symmetric, 0 never.",
    ),
]
LesionsOption = Annotated[
    str,
    typer.Option(
        "--lesions",
        metavar="|".join(LESIONS),
        help="What you look for: tissue brighter or darker than the mirrored place gets a higher "
        "score; bright and dark also prefer tissue that is so within the scan. none leaves the "
        "brightness out. Used where left and right are compared.",
    ),
]
NoCentring = Annotated[
    bool,
    typer.Option("--no-centring", help="Do not take each scan's own level from its scores."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method, as components=250."),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same model.")]
StorePictures = Annotated[
    bool,
    typer.Option(
        "--store-pictures",
        help="Keep small pictures of typical healthy patches in MODEL.pictures.safetensors beside "
        "the model, which Inspect shows. They are parts of the scans: only with their owner's "
        "consent.",
    ),
]
