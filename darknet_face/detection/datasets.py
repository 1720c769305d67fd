"""Images with face boxes: WIDER FACE, Pascal VOC, YOLO's text files and COCO's JSON.

Every object is taken for a face, but of a COCO file with a category ``face`` only its objects.
WIDER FACE marks faces of a few pixels, which a grid of 32 pixels can't find. The detector that
the weights were first made for keeps an image if it has at most ten faces, each of at least 1 % of
the image's area. :func:`prune` does the same.
"""

from __future__ import annotations

import collections
import os
import xml.etree.ElementTree as ElementTree

import numpy as np

from darknet_face.console import UserError, warn
from darknet_face.detection.targets import area
from darknet_face.images.decode import BadImage, upright_size
from darknet_face.images.formats import EXTENSIONS
from darknet_face.images.wider_face import LARGEST, MOST_FACES, check_name, read_boxes
from darknet_face.runtime.safe_files import open_regular, read_json, regular_size

MAX_FACES = 10
MIN_AREA = 0.01  # of the image's
MAX_XML_BYTES = MAX_TEXT = 1 << 20
MAX_JSON = 1 << 26  # bytes; in memory it takes ten times as much
KEEP = ("pruned", "large", "all")

# path : str
# boxes : float32 [n, 4], the faces: left, top, right, bottom as shares of the image's sides.
# ignored : float32 [m, 4], faces that are neither to be found nor counted as wrong when found.
Photograph = collections.namedtuple("Photograph", "path boxes ignored")


def read_wider(wider_dir: str, split: str, keep: str = "pruned") -> list[Photograph]:
    """Read a split of WIDER FACE.

    Parameters
    ----------
    wider_dir
        The folder with ``WIDER_train``, ``WIDER_val`` and ``wider_face_split``.
    split
        ``train`` or ``val``.
    keep
        ``pruned``, ``large`` or ``all``: see :func:`prune`.
    """
    return read_photographs(
        os.path.join(wider_dir, "WIDER_" + split, "images"),
        os.path.join(wider_dir, "wider_face_split", "wider_face_{}_bbx_gt.txt".format(split)), keep)


def read_photographs(images: str, boxes: str, keep: str = "pruned") -> list[Photograph]:
    """Read images and their boxes. Images that do not open are reported and skipped.

    Parameters
    ----------
    images
        The folder that the images' names are relative to.
    boxes
        A text file in WIDER FACE's format, a COCO file (``.json``), or a folder of Pascal VOC XML
        files or of YOLO's text files, one for each image and of the same name.
    keep
        ``pruned``, ``large`` or ``all``: see :func:`prune`.

    Raises
    ------
    UserError
        When the boxes are missing or damaged, or no image is left.
    """
    named = _read_named(images, boxes)
    names: set[str] = set()
    for name, _ in named:
        check_name(name, names, boxes, "write the boxes again")
    photographs = []
    for name, faces in named:
        path = os.path.join(images, name)
        try:
            photographs.append(_photograph(path, faces))
        except BadImage as error:
            warn("{}: {}; skipped".format(path, error))
    kept = [each for each in (prune(each, keep) for each in photographs) if each]
    if not kept:
        raise UserError("{}: none of its {:,} images is in {} with the faces that the rule "
                        "{!r} asks for; check both names".format(boxes, len(named), images, keep))
    return kept


def _read_named(images: str, boxes: str) -> list:
    """Each image's name and faces: ((left, top, right, bottom), whether it counts), in pixels."""
    if os.path.isdir(boxes):
        names = sorted(os.listdir(boxes))
        if any(name.lower().endswith(".xml") for name in names):
            return _read_voc_folder(boxes)
        if any(name.lower().endswith(".txt") for name in names):
            return _read_yolo_folder(images, boxes)
        raise UserError("{}: no .xml and no .txt file in it; name a folder of Pascal VOC or YOLO "
                        "files, or a file of boxes".format(boxes))
    if boxes.lower().endswith(".json"):
        return read_coco(boxes)
    return [(name, [((face.left, face.top, face.right, face.bottom), face.is_valid)
                    for face in faces]) for name, faces in read_boxes(boxes)]


def _photograph(path: str, faces: list) -> Photograph:
    """An image whose boxes are clipped to it and given as shares of its sides."""
    width, height = upright_size(path)
    pixels = np.array([box for box, _ in faces], np.float32).reshape(-1, 4)
    boxes = np.clip(pixels / np.array([width, height, width, height], np.float32), 0, 1)
    valid = np.array([is_valid for _, is_valid in faces], bool)
    valid &= (boxes[:, 2:] > boxes[:, :2]).all(1)
    return Photograph(path, boxes[valid], boxes[~valid])


def prune(photograph: Photograph, keep: str) -> Photograph | None:
    """Apply a rule on small faces to an image. Returns None if the rule drops it.

    Parameters
    ----------
    photograph
    keep
        ``pruned`` keeps an image with 1 to :data:`MAX_FACES` faces, all of at least
        :data:`MIN_AREA`. ``large`` keeps every image with a face of at least that and ignores its
        other faces. ``all`` keeps every image with all its faces.
    """
    boxes = photograph.boxes
    large = area(boxes) >= MIN_AREA
    if keep == "all":
        return photograph
    if keep == "pruned":
        return photograph if 0 < len(boxes) <= MAX_FACES and large.all() else None
    if not large.any():
        return None
    return photograph._replace(
        boxes=boxes[large], ignored=np.concatenate([photograph.ignored, boxes[~large]]))


