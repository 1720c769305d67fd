"""Weights in an ``.npz``, this project's own format, with a little metadata inside.

The arrays are named as in ``arrays.py``; the member ``metadata``, if there is one, is a uint8
array of UTF-8 JSON. All load with ``numpy.load(path, allow_pickle=False)``.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import operator
import os
import typing
import zipfile
from collections import OrderedDict

import numpy as np

from darknet_face.console import UserError
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.safe_files import regular_size
from darknet_face.weights.arrays import Arrays, StoredArray, check_weights
from darknet_face.weights.metadata import Metadata, metadata_beside

METADATA = "metadata"
MAX_METADATA_BYTES = 1 << 16


def write_npz(path: str, weights: Arrays, dtype: typing.Any = np.float32,
              metadata: Metadata | None = None) -> None:
    """Write weights and their metadata as an uncompressed ``.npz``.

    With float16 for ``dtype`` the file has half the size.

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
    np.savez(content, **typing.cast(typing.Any, arrays))
    with write_atomically(path) as stream:
        stream.write(content.getbuffer())


def read_npz(path: str) -> tuple[OrderedDict[str, np.ndarray], Metadata]:
    """Read the weights and the metadata of a ``.npz``; pickles in it are refused.

    Raises
    ------
    UserError
        For a damaged archive, for weights that do not fit, and for anything but a regular file: a
        device would be read without end.
    """
    with _opened(path) as archive:
        stored = _stored_arrays(archive)
        metadata = metadata_beside(path, _metadata(stored))
        return check_weights(stored, path), metadata


def is_npz(path: str) -> bool:
    """Whether a file is an ``.npz`` of arrays."""
    try:
        with open_npz(path) as (stored, _):
            return bool(stored)
    except UserError:
        return False


def _metadata(stored: dict[str, StoredArray]) -> Metadata:
    """The JSON object among the arrays, unchecked; empty in files of older versions."""
    if METADATA not in stored:
        return {}
    text = stored[METADATA]
    if (text.dtype, len(text.shape)) != (np.uint8, 1) or text.shape[0] > MAX_METADATA_BYTES:
        raise ValueError("its metadata are no text of at most {:,} bytes".format(
            MAX_METADATA_BYTES))
    content = json.loads(text.load().tobytes().decode("utf-8"))
    if not isinstance(content, dict):
        raise ValueError("its metadata are no JSON object")
    return content


def read_metadata(path: str, remedy: str = "run extract_weights.py") -> Metadata:
    """The metadata of any ``.npz`` of this project, unchecked, without a look at its arrays."""
    with _opened(path, remedy) as archive:
        name = METADATA + ".npy"
        return _metadata({METADATA: _stored_array(archive, archive.getinfo(name))}
                         if name in archive.namelist() else {})


@contextlib.contextmanager
def open_npz(path: str, remedy: str = "run extract_weights.py"
             ) -> typing.Iterator[tuple[dict[str, StoredArray], Metadata]]:
    """Any ``.npz`` of this project, unchecked: its arrays by their headers, and its metadata.

    The arrays can be loaded within the block. Whatever goes wrong in it becomes a UserError, which
    names the remedy.
    """
    with _opened(path, remedy) as archive:
        stored = _stored_arrays(archive)
        metadata = _metadata(stored)
        stored.pop(METADATA, None)
        yield stored, metadata


@contextlib.contextmanager
def _opened(path: str, remedy: str = "run extract_weights.py") -> typing.Iterator[zipfile.ZipFile]:
    """Open a ``.npz``; whatever goes wrong while it is open becomes a UserError."""
    regular_size(path, remedy)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except UserError:
        raise
    except Exception as error:  # damaged archives and headers of arrays raise nearly anything
        raise UserError("{}: not a whole .npz of arrays ({}); {} again".format(
            path, error, remedy))


def _stored_arrays(archive: zipfile.ZipFile) -> dict[str, StoredArray]:
    return {member.filename[:-len(".npy")]: _stored_array(archive, member)
            for member in archive.infolist() if member.filename.endswith(".npy")}


def _stored_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> StoredArray:
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

    def load() -> np.ndarray:
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    return StoredArray(shape, dtype, load)
