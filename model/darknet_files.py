"""darknet's own file formats: the network's description (``.cfg``) and its weights (``.weights``).

A ``.weights`` file has no names and no shapes. After the header (int32 major, minor and revision,
then the count of images seen: int32 before version 0.2, int64 from it on) come, for each
convolution in order, little-endian float32: with batch norm the biases (beta), scales (gamma),
rolling means, rolling variances and the kernel as OIHW; without it the biases and the kernel. So
it is only as good as the description it is read by, and everything here is checked: each length
before memory is taken for it, each layer of the ``.cfg`` against Darknet-19, each number for being
finite. Source: darknet's ``src/parser.c``.

darknet normalises with ``(x - mean) / (sqrt(variance) + 1e-6)``, OpenCV's reader of its files with
``(x - mean) / sqrt(variance + 1e-6)``, this project with ``(x - mean) / sqrt(variance + 1e-5)``.
With the same variances OpenCV's probabilities were off by up to 4e-4, so :func:`write_network`
raises them by 9e-6 and says so in a comment of the ``.cfg``, by which :func:`read_weights` lowers
them again, to the same bits.
"""

import os
import re
import stat
import struct
from collections import OrderedDict, namedtuple

import numpy as np

import darknet19
from utils import UserError, write_atomically

MAX_CFG_BYTES = 1 << 20
MAX_CLASSES = 100000  # far more than any classifier has; a hostile file could ask for 10^18

# The order in a file of what a convolution with batch norm has, and of what the last one has.
NORMALISED = ("beta", "gamma", "mean", "variance", "kernel")
LINEAR = ("bias", "kernel")

# What darknet and its readers call a layer, and which of its options change what it computes.
_KINDS = {
    "net": "net", "network": "net", "convolutional": "convolutional", "conv": "convolutional",
    "maxpool": "maxpool", "max": "maxpool", "avgpool": "avgpool", "avg": "avgpool",
    "softmax": "softmax", "soft": "softmax", "cost": "cost",
}  # fmt: skip
_DEFAULTS = {
    "convolutional": {"batch_normalize": "0", "filters": "1", "size": "1", "stride": "1",
                      "pad": "0", "padding": "0", "activation": "logistic"},
    "maxpool": {"size": None, "stride": "1", "padding": None},
    "avgpool": {},
    "softmax": {"groups": "1"},
}  # fmt: skip

_SIZE = "[0-9]{1,5}$"  # a height or width in a .cfg

_NORMALISED_LAYERS = ["conv_{}".format(index) for index in range(len(darknet19.CONVOLUTIONS))]

Section = namedtuple("Section", "kind options line")

# By how much the variances are raised for OpenCV, and what tells of it in a .cfg: a line for the
# whole file, and one for each number whose bits the rounding would not give back.
RAISED_BY = darknet19.BATCH_NORM_EPSILON - 1e-6
RAISED = "# variances raised by 9e-06, the readers' batch norm epsilon being 1e-06 and not 1e-05"
EXACT = "# exact variance of {} channel {}: bits {:08x}"
_EXACT_PATTERN = re.compile(
    r"# exact variance of (conv_[0-9]{1,2}) channel ([0-9]{1,4}): bits ([0-9a-f]{8})$")


def is_darknet_file(path):
    """Whether a name is that of darknet weights: ``*.weights``, or cut off after layer N, as in
    ``darknet19_448.conv.23``."""
    return bool(re.search(r"\.(weights|conv\.\d+)$", path))


def _expected_sections(num_classes):
    """The sections of Darknet-19's ``.cfg`` after ``[net]``."""
    sections = []
    for layer in darknet19.LAYERS:
        if layer == darknet19.MAX_POOL:
            sections.append(("maxpool", {"size": "2", "stride": "2"}))
            continue
        filters, size = layer
        sections.append(("convolutional", OrderedDict([
            ("batch_normalize", "1"), ("filters", str(filters)), ("size", str(size)),
            ("stride", "1"), ("pad", "1"), ("activation", "leaky")])))
    sections.append(("convolutional", OrderedDict([
        ("filters", str(num_classes)), ("size", "1"), ("stride", "1"), ("pad", "1"),
        ("activation", "linear")])))
    return sections + [("avgpool", {}), ("softmax", {"groups": "1"})]


def write_network(cfg_path, weights_path, weights, image_size):
    """Write both files for darknet and OpenCV, which then compute what this project does.

    Parameters
    ----------
    cfg_path, weights_path : str
        Under one name, so that :func:`read_weights` finds the first.
    weights : mapping of str to numpy.ndarray
        Named as in the ``.npz``, float32. The file has raised variances; read by the ``.cfg``, it
        gives back the same bits.
    image_size : int
        Height and width of the input.
    """
    raised, comments = dict(weights), [RAISED]
    for layer in _NORMALISED_LAYERS:
        variance = weights[layer + "/variance"]
        raised[layer + "/variance"] = (variance.astype(np.float64) + RAISED_BY).astype(np.float32)
        bits, back = (each.view(np.uint32) for each in (
            variance, _lower(raised[layer + "/variance"])))
        comments += [EXACT.format(layer, channel, bits[channel])
                     for channel in np.flatnonzero(bits != back)]
    write_cfg(cfg_path, image_size, len(weights[darknet19.CLASSIFIER + "/bias"]), comments)
    write_weights(weights_path, raised)


