"""The table of methods: every kind of model that can be fitted, by its key."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_dino_uad.core.errors import InputError

if TYPE_CHECKING:
    from napari_dino_uad.core.normative.base import NormativeModel

__all__ = [
    "BASELINES",
    "KNOWN",
    "METHODS",
    "Method",
    "find_method",
    "members_of",
    "new_config",
    "new_normative",
]


@dataclass(frozen=True)
class Method:
    """A method: a kind of model of normal appearance.

    Classes are given by name, because importing them imports torch, and listing must not.

    Attributes
    ----------
    key : str
        The name users type.
    title : str
        The name shown to users.
    module, model, config : str
        Module of the model class and the settings class, and the names of both.
    """

    key: str
    title: str
    module: str
    model: str
    config: str

    def model_class(self) -> type[NormativeModel]:
        """Import the model class."""
        kind: type[NormativeModel] = getattr(import_module(self._path), self.model)
        return kind

    def config_class(self) -> type[Any]:
        """Import the settings class."""
        kind: type[Any] = getattr(import_module(self._path), self.config)
        return kind

    @property
    def _path(self) -> str:
        return f"napari_dino_uad.core.normative.{self.module}"


_TABLE = (
    Method("dpmm", "DPMM: Dirichlet mixture", "mixture.dpmm", "DPMM", "DPMMConfig"),
    Method(
        "ar",
        "AR: predictive network",
        "autoregressive.model",
        "Autoregressive",
        "AutoregressiveConfig",
    ),
    Method("memory-bank", "Memory bank", "memory_bank", "MemoryBank", "MemoryBankConfig"),
    Method("fusion", "Fusion of models", "fusion", "Fusion", "FusionConfig"),
)

#: Every method that users choose from, by key.
METHODS: dict[str, Method] = {method.key: method for method in _TABLE}

#: Methods that the benchmarks compare the others with.
BASELINES: dict[str, Method] = {
    "mean": Method("mean", "Mean embedding", "mean", "MeanEmbedding", "MeanConfig")
}

#: Every method that a model file may hold, by key.
KNOWN: dict[str, Method] = METHODS | BASELINES


def find_method(key: str) -> Method:
    """Look up a method.

    Raises
    ------
    InputError
        If there is no such method; the message lists the choices.
    """
    try:
        return KNOWN[key]
    except KeyError as error:
        raise InputError(
            f"There is no method {key!r}; choose one of {', '.join(METHODS)}."
        ) from error


def new_normative(key: str, seed: int, settings: dict[str, Any]) -> NormativeModel:
    """Build an unfitted model.

    Parameters
    ----------
    key : str
        A key of `METHODS`.
    seed : int
        Seed of the fit; the same seed gives the same model.
    settings : dict
        Values for fields of the method's settings class.

    Raises
    ------
    InputError
        If the method or a setting is unknown, or a value is out of range.
    """
    build: Any = find_method(key).model_class()
    model: NormativeModel = build(new_config(key, seed, settings))
    return model


def new_config(key: str, seed: int, settings: dict[str, Any]) -> Any:
    """Build the settings of a method, with the same arguments and errors as `new_normative`.

    Returns
    -------
    object
        A dataclass of the method.
    """
    config = find_method(key).config_class()
    unknown = settings.keys() - config.__dataclass_fields__.keys()
    if unknown:
        raise InputError(
            f"The method {key} has no setting {sorted(unknown)[0]!r}; it has "
            f"{', '.join(config.__dataclass_fields__)}."
        )
    return config(seed=seed, **settings)


def members_of(normative: NormativeModel) -> dict[str, NormativeModel]:
    """Return the models that a score is made of, by method: a fusion's members, or the model."""
    found: dict[str, NormativeModel] = getattr(normative, "members_", {})
    return dict(found) or {normative.method: normative}
