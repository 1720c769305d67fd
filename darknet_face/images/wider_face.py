"""Face boxes as WIDER FACE distributes them, in a text file.

For each image: a line with its name, a line with the number of faces, and a line for each face
that begins ``x y w h``. WIDER FACE's own lines go on with ``blur expression illumination invalid
occlusion pose``; other collections put a label there, or nothing. An image without a face has the
number 0 and then one line of zeros, or none.
"""

from __future__ import annotations

import collections
import fnmatch
import hashlib
import itertools
import os
from typing import NamedTuple

from darknet_face.console import UserError, printable, warn
from darknet_face.runtime.safe_files import open_regular

MAX_BYTES = 1 << 28  # of a box file; WIDER FACE's has 4.5 MB
MAX_LINES = 2 * 1000 * 1000  # WIDER FACE's has 185,000
MOST_FACES = 10000  # in one image; the most in WIDER FACE are 1,968
LARGEST = 1 << 20  # pixels: no image has a coordinate beyond it
LONGEST_STEM = 150  # bytes of a name, which leaves room for a number and an extension
INVALID, OCCLUSION, POSE = 7, 8, 9  # columns of WIDER FACE's lines


class Face(NamedTuple):
    """A face's box in pixels, and what WIDER FACE says of it.

    ``is_valid`` is False for an unusable face, ``is_hard`` True for one that is occluded or in an
    atypical pose.
    """

    left: int
    top: int
    width: int
    height: int
    is_valid: bool
    is_hard: bool = False

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


class BoxFiles(NamedTuple):
    """Folders of images and the files with their boxes; None is WIDER FACE's."""

    train_images: str | None = None
    train_boxes: str | None = None
    test_images: str | None = None
    test_boxes: str | None = None


class LabelledImage(NamedTuple):
    """An image, its faces and the split that it belongs to.

    ``stem`` begins the names of the files made from it; no other image of the split has it.
    """

    path: str
    name: str
    boxes: list[Face]
    split: str
    stem: str

    @property
    def seed(self) -> int:
        """A number below 2^32 that depends on the name alone."""
        return name_hash(self.name)


def name_hash(name: str) -> int:
    """A number below 2^32 that depends on a name alone."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "little")


def find_labelled_images(wider_dir: str, val_size: float = 0.12, files: BoxFiles | None = None,
                         train_only: str = "") -> list[LabelledImage]:
    """Images with their boxes and splits. Those that are missing are skipped with one warning.

    Parameters
    ----------
    wider_dir
        WIDER FACE as distributed: ``WIDER_train``, ``WIDER_val``, ``wider_face_split``.
    val_size
        The share of the training images that is for validation: those whose names have the
        lowest hashes, so that images added later move no other.
    files
        Another collection's folders and box files.
    train_only
        A pattern; images whose base names match are for training or skipped.

    Raises
    ------
    UserError
        When a box file is missing or damaged, or none of the images exists.
    """
    official, files = {"train": "train", "test": "val"}, files or BoxFiles()
    labelled = []
    for part, name in official.items():
        images = getattr(files, part + "_images") or os.path.join(
            wider_dir, "WIDER_" + name, "images")
        boxes = getattr(files, part + "_boxes") or os.path.join(
            wider_dir, "wider_face_split", "wider_face_{}_bbx_gt.txt".format(name))
        for image, faces in read_boxes(boxes):
            split = _split_of(image, part, val_size, train_only)
            if split:
                labelled.append(LabelledImage(
                    os.path.join(images, image), image, faces, split, _stem(image)))
    if not any(os.path.exists(each.path) for each in labelled):
        raise UserError("{}: no such image, nor any other that the boxes name; check "
                        "--wider-dir or --train-images".format(labelled[0].path))
    uses = collections.Counter((each.split, each.stem) for each in labelled)
    return _skip_missing([
        each if uses[each.split, each.stem] == 1
        else each._replace(stem=_with_hash(each.stem, each.name)) for each in labelled])


def _skip_missing(images: list[LabelledImage]) -> list[LabelledImage]:
    """The images that are there; one warning for all others, such as a half not downloaded."""
    found = [each for each in images if os.path.exists(each.path)]
    missing = collections.Counter(each.split for each in images)
    missing.subtract(each.split for each in found)
    if len(found) < len(images):
        present = {each.path for each in found}
        first = next(each.path for each in images if each.path not in present)
        warn("{:,} of the {:,} images that the boxes name are missing ({}), {} first; skipped. "
             "Download them if you need them".format(
                 len(images) - len(found), len(images), ", ".join(
                     "{:,} for {}".format(count, split) for split, count in missing.items()
                     if count), first))
    return found


def _stem(name: str) -> str:
    """An image's name without folders and extension, short enough for a file system."""
    stem = os.path.splitext(name)[0].replace(os.sep, "-").replace("/", "-")
    return stem if len(os.fsencode(stem)) <= LONGEST_STEM else _with_hash(stem[:30], name)


