"""One image of any kind and size → uint8 [size, size, C]."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor, UnidentifiedImageError

from ganrt.decoding import flat, upright
from ganrt.encode import RESAMPLE, to_mode
from ganrt.errors import UsageError
from ganrt_training.readers.source import Pixels, Unusable

Colour = tuple[int, int, int]


def colour(text: str) -> Colour:
    """``#rrggbb`` or a name that Pillow knows (CSS's) as RGB. Raises UsageError."""
    wrong = UsageError(f"background {text!r}", "Expected a colour's name, such as white, or #rrggbb.")
    try:
        values = ImageColor.getrgb(text)
    except ValueError:
        raise wrong from None
    if len(values) != 3:
        raise wrong
    return values


def decoded(data: bytes, size: int, mode: str | None, background: Colour) -> Pixels:
    """An image file as uint8 [size, size, C].

    The short side becomes ``size``, the middle of the long one stays. C is 1 for mode ``l`` and where every pixel
    is grey, else 3 (a grey image broadcasts to ``rgb``). Raises Unusable.
    """
    try:
        image = _cropped(flat(upright(data), background), size)
    except (MemoryError, Unusable):
        raise
    except UnidentifiedImageError:
        raise Unusable("no image of a kind that is read") from None
    except Exception as error:  # decoders raise errors of all types on damaged files
        raise Unusable(str(error).partition("\n")[0] or type(error).__name__) from error
    if mode == "l":
        image = image.convert("L")
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels[..., None]
    return pixels[..., :1] if is_grey(pixels) else pixels


def fitted(images: Pixels, size: int, mode: str | None, background: Colour) -> Pixels:
    """Images uint8 [N, H, W, 1|3|4], made to fit likewise; C is what it was, or as ``mode`` says."""
    if images.shape[3] == 4:
        alpha = images[..., 3:].astype(np.uint16)
        mixed = images[..., :3] * alpha + np.array(background, np.uint16) * (255 - alpha)
        images = ((mixed + 127) // 255).astype(np.uint8)
    fits = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for image, fit in zip(images, fits, strict=True):
        whole = Image.fromarray(image[..., 0] if image.shape[2] == 1 else np.ascontiguousarray(image))
        fit[:] = np.asarray(_cropped(whole, size)).reshape(fit.shape)
    return fits if mode is None else to_mode(fits, mode)


def is_grey(pixels: Pixels) -> bool:
    """Whether red, green and blue [..., 3] are equal everywhere."""
    return bool((pixels[..., :1] == pixels[..., 1:]).all())


def _cropped(image: Image.Image, size: int) -> Image.Image:
    """Resized until the short side has ``size``, and the middle of it; without making what is cut off."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    if short == size:
        return image.crop((int(left), int(top), int(left) + size, int(top) + size))
    return image.resize((size, size), RESAMPLE["lanczos"], box=(left, top, left + short, top + short))
