"""Indexes of checkpoints that end the process inside TensorFlow are refused before it."""

import os
import random
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from tensorflow.core.protobuf import tensor_bundle_pb2

from darknet_face.console import UserError
from darknet_face.runtime.session import tf
from darknet_face.weights.checkpoint_index import check_index
from darknet_face.weights.checkpoints import read_checkpoint

DATA = ".data-00000-of-00001"


def crc32c(content):
    """The checksum of TensorFlow's tables (RFC 3720), masked as they store it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def number(value):
    """A number of variable length."""
    content = b""
    while value > 127:
        content += bytes([value & 127 | 128])
        value >>= 7
    return content + bytes([value])


def block(entries, begins=(0,)):
    """A block of a table, none of whose keys share a prefix, with its checksum."""
    content = b"".join(number(0) + number(len(key)) + number(len(value)) + key + value
                       for key, value in entries)
    content += struct.pack("<{}I".format(len(begins) + 1), *begins, len(begins)) + b"\0"
    return content + struct.pack("<I", crc32c(content))


def table(entries, begins=(0,)):
    """A table of one block."""
    data = block(entries, begins)
    index = block([(entries[-1][0], number(0) + number(len(data) - 5))])
    footer = number(0) + number(0) + number(len(data)) + number(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_checkpoint(prefix, change=lambda header, entry: None, key=b"v", begins=(0,)):
    """A checkpoint of one variable of eight bytes, changed as the caller wants."""
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=1)
    header.version.producer = 1
    content = np.arange(2, dtype=np.float32).tobytes()
    entry = tensor_bundle_pb2.BundleEntryProto(dtype=1, size=8, crc32c=crc32c(content))
    entry.shape.dim.add(size=2)
    change(header, entry)
    with open(prefix + ".index", "wb") as stream:
        stream.write(table([(b"", header.SerializeToString()), (key, entry.SerializeToString())],
                           begins))
    with open(prefix + DATA, "wb") as stream:
        stream.write(content)


def test_the_writer_of_this_test_writes_what_tensorflow_reads(tmp_path):
    prefix = str(tmp_path / "model")
    write_checkpoint(prefix)
    assert [dim.size for dim in check_index(prefix)["v"].shape.dim] == [2]
    np.testing.assert_array_equal(tf.train.NewCheckpointReader(prefix).get_tensor("v"), [0, 1])


def set_shape(*sizes):
    def change(_, entry):
        del entry.shape.dim[:]
        for size in sizes:
            entry.shape.dim.add(size=size)
    return change


@pytest.mark.parametrize("change", [
    set_shape(-2), set_shape(-1, -2), set_shape(1 << 62, 1 << 62), set_shape(1 << 40),
    set_shape(*[1] * 300), set_shape(3), set_shape(1),
    lambda _, entry: setattr(entry, "dtype", 101), lambda _, entry: setattr(entry, "dtype", 0),
    lambda _, entry: setattr(entry, "dtype", 77), lambda _, entry: setattr(entry, "dtype", 2),
    lambda _, entry: setattr(entry, "dtype", -1),
    lambda _, entry: setattr(entry.shape, "unknown_rank", True),
    lambda _, entry: setattr(entry, "size", -8), lambda _, entry: setattr(entry, "size", 1 << 60),
    lambda _, entry: setattr(entry, "offset", -8), lambda _, entry: setattr(entry, "offset", 1),
    lambda _, entry: setattr(entry, "shard_id", 1), lambda _, entry: setattr(entry, "shard_id", -1),
    lambda _, entry: entry.slices.add().extent.add(start=-1),
    lambda header, _: setattr(header, "num_shards", 0),
    lambda header, _: setattr(header, "num_shards", 1 << 30),
    lambda header, _: setattr(header, "endianness", 1),
])
def test_crafted_entries(tmp_path, change):
    prefix = str(tmp_path / "model")
    write_checkpoint(prefix, change)
    with pytest.raises(UserError, match="model: not a whole checkpoint .*; use another"):
        read_checkpoint(prefix)


@pytest.mark.parametrize("key, begins", [
    (b"\0slice", (0,)), (b"\xff", (0,)), (b"", (0,)), (b"v", ()), (b"v", (5,)), (b"v", (0, 3)),
    (b"v", (0, 0)), (b"v", (0, 1 << 31)),
])
def test_crafted_tables(tmp_path, key, begins):
    """Names that are none, and places in a block where no entry begins."""
    prefix = str(tmp_path / "model")
    write_checkpoint(prefix, key=key, begins=begins)
    with pytest.raises(UserError, match="not a whole checkpoint"):
        check_index(prefix)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of several types, as a training writes it."""
    folder = str(tmp_path_factory.mktemp("checkpoint"))
    with tf.Graph().as_default(), tf.Session() as session:
        for index in range(40):
            tf.get_variable("conv_{}/kernel".format(index), [3, 3, index + 1])
        tf.get_variable("step", [], tf.int64, tf.zeros_initializer())
        tf.get_variable("on", [2], tf.bool, tf.zeros_initializer())
        tf.get_variable("text", [2], tf.string, tf.constant_initializer(["a", "bc"]))
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, os.path.join(folder, "model"), 3)


