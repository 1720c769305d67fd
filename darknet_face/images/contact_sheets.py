"""Contact sheets, and the style of charts.

Sheets and charts have a near-white background of their own, so that they look the same on light
and dark pages. Letters are large enough to be read at half size.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
from typing import Any, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from darknet_face.console import UserError
from darknet_face.images.resize import resize
from darknet_face.runtime.atomic_files import temporary_path
from darknet_face.runtime.safe_files import check_replaceable, open_regular

# From the palette of Okabe & Ito, which colour-blind readers can tell apart.
GREEN, RED, BLUE, GREY = (0, 158, 115), (213, 94, 0), (0, 114, 178), (128, 128, 128)
LONGEST_JPEG = 65500  # pixels that libjpeg writes along a side
PAPER, INK = (250, 250, 250), (32, 32, 32)

Colour = Tuple[int, int, int]  # RGB

# Drawings of this project carry this mark: in a PNG the text "Software", in a JPEG the comment.
SOFTWARE = "Darknet-19 face classifier"


def hexadecimal(colour: Colour) -> str:
    """``(0, 158, 115)`` as ``#009e73``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


# matplotlib's settings for every chart of the project, for matplotlib.rc_context().
CHART_STYLE = {
    "font.size": 14, "axes.titlesize": 16, "axes.titleweight": "bold", "lines.linewidth": 2.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.35,
    "grid.color": hexadecimal(GREY), "legend.frameon": False, "axes.axisbelow": True,
    "figure.facecolor": hexadecimal(PAPER), "axes.facecolor": hexadecimal(PAPER),
    "savefig.facecolor": hexadecimal(PAPER), "text.color": hexadecimal(INK),
    "axes.edgecolor": hexadecimal(INK), "axes.labelcolor": hexadecimal(INK),
    "xtick.color": hexadecimal(INK), "ytick.color": hexadecimal(INK),
    "axes.prop_cycle": "cycler('color', ['{}', '{}', '{}'])".format(
        *map(hexadecimal, (BLUE, RED, GREEN))),
}  # fmt: skip


@functools.lru_cache(maxsize=None)
def font(size: int) -> Any:
    """DejaVu Sans, the font in the matplotlib package, ``size`` pixels high; without the package
    Pillow's own font."""
    try:
        import matplotlib
    except ImportError:
        try:
            return ImageFont.load_default(size)
        except TypeError:  # Pillow before 10.1 has it in one size
            return ImageFont.load_default()
    folder = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(os.path.join(folder, "DejaVuSans.ttf"), size)


