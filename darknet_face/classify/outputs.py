"""What is written for named images: lines, a contact sheet, sorted files, heat maps.

Each output has ``write(image, row)``, called once per classified image, ``flush()``, called after
each batch, and ``close()``. See :mod:`darknet_face.classify.tables` for the CSV and JSON tables.
"""

from __future__ import annotations

import collections
import errno
import filecmp
import os
import shutil
import sys
import typing

import numpy as np
from PIL import Image
from tqdm import tqdm

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.classify.annotated import with_boxes
from darknet_face.classify.annotated_video import AnnotatedVideo
from darknet_face.classify.heatmaps import overlay
from darknet_face.classify.inputs import InputImage
from darknet_face.classify.predict import Row
from darknet_face.classify.tables import Output, Table
from darknet_face.console import UserError, printable
from darknet_face.images.contact_sheets import (
    GREEN,
    RED,
    check_drawing,
    contact_sheet,
    encode,
    fit,
    mark_drawing,
    save_image,
)
from darknet_face.runtime.atomic_files import temporary_path, write_atomically

# Errors that concern one image: its name is too long for a copy or a heat map, its file is gone,
# or a folder and a file of the same name are in each other's way. Others end the run.
ONE_IMAGE_ERRORS = {errno.ENAMETOOLONG, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}

TILE = 160  # height and width of an image on the contact sheet, in pixels


class OutputOptions(typing.NamedTuple):
    """Where to write the results; None for what is not wanted.

    Parameters
    ----------
    csv, json
        Files for the tables, ``-`` for standard output.
    contact_sheet
        Its file.
    contact_sheet_images
        How many images to show on it.
    heatmap, sort_into
        Folders.
    sort_into_mode
        "copy", "link" or "move".
    resume
        Add to existing tables.
    only
        Write only images of this class, "FACE" or "NON_FACE".
    quiet
        Print no lines.
    annotate, fps
        A video file, and its frames per second.
    """

    csv: str | None = None
    json: str | None = None
    contact_sheet: str | None = None
    contact_sheet_images: int = 200
    heatmap: str | None = None
    sort_into: str | None = None
    sort_into_mode: str = "copy"
    resume: bool = False
    only: str | None = None
    quiet: bool = False
    annotate: str | None = None
    fps: float = 1.0


def open_outputs(options: OutputOptions, make_mapper: typing.Callable[[], typing.Any]
                 ) -> list[Output]:
    """The outputs that the options ask for.

    The CSV comes last, so that an image in the CSV has all its other outputs; a moved file is moved
    after the outputs that read it.

    Parameters
    ----------
    make_mapper
        Returns the :class:`darknet_face.classify.heatmaps.FaceMapper`. Called only for heat maps.
    """
    outputs: list[Output] = []
    if options.heatmap:
        outputs.append(HeatMaps(options.heatmap, make_mapper()))
    if options.contact_sheet:
        outputs.append(ContactSheet(options.contact_sheet, options.contact_sheet_images))
    if options.annotate:
        outputs.append(AnnotatedVideo(options.annotate, options.fps))
    if options.sort_into:
        outputs.append(Sorter(options.sort_into, options.sort_into_mode))
    if "-" not in (options.csv, options.json) and not options.quiet:
        outputs.append(Lines())
    for path, kind in ((options.json, "json"), (options.csv, "csv")):
        if path:
            outputs.append(Table(path, kind, options.resume))
    return outputs


class Lines(Output):
    """Prints an aligned line per image."""

    def write(self, image: InputImage, row: Row) -> None:
        tqdm.write("{:<8}  {:.4f}  {}".format(
            row["class"], row["probability"], printable(row["file"])), file=sys.stdout)

    def flush(self) -> None:
        sys.stdout.flush()


