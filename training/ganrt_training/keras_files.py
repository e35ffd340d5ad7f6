"""Files of Keras that nobody vouches for: what is in them, with nothing opened that they point to.

HDF5 can refer to other files (external links, external storage, virtual datasets; CVE-2026-1669), load plug-ins as
filters and claim sizes that it does not have (CVE-2026-0897). A zip can do the last, and name members outside of
itself. So plain arrays are copied out of both, and Keras opens the copy.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ganrt.errors import GanrtError, MissingExtra, TrainingError
from ganrt.lookalikes import looks_like
from ganrt_training.keras_config import checked_config
from ganrt_training.readers.source import is_bomb

MAX_BYTES = (1 << 31) - 1  # 2 GiB, the most that an ONNX file can hold
_MAX_CONFIG_BYTES = 16 << 20
_MAX_OBJECTS = 50_000  # groups and arrays
_MAX_NAMES = 50_000
_MAX_DEPTH = 40
_FILTERS = (1, 2, 3)  # gzip, shuffle, Fletcher's checksum: built into HDF5
_HDF5 = b"\x89HDF\r\n\x1a\n"
_OURS = ("config.json", "metadata.json", "model.weights.h5")
_NAMES = ("layer_names", "weight_names")  # of Keras 2's files: in which order the weights are

_HEAP = b"GCOL\x01\0\0\0"
_AGAIN = "Download it again, or save the model again with model.save."
_WHOLE = (
    "It holds weights without their model. Build the model, load them with model.load_weights, and save it whole: "
    'model.save("generator.keras").'
)
INSTALL = "Install the extra: pip install 'ganrt[keras]'"


@dataclass(frozen=True)
class KerasFile:
    """A file's model: its description, made safe, and its weights as an HDF5 file that holds nothing else.

    ``names`` are those of the weights of each layer, in the order of the file, where it has them (Keras 2's format).
    """

    config: dict[str, Any]
    weights: bytes
    names: dict[str, tuple[str, ...]] | None


def read_keras(data: bytes, where: str) -> KerasFile:
    """Takes the model out of the bytes of a ``.keras`` or ``.h5`` file, which errors call ``where``.

    Raises TrainingError when they are something else, hold weights alone, point out of themselves, or describe
    something else than layers of Keras; MissingExtra without h5py.
    """
    if data.startswith(b"PK\x03\x04"):
        return _read_zip(data, where)
    if data.startswith(_HDF5):
        return _read_hdf5(data, where)
    known = looks_like(data)
    found = f"looks like {known[0]}" if known and data else "is neither HDF5 nor a zip archive"
    raise TrainingError(
        f"{where}: is no file of Keras: it {found}", "Name a file that model.save wrote: .h5 or .keras."
    )


def _read_zip(data: bytes, where: str) -> KerasFile:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members: dict[str, zipfile.ZipInfo] = {}
            for member in archive.infolist():
                parts = PurePosixPath(member.filename).parts
                if "\\" in member.filename or ".." in parts or member.filename.startswith("/"):
                    _refuse(where, f"has a member {member.filename!r:.80}, outside of itself", _AGAIN)
                if member.filename in members:
                    _refuse(where, f"has two members {member.filename!r:.80}", _AGAIN)
                members[member.filename] = member
            missing = [name for name in _OURS if name not in members]
            if missing:
                _refuse(where, f"is no archive of Keras: it has no {missing[0]}", "Name a file that model.save wrote.")
            limits = (_MAX_CONFIG_BYTES, _MAX_CONFIG_BYTES, MAX_BYTES)
            found = [_member(archive, members[name], limit, where) for name, limit in zip(_OURS, limits, strict=True)]
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        _refuse(where, f"is damaged: {error}", _AGAIN)
    config, about, weights = _json(found[0], where), _json(found[1], where), found[2]
    version = about.get("keras_version") if isinstance(about, dict) else None
    checked = checked_config(config, where, keras_2=_is_keras_2(version))
    return KerasFile(checked, _with_hdf5(weights, where, lambda file: _copied(file, where)), None)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int, where: str) -> bytes:
    if member.file_size > limit:
        _refuse(where, f"its {member.filename} has {member.file_size:,} bytes; at most {limit:,} are read", _AGAIN)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        _refuse(where, f"its {member.filename} is not deflated", _AGAIN)
    if is_bomb(member.file_size, member.compress_size):
        _refuse(where, f"its {member.filename} unpacks to {member.file_size:,} bytes, to fill the memory", _AGAIN)
    with archive.open(member) as file:
        data = file.read(member.file_size + 1)
    if len(data) != member.file_size:
        _refuse(where, f"its {member.filename} is not as long as the archive says", _AGAIN)
    return data


def _read_hdf5(data: bytes, where: str) -> KerasFile:
    def take(file: Any) -> KerasFile:
        if "model_config" not in file.attrs:
            if {"layer_names", "layers", "vars", "_layer_checkpoint_dependencies"} & {*file.attrs, *file}:
                _refuse(where, "holds no description of a model (model_config)", _WHOLE)
            _refuse(where, "is no file of Keras: it has no model_config", "Name a file that model.save wrote.")
        config = _json(_text(file.attrs, "model_config", where), where)
        keras_2 = _is_keras_2(_text(file.attrs, "keras_version", where) if "keras_version" in file.attrs else None)
        checked = checked_config(config, where, keras_2=keras_2)
        if file.get("model_weights", getclass=True, getlink=True) is None:
            _refuse(where, "has no model_weights", _AGAIN)
        names: dict[str, tuple[str, ...]] = {}
        weights = _copied(file, where, top="model_weights", names=names)
        return KerasFile(checked, weights, names)

    found: KerasFile = _with_hdf5(data, where, take)
    return found


def _check_heaps(data: bytes, where: str) -> None:
    """Refuses a global heap, which holds texts, with an object of no length: HDF5 would look at it for ever.

    HDF5 File Format Specification 3.0, III.E: signature, version, size; objects of 16 bytes and more, free space too.
    """
    steps, at = 0, data.find(_HEAP)
    while at >= 0:
        here, end = at + 16, min(len(data), at + int.from_bytes(data[at + 8 : at + 16], "little"))
        while here + 16 <= end:
            index, length = (int.from_bytes(data[a:b], "little") for a, b in ((here, here + 2), (here + 8, here + 16)))
            step = 16 + -(-length // 8) * 8 if index else length
            steps += 1
            if step < 16 or steps > len(data) // 16:
                _refuse(where, "is a damaged HDF5 file: a heap that does not end", _AGAIN)
            here += step
        at = data.find(_HEAP, at + 1)


def _with_hdf5(data: bytes, where: str, take: Callable[[Any], Any]) -> Any:
    h5py = _h5py()
    _check_heaps(data, where)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return take(file)
    except GanrtError:
        raise
    except Exception as error:  # HDF5 and h5py raise errors of all types on damaged files
        _refuse(where, f"is damaged: {error!s:.200}", _AGAIN)


def _copied(file: Any, where: str, *, top: str = "", names: dict[str, tuple[str, ...]] | None = None) -> bytes:
    """The group ``top`` of a file, as a file of its own. ``names`` receives those of each layer's weights."""
    h5py = _h5py()
    counted = [0, 0, 0]  # objects, bytes, bytes as they lie in the file

    def walk(group: Any, into: Any, path: str, depth: int) -> None:
        for key in _NAMES if names is not None else ():
            for attribute in [name for name in group.attrs if name.removeprefix(key).isdigit() or name == key]:
                _check_attribute(group.attrs, attribute, where)
                listed = [_decoded(name) for name in np.atleast_1d(group.attrs[attribute])]
                into.attrs.create(attribute, np.array([name.encode() for name in listed] or [], dtype="S"))
        for key in ("keras_version", "backend") if not depth else ():
            if key in group.attrs:
                into.attrs[key] = _text(group.attrs, key, where)
        for name in group:
            at = f"{path}/{name}"
            if not depth and not top and name == "optimizer":
                continue
            counted[0] += 1
            if counted[0] > _MAX_OBJECTS or depth > _MAX_DEPTH:
                _refuse(where, f"has more than {_MAX_OBJECTS:,} groups and arrays, or nested too deeply", _AGAIN)
            found = opened(group, name, at)
            if isinstance(found, h5py.Group):
                walk(found, into.create_group(name), at, depth + 1)
            elif isinstance(found, h5py.Dataset):
                into.create_dataset(name, data=_array(found, f"{where}: {at}", counted))
            else:
                _refuse(where, f"{at} is neither a group nor an array", _AGAIN)

    def opened(group: Any, name: str, at: str) -> Any:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            _refuse(where, f"{at} is a link to another file, {link.filename!r:.80}, which is not opened", _AGAIN)
        if not isinstance(link, h5py.HardLink):
            _refuse(where, f"{at} is a link by name, which files of Keras do not have", _AGAIN)
        return group[name]

    copy = io.BytesIO()
    with h5py.File(copy, "w") as made:
        source = opened(file, top, top) if top else file
        if not isinstance(source, h5py.Group):
            _refuse(where, f"{top} is no group", _AGAIN)
        walk(source, made, top, 0)
        if names is not None:
            for layer in _listed(made.attrs, "layer_names"):
                names[layer] = tuple(_listed(made[layer].attrs, "weight_names"))
    return copy.getvalue()


def _array(dataset: Any, at: str, counted: list[int]) -> NDArray[Any]:
    h5py = _h5py()
    plist = dataset.id.get_create_plist()
    if plist.get_external_count() or plist.get_layout() == h5py.h5d.VIRTUAL:
        raise TrainingError(f"{at} keeps its numbers in another file, which is not opened", _AGAIN)
    filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    if not set(filters) <= set(_FILTERS):
        raise TrainingError(f"{at} is compressed by a plug-in (filter {filters[-1]})", _AGAIN)
    kind = dataset.dtype
    if kind.kind not in "fiu" or kind.itemsize > 8 or dataset.shape is None:
        raise TrainingError(f"{at} holds {kind}, not numbers", _AGAIN)
    counted[1] += int(np.prod(dataset.shape, dtype=object)) * kind.itemsize
    if counted[1] > MAX_BYTES:
        raise TrainingError(f"{at}: the weights have more than {MAX_BYTES:,} bytes", _AGAIN)
    counted[2] += dataset.id.get_storage_size()
    if is_bomb(*counted[1:]):
        raise TrainingError(f"{at}: the weights unpack to {counted[1]:,} bytes, to fill the memory", _AGAIN)
    return np.asarray(dataset[()])


def _check_attribute(attributes: Any, name: str, where: str) -> None:
    found = attributes.get_id(name)
    count = int(np.prod(found.shape or (1,), dtype=object))
    if count > _MAX_NAMES or count * found.dtype.itemsize > _MAX_CONFIG_BYTES:
        _refuse(where, f"its attribute {name} is too large", _AGAIN)


def _text(attributes: Any, name: str, where: str) -> str:
    _check_attribute(attributes, name, where)
    return _decoded(attributes[name])


def _decoded(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is no text")
    return value


def _listed(attributes: Any, name: str) -> list[str]:
    """A list of names; Keras 2 spreads long ones over attributes with numbers."""
    if name in attributes:
        return [_decoded(value) for value in attributes[name]]
    found: list[str] = []
    number = 0
    while f"{name}{number}" in attributes:
        found += [_decoded(value) for value in attributes[f"{name}{number}"]]
        number += 1
    return found


def _json(text: str | bytes, where: str) -> Any:
    if len(text) > _MAX_CONFIG_BYTES:
        _refuse(where, f"its description has more than {_MAX_CONFIG_BYTES:,} bytes", _AGAIN)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(where, f"its description cannot be read as JSON: {error}", _AGAIN)


def _is_keras_2(version: object) -> bool:
    return not isinstance(version, str) or version.split(".")[0] in ("1", "2")


def _refuse(where: str, what: str, hint: str) -> NoReturn:
    raise TrainingError(f"{where}: {what}", hint)


def in_order(weights: bytes, layers: Sequence[str]) -> bytes:
    """The weights of a KerasFile with ``names``, for a reader that takes ``layers`` in this order."""
    copy = io.BytesIO(weights)
    with _h5py().File(copy, "r+") as file:
        for name in [name for name in file.attrs if name.startswith("layer_names")]:
            del file.attrs[name]
        file.attrs.create("layer_names", [layer.encode() for layer in layers], dtype=_h5py().string_dtype())
    return copy.getvalue()


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("reading files of Keras needs h5py, which is not installed", INSTALL) from error
    return h5py
