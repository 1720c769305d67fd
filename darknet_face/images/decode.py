"""Images from files: decode them to upright RGB arrays.

The one place where the project decodes image files, so that all of it sees the same pixels. A file
that does not decode raises :class:`BadImage`, which callers report, count and skip.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import warnings
from typing import Any, BinaryIO, Callable, Iterator, cast

import numpy as np
from PIL import Image

from darknet_face.images import jpeg, png
from darknet_face.images.formats import BadImage, check_decoder, open_image, tiff_tag
from darknet_face.images.to_rgb import scale_shallow, to_rgb
from darknet_face.runtime.safe_files import open_regular

# No more pixels than this are decoded. Measured at this size, decoding takes up to 0.8 GB beyond
# the program itself, 1.0 GB for a progressive JPEG and 1.6 GB for a WebP.
MAX_PIXELS = 100 * 1000 * 1000
MAX_SIDE = 65535  # pixels: the longest side of a JPEG

# A JPEG may store more pixels: it decodes at 1/2 or 1/4 of its size. A progressive one keeps all
# coefficients in memory, six bytes a pixel.
STORED, STORED_PROGRESSIVE = 4, 1.5

# Some rare kinds (run-length encoded BMP; PPM in plain text or with more than 8 bits) are decoded
# by Python code in Pillow, which takes up to 5 microseconds per pixel.
MAX_SLOW_PIXELS = 4 * 1000 * 1000

# Encoders make about ten scans for a progressive JPEG.
MAX_SCANS = 64

# A large JPEG is decoded at reduced scale, but to no less than this many times the network's size:
# resize() then still averages pixels, as it does for small images. With 2, probabilities near
# one half changed by up to 0.022; with 4, by up to 0.006.
OVERSAMPLING = 4

# Turns stored pixels upright, by the value of EXIF's orientation tag.
ORIENTATION_TAG = 0x0112
_Turn = Callable[[np.ndarray], np.ndarray]
_TURNS: dict[int, _Turn] = {
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


def read_image(source: str | bytes, max_pixels: int = MAX_PIXELS,
               least_size: int | None = None) -> np.ndarray:
    """Decode an image file of any mode completely and turn it upright by its orientation tag.

    Parameters
    ----------
    source
        A path, or the encoded image itself.
    max_pixels
        At most this many are decoded (decompression bombs). A JPEG with up to four times as many is
        decoded at 1/2 or 1/4 of its size, any other larger image is refused, and so are sides
        longer than :data:`MAX_SIDE`.
    least_size
        A JPEG whose sides are several times this is decoded at 1/2, 1/4 or 1/8 of its size, which
        takes a fraction of the time. Both sides stay at least this long.

    Returns
    -------
    numpy.ndarray
        uint8, [height, width, 3], RGB. Transparent parts show white, samples of more than 8 bits
        are scaled to 8, and of an animation the first frame is taken.

    Raises
    ------
    BadImage
        Missing, empty, truncated, oversized, not a regular file or not an image.
    """
    with _causes(), _open(source) as stream:
        return _or_repaired(stream, _decode, max_pixels, least_size)


def read_pillow(image: Image.Image, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of an open Pillow image, upright: see :func:`read_image`.

    Of an animation the current frame is taken.
    """
    with _causes():
        check_decoder(image)
        try:
            return _turned(*_load(image, max_pixels))
        except BadImage:
            raise
        except Exception as error:
            if "closed image" in str(error) or getattr(image, "fp", image) is None:
                raise BadImage("the Pillow image was closed before it was read")
            raise


def check_header(content: bytes, max_pixels: int) -> None:
    """Check an encoded image by its header alone, which takes no time.

    Raises
    ------
    BadImage
        Empty, not an image, or larger than :func:`read_image` takes.
    """
    with _causes(), _open(content) as stream:
        _or_repaired(stream, _check_stored, min(max_pixels, MAX_PIXELS))


@contextlib.contextmanager
def _causes() -> Iterator[None]:
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
        raise BadImage("more than {:,} pixels".format(MAX_PIXELS))
    except (Image.UnidentifiedImageError, SyntaxError):
        raise BadImage("not an image in a known format")
    except OSError as error:  # strerror leaves out the path, which the caller names
        raise BadImage(error.strerror or str(error))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise BadImage(str(error).strip() or type(error).__name__)


@contextlib.contextmanager
def _open(source: str | bytes) -> Iterator[BinaryIO]:
    """The encoded image as a binary stream."""
    if isinstance(source, bytes):
        stream: BinaryIO = io.BytesIO(source)
        size = len(source)
    else:
        stream = cast(BinaryIO, open_regular(source))
        size = os.fstat(stream.fileno()).st_size
    with stream:
        if size == 0:
            raise BadImage("empty file")
        yield stream


def read_size(source: str | bytes) -> tuple[int, int]:
    """The width and height in an image's header, of the pixels as stored.

    Raises
    ------
    Exception
        Whatever Pillow's parsers raise on a file that is not an image.
    """
    with _open(source) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _or_repaired(stream, _size)


def _size(stream: BinaryIO) -> tuple[int, int]:
    with open_image(stream) as image:
        return image.size


def _check_stored(stream: BinaryIO, max_pixels: int) -> None:
    with open_image(stream) as image:
        _check_size(image.size, _storable(image, max_pixels))


def upright_size(source: str | bytes) -> tuple[int, int]:
    """The width and height of an image turned upright, without decoding the pixels.

    :func:`read_image` gives an array of this size, or a smaller one if it decodes a JPEG at
    reduced scale.

    Raises
    ------
    BadImage
        See :func:`read_image`; damage to the pixels does not show.
    """
    with _causes(), _open(source) as stream:
        return _or_repaired(stream, _upright_size)


