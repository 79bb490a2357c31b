"""Sample data of the plugin: synthetic heads, created on request."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from napari_dino_uad.core.scans.phantom import make_phantom
from napari_dino_uad.layer_data import labels_layer, volume_layer

__all__ = ["healthy_phantom", "phantom_with_lesions"]

_HEALTHY_SEED, _LESION_SEED, _LESIONS = 0, 1000, 3

LayerData = tuple[NDArray[Any], dict[str, Any], str]


def healthy_phantom() -> list[LayerData]:
    """Create a healthy head."""
    return [volume_layer(make_phantom(_HEALTHY_SEED).volume)]


def phantom_with_lesions() -> list[LayerData]:
    """Create a head with lesions, and their true outline as labels."""
    phantom = make_phantom(_LESION_SEED, lesions=_LESIONS)
    labels = labels_layer(phantom.volume, phantom.lesion, f"{phantom.volume.name} truth")
    labels[1]["visible"] = False
    return [volume_layer(phantom.volume), labels]
