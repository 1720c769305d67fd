"""Image formats: which are read, by their extensions, and which decoder opens a file.

Pillow decodes most. HEIC needs the package pillow-heif. Pillow 9.5, the last for Python 3.7, has
decoders with published holes: there OpenCV decodes WebP, and HEIC and rare kinds of TIFF are
refused (docs/runtimes.md has the list).
"""

from __future__ import annotations

import importlib
import re
import struct
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import PIL
from PIL import Image, ImageFile, JpegImagePlugin

# Left to choose, Pillow would also pass PostScript to an installed Ghostscript, and an untrusted
# image would be a program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# The modules of Pillow that read these; Image.init() would import 40 more.
PLUGINS = ("Bmp", "Gif", "Jpeg", "Mpo", "Png", "Ppm", "Tiff", "WebP")
HEIF_EXTENSIONS = (".heic", ".heif", ".hif")
VIDEO_EXTENSIONS = (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
                    ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv")


class BadImage(ValueError):
    """A file that is not a whole image of an accepted size; the message is the cause alone."""


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


# libwebp before 1.3.2 (CVE-2023-4863) and libtiff before 4.6.
HAS_OLD_DECODERS = _version(PIL.__version__) < (10, 0, 1)
SAFE_HEIF = (1, 7)  # pillow-heif: libheif before it writes out of bounds (CVE-2026-84383, ..)
OTHER_RUNTIME = "convert it to PNG or JPEG, or use Python 3.10 or later (make RUNTIME=tf2)"

# The kinds of TIFF that are read by an old libtiff: neither rare compressions nor YCbCr outside of
# JPEG, whose conversion overflows (CVE-2026-4775).
_COMPRESSION, _PHOTOMETRIC, _YCBCR, _JPEG = 259, 262, 6, 7
_COMPRESSIONS = (1, 2, 3, 4, 5, _JPEG, 8, 32773, 32946)  # CCITT, LZW, deflate, PackBits

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def _extensions() -> tuple[str, ...]:
    """Every extension of these formats; an MPO is a JPEG with more images."""
    for name in PLUGINS:
        importlib.import_module("PIL.{}ImagePlugin".format(name))
    return tuple(sorted([extension for extension, name in Image.EXTENSION.items()
                         if name in FORMATS + ("MPO",)] + list(HEIF_EXTENSIONS)))


EXTENSIONS = _extensions()


def open_image(stream: BinaryIO) -> Image.Image:
    """Read an image's header; its ``load()`` decodes the pixels.

    Parameters
    ----------
    stream
        At the beginning of the encoded image.

    Raises
    ------
    BadImage
        A format that is not read here, with the remedy.
    Exception
        Whatever Pillow's parsers raise on a file that is not an image.
    """
    start = stream.read(12)
    stream.seek(0)
    if start.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(stream)  # Image.open() refuses 179 megapixels and more
    if start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS:
        return _open_heif(stream)
    if HAS_OLD_DECODERS and start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return WebPFile(stream)
    image = Image.open(stream, formats=FORMATS)
    check_decoder(image)
    return image


def check_decoder(image: Image.Image) -> None:
    """Refuse an open Pillow image if its decoder has published holes; raises BadImage."""
    if not HAS_OLD_DECODERS:
        return
    if image.format == "WEBP":
        raise BadImage("a WebP opened by Pillow {}, whose decoder is unsafe; give its path or its "
                       "bytes".format(PIL.__version__))
    if image.format == "TIFF":
        compression = tiff_tag(image, _COMPRESSION, 1)
        is_odd = tiff_tag(image, _PHOTOMETRIC) == _YCBCR and compression != _JPEG
        if is_odd or compression not in _COMPRESSIONS:
            raise BadImage("a kind of TIFF (compression {}) that Pillow {} does not decode safely; "
                           "{}".format(compression, PIL.__version__, OTHER_RUNTIME))


def tiff_tag(image: Image.Image, tag: int, default: int | None = None) -> int | None:
    """A number in the header of a TIFF."""
    return getattr(image, "tag_v2", {}).get(tag, default)


def _open_heif(stream: BinaryIO) -> Image.Image:
    """Open a HEIC; pillow-heif turns it upright and resets its orientation tag."""
    if HAS_OLD_DECODERS:
        raise BadImage("HEIC, for which Python 3.7 has no safe decoder; " + OTHER_RUNTIME)
    try:
        import pillow_heif
    except ImportError:
        raise BadImage("HEIC; to read it: pip install pillow-heif") from None
    if _version(pillow_heif.__version__) < SAFE_HEIF:
        raise BadImage("HEIC, which pillow-heif {} does not decode safely; pip install --upgrade "
                       "pillow-heif".format(pillow_heif.__version__))
    return pillow_heif.HeifImageFile(stream)


class WebPFile(ImageFile.StubImageFile):
    """A WebP whose header is read here and whose pixels OpenCV decodes."""

    format = "WEBP"

    def _open(self) -> None:
        header = read_webp_header(cast(BinaryIO, self.fp))
        self._size = header.width, header.height
        setattr(self, "_mode" if hasattr(self, "_mode") else "mode", "RGBA")
        if header.exif:
            self.info["exif"] = header.exif

    def _load(self) -> Any:
        return _WebPLoader


class _WebPLoader:
    """What Pillow asks of an external decoder."""

    @staticmethod
    def open(image: WebPFile) -> None:
        pass

    @staticmethod
    def load(image: WebPFile) -> Image.Image:
        import cv2  # which every installation of Python 3.7 has

        stream = cast(BinaryIO, image.fp)
        stream.seek(0)
        pixels = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.shape[1::-1] != image.size:
            raise BadImage("a damaged WebP")
        order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        loaded = Image.fromarray(cv2.cvtColor(pixels, order))
        loaded.info.update(image.info)
        return loaded


class WebPHeader(NamedTuple):
    width: int
    height: int
    exif: bytes


def read_webp_header(stream: BinaryIO) -> WebPHeader:
    """Read a WebP's size, and its EXIF if it has any.

    Source: RFC 9649. Raises BadImage.
    """
    stream.seek(12)
    size, exif = None, b""
    while True:
        head = stream.read(8)
        if len(head) < 8:
            break
        name, length = head[:4], struct.unpack("<I", head[4:])[0]
        start = stream.read(min(length, 10))
        if size is None:
            size = _webp_size(name, start)
        if name == b"EXIF":
            exif = start + stream.read(min(length, 1 << 20) - len(start))
            break
        stream.seek(length + length % 2 - len(start), 1)
    if size is None or 0 in size:
        raise BadImage("a damaged WebP")
    return WebPHeader(*size, exif=exif)


def _webp_size(chunk: bytes, start: bytes) -> tuple[int, int] | None:
    """The width and height in the first 10 bytes of a chunk of pixels or of its extended header."""
    if len(start) < 10:
        return None
    if chunk == b"VP8X":
        return (int.from_bytes(start[4:7], "little") + 1, int.from_bytes(start[7:], "little") + 1)
    if chunk == b"VP8L" and start[0] == 0x2f:
        bits = int.from_bytes(start[1:5], "little")
        return (bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1
    if chunk == b"VP8 " and start[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", start[6:])
        return width & 0x3fff, height & 0x3fff
    return None
