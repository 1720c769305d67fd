"""Photographs with face boxes: WIDER FACE as distributed, and Pascal VOC XML.

WIDER FACE marks faces of a few pixels, which a grid of 32 pixels can't find. The detector that
these weights were first made for keeps a photograph if it has at most ten faces, each of at least
1 % of the picture's area. :func:`prune` does the same.
"""

from __future__ import annotations

import collections
import os
import xml.etree.ElementTree as ElementTree

import numpy as np

from darknet_face.console import UserError, warn
from darknet_face.images.decode import BadImage, upright_size
from darknet_face.images.wider_face import LARGEST, read_boxes
from darknet_face.runtime.safe_files import open_regular

MAX_FACES = 10
MIN_AREA = 0.01  # of the picture's
MAX_XML_BYTES = 1 << 20
KEEP = ("pruned", "large", "all")

# path : str
# boxes : float32 [n, 4], the faces: left, top, right, bottom as shares of the picture's sides.
# ignored : float32 [m, 4], faces that are neither to be found nor counted as wrong when found.
Photograph = collections.namedtuple("Photograph", "path boxes ignored")


def read_wider(wider_dir, split, keep="pruned"):
    """Read a split of WIDER FACE.

    Parameters
    ----------
    wider_dir : str
        The folder with ``WIDER_train``, ``WIDER_val`` and ``wider_face_split``.
    split : {"train", "val"}
    keep : {"pruned", "large", "all"}
        See :func:`prune`.

    Returns
    -------
    list of Photograph
    """
    return read_photographs(
        os.path.join(wider_dir, "WIDER_" + split, "images"),
        os.path.join(wider_dir, "wider_face_split", "wider_face_{}_bbx_gt.txt".format(split)), keep)


def read_photographs(images, boxes, keep="pruned"):
    """Read photographs and their boxes. Photographs that do not open are reported and skipped.

    Parameters
    ----------
    images : str
        The folder that the photographs' names are relative to.
    boxes : str
        A text file in WIDER FACE's format, or a folder of Pascal VOC XML files.
    keep : {"pruned", "large", "all"}
        See :func:`prune`.

    Returns
    -------
    list of Photograph

    Raises
    ------
    UserError
        When the boxes are missing or damaged, or no photograph is left.
    """
    named = _read_voc_folder(boxes) if os.path.isdir(boxes) else [
        (name, [((face.left, face.top, face.right, face.bottom), face.is_valid) for face in faces])
        for name, faces in read_boxes(boxes)]
    photographs = []
    for name, faces in named:
        path = os.path.join(images, name)
        try:
            photographs.append(_photograph(path, faces))
        except BadImage as error:
            warn("{}: {}; skipped".format(path, error))
    kept = [each for each in (prune(each, keep) for each in photographs) if each]
    if not kept:
        raise UserError("{}: none of its {:,} photographs is in {} with the faces that the rule "
                        "{!r} asks for; check both names".format(boxes, len(named), images, keep))
    return kept


def _photograph(path, faces):
    """A photograph whose boxes are clipped to the picture and given as shares of its sides."""
    width, height = upright_size(path)
    boxes = np.array([box for box, _ in faces], np.float32).reshape(-1, 4)
    boxes = np.clip(boxes / np.float32([width, height, width, height]), 0, 1)
    valid = np.array([is_valid for _, is_valid in faces], bool) & (area(boxes) > 0)
    return Photograph(path, boxes[valid], boxes[~valid])


def prune(photograph, keep, max_faces=MAX_FACES, min_area=MIN_AREA):
    """Apply a rule on small faces to a photograph.

    Parameters
    ----------
    photograph : Photograph
    keep : {"pruned", "large", "all"}
        ``pruned`` keeps a photograph with 1 to ``max_faces`` faces, all of at least ``min_area``.
        ``large`` keeps every photograph with a face of at least ``min_area`` and ignores the
        others. ``all`` keeps every photograph with all its faces.

    Returns
    -------
    Photograph or None
    """
    boxes = photograph.boxes
    large = area(boxes) >= min_area
    if keep == "all":
        return photograph
    if keep == "pruned":
        return photograph if 0 < len(boxes) <= max_faces and large.all() else None
    if not large.any():
        return None
    return photograph._replace(
        boxes=boxes[large], ignored=np.concatenate([photograph.ignored, boxes[~large]]))


def area(boxes):
    """Areas of boxes [n, 4] as shares of the picture's: [n]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _read_voc_folder(folder):
    """The photographs' names and faces of all XML files in a folder, in the order of names."""
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(".xml"))
    if not names:
        raise UserError("{}: no .xml file in it; name a folder of Pascal VOC files".format(folder))
    return [read_voc(os.path.join(folder, name)) for name in names]


def read_voc(path):
    """Read a Pascal VOC annotation.

    Parameters
    ----------
    path : str
        An XML file.

    Returns
    -------
    str, list of ((left, top, right, bottom), bool)
        The photograph's name, and for each object its box in pixels and whether it counts
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
            corners = [float(each.find("bndbox").find(side).text)
                       for side in ("xmin", "ymin", "xmax", "ymax")]
            if not all(abs(corner) <= LARGEST for corner in corners):
                raise ValueError("a corner is out of range")
            faces.append((tuple(corners), (each.findtext("difficult") or "0").strip() != "1"))
        return root.findtext("filename").strip(), faces
    except (OSError, ValueError, AttributeError, TypeError, ElementTree.ParseError) as error:
        raise UserError("{}: not a Pascal VOC file ({}); remove it or write it again".format(
            path, error))
