"""The two pickles from which the YOLOv2 face detector builds its backbone.

``conv_weights.pickle`` is ``{"conv_0": kernel, .., "conv_18": kernel}``, float32, HWIO, and
``bn_weights.pickle`` is ``{"conv_0": {"mean", "variance", "beta", "gamma"}, .., "conv_17": ..}``.
Both are protocol 2, which detectors in Python 2 read too.
"""

import pickle
from collections import OrderedDict

import numpy as np

import darknet19
from utils import UserError, regular_size, write_atomically

FILES = ("conv_weights.pickle", "bn_weights.pickle")


def write_handoff(weights, conv_path, bn_path):
    """Write the two pickles.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
        Named as in the ``.npz``.
    conv_path, bn_path : str
    """
    kernels, norms = OrderedDict(), OrderedDict()
    for name, array in weights.items():
        layer, part = name.split("/")
        if part == "kernel":
            kernels[layer] = array
        elif layer != darknet19.CLASSIFIER:
            norms.setdefault(layer, {})[part] = array
    for path, content in ((conv_path, kernels), (bn_path, norms)):
        with write_atomically(path) as stream:
            _ArrayPickler(stream, protocol=2).dump(dict(content))


class _ArrayPickler(pickle._Pickler):
    """Names numpy's function as NumPy 1 does; NumPy 2 renamed the module, and reads both."""

    def save_global(self, obj, name=None):
        if getattr(obj, "__name__", None) == "_reconstruct":
            self.write(pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)


class _ArrayUnpickler(pickle._Unpickler):
    """Reads pickles of built-in values and float32 arrays, and refuses any other class.

    Arrays are begun empty, whatever size the pickle asks for: numpy then compares the size with the
    bytes that follow. See :func:`pictures.lists.load_list` on the pure-Python unpickler.
    """

    _ADMITTED = {
        "numpy.core.multiarray._reconstruct": lambda *_: np.empty(0, np.float32),
        "numpy._core.multiarray._reconstruct": lambda *_: np.empty(0, np.float32),  # NumPy 2
        "numpy.ndarray": None,  # an argument of the above
        "numpy.dtype": lambda kind, *_: np.dtype({"f4": np.float32}[kind], False, True),
        "_codecs.encode": lambda text, *_: text.encode("latin-1"),  # bytes, in protocol 2
    }

    def find_class(self, module, name):
        full_name = "{}.{}".format(module, name)
        if full_name not in self._ADMITTED:
            raise pickle.UnpicklingError("it asks for " + full_name)
        return self._ADMITTED[full_name]


def read_handoff(conv_path, bn_path):
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
            with open(path, "rb") as stream:
                layers = _ArrayUnpickler(stream).load()
            weights.update({"{}/{}".format(layer, part): np.asarray(array, np.float32)
                            for layer, content in layers.items()
                            for part, array in parts_of(content).items()})
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise UserError("{}: not a pickle of the hand-off ({}); run extract_weights.py "
                            "again".format(path, error or type(error).__name__))
    return weights
