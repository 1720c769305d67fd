"""Reads a pickled list of strings without unpickling: nothing in the file can run or fill memory.

A pickle is a program for a small stack machine. A list of strings needs about twenty of its
instructions. :func:`parse_names` carries out these and refuses all others, whatever Python version
and protocol wrote the file. Source: the comments in CPython's ``Lib/pickletools.py``.
"""

from __future__ import annotations

import codecs
import io
import pickle
import struct
import sys

MAX_NAMES = 5 * 1000 * 1000

_MARK = object()


class _Stop(Exception):
    """The pickle's last instruction was reached."""


class _Machine:
    """Runs the instructions that a pickled list of strings consists of.

    Memory stays below about 150 bytes per string and 20 bytes per byte of the file: there is one
    list, one mark at a time, and no more stored references than objects.
    """

    def __init__(self, content):
        self.stream = io.BytesIO(content)
        self.stack = []
        self.memo = {}
        self.names = None  # the one list
        self.objects = 0
        self.marked = False

    def run(self):
        """The list; raises ValueError."""
        try:
            while True:
                opcode = self._read(1)
                action = _ACTIONS.get(opcode)
                if action is None:
                    raise ValueError("it holds more than a list of strings: opcode {!r}".format(
                        opcode))
                action(self)
        except _Stop:
            if self.stack != [self.names]:
                raise ValueError("it is not one list")
            return self.names
        except (IndexError, KeyError):
            raise ValueError("it refers to nothing")

    def _read(self, count):
        piece = self.stream.read(min(count, sys.maxsize))
        if len(piece) != count:
            raise ValueError("it is truncated")
        return piece

    def _line(self):
        line = self.stream.readline()
        if not line.endswith(b"\n"):
            raise ValueError("it is truncated")
        return line[:-1]

    def _number(self, layout):
        return struct.unpack(layout, self._read(struct.calcsize(layout)))[0]

    def _push(self, value):
        self.objects += 1
        if self.objects > MAX_NAMES:
            raise ValueError("it holds more than {:,} strings".format(MAX_NAMES))
        self.stack.append(value)

    def protocol(self):
        version = self._number("<B")
        if version > 5:
            raise ValueError("its protocol {} is unknown".format(version))

    def frame(self):
        self._read(8)  # a length to read ahead, of no use here

    def mark(self):
        if self.marked:
            raise ValueError("it nests")
        self.marked = True
        self.stack.append(_MARK)

    def empty_list(self):
        if self.names is not None:
            raise ValueError("it holds a second list")
        self.names = []
        self._push(self.names)

    def marked_list(self):
        strings = self._since_mark()
        self.empty_list()
        self._extend(strings)

    def append(self):
        self._extend([self.stack.pop()])

    def appends(self):
        self._extend(self._since_mark())

    def _since_mark(self):
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
        strings = self.stack[start + 1:]
        del self.stack[start:]
        self.marked = False
        return strings

    def _extend(self, strings):
        if self.stack[-1] is not self.names or not all(isinstance(s, str) for s in strings):
            raise ValueError("it is not a list of strings")
        self.names.extend(strings)

    def line_text(self):
        self._push(str(self._line(), "raw-unicode-escape"))

    def line_bytes(self):
        """A string of Python 2 as its ``repr`` in ASCII."""
        line = self._line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise ValueError("a string lacks its quotes")
        self._push(_file_name(codecs.escape_decode(line[1:-1])[0]))

    def put(self, key):
        if len(self.memo) >= self.objects and key not in self.memo:
            raise ValueError("it stores more than it holds")
        self.memo[key] = self.stack[-1]

    def get(self, key):
        self._push(self.memo[key])

    def stop(self):
        raise _Stop


def _file_name(content):
    """A byte string of Python 2 as a file name of Python 3."""
    return content.decode("utf-8", "surrogateescape")


def _text(layout):
    """The instruction for a Unicode string that follows its length."""
    return lambda machine: machine._push(
        machine._read(machine._number(layout)).decode("utf-8", "surrogatepass"))


def _bytes(layout):
    """The instruction for a string of Python 2 that follows its length."""
    return lambda machine: machine._push(_file_name(machine._read(machine._number(layout))))


_ACTIONS = {
    pickle.PROTO: _Machine.protocol, pickle.FRAME: _Machine.frame, pickle.STOP: _Machine.stop,
    pickle.MARK: _Machine.mark, pickle.EMPTY_LIST: _Machine.empty_list,
    pickle.LIST: _Machine.marked_list, pickle.APPEND: _Machine.append,
    pickle.APPENDS: _Machine.appends,
    pickle.UNICODE: _Machine.line_text, pickle.SHORT_BINUNICODE: _text("<B"),
    pickle.BINUNICODE: _text("<I"), pickle.BINUNICODE8: _text("<Q"),
    pickle.STRING: _Machine.line_bytes, pickle.SHORT_BINSTRING: _bytes("<B"),
    pickle.BINSTRING: _bytes("<I"),
    pickle.PUT: lambda machine: machine.put(int(machine._line()[:10])),
    pickle.BINPUT: lambda machine: machine.put(machine._number("<B")),
    pickle.LONG_BINPUT: lambda machine: machine.put(machine._number("<I")),
    pickle.MEMOIZE: lambda machine: machine.put(len(machine.memo)),
    pickle.GET: lambda machine: machine.get(int(machine._line()[:10])),
    pickle.BINGET: lambda machine: machine.get(machine._number("<B")),
    pickle.LONG_BINGET: lambda machine: machine.get(machine._number("<I")),
}  # fmt: skip


def parse_names(content):
    """Read a pickled list of strings.

    Parameters
    ----------
    content : bytes
        A pickle of protocol 0 to 5. Byte strings of Python 2 are taken as file names in UTF-8;
        bytes that are not UTF-8 survive as :func:`os.fsdecode` keeps them.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        Anything but a list of strings; damaged or hostile files.
    """
    return _Machine(content).run()
