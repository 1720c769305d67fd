"""Counts the scans of a JPEG.

A progressive JPEG refines the image scan by scan. Each scan takes the time of a pass over all
pixels but may be 50 bytes long, so that a small file could keep a decoder busy for hours. Source:
ITU-T T.81, annex B.
"""

from __future__ import annotations

import re

_MARKER = re.compile(b"\xff+([\x01-\xcf\xd8-\xfe])")  # FF00 and FFD0 to FFD7 belong to a scan
_BARE = (0x01, 0xD8)  # markers without a length
_END, _SCAN = 0xD9, 0xDA


def count_scans(content: bytes) -> int:
    """How many scans a JPEG has, up to its end-of-image marker; what follows is ignored."""
    scans = place = 0
    while True:
        found = _MARKER.search(content, place)
        if not found or found.group(1)[0] == _END:
            return scans
        place, marker = found.end(), found.group(1)[0]
        scans += marker == _SCAN
        if marker not in _BARE:
            place += int.from_bytes(content[place:place + 2], "big")