def _lower(variance):
    """Undo the raising of variances, but for rounding."""
    return np.maximum(variance.astype(np.float64) - RAISED_BY, 0).astype(np.float32)


def write_cfg(path, image_size, num_classes=darknet19.NUM_CLASSES, comments=()):
    """Write Darknet-19's ``.cfg``.

    Parameters
    ----------
    path : str
    image_size : int
        Height and width of the input.
    num_classes : int
    comments : iterable of str
        Lines that begin with ``#``.
    """
    net = OrderedDict([("batch", "1"), ("subdivisions", "1"), ("height", str(image_size)),
                       ("width", str(image_size)), ("channels", "3")])
    blocks = ["\n".join(["[{}]".format(kind)] + ["{}={}".format(*item) for item in options.items()])
              for kind, options in [("net", net)] + _expected_sections(num_classes)]
    with write_atomically(path, "w", encoding="ascii") as stream:
        stream.writelines(line + "\n" for line in comments)
        stream.write("\n\n".join(blocks) + "\n")


def read_cfg(path):
    """Read a ``.cfg`` and make sure that it describes Darknet-19.

    Parameters
    ----------
    path : str

    Returns
    -------
    int
        The number of classes.

    Raises
    ------
    UserError
        Missing, damaged, with sections that Darknet-19 does not have, or of another network:
        naming the line, what was expected and what was found.
    """
    sections = _parse_cfg(path, _cfg_lines(path))
    if not sections or sections[0].kind != "net":
        raise UserError("{}: does not begin with [net]; use darknet's .cfg of Darknet-19".format(
            path))
    _check_input(path, sections[0])
    found = [each for each in sections[1:] if each.kind != "cost"]  # trains, computes nothing
    classes = _number_of_classes(path, found)
    expected = _expected_sections(classes)
    # The average and the softmax have no weights: a .cfg that ends before them will do.
    for index, (kind, options) in enumerate(expected):
        if index >= len(found):
            if kind in ("avgpool", "softmax"):
                break
            raise UserError("{}: ends where Darknet-19 has {}; use its whole .cfg".format(
                path, _describe(kind, options)))
        _check_section(path, found[index], kind, options)
    if len(found) > len(expected):
        raise UserError("{}: line {}: [{}] after the end of Darknet-19; use its own .cfg".format(
            path, found[len(expected)].line, found[len(expected)].kind))
    return classes


def _check_input(path, net):
    """Compare what ``[net]`` says of the input, where it says anything, with what it can be."""
    for key, pattern in (("channels", "3$"), ("height", _SIZE), ("width", _SIZE)):
        value = net.options.get(key, "3")
        if not re.match(pattern, value):
            raise UserError("{}: line {}: [net]: {}={} is not what Darknet-19 can have; use its "
                            "own .cfg".format(path, net.line, key, ascii(value[:40])))


def find_cfg(path, cfg=None):
    """The description to read a file of weights by: as named, else beside it, else None."""
    beside = os.path.splitext(path)[0] + ".cfg"
    return beside if cfg is None and os.path.exists(beside) else cfg


def read_image_size(path):
    """The height and width of the input that a ``.cfg`` asks for, or None if it asks for none that
    is a square and a multiple of 32."""
    read_cfg(path)
    options = _parse_cfg(path, _cfg_lines(path))[0].options
    height, width = (int(options.get(key, "0")) for key in ("height", "width"))
    return height if height == width and height and height % darknet19.STRIDE == 0 else None


def _cfg_lines(path):
    remedy = "use darknet's .cfg of Darknet-19"
    size = regular_size(path, remedy)
    if size > MAX_CFG_BYTES:
        raise UserError("{}: {:,} bytes are no .cfg; {}".format(path, size, remedy))
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read(MAX_CFG_BYTES).splitlines()


def _parse_cfg(path, lines):
    """The sections of a ``.cfg``; option values are the strings that stand there."""
    remedy = "use darknet's .cfg of Darknet-19"
    sections = []
    for number, line in enumerate(lines, 1):
        line = re.sub(r"[ \t]", "", line)  # as darknet does
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            name = line.strip("[]")
            if name not in _KINDS or not line.endswith("]"):
                raise UserError("{}: line {}: unknown section {}; {}".format(
                    path, number, ascii(line[:40]), remedy))
            sections.append(Section(_KINDS[name], OrderedDict(), number))
            continue
        key, equals, value = line.partition("=")
        if not equals or not sections:
            raise UserError("{}: line {}: {} is neither [section] nor option=value; {}".format(
                path, number, ascii(line[:40]), remedy))
        if key in sections[-1].options:  # darknet takes the first, OpenCV the last
            raise UserError("{}: line {}: {} again in the same section; {}".format(
                path, number, ascii(key[:40]), remedy))
        sections[-1].options[key] = value
    return sections


