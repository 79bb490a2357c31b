"""Synthetic heads, healthy or with lesions, for demos and tests.

Each head is a smooth random deformation of the MNI152 brain, with the contrast of a FLAIR scan, a
skull and scalp, a bias field and Rician noise. Like a clinical scan, it has thick axial slices. It
does not replace a real cohort.

The template and its tissue maps (V. Fonov et al., "Unbiased average age-appropriate brain
templates from birth to adulthood", NeuroImage 47, 2009) come with nilearn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.scans.volume import Volume, volume_from_array

__all__ = ["MAXIMUM_LESIONS", "PHANTOM_BACKBONE", "Phantom", "make_phantom"]

#: Backbone and layers for synthetic heads. A handful of heads does not cover the variation that
#: the finest and coarsest layers see, which would hide the lesions.
PHANTOM_BACKBONE = "efficientnet-lite0@3,4"

#: More lesions would not fit without touching each other.
MAXIMUM_LESIONS = 6

# Shape of the scan: slices feet to head, rows front to back, columns right to left.
_SHAPE = (28, 232, 200)
_SPACING_MM = (5.0, 1.0, 1.0)
# The lowest slice is below the cerebellum, the highest above the cortex.
_ORIGIN_MM = (-58.0, -108.0, -99.5)

# Brightness of each tissue in FLAIR, from 0 to 1.
_CSF, _GREY, _WHITE, _SKULL, _SCALP, _LESION = 0.12, 0.60, 0.50, 0.05, 0.72, 0.95
# Where skull, scalp and air begin, in mm outside the brain surface.
_SKULL_MM, _SCALP_MM, _AIR_MM = 3.0, 8.0, 13.0
_FULL_SCALE = 1000.0


@dataclass(frozen=True)
class Phantom:
    """A synthetic head.

    Attributes
    ----------
    volume : Volume
        The scan, (28, 232, 200) voxels of 5 x 1 x 1 mm.
    lesion : ndarray of bool, (S, P, L)
        True inside lesions, on the grid of `volume`.
    """

    volume: Volume
    lesion: NDArray[np.bool_]


@dataclass(frozen=True)
class _Atlas:
    """Maps of the template on (S, P, L) at 1 mm, and the position of their first voxel in mm."""

    grey: NDArray[np.float32]
    white: NDArray[np.float32]
    outside_mm: NDArray[np.float32]
    origin_mm: tuple[float, float, float]


def make_phantom(seed: int, lesions: int = 0) -> Phantom:
    """Create a synthetic head.

    Parameters
    ----------
    seed : int
        Seed of the head; the same seed gives the same head.
    lesions : int
        Number of bright lesions to place in the brain, at most `MAXIMUM_LESIONS`.

    Returns
    -------
    Phantom

    Raises
    ------
    InputError
        If nilearn is not installed, or the number of lesions is out of range.
    """
    if not 0 <= lesions <= MAXIMUM_LESIONS:
        raise InputError(
            f"A phantom takes 0 to {MAXIMUM_LESIONS} lesions, got {lesions}; change the number."
        )
    atlas = _atlas()
    # Lesions have their own random generator, so that the same head exists with and without them.
    rng = np.random.default_rng(seed)
    places = _deformed_places(rng)
    index = [axis - origin for axis, origin in zip(places, atlas.origin_mm, strict=True)]
    grey = _sample(atlas.grey, index, 0.0)
    white = _sample(atlas.white, index, 0.0)
    outside = _sample(atlas.outside_mm, index, 60.0)
    head = _flair(grey, white, outside, rng)
    lesion = np.zeros(_SHAPE, dtype=bool)
    if lesions:
        soft = _lesions(outside, white, lesions, np.random.default_rng([seed, 1]))
        head = head + soft * (_LESION - head)
        lesion = soft > 0.5
    head *= np.exp(_smooth_noise(rng, (2, 3, 3), 0.12))
    sigma = rng.uniform(0.008, 0.014)
    real = head + rng.normal(0, sigma, _SHAPE)
    imaginary = rng.normal(0, sigma, _SHAPE)
    scan = np.rint(_FULL_SCALE * np.hypot(real, imaginary)).astype(np.float32)
    name = f"phantom-{seed:03d}" + ("_lesions" if lesions else "")
    return Phantom(volume_from_array(scan, _SPACING_MM, _ORIGIN_MM, name), lesion)


@lru_cache(maxsize=1)
def _atlas() -> _Atlas:
    from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter1d

    try:
        from nilearn import datasets
    except ImportError as error:
        raise InputError(
            "The phantom needs the MNI152 template of nilearn, but nilearn is not installed; run: "
            "pip install 'napari-dino-uad[demo]'."
        ) from error
    template = datasets.load_mni152_template(resolution=1)
    grey = datasets.load_mni152_gm_template(resolution=1)
    white = datasets.load_mni152_wm_template(resolution=1)
    affine = template.affine

    def canonical(image: object) -> NDArray[np.float32]:
        # nilearn's axes point to the right, the front and the head.
        data = image.get_fdata(dtype=np.float32)  # type: ignore[attr-defined]
        return np.ascontiguousarray(data.transpose(2, 1, 0)[:, ::-1, ::-1])

    # Fill the ventricles: they are part of the brain, but neither grey nor white matter.
    brain = binary_fill_holes(canonical(template) > 0.05)
    right, front, _ = (int(count) for count in template.shape)
    origin = (
        float(affine[2, 3]),
        -float(affine[1, 3] + affine[1, 1] * (front - 1)),
        -float(affine[0, 3] + affine[0, 0] * (right - 1)),
    )
    # Distance to the brain surface, negative inside. The margin holds the skull and scalp.
    room = 20
    padded = np.pad(brain, room)
    outside = distance_transform_edt(~padded) - distance_transform_edt(padded)

    def thick(maps: NDArray[np.float32]) -> NDArray[np.float32]:
        # A slice of 5 mm averages over about its thickness.
        return np.asarray(gaussian_filter1d(np.pad(maps, room), _SPACING_MM[0] / 2.35, axis=0))

    return _Atlas(
        thick(canonical(grey)),
        thick(canonical(white)),
        outside.astype(np.float32),
        (origin[0] - room, origin[1] - room, origin[2] - room),
    )


def _deformed_places(rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Return the position of each voxel of the scan in the template: three arrays in mm."""
    axes = np.meshgrid(
        *(
            origin + spacing * np.arange(count)
            for origin, spacing, count in zip(_ORIGIN_MM, _SPACING_MM, _SHAPE, strict=True)
        ),
        indexing="ij",
    )
    scale = rng.normal(1.0, 0.03, 3)
    shift = rng.normal(0.0, 2.0, 3)
    # Rotate the head by a few degrees about the axis from feet to head.
    angle = np.deg2rad(rng.normal(0.0, 3.0))
    s, p, left = axes
    turned = (
        s,
        np.cos(angle) * p - np.sin(angle) * left,
        np.sin(angle) * p + np.cos(angle) * left,
    )
    return [
        (axis * scale[number] + shift[number] + _smooth_noise(rng, (4, 6, 6), 2.5)).astype(
            np.float32
        )
        for number, axis in enumerate(turned)
    ]


