"""The network's weights as named arrays, and the files that hold them.

Everywhere in the project weights are an ordered dict of float32 arrays, named as in the ``.npz``:
``conv_0/kernel`` (HWIO), ``conv_0/gamma``, ``conv_0/beta``, ``conv_0/mean``, ``conv_0/variance``,
.. ``conv_17/variance``, ``conv_18/kernel``, ``conv_18/bias``. This module turns files and sessions
into such a dict and back; :func:`read_weights` takes any of them. Files are treated as hostile: a
shape that a file claims is compared with the network's before memory is taken for it.
"""

import contextlib
import functools
import io
import operator
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict, namedtuple

import numpy as np

import darknet19
from model import darknet_files
from model.checkpoints import newest_checkpoint
from model.literal_names import literal
from runtime.session import CHECKPOINT_ERRORS, tf
from utils import UserError, write_atomically

# Names in a graph differ from names in a file in these two.
_PART_IN_GRAPH = {"mean": "moving_mean", "variance": "moving_variance"}

MAX_PROTO_BYTES = (1 << 31) - 1  # protobuf's own bound


class StoredArray(namedtuple("StoredArray", "shape dtype load")):
    """An array in a file: what the file says of it, and a function that reads it."""


def variable_name(name):
    """The graph's name for a weight: ``conv_3/mean`` is the variable ``conv_3/moving_mean``."""
    layer, part = name.split("/")
    return "{}/{}".format(layer, _PART_IN_GRAPH.get(part, part))


def weight_shapes(num_classes=darknet19.NUM_CLASSES):
    """Shape of every weight, by name, in the order of the layers."""
    parts = {graph: file for file, graph in _PART_IN_GRAPH.items()}
    shapes = OrderedDict()
    for name, shape in darknet19.variable_shapes(num_classes).items():
        layer, part = name.split("/")
        shapes["{}/{}".format(layer, parts.get(part, part))] = shape
    return shapes


def check_weights(weights, source, num_classes=darknet19.NUM_CLASSES, partial=False):
    """Put weights in order after checking that they are Darknet-19's, whole and finite.

    Parameters
    ----------
    weights : mapping of str to array or StoredArray
        float32 or float16.
    source : str
        The file's name, for the error line.
    num_classes : int or None
        None accepts any number of classes.
    partial : bool
        Accept weights of the first layers only.

    Returns
    -------
    OrderedDict of str to numpy.ndarray
        float32.

    Raises
    ------
    UserError
        Naming every layer that does not fit, what was expected and what was found.
    """
    if num_classes is None:
        num_classes = _count_classes(weights)
    expected = weight_shapes(num_classes)
    missing = [name for name in expected if name not in weights]
    if partial:
        missing = [name for name in missing if not _is_cut_off(name, missing, expected)]
    if len(missing) == len(expected):
        raise UserError("{}: none of Darknet-19's layers is in it; use weights of this "
                        "Darknet-19".format(source))
    faults = _missing_layers(missing, expected)
    faults += ["{}: expected float {}, found {} {}".format(
        name, list(shape), weights[name].dtype, list(weights[name].shape))
        for name, shape in expected.items()
        if name in weights and not _fits(weights[name], shape)]
    if faults:
        raise UserError("{}: {}; use weights of this Darknet-19".format(source, "; ".join(faults)))
    return OrderedDict(
        (name, _load_finite(name, weights[name], source)) for name in expected if name in weights)


def _count_classes(weights):
    """The length of the last convolution's bias; that of this project if it is of no use."""
    shape = getattr(weights.get(darknet19.CLASSIFIER + "/bias"), "shape", ())
    if len(shape) == 1 and 1 <= shape[0] <= darknet_files.MAX_CLASSES:
        return int(shape[0])
    return darknet19.NUM_CLASSES


def _is_cut_off(name, missing, expected):
    """Whether a missing weight's layer and all layers after it are missing, but not the first."""
    names = list(expected)
    first = names.index(name.split("/")[0] + "/kernel")
    return first > 0 and set(names[first:]) <= set(missing)


