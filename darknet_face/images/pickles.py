"""Reads a pickled list of strings: nothing in the file can run or fill memory.

A pickle is a program for a small stack machine. :mod:`pickletools` lists its instructions first; a
list of strings needs about twenty of them, and a file with any other is refused unread. The
instructions are those of every Python version and protocol.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

MAX_NAMES = 5 * 1000 * 1000
MAX_LINE = 1 << 15  # bytes of a line in protocol 0: 4,096 characters, six bytes each at most

_STRINGS = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "STRING", "SHORT_BINSTRING",
            "BINSTRING"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_LISTS = {"EMPTY_LIST", "LIST"}
_OBJECTS = _STRINGS | _LISTS | {"GET", "BINGET", "LONG_BINGET"}
_ALLOWED = _OBJECTS | {"FRAME", "MARK", "APPEND", "APPENDS", "STOP"}

# What is in a file that is not a list of strings, by the beginning of the instruction's name.
_KINDS = (("TUPLE", "a tuple"), ("EMPTY_TUPLE", "a tuple"), ("DICT", "a dictionary"),
          ("EMPTY_DICT", "a dictionary"), ("EMPTY_SET", "a set"), ("BINBYTES", "bytes"),
          ("SHORT_BINBYTES", "bytes"), ("BYTEARRAY", "bytes"), ("NONE", "None"),
          ("BININT", "numbers"), ("INT", "numbers"), ("LONG", "numbers"), ("BINFLOAT", "numbers"))
_MODULES = {"numpy": "a NumPy array or NumPy strings", "pathlib": "pathlib paths",
            "pandas": "a pandas object", "_codecs": "bytes"}


class _PlainLines(io.BytesIO):
    """A stream whose lines end early, so that no number in one takes long to read.

    They have no escapes, since pickletools reads only those that stand for ASCII.
    """

    def readline(self, size: int | None = -1) -> bytes:
        return super().readline(MAX_LINE).replace(b"\\", b"/")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError("it asks for {}.{}".format(module, name))


def parse_names(content: bytes) -> list[str]:
    """Read a pickled list of strings.

    Parameters
    ----------
    content
        A pickle of protocol 0 to 5. Byte strings of Python 2 are taken as file names in UTF-8;
        bytes that are not UTF-8 survive as :func:`os.fsdecode` keeps them.

    Raises
    ------
    ValueError
        Anything but a list of strings; damaged or hostile files. It says what was found.
    """
    if content[:1] == pickle.PROTO and content[1:2] <= b"\5":
        content = content[2:]  # Python 3.7 refuses 5, whose instructions are those of 4 here
    try:
        _check(content)
        names = _Unpickler(io.BytesIO(content), encoding="utf-8", errors="surrogateescape").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError("it is a text file" if _is_text(content) else
                         str(error) or type(error).__name__) from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("it is not a list of strings")
    return names


def _check(content: bytes) -> None:
    """Check a pickle's instructions, which bounds the memory that it can take.

    There is one list, one mark at a time, and no more stored references than objects.
    """
    objects = stored = lists = 0
    marked = False
    strings: list[Any] = ["", ""]  # the last two, which STACK_GLOBAL refers to
    for instruction, argument, _ in pickletools.genops(_PlainLines(content)):
        name = instruction.name
        if name in _PUTS:
            stored += 1
            if stored > objects or argument and argument > objects:
                raise ValueError("it stores more than it holds")
            continue
        if name in _STRINGS:
            strings = [strings[1], argument]
        elif name not in _ALLOWED:
            raise ValueError("it holds " + _describe(name, argument, strings))
        elif name in _LISTS:
            lists += 1
        if name == "MARK" and marked or lists > 1:
            raise ValueError("it holds more than one list")
        marked = name == "MARK" or marked and name not in ("LIST", "APPENDS")
        objects += name in _OBJECTS
        if objects > MAX_NAMES:
            raise ValueError("it holds more than {:,} strings".format(MAX_NAMES))


def _describe(instruction: str, argument: Any, strings: list[Any]) -> str:
    """What a file holds that needs an instruction other than those of a list of strings."""
    if instruction in ("GLOBAL", "STACK_GLOBAL"):
        found = argument if instruction == "GLOBAL" else " ".join(map(str, strings))
        module, _, name = found.partition(" ")
        if name in ("set", "frozenset"):
            return "a set"
        return _MODULES.get(module.split(".")[0], "objects of {}.{}".format(module, name)[:100])
    return next((kind for start, kind in _KINDS if instruction.startswith(start)),
                "more than a list of strings ({})".format(instruction))


def _is_text(content: bytes) -> bool:
    """Whether a file has lines of text; a pickle, which may too, ends with a full stop."""
    if content.rstrip().endswith(pickle.STOP):
        return False
    try:
        text = content[:1000].decode("utf-8-sig", "strict" if len(content) < 1000 else "ignore")
    except UnicodeDecodeError:
        return False
    return "." in text and all(line.isprintable() for line in text.splitlines())
