"""The files of TensorFlow's checkpoints: which exist, which is newest, which can be removed.

TensorFlow's own note of them, the file ``checkpoint``, is written but not relied on: it may be
damaged, or name a checkpoint whose files were removed.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import typing
from collections import OrderedDict

import numpy as np

from darknet_face.console import UserError
from darknet_face.runtime.safe_files import regular_size
from darknet_face.runtime.session import checkpoint_errors, tf
from darknet_face.weights.arrays import StoredArray, check_weights, variable_name, weight_shapes
from darknet_face.weights.checkpoint_index import check_index
from darknet_face.weights.literal_names import literal

# The files of a checkpoint as TensorFlow names them, and while it writes them. The index is written
# last, so that a checkpoint with one is whole.
_FILE = re.compile(
    r"model-(?P<step>\d+)\.(?P<kind>index|data)(-\d+-of-\d+)?(?P<half>\.tempstate\d+)?$")
_ENDING = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")  # of a checkpoint's files


def newest_checkpoint(folder: str) -> str | None:
    """The prefix of the checkpoint of the highest step in a folder, or None."""
    steps: dict[str, int] = {}
    for path in glob.glob(os.path.join(glob.escape(folder), "*.index")):
        prefix = path[:-len(".index")]
        number = prefix.rpartition("-")[2]
        steps[prefix] = int(number) if number.isdecimal() else -1
    return max(sorted(steps), key=lambda prefix: steps[prefix], default=None)


def save_checkpoint(saver: typing.Any, session: typing.Any, folder: str, step: int) -> str:
    """Write a checkpoint ``model-<step>``, whole or not at all.

    Parameters
    ----------
    saver
        A ``tf.train.Saver`` that removes nothing, since it does not know the checkpoints of earlier
        runs.

    Returns
    -------
    str
        Its prefix.

    Raises
    ------
    UserError
        With exit code 1 when it can't be written, most likely because the disk is full.
    """
    try:
        return saver.save(session, os.path.join(folder, "model"), int(step),
                          write_meta_graph=False)
    except (tf.errors.OpError, ValueError) as error:
        keep_only(folder, _steps(folder))  # removes what was written of this one
        raise UserError("{}: the checkpoint of step {} can't be written ({}); those before are "
                        "whole: check the permissions and the free disk space".format(
                            folder, int(step), cause(error)), exit_code=1)


def restore_checkpoint(saver: typing.Any, session: typing.Any, checkpoint: str,
                       remedy: str) -> None:
    """Restore a checkpoint; a damaged one is refused before it can end the process.

    Parameters
    ----------
    checkpoint
        Its prefix; any characters may be in it.
    remedy
        What to do about one that does not restore, for the error line.

    Raises
    ------
    UserError
        Missing, damaged, or of another graph.
    """
    check_index(checkpoint, remedy)
    try:
        with literal(checkpoint) as name:
            saver.restore(session, name)
    except checkpoint_errors() as error:
        raise UserError("{}: does not restore ({}); {}".format(checkpoint, cause(error), remedy))


def newest_steps(folder: str, count: int) -> list[int]:
    """The steps of the ``count`` newest whole checkpoints that :func:`save_checkpoint` wrote."""
    return _steps(folder)[-count:]


def _steps(folder: str) -> list[int]:
    return sorted(int(match.group("step")) for match, _ in _files(folder)
                  if match.group("kind") == "index" and not match.group("half"))


def other_files(folder: str, steps: typing.Container[int]) -> list[str]:
    """The files of all checkpoints except those of ``steps``, and half-written files.

    Returns
    -------
    list of str
    """
    return [path for match, path in _files(folder)
            if match.group("half") or int(match.group("step")) not in steps]


def _files(folder: str) -> list[tuple[typing.Any, str]]:
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    found = ((_FILE.match(name), os.path.join(folder, name)) for name in names)
    return [(match, path) for match, path in found if match]


def keep_only(folder: str, steps: typing.Container[int]) -> None:
    """Remove :func:`other_files`."""
    for path in other_files(folder, steps):
        os.remove(path)


def cause(error: BaseException) -> str:
    """TensorFlow's message for an error, without the node's name.

    TensorFlow 2 writes many lines on where the node was made, and the cause in the last one.
    """
    message = getattr(error, "message", str(error))
    if message.startswith("Graph execution error"):
        return message.partition("[[")[0].strip().rpartition("\n")[2].strip()
    return message.partition("\n")[0].partition("[[")[0].strip()


def find_checkpoint(path: str) -> str:
    """The checkpoint prefix that a path stands for.

    Parameters
    ----------
    path
        A prefix, one of the checkpoint's files, the folder that holds it, or TensorFlow's note
        ``checkpoint`` in that folder.

    Raises
    ------
    UserError
        When there is no checkpoint.
    """
    prefix: str | None = path
    if os.path.isdir(path):
        prefix = newest_checkpoint(path)
    elif os.path.basename(path) == "checkpoint" and not os.path.exists(path + ".index"):
        prefix = newest_checkpoint(os.path.dirname(path) or ".")
    elif not os.path.exists(path + ".index"):
        prefix = _ENDING.sub("", path)
    if not prefix or not os.path.exists(prefix + ".index"):
        raise UserError("{}: no checkpoint there, and no .npz, .pb, .weights or SavedModel; name a "
                        "file that train.py, extract_weights.py or darknet wrote".format(path))
    regular_size(prefix + ".index", "name a whole checkpoint")
    return prefix


def read_checkpoint(prefix: str) -> OrderedDict[str, np.ndarray]:
    """Read the weights of a checkpoint of train.py, averaged ones if it holds both.

    ``prefix`` is the path without ``.index``.
    """
    entries = check_index(prefix)
    try:
        with literal(prefix) as name:
            reader = tf.train.NewCheckpointReader(name)
            stored = {}
            for weight in weight_shapes():
                variable = variable_name(weight)
                averaged = variable + "/ExponentialMovingAverage"
                chosen = averaged if averaged in entries else variable
                if chosen in entries:
                    entry = entries[chosen]
                    stored[weight] = StoredArray(
                        tuple(dimension.size for dimension in entry.shape.dim),
                        np.dtype(tf.as_dtype(entry.dtype).as_numpy_dtype),
                        functools.partial(reader.get_tensor, chosen))
            return check_weights(stored, prefix)
    except checkpoint_errors() as error:  # a wrong checksum, for one
        raise UserError("{}: not a whole checkpoint ({}); use another or train again".format(
            prefix, cause(error)))
