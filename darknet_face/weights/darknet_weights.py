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
raises them by 9e-6 and says so in a comment of the ``.cfg``, and :func:`read_network` lowers them
again where it finds the comment: what comes back differs by rounding alone.
"""

from __future__ import annotations

import re
import struct
import typing
from collections import OrderedDict

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.safe_files import regular_size
from darknet_face.weights.arrays import Arrays, weight_shapes, width_of
from darknet_face.weights.darknet_cfg import (
    MAX_CLASSES,
    Description,
    find_cfg,
    read_cfg,
    write_cfg,
)

# The order in a file of what a convolution with batch norm has, and of what the last one has.
NORMALISED = ("beta", "gamma", "mean", "variance", "kernel")
LINEAR = ("bias", "kernel")

# By how much variances are raised, and the comment in the .cfg that says so.
RAISED_BY = darknet19.BATCH_NORM_EPSILON - 1e-6
RAISED = "# variances raised by 9e-06, the readers' batch norm epsilon being 1e-06 and not 1e-05"


def is_darknet_file(path: str) -> bool:
    """Whether a name is that of darknet's weights.

    That is ``*.weights``, ``*.backup`` (darknet's own while it trains) or a file that ends after
    layer N, such as ``darknet19_448.conv.23``.
    """
    return bool(re.search(r"\.(weights|backup|conv\.\d+)$", path, re.IGNORECASE))


def write_network(cfg_path: str, weights_path: str, weights: Arrays, image_size: int,
                  comments: typing.Iterable[str] = ()) -> None:
    """Write both files for darknet and OpenCV, which then compute what this project does.

    Parameters
    ----------
    cfg_path, weights_path
        Under one name, so that :func:`read_network` finds the first.
    weights
        The file gets raised variances.
    image_size
        Height and width of the input.
    comments
        More lines for the ``.cfg`` that begin with ``#``.
    """
    written = OrderedDict((name, raised(array) if name.endswith("/variance") else array)
                          for name, array in weights.items())
    write_cfg(cfg_path, image_size, len(weights[darknet19.CLASSIFIER + "/bias"]),
              [RAISED] + list(comments), width_of(weights))
    write_weights(weights_path, written)


def raised(variance: np.ndarray) -> np.ndarray:
    """A variance as the readers of darknet's files need it: see above. float32."""
    return (variance.astype(np.float64) + RAISED_BY).astype(np.float32)


def write_weights(path: str, weights: Arrays) -> None:
    """Write weights in darknet's format."""
    write_convolutions(path, (
        {part: weights["{}/{}".format(layer, part)] for part in parts}
        for layer, parts in _layers()))


def write_convolutions(path: str, convolutions: typing.Iterable[typing.Mapping[str, np.ndarray]]
                       ) -> None:
    """Write the convolutions of any network in darknet's format, version 0.2.

    Each has ``kernel`` (HWIO) with ``bias``, or with ``beta``, ``gamma``, ``mean`` and
    ``variance``.
    """
    with write_atomically(path) as stream:
        stream.write(struct.pack("<iiiq", 0, 2, 0, 0))
        for parts in convolutions:
            for part in LINEAR if "bias" in parts else NORMALISED:
                array = parts[part]
                if part == "kernel":
                    array = array.transpose(3, 2, 0, 1)  # HWIO -> OIHW
                stream.write(np.ascontiguousarray(array, "<f4").tobytes())


def read_network(path: str, cfg: str | None = None) -> tuple[
        OrderedDict[str, np.ndarray], Description | None]:
    """Read Darknet-19's weights from a darknet file, as far as it goes, and their description.

    Parameters
    ----------
    path
        ``.weights``, or one cut off at the end of a layer, such as ``darknet19_448.conv.23``.
    cfg
        The description the file is read by. Without it the ``.cfg`` of the same name beside the
        file is used, and without that Darknet-19's own, the number of classes being what the
        file's length says.

    Returns
    -------
    weights
        Whole layers from the first on, named as in the ``.npz``: float32, kernels HWIO.
    description
        None without a ``.cfg``.

    Raises
    ------
    UserError
        Missing, truncated, too long, of another network, or with numbers that are not finite:
        naming the layer and the offset in bytes.
    """
    cfg = find_cfg(path, cfg)
    size = regular_size(path, "name a .weights file of Darknet-19")
    description = read_cfg(cfg) if cfg else None
    num_classes = description.num_classes if description else None
    width = description.width if description else 1.0
    weights: OrderedDict[str, np.ndarray] = OrderedDict()
    with open(path, "rb") as stream:
        offset = _read_header(path, stream, size, num_classes, width)
        for layer, parts in _layers():
            if offset == size and weights:
                break
            if layer == darknet19.CLASSIFIER and num_classes is None:
                num_classes = _classes_by_length(path, offset, size)
            shapes = weight_shapes(width, num_classes or 1)
            for part in parts:
                name = "{}/{}".format(layer, part)
                weights[name] = _read_array(path, stream, offset, size, layer, part, shapes[name])
                offset += weights[name].nbytes
    if offset != size:
        raise UserError("{}: {:,} bytes too many after {}, from offset {:,} on; use the file that "
                        "belongs to {}".format(path, size - offset, layer, offset,
                                               cfg or "Darknet-19"))
    if description and RAISED in description.comments:
        for name in weights:
            if name.endswith("/variance"):
                lowered = np.maximum(weights[name].astype(np.float64) - RAISED_BY, 0)
                weights[name] = lowered.astype(np.float32)
    return weights, description


def _read_header(path: str, stream: typing.BinaryIO, size: int, num_classes: int | None,
                 width: float) -> int:
    """Read the header; return its length.

    Some writers store the count of images seen in the other length than their version says. The
    length of the whole file shows it, so a header of the other length is read too.
    """
    if size < 16:
        raise UserError("{}: truncated: {} bytes, the header alone has 16; get it again".format(
            path, size))
    major, minor, _ = struct.unpack("<iii", stream.read(12))
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise UserError("{}: offset 0: version {}.{} is no version of darknet's; name a .weights "
                        "file".format(path, major, minor))
    length, other = (20, 16) if major * 10 + minor >= 2 else (16, 20)
    if (not _ends_with_a_layer(size - length, num_classes, width)
            and _ends_with_a_layer(size - other, num_classes, width)
            and (other == 20) == (0 <= struct.unpack("<4xi", stream.read(8))[0] < 1 << 16)):
        length = other  # and the count's upper half is small, or else it is a weight
    if size <= length:
        raise UserError("{}: truncated: it ends with the header, at offset {}; get it again".format(
            path, size))
    stream.seek(length)
    return length


def _ends_with_a_layer(length: int, num_classes: int | None, width: float) -> bool:
    """Whether so many bytes are one or more whole layers."""
    shapes = weight_shapes(width, num_classes or 1)
    for layer, parts in _layers():
        if layer == darknet19.CLASSIFIER and num_classes is None:
            return length % _class_bytes() == 0
        length -= sum(4 * int(np.prod(shapes["{}/{}".format(layer, part)])) for part in parts)
        if length <= 0:
            return length == 0
    return False


def _class_bytes() -> int:
    """The bytes of one class in the last layer of a file without a description."""
    return 4 * (int(darknet19.CONVOLUTIONS[-1][0]) + 1)


def _classes_by_length(path: str, offset: int, size: int) -> int:
    """How many classes the last convolution has, if it is the rest of the file."""
    each = _class_bytes()
    if size - offset > MAX_CLASSES * each:
        raise UserError("{}: {} at offset {:,}: {:,} bytes are left, which are more than {:,} "
                        "classes: too long; name a file of Darknet-19".format(
                            path, darknet19.CLASSIFIER, offset, size - offset, MAX_CLASSES))
    if (size - offset) % each:
        raise UserError("{}: {} at offset {:,}: {:,} bytes are left, which is no multiple of {:,} "
                        "(one class): truncated, or of another network; get it again".format(
                            path, darknet19.CLASSIFIER, offset, size - offset, each))
    return (size - offset) // each


def _read_array(path: str, stream: typing.BinaryIO, offset: int, size: int, layer: str, part: str,
                shape: tuple[int, ...]) -> np.ndarray:
    """Read one array whose length the file has been found to hold; kernels become HWIO."""
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
    if part == "kernel":
        turned = array.reshape([shape[each] for each in (3, 2, 0, 1)])  # OIHW
        return np.ascontiguousarray(turned.transpose(2, 3, 1, 0))
    return array.reshape(shape)


def _layers() -> typing.Iterator[tuple[str, tuple[str, ...]]]:
    """The convolutions in order, each with the order of its parts in a file."""
    for index in range(darknet19.NUM_CONVOLUTIONS):
        layer = "conv_{}".format(index)
        yield layer, LINEAR if layer == darknet19.CLASSIFIER else NORMALISED
