"""Which device a network runs on."""

from __future__ import annotations

from napari_dino_uad.core.errors import InputError

__all__ = ["DEVICES", "choose_device"]

#: What a user can ask for.
DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> str:
    """Turn a user's wish into a device that is there.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda", "mps"}
        "auto" takes the first of CUDA, MPS and CPU that this machine has.

    Returns
    -------
    str
        "cpu", "cuda" or "mps".

    Raises
    ------
    InputError
        If there is no such device; a graphics processor asked for by name is never replaced.
    """
    if name not in DEVICES:
        raise InputError(f"The device must be one of {', '.join(DEVICES)}, but {name!r} came.")
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
