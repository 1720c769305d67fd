"""Weights in an ``.npz``, this project's own format, with a little metadata inside.

The arrays are named as in ``weights.py``; the member ``metadata``, if there is one, is a uint8
array of UTF-8 JSON. All load with ``numpy.load(path, allow_pickle=False)``.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import operator
import os
import zipfile

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.safe_files import regular_size
from darknet_face.weights.arrays import StoredArray, check_weights

METADATA = "metadata"
MAX_METADATA_BYTES = 1 << 16


def write_npz(path, weights, dtype=np.float32, metadata=None):
    """Write weights as an uncompressed ``.npz``.

    Parameters
    ----------
    path : str
    weights : mapping of str to numpy.ndarray
    dtype : numpy type
        float32, or float16 for a file of half the size.
    metadata : dict, optional
        What :func:`darknet_face.weights.metadata.read_metadata` is to give back.

    Raises
    ------
    UserError
        For numbers that are too large for ``dtype``.
    """
    with np.errstate(over="ignore"):  # reported below
        arrays = {name: array.astype(dtype) for name, array in weights.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError("{}: not written: {} has numbers that are too large for {}".format(
                os.path.basename(path), name, np.dtype(dtype)))  # it may lie in a temporary folder
    if metadata:
        text = json.dumps(metadata, allow_nan=False).encode("utf-8")
        arrays[METADATA] = np.frombuffer(text, np.uint8)
    content = io.BytesIO()  # on a full disk numpy's writer would also complain when it is collected
    np.savez(content, **arrays)
    with write_atomically(path) as stream:
        stream.write(content.getbuffer())


def read_npz(path, num_classes=darknet19.NUM_CLASSES, partial=False):
    """Read the weights of a ``.npz``; pickles in it are refused.

    Parameters are those of :func:`darknet_face.weights.weight_files.read_weights`.
    """
    with _opened(path) as archive:
        return check_weights(_stored_arrays(archive), path, num_classes, partial)


def read_npz_metadata(path):
    """The JSON object inside a ``.npz``, unchecked.

    Returns
    -------
    dict
        Empty if there is none, as in files of older versions, or if the file is no archive at all,
        which :func:`read_npz` reports.

    Raises
    ------
    UserError
        For a damaged archive, and for anything but a regular file: a device would be read for ever.
    """
    regular_size(path, "run extract_weights.py")
    if not zipfile.is_zipfile(path):
        return {}
    with _opened(path) as archive:
        stored = _stored_arrays(archive).get(METADATA)
        if stored is None:
            return {}
        if (stored.dtype, len(stored.shape)) != (np.uint8, 1) or (
                stored.shape[0] > MAX_METADATA_BYTES):
            raise ValueError("its metadata are no text of at most {:,} bytes".format(
                MAX_METADATA_BYTES))
        content = json.loads(stored.load().tobytes().decode("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("its metadata are no JSON object")
        return content


@contextlib.contextmanager
def _opened(path):
    """Open a ``.npz``; whatever goes wrong while it is open becomes a UserError."""
    regular_size(path, "run extract_weights.py")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except UserError:
        raise
    except Exception as error:  # damaged archives and headers of arrays raise nearly anything
        raise UserError("{}: not a whole .npz of arrays ({}); run extract_weights.py again".format(
            path, error))


def _stored_arrays(archive):
    return {member.filename[:-len(".npy")]: _stored_array(archive, member)
            for member in archive.infolist() if member.filename.endswith(".npy")}


def _stored_array(archive, member):
    """An array of an ``.npz``, described by its header alone."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError("{} in .npy format {}.{}".format(member.filename, *version))
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        claimed = functools.reduce(operator.mul, shape, dtype.itemsize)
        if claimed > member.file_size and not dtype.hasobject:  # a pickle's length says nothing
            raise ValueError("{} claims {:,} bytes and has {:,}".format(
                member.filename, claimed, member.file_size))

    def load():
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    return StoredArray(shape, dtype, load)