def reduction(source: str | bytes, image: np.ndarray) -> float:
    """How many pixels of a file are one of an image that :func:`read_image` gave at most pixels.

    1, but about 2 for a JPEG of more than :data:`MAX_PIXELS`.
    """
    if 5 * image.shape[0] * image.shape[1] < MAX_PIXELS:  # such a one keeps a quarter of them
        return 1.0
    return upright_size(source)[0] / image.shape[1]


def _upright_size(stream: BinaryIO) -> tuple[int, int]:
    with open_image(stream) as image:
        width, height = image.size
        _check_size(image.size, _storable(image, MAX_PIXELS))
        if image.format == "TIFF":  # newer versions of Pillow have turned this size already
            width, height = (tiff_tag(image, side) or 0 for side in (TIFF_WIDTH, TIFF_HEIGHT))
        return (height, width) if _orientation(image) in QUARTER_TURNS else (width, height)


def _or_repaired(stream: BinaryIO, read: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``read``; if it fails, try again without the chunks that may spoil a PNG."""
    try:
        return read(stream, *arguments)
    except BadImage:
        raise
    except Exception:
        pixels_only = png.without_ancillary_chunks(stream)
        if pixels_only is None:
            raise
        return read(pixels_only, *arguments)


def _decode(stream: BinaryIO, max_pixels: int, least_size: int | None) -> np.ndarray:
    pixels, turn = _open_and_load(stream, max_pixels, least_size)  # Pillow's copy is freed by now
    return _turned(pixels, turn)


def _turned(pixels: np.ndarray, turn: _Turn | None) -> np.ndarray:
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _open_and_load(stream: BinaryIO, max_pixels: int,
                   least_size: int | None) -> tuple[np.ndarray, _Turn | None]:
    with open_image(stream) as image:
        _check_size(image.size, _storable(image, max_pixels))
        tile = getattr(image, "tile", ())
        if tile and tile[0][0] in Image.DECODERS:
            _check_size(image.size, MAX_SLOW_PIXELS, " in a kind of file that is slow to decode")
        if image.info.get("progressive"):
            _check_scans(stream)
        _reduce(image, max_pixels, least_size)
        has_deep_colours = image.mode == "RGB" and ";16" in str(tile)
        pixels, turn = _load(image, max_pixels)
    if has_deep_colours and pixels.max() < 16:  # Pillow keeps the upper 8 of 16 bits
        deep = _deep_colours(stream, pixels.shape)
        pixels = pixels if deep is None else deep
    return pixels, turn


def _storable(image: Image.Image, max_pixels: int) -> int:
    """The most pixels that an image may store for ``max_pixels`` to be decoded."""
    if image.format != "JPEG":
        return max_pixels
    return int(max_pixels * (STORED_PROGRESSIVE if image.info.get("progressive") else STORED))


def _reduce(image: Image.Image, max_pixels: int, least_size: int | None) -> None:
    """Let a JPEG decode at 1/2, 1/4 or 1/8 of its size if that is enough, or as much as allowed."""
    width, height = image.size
    shrink = 1
    while -(-width // shrink) * -(-height // shrink) > max_pixels:
        shrink *= 2
    if least_size or shrink > 1:
        wanted = least_size or max(width, height)
        image.draft(None, (min(wanted, width // shrink), min(wanted, height // shrink)))


def _deep_colours(stream: BinaryIO, shape: tuple[int, ...]) -> np.ndarray | None:
    """A PNG or TIFF whose colours have 10 or 12 bits a sample, scaled to 8.

    None where OpenCV does not read it as 16 bits a sample of the same shape.
    """
    try:
        import cv2
    except ImportError:
        raise BadImage("colours of 10 or 12 bits; to read them: pip install opencv-python-headless")
    stream.seek(0)
    deep = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.shape != shape:
        return None
    return scale_shallow(deep[..., ::-1])


def _load(image: Image.Image, max_pixels: int) -> tuple[np.ndarray, _Turn | None]:
    """An image's pixels as stored, and what turns them upright."""
    # Pillow applies a TIFF's own tag while it loads the pixels.
    turned = image.format == "TIFF" and tiff_tag(image, ORIENTATION_TAG) in _TURNS
    _check_size(image.size, max_pixels)
    image.load()
    _check_size(image.size, max_pixels)  # a GIF's frame may be larger than the header says
    return to_rgb(image), None if turned else _TURNS.get(_orientation(image) or 1)


def _check_size(size: tuple[int, int], max_pixels: int, remark: str = "") -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadImage("{} x {} pixels, more than {:,}{}".format(
            width, height, max_pixels, remark))
    if not 0 < min(size) <= max(size) <= MAX_SIDE:
        raise BadImage("{} x {} pixels; a side must have 1 to {:,}".format(
            width, height, MAX_SIDE))


def _check_scans(stream: BinaryIO) -> None:
    place = stream.tell()
    stream.seek(0)
    scans = jpeg.count_scans(stream.read())
    stream.seek(place)
    if scans > MAX_SCANS:
        raise BadImage("{:,} scans, more than {}".format(scans, MAX_SCANS))


def _orientation(image: Image.Image) -> int | None:
    """The orientation tag of a loaded Pillow image, or None."""
    try:
        return image.getexif().get(ORIENTATION_TAG)
    except Exception:  # damaged metadata around whole pixels: taken as they are
        return None


def pixel_digest(image: np.ndarray) -> str:
    """SHA-256 of an image's size and pixels: equal for the same image under two file names."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
