"""Images out of trained GANs: fast, labelled, reproducible.

    generator = ganrt.load("fashion")
    images = generator.sample(16)                       # uint8 [16, 28, 28, 1]
    report = ganrt.generate("fashion", n=10_000, out="aug")

Importing it loads nothing else: numpy, onnxruntime and pillow come with the first name that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ganrt.card import Card
    from ganrt.errors import (
        Cancelled,
        ContractError,
        DatasetDamaged,
        DatasetError,
        DatasetLocked,
        DatasetMismatch,
        DeviceUnavailable,
        GanrtError,
        InferenceError,
        MissingExtra,
        ModelError,
        StorageError,
        StorageFull,
        UnknownClass,
        UnknownModel,
        UsageError,
    )
    from ganrt.forecast import Forecast, forecast
    from ganrt.generation import Progress, Report, generate
    from ganrt.generator import Batch, Generator, load
    from ganrt.manifest import merge
    from ganrt.models import Model, list_models
    from ganrt.preview import preview
    from ganrt.verification import Damage, verify

_MODULES = {
    "card": ("Card",),
    "errors": (
        "Cancelled",
        "ContractError",
        "DatasetDamaged",
        "DatasetError",
        "DatasetLocked",
        "DatasetMismatch",
        "DeviceUnavailable",
        "GanrtError",
        "InferenceError",
        "MissingExtra",
        "ModelError",
        "StorageError",
        "StorageFull",
        "UnknownClass",
        "UnknownModel",
        "UsageError",
    ),
    "forecast": ("Forecast", "forecast"),
    "generation": ("Progress", "Report", "generate"),
    "generator": ("Batch", "Generator", "load"),
    "manifest": ("merge",),
    "models": ("Model", "list_models"),
    "preview": ("preview",),
    "verification": ("Damage", "verify"),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [*sorted(_WHERE), "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ganrt' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"ganrt.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
