"""Removes the chunks of a PNG that are not needed for its pixels.

A PNG is a series of chunks. The critical ones hold the pixels; the others, such as a colour profile
or a comment, do not. Pillow refuses the whole file when one of the others is damaged or larger than
1 MB. Source: PNG specification, https://www.w3.org/TR/png-3/#5DataRep.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import BinaryIO

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Ancillary chunks that change what is seen: the transparent colour and the orientation.
_NEEDED = (b"tRNS", b"eXIf")
_MAX_NEEDED = 1 << 20  # bytes
_SAMPLES = {0: 1, 2: 3}  # of a transparent colour, 2 bytes each, by the image's colour type
_COLOUR_TYPE = len(_SIGNATURE) + 17  # its place in the file: in the first chunk
_MAX_KEPT = 1 << 30  # bytes: an uncompressed image of 100 megapixels, 16 bits and alpha has 0.8e9
_BLOCK = 1 << 20


def without_ancillary_chunks(stream: BinaryIO) -> io.BytesIO | None:
    """A PNG's critical chunks as they are, and those others that matter and are not damaged.

    Parameters
    ----------
    stream
        Read from its beginning.

    Returns
    -------
    io.BytesIO
        At its beginning; None for what is not a PNG, is too large, or has nothing to remove.
    """
    stream.seek(0)
    if stream.read(len(_SIGNATURE)) != _SIGNATURE:
        return None
    kept, removed = io.BytesIO(), False
    kept.write(_SIGNATURE)
    name = b""
    while name != b"IEND":
        header = stream.read(8)
        if len(header) < 8:
            break  # truncated: the decoder says so
        length, name = struct.unpack(">I4s", header)
        if not name[0] & 0x20:  # a capital letter marks a critical chunk
            kept.write(header)
            _copy(stream, kept, length + 4)
        elif name in _NEEDED and length <= _MAX_NEEDED:
            content = stream.read(length + 4)
            if _is_whole(name, content, kept):
                kept.write(header + content)
            else:
                removed = True
        else:
            stream.seek(length + 4, os.SEEK_CUR)
            removed = True
        if kept.tell() > _MAX_KEPT:
            return None
    kept.seek(0)
    return kept if removed else None


def _is_whole(name: bytes, content: bytes, kept: io.BytesIO) -> bool:
    """Whether a chunk's checksum is right, and its length if it is a transparent colour."""
    if struct.pack(">I", zlib.crc32(name + content[:-4])) != content[-4:]:
        return False
    kind = kept.getbuffer()[_COLOUR_TYPE] if kept.tell() > _COLOUR_TYPE else -1
    return name != b"tRNS" or len(content) - 4 >= 2 * _SAMPLES.get(kind, 0)


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    """Copy ``count`` bytes, or as many as there are."""
    while count > 0:
        block = source.read(min(count, _BLOCK))
        if not block:
            return
        target.write(block)
        count -= len(block)