def test_tensorflow_s_own_are_read(trained):
    entries = check_index(trained)
    shapes = tf.train.NewCheckpointReader(trained).get_variable_to_shape_map()
    assert shapes == {name: [dim.size for dim in entry.shape.dim]
                      for name, entry in entries.items()}


def test_what_passes_does_not_end_the_process(trained, tmp_path):
    """Entries are changed at random under right checksums; TensorFlow must survive the rest."""
    source = random.Random(0)
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=1)
    header.version.producer = 1
    entries = [(b"", header.SerializeToString())] + [
        (name.encode(), entry.SerializeToString()) for name, entry in check_index(trained).items()]
    passed = []
    for index in range(400):
        changed = [(key, bytearray(value)) for key, value in entries]
        _, value = changed[source.randrange(len(changed))]
        for _ in range(source.choice((1, 1, 2, 4))):
            value[source.randrange(len(value))] = source.randrange(256)
        prefix = str(tmp_path / "m{}".format(index))
        with open(prefix + ".index", "wb") as stream:
            stream.write(table(changed))
        os.link(trained + DATA, prefix + DATA)
        try:
            check_index(prefix)
            passed.append(prefix)
        except UserError as error:
            assert "not a whole checkpoint" in str(error)
    program = ("import sys; from darknet_face.runtime.session import tf\n"
               "for prefix in sys.argv[1:]:\n"
               "    try:\n"
               "        reader = tf.train.NewCheckpointReader(prefix)\n"
               "        for name in reader.get_variable_to_shape_map():\n"
               "            reader.get_tensor(name)\n"
               "    except (tf.errors.OpError, UnicodeDecodeError):\n"
               "        pass\n")
    outcome = subprocess.run([sys.executable, "-c", program] + passed, cwd=ROOT,
                             capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert 10 < len(passed) < 300, "changed checksums of variables pass here, TensorFlow finds them"


def test_files_that_are_none(trained, tmp_path):
    prefix = str(tmp_path / "model")
    shutil.copy(trained + DATA, prefix + DATA)
    with open(trained + ".index", "rb") as stream:
        content = stream.read()
    for damaged in (b"", b"x" * 47, content[:-1], content[:100] + content[200:], content[-48:]):
        with open(prefix + ".index", "wb") as stream:
            stream.write(damaged)
        with pytest.raises(UserError, match="not a whole checkpoint"):
            check_index(prefix)
    with open(prefix + ".index", "wb") as stream:
        stream.truncate(1 << 30)  # sparse
    with pytest.raises(UserError, match="an index of 1,073,741,824 bytes"):
        check_index(prefix)
    with pytest.raises(UserError, match="none.index: No such file"):
        check_index(str(tmp_path / "none"))