def _with_hash(stem: str, name: str) -> str:
    return "{}-{:08x}".format(stem, name_hash(name))


def _split_of(name: str, part: str, val_size: float, train_only: str) -> str | None:
    """The split of an image of the training or the test part, or None to skip it."""
    if train_only and fnmatch.fnmatch(os.path.basename(name), train_only):
        return "train" if part == "train" else None
    if part == "test":
        return "test"
    return "val" if name_hash(name) < val_size * 2 ** 32 else "train"


def read_boxes(path: str) -> list[tuple[str, list[Face]]]:
    """Read a file of boxes: each image's name and faces, in the file's order.

    Boxes without an area are skipped.

    Raises
    ------
    UserError
        Missing, empty or damaged, naming the line; also for an image that is named twice, or whose
        name leads out of its folder.
    """
    lines = _read_lines(path)
    entries: list[tuple[str, list[Face]]] = []
    names: set[str] = set()
    number = 0
    while number < len(lines):
        if not lines[number]:
            number += 1
            continue
        check_name(lines[number], names, "{}:{}".format(path, number + 1),
                   "download the file again")
        number = _read_entry(path, lines, number, entries)
    if not entries:
        raise UserError("{}: empty; download it again".format(path))
    return entries


def _read_lines(path: str) -> list[str]:
    """The lines of a text file, without blanks around them."""
    try:
        with open_regular(path, "r", encoding="utf-8-sig") as stream:
            if os.fstat(stream.fileno()).st_size > MAX_BYTES:
                raise UserError("{}: larger than {:,} bytes; name a file of boxes".format(
                    path, MAX_BYTES))
            lines = [line.strip() for line in itertools.islice(stream, MAX_LINES + 1)]
    except FileNotFoundError:
        raise UserError("{}: no such file; name the folder of WIDER FACE, or the file of boxes "
                        "itself".format(path))
    except UnicodeDecodeError:
        raise UserError("{}: not a text file; download it again".format(path))
    if len(lines) > MAX_LINES:
        raise UserError("{}: more than {:,} lines; name a file of boxes".format(path, MAX_LINES))
    return lines


def check_name(name: str, names: set[str], place: str, remedy: str) -> None:
    """Check that an image's name is one within its folder, and new; add it to ``names``.

    Raises
    ------
    UserError
        Naming the place, for the first fault with its remedy.
    """
    plain = os.path.normpath(name)
    if "\0" in name or os.path.isabs(name) or plain.split(os.sep)[0] in (os.pardir, os.curdir):
        raise UserError("{}: '{}' is not a file's name within the images' folder; {}".format(
            place, printable(name[:60]), remedy))
    if plain in names:
        raise UserError("{}: '{}' is named twice; put all its faces under one name".format(
            place, printable(name[:60])))
    names.add(plain)


def _read_entry(path: str, lines: list[str], number: int,
                entries: list[tuple[str, list[Face]]]) -> int:
    """Read one image's lines from ``number`` on; return the number after them."""
    name, count = lines[number], lines[number + 1] if number + 1 < len(lines) else ""
    if not count.isdecimal() or len(count) > 9 or int(count) > MOST_FACES:
        raise UserError("{}:{}: {!r} is not the number of faces in {}; download the file "
                        "again".format(path, number + 2, printable(count[:40]),
                                       printable(name[:60])))
    faces, start = [], number + 2
    for index in range(start, start + int(count)):
        face = _parse_face(lines[index]) if index < len(lines) else None
        if face is None:
            raise UserError("{}:{}: not a line 'x y w h ..'; download the file again".format(
                path, index + 1))
        if face.width > 0 and face.height > 0:
            faces.append(face)
    end = start + int(count)
    if int(count) == 0 and end < len(lines) and _parse_face(lines[end]):
        end += 1  # the line of zeros
    entries.append((name, faces))
    return end


def _parse_face(line: str) -> Face | None:
    """The face of a line, or None where it is not one."""
    fields = line.split()
    try:
        left, top, width, height = (int(round(float(field))) for field in fields[:4])
    except (ValueError, OverflowError):
        return None
    if max(map(abs, (left, top, width, height))) > LARGEST:
        return None
    is_valid = len(fields) < 10 or fields[INVALID] != "1"
    is_hard = len(fields) >= 10 and (fields[OCCLUSION] != "0" or fields[POSE] != "0")
    return Face(left, top, width, height, is_valid, is_hard)
