"""Images out of trained GANs: fast, labelled, reproducible.

    generator = ganrt.load("fashion")
    images = generator.sample(16)                       # uint8 [16, 28, 28, 1]
    report = ganrt.generate("fashion", n=10_000, out="aug")
    translator = ganrt.load_translator("larger.onnx")   # an image-to-image generator of your own
    larger = translator(images)                         # uint8 [16, 56, 56, 1]
    report = ganrt.translate("larger.onnx", "photos", out="large")

Importing it loads nothing else: numpy, onnxruntime and pillow come with the first name that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ganrt.benchmark import LayoutSpeed, Speed, bench
    from ganrt.card import Card
    from ganrt.dry_run import Forecast, forecast
    from ganrt.engine import Progress, Report
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
    from ganrt.explanation import Explanation, explain
    from ganrt.generation import generate
    from ganrt.generator import Batch, Generator, load
    from ganrt.grid import preview
    from ganrt.manifest import merge
    from ganrt.models import Model, list_models
    from ganrt.style_mixing import StyleMix, style_mix
    from ganrt.translation import translate, upscale
    from ganrt.translator import Translator, load_translator
    from ganrt.verification import Damage, verify
    from ganrt.walks import interpolate

__all__ = [
    "Batch",
    "Cancelled",
    "Card",
    "ContractError",
    "Damage",
    "DatasetDamaged",
    "DatasetError",
    "DatasetLocked",
    "DatasetMismatch",
    "DeviceUnavailable",
    "Explanation",
    "Forecast",
    "GanrtError",
    "Generator",
    "InferenceError",
    "LayoutSpeed",
    "MissingExtra",
    "Model",
    "ModelError",
    "Progress",
    "Report",
    "Speed",
    "StorageError",
    "StorageFull",
    "StyleMix",
    "Translator",
    "UnknownClass",
    "UnknownModel",
    "UsageError",
    "bench",
    "explain",
    "forecast",
    "generate",
    "interpolate",
    "list_models",
    "load",
    "load_translator",
    "merge",
    "preview",
    "style_mix",
    "translate",
    "upscale",
    "verify",
]

_WHERE = {
    "Batch": "generator",
    "Cancelled": "errors",
    "Card": "card",
    "ContractError": "errors",
    "Damage": "verification",
    "DatasetDamaged": "errors",
    "DatasetError": "errors",
    "DatasetLocked": "errors",
    "DatasetMismatch": "errors",
    "DeviceUnavailable": "errors",
    "Explanation": "explanation",
    "Forecast": "dry_run",
    "GanrtError": "errors",
    "Generator": "generator",
    "InferenceError": "errors",
    "LayoutSpeed": "benchmark",
    "MissingExtra": "errors",
    "Model": "models",
    "ModelError": "errors",
    "Progress": "engine",
    "Report": "engine",
    "Speed": "benchmark",
    "StorageError": "errors",
    "StorageFull": "errors",
    "StyleMix": "style_mixing",
    "Translator": "translator",
    "UnknownClass": "errors",
    "UnknownModel": "errors",
    "UsageError": "errors",
    "bench": "benchmark",
    "explain": "explanation",
    "forecast": "dry_run",
    "generate": "generation",
    "interpolate": "walks",
    "list_models": "models",
    "load": "generator",
    "load_translator": "translator",
    "merge": "manifest",
    "preview": "grid",
    "style_mix": "style_mixing",
    "translate": "translation",
    "upscale": "translation",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ganrt' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"ganrt.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