def _number_of_classes(path, sections):
    """The filters of the last convolution, which are the one thing that may differ."""
    convolutions = [each for each in sections if each.kind == "convolutional"]
    if len(convolutions) != darknet19.NUM_CONVOLUTIONS:
        raise UserError("{}: {} convolutions, Darknet-19 has {}; use its own .cfg".format(
            path, len(convolutions), darknet19.NUM_CONVOLUTIONS))
    last = convolutions[-1]
    text = last.options.get("filters", "1")
    if not re.match(r"[0-9]{1,9}$", text) or not 1 <= int(text) <= MAX_CLASSES:
        raise UserError("{}: line {}: filters={} is no number of classes from 1 to {}; use "
                        "Darknet-19's own .cfg".format(path, last.line, ascii(text), MAX_CLASSES))
    return int(text)


def _check_section(path, section, kind, options):
    """Compare a section with what Darknet-19 has in its place."""
    if section.kind != kind:
        raise UserError("{}: line {}: expected {}, found [{}]; use Darknet-19's own .cfg".format(
            path, section.line, _describe(kind, options), section.kind))
    defaults = _DEFAULTS[kind]
    for key, value in section.options.items():
        wanted = options.get(key, defaults.get(key))
        if key not in defaults:
            raise UserError("{}: line {}: [{}] with {}={}, which Darknet-19 does not have; use its "
                            "own .cfg".format(path, section.line, kind, ascii(key), ascii(value)))
        # pad=1 overrules padding, and how an even size is padded does not matter to a max-pool.
        if key != "padding" and value != wanted:
            raise UserError("{}: line {}: [{}]: expected {}={}, found {}; use Darknet-19's own "
                            ".cfg".format(path, section.line, kind, key, wanted, ascii(value)))
    for key, value in options.items():
        if key not in section.options and defaults[key] != value:
            raise UserError("{}: line {}: [{}]: expected {}={}, found none; use Darknet-19's own "
                            ".cfg".format(path, section.line, kind, key, value))


def _describe(kind, options):
    return "[{}]{}".format(kind, "".join(
        " {}={}".format(key, options[key]) for key in ("filters", "size") if key in options))


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
    if cfg:
        _lower_variances(weights, cfg)
    return weights


def _lower_variances(weights, cfg):
    """Give variances that were raised for OpenCV their bits again, in place."""
    lines = _cfg_lines(cfg)
    if RAISED not in lines:
        return
    for name in weights:
        if name.endswith("/variance"):
            weights[name] = _lower(weights[name])
    for number, line in enumerate(lines, 1):
        match = _EXACT_PATTERN.match(line)
        if not match:
            continue
        layer, channel, bits = match.group(1), int(match.group(2)), int(match.group(3), 16)
        variance = weights.get(layer + "/variance", ())
        exact = np.array(bits, np.uint32).view(np.float32)
        # What is set right is a rounding: it can't be far from what stands there.
        if channel >= len(variance) or not np.isfinite(exact) or (
                abs(exact - variance[channel]) > RAISED_BY + 1e-6 * variance[channel]):
            raise UserError("{}: line {}: not of these weights; use the .cfg that was written with "
                            "them".format(cfg, number))
        variance[channel] = exact


def regular_size(path, remedy):
    """A file's length in bytes; devices and pipes, which have none, are refused."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise UserError("{}: {}; {}".format(path, getattr(error, "strerror", error), remedy))
    if not stat.S_ISREG(status.st_mode):
        raise UserError("{}: not a regular file; {}".format(path, remedy))
    return status.st_size


def _read_header(path, stream, size):
    """Read the header; return its length."""
    if size < 16:
        raise UserError("{}: truncated: {} bytes, the header alone has 16; get it anew".format(
            path, size))
    major, minor, _ = struct.unpack("<iii", stream.read(12))
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise UserError("{}: offset 0: version {}.{} is no version of darknet's; name a .weights "
                        "file".format(path, major, minor))
    length = 20 if major * 10 + minor >= 2 else 16
    if size <= length:
        raise UserError("{}: truncated: it ends with the header, at offset {}; get it anew".format(
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
                        "(one class): truncated, or of another network; get it anew".format(
                            path, darknet19.CLASSIFIER, offset, size - offset, each))
    return (size - offset) // each


def _read_array(path, stream, offset, size, layer, part, shape):
    """Read one array whose length the file has been found to hold."""
    count = int(np.prod(shape))
    if 4 * count > size - offset:
        raise UserError("{}: {} {} at offset {:,}: expected {:,} bytes, found {:,}: truncated, or "
                        "of another network; get it anew".format(
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
                        "another network, get it anew".format(
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
