"""The networks by whose features images are compared: any ONNX file, ganrt's own classifiers, Inception-v3.

A file is given by its path, or by its name where it lies in the folder ``features`` of a folder of GANRT_MODELS or of
the shipped generators. How it is fed may follow, each option after a colon (no character that a shell takes apart):

    resnet50.onnx:mean=0.485,0.456,0.406:std=0.229,0.224,0.225:features=pooled

================ =====================================================================================================
``range=B,W``    what black and white become, before mean and std; 0,1 unless it is said
``mean=``        subtracted then, one number or one a channel; 0
``std=``         divided by then, one number or one a channel; 1
``size=``        side, or HEIGHTxWIDTH, that images are resized to, for a network that takes any size
``layout=``      nchw or nhwc, where the shape of the input does not tell
``features=``    the output that holds the features [N, D]; "features", or the only one that can be meant
``logits=``      the output that holds the logits [N, K]; "logits", if there is one
================ =====================================================================================================

A network that takes uint8 is given the pixels as they are; ganrt's own classifiers do. Images of another size are
resized bilinearly, antialiased, by Pillow; grey images are repeated for a network of three channels, coloured ones
made grey for a network of one. ``about`` of a network says all of this.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ganrt.errors import UnknownModel, UsageError
from ganrt.models import FEATURES, is_path, model_folders, shipped_folders
from ganrt.network import MAX_THREADS
from ganrt.providers import parse_device
from ganrt.shards import require
from ganrt.values import path_of, told
from ganrt_training.evaluation.features import FeatureNetwork, Seen
from ganrt_training.evaluation.feed import Options
from ganrt_training.evaluation.onnx_network import open_file, read_network

__all__ = ["INCEPTION", "FeatureNetwork", "Seen", "digest_of", "feature_folders", "open_network", "shipped_for"]

INCEPTION = "inception-v3"


def open_network(
    name_or_path: str | os.PathLike[str],
    *,
    weights: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> FeatureNetwork:
    """A network to look at images with: ``inception-v3`` with its ``weights``, or an ONNX file by name or path.

    Options on how an ONNX file is fed may follow its name: see above. ``threads`` are those of a CPU.

    Raises UnknownModel when there is no such file; UsageError for options that cannot be meant, or where one is needed;
    ContractError for a file that is not run, or is no network of images; TrainingError for weights that are no
    Inception-v3's; DeviceUnavailable; InferenceError when the network fails on a first image.
    """
    parse_device(device)
    threads = None if threads is None else require("threads", threads, 1, MAX_THREADS)
    name: str | os.PathLike[str] = name_or_path
    options = Options()
    if isinstance(name_or_path, str):
        name, options = Options.parse(name_or_path)
    if name == INCEPTION:
        from ganrt_training.evaluation.inception import open_inception

        if options != Options():
            raise UsageError(f"options do not apply to {INCEPTION}", "Its weights say how it is fed; leave them out.")
        if weights is None:
            raise UsageError(f"{INCEPTION} needs its weights", f"Name their file (--weights FILE): {WEIGHTS}")
        return open_inception(path_of("weights", weights), device, threads)
    if weights is not None:
        raise UsageError(
            f"weights do not apply to {told(os.fspath(name))}", f"They belong to {INCEPTION}; leave them out."
        )
    return open_file(_find(name), options, device, threads)


# Which weights of Inception-v3 are known, for messages.
WEIGHTS = (
    "torchvision's inception_v3_google-*.pth, or pytorch-fid's pt_inception-2015-12-05-*.pth, whose features are those "
    "of published FIDs."
)


def shipped_for(class_names: Sequence[str], size: tuple[int, int], channels: int) -> str | None:
    """The name of the shipped classifier of exactly these classes, for images of this (height, width) and channels."""
    for folder in shipped_folders():
        for path in sorted((folder / FEATURES).glob("*.onnx")):
            file = read_network(path)
            if (file.class_names, file.size, file.channels) == (tuple(class_names), tuple(size), channels):
                return path.stem
    return None


def digest_of(network: FeatureNetwork) -> str | None:
    """``sha256:…`` of a network's file or weights, where they are known."""
    digest = network.about.get("digest")
    return digest or (f"sha256:{network.about['sha256']}" if "sha256" in network.about else None)


def feature_folders() -> Iterator[Path]:
    """Where networks are looked for by name: beside the generators, in ``features``."""
    return (folder / FEATURES for folder in model_folders())


def _find(name: str | os.PathLike[str]) -> Path:
    if is_path(name):
        return path_of("network", name)
    if not name:
        raise UsageError("a network with no name", f"Name a PATH.onnx, or {INCEPTION} with --weights FILE.")
    for folder in feature_folders():
        path = folder / f"{os.fspath(name)}.onnx"
        if path.is_file():
            return path
    names = sorted({path.stem for folder in feature_folders() for path in folder.glob("*.onnx")} | {INCEPTION})
    near = difflib.get_close_matches(os.fspath(name), names, 1)
    raise UnknownModel(
        f"no feature network named {told(name)}",
        (f"Did you mean {near[0]}? " if near else "")
        + f"There are: {', '.join(names)}. A file is given by its path, as in ./{name}.onnx.",
    )
