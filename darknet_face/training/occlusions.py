"""What the augmentation draws: cloth masks and caps, and cut-outs over backgrounds.

Faces of which only the eyes show are rare in the aligned datasets and common in everyday images.
"""

from __future__ import annotations

import typing

import cv2
import numpy as np

# Outlines on an aligned face, counter-clockwise, as shares of the image. A mask sits from the
# bridge of the nose down the cheeks to the chin, a cap on the hair with its brim over the brows.
MASK = ((0.27, 0.57), (0.5, 0.545), (0.73, 0.57), (0.72, 0.74), (0.61, 0.86), (0.5, 0.89),
        (0.39, 0.86), (0.28, 0.74))
CAP = ((0.16, 0.39), (0.35, 0.42), (0.5, 0.43), (0.65, 0.42), (0.84, 0.39), (0.78, 0.2),
       (0.65, 0.08), (0.5, 0.04), (0.35, 0.08), (0.22, 0.2))
# Share of the aligned faces that wear each, and of the non-faces that get the same shape
# anywhere, so that the shape alone does not tell the class.
SHARES = {MASK: (0.2, 0.12), CAP: (0.15, 0.09)}
STRAPS = (0, 2, 3, 7)  # the corners of a mask that are tied to the ears


def wear_cloth(square: np.ndarray, is_face: bool, rng: typing.Any) -> np.ndarray:
    """Draw a cloth mask, a cap or both on a share of the images.

    Parameters
    ----------
    square
        uint8, [size, size, 3].
    is_face
        True for an aligned face, which wears it; on another image it lies anywhere.
    rng

    Returns
    -------
    numpy.ndarray
        uint8, [size, size, 3]; ``square`` itself for most images.
    """
    for outline, (share_of_faces, share_of_others) in SHARES.items():
        if rng.rand() < (share_of_faces if is_face else share_of_others):
            points = np.array(outline, np.float32) + rng.uniform(-0.02, 0.02, (len(outline), 2))
            middle = points.mean(0)
            points = (points - middle) * rng.uniform(*((0.9, 1.08) if is_face else (0.4, 1.6)))
            points += middle if is_face else rng.uniform(0.2, 0.8, 2)
            tied = outline is MASK and rng.rand() < 0.6
            square = _draw_cloth(square, points, STRAPS if tied else (), rng)
    return square


def lay_over(cutout: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Blend an RGB-and-opacity image [size, size, 4] over a background [size, size, 3]."""
    opacity = cutout[..., 3:].astype(np.uint16)
    if opacity.min() == 255:
        return cutout[..., :3]
    mixed = cutout[..., :3] * opacity + background * (255 - opacity)
    return ((mixed + 127) // 255).astype(np.uint8)


def _draw_cloth(square, outline, straps, rng):
    """Lay cloth of some colour, with folds, over the inside of an outline (shares, [n, 2])."""
    size = square.shape[0]
    shape = np.zeros((size, size), np.uint8)
    cv2.fillPoly(shape, [(outline * size * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    y = np.arange(size, dtype=np.float32)[:, np.newaxis, np.newaxis] / size
    folds = 1 + rng.uniform(0, 0.15) * np.sin(y * rng.uniform(60, 150))
    shade = folds * (1 + rng.uniform(-0.5, 0.3) * (y - 0.7))
    # The light on the face falls on the cloth as well.
    light = cv2.GaussianBlur(square, (0, 0), size / 16).astype(np.float32).mean(2, keepdims=True)
    light = light / max(1.0, light.max())
    cloth = np.clip(_cloth_colour(rng) * shade * (0.4 + 0.6 * light), 0, 255).astype(np.uint8)
    worn = square.copy()
    for inner in outline[list(straps)]:
        outer = inner + (np.sign(inner[0] - outline[1, 0]) * rng.uniform(0.03, 0.1),
                         rng.uniform(-0.08, 0.0))
        ends: typing.Any = [
            tuple(int(each) for each in point * size) for point in (inner, outer)]
        colour = tuple(int(each) for each in cloth[size // 2, size // 2])
        cv2.line(worn, ends[0], ends[1], colour, max(1, size // 80), cv2.LINE_AA)
    return lay_over(np.dstack([cloth, cv2.GaussianBlur(shape, (0, 0), size / 200.0)]), worn)


def _cloth_colour(rng):
    """White, the blue of surgical masks, black, or any colour: float32, [3]."""
    kind = rng.rand()
    if kind < 0.3:
        return np.float32(rng.uniform(200, 255) + rng.uniform(-8, 8, 3))
    if kind < 0.55:
        return np.float32([140, 190, 220] + rng.uniform(-35, 35, 3))
    if kind < 0.7:
        return np.float32(rng.uniform(10, 60) + rng.uniform(-8, 8, 3))
    return np.float32(rng.uniform(0, 255, 3))
