"""What a model file holds besides the weights, above all its input size.

The keys are ``image_size`` (height and width of the input), ``class_names``, ``step`` (of the
training), ``threshold`` (an image is called a face if its probability is at least this) and
``search_bias`` (see :class:`darknet_face.classify.sliding_window.SlidingWindow`). Each may be
missing.

``threshold`` holds for a single pass and for the sliding window: ``search_bias`` is chosen so that
both have the same rate of false positives. :mod:`darknet_face.evaluation.operating_point` chooses
them.
"""

from __future__ import annotations

import os
import typing

import darknet19
from darknet_face.console import UserError
from darknet_face.images.reader import LARGEST_SIZE
from darknet_face.runtime.safe_files import read_json
from darknet_face.weights.darknet_cfg import Description

Metadata = typing.Dict[str, typing.Any]

# Where a SavedModel's metadata lie: TensorFlow leaves this folder to its users.
IN_SAVED_MODEL = os.path.join("assets.extra", "metadata.json")

MAX_CLASS_NAMES, MAX_CLASS_NAME = 1000, 100
LARGEST_BIAS = 1000.0  # log-odds; a trained network gives some tens


def metadata_beside(path: str, inside: Metadata | None = None) -> Metadata:
    """The metadata of an ``.npz`` or a frozen graph: those inside it or, if it has none, those in
    the ``.json`` of its name, or in that of the frozen graph in the same folder.

    Raises
    ------
    UserError
        Like all functions here, when there are metadata and they are damaged or absurd.
    """
    if inside:
        return check_metadata(inside, path)
    return _first_json(os.path.splitext(path)[0] + ".json",
                       os.path.join(os.path.dirname(path), "darknet19_frozen.json"))


def metadata_of_saved_model(folder: str) -> Metadata:
    """The metadata of a SavedModel: ``assets.extra/metadata.json`` in its folder."""
    return _first_json(os.path.join(folder, IN_SAVED_MODEL))


def metadata_of_checkpoint(prefix: str) -> Metadata:
    """The metadata of a checkpoint: the settings of its training, beside it or beside ``best``, or
    the ``.json`` of the frozen graph."""
    folder = os.path.dirname(prefix)
    model_dir = os.path.dirname(os.path.abspath(folder))
    return _first_json(os.path.join(folder, "settings.json"),
                       os.path.join(model_dir, "checkpoints", "settings.json"),  # of best/
                       os.path.join(folder, "darknet19_frozen.json"),
                       os.path.join(model_dir, "darknet19_frozen.json"))


def metadata_of_darknet(description: Description | None) -> Metadata:
    """The metadata of darknet's weights: the input size in their ``.cfg``."""
    size = description.image_size if description else None
    return {"image_size": size} if is_image_size(size) else {}


def _first_json(*paths: str) -> Metadata:
    """The metadata in the first file that is there."""
    for path in paths:
        if os.path.exists(path):
            return check_metadata(read_json(path), path)
    return {}


def check_metadata(content: Metadata, source: str) -> Metadata:
    """The known keys of metadata, each checked; ``source`` is their file, for the error line."""
    checks = {"image_size": is_image_size, "class_names": _are_class_names, "step": _is_step,
              "threshold": lambda value: _is_number(value) and 0 <= value <= 1,
              "search_bias": lambda value: _is_number(value) and abs(value) <= LARGEST_BIAS}
    for name, is_sane in checks.items():
        if name in content and not is_sane(content[name]):
            raise UserError("{}: no usable {}: {}; {}".format(
                source, name, ascii(content[name])[:40],
                "say --image-size" if name == "image_size" else "extract the weights again"))
    return {name: content[name] for name in checks if name in content}


def _is_number(value: typing.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_image_size(value: typing.Any) -> bool:
    """Whether a value is a height and width that the network takes."""
    return (_is_number(value) and isinstance(value, int) and 0 < value <= LARGEST_SIZE
            and value % darknet19.STRIDE == 0)


def _is_step(value: typing.Any) -> bool:
    return _is_number(value) and isinstance(value, int) and 0 <= value < 1 << 63


def _are_class_names(value: typing.Any) -> bool:
    return (isinstance(value, list) and 0 < len(value) <= MAX_CLASS_NAMES
            and all(isinstance(name, str) and len(name) <= MAX_CLASS_NAME for name in value))
