"""Light that the augmentation throws on images: from one side, coloured, too strong, too weak."""

from __future__ import annotations

import typing

import numpy as np


def light(image: np.ndarray, rng: typing.Any, kind: str = "all") -> np.ndarray:
    """Light some of the images as lamps, the sun or the night would.

    Parameters
    ----------
    image
        uint8, [size, size, 3].
    rng
    kind
        One of :data:`LAMPS`.

    Returns
    -------
    numpy.ndarray
        uint8, [size, size, 3].
    """
    share, lamps = LAMPS[kind]
    if rng.rand() >= share:
        return image
    lamp = lamps[rng.randint(len(lamps))]
    return np.clip(lamp(image.astype(np.float32), rng), 0, 255).astype(np.uint8)


def _night(image, rng):
    return image * np.float32(rng.uniform(0.12, 0.5))


def _from_one_side(image, rng):
    """From dark to bright across the image."""
    darkest, brightest = rng.uniform(0.05, 0.6), rng.uniform(0.8, 1.3)
    return image * (darkest + (brightest - darkest) * _ramp(image, rng, rng.uniform(0.3, 1.0)))


def _half_shadow(image, rng):
    """One side in the shade, with a clear edge through the middle."""
    shade = rng.uniform(0.08, 0.5)
    return image * (shade + (rng.uniform(0.9, 1.4) - shade) * _ramp(
        image, rng, rng.uniform(0.02, 0.15), off=rng.uniform(-0.15, 0.15)))


def _coloured(image, rng):
    """One colour on one side, another on the other."""
    one, other = (rng.uniform(0.25, 1.0, 3) for _ in range(2))
    colour = one + (other - one) * _ramp(image, rng, rng.uniform(0.1, 1.0))
    return image * (colour / colour.max()).astype(np.float32) * np.float32(rng.uniform(0.7, 1.4))


def _blown_out(image, rng):
    """So much contrast that what is light is white and what is dark is black; often grey."""
    if rng.rand() < 0.6:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2)
    return (image - image.mean()) * rng.uniform(1.6, 3.2) + rng.uniform(90, 190)


def _ramp(image, rng, length, off=0.0):
    """From 0 to 1 in a random direction, over a part of the side: float32, [size, size, 1]."""
    size = image.shape[0]
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    along = (x * np.cos(angle) + y * np.sin(angle) + off) / length + 0.5
    return np.clip(along, 0, 1).astype(np.float32)[..., np.newaxis]


# By the kind of the augmentation: the share of the images that are lit, and how; what comes twice
# is twice as frequent.
LAMPS: dict[str, tuple[float, tuple[typing.Any, ...]]] = {
    "all": (0.2, (_night, _from_one_side, _from_one_side)),
    "hard": (0.3, (_night, _from_one_side, _half_shadow, _coloured, _blown_out))}