def _missing_layers(missing, expected):
    """Say what is missing: a whole layer by its name, otherwise each part."""
    lines = []
    for layer in OrderedDict.fromkeys(name.split("/")[0] for name in missing):
        gone = [name for name in missing if name.split("/")[0] == layer]
        whole = len(gone) == sum(name.split("/")[0] == layer for name in expected)
        lines += ["{} is missing".format(name) for name in ([layer] if whole else gone)]
    return lines


def _fits(array, shape):
    return tuple(array.shape) == tuple(shape) and array.dtype in (np.float32, np.float16)


def _load_finite(name, stored, source):
    array = np.asarray(stored.load() if isinstance(stored, StoredArray) else stored)
    if not np.isfinite(array).all():
        raise UserError("{}: {}: element {} is not finite; the training that wrote it went "
                        "astray, use an earlier file".format(
                            source, name, int(np.argmin(np.isfinite(array).ravel()))))
    if name.endswith("/variance") and array.min() < 0:
        raise UserError("{}: {}: a negative variance; the file is damaged".format(source, name))
    return array.astype(np.float32)


def read_npz(path, num_classes=darknet19.NUM_CLASSES, partial=False):
    """Read the weights of a ``.npz`` as :func:`write_npz` writes it; pickles in it are refused."""
    try:
        darknet_files.regular_size(path, "run extract_weights.py")
        with zipfile.ZipFile(path) as archive:
            stored = {}
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    stored[member.filename[:-len(".npy")]] = _stored_in_zip(archive, member)
            return check_weights(stored, path, num_classes, partial)
    except UserError:
        raise
    except Exception as error:  # damaged archives and headers of arrays raise nearly anything
        raise UserError("{}: not a whole .npz of arrays ({}); run extract_weights.py anew".format(
            path, error))


