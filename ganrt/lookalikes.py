"""What a file that is no ONNX model looks like, and what its owner can do: by its first bytes."""

from __future__ import annotations

_CHECKPOINT = (
    "It holds weights without their network. Where the network's code is, export the generator with\n"
    "torch.onnx.export, then make it fit: ganrt export FILE.onnx --range=-1,1 --out fitting.onnx"
)
_CONVERT = (
    "Convert it with tf2onnx (python -m tf2onnx.convert {option} FILE --output FILE.onnx), then make it fit:\n"
    "ganrt export FILE.onnx --range=-1,1 --out fitting.onnx"
)
_KERAS = _CONVERT.format(option="--keras")
_UNPACK = "Unpack it and give the .onnx file inside."
_NO_MODEL = "Give the path of an .onnx file."

# Offset, bytes, name, hint. The zeros are the high bytes of a length, which no ONNX file has there.
_MAGIC = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes (.h5)", _KERAS),
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer", "Fetch the file itself: git lfs pull"),
    (2, b"\0\0TFL3", "a TensorFlow Lite model", _CONVERT.format(option="--tflite")),
    (2, b"\0\0ORTM", "ONNX Runtime's own format (.ort)", "Give the .onnx file it was made from."),
    (0, b"GGUF", "a GGUF file", _CHECKPOINT),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", _NO_MODEL),
    (0, b"\xff\xd8\xff", "a JPEG image", _NO_MODEL),
    (4, b'\0\0\0\0{"', "a safetensors file", _CHECKPOINT),
)
_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r\f")


def looks_like(data: bytes) -> tuple[str, str] | None:
    """What a file is, when it is plainly something else than an ONNX model, and what to do; else None."""
    head = data[:1024]
    if head.startswith(b"PK\x03\x04"):
        # The name of the first member of a zip stands at byte 30.
        if b"/data.pkl" in head or b"/byteorder" in head:
            return "a PyTorch checkpoint (.pt, .pth)", _CHECKPOINT
        if b"metadata.json" in head[30:60] or b"config.json" in head[30:60]:
            return "a Keras model (.keras)", _KERAS
        return "a zip archive", _UNPACK
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "a Python pickle, as PyTorch and StyleGAN write (.pkl, .pt)", _CHECKPOINT
    for offset, magic, name, hint in _MAGIC:
        if head.startswith(magic, offset):
            return name, hint
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page", "It is probably the page of a login or an error: download the file itself."
    if _TEXT.issuperset(head):
        return "a text file", _NO_MODEL
    return None
