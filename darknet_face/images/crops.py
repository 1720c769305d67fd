"""Where to cut an image with known face boxes: squares with a face, and squares without one."""

from __future__ import annotations

import math
from typing import Sequence, Tuple

import numpy as np

from darknet_face.images.wider_face import Face

Square = Tuple[int, int, int]  # left, top and side in pixels

# How much of a crop's side the longer side of its face takes: from a face in its surroundings to
# a face that fills the crop.
FACE_SHARES = (0.2, 0.95)
STORED_SIDE = 256  # pixels: larger crops are shrunk to this before they are written
MARGIN = 0.1  # a face-free window keeps this share of a face's size away from its box
SMALLEST_WINDOW = 40  # pixels
ATTEMPTS = 8  # to find a window's position before one less is cut


def face_crops(shape: Sequence[int], faces: Sequence[Face], rng: np.random.RandomState,
               per_face: int = 2, most: int = 24, cut: float = 0.0) -> list[Square]:
    """Squares that hold a face, framed at random.

    Parameters
    ----------
    shape
        The image's height and width come first.
    per_face
        Squares for each face.
    most
        Squares in all; the largest faces come first.
    cut
        The share of a face's width, and of its height, that a square may cut off.
    """
    largest_first = sorted(faces, key=lambda face: -face.width * face.height)
    squares: list[Square] = []
    for face in largest_first:
        for _ in range(per_face):
            square = _frame(shape, face, rng, cut)
            if square and len(squares) < most:
                squares.append(square)
    return squares


def _frame(shape: Sequence[int], face: Face, rng: np.random.RandomState, cut: float
           ) -> Square | None:
    """A square around a face; None where the image has no room for one."""
    height, width = shape[:2]
    longest = max(face.width, face.height)
    share = math.exp(rng.uniform(math.log(FACE_SHARES[0]), math.log(FACE_SHARES[1])))
    side = int(min(longest / share, height, width))
    if side < longest:  # the face does not fit into the image
        return None
    if cut:
        face = _part(face, rng, cut)
        side = max(int(side * (1 - cut)), face.width, face.height)
    left = _start(rng, face.left, face.right, side, width)
    top = _start(rng, face.top, face.bottom, side, height)
    return None if left is None or top is None else (left, top, side)


def _part(face: Face, rng: np.random.RandomState, cut: float) -> Face:
    """What is left of a face when up to a share of it is cut off from one side and one end."""
    lost = [int(rng.uniform(0, cut) * length) for length in (face.width, face.height)]
    corner = face.left + lost[0] * rng.randint(2), face.top + lost[1] * rng.randint(2)
    return Face(*corner, face.width - lost[0], face.height - lost[1], face.is_valid)


def _start(rng: np.random.RandomState, low: int, high: int, side: int,
           length: int) -> int | None:
    """Where a square begins along an axis so that it holds low .. high; None if it can't."""
    first, last = max(0, high - side), min(low, length - side)
    return rng.randint(first, last + 1) if first <= last else None


def face_free_windows(shape: Sequence[int], faces: Sequence[Face], rng: np.random.RandomState,
                      most: int = 14) -> list[Square]:
    """Squares that touch no face, not even an unusable one.

    Half of them lie beside or under a face, as far as there is room: hair, necks, bodies, hands.
    The others lie anywhere.

    Parameters and the result are those of :func:`face_crops`; ``faces`` are all faces of the
    image.
    """
    height, width = shape[:2]
    squares: list[Square] = []
    for number in range(most):
        for _ in range(ATTEMPTS):
            beside = faces and number % 2 == 0
            left, top, side = (_window_beside(faces[rng.randint(len(faces))], rng) if beside
                               else _window_anywhere(height, width, rng))
            inside = left >= 0 and top >= 0 and left + side <= width and top + side <= height
            if inside and side >= SMALLEST_WINDOW and not any(
                    touches(face, left, top, side) for face in faces):
                squares.append((left, top, side))
                break
    return squares


def _window_anywhere(height: int, width: int, rng: np.random.RandomState) -> Square:
    longest = min(height, width)
    side = int(math.exp(rng.uniform(math.log(min(SMALLEST_WINDOW, longest)), math.log(longest))))
    return rng.randint(width - side + 1), rng.randint(height - side + 1), side


def _window_beside(face: Face, rng: np.random.RandomState) -> Square:
    """A window under or beside a face, one to four times its size."""
    side = max(SMALLEST_WINDOW, int(max(face.width, face.height) * rng.uniform(1.0, 4.0)))
    gap = int(MARGIN * max(face.width, face.height)) + 2
    where = rng.randint(4)
    if where < 2:  # under it, more often than to either side
        return face.left + face.width // 2 - rng.randint(side), face.bottom + gap, side
    top = face.top + face.height // 2 - rng.randint(side)
    return (face.right + gap if where == 2 else face.left - gap - side), top, side


def touches(face: Face, left: int, top: int, side: int) -> bool:
    """Whether a square comes closer to a face than :data:`MARGIN` of its size."""
    margin = MARGIN * max(face.width, face.height)
    return (face.left - margin < left + side and left < face.right + margin
            and face.top - margin < top + side and top < face.bottom + margin)
