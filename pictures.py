"""Contact sheets: many small pictures with captions and coloured frames in one PNG."""

import functools
import os

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils import temporary_path

# Okabe & Ito's palette keeps these apart for colour-blind readers too.
GREEN, RED, BLUE, GREY = (0, 158, 115), (213, 94, 0), (0, 114, 178), (128, 128, 128)
PAPER, INK = (250, 250, 250), (32, 32, 32)


@functools.lru_cache(maxsize=None)
def font(size):
    """DejaVu Sans, which comes with matplotlib, at a height in pixels."""
    import matplotlib

    folder = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(os.path.join(folder, "DejaVuSans.ttf"), size)


def contact_sheet(images, captions=None, frames=None, title=None, columns=8, tile=160):
    """Lay pictures out in rows.

    Parameters
    ----------
    images : sequence of numpy.ndarray
        uint8, [any height, any width, 3], RGB; each is fitted into a square tile.
    captions : sequence of str, optional
        A line under each picture; cut where it is too long.
    frames : sequence of (int, int, int), optional
        The frame's colour around each picture.
    title : str, optional
        A line over the sheet.
    columns : int
    tile : int
        Height and width of a tile's picture in pixels.

    Returns
    -------
    PIL.Image.Image
    """
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    gap, line = max(4, tile // 20), max(13, tile // 9)
    cell_height = tile + gap + (line + gap if captions else 0)
    top = 2 * line + gap if title else gap
    sheet = Image.new(
        "RGB", (columns * (tile + gap) + gap, top + rows * cell_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, gap), title, INK, font(int(line * 1.3)))
    for index, image in enumerate(images):
        left = gap + (index % columns) * (tile + gap)
        upper = top + (index // columns) * cell_height
        if frames:
            draw.rectangle(
                [left - gap // 2, upper - gap // 2, left + tile + gap // 2 - 1,
                 upper + tile + gap // 2 - 1], fill=frames[index])
        sheet.paste(Image.fromarray(fit(image, tile)), (left, upper))
        if captions:
            text = _cut(captions[index], font(line), tile)
            draw.text((left, upper + tile + gap // 2), text, INK, font(line))
    return sheet


def fit(image, tile):
    """A picture shrunk or grown into a ``tile`` x ``tile`` square, on grey where it is narrower."""
    height, width = image.shape[:2]
    scale = tile / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    square = np.full((tile, tile, 3), 225, np.uint8)
    top, left = (tile - size[1]) // 2, (tile - size[0]) // 2
    square[top:top + size[1], left:left + size[0]] = small
    return square


def _cut(text, typeface, width):
    """The longest end of ``text`` that fits: file names differ at their ends."""
    if typeface.getlength(text) <= width:
        return text
    while text and typeface.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


def save_picture(path, image):
    """Write a Pillow image, or a uint8 RGB array, under a temporary name and rename it."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with temporary_path(path) as temporary:
        image.save(temporary)