def _stored_in_zip(archive, member):
    """An array of an ``.npz`` by its header alone."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError("{} in .npy format {}.{}".format(member.filename, *version))
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        claimed = functools.reduce(operator.mul, shape, dtype.itemsize)
        if claimed > member.file_size and not dtype.hasobject:  # a pickle's length tells nothing
            raise ValueError("{} claims {:,} bytes and has {:,}".format(
                member.filename, claimed, member.file_size))

    def load():
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    return StoredArray(shape, dtype, load)


def write_npz(path, weights, dtype=np.float32):
    """Write weights as an uncompressed ``.npz`` that loads with ``allow_pickle=False``.

    Raises
    ------
    UserError
        For numbers that are too large for ``dtype``.
    """
    with np.errstate(over="ignore"):  # told below
        arrays = {name: array.astype(dtype) for name, array in weights.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError("{}: not written: {} has numbers that are too large for {}".format(
                path, name, np.dtype(dtype)))
    content = io.BytesIO()  # on a full disk numpy's writer would also complain when it is collected
    np.savez(content, **arrays)
    with write_atomically(path) as stream:
        stream.write(content.getbuffer())


def read_checkpoint(prefix, num_classes=darknet19.NUM_CLASSES, partial=False):
    """Read the weights of a checkpoint of train.py, averaged ones if it holds both.

    Parameters
    ----------
    prefix : str
        The path without ``.index``.
    """
    with literal(prefix) as name:
        return _read_checkpoint(name, prefix, num_classes, partial)


def _read_checkpoint(name, prefix, num_classes, partial):
    try:
        reader = tf.train.NewCheckpointReader(name)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        stored = {}
        for name in weight_shapes():
            variable = variable_name(name)
            averaged = variable + "/ExponentialMovingAverage"
            chosen = averaged if averaged in shapes else variable
            if chosen in shapes:
                stored[name] = StoredArray(
                    tuple(shapes[chosen]), np.dtype(dtypes[chosen].as_numpy_dtype),
                    lambda chosen=chosen: reader.get_tensor(chosen))
        return check_weights(stored, prefix, num_classes, partial)
    except CHECKPOINT_ERRORS as error:
        raise UserError("{}: not a whole checkpoint ({}); use another or train again".format(
            prefix, getattr(error, "message", error)))


def read_frozen(path, num_classes=darknet19.NUM_CLASSES, partial=False):
    """Read the weights of a frozen graph: the constants that were variables."""
    return _read_constants(read_graph_def(path), path, num_classes, partial)


def _read_constants(graph_def, path, num_classes, partial):
    wanted = {variable_name(name): name for name in weight_shapes()}
    stored = {}
    for node in graph_def.node:
        if node.op == "Const" and node.name in wanted:
            tensor = node.attr["value"].tensor
            try:
                dtype = np.dtype(tf.as_dtype(tensor.dtype).as_numpy_dtype)
            except TypeError:
                dtype = "unknown type"
            stored[wanted[node.name]] = StoredArray(
                tuple(dim.size for dim in tensor.tensor_shape.dim), dtype,
                lambda tensor=tensor: tf.make_ndarray(tensor))
    try:
        return check_weights(stored, path, num_classes, partial)
    except (ValueError, TypeError) as error:  # fewer numbers than the shape has places for
        raise UserError("{}: not a whole frozen graph ({}); run train.py anew".format(path, error))


def read_graph_def(path):
    """Parse a ``.pb`` file.

    Returns
    -------
    tf.GraphDef

    Raises
    ------
    UserError
        Missing, empty, truncated or not a graph.
    """
    graph_def = _read_proto(path, tf.GraphDef, "frozen graph", "run train.py")
    if not graph_def.node:
        raise UserError("{}: no graph in it; run train.py anew".format(path))
    return graph_def


def _read_proto(path, message, kind, remedy):
    size = darknet_files.regular_size(path, remedy)
    if size > MAX_PROTO_BYTES:
        raise UserError("{}: {:,} bytes are more than a {} can have; {} anew".format(
            path, size, kind, remedy))
    try:
        # protobuf warns of bytes after the message instead of refusing them
        with open(path, "rb") as stream, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            content = message.FromString(stream.read())
        if warned:
            raise ValueError(warned[0].message)
        return content
    except OSError as error:
        raise UserError("{}: {}; {} anew".format(path, error.strerror, remedy))
    except Exception as error:  # protobuf's decode errors have no common public base
        raise UserError("{}: not a whole {} ({}); {} anew".format(path, kind, error, remedy))


def read_saved_model(folder, num_classes=darknet19.NUM_CLASSES, partial=False):
    """Read the weights of a SavedModel: its variables, or its constants if it has none.

    Parameters
    ----------
    folder : str
        With ``saved_model.pb`` in it.
    """
    prefix = os.path.join(folder, "variables", "variables")
    if os.path.exists(prefix + ".index"):
        return read_checkpoint(prefix, num_classes, partial)
    from tensorflow.core.protobuf import saved_model_pb2  # not before session has set it up

    path = os.path.join(folder, "saved_model.pb")
    model = _read_proto(path, saved_model_pb2.SavedModel, "SavedModel", "run export.py savedmodel")
    if not model.meta_graphs:
        raise UserError("{}: no graph in it; run export.py savedmodel anew".format(path))
    return _read_constants(model.meta_graphs[0].graph_def, path, num_classes, partial)


def read_weights(path, num_classes=darknet19.NUM_CLASSES, partial=False, cfg=None):
    """Read weights from any file that holds them.

    Parameters
    ----------
    path : str
        A ``.npz``; a frozen ``.pb``; darknet's ``.weights`` or a part of it (``*.conv.23``); a
        SavedModel's folder, or the one with its numbered versions (the last is taken); a
        checkpoint's prefix, its ``.index`` file, or the folder that holds it.
    num_classes : int or None
        None accepts any number of classes.
    partial : bool
        Accept weights of the first layers only.
    cfg : str, optional
        darknet's description of its weights; see :func:`darknet_files.read_weights`.

    Returns
    -------
    OrderedDict of str to numpy.ndarray

    Raises
    ------
    UserError
        Missing, damaged, of another network or of a kind that is not known.
    """
    if cfg or darknet_files.is_darknet_file(path):
        return check_weights(darknet_files.read_weights(path, cfg), path, num_classes, partial)
    if path.endswith(".npz"):
        return read_npz(path, num_classes, partial)
    if path.endswith(".pb") and os.path.basename(path) != "saved_model.pb":
        return read_frozen(path, num_classes, partial)
    folder = find_saved_model(path)
    if folder:
        return read_saved_model(folder, num_classes, partial)
    return read_checkpoint(find_checkpoint(path), num_classes, partial)


def find_saved_model(path):
    """The SavedModel that a folder, its parent or its ``saved_model.pb`` stands for, or None."""
    if os.path.basename(path) == "saved_model.pb":
        return os.path.dirname(path) or "."
    versions = []
    with contextlib.suppress(OSError):
        versions = sorted((name for name in os.listdir(path) if name.isdecimal()), key=int)
    for folder in [path] + [os.path.join(path, name) for name in reversed(versions)]:
        if os.path.isfile(os.path.join(folder, "saved_model.pb")):
            return folder
    return None


def find_checkpoint(path):
    """The checkpoint prefix that a prefix, an ``.index`` file or a folder stands for."""
    if os.path.isdir(path):
        prefix = newest_checkpoint(path)
    else:
        prefix = path[:-len(".index")] if path.endswith(".index") else path
    if not prefix or not os.path.exists(prefix + ".index"):
        raise UserError("{}: no checkpoint there, and no .npz, .pb, .weights or SavedModel; name a "
                        "file that train.py, extract_weights.py or darknet wrote".format(path))
    darknet_files.regular_size(prefix + ".index", "name a whole checkpoint")
    return prefix


def assign(session, weights):
    """Load weights into the variables of the session's graph.

    Parameters
    ----------
    session : tf.Session
    weights : mapping of str to numpy.ndarray
        Weights whose variable the graph does not have are an error.
    """
    variables = {variable.op.name: variable for variable in session.graph.get_collection(
        tf.GraphKeys.GLOBAL_VARIABLES)}
    set_variables(session, {variables[variable_name(name)]: array
                            for name, array in weights.items()})


def set_variables(session, values):
    """Set variables to values, all in one run of the session: one run each takes seconds.

    Parameters
    ----------
    session : tf.Session
    values : dict of tf.Variable to numpy.ndarray
    """
    session.run([variable.initializer for variable in values],
                {variable.initializer.inputs[1]: array for variable, array in values.items()})


def write_handoff(weights, conv_path, bn_path):
    """Write the two pickles from which the YOLOv2 face detector builds its backbone.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
    conv_path : str
        Gets ``{"conv_0": kernel, .., "conv_18": kernel}``, float32, HWIO.
    bn_path : str
        Gets ``{"conv_0": {"mean", "variance", "beta", "gamma"}, .., "conv_17": ..}``.
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
    """Reads pickles of built-in values and float32 arrays; whatever names more is refused.

    Arrays are begun empty, whatever size the pickle asks for: numpy then compares the size with the
    bytes that follow. See :func:`utils.load_list` on the pure-Python unpickler.
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
        darknet_files.regular_size(path, "run extract_weights.py")
        try:
            with open(path, "rb") as stream:
                layers = _ArrayUnpickler(stream).load()
            weights.update({"{}/{}".format(layer, part): np.asarray(array, np.float32)
                            for layer, content in layers.items()
                            for part, array in parts_of(content).items()})
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise UserError("{}: not a pickle of the hand-off ({}); run extract_weights.py "
                            "anew".format(path, error or type(error).__name__))
    return weights
