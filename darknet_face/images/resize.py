"""Scale images: by OpenCV, or where it is not installed by NumPy, to the same pixels.

Of these a few in a hundred differ by one level of 255. OpenCV takes a fifth of the time, of which
photographs of many megapixels need some.
"""

from __future__ import annotations

import typing

import numpy as np

try:
    import cv2
except ImportError:
    cv2 = typing.cast(typing.Any, None)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Stretch an image to ``height`` x ``width`` without keeping the aspect ratio.

    Pixel areas are averaged if the image shrinks along both axes; otherwise it is interpolated
    linearly.

    Parameters
    ----------
    image
        uint8 or float32, [any height, any width, ..].
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    if cv2:
        return cv2.resize(
            image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    scale_rows = _average_rows if shrinks else _interpolate_rows
    rows = scale_rows(image, height).swapaxes(0, 1)
    scaled = scale_rows(np.ascontiguousarray(rows), width).swapaxes(0, 1)
    if image.dtype == np.uint8:
        np.rint(scaled, out=scaled)
    return np.ascontiguousarray(scaled, dtype=image.dtype)


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """An image whose longer side has at most ``longest`` pixels: the same, or scaled down."""
    scale = min(1.0, longest / max(image.shape[:2]))
    return resize(image, *(max(1, int(round(side * scale))) for side in image.shape[:2]))


def _average_rows(array: np.ndarray, count: int) -> np.ndarray:
    """Shrink along the first axis: the mean of the rows that a new one covers, float32."""
    rows = len(array)
    if rows == count:
        return array.astype(np.float32)
    # A new row begins within an old one, whose part before it belongs to the new row above.
    begins, parts = np.divmod(np.arange(count + 1) * rows, count)
    sums = np.add.reduceat(array, begins[:-1], axis=0, dtype=np.float32)
    shares = (parts / np.float32(count)).reshape(-1, *[1] * (array.ndim - 1)).astype(np.float32)
    before = array[np.minimum(begins, rows - 1)] * shares
    return (sums - before[:-1] + before[1:]) * np.float32(count / rows)


def _interpolate_rows(array: np.ndarray, count: int) -> np.ndarray:
    """Scale along the first axis, between the two rows that are nearest; float32."""
    places = (np.arange(count) + 0.5) * len(array) / count - 0.5
    places = np.clip(places, 0, len(array) - 1)
    above = places.astype(int)
    shares = (places - above).reshape(-1, *[1] * (array.ndim - 1)).astype(np.float32)
    below = array[np.minimum(above + 1, len(array) - 1)]
    return array[above] * (1 - shares) + below * shares
