"""Files of a run folder: snapshots (weights for use) and the checkpoint (state for resume)."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ganrt.card import MAX_CLASSES
from ganrt.errors import TrainingError
from ganrt.files import write_synced
from ganrt_training.gans import recipe_from_settings
from ganrt_training.readers.source import check_file, shown
from ganrt_training.recipe import Recipe
from ganrt_training.run_folder import BEST
from ganrt_training.torch_files import Damaged, Refused, read_checkpoint


@dataclass(frozen=True)
class Trained:
    """A generator as a snapshot holds it, with what the run says of it.

    ``generator`` is in inference mode on the CPU; ``digest`` is ``sha256:`` and the file's digest.
    """

    generator: nn.Module
    recipe: Recipe
    channels: int
    class_names: tuple[str, ...]
    kimg: float
    digest: str


def save_snapshot(path: Path, weights: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    """Weights as safetensors, with ``about`` in its metadata.

    ``run`` in it, JSON, gets a digest, as the format has none; within it, since several entries come in any order.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    run = json.loads(about["run"])
    told = json.dumps(run | {"digest": _digest(tensors, run)})
    write_synced(path, safetensors.torch.save(tensors, metadata=about | {"run": told}))


def _digest(weights: dict[str, torch.Tensor], run: dict[str, Any]) -> str:
    """Of the weights and of what is said of them."""
    rest = {key: value for key, value in run.items() if key != "digest"}
    state = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        state.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{state.hexdigest()}"


def load_snapshot(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The weights and their metadata. Raises TrainingError when the file is no snapshot."""
    check_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise TrainingError(
            f"{path}: not a snapshot: {error}", "Expected a safetensors file of a run folder."
        ) from None
    try:
        run = json.loads(about["run"])
        changed = "digest" in run and run["digest"] != _digest(weights, run)  # older ones have none
    except (KeyError, TypeError, ValueError, RecursionError):
        changed = False  # whoever needs it says what is wrong
    if changed:
        raise TrainingError(
            f"{path}: has changed since it was written: its digest is another", "Use another snapshot of the run."
        )
    return weights, about


def find_snapshot(source: Path) -> Path:
    """``source`` itself when it is a file; the best snapshot of a run folder, else the latest. Else TrainingError."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise TrainingError(f"{source}: no such file or folder", "Name a run folder or one of its snapshots.")
    if (source / BEST).is_file():
        return source / BEST
    latest = latest_snapshot(source)
    if latest is None:
        raise TrainingError(
            f"{source}: no snapshot-*.safetensors in it",
            "A run writes its first one after tick_kimg thousand images: train it further, or name a run folder.",
        )
    return latest


def latest_snapshot(run_dir: Path) -> Path | None:
    """The numbered snapshot of a run folder that was shown most images, if there is one."""
    numbered = [
        (int(number), path)
        for path in run_dir.glob("snapshot-*.safetensors")
        if (number := path.stem.removeprefix("snapshot-")).isdecimal()
    ]
    return max(numbered)[1] if numbered else None


def load_generator(path: Path) -> Trained:
    """Builds the generator of a snapshot anew. The file is trusted with nothing but its numbers.

    Raises TrainingError when the file is no snapshot, when this ganrt has no such recipe, and when the
    weights are not those of the recipe's generator, with the names of the first that are wrong.
    """
    weights, metadata = load_snapshot(path)
    try:
        about = json.loads(metadata["run"])
        channels, names, kimg = about["channels"], about["class_names"], about["kimg"]
        settings = about["recipe"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"{path}: its metadata does not say how it was trained ({type(error).__name__}: {error})",
            "Expected a snapshot written by ganrt train.",
        ) from None
    if (
        type(channels) is not int
        or channels not in (1, 3)
        or not isinstance(names, list)
        or len(names) > MAX_CLASSES
        or not all(isinstance(name, str) for name in names)
        or type(kimg) not in (int, float)
        or not 0 <= kimg < 1e12
    ):
        raise TrainingError(
            f"{path}: its metadata holds channels {channels!r:.40}, class_names {names!r:.60}, kimg {kimg!r:.40}",
            "Expected 1 or 3 channels, a list of names, and a number.",
        )
    try:
        recipe = recipe_from_settings(settings)
    except TrainingError as error:
        raise TrainingError(f"{path}: {error.message}", error.hint) from None
    with torch.device("meta"):  # shapes only: whatever the settings ask for, nothing is allocated
        generator, _ = recipe.build(recipe, channels, len(names))
    if wrong := differences(generator.state_dict(), weights):
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise TrainingError(
            f"{path}: not the weights of {recipe.name}'s generator: {'; '.join(wrong[:5])}{more}",
            "Use the ganrt that trained it, or another snapshot.",
        )
    generator.load_state_dict(weights, assign=True)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Trained(generator.eval(), recipe, channels, tuple(names), float(kimg), f"sha256:{digest}")


def differences(expected: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """How weights differ from those that a network has, by names, kinds and shapes; in words."""

    def shown(tensor: Tensor) -> str:
        return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"

    missing = [f"{name} is missing" for name in expected if name not in found]
    unexpected = [f"{name} is not one of them" for name in found if name not in expected]
    other = [
        f"{name} is {shown(found[name])}, not {shown(tensor)}"
        for name, tensor in expected.items()
        if name in found and shown(found[name]) != shown(tensor)
    ]
    return missing + unexpected + other


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """State of tensors, numbers, strings, lists and dicts."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_synced(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state. Nothing in the file is executed: only tensors and plain values are read.

    Raises TrainingError when the file holds anything else.
    """
    check_file(path)
    try:
        state = read_checkpoint(path)
    except Refused as error:
        why = f"it holds Python objects besides weights ({shown(str(error))})"
    except (Damaged, OSError) as error:
        why = shown(str(error))
    else:
        if isinstance(state, dict):
            return state
        why = f"it holds a {type(state).__name__}"
    raise TrainingError(f"{path}: not a checkpoint: {why}", "Remove it to start the run from its beginning.")
