"""darknet's weights, the ``.weights`` file: read and written.

After the header (int32 major, minor and revision, then the count of images seen: int32 before
version 0.2, int64 from it on) come, for each convolution in order, little-endian float32: with
batch norm the biases (beta), scales (gamma), rolling means, rolling variances and the kernel as
OIHW; without it the biases and the kernel. There are no names and no shapes, so everything is
checked: each length before memory is taken for it, each number for being finite, and the ``.cfg``
against Darknet-19. Source: darknet's ``src/parser.c``.

darknet normalises with ``(x - mean) / (sqrt(variance) + 1e-6)``, OpenCV's reader of its files with
``(x - mean) / sqrt(variance + 1e-6)``, this project with ``(x - mean) / sqrt(variance + 1e-5)``.
With the same variances OpenCV's probabilities were off by up to 4e-4. So :func:`write_network`
raises them by 9e-6 and says so in a comment of the ``.cfg``, and :func:`read_weights` lowers them
again where it finds the comment: what comes back differs by rounding alone.
"""

from __future__ import annotations

import re
import struct
from collections import OrderedDict

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.safe_files import regular_size
from darknet_face.weights.darknet_cfg import (
    MAX_CLASSES,
    find_cfg,
    read_cfg,
    read_cfg_lines,
    write_cfg,
)

# The order in a file of what a convolution with batch norm has, and of what the last one has.
NORMALISED = ("beta", "gamma", "mean", "variance", "kernel")
LINEAR = ("bias", "kernel")

# By how much variances are raised, and the comment in the .cfg that says so.
RAISED_BY = darknet19.BATCH_NORM_EPSILON - 1e-6
RAISED = "# variances raised by 9e-06, the readers' batch norm epsilon being 1e-06 and not 1e-05"


def is_darknet_file(path):
    """Whether a name is that of darknet's weights.

    That is ``*.weights``, ``*.backup`` (darknet's own while it trains) or a file that ends after
    layer N, such as ``darknet19_448.conv.23``.
    """
    return bool(re.search(r"\.(weights|backup|conv\.\d+)$", path))


def write_network(cfg_path, weights_path, weights, image_size, comments=()):
    """Write both files for darknet and OpenCV, which then compute what this project does.

    Parameters
    ----------
    cfg_path, weights_path : str
        Under one name, so that :func:`read_weights` finds the first.
    weights : mapping of str to numpy.ndarray
        Named as in the ``.npz``, float32. The file gets raised variances.
    image_size : int
        Height and width of the input.
    comments : iterable of str
        More lines for the ``.cfg`` that begin with ``#``.
    """
    raised = OrderedDict(
        (name, (array.astype(np.float64) + RAISED_BY).astype(np.float32)
         if name.endswith("/variance") else array) for name, array in weights.items())
    write_cfg(cfg_path, image_size, len(weights[darknet19.CLASSIFIER + "/bias"]),
              [RAISED] + list(comments))
    write_weights(weights_path, raised)


def write_weights(path, weights, seen=0):
    """Write weights in darknet's format, version 0.2.

    Parameters
    ----------
    path : str
    weights : mapping of str to numpy.ndarray
        Named as in the ``.npz``, float32.
    seen : int
        How many images the network was trained on.
    """
    with write_atomically(path) as stream:
        stream.write(struct.pack("<iiiq", 0, 2, 0, seen))
        for layer, parts in _layers():
            for part in parts:
                array = weights["{}/{}".format(layer, part)]
                if part == "kernel":
                    array = array.transpose(3, 2, 0, 1)  # HWIO -> OIHW
                stream.write(np.ascontiguousarray(array, "<f4").tobytes())


