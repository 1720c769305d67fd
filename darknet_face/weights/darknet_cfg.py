"""darknet's description of a network, the ``.cfg``: read, written, compared with Darknet-19.

Weights in darknet's format have no names and no shapes (see ``darknet_weights.py``): the ``.cfg``
says how to read them. Each of its layers is therefore compared with Darknet-19. Options and
layers for training alone are skipped.
Source: darknet's ``src/parser.c``.
"""

from __future__ import annotations

import os
import re
import typing
from collections import OrderedDict

import darknet19
from darknet_face.console import UserError
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.safe_files import regular_size

MAX_CFG_BYTES = 1 << 20
MAX_CLASSES = 100000  # far more than any classifier has; a hostile file could ask for 10^18

# The names that darknet and its readers know a layer by.
_KINDS = {
    "net": "net", "network": "net", "convolutional": "convolutional", "conv": "convolutional",
    "maxpool": "maxpool", "max": "maxpool", "avgpool": "avgpool", "avg": "avgpool",
    "softmax": "softmax", "soft": "softmax", "cost": "cost", "dropout": "dropout", "crop": "crop",
}  # fmt: skip
# The options that change what a layer computes, with darknet's defaults.
_DEFAULTS: dict[str, dict[str, str | None]] = {
    "convolutional": {"batch_normalize": "0", "filters": "1", "size": "1", "stride": "1",
                      "pad": "0", "padding": "0", "activation": "logistic"},
    "maxpool": {"size": None, "stride": "1", "padding": None},
    "avgpool": {},
    "softmax": {"groups": "1"},
    "crop": {"noadjust": "0"},  # without it the layer maps pixels from 0..1 to -1..1
}  # fmt: skip
# What matters in training alone: layers, and options of layers.
_TRAINING_LAYERS = {"cost", "dropout"}
_TRAINING_OPTIONS: dict[str, set[str]] = {
    "convolutional": {"stopbackward"},
    "crop": {"crop_height", "crop_width", "flip", "angle", "saturation", "exposure", "shift"},
}  # fmt: skip

MAX_POOL: tuple[str, dict[str, str]] = ("maxpool", {"size": "2", "stride": "2"})
_SIZE = "[0-9]{1,5}$"  # a height or width in a .cfg

Options = typing.Dict[str, str]


class Section(typing.NamedTuple):
    """A section of a ``.cfg`` and the line that it begins in."""

    kind: str
    options: Options
    line: int


class Description(typing.NamedTuple):
    """What a ``.cfg`` says of a Darknet-19."""

    num_classes: int
    width: float  # see darknet19.build
    image_size: int | None  # of the input, if it is named, a square and a multiple of 32
    comments: frozenset[str]  # its lines that begin with #


def _expected_sections(num_classes: int, width: float) -> list[tuple[str, Options]]:
    """The sections of Darknet-19's ``.cfg`` after ``[net]``."""
    sections: list[tuple[str, Options]] = []
    for layer in darknet19.layers_of(width):
        if layer == darknet19.MAX_POOL:
            sections.append(MAX_POOL)
            continue
        sections.append(convolutional(*layer))
    sections.append(convolutional(num_classes, 1, linear=True))
    return sections + [("avgpool", {}), ("softmax", {"groups": "1"})]


def write_cfg(path: str, image_size: int, num_classes: int = darknet19.NUM_CLASSES,
              comments: typing.Iterable[str] = (), width: float = 1.0) -> None:
    """Write Darknet-19's ``.cfg``.

    Parameters
    ----------
    image_size
        Height and width of the input.
    comments
        Lines that begin with ``#``.
    width
        See :func:`darknet19.build`.
    """
    write_sections(path, image_size, _expected_sections(num_classes, width), comments)


def write_sections(path: str, image_size: int, sections: list[tuple[str, Options]],
                   comments: typing.Iterable[str] = ()) -> None:
    """Write the ``.cfg`` of any network: ``[net]``, then its sections."""
    net = OrderedDict([("batch", "1"), ("subdivisions", "1"), ("height", str(image_size)),
                       ("width", str(image_size)), ("channels", "3")])
    blocks = ["\n".join(["[{}]".format(kind)] + ["{}={}".format(*item) for item in options.items()])
              for kind, options in [("net", net)] + sections]
    with write_atomically(path, "w", encoding="ascii") as stream:
        stream.writelines(line + "\n" for line in comments)
        stream.write("\n\n".join(blocks) + "\n")


