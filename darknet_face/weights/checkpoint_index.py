"""The index of a checkpoint, read strictly before TensorFlow reads it.

TensorFlow ends the whole process on many damaged indexes: a negative size, a product that
overflows, too many dimensions. So :func:`check_index` reads the index first and refuses whatever
a checkpoint of TensorFlow 1.15 or 2 does not have.

An index is a table of LevelDB: blocks of sorted entries whose keys share prefixes, a block that
lists these blocks, and a footer that points to this list. The first entry is a
``BundleHeaderProto``; the others, one per variable, are each a ``BundleEntryProto``.
Source: ``tensorflow/core/lib/io/table_format.txt`` and ``protobuf/tensor_bundle.proto``.
"""

from __future__ import annotations

import struct
import typing
from collections import OrderedDict

from darknet_face.console import UserError
from darknet_face.runtime.safe_files import regular_size
from darknet_face.runtime.session import protobuf, tf

MAX_BYTES = 1 << 24  # Darknet-19's with an optimiser has some 20,000
MAX_DIMENSIONS = 8
Table = typing.List[typing.Tuple[bytes, bytes]]  # keys and values, in order
MAX_SHARDS = 1000
_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
_REFERENCE = 100  # from this number on, TensorFlow's types are references


class _Damaged(Exception):
    """The index is not what TensorFlow writes; the message says where."""


def check_index(prefix: str, remedy: str = "use another or train again"
                ) -> OrderedDict[str, typing.Any]:
    """Make sure that TensorFlow can read a checkpoint without ending the process.

    Parameters
    ----------
    prefix
        The path without ``.index``.
    remedy
        What to do about a bad one, for the error line.

    Returns
    -------
    OrderedDict
        ``tensor_bundle_pb2.BundleEntryProto`` by the variables' names.

    Raises
    ------
    UserError
        Missing, damaged or hostile.
    """
    path = prefix + ".index"
    size = regular_size(path, "name a whole checkpoint")
    try:
        if size > MAX_BYTES:
            raise _Damaged("an index of {:,} bytes".format(size))
        with open(path, "rb") as stream:
            return _check_entries(prefix, _read_table(stream.read(MAX_BYTES)))
    except Exception as error:  # protobuf's decode errors, for one, have no public base
        cause = error if isinstance(error, (_Damaged, UserError)) else "damaged"
        raise UserError("{}: not a whole checkpoint ({}); {}".format(prefix, cause, remedy))


def _check_entries(prefix: str, table: Table) -> OrderedDict[str, typing.Any]:
    """Compare what the entries claim with the sizes of the files."""
    if not table or table[0][0] != b"":
        raise _Damaged("no header")
    tensor_bundle_pb2 = protobuf("tensor_bundle_pb2")
    header = _parse(tensor_bundle_pb2.BundleHeaderProto, table[0][1])
    if not 1 <= header.num_shards <= MAX_SHARDS or header.endianness != header.LITTLE:
        raise _Damaged("an unknown kind of checkpoint")
    sizes: dict[int, int] = {}
    entries = OrderedDict()
    for key, value in table[1:]:
        name, entry = key.decode("utf-8"), _parse(tensor_bundle_pb2.BundleEntryProto, value)
        if not name.isprintable() or entry.slices:
            raise _Damaged("a variable in parts, or without a readable name")
        if not 0 <= entry.shard_id < header.num_shards:
            raise _Damaged("{}: in a file that is not there".format(name))
        if entry.shard_id not in sizes:
            sizes[entry.shard_id] = regular_size("{}.data-{:05d}-of-{:05d}".format(
                prefix, entry.shard_id, header.num_shards), "name a whole checkpoint")
        _check_claims(name, entry, sizes[entry.shard_id])
        entries[name] = entry
    return entries


def _check_claims(name: str, entry: typing.Any, file_size: int) -> None:
    """Check one variable's type, shape, length and place in its file."""
    if not 0 < entry.dtype < _REFERENCE:
        raise _Damaged("{}: of type {}".format(name, entry.dtype))
    dimensions = [dimension.size for dimension in entry.shape.dim]
    if entry.shape.unknown_rank or len(dimensions) > MAX_DIMENSIONS or min(
            dimensions, default=0) < 0:
        raise _Damaged("{}: a shape of {}".format(name, str(dimensions)[:60]))
    if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > file_size:
        raise _Damaged("{}: beyond the end of its file".format(name))
    is_string = entry.dtype == tf.string.as_datatype_enum
    length = 1 if is_string else tf.as_dtype(entry.dtype).size  # strings have a byte or more
    for dimension in dimensions:
        length *= dimension
    if length > entry.size or (length < entry.size and not is_string):
        raise _Damaged("{}: {} in {:,} bytes".format(name, dimensions, entry.size))


def _parse(message: typing.Any, content: bytes) -> typing.Any:
    """Parse a protobuf that holds only what TensorFlow writes."""
    parsed = message.FromString(content)
    if parsed.SerializeToString(deterministic=True) != content:
        raise _Damaged("not TensorFlow's encoding")
    return parsed


def _read_table(content: bytes) -> Table:
    """All entries of a table, in order: a list of (key, value)."""
    if len(content) < _FOOTER or struct.unpack("<Q", content[-8:])[0] != _MAGIC:
        raise _Damaged("the index is cut off")
    _, place = _read_handle(content, len(content) - _FOOTER)
    index, _ = _read_handle(content, place)
    entries = []
    for _, handle in _read_block(content, *index):
        block, _ = _read_handle(handle, 0)
        entries += _read_block(content, *block)
    keys = [key for key, _ in entries]
    if any(first >= second for first, second in zip(keys, keys[1:])):
        raise _Damaged("its names are not in order")
    return entries


def _read_handle(content: bytes, place: int) -> tuple[tuple[int, int], int]:
    """An offset and a length, and the place after them."""
    offset, place = _read_number(content, place)
    length, place = _read_number(content, place)
    return (offset, length), place


def _read_number(content: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and the place after it."""
    number = shift = 0
    while shift < 64:
        byte = content[place]
        place += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, place
    raise _Damaged("a number of more than 64 bits")


def _read_block(content: bytes, offset: int, length: int) -> Table:
    """The entries of an uncompressed block: a list of (key, value).

    At its end are the offsets where readers may begin: at each an entry must begin whose key shares
    nothing with the one before.
    """
    if offset + length + 5 > len(content) or length < 4 or content[offset + length]:
        raise _Damaged("a block beyond the end, or compressed")
    block = content[offset:offset + length]
    count = struct.unpack("<I", block[-4:])[0]
    end = length - 4 - 4 * count
    if count < 1 or end < 0:
        raise _Damaged("a damaged block")
    entries: Table = []
    whole: set[int] = set()
    key, place = b"", 0
    while place < end:
        begin = place
        shared, place = _read_number(block, place)
        unshared, place = _read_number(block, place)
        size, place = _read_number(block, place)
        if shared > len(key) or place + unshared + size > end:
            raise _Damaged("a damaged block")
        if not shared:
            whole.add(begin)
        key = key[:shared] + block[place:place + unshared]
        entries.append((key, block[place + unshared:place + unshared + size]))
        place += unshared + size
    begins = struct.unpack("<{}I".format(count), block[end:-4])
    if entries and (begins[0] != 0 or sorted(set(begins)) != list(begins) or set(begins) - whole):
        raise _Damaged("a damaged block")
    return entries
