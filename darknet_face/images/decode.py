"""Pictures from files: decode them to upright RGB arrays, resize them.

The one place where the project decodes image files, so that all of it sees the same pixels. A file
that does not decode raises :class:`BadImage`, which callers report, count and skip.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import warnings

import cv2
import numpy as np
from PIL import Image

from darknet_face.images import jpeg, png
from darknet_face.runtime.safe_files import open_regular

# Larger images are refused before they are decoded. Measured at this size, decoding takes up to
# 0.8 GB beyond the program itself, 1.0 GB for a progressive JPEG and 1.6 GB for a WebP.
MAX_PIXELS = 100 * 1000 * 1000
MAX_SIDE = 65535  # pixels: the longest side of a JPEG

# Some rare kinds (run-length encoded BMP; PPM in plain text or with more than 8 bits) are decoded
# by Python code in Pillow, which takes up to 5 microseconds per pixel.
MAX_SLOW_PIXELS = 4 * 1000 * 1000

# Encoders make about ten scans for a progressive JPEG.
MAX_SCANS = 64

# Pixels that are converted to RGB at a time, which bounds the memory for intermediate copies.
_STRIP_PIXELS = 1000 * 1000

# A large JPEG is decoded at reduced scale, but to no less than this many times the network's size:
# resize() then still averages pixels, as it does for small pictures. With 2, probabilities near
# one half changed by up to 0.022; with 4, by up to 0.006.
OVERSAMPLING = 4

# Turns stored pixels upright, by the value of EXIF's orientation tag.
ORIENTATION_TAG = 0x0112
_TURNS = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}
QUARTER_TURNS = (5, 6, 7, 8)  # width and height change places
TIFF_WIDTH, TIFF_HEIGHT = 256, 257  # tags

# Decoders inside Pillow only. Left to choose, it would also pass PostScript to an installed
# Ghostscript, and a picture from a stranger would be a program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def _extensions():
    """Every extension that Pillow knows for these formats; an MPO is a JPEG with more pictures."""
    Image.init()
    return tuple(sorted(extension for extension, name in Image.EXTENSION.items()
                        if name in FORMATS + ("MPO",)))


EXTENSIONS = _extensions()
VIDEO_EXTENSIONS = (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
                    ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv")


class BadImage(ValueError):
    """A file that is not a whole image of an accepted size; the message is the cause alone."""


def read_image(source, max_pixels=MAX_PIXELS, least_size=None):
    """Decode an image file of any mode completely and turn it upright by its orientation tag.

    Parameters
    ----------
    source : str or bytes
        A path, or the encoded image itself.
    max_pixels : int
        Larger images are refused before their pixels are decoded (decompression bombs), and so
        are sides longer than :data:`MAX_SIDE`.
    least_size : int, optional
        A JPEG whose sides are several times this is decoded at 1/2, 1/4 or 1/8 of its size, which
        takes a fraction of the time. Both sides stay at least this long.

    Returns
    -------
    numpy.ndarray
        uint8, [height, width, 3], RGB. Transparent parts show white, 16-bit greys are scaled to
        8 bits, and of an animation the first frame is taken.

    Raises
    ------
    BadImage
        Missing, empty, truncated, oversized, not a regular file or not an image.
    """
    with _causes(max_pixels), _open(source) as stream:
        return _or_repaired(stream, _decode, max_pixels, least_size)


def read_pillow(image, max_pixels=MAX_PIXELS):
    """The pixels of an open Pillow image, upright: see :func:`read_image`.

    Of an animation the current frame is taken.
    """
    with _causes(max_pixels):
        return _turned(*_load(image, max_pixels))


def check_header(content, max_pixels):
    """Check an encoded image by its header alone, which takes no time.

    Parameters
    ----------
    content : bytes
    max_pixels : int

    Raises
    ------
    BadImage
        Empty, not an image, or with more pixels.
    """
    with _causes(max_pixels):
        _check_size(read_size(content), min(max_pixels, MAX_PIXELS))


@contextlib.contextmanager
def _causes(max_pixels):
    """Turn whatever reading an image raises into a BadImage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities in metadata; the size is checked here
            yield
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage("no such file")
    except Image.DecompressionBombError:
        raise BadImage("more than {:,} pixels".format(max_pixels))
    except Image.UnidentifiedImageError:
        raise BadImage("not an image in a known format")
    except OSError as error:  # strerror leaves out the path, which the caller names
        raise BadImage(error.strerror or str(error))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise BadImage(str(error).strip() or type(error).__name__)


@contextlib.contextmanager
def _open(source):
    """The encoded image as a binary stream."""
    if isinstance(source, bytes):
        stream, size = io.BytesIO(source), len(source)
    else:
        stream = open_regular(source)
        size = os.fstat(stream.fileno()).st_size
    with stream:
        if size == 0:
            raise BadImage("empty file")
        yield stream


def read_size(source):
    """The width and height in an image's header, of the pixels as stored.

    Parameters
    ----------
    source : str or bytes
        See :func:`read_image`.

    Raises
    ------
    Exception
        Whatever Pillow's parsers raise on a file that is not an image.
    """
    with _open(source) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _or_repaired(stream, _size)


def _size(stream):
    with Image.open(stream, formats=FORMATS) as image:
        return image.size