def convolutional(filters: int, size: int, stride: int = 1, pad: int = 1, linear: bool = False
                  ) -> tuple[str, Options]:
    """The section of a convolution: with batch norm and a leaky ReLU, or ``linear`` with a bias."""
    options = OrderedDict([] if linear else [("batch_normalize", "1")])
    options.update([("filters", str(filters)), ("size", str(size)), ("stride", str(stride)),
                    ("pad", str(pad)), ("activation", "linear" if linear else "leaky")])
    return "convolutional", options


def read_cfg(path: str) -> Description:
    """Read a ``.cfg`` and make sure that it describes Darknet-19, of any width.

    Raises
    ------
    UserError
        Missing, damaged, with sections that Darknet-19 does not have, or of another network:
        naming the line, what was expected and what was found.
    """
    lines = _read_lines(path)
    sections = _parse_cfg(path, lines)
    if not sections or sections[0].kind != "net":
        raise UserError("{}: does not begin with [net]; use darknet's .cfg of Darknet-19".format(
            path))
    _check_input(path, sections[0])
    found = _without_training(path, sections[1:])
    classes = _number_of_classes(path, found)
    width = _width(found)
    expected = _expected_sections(classes, width)
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
    height, width_in_pixels = (
        int(sections[0].options.get(key, "0")) for key in ("height", "width"))
    is_square = height == width_in_pixels and height > 0 and height % darknet19.STRIDE == 0
    return Description(classes, width, height if is_square else None,
                       frozenset(line for line in lines if line.startswith("#")))


def _without_training(path: str, sections: list[Section]) -> list[Section]:
    """The layers that compute something in inference."""
    if sections and sections[0].kind == "crop":
        _check_section(path, sections[0], "crop", {"noadjust": "1"})
        sections = sections[1:]
    return [each for each in sections if each.kind not in _TRAINING_LAYERS]


def _check_input(path: str, net: Section) -> None:
    """Check the input that ``[net]`` describes, as far as it does."""
    for key, pattern in (("channels", "3$"), ("height", _SIZE), ("width", _SIZE)):
        value = net.options.get(key, "3")
        if not re.match(pattern, value):
            raise UserError("{}: line {}: [net]: {}={} is not what Darknet-19 takes; use "
                            "its own .cfg".format(path, net.line, key, ascii(value[:40])))


def find_cfg(path: str, cfg: str | None = None) -> str | None:
    """The ``.cfg`` that describes a weights file: ``cfg``, or the one beside it, or None."""
    if cfg is None:
        for extension in (".cfg", ".CFG"):
            beside = os.path.splitext(path)[0] + extension
            if os.path.exists(beside):
                return beside
    return cfg


def _width(sections: list[Section]) -> float:
    """The share of its filters that the first layer has; 1.0 if it is absurd."""
    first = next((each for each in sections if each.kind == "convolutional"), None)
    filters = first.options.get("filters", "") if first else ""
    if not re.match(r"[0-9]{1,3}$", filters):
        return 1.0
    width = int(filters) / int(darknet19.CONVOLUTIONS[0][0])
    return width if 0 < width <= 1 else 1.0


def _read_lines(path: str) -> list[str]:
    """The lines of a ``.cfg`` of sane size, which may begin with a byte-order mark."""
    remedy = "use darknet's .cfg of Darknet-19"
    size = regular_size(path, remedy)
    if size > MAX_CFG_BYTES:
        raise UserError("{}: {:,} bytes are no .cfg; {}".format(path, size, remedy))
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        return stream.read(MAX_CFG_BYTES).splitlines()


def _parse_cfg(path: str, lines: list[str]) -> list[Section]:
    """The sections of a ``.cfg``; option values are strings."""
    remedy = "use darknet's .cfg of Darknet-19"
    sections = []
    for number, line in enumerate(lines, 1):
        line = re.sub(r"[ \t]|[#;].*", "", line)  # spaces go, as in darknet, and comments
        if not line:
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


def _number_of_classes(path: str, sections: list[Section]) -> int:
    """The filters of the last convolution: only these may differ."""
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


def _check_section(path: str, section: Section, kind: str, options: Options) -> None:
    """Compare a section with Darknet-19's."""
    if section.kind != kind:
        raise UserError("{}: line {}: expected {}, found [{}]; use Darknet-19's own .cfg".format(
            path, section.line, _describe(kind, options), section.kind))
    defaults = _DEFAULTS[kind]
    for key, value in section.options.items():
        if key in _TRAINING_OPTIONS.get(kind, ()):
            continue
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


def _describe(kind: str, options: Options) -> str:
    return "[{}]{}".format(kind, "".join(
        " {}={}".format(key, options[key]) for key in ("filters", "size") if key in options))
