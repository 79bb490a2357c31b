"""The device that a network runs on."""

from __future__ import annotations

from napari_dino_uad.core.errors import InputError

__all__ = ["DEVICES", "choose_device"]

#: Names that a user can ask for.
DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> str:
    """Resolve a requested device to one that is available.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda", "mps"}
        "auto" takes the first of CUDA, MPS and CPU that is available.

    Returns
    -------
    str
        "cpu", "cuda" or "mps".

    Raises
    ------
    InputError
        If the device is not available. A GPU requested by name is never replaced.
    """
    if name not in DEVICES:
        raise InputError(
            f"The device must be one of {', '.join(DEVICES)}, got {name!r}; choose one."
        )
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, available in there.items() if available)
    if not there[name]:
        have = " and ".join(device for device, available in there.items() if available)
        raise InputError(
            f"The device {name} was asked for, but this machine and its torch {torch.__version__} "
            f"offer only {have}; choose auto or install a build of torch with {name}."
        )
    return name
