"""Untrusted files: opened only if they are regular, and read within bounds.

Files are written by :mod:`darknet_face.runtime.atomic_files`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
import typing

from darknet_face.console import UserError

NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a named pipe opens at once; Windows has none in folders


def open_regular(path: str, mode: str = "rb", **options: typing.Any) -> typing.IO:
    """Open a regular file for reading; ``options`` go to :func:`open`.

    A named pipe would block for ever, and a device may never end.

    Raises
    ------
    OSError
        For anything but a regular file, and as :func:`open`.
    """

    def opener(name, flags):
        descriptor = os.open(name, flags | NONBLOCK)
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISREG(kind):
            return descriptor
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.EINVAL, "not a regular file", path)

    return open(path, mode, opener=opener, **options)


def regular_size(path: str, remedy: str) -> int:
    """A file's length in bytes.

    Raises
    ------
    UserError
        Missing, or a device, pipe or folder, which have no length: reading one could hang.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise UserError("{}: {}; {}".format(path, getattr(error, "strerror", error), remedy))
    if not stat.S_ISREG(status.st_mode):
        raise UserError("{}: not a regular file; {}".format(path, remedy))
    return status.st_size


def read_json(path: str, remedy: str = "make it again") -> dict[str, typing.Any]:
    """Read a JSON object whose numbers are all finite.

    Raises
    ------
    UserError
        Missing, damaged or not an object, or with NaN, an infinity or a number beyond float64.
    """
    try:
        with open_regular(path, "r", encoding="utf-8-sig") as stream:
            content = json.load(stream, parse_constant=_finite, parse_float=_finite,
                                parse_int=_bounded_integer)
    except FileNotFoundError:
        raise UserError("{}: no such file; {}".format(path, remedy))
    except OSError as error:
        raise UserError("{}: {}; {}".format(path, error.strerror, remedy))
    except (ValueError, RecursionError) as error:
        raise UserError("{}: not JSON ({}); {}".format(path, error, remedy))
    if not isinstance(content, dict):
        raise UserError("{}: not a JSON object; {}".format(path, remedy))
    return content


def _finite(text):
    """The number that a piece of JSON (``1.5``, ``NaN``, ``1e400``) stands for, if it is finite."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("{} is not a finite number".format(text[:20]))
    return number


def _bounded_integer(text):
    _finite(text)
    return int(text)


def check_replaceable(path: str, is_ours: typing.Callable[[str], bool], what: str) -> None:
    """Check that writing a file does not replace a file of another kind.

    A slip such as ``--contact-sheet *.png`` names a photograph as the output.

    Parameters
    ----------
    path
    is_ours
        Takes the path of an existing, non-empty file; returns whether it may be replaced.
    what
        What may be replaced, for the error: "a table of this script".

    Raises
    ------
    UserError
        If there is a file that may not be replaced, or anything but a regular file.
    """
    if not os.path.lexists(path):
        return
    if not os.path.isfile(path):
        raise UserError("{}: not a regular file; name another file".format(path))
    if os.path.getsize(path) and not is_ours(path):
        raise UserError("{}: not {}, and would be replaced; name another file".format(path, what))


def check_folder(path: str) -> None:
    """Check that a folder is there or can be made; raises UserError where a file is in the way."""
    place = os.path.abspath(path)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise UserError("{}: a file, where a folder is to be; name another folder".format(place))


def starts_with(path: str, text: str) -> bool:
    """Whether a file starts with a text, or is itself the beginning of that text.

    Zeros at the end, as a power failure leaves them, do not count.
    """
    with open(path, "rb") as stream:
        found = stream.read(len(text.encode())).rstrip(b"\0")
    return text.encode().startswith(found)


def is_json_with(path: str, keys: typing.Iterable[str]) -> bool:
    """Whether a file is a JSON object that has all of these keys."""
    try:
        return set(keys) <= set(read_json(path))
    except UserError:
        return False


def check_json(path: str, keys: typing.Iterable[str], what: str) -> None:
    """Check that writing a JSON object replaces at most one with the same keys.

    See :func:`check_replaceable`; a start of the text alone would take many files for ours.
    """
    check_replaceable(path, lambda _: is_json_with(path, keys), what)


def sha256(path: str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def relative_to_here(path: str) -> str:
    """The path as seen from the current folder if it is in there, otherwise unchanged.

    For messages and reports, which should not depend on where the project lies.
    """
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # no current folder any more; a NUL in the name
        return path
    return path if relative.split(os.sep)[0] == os.pardir else relative
