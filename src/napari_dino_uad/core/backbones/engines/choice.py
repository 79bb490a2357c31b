"""The choice of an engine for a backbone on this machine: measured once, then remembered."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_dino_uad.core.backbones.engines.device import choose_device
from napari_dino_uad.core.backbones.engines.measurement import (
    SMALLEST_COSINE,
    Measured,
    circumstances,
    measure,
    recall,
    remember,
)
from napari_dino_uad.core.backbones.engines.openvino_engine import (
    OpenVinoEngine,
    has_openvino,
    openvino_specs,
)
from napari_dino_uad.core.backbones.engines.torch_engine import (
    LIBRARIES,
    PRECISIONS,
    Engine,
    EngineSpec,
    Precision,
    TorchEngine,
)
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.memory import give_back
from napari_dino_uad.core.progress import Inner, Progress

if TYPE_CHECKING:
    from napari_dino_uad.core.backbones.backbone import Backbone

__all__ = [
    "ENGINE_VARIABLE",
    "available_engines",
    "choose_engine",
    "decide",
    "describe_place",
    "make_engine",
]

#: Environment variable that replaces "auto".
ENGINE_VARIABLE = "NAPARI_DINO_UAD_ENGINE"

#: An engine other than torch in single precision is chosen only if it is faster by this factor:
#: a smaller gain is not worth embeddings that differ in their last digits.
CLEARLY_FASTER = 1.3


def choose_engine(
    backbone: Backbone,
    device: str = "auto",
    engine: str = "auto",
    input_size: int | None = None,
) -> Generator[Progress, None, Backbone]:
    """Find the fastest engine for a backbone that gives the right embeddings.

    Every engine of this machine runs a few slices. Engines whose embeddings differ from torch's in
    single precision are rejected. The fastest of the others is chosen if it is clearly faster than
    torch in single precision. The choice is remembered for this machine, backbone, input size and
    library versions, so that the next run chooses the same.

    Parameters
    ----------
    backbone : Backbone
        The loaded backbone.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to run; "auto" takes a GPU if there is one.
    engine : str
        "auto", a library (torch, openvino), a precision (float32, bfloat16, float16), or both, such
        as "openvino float32". "auto" is replaced by the environment variable
        ``NAPARI_DINO_UAD_ENGINE`` if that is set.
    input_size : int, optional
        Shorter edge of the input in pixels; default the backbone's own.

    Yields
    ------
    Progress
        While measuring; nothing if the choice is remembered or there is only one.

    Returns
    -------
    Backbone
        The same backbone, run by the chosen engine.

    Raises
    ------
    InputError
        If the device or engine is not available, or the requested engine gives other embeddings.

    Examples
    --------
    >>> from napari_dino_uad import drain, load_backbone
    >>> backbone = drain(choose_engine(load_backbone(), engine="torch float32"))
    >>> backbone.engine.spec.description
    'torch cpu float32'
    """
    allowed = _allowed(device, engine)
    reference = EngineSpec("torch", choose_device(device), "float32")
    if allowed == [reference]:
        return backbone.on(TorchEngine(reference, backbone.module))
    size = input_size or backbone.spec.input_size
    specs = [reference, *(spec for spec in allowed if spec != reference)]
    where = circumstances(backbone, specs, size)
    measured = recall(where)
    if measured is None:
        measuring = Inner(measure(backbone, specs, lambda spec: make_engine(spec, backbone), size))
        yield from measuring
        measured = measuring.value
        remember(where, measured)
        # Of the engines that were not chosen, too.
        give_back()
    chosen = decide(measured, {spec.description for spec in allowed})
    return backbone.on(
        next(make_engine(spec, backbone) for spec in specs if spec.description == chosen)
    )


def describe_place(backbone: Backbone, device: str = "auto") -> str:
    """Describe what runs where, and note when the CPU is used because no GPU was found.

    Parameters
    ----------
    backbone : Backbone
        From `choose_engine`.
    device : str
        The requested device.
    """
    if device == "auto" and backbone.engine.spec.device == "cpu":
        import torch

        return f"{backbone.words}. torch {torch.__version__} found no GPU, so the CPU is used."
    return f"{backbone.words}."


def available_engines(device: str = "auto", library: str | None = None) -> list[EngineSpec]:
    """List the engines of this machine, torch in single precision first.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
        Where they run. An Intel GPU is included only for "auto".
    library : str, optional
        Restrict to this library.
    """
    import torch

    there = choose_device(device)
    precisions: list[Precision] = ["float32"]
    if there == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        precisions += ["bfloat16"]
    elif there == "cuda":
        precisions += ["float16"]
        # Old cards only emulate bfloat16.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            precisions += ["bfloat16"]
    elif there == "mps":
        precisions += ["float16"]
    specs = [EngineSpec("torch", there, precision) for precision in precisions]
    if there == "cpu" and library != "torch":
        specs += openvino_specs(graphics=device == "auto")
    return specs


def _allowed(device: str, engine: str) -> list[EngineSpec]:
    """List the engines of this machine that match the user's request."""
    if engine == "auto":
        engine = os.environ.get(ENGINE_VARIABLE, "auto")
    words = [word for word in engine.lower().replace(",", " ").split() if word != "auto"]
    library = next((word for word in words if word in LIBRARIES), None)
    precision = next((word for word in words if word in PRECISIONS), None)
    if sorted(words) != sorted(word for word in (library, precision) if word):
        raise InputError(
            f"An engine is auto, or one of {', '.join(LIBRARIES)}, or one of "
            f"{', '.join(PRECISIONS)}, or both, such as 'torch float32', got {engine!r}; choose "
            "one."
        )
    if library == "openvino" and not has_openvino():
        raise InputError(
            "OpenVINO was asked for but is not installed; install it with: pip install "
            "'napari-dino-uad[openvino]', or choose torch."
        )
    specs = available_engines(device, library)
    allowed = [
        spec
        for spec in specs
        if library in (None, spec.library) and precision in (None, spec.precision)
    ]
    if not allowed:
        raise InputError(
            f"There is no engine {engine!r} here; there are "
            f"{', '.join(spec.description for spec in specs)}; choose one of those or auto."
        )
    return allowed


