"""The network's weights as named arrays, and the files that hold them.

Everywhere in the project weights are an ordered dict of float32 arrays, named as in the ``.npz``:
``conv_0/kernel`` (HWIO), ``conv_0/gamma``, ``conv_0/beta``, ``conv_0/mean``, ``conv_0/variance``,
.. ``conv_17/variance``, ``conv_18/kernel``, ``conv_18/bias``. This module turns files and sessions
into such a dict and back; :func:`read_weights` takes any of them.
"""

import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np

import darknet19
from session import tf
from utils import UserError, write_atomically

# Names in a graph differ from names in a file in these two.
_PART_IN_GRAPH = {"mean": "moving_mean", "variance": "moving_variance"}


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


def check_weights(weights, source, num_classes=darknet19.NUM_CLASSES):
    """Put weights in order after checking that they are Darknet-19's, whole and finite.

    Parameters
    ----------
    weights : mapping of str to array
        float32 or float16.
    source : str
        The file's name, for the error line.
    num_classes : int or None
        None accepts any number of classes.

    Returns
    -------
    OrderedDict of str to numpy.ndarray
        float32.

    Raises
    ------
    UserError
        Naming the layer, what was expected and what was found.
    """
    if num_classes is None:
        bias = weights.get(darknet19.CLASSIFIER + "/bias")
        num_classes = len(bias) if bias is not None and np.ndim(bias) == 1 else 1
    checked = OrderedDict()
    for name, shape in weight_shapes(num_classes).items():
        if name not in weights:
            raise UserError("{}: {} is missing: not the weights of this Darknet-19".format(
                source, name))
        array = np.asarray(weights[name])
        if array.shape != tuple(shape) or array.dtype not in (np.float32, np.float16):
            raise UserError("{}: {}: expected float {}, found {} {}; use weights of the same "
                            "network".format(source, name, list(shape), array.dtype,
                                             list(array.shape)))
        if not np.isfinite(array).all():
            raise UserError("{}: {}: element {} is not finite; the training that wrote it went "
                            "astray, use an earlier file".format(
                                source, name, int(np.argmin(np.isfinite(array).ravel()))))
        if name.endswith("/variance") and array.min() < 0:
            raise UserError("{}: {}: a negative variance; the file is damaged".format(source, name))
        checked[name] = array.astype(np.float32)
    return checked


def read_npz(path):
    """Read the weights of a ``.npz`` as :func:`write_npz` writes it; pickles in it are refused."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return check_weights({name: archive[name] for name in archive.files}, path)
    except FileNotFoundError:
        raise UserError("{}: no such file; run extract_weights.py".format(path))
    except (ValueError, OSError, KeyError, EOFError, MemoryError, AttributeError,
            zipfile.BadZipFile) as error:
        raise UserError("{}: not a whole .npz of arrays ({}); run extract_weights.py anew".format(
            path, error))


def write_npz(path, weights, dtype=np.float32):
    """Write weights as an uncompressed ``.npz`` that loads with ``allow_pickle=False``."""
    with write_atomically(path) as stream:
        np.savez(stream, **{name: array.astype(dtype) for name, array in weights.items()})


def read_checkpoint(prefix):
    """Read the weights of a checkpoint of train.py, averaged ones if it holds both.

    Parameters
    ----------
    prefix : str
        The path without ``.index``.
    """
    try:
        reader = tf.train.NewCheckpointReader(prefix)
        stored = reader.get_variable_to_shape_map()
        weights = {}
        for name in weight_shapes():
            variable = variable_name(name)
            averaged = variable + "/ExponentialMovingAverage"
            chosen = averaged if averaged in stored else variable
            if chosen in stored:
                weights[name] = reader.get_tensor(chosen)
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        raise UserError("{}: not a whole checkpoint ({}); use another or train again".format(
            prefix, getattr(error, "message", error)))
    return check_weights(weights, prefix)


def read_frozen(path):
    """Read the weights of a frozen graph: the constants that were variables."""
    wanted = {variable_name(name): name for name in weight_shapes()}
    weights = {wanted[node.name]: tf.make_ndarray(node.attr["value"].tensor)
               for node in read_graph_def(path).node
               if node.op == "Const" and node.name in wanted}
    return check_weights(weights, path)


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
    try:
        with open(path, "rb") as stream:
            graph_def = tf.GraphDef.FromString(stream.read())
    except FileNotFoundError:
        raise UserError("{}: no such file; run train.py".format(path))
    except OSError as error:
        raise UserError("{}: {}; run train.py anew".format(path, error.strerror))
    except Exception as error:  # protobuf's decode errors have no common public base
        raise UserError("{}: not a whole frozen graph ({}); run train.py anew".format(
            path, error))
    if not graph_def.node:
        raise UserError("{}: no graph in it; run train.py anew".format(path))
    return graph_def


def read_weights(path):
    """Read weights from a ``.npz``, a frozen ``.pb``, or a checkpoint.

    Parameters
    ----------
    path : str
        For a checkpoint its prefix, its ``.index`` file, or the folder that holds it.

    Returns
    -------
    OrderedDict of str to numpy.ndarray

    Raises
    ------
    UserError
        Missing, damaged, of another network or of a kind that is not known.
    """
    if path.endswith(".npz"):
        return read_npz(path)
    if path.endswith(".pb"):
        return read_frozen(path)
    return read_checkpoint(find_checkpoint(path))


def find_checkpoint(path):
    """The checkpoint prefix that a prefix, an ``.index`` file or a folder stands for."""
    if os.path.isdir(path):
        prefix = tf.train.latest_checkpoint(path)
    else:
        prefix = path[:-len(".index")] if path.endswith(".index") else path
    if not prefix or not os.path.exists(prefix + ".index"):
        raise UserError("{}: no checkpoint there, and no .npz or .pb; name a file that train.py "
                        "or extract_weights.py wrote".format(path))
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
    for name, array in weights.items():
        variables[variable_name(name)].load(array, session)


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
            pickle.dump(dict(content), stream, protocol=2)