def upright_size(source):
    """The width and height that :func:`read_image` would give, without decoding the pixels.

    Raises
    ------
    BadImage
        See :func:`read_image`; damage to the pixels does not show.
    """
    with _causes(MAX_PIXELS), _open(source) as stream:
        return _or_repaired(stream, _upright_size)


def _upright_size(stream):
    with Image.open(stream, formats=FORMATS) as image:
        size = image.size
        _check_size(size, MAX_PIXELS)
        if image.format == "TIFF":  # newer versions of Pillow have turned this size already
            size = tuple(int(image.tag_v2[side]) for side in (TIFF_WIDTH, TIFF_HEIGHT))
        return size[::-1] if _orientation(image) in QUARTER_TURNS else size


def _or_repaired(stream, read, *arguments):
    """Call ``read``; if it fails, try again without the remarks that may stand in a PNG's way."""
    try:
        return read(stream, *arguments)
    except BadImage:
        raise
    except Exception:
        pixels_only = png.without_ancillary_chunks(stream)
        if pixels_only is None:
            raise
        return read(pixels_only, *arguments)


def _decode(stream, max_pixels, least_size):
    pixels, turn = _open_and_load(stream, max_pixels, least_size)  # Pillow's copy is freed by now
    return _turned(pixels, turn)


def _turned(pixels, turn):
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _open_and_load(stream, max_pixels, least_size):
    with Image.open(stream, formats=FORMATS) as image:
        _check_size(image.size, max_pixels)
        if image.tile and image.tile[0][0] in Image.DECODERS:
            _check_size(image.size, MAX_SLOW_PIXELS, " in a kind of file that is slow to decode")
        if image.info.get("progressive"):
            _check_scans(stream)
        if least_size:
            image.draft(None, (least_size, least_size))
        return _load(image, max_pixels)


def _load(image, max_pixels):
    """An image's pixels as stored, and what turns them upright (a function or None)."""
    _check_size(image.size, max_pixels)
    # Pillow applies a TIFF's own tag while it loads the pixels.
    turned = image.format == "TIFF" and image.tag_v2.get(ORIENTATION_TAG) in _TURNS
    image.load()
    _check_size(image.size, max_pixels)  # a GIF's frame may be larger than the header says
    return _to_rgb(image), None if turned else _TURNS.get(_orientation(image))


def _check_size(size, max_pixels, remark=""):
    width, height = size
    if width * height > max_pixels:
        raise BadImage("{} x {} pixels, more than {:,}{}".format(
            width, height, max_pixels, remark))
    if not 0 < min(size) <= max(size) <= MAX_SIDE:
        raise BadImage("{} x {} pixels; a side must have 1 to {:,}".format(
            width, height, MAX_SIDE))


def _check_scans(stream):
    place = stream.tell()
    stream.seek(0)
    scans = jpeg.count_scans(stream.read())
    stream.seek(place)
    if scans > MAX_SCANS:
        raise BadImage("{:,} scans, more than {}".format(scans, MAX_SCANS))


def _orientation(image):
    """The orientation tag of a loaded Pillow image, or None."""
    try:
        return image.getexif().get(ORIENTATION_TAG)
    except Exception:  # damaged metadata around whole pixels: taken as they are
        return None


def _to_rgb(image):
    """A loaded Pillow image of any mode as a uint8 [height, width, 3] array."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    deep = image.mode.startswith("I;16") or image.mode in ("I", "F")
    scale = _deep_scale(image) if deep else None
    for top, strip in _strips(image):
        rows = pixels[top:top + strip.height]
        if deep:
            rows[...] = _scaled_grey(strip, scale)[:, :, np.newaxis]
        else:
            rows[...] = _strip_to_rgb(strip)
    return pixels


def _strips(image):
    """Yield an image from top to bottom in strips of full width, each with its first row."""
    height = max(1, _STRIP_PIXELS // image.width)
    if height >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, height):
        yield top, image.crop((0, top, image.width, min(top + height, image.height)))


def _strip_to_rgb(image):
    """A Pillow image of 8 bits per channel as a uint8 [height, width, 3] array."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _deep_scale(image):
    """What to multiply a grey image of more than 8 bits by.

    Its maximum tells whether its range ends at 1.0, 255 or 65535.
    """
    highest, fractional = 0.0, False
    for _, strip in _strips(image):
        grey = np.nan_to_num(np.array(strip, np.float32), copy=False)
        highest = max(highest, float(grey.max()))
        fractional = fractional or (highest <= 1 and bool((grey % 1).any()))
    if highest > 255:
        return np.float32(1) / 257
    return np.float32(255 if highest <= 1 and fractional else 1)


def _scaled_grey(strip, scale):
    """A strip of such an image as a uint8 [height, width] array."""
    grey = np.nan_to_num(np.array(strip, np.float32), copy=False)
    grey *= scale
    return np.clip(np.rint(grey, out=grey), 0, 255, out=grey).astype(np.uint8)


def resize(image, height, width):
    """Stretch an image to ``height`` x ``width`` without keeping the aspect ratio.

    Pixel areas are averaged if the image shrinks along both axes; otherwise it is interpolated
    linearly.

    Parameters
    ----------
    image : numpy.ndarray
        uint8, [any height, any width, 3].

    Returns
    -------
    numpy.ndarray
        uint8, [height, width, 3].
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def pixel_digest(image):
    """SHA-256 of an image's size and pixels: equal for the same picture under two file names."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
