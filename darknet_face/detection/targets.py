"""What the pyramid head should say of a scene: a target for every cell, from the faces' boxes.

Each face belongs to the level whose range its longer side falls in, and there to the cells around
its centre. Source: Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", 2019
(arXiv 1904.01355), with its later centre sampling.
"""

from __future__ import annotations

import collections

import numpy as np

# stride: pixels per cell. low, high: longer sides of the faces that the level finds, in pixels.
Level = collections.namedtuple("Level", "stride low high")

LEVELS = (Level(8, 0, 32), Level(16, 32, 80), Level(32, 80, float("inf")))
RADIUS = 1.25  # strides around a face's centre: the cells in it find the face
NEARLY = 1.3  # a level whose range a face misses by less than this factor may find it or not
NUMBERS = 5  # per cell: FACE, BACKGROUND or IGNORED, then the box
FACE, BACKGROUND, IGNORED = 1, 0, -1


def count_cells(height: int, width: int) -> int:
    """Cells of all levels for an input whose sides are multiples of 32."""
    return sum((height // level.stride) * (width // level.stride) for level in LEVELS)


def encode(faces: np.ndarray, ignored: np.ndarray, size: int) -> np.ndarray:
    """The target of each cell of a square scene.

    Parameters
    ----------
    faces, ignored
        [n, 4] and [m, 4], left, top, right, bottom in pixels.
    size
        The scene's side, a multiple of 32.

    Returns
    -------
    numpy.ndarray
        float32, [cells, 5], level by level and row by row: FACE and the face's box, or BACKGROUND,
        or IGNORED and zeros.
    """
    faces = faces[np.argsort(-area(faces), kind="stable")]  # the smaller of two wins a cell
    return np.concatenate([_encode_level(faces, ignored, size, level) for level in LEVELS])


def area(boxes: np.ndarray) -> np.ndarray:
    """Areas of boxes [n, 4]: [n], in squares of their unit."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _encode_level(faces, ignored, size, level):
    centers = (np.arange(size // level.stride) + np.float32(0.5)) * level.stride
    target = np.zeros((len(centers), len(centers), NUMBERS), np.float32)
    for left, top, right, bottom in ignored:
        target[np.ix_((centers >= top) & (centers <= bottom),
                      (centers >= left) & (centers <= right), [0])] = IGNORED
    for box in faces:
        side = max(box[2] - box[0], box[3] - box[1])
        if not level.low / NEARLY <= side < level.high * NEARLY:
            continue
        rows, columns = (_near(centers, box[k], box[k + 2], level.stride) for k in (1, 0))
        is_own = level.low <= side < level.high
        target[np.ix_(rows, columns)] = (
            np.append(FACE, box) if is_own else np.append(IGNORED, np.zeros(4)))
    return target.reshape(-1, NUMBERS)


def _near(centers, low, high, stride):
    """The cells along one side that find a face: near its middle and within it, at least one."""
    middle = (low + high) / 2
    found = (np.abs(centers - middle) <= RADIUS * stride) & (centers >= low) & (centers <= high)
    found[np.abs(centers - middle).argmin()] = True
    return np.flatnonzero(found)
