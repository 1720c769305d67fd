"""The images in a request: the body itself, the files of a form, or base64 in JSON.

Forms are split here, in linear time: the last Werkzeug for Python 3.7 has published holes in its
parser (CVE-2023-46136, CVE-2024-49767), and a request is bounded and in memory anyway.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, List, Optional, Tuple

import flask
from werkzeug.http import parse_options_header

# What an image may be sent as. curl --data-binary says "form" of any body.
IMAGE_TYPES = ("image/", "application/octet-stream", "application/x-www-form-urlencoded")
MOST_FIELDS = 100  # of a form, beside the images
MOST_PART_HEADER = 4096  # bytes
DATA_URL = "data:"

Named = List[Tuple[Optional[str], bytes]]


def read_images(request: flask.Request, most: int) -> Named:
    """The names, None if there is none, and the contents of the images in a request.

    Aborts with a status and its cause if there are none or more than ``most``.
    """
    kind = request.mimetype
    if kind == "multipart/form-data":
        images = _in_form(request.get_data(cache=False),
                          request.mimetype_params.get("boundary", ""), most)
    elif kind == "application/json":
        images = _in_json(request.get_data(cache=False))
    elif not kind or kind.startswith(IMAGE_TYPES):
        images = [(None, request.get_data(cache=False))]
    else:
        flask.abort(415, "Content-Type {}: send an image (image/...), several as "
                         "multipart/form-data, or JSON".format(kind))
    if len(images) > most:
        flask.abort(413, "{} images, at most {} fit in a request".format(len(images), most))
    return images


def _in_form(body: bytes, boundary: str, most: int) -> Named:
    """The files of a multipart form (RFC 7578)."""
    if not boundary:
        flask.abort(422, "multipart/form-data without a boundary")
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    most_splits = most + MOST_FIELDS + 2
    _, *parts = (b"\r\n" + body).split(delimiter, most_splits)
    if len(parts) == most_splits:
        flask.abort(413, "more than {} parts in the form".format(most + MOST_FIELDS))
    end = parts.pop() if parts else b""
    images = [image for image in map(_file_of, parts) if image]
    if not images or not end.startswith(b"--"):
        flask.abort(422, "no file in the form, or the form is cut off")
    return images


def _file_of(part: bytes) -> tuple[str | None, bytes] | None:
    """The file in a part of a form; None for another field."""
    header, found, content = part.partition(b"\r\n\r\n")
    if not found or len(header) > MOST_PART_HEADER:
        flask.abort(422, "a part of the form has no header, or one of more than {:,} bytes".format(
            MOST_PART_HEADER))
    for line in header.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            filename = parse_options_header(value.strip())[1].get("filename")
            return None if filename is None else (filename, content)
    return None


def _in_json(body: bytes) -> Named:
    """The images of ``{"image": text}`` or ``{"images": [text, ..]}``."""
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_int=str)  # int() of a long text is slow
    except (ValueError, RecursionError):
        flask.abort(422, "the body is no JSON")
    keys = set(value) if isinstance(value, dict) else set()
    if keys == {"image"}:
        texts = [value["image"]]
    elif keys == {"images"} and isinstance(value["images"], list) and value["images"]:
        texts = value["images"]
    else:
        flask.abort(422, 'JSON must be {"image": "data:image/jpeg;base64,.."} or {"images": [..]}')
    return [(None, _decoded(text)) for text in texts]


def _decoded(text: Any) -> bytes:
    """The bytes of a data URL, or of base64 alone."""
    if isinstance(text, str) and text.startswith(("http:", "https:")):
        flask.abort(422, "images are not fetched from addresses; send them as base64")
    try:
        is_url = text.startswith(DATA_URL)
        head, _, data = text.partition(",") if is_url else (";base64", ",", text)
        if not head.endswith(";base64"):
            raise ValueError(head)
        return base64.b64decode("".join(data.split()), validate=True)
    except (AttributeError, ValueError, binascii.Error):
        flask.abort(422, "an image in JSON must be text: base64, or data:image/jpeg;base64,..")
