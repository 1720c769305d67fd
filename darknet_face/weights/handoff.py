"""The two pickles from which the YOLOv2 face detector builds its backbone.

``conv_weights.pickle`` is ``{"conv_0": kernel, .., "conv_18": kernel}``, float32, HWIO, and
``bn_weights.pickle`` is ``{"conv_0": {"mean", "variance", "beta", "gamma"}, .., "conv_17": ..}``.

``pickle.load`` reads both in Python 2 and 3, with any version of NumPy. A pickle is a program, so
they use only a few instructions and two classes, and :func:`read_handoff` accepts only these.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import typing
from collections import OrderedDict

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.safe_files import regular_size

FILES = ("conv_weights.pickle", "bn_weights.pickle")
MAX_BYTES = 1 << 28  # the kernels, written as text, take some 120 MB

# All that dictionaries of arrays need. None of these names an object a second time: a key of
# nested tuples that share one object would take for ever to hash.
INSTRUCTIONS = {"PROTO", "EMPTY_DICT", "MARK", "BINUNICODE", "GLOBAL", "BININT", "BININT1",
                "BININT2", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "SETITEM", "SETITEMS",
                "STOP"}


def write_handoff(weights: typing.Mapping[str, np.ndarray], conv_path: str, bn_path: str) -> None:
    """Write the two pickles of weights that are named as in the ``.npz``."""
    kernels: OrderedDict[str, typing.Any] = OrderedDict()
    norms: OrderedDict[str, dict[str, np.ndarray]] = OrderedDict()
    for name, array in weights.items():
        layer, part = name.split("/")
        if part == "kernel":
            kernels[layer] = array
        elif layer != darknet19.CLASSIFIER:
            norms.setdefault(layer, {})[part] = array
    for path, content in ((conv_path, kernels), (bn_path, norms)):
        with write_atomically(path) as stream:
            pickler = pickle.Pickler(stream, protocol=2)
            pickler.dispatch_table = {np.ndarray: _call_for_array, memoryview: _call_for_buffer}
            pickler.fast = True  # nothing is named a second time
            pickler.dump(dict(content))


def _call_for_array(array: np.ndarray) -> tuple[typing.Any, ...]:
    """The call that makes an array again."""
    return np.ndarray, (array.shape, "<f4", memoryview(array.astype("<f4").tobytes()))


def _call_for_buffer(content: memoryview) -> tuple[typing.Any, ...]:
    """The same of its buffer, as text, since Python 2 has no other bytes."""
    return bytearray, (str(content, "latin-1"), "latin-1")


# The classes that a pickle may ask for, as functions that take memory for what is there alone.
_CLASSES = {
    "numpy.ndarray": lambda shape, _, content: np.frombuffer(content, "<f4").reshape(shape),
    "__builtin__.bytearray": lambda text, _: bytearray(text, "latin-1"),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> typing.Any:
        return _CLASSES["{}.{}".format(module, name)]


def read_handoff(conv_path: str, bn_path: str) -> dict[str, np.ndarray]:
    """Read what :func:`write_handoff` wrote, as weights without the last layer's bias.

    Returns
    -------
    dict of str to numpy.ndarray
        Named as in the ``.npz``.

    Raises
    ------
    UserError
        Missing, damaged or hostile.
    """
    weights = {}
    for path, parts_of in ((conv_path, lambda kernel: {"kernel": kernel}), (bn_path, dict)):
        regular_size(path, "run extract_weights.py")
        try:
            for layer, content in _load(path).items():
                for part, array in parts_of(content).items():
                    if not isinstance(array, np.ndarray):
                        raise ValueError("{!r} is no array".format(part))
                    weights["{}/{}".format(layer, part)] = array
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise UserError("{}: not a pickle of the hand-off ({}); run extract_weights.py "
                            "again".format(path, error or type(error).__name__))
    return weights


def _load(path: str) -> typing.Any:
    if os.path.getsize(path) > MAX_BYTES:
        raise ValueError("{:,} bytes".format(os.path.getsize(path)))
    with open(path, "rb") as stream:
        content = stream.read(MAX_BYTES)
    for instruction, argument, _ in pickletools.genops(content):
        is_class = instruction.name == "GLOBAL"
        name = str(argument).replace(" ", ".") if is_class else instruction.name
        if name not in (_CLASSES if is_class else INSTRUCTIONS):
            raise pickle.UnpicklingError("it asks for " + name)
    return _ArrayUnpickler(io.BytesIO(content)).load()
