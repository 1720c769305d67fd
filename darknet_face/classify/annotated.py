"""Answers drawn into images: boxes of faces, and the label with its probability."""

from __future__ import annotations

import typing

import numpy as np
from PIL import Image, ImageDraw

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.classify.predict import BOX, Row
from darknet_face.images.contact_sheets import GREEN, RED, font


def with_boxes(pixels: np.ndarray, row: Row, reduction: float = 1.0) -> np.ndarray:
    """An image with its faces, or with the window in which one was found.

    A pixel of it is ``reduction`` pixels of the row's boxes.
    """
    if row["class"] != CLASS_NAMES[FACE] or row.get("x") is None:
        return pixels
    return draw_boxes(pixels, [[int(round(box[name] / reduction)) for name in BOX]
                               for box in row.get("boxes") or [row]], GREEN)


def draw_boxes(pixels: np.ndarray, boxes: typing.Iterable[typing.Sequence[int]],
               colour: tuple[int, int, int]) -> np.ndarray:
    """A copy of an image with boxes: left, top, width and height in pixels."""
    drawn = Image.fromarray(pixels)
    draw = ImageDraw.Draw(drawn)
    for x, y, width, height in boxes:
        draw.rectangle([x, y, x + max(width, 1) - 1, y + max(height, 1) - 1], outline=colour,
                       width=max(1, max(pixels.shape[:2]) // 60))
    return np.array(drawn)


def with_answer(pixels: np.ndarray, row: Row) -> np.ndarray:
    """An image with its label, the label's probability and its boxes, if the row has some."""
    drawn = Image.fromarray(with_boxes(pixels, row))
    draw = ImageDraw.Draw(drawn)
    text = "{class} {probability:.4f}".format(**row)
    line = max(10, pixels.shape[0] // 16)
    colour = GREEN if row["class"] == CLASS_NAMES[FACE] else RED
    draw.rectangle([0, 0, font(line).getlength(text) + line, 1.8 * line], fill=colour)
    draw.text((line // 2, line // 4), text, (255, 255, 255), font(line))
    return np.array(drawn)
