"""Negatives from a folder of the user's own images, one sub-folder per category."""

from __future__ import annotations

import os

from darknet_face.console import UserError, progress, warn
from darknet_face.images import decode, formats
from darknet_face.images.find_images import Skipped, find_images
from darknet_face.images.near_duplicates import perceptual_hash
from darknet_face.negatives.checks import FaceDetector
from darknet_face.negatives.reports import Rejection
from darknet_face.negatives.store import NegativeSample


def read_folder(folder: str, keep_faces: bool = False,
                ) -> tuple[list[NegativeSample], list[Rejection]]:
    """Read every image under the sub-folders of ``folder``.

    Images with human faces are read too: the user chose them. But a warning says how many there
    are, since a folder of faces among the categories would spoil the training.

    Parameters
    ----------
    folder
        Its sub-folders are the categories. If none of them holds an image, the images in ``folder``
        itself are one category.
    keep_faces
        Do not look for faces.

    Returns
    -------
    samples : list of NegativeSample
        By path; may contain identical images.
    rejections : list of Rejection

    Raises
    ------
    UserError
        Not a folder, or no usable image in it.
    """
    if not os.path.isdir(folder):
        raise UserError("{}: not a folder; --from-dir wants a folder of sub-folders with "
                        "images".format(folder))
    paths, rejections = _choose_files(folder)
    detector = None if keep_faces else FaceDetector()
    samples: list[NegativeSample] = []
    faces: list[str] = []
    for path in progress(paths, desc="reading images", unit="image"):
        category = _category(path, folder)
        try:
            image = decode.read_image(path)
        except decode.BadImage as error:
            warn("{}: {}; skipped".format(path, error))
            rejections.append(Rejection(path, category, "bad image", str(error)))
            continue
        samples.append(NegativeSample(
            path, category, decode.pixel_digest(image), perceptual_hash(image)))
        if detector and detector.has_face(image):
            faces.append(path)
    if not samples:
        raise UserError("{}: no usable image in it; --from-dir wants sub-folders with "
                        "images ({})".format(folder, ", ".join(formats.EXTENSIONS)))
    if faces:
        warn("{}: human faces found in {} of {} images, {} first; they are kept as negatives: "
             "look at them with `python -m darknet_face.negatives.checks` and remove the true "
             "ones".format(folder, len(faces), len(samples), ", ".join(faces[:3])))
    return samples, rejections


def _choose_files(folder):
    """The image files in a folder's categories, and rejections of those in no category."""
    skipped = Skipped()
    paths = list(find_images(folder, report=skipped.add))
    if skipped:
        warn("{}: skipped {}".format(folder, skipped))
    inside = [path for path in paths if _category(path, folder)]
    if not inside:
        return paths, []
    stray = sorted(set(paths) - set(inside))
    if stray:
        warn("{}: {} images outside its sub-folders are skipped, {} first".format(
            folder, len(stray), os.path.basename(stray[0])))
    return inside, [Rejection(path, "", "in no category", "") for path in stray]


def _category(path, folder):
    """The sub-folder of ``folder`` that a file is in, at any depth; "" if it is in none."""
    parts = os.path.relpath(path, folder).split(os.sep)
    return parts[0] if len(parts) > 1 else ""