def _read_voc_folder(folder: str) -> list:
    """The images' names and faces of all XML files in a folder, in the order of names."""
    return [read_voc(os.path.join(folder, name)) for name in sorted(os.listdir(folder))
            if name.lower().endswith(".xml")]


def _read_yolo_folder(images: str, folder: str) -> list:
    """The names and faces of the images that have a text file of the same name.

    Each of its lines is ``class x y width height``, the box's centre and size as shares of the
    image's sides, and perhaps a score.
    """
    texts = {os.path.splitext(name)[0] for name in os.listdir(folder)
             if name.lower().endswith(".txt")}
    named = []
    for name in sorted(os.listdir(images)) if os.path.isdir(images) else ():
        stem, extension = os.path.splitext(name)
        if stem in texts and extension.lower() in EXTENSIONS:
            named.append((name, _read_yolo(
                os.path.join(folder, stem + ".txt"), os.path.join(images, name))))
    if not named:
        raise UserError("{}: none of its text files has the name of an image in {}; check both "
                        "names".format(folder, images))
    return named


def _read_yolo(path: str, image: str) -> list:
    try:
        with open_regular(path, "r", encoding="utf-8-sig") as stream:
            text = stream.read(MAX_TEXT + 1)
        lines = [line.split() for line in text.splitlines() if line.strip()]
        if len(text) > MAX_TEXT or any(len(line) not in (5, 6) for line in lines):
            raise ValueError("too long, or a line without five numbers")
        boxes = np.array([line[1:5] for line in lines], np.float64).reshape(-1, 4)
        if not (np.isfinite(boxes).all() and (np.abs(boxes) <= 2).all()
                and len(boxes) <= MOST_FACES):
            raise ValueError("a share is out of range, or too many boxes")
    except (OSError, ValueError) as error:
        raise UserError("{}: not a YOLO text file ({}); remove it or write it again".format(
            path, error))
    try:
        sides = np.array(upright_size(image), np.float64)
    except BadImage:  # reported with the other images that do not open
        return []
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    return [(tuple(each), True) for each in corners * np.tile(sides, 2)]


def read_coco(path: str) -> list:
    """Read a COCO file of object instances.

    Parameters
    ----------
    path
        A JSON file with ``images``, ``annotations`` and perhaps ``categories``.

    Returns
    -------
    list of (str, list of ((left, top, right, bottom), bool))
        For each image its name, and each box in pixels with whether it counts (False for
        ``iscrowd``).

    Raises
    ------
    UserError
        Missing, larger than 64 MB or not such a file.
    """
    if regular_size(path, "name a file of boxes") > MAX_JSON:
        raise UserError("{}: larger than {:,} bytes; split it".format(path, MAX_JSON))
    content = read_json(path, "write the boxes again")
    try:
        wanted = {each["id"] for each in content.get("categories", ())
                  if str(each["name"]).lower() == "face"}
        faces: dict = {each["id"]: (str(each["file_name"]), []) for each in content["images"]}
        if len(faces) < len(content["images"]):
            raise ValueError("two images have one id")
        for each in content["annotations"]:
            if wanted and each["category_id"] not in wanted:
                continue
            left, top, width, height = (float(number) for number in each["bbox"])
            if not all(abs(each) <= LARGEST for each in (left, top, width, height)):
                raise ValueError("a box is out of range")
            faces[each["image_id"]][1].append(
                ((left, top, left + width, top + height), not each.get("iscrowd")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError("{}: not a COCO file of boxes ({}: {}); write it again".format(
            path, type(error).__name__, error))
    return list(faces.values())


def read_voc(path: str) -> tuple[str, list]:
    """Read a Pascal VOC annotation, an XML file.

    Returns
    -------
    name
        The image's.
    faces
        For each object its box (left, top, right, bottom, in pixels) and whether it counts
        (False if it is marked ``difficult``). Every object is taken for a face.

    Raises
    ------
    UserError
        If it is missing or not such a file.
    """
    try:
        with open_regular(path) as stream:
            content = stream.read(MAX_XML_BYTES + 1)
        ascii_part = content.replace(b"\0", b"")  # of UTF-16 too
        if len(content) > MAX_XML_BYTES or b"<!DOCTYPE" in ascii_part or b"<!ENTITY" in ascii_part:
            raise ValueError("too long, or with entities")  # entities can expand without bound
        root = ElementTree.fromstring(content)
        faces = []
        for each in root.iter("object"):
            corners = [float(each.findtext("bndbox/" + side) or "none")
                       for side in ("xmin", "ymin", "xmax", "ymax")]
            if not all(abs(corner) <= LARGEST for corner in corners):
                raise ValueError("a corner is out of range")
            faces.append((tuple(corners), (each.findtext("difficult") or "0").strip() != "1"))
        name = root.findtext("filename")
        if name is None:
            raise ValueError("no filename")
        return name.strip(), faces
    except (OSError, ValueError, AttributeError, TypeError, LookupError,
            ElementTree.ParseError) as error:
        raise UserError("{}: not a Pascal VOC file ({}); remove it or write it again".format(
            path, error))