def _smooth_noise(
    rng: np.random.Generator, knots: tuple[int, int, int], deviation: float
) -> NDArray[np.float32]:
    """Interpolate Gaussian noise at a few knots smoothly over the scan."""
    from scipy.ndimage import zoom

    values = rng.normal(0, deviation, knots).astype(np.float32)
    factors = [count / knot for count, knot in zip(_SHAPE, knots, strict=True)]
    return np.asarray(zoom(values, factors, order=3, mode="nearest", grid_mode=True))


def _sample(
    maps: NDArray[np.float32], index: list[NDArray[np.float32]], beyond: float
) -> NDArray[np.float32]:
    from scipy.ndimage import map_coordinates

    return np.asarray(map_coordinates(maps, index, order=1, mode="constant", cval=beyond))


def _flair(
    grey: NDArray[np.float32],
    white: NDArray[np.float32],
    outside_mm: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Mix the brightness of the tissues by their shares."""
    from scipy.special import expit

    contrast = rng.normal(1.0, 0.03, 3)
    fluid = np.clip(1 - grey - white, 0, 1)
    brain = contrast[0] * _GREY * grey + contrast[1] * _WHITE * white + _CSF * fluid
    # The thickness of bone and fat varies over the head.
    distance = outside_mm + _smooth_noise(rng, (3, 5, 5), 0.8)

    def beyond(edge_mm: float) -> NDArray[np.float32]:
        return np.asarray(expit((distance - edge_mm) / 0.5))

    skull, scalp, air = beyond(_SKULL_MM), beyond(_SCALP_MM), beyond(_AIR_MM)
    shell = _SKULL * (skull - scalp) + contrast[2] * _SCALP * (scalp - air)
    head: NDArray[np.float32] = ((1 - skull) * brain + shell).astype(np.float32)
    return head


def _lesions(
    outside_mm: NDArray[np.float32],
    white: NDArray[np.float32],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Create irregular lesions with soft edges; return their share of each voxel."""
    from scipy.special import expit

    centres = _centres(outside_mm, white, count, rng)
    places = np.meshgrid(
        *(spacing * np.arange(size) for spacing, size in zip(_SPACING_MM, _SHAPE, strict=True)),
        indexing="ij",
    )
    soft = np.zeros(_SHAPE, dtype=np.float32)
    for centre in centres:
        radius = rng.uniform(7.0, 14.0)
        squared = sum(
            ((place - at) / stretch) ** 2
            for place, at, stretch in zip(
                places, centre, np.exp(rng.normal(0, 0.15, 3)), strict=True
            )
        )
        # The radius varies over space, so that no lesion is a perfect ball.
        ragged = radius * (1 + _smooth_noise(rng, (8, 18, 16), 0.3))
        within = ragged - np.sqrt(squared)
        soft = np.maximum(soft, expit(within))
    # Brain lesions end at the surface of the brain.
    inside = np.clip(-outside_mm, 0, 1)
    return np.asarray((soft * inside).astype(np.float32))


def _centres(
    outside_mm: NDArray[np.float32],
    white: NDArray[np.float32],
    count: int,
    rng: np.random.Generator,
) -> list[NDArray[np.float64]]:
    """Choose positions in deep white matter, in mm from the first voxel, far from each other."""
    deep = np.argwhere((white > 0.6) & (outside_mm < -8)) * np.array(_SPACING_MM)
    # Not in the brain stem or at the vertex, where there is too little room.
    deep = deep[(deep[:, 0] > 35) & (deep[:, 0] < 110)]
    apart_mm = 45.0
    chosen: list[NDArray[np.float64]] = []
    while len(chosen) < count:
        free = deep
        for centre in chosen:
            free = free[np.linalg.norm(free - centre, axis=1) > apart_mm]
        if len(free):
            chosen.append(free[rng.integers(len(free))])
        else:
            apart_mm -= 5.0
    return chosen
