"""Pixels of every mode that Pillow knows, as 8-bit RGB."""

from __future__ import annotations

from typing import Iterator

import numpy as np
from PIL import Image

# Pixels that are converted at a time, which bounds the memory for intermediate copies.
_STRIP_PIXELS = 1000 * 1000

# Cameras and scanners store 10 and 12 bits a sample in files of 16.
_SHALLOW_BITS = (10, 12)


def to_rgb(image: Image.Image) -> np.ndarray:
    """A loaded Pillow image as uint8 [height, width, 3].

    Transparent parts show white. Samples of more than 8 bits are scaled to 8.
    """
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    deep = image.mode.startswith("I;16") or image.mode in ("I", "F")
    scale = _deep_scale(image) if deep else np.float32(1)
    opaque = _has_unused_alpha(image)
    for top, strip in _strips(image):
        rows = pixels[top:top + strip.height]
        if deep:
            rows[...] = _scaled(np.array(strip, np.float32), scale)[:, :, np.newaxis]
        else:
            rows[...] = _strip_to_rgb(strip, opaque)
    return pixels


def _has_unused_alpha(image: Image.Image) -> bool:
    """Whether a BMP's fourth channel is all zero: many programs leave it unset."""
    return (image.format == "BMP" and image.mode == "RGBA"
            and image.getchannel("A").getextrema() == (0, 0))


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image from top to bottom in strips of full width, each with its first row."""
    height = max(1, _STRIP_PIXELS // image.width)
    if height >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, height):
        yield top, image.crop((0, top, image.width, min(top + height, image.height)))


def _strip_to_rgb(image: Image.Image, opaque: bool) -> np.ndarray:
    """An image of 8 bits a sample as uint8 [height, width, 3]."""
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if has_alpha and not opaque:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _deep_scale(image: Image.Image) -> np.float32:
    """What to multiply a grey image of more than 8 bits by."""
    highest, fractional = 0.0, False
    for _, strip in _strips(image):
        grey = np.nan_to_num(np.array(strip, np.float32), copy=False)
        highest = max(highest, float(grey.max()))
        fractional = fractional or (highest <= 1 and bool((grey % 1).any()))
    if highest <= 1 and fractional:
        return np.float32(255)
    return scale_of(highest)


def scale_of(highest: float) -> np.float32:
    """The factor to 8 bits for samples up to ``highest``, which tells how many bits they have."""
    if highest <= 255:
        return np.float32(1)
    for bits in _SHALLOW_BITS:
        if highest < 2 ** bits:
            return np.float32(255) / (2 ** bits - 1)
    return np.float32(1) / 257


def _scaled(samples: np.ndarray, scale: np.float32) -> np.ndarray:
    """Samples of any range, float32 and overwritten, as uint8."""
    samples = np.nan_to_num(samples, copy=False)
    samples *= scale
    return np.clip(np.rint(samples, out=samples), 0, 255, out=samples).astype(np.uint8)


def scale_shallow(samples: np.ndarray) -> np.ndarray:
    """Colours of 10 or 12 bits, uint16 [height, width, 3], as uint8 of the same shape."""
    pixels = np.empty(samples.shape, np.uint8)
    scale = scale_of(float(samples.max()))
    for source, target in zip(samples, pixels):
        target[...] = _scaled(source.astype(np.float32), scale)
    return pixels