class ContactSheet(Output):
    """Collects the first images for a contact sheet: green frames for FACE, red for NON_FACE.

    Parameters
    ----------
    most
        How many images to show.
    """

    def __init__(self, path: str, most: int) -> None:
        self.path, self.most = path, most
        self.tiles: list[np.ndarray] = []
        self.rows: list[Row] = []
        self.total = 0

    def write(self, image: InputImage, row: Row) -> None:
        self.total += 1
        if len(self.tiles) < self.most:
            pixels = image.read()
            self.tiles.append(fit(with_boxes(pixels, row, image.reduction(pixels)), TILE))
            self.rows.append(row)

    def close(self) -> None:
        if self.tiles:
            shown = "" if self.total == len(self.tiles) else ": the first {:,} of {:,}".format(
                len(self.tiles), self.total)
            columns = min(8, max(2, round(len(self.tiles) ** 0.5 * 1.3)))
            frames = [GREEN if row["class"] == CLASS_NAMES[FACE] else RED for row in self.rows]
            save_image(self.path, contact_sheet(
                self.tiles, list(self._captions()), frames,
                "green: called a face, red: not a face" + shown, columns, TILE))

    def _captions(self) -> typing.Iterator[str]:
        """Class, probability and file name; the whole path where two names are equal."""
        names = collections.Counter(os.path.basename(row["file"]) for row in self.rows)
        for row in self.rows:
            name = os.path.basename(row["file"])
            yield "{class} {probability:.3f}\n".format(**row) + printable(
                name if names[name] == 1 else row["file"])


class Sorter(Output):
    """Copies, links or moves images into ``face/`` and ``non_face/``; never replaces a file.

    Frames of videos are written as JPEG in every mode.

    Parameters
    ----------
    mode
        "copy", "link" or "move".
    """

    def __init__(self, folder: str, mode: str) -> None:
        self.folder, self.mode = folder, mode

    def write(self, image: InputImage, row: Row) -> None:
        path = os.path.join(self.folder, row["class"].lower(), image.output_name)
        frame = None if image.content is None else encode(image.content, "JPEG")
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
        elif self.mode == "move":
            self._move(image.name, path)
        else:
            _copy(image.name, path)

    def _move(self, name: str, path: str) -> None:
        try:
            if os.path.islink(name):  # a relative link would lead nowhere from there
                os.symlink(os.path.realpath(name), path)
                os.remove(name)
            else:
                os.rename(name, path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(name, path)  # another file system
            os.remove(name)

    def _is_same(self, path: str, name: str, frame: bytes | None) -> bool:
        """Whether a file in the folder is this image or frame."""
        if not os.path.isfile(path):
            return False
        if frame is not None:
            with open(path, "rb") as stream:
                return stream.read(len(frame) + 1) == frame
        if self.mode == "move":  # an equal copy is no reason to delete or to leave the original
            return os.path.samefile(path, name)
        return os.path.samefile(path, name) or (
            not os.path.islink(path) and filecmp.cmp(path, name, shallow=False))


def _copy(name: str, path: str) -> None:
    with temporary_path(path) as temporary:
        shutil.copyfile(name, temporary)
    shutil.copystat(name, path)


class HeatMaps(Output):
    """Writes each image, at its own size, with a map of where a face is seen.

    Parameters
    ----------
    mapper
        :class:`darknet_face.classify.heatmaps.FaceMapper`
    """

    def __init__(self, folder: str, mapper: typing.Callable[[np.ndarray], np.ndarray]) -> None:
        self.folder, self.mapper = folder, mapper

    def write(self, image: InputImage, row: Row) -> None:
        pixels = image.read()
        path = os.path.join(self.folder, image.drawing_name)
        if os.path.exists(path) and os.path.exists(image.name) and os.path.samefile(
                path, image.name):
            raise UserError("{}: its heat map would replace it; give --heatmap another folder"
                            .format(image.name))
        if not os.path.isdir(path):  # a folder is in the way of this image alone
            check_drawing(path)
        save_image(path, mark_drawing(Image.fromarray(overlay(pixels, self.mapper(pixels)))))
