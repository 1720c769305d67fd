"""Tables and the contact sheet of a collection: what was kept, and what was skipped and why."""

from __future__ import annotations

import collections
import csv
import typing

from PIL import Image, ImageDraw

from darknet_face.console import printable, warn
from darknet_face.images import decode
from darknet_face.images.contact_sheets import INK, PAPER, contact_sheet, font, save_image
from darknet_face.runtime.atomic_files import write_atomically

SHEET_PER_QUERY = 60  # images of each query on the contact sheet, evenly spaced
SHEET_COLUMNS, SHEET_TILE = 20, 96
HEADING_SIZE = 16  # pixels


class Rejection(typing.NamedTuple):
    """A file or address that was skipped."""

    name: str
    category: str
    cause: str  # to count it under
    detail: str



class Unusable(Exception):
    """Why a candidate or file gives no negative.

    Parameters
    ----------
    cause
        A few words to count it under.
    detail
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(": ".join(filter(None, [cause, detail])))
        self.cause = cause
        self.detail = detail


def write_csv(path: str, header: list[str], rows: typing.Iterable[typing.Iterable]) -> None:
    """Write a CSV file that terminals and spreadsheet programs can open safely.

    Parameters
    ----------
    path, header
    rows
        Line breaks become blanks and control characters escapes. A cell that a spreadsheet would
        take for a formula gets an apostrophe in front.
    """
    with write_atomically(path, "w", encoding="utf-8", errors="backslashreplace",
                          newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for row in rows:
            cells = [printable(" ".join(str(cell).split())) for cell in row]
            writer.writerow(["'" + cell if cell[:1] in ("=", "+", "-", "@") else cell
                             for cell in cells])


def count_causes(rejections: typing.Iterable[Rejection]) -> list[tuple[str, int]]:
    """The causes of rejections and their numbers, sorted."""
    return sorted(collections.Counter(rejection.cause for rejection in rejections).items())


def write_rejections(path: str, rejections: list[Rejection]) -> None:
    """Write what was skipped and why as a CSV file."""
    write_csv(path, list(Rejection._fields), rejections)


def write_attribution(path: str, rows: list[list[str]]) -> None:
    """Write the sources of the images as a CSV file, as Creative Commons licences demand.

    Parameters
    ----------
    path
    rows
        File, source page, creator, licence, query and retrieval time.
    """
    write_csv(path, ["file", "source page", "creator", "licence", "query", "retrieved"],
              sorted(rows))


def write_sheet(path: str, folders: dict[str, list[str]]) -> None:
    """Draw a contact sheet with up to SHEET_PER_QUERY images per query.

    Parameters
    ----------
    path
    folders
        For each query the name of its folder and the paths of its images. A folder's name is
        short, and leads to the image that somebody wants to delete.
    """
    strips: list[Image.Image] = []
    for name, paths in folders.items():
        every = -(-len(paths) // SHEET_PER_QUERY)
        shown = list(_readable(paths[::every]))
        if shown:
            strips.append(_heading("{} ({})".format(name, len(paths))))
            strips.append(contact_sheet(shown, columns=SHEET_COLUMNS, tile=SHEET_TILE))
    save_image(path, _stack(strips))


def _readable(paths):
    """The images in some files, without those that were damaged since."""
    for path in paths:
        try:
            yield decode.read_image(path)
        except decode.BadImage as error:
            warn("{}: {}; not on the sheet".format(path, error))


def _heading(text):
    """A line of text as an image."""
    typeface = font(HEADING_SIZE)
    size = int(typeface.getlength(text)) + HEADING_SIZE, 2 * HEADING_SIZE
    image = Image.new("RGB", size, PAPER)
    ImageDraw.Draw(image).text((HEADING_SIZE // 2, HEADING_SIZE // 2), text, INK, typeface)
    return image


def _stack(strips):
    """Put images below one another."""
    sheet = Image.new("RGB", (max([1] + [strip.width for strip in strips]),
                              max(1, sum(strip.height for strip in strips))), PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet
