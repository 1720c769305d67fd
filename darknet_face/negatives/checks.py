"""Whether an image is fit to be a negative, and whether it is there already.

Checks of a downloaded file (a whole image of a sane size, without a human face), the form that it
is stored in, and the comparison with those that are there.

To print the images in which the face check finds a face, run it on folders, images or lists::

    python -m darknet_face.negatives.checks data/celeba_test_file.pickle data/neg_samples
"""

from __future__ import annotations

import argparse
import contextlib
import os
import threading

import cv2
import numpy as np
from PIL import Image

from darknet_face.console import HelpFormatter, UserError, cli, printable, progress, warn
from darknet_face.images import decode
from darknet_face.images.contact_sheets import encode
from darknet_face.images.file_lists import load_list, resolve
from darknet_face.images.find_images import find_images
from darknet_face.images.near_duplicates import HASH_SIDE, NEAR_BITS
from darknet_face.images.resize import resize
from darknet_face.negatives.reports import Unusable

STORED_SIDE = 512  # pixels: the longest side of a stored image
JPEG_QUALITY = 90
CASCADE_FOLDER = os.path.join(os.path.dirname(cv2.__file__), "data")

# From so many pixels on one image is decoded at a time: each takes up to 26 bytes in between.
_LARGE = 4 * 1000 * 1000
_decoding_large = threading.Lock()


class Unfit(Unusable):
    """An image that is no negative."""


def decode_download(body: bytes, max_pixels: int, min_side: int) -> np.ndarray:
    """Decode a downloaded file, whatever it claims to be.

    Parameters
    ----------
    body
    max_pixels
        Larger images are refused before their pixels are decoded (decompression bombs).
    min_side
        The least height and width in pixels, as the image is stored.

    Returns
    -------
    numpy.ndarray
        uint8, [height, width, 3], RGB.

    Raises
    ------
    Unfit
        Not an image, damaged, too small or too large.
    """
    try:
        width, height = decode.read_size(body)
    except Image.DecompressionBombError:
        raise Unfit("too many pixels", "more than {:,}".format(max_pixels)) from None
    except Exception:  # Pillow's parsers raise nearly anything on what is not an image
        raise Unfit("not an image", "{} bytes".format(len(body))) from None
    if width * height > max_pixels:
        raise Unfit("too many pixels", "{} x {}".format(width, height))
    if min(_stored_size(width, height)) < min_side:
        raise Unfit("too small", "{} x {} pixels".format(width, height))
    try:
        with _decoding_large if width * height > _LARGE else contextlib.nullcontext():
            return decode.read_image(body, max_pixels)
    except decode.BadImage as error:
        raise Unfit("truncated or damaged", str(error)) from None


