"""What inference.py writes for named pictures: lines, a contact sheet, sorted copies, heat maps.

Each output has ``write(image, row)``, called once per classified picture, ``flush()``, called
after each batch, and ``close()``. See :mod:`darknet_face.classify.tables` for the CSV and JSON
tables.
"""

from __future__ import annotations

import collections
import errno
import filecmp
import io
import os
import shutil
import sys

import cv2
from PIL import Image
from tqdm import tqdm

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.classify.heatmaps import overlay
from darknet_face.classify.tables import Table
from darknet_face.console import UserError, printable
from darknet_face.images.contact_sheets import (
    GREEN,
    RED,
    check_drawing,
    contact_sheet,
    fit,
    mark_drawing,
    save_image,
)
from darknet_face.runtime.atomic_files import temporary_path, write_atomically

# Errors that concern one picture: its name is too long for a copy or a heat map, its file is gone,
# or a folder and a file of the same name are in each other's way. Others end the run.
ONE_IMAGE_ERRORS = {errno.ENAMETOOLONG, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}

TILE = 160  # height and width of a picture on the contact sheet, in pixels

OutputOptions = collections.namedtuple(
    "OutputOptions",
    "csv json contact_sheet contact_sheet_images heatmap sort_into sort_into_mode resume",
    defaults=(None, None, None, 200, None, None, "copy", False))
OutputOptions.__doc__ = """Where to write the results; None leaves an output out.

Parameters
----------
csv, json : str, optional
    Files for the tables, ``-`` for standard output.
contact_sheet : str, optional
    Its file.
contact_sheet_images : int
    How many pictures to show on it.
heatmap, sort_into : str, optional
    Folders.
sort_into_mode : {"copy", "link"}
resume : bool
    Add to existing tables.
"""


def open_outputs(options, make_mapper):
    """The outputs that the options ask for.

    The CSV comes last, so that a picture in the CSV has all its other outputs.

    Parameters
    ----------
    options : OutputOptions
    make_mapper : callable
        Returns the :class:`darknet_face.classify.heatmaps.FaceMapper`. Called only for heat maps.

    Returns
    -------
    list
    """
    outputs = []
    if options.sort_into:
        outputs.append(Sorter(options.sort_into, options.sort_into_mode))
    if options.heatmap:
        outputs.append(HeatMaps(options.heatmap, make_mapper()))
    if options.contact_sheet:
        outputs.append(ContactSheet(options.contact_sheet, options.contact_sheet_images))
    if "-" not in (options.csv, options.json):
        outputs.append(Lines())
    if options.json:
        outputs.append(Table(options.json, "json", options.resume))
    if options.csv:
        outputs.append(Table(options.csv, "csv", options.resume))
    return outputs


class Output:
    """An output that has nothing to flush or close."""

    def flush(self):
        """Called after each batch."""

    def close(self):
        """Called at the end, on Ctrl-C too."""


class Lines(Output):
    """Prints an aligned line per picture."""

    def write(self, _, row):
        tqdm.write("{:<8}  {:.4f}  {}".format(
            row["class"], row["probability"], printable(row["file"])), file=sys.stdout)

    def flush(self):
        sys.stdout.flush()


class ContactSheet(Output):
    """Collects the first pictures for a contact sheet: green frames for FACE, red for NON_FACE.

    Parameters
    ----------
    path : str
    most : int
        How many pictures to show.
    """

    def __init__(self, path, most):
        self.path, self.most = path, most
        self.tiles, self.rows = [], []
        self.total = 0

    def write(self, image, row):
        self.total += 1
        if len(self.tiles) < self.most:
            self.tiles.append(fit(_with_box(image.read(), row), TILE))
            self.rows.append(row)

    def close(self):
        if self.tiles:
            shown = "" if self.total == len(self.tiles) else ": the first {:,} of {:,}".format(
                len(self.tiles), self.total)
            columns = min(8, max(2, round(len(self.tiles) ** 0.5 * 1.3)))
            frames = [GREEN if row["class"] == CLASS_NAMES[FACE] else RED for row in self.rows]
            save_image(self.path, contact_sheet(
                self.tiles, list(self._captions()), frames,
                "green: called a face, red: not a face" + shown, columns, TILE))

    def _captions(self):
        """Class, probability and file name; the whole path where two names are equal."""
        names = collections.Counter(os.path.basename(row["file"]) for row in self.rows)
        for row in self.rows:
            name = os.path.basename(row["file"])
            yield "{class} {probability:.3f}\n".format(**row) + printable(
                name if names[name] == 1 else row["file"])


def _with_box(pixels, row):
    """A picture with the window in which a face was found."""
    if row["class"] != CLASS_NAMES[FACE] or row.get("x") is None:
        return pixels
    drawn = pixels.copy()
    corner = row["x"], row["y"]
    opposite = row["x"] + row["width"] - 1, row["y"] + row["height"] - 1
    cv2.rectangle(drawn, corner, opposite, GREEN, max(1, max(pixels.shape[:2]) // 60))
    return drawn


class Sorter(Output):
    """Copies or links pictures into ``face/`` and ``non_face/``.

    Parameters
    ----------
    folder : str
    mode : {"copy", "link"}
    """

    def __init__(self, folder, mode):
        self.folder, self.mode = folder, mode

    def write(self, image, row):
        path = os.path.join(self.folder, row["class"].lower(), image.output_name)
        frame = None if image.content is None else _encode_jpeg(image.content)
        stem, extension = os.path.splitext(path)
        number = 1
        while os.path.lexists(path):
            if self._is_same(path, image.name, frame):
                return  # from an earlier run
            number += 1
            path = "{}-{}{}".format(stem, number, extension)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if frame is not None:
            with write_atomically(path) as stream:
                stream.write(frame)
        elif self.mode == "link":
            os.symlink(os.path.abspath(image.name), path)
        else:
            with temporary_path(path) as temporary:
                shutil.copyfile(image.name, temporary)
            shutil.copystat(image.name, path)

    def _is_same(self, path, name, frame):
        """Whether a file in the folder is this picture or frame."""
        if not os.path.isfile(path):
            return False
        if frame is not None:
            with open(path, "rb") as stream:
                return stream.read(len(frame) + 1) == frame
        return os.path.samefile(path, name) or (
            not os.path.islink(path) and filecmp.cmp(path, name, shallow=False))


def _encode_jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


class HeatMaps(Output):
    """Writes each picture, at its own size, with a map of where a face is seen.

    Parameters
    ----------
    folder : str
    mapper : darknet_face.classify.heatmaps.FaceMapper
    """

    def __init__(self, folder, mapper):
        self.folder, self.mapper = folder, mapper

    def write(self, image, _):
        pixels = image.read()
        path = os.path.join(self.folder, image.output_name)
        if not path.lower().endswith((".jpg", ".jpeg", ".png")):
            path += ".png"
        if os.path.exists(path) and os.path.exists(image.name) and os.path.samefile(
                path, image.name):
            raise UserError("{}: its heat map would replace it; give --heatmap another folder"
                            .format(image.name))
        if not os.path.isdir(path):  # a folder is in the way of this picture alone
            check_drawing(path)
        save_image(path, mark_drawing(Image.fromarray(overlay(pixels, self.mapper(pixels)))))