def decide(measured: Sequence[Measured], allowed: Collection[str]) -> str:
    """Choose among measured engines.

    Parameters
    ----------
    measured : sequence of Measured
        The first is torch in single precision.
    allowed : collection of str
        Descriptions of the engines that may be chosen.

    Returns
    -------
    str
        Description of the fastest faithful engine. If torch in single precision is allowed, it is
        preferred unless another is clearly faster.

    Raises
    ------
    InputError
        If no allowed engine is faithful.
    """
    seconds = {
        one.engine: one.seconds
        for one in measured
        if one.engine in allowed and one.seconds is not None
    }
    if not seconds:
        reasons = (
            one.failure
            or f"{one.engine} gives other embeddings (a cosine of {one.cosine:.4f} with those of "
            f"torch in single precision, expected at least {SMALLEST_COSINE})"
            for one in measured
            if one.engine in allowed
        )
        raise InputError(
            f"No requested engine can run this backbone: {'; '.join(reasons)}; choose auto."
        )
    fastest = min(seconds, key=lambda engine: seconds[engine])
    reference = measured[0].engine
    clearly = CLEARLY_FASTER * seconds[fastest] <= seconds.get(reference, np.inf)
    return fastest if clearly else reference


def make_engine(spec: EngineSpec, backbone: Backbone) -> Engine:
    """Make an engine of a backbone.

    Raises
    ------
    InputError
        If its library is not installed.
    """
    if spec.library == "openvino" and not has_openvino():
        raise InputError(
            f"The engine {spec.description} needs OpenVINO, which is not installed; install it "
            "with: pip install 'napari-dino-uad[openvino]', or ask for --engine torch."
        )
    if spec.library == "torch":
        return TorchEngine(spec, backbone.module)
    return OpenVinoEngine(spec, backbone)