def stored_form(image: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Shrink and re-encode an image, which removes metadata and files hidden in it.

    Parameters
    ----------
    image
        uint8, [height, width, 3], RGB.

    Returns
    -------
    jpeg : bytes
        At most 512 pixels along the longest side.
    stored : numpy.ndarray
        uint8, [height, width, 3]: what ``jpeg`` decodes to.
    """
    small = resize(image, *_stored_size(*image.shape[:2]))
    jpeg = encode(small, "JPEG", quality=JPEG_QUALITY)
    return jpeg, decode.read_image(jpeg)


def _stored_size(*size):
    """Height and width as stored: the longer is at most STORED_SIDE."""
    scale = min(1.0, STORED_SIDE / max(size))
    return tuple(max(1, round(scale * side)) for side in size)


class SeenImages:
    """The images kept so far, which new ones are compared with."""

    def __init__(self) -> None:
        self._digests: list[str] = []
        self._known: set[str] = set()
        self._hashes = np.empty((256, HASH_SIDE ** 2), bool)

    def add(self, digest: str, bits: np.ndarray) -> None:
        """Add an image by its pixel digest and perceptual hash (bool, [256])."""
        if len(self._digests) == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[len(self._digests)] = bits
        self._digests.append(digest)
        self._known.add(digest)

    def find(self, digest: str, bits: np.ndarray) -> tuple[str, str] | None:
        """Look for an image among those added.

        Returns
        -------
        (str, str) or None
            "duplicate" or "near duplicate", and the digest of the image that it is like; None
            if there is no such image.
        """
        if digest in self._known:
            return "duplicate", digest
        distances = np.count_nonzero(self._hashes[:len(self._digests)] != bits, axis=1)
        if len(distances) and distances.min() <= NEAR_BITS:
            return "near duplicate", self._digests[distances.argmin()]
        return None


class FaceDetector:
    """Finds human faces with two of OpenCV's Haar cascades: frontal, and profile to both sides.

    An image is resized to 256 pixels along its longest side. It counts as an image of a face if
    a cascade finds a face of at least a tenth of that, in at least eight neighbouring windows. At
    this threshold the two cascades found as many faces as OpenCV's four frontal cascades and the
    profile together, and flagged no more images without a face.
    """

    SIDE = 256
    NEIGHBOURS = 8
    CASCADES = ("haarcascade_frontalface_alt2.xml", "haarcascade_profileface.xml")

    def __init__(self) -> None:
        self._local = threading.local()  # a cascade has a state, so each thread needs its own

    def has_face(self, image: np.ndarray) -> bool:
        """Whether there is a human face in an image (uint8, [height, width, 3], RGB)."""
        if not hasattr(self._local, "cascades"):
            self._local.cascades = [
                cv2.CascadeClassifier(os.path.join(CASCADE_FOLDER, name))
                for name in self.CASCADES]
        frontal, profile = self._local.cascades
        scale = self.SIDE / max(image.shape[:2])
        height, width = (max(1, round(scale * length)) for length in image.shape[:2])
        grey = cv2.cvtColor(resize(image, height, width), cv2.COLOR_RGB2GRAY)
        return (self._sees(frontal, grey) or self._sees(profile, grey)
                or self._sees(profile, cv2.flip(grey, 1)))

    def _sees(self, cascade, grey):
        least = self.SIDE // 10
        return len(cascade.detectMultiScale(
            grey, scaleFactor=1.1, minNeighbors=self.NEIGHBOURS, minSize=(least, least))) > 0


def expand_name(name: str, data_dir: str) -> list[str]:
    """The paths of the images that a name on the command line stands for.

    Parameters
    ----------
    name
        A folder, a ``.pickle`` with a list of names, or an image.
    data_dir
        What relative names in a list are relative to.

    Raises
    ------
    UserError
        No such file, or a damaged list.
    """
    if os.path.isdir(name):
        return list(find_images(name))
    if name.endswith(".pickle"):
        return [resolve(item, data_dir) for item in load_list(name)]
    if not os.path.exists(name):
        raise UserError("{}: no such file; give folders, images or lists (.pickle)".format(name))
    return [name]


@cli
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Print the images in which the face check finds a human face, and their "
                    "share.", formatter_class=HelpFormatter)
    parser.add_argument("images", nargs="+", help="folders, lists (.pickle) or image files")
    parser.add_argument("--data-dir", default="data", help="what names in lists are relative to")
    args = parser.parse_args()
    paths = [path for name in args.images for path in expand_name(name, args.data_dir)]
    detector = FaceDetector()
    looked_at = found = 0
    for path in progress(paths, desc="looking for faces", unit="image"):
        try:
            image = decode.read_image(path)
        except decode.BadImage as error:
            warn("{}: {}; skipped".format(path, error))
            continue
        looked_at += 1
        if detector.has_face(image):
            found += 1
            print(printable(path))
    if not looked_at:
        raise UserError("{}: no usable image; give folders, images or lists (.pickle)".format(
            ", ".join(args.images)))
    print("faces found in {} of {} images ({:.2f} %)".format(
        found, looked_at, 100.0 * found / looked_at))


if __name__ == "__main__":
    main()
