"""The weights in somebody's PyTorch checkpoint, read without running anything that the file says, and fitted to a
network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ganrt.errors import TrainingError, UsageError
from ganrt_training.readers.source import check_file, shown
from ganrt_training.torch_files import Damaged, Refused, TorchScript, read_checkpoint

_MAX_DEPTH = 4  # of dicts in a checkpoint
_MAX_ENTRIES = 200_000  # of them all
_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
_SAVE_WEIGHTS = "torch.save(network.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class _Misfit:
    """How some weights differ from what a network wants."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    def __str__(self) -> str:
        told = [
            f"{what}: {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            for what, names in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another shape", self.shapes),
            )
            if names
        ]
        return "; ".join(told)


def load_weights(network: nn.Module, path: Path, key: str | None) -> str:
    """Gives a network the weights of a file and returns the key under which they were, empty for the whole file.

    The file is a checkpoint of PyTorch's (``.pt``, ``.pth``, ``.tar``, …) or ``.safetensors``, saved on any device.
    Without a ``key``, dots between its steps, the one state dict in it that fits is taken.

    Raises TrainingError for a file that holds anything but data, and for weights that do not fit, which are listed;
    UsageError for a key that is not there, and where several fit.
    """
    found = _all_state_dicts(path)
    if key is not None:
        if key not in found:
            raise UsageError(f"{path}: has no weights under the key {key!r}", f"It has: {_listed(found)}.")
        found = {key: found[key]}
    fits = {name: misfit for name, weights in found.items() if not (misfit := _misfit(network, weights))}
    if len(fits) > 1:
        same = [found[name] for name in fits]
        if not all(_equal(same[0], other) for other in same[1:]):
            raise UsageError(
                f"{path}: several weights fit: {_listed({name: found[name] for name in fits})}",
                "Say which: --key NAME. An averaged generator (ema) makes the better images.",
            )
    if not fits:
        nearest = min(found, key=lambda name: _distance(_misfit(network, found[name])))
        under = f" under the key {nearest!r}" if nearest else ""
        raise TrainingError(
            f"{path}: the weights{under} do not fit the network: {_misfit(network, found[nearest])}",
            "Is the network made with the arguments it was trained with (--torch-args)?"
            + (f" Other keys (--key): {_listed(found, but=nearest)}." if len(found) > 1 else ""),
        )
    taken = min(fits, key=len)
    fit_weights(network, found[taken])
    return taken


def read_state_dicts(path: Path) -> dict[str, dict[str, Tensor]]:
    """Every state dict in a file, by its key, without what wrappers put before names. Raises TrainingError."""
    return {key: _named(weights) for key, weights in _all_state_dicts(path).items()}


def fit_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Gives a network these weights; where they are not its own, says how they differ and changes nothing."""
    if misfit := _misfit(network, weights):
        return str(misfit)
    own = network.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith(_COUNTER)}
    network.load_state_dict({**counters, **_named(weights)})
    return ""


def _all_state_dicts(path: Path) -> dict[str, dict[str, Tensor]]:
    checkpoint = _read(path)
    if _entries(checkpoint) > _MAX_ENTRIES:
        raise TrainingError(
            f"{path}: its dicts have more than {_MAX_ENTRIES:,} entries", f"Save them so: {_SAVE_WEIGHTS}"
        )
    found = dict(_state_dicts(checkpoint))
    if not found:
        raise TrainingError(f"{path}: holds no weights by name", f"Save them so: {_SAVE_WEIGHTS}")
    return found


_COUNTER = "num_batches_tracked"  # older PyTorch did not save it, and inference does not use it


def _read(path: Path) -> Any:
    """What a checkpoint holds, as data. Raises TrainingError."""
    check_file(path)
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path, device="cpu")
        except (OSError, SafetensorError, ValueError) as error:
            raise TrainingError(f"{path}: cannot be read as safetensors: {error}", "Name another file.") from error
    try:
        return read_checkpoint(path)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}", "Name the file of the weights.") from error
    except TorchScript as error:
        raise TrainingError(
            f"{path}: is a TorchScript archive, a program and not weights, which is not run",
            f"Where it was made, save the weights: {_SAVE_WEIGHTS}, or take them out of it in code you trust: "
            f"torch.save(torch.jit.load(...).state_dict(), 'weights.pth')",
        ) from error
    except Refused as error:
        raise TrainingError(
            f"{path}: holds Python objects besides weights ({shown(str(error))}, which loading would run)",
            f"In the code that has their classes, save the weights alone: {_SAVE_WEIGHTS}",
        ) from error
    except Damaged as error:
        raise TrainingError(
            f"{path}: cannot be read as a PyTorch checkpoint: {shown(str(error))}",
            "It is damaged, cut short or something else.",
        ) from error


def _entries(value: Any, depth: int = 0) -> int:
    """How many entries there are to look at, counted up to the limit: one dict may stand in many places."""
    count = 0
    if isinstance(value, Mapping) and depth <= _MAX_DEPTH:
        for inner in value.values():
            count += 1 + _entries(inner, depth + 1)
            if count > _MAX_ENTRIES:
                break
    return count


def _state_dicts(value: Any, at: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dict of tensors in a checkpoint, with its key; those under a common first name too (Lightning's)."""
    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        return
    tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield at, tensors
        firsts = dict.fromkeys(name.partition(".")[0] for name in _named(tensors) if "." in name)
        if len(firsts) > 1 or (firsts and not at):
            for first in firsts:
                part = {k[len(first) + 1 :]: v for k, v in _named(tensors).items() if k.startswith(f"{first}.")}
                yield _below(at, first), part
    for name, inner in value.items():
        if isinstance(name, str):
            yield from _state_dicts(inner, _below(at, name), depth + 1)


def _below(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _named(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without what wrappers put before every name."""
    names = dict(weights)
    while any(names and all(name.startswith(wrapper) for name in names) for wrapper in _WRAPPERS):
        names = {name.partition(".")[2]: value for name, value in names.items()}
    return names


def _misfit(network: nn.Module, weights: Mapping[str, Tensor]) -> _Misfit:
    own, given = network.state_dict(), _named(weights)
    return _Misfit(
        missing=tuple(name for name in own if name not in given and not name.endswith(_COUNTER)),
        unexpected=tuple(name for name in given if name not in own),
        shapes=tuple(
            f"{name} {list(given[name].shape)}, not {list(own[name].shape)}"
            for name in own
            if name in given and given[name].shape != own[name].shape
        ),
    )


def _distance(misfit: _Misfit) -> tuple[int, int]:
    return len(misfit.missing) + len(misfit.shapes), len(misfit.unexpected)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    a, b = _named(one), _named(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _listed(found: Mapping[str, Mapping[str, Tensor]], but: str | None = None) -> str:
    names = [f"{name or '(the whole file)'} ({len(found[name])} tensors)" for name in found if name != but]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