def read_weights(path, cfg=None):
    """Read Darknet-19's weights from a darknet file, as far as it goes.

    Parameters
    ----------
    path : str
        ``.weights``, or one cut off at the end of a layer, such as ``darknet19_448.conv.23``.
    cfg : str, optional
        The description the file is read by. Without it the ``.cfg`` of the same name beside the
        file is used, and without that Darknet-19's own, the number of classes being what the
        file's length says.

    Returns
    -------
    OrderedDict of str to numpy.ndarray
        Whole layers from the first on, named as in the ``.npz``: float32, kernels HWIO.

    Raises
    ------
    UserError
        Missing, truncated, too long, of another network, or with numbers that are not finite:
        naming the layer and the offset in bytes.
    """
    cfg = find_cfg(path, cfg)
    size = regular_size(path, "name a .weights file of Darknet-19")
    num_classes = read_cfg(cfg) if cfg else None
    weights = OrderedDict()
    with open(path, "rb") as stream:
        offset = _read_header(path, stream, size)
        for layer, parts in _layers():
            if offset == size and weights:
                break
            if layer == darknet19.CLASSIFIER and num_classes is None:
                num_classes = _classes_by_length(path, offset, size)
            for part in parts:
                shape = _oihw(layer, part, num_classes)
                array = _read_array(path, stream, offset, size, layer, part, shape)
                offset += array.nbytes
                if part == "kernel":
                    array = np.ascontiguousarray(array.transpose(2, 3, 1, 0))  # OIHW -> HWIO
                weights["{}/{}".format(layer, part)] = array
    if offset != size:
        raise UserError("{}: {:,} bytes too many after {}, from offset {:,} on; use the file that "
                        "belongs to {}".format(path, size - offset, layer, offset,
                                               cfg or "Darknet-19"))
    if cfg and RAISED in read_cfg_lines(cfg):
        for name in weights:
            if name.endswith("/variance"):
                lowered = np.maximum(weights[name].astype(np.float64) - RAISED_BY, 0)
                weights[name] = lowered.astype(np.float32)
    return weights


def _read_header(path, stream, size):
    """Read the header; return its length."""
    if size < 16:
        raise UserError("{}: truncated: {} bytes, the header alone has 16; get it again".format(
            path, size))
    major, minor, _ = struct.unpack("<iii", stream.read(12))
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise UserError("{}: offset 0: version {}.{} is no version of darknet's; name a .weights "
                        "file".format(path, major, minor))
    length = 20 if major * 10 + minor >= 2 else 16
    if size <= length:
        raise UserError("{}: truncated: it ends with the header, at offset {}; get it again".format(
            path, size))
    stream.seek(length)
    return length


def _classes_by_length(path, offset, size):
    """How many classes the last convolution has, if it is the rest of the file."""
    each = 4 * (darknet19.CONVOLUTIONS[-1][0] + 1)
    if size - offset > MAX_CLASSES * each:
        raise UserError("{}: {} at offset {:,}: {:,} bytes are left, which are more than {:,} "
                        "classes: too long; name a file of Darknet-19".format(
                            path, darknet19.CLASSIFIER, offset, size - offset, MAX_CLASSES))
    if (size - offset) % each:
        raise UserError("{}: {} at offset {:,}: {:,} bytes are left, which is no multiple of {:,} "
                        "(one class): truncated, or of another network; get it again".format(
                            path, darknet19.CLASSIFIER, offset, size - offset, each))
    return (size - offset) // each


def _read_array(path, stream, offset, size, layer, part, shape):
    """Read one array whose length the file has been found to hold."""
    count = int(np.prod(shape))
    if 4 * count > size - offset:
        raise UserError("{}: {} {} at offset {:,}: expected {:,} bytes, found {:,}: truncated, or "
                        "of another network; get it again".format(
                            path, layer, part, offset, 4 * count, size - offset))
    content = stream.read(4 * count)
    if len(content) != 4 * count:
        raise UserError("{}: shrank while it was read; try again".format(path))
    array = np.frombuffer(content, "<f4").astype(np.float32)
    bad = ~np.isfinite(array)
    if part == "variance":
        bad |= np.nan_to_num(array) < 0
    if bad.any():
        first = int(np.argmax(bad))
        raise UserError("{}: {} {}, element {} at offset {:,} is {}; the file is damaged or of "
                        "another network, get it again".format(
                            path, layer, part, first, offset + 4 * first, array[first]))
    return array.reshape(shape)


def _layers():
    """The convolutions in order, each with the order of its parts in a file."""
    for index in range(darknet19.NUM_CONVOLUTIONS):
        layer = "conv_{}".format(index)
        yield layer, LINEAR if layer == darknet19.CLASSIFIER else NORMALISED


def _oihw(layer, part, num_classes):
    """The shape of an array as darknet stores it."""
    names = {"mean": "moving_mean", "variance": "moving_variance"}
    shape = darknet19.variable_shapes(num_classes or 1)[
        "{}/{}".format(layer, names.get(part, part))]
    return tuple(shape[each] for each in (3, 2, 0, 1)) if part == "kernel" else shape
