"""Frames → GIF, animated WebP or mp4."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ganrt.encode import Pixels, resize
from ganrt.errors import MissingExtra, UsageError
from ganrt.files import storage_error, write_synced

SIDE = 256  # pixels that the shorter side of small images is enlarged to at least
MAX_FPS = 50  # a GIF counts hundredths of a second, and browsers slow down what is faster


def shown_size(path: Path, width: int, height: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """Width and height of an animation's frames: ``size``, else those of the images times a whole number.

    It is the smallest that makes the shorter side 256 at least. An mp4's sides are even, since h264 in yuv420p halves
    those of its colours. Raises UsageError for an odd ``size`` in an mp4.
    """
    even = path.suffix.lower() == ".mp4"
    if size is not None:
        if even and (size[0] % 2 or size[1] % 2):
            wanted = "x".join(str(side + side % 2) for side in size)
            raise UsageError(f"size {size[0]}x{size[1]}", f"An mp4 (h264) has even sides: --size {wanted}")
        return size
    times = max(1, -(-SIDE // min(width, height)))
    if even and times * width % 2 + times * height % 2:
        times += 1
    return times * width, times * height


def enlarged(images: Pixels, size: tuple[int, int]) -> Pixels:
    """uint8 [N, H, W, C] at (width, height): pixels repeated where both sides are whole multiples, else Lanczos."""
    _, height, width, _ = images.shape
    whole = size[0] % width == 0 and size[1] % height == 0
    return resize(images, size, "nearest" if whole else "lanczos")


def write_animation(path: Path, frames: Iterable[Pixels], fps: int, loop: bool) -> None:
    """Writes frames uint8 [H, W, C], all of one size, by the path's ending; whole or not at all.

    A frame of a GIF has 256 colours of its own, without dithering: exact for grey. WebP is lossless. mp4 is h264, for
    which the extra ``video`` is needed. ``loop`` makes GIF and WebP start again for ever; for an mp4 players decide.

    Raises MissingExtra, StorageError.
    """
    data = WRITERS[path.suffix.lower()](frames, fps, loop)
    try:
        write_synced(path, data)
    except OSError as error:
        raise storage_error(error) from error


def check_writer(path: Path) -> None:
    """Raises UsageError for a file that cannot be written, and MissingExtra, before there is any work."""
    if path.suffix.lower() not in (*WRITERS, ".png"):
        raise UsageError(
            f"{os.fspath(path)} ends in none of {', '.join(WRITERS)} and .png", "Name an animation, or a strip in PNG."
        )
    if not os.path.isdir(path.parent):
        raise UsageError(f"{path.parent} is no folder", "Make it first, or write the file somewhere else.")
    if path.suffix.lower() == ".mp4":
        _need_video()


def _gif(frames: Iterable[Pixels], fps: int, loop: bool) -> bytes:
    return _animated("GIF", map(_with_palette, frames), fps, loop, {"optimize": False, "disposal": 1})


def _webp(frames: Iterable[Pixels], fps: int, loop: bool) -> bytes:
    images = (Image.fromarray(np.repeat(f, 3, axis=2) if f.shape[2] == 1 else f) for f in frames)
    return _animated("WEBP", images, fps, loop, {"lossless": True, "method": 2})


def _animated(kind: str, images: Iterator[Image.Image], fps: int, loop: bool, options: dict[str, int | bool]) -> bytes:
    file, first = io.BytesIO(), next(images)
    # 0 is for ever. A GIF without a number is shown once; a WebP says 1.
    repeat = {"loop": 0} if loop else {"loop": 1} if kind == "WEBP" else {}
    first.save(file, kind, save_all=True, append_images=images, duration=round(1000 / fps), **repeat, **options)
    return file.getvalue()


def _with_palette(frame: Pixels) -> Image.Image:
    """A frame in 256 colours of its own: grey exactly, RGB in those that median cut picks, without dithering."""
    if frame.shape[2] == 1:
        return Image.fromarray(frame[:, :, 0])
    return Image.fromarray(frame).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _mp4(frames: Iterable[Pixels], fps: int, loop: bool) -> bytes:
    _need_video()
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "16", "preset": "medium"})
        stream.pix_fmt = "yuv420p"  # what every player and browser shows
        for frame in frames:
            if not stream.codec_context.is_open:
                stream.height, stream.width = frame.shape[:2]
            rgb = np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _need_video() -> None:
    try:
        import av  # noqa: F401
    except ImportError:
        raise MissingExtra("mp4 needs the package av", "Install the extra: pip install 'ganrt[video]'") from None


WRITERS: dict[str, Callable[[Iterable[Pixels], int, bool], bytes]] = {".gif": _gif, ".webp": _webp, ".mp4": _mp4}
