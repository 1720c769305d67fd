"""What a file of weights says besides the weights: its input size, above all.

The keys are ``image_size`` (height and width of the input), ``class_names``, ``step`` (of the
training), ``threshold`` (a picture is called a face if its probability is at least this) and
``search_bias`` (see :class:`darknet_face.classify.sliding_window.SlidingWindow`). Each may be
missing.

``threshold`` holds for one look and for searches alike: ``search_bias`` is chosen so that searches
have the same rate of false positives at it. :mod:`darknet_face.evaluation.operating_point` chooses
both.
"""

from __future__ import annotations

import os

import darknet19
from darknet_face.console import UserError
from darknet_face.images.reader import LARGEST_SIZE
from darknet_face.runtime.safe_files import read_json
from darknet_face.weights import darknet_weights
from darknet_face.weights.darknet_cfg import find_cfg, read_image_size
from darknet_face.weights.graph_files import read_graph_def
from darknet_face.weights.npz import read_npz_metadata
from darknet_face.weights.weight_files import find_saved_model, is_frozen_graph

# Where a SavedModel's metadata lie: TensorFlow leaves this folder of it to others.
IN_SAVED_MODEL = os.path.join("assets.extra", "metadata.json")

MAX_CLASS_NAMES, MAX_CLASS_NAME = 1000, 100
LARGEST_BIAS = 1000.0  # log-odds; a trained network gives some tens


def read_metadata(path, cfg=None):
    """Read the metadata of a file of weights.

    Parameters
    ----------
    path : str
        Any file that :func:`darknet_face.weights.weight_files.read_weights` reads. An ``.npz`` has
        them inside; one of an older version in the ``.json`` beside it. A frozen graph has the
        size of its placeholder and the ``.json`` beside it, a SavedModel
        ``assets.extra/metadata.json``, darknet's ``.cfg`` a width and a height, a checkpoint
        ``settings.json`` beside it.
    cfg : str, optional
        darknet's description of ``path``.

    Returns
    -------
    dict
        The keys that are known, each of sane type and value.

    Raises
    ------
    UserError
        When there are metadata and they are damaged or absurd.
    """
    if not os.path.exists(path) and not os.path.exists(path + ".index"):
        found = _beside(path)  # and the reader of the weights says what is wrong
    elif cfg or darknet_weights.is_darknet_file(path):
        found = _of_darknet(find_cfg(path, cfg))
    elif path.endswith(".npz"):
        found = read_npz_metadata(path)
        found = (path, found) if found else _beside(path)
    elif is_frozen_graph(path):
        source, content = _beside(path)
        found = source, dict(content, **_of_placeholder(path))
    elif find_saved_model(path):
        found = _first_json(os.path.join(find_saved_model(path), IN_SAVED_MODEL))
    else:
        found = _of_checkpoint(path)
    return check_metadata(found[1], found[0])


def check_metadata(content, source):
    """The known keys of metadata, each checked.

    Parameters
    ----------
    content : dict
    source : str
        The file's name, for the error line.
    """
    checks = {"image_size": _is_image_size, "class_names": _are_class_names, "step": _is_step,
              "threshold": lambda value: _is_number(value) and 0 <= value <= 1,
              "search_bias": lambda value: _is_number(value) and abs(value) <= LARGEST_BIAS}
    for name, is_sane in checks.items():
        if name in content and not is_sane(content[name]):
            raise UserError("{}: no usable {}: {}; {}".format(
                source, name, ascii(content[name])[:40],
                "say --image-size" if name == "image_size" else "extract the weights again"))
    return {name: content[name] for name in checks if name in content}


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_image_size(value):
    return (_is_number(value) and isinstance(value, int) and 0 < value <= LARGEST_SIZE
            and value % darknet19.STRIDE == 0)


def _is_step(value):
    return _is_number(value) and isinstance(value, int) and 0 <= value < 1 << 63


def _are_class_names(value):
    return (isinstance(value, list) and 0 < len(value) <= MAX_CLASS_NAMES
            and all(isinstance(name, str) and len(name) <= MAX_CLASS_NAME for name in value))


def _of_darknet(cfg):
    size = read_image_size(cfg) if cfg else None
    return cfg, {"image_size": size} if size else {}


def _of_placeholder(path):
    """The input size of a frozen graph; none if the input is no square."""
    for node in read_graph_def(path).node:
        if (node.op, node.name) == ("Placeholder", "input"):
            sizes = {dim.size for dim in node.attr["shape"].shape.dim[1:3]}
            size = sizes.pop() if len(sizes) == 1 else 0
            return {"image_size": size} if _is_image_size(size) else {}
    return {}


def _of_checkpoint(path):
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    model_dir = os.path.dirname(os.path.abspath(folder))
    return _first_json(os.path.join(folder, "settings.json"),
                       os.path.join(model_dir, "checkpoints", "settings.json"),  # of best/
                       os.path.join(folder, "darknet19_frozen.json"),
                       os.path.join(model_dir, "darknet19_frozen.json"))


def _beside(path):
    """The ``.json`` of the same name, or the one of the frozen graph in the same folder."""
    return _first_json(os.path.splitext(path)[0] + ".json",
                       os.path.join(os.path.dirname(path), "darknet19_frozen.json"))


def _first_json(*paths):
    """The path and the content of the first file that is there."""
    for path in paths:
        if os.path.exists(path):
            return path, read_json(path)
    return paths[0], {}