def contact_sheet(images: Sequence[np.ndarray], captions: Sequence[str] | None = None,
                  frames: Sequence[Colour] | None = None, title: str | None = None,
                  columns: int = 8, tile: int = 160) -> Image.Image:
    """Draw a contact sheet: images in rows.

    Parameters
    ----------
    images
        uint8, [any height, any width, 3], RGB; each is fitted into a square tile.
    captions
        The lines under each image; all captions have the same number of lines. Long lines lose
        their beginnings.
    frames
        The colour of each image's frame.
    title
        A line above the images.
    tile
        Height and width of a tile in pixels.

    Returns
    -------
    PIL.Image.Image
        With the mark of :func:`mark_drawing`.
    """
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    frame, line = max(2, tile // 40), max(13, tile // 9)
    gap = 3 * frame  # so that neighbours' frames do not touch
    lines = captions[0].count("\n") + 1 if captions else 0
    cell_height = tile + gap + lines * (line + frame) + (frame if lines else 0)
    top = 2 * line + gap if title else gap
    sheet = mark_drawing(Image.new(
        "RGB", (columns * (tile + gap) + gap, top + rows * cell_height), PAPER))
    draw = ImageDraw.Draw(sheet)
    if title:
        size = int(line * 1.3)
        while size > 8 and font(size).getlength(title) > sheet.width - 2 * gap:
            size -= 1
        draw.text((gap, gap), title, INK, font(size))
    for index, image in enumerate(images):
        left = gap + (index % columns) * (tile + gap)
        upper = top + (index // columns) * cell_height
        if frames:
            draw.rectangle(
                [left - frame, upper - frame, left + tile + frame - 1, upper + tile + frame - 1],
                fill=frames[index])
        sheet.paste(Image.fromarray(fit(image, tile)), (left, upper))
        if captions:
            for number, text in enumerate(captions[index].split("\n")):
                draw.text((left, upper + tile + frame + number * (line + frame)),
                          _cut(text, font(line), tile), INK, font(line))
    return sheet


def fit(image: np.ndarray, tile: int) -> np.ndarray:
    """Scale an image into a ``tile`` x ``tile`` square and fill the rest with grey."""
    small = scale_to(image, tile)
    height, width = small.shape[:2]
    square = np.full((tile, tile, 3), 225, np.uint8)
    top, left = (tile - height) // 2, (tile - width) // 2
    square[top:top + height, left:left + width] = small
    return square


def scale_to(image: np.ndarray, longest: int) -> np.ndarray:
    """Scale an image, keeping its aspect ratio, until its longer side has ``longest`` pixels."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    return resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


def _cut(text: str, typeface: Any, width: int) -> str:
    """Cut the beginning of a text that is too long: file names differ at their ends."""
    if typeface.getlength(text) <= width:
        return text
    while text and typeface.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


def image_name(text: str) -> str:
    """An argparse ``type``: the name of an image to write, with the extension of its format."""
    if not text.lower().endswith((".jpg", ".jpeg", ".png")):
        raise argparse.ArgumentTypeError(
            "{}: not the name of an image; end it in .png or .jpg".format(text))
    if os.path.isdir(text):
        raise argparse.ArgumentTypeError("{}: a folder; name a file".format(text))
    try:
        check_drawing(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error))
    return text


def mark_drawing(image: Image.Image) -> Image.Image:
    """Mark a Pillow image as drawn by this project, so that it may be replaced later."""
    image.info["Software"] = SOFTWARE
    return image


def is_drawing(path: str) -> bool:
    """Whether a file is an image with the mark of :func:`mark_drawing`."""
    try:
        with open_regular(path) as stream, Image.open(stream, formats=("PNG", "JPEG")) as image:
            return (image.info.get("Software") == SOFTWARE
                    or image.info.get("comment") == SOFTWARE.encode())
    except Exception:  # Pillow's decoders raise nearly anything on damaged files
        return False


def check_drawing(path: str) -> None:
    """Check that writing a drawing does not replace a photograph or another file.

    Raises
    ------
    UserError
        If the file exists and is not a drawing of this project.
    """
    check_replaceable(path, is_drawing, "an image drawn by this program")


def encode(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """A Pillow image or a uint8 array as the content of a "PNG" or a "JPEG"; options are Pillow's.
    """
    stream = io.BytesIO()
    _of_pillow(image).save(stream, kind, **options)
    return stream.getvalue()


def _of_pillow(image: Image.Image | np.ndarray) -> Image.Image:
    return Image.fromarray(image) if isinstance(image, np.ndarray) else image


def save_image(path: str, image: Image.Image | np.ndarray) -> None:
    """Write a Pillow image or a uint8 RGB array, atomically. Missing folders are made.

    The mark of :func:`mark_drawing` is written if the image has it.
    """
    image = _of_pillow(image)
    if path.lower().endswith((".jpg", ".jpeg")) and max(image.size) > LONGEST_JPEG:
        raise UserError("{}: {:,} x {:,} pixels, and a JPEG has at most {:,}; end its name in "
                        ".png".format(path, *image.size, LONGEST_JPEG))
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with temporary_path(path) as temporary:
        image.save(temporary, **_mark_options(image))


def _mark_options(image: Image.Image) -> dict[str, Any]:
    """Options for saving an image that keep its mark; each format ignores the other's option."""
    if image.info.get("Software") != SOFTWARE:
        return {}
    text = PngInfo()
    text.add_text("Software", SOFTWARE)
    return {"pnginfo": text, "comment": SOFTWARE}


def save_chart(path: str, figure: Any, dpi: int) -> None:
    """Write a matplotlib figure as a marked drawing, atomically."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    with Image.open(stream) as image:
        save_image(path, mark_drawing(image.convert("RGB")))
