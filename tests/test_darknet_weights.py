"""darknet's files, against a writer of their own that knows the format from its description."""

import os
import struct

import numpy as np
import pytest

from model import darknet_cfg, darknet_weights
from model.weights import weight_shapes
from utils import UserError

# Kernel size, channels in and filters of each convolution: the YOLO9000 paper's Table 6.
TABLE = [(3, 3, 32), (3, 32, 64), (3, 64, 128), (1, 128, 64), (3, 64, 128), (3, 128, 256),
         (1, 256, 128), (3, 128, 256), (3, 256, 512), (1, 512, 256), (3, 256, 512), (1, 512, 256),
         (3, 256, 512), (3, 512, 1024), (1, 1024, 512), (3, 512, 1024), (1, 1024, 512),
         (3, 512, 1024)]
CLASSIC_HEADER = struct.pack("<iiii", 0, 1, 0, 32013312)  # as the public darknet19.weights has it

PUBLIC_CFG = """[net]
# Training
batch=128
subdivisions=1
height=224
width=224
channels=3
momentum=0.9
policy=poly
max_batches=800000

""" + "\n".join(
    ("[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride=1\npad=1\n"
     "activation=leaky\n").format(filters, size)
    + ("\n[maxpool]\nsize=2\nstride=2\n" if index in (0, 1, 4, 7, 12) else "")
    for index, (size, _, filters) in enumerate(TABLE)) + """
[convolutional]
filters = 1000
size=1
stride=1
pad=1
activation=linear

[avgpool]

[softmax]
groups=1

; older files end so
[cost]
type=sse
"""


def write_public_weights(path, layers=19, classes=1000, header=CLASSIC_HEADER):
    """Write random weights in darknet's format; return its arrays as darknet stores them, in
    order."""
    rng = np.random.RandomState(1)
    arrays = []
    for size, channels, filters in TABLE[:layers]:
        arrays += [rng.uniform(-0.2, 0.2, filters), rng.uniform(0.7, 1.3, filters),
                   rng.uniform(-0.2, 0.2, filters), rng.uniform(0.5, 2, filters)]
        scale = np.sqrt(2.0 / (size * size * channels))
        arrays.append(rng.randn(filters, channels, size, size) * scale)
    if layers == 19:
        arrays += [rng.uniform(-1, 1, classes), rng.randn(classes, 1024, 1, 1) / 32]
    arrays = [array.astype("<f4") for array in arrays]
    with open(path, "wb") as stream:
        stream.write(header)
        for array in arrays:
            stream.write(array.tobytes())
    return arrays


@pytest.fixture
def small(tmp_path):
    """The first two layers, cut off after them: a path of 77 kB."""
    path = str(tmp_path / "darknet19.conv.3")
    write_public_weights(path, 2)
    return path


def size_of(path):
    return os.path.getsize(path)


def test_sizes_of_the_public_files(tmp_path):
    """darknet19_448.conv.23 is a file of 79,327,120 bytes."""
    path = str(tmp_path / "darknet19_448.conv.23")
    write_public_weights(path, 18)
    assert size_of(path) == 79327120


@pytest.mark.parametrize("header", [
    CLASSIC_HEADER, struct.pack("<iiiq", 0, 2, 0, 1), struct.pack("<iiiq", 1, 0, 5, 1 << 40)])
def test_reads_what_the_format_says(tmp_path, header):
    path = str(tmp_path / "darknet19.weights")
    arrays = write_public_weights(path, 2, header=header)
    weights = darknet_weights.read_weights(path)
    parts = ("beta", "gamma", "mean", "variance", "kernel")
    assert list(weights) == ["conv_{}/{}".format(k, part) for k in (0, 1) for part in parts]
    for stored, (name, array) in zip(arrays, weights.items()):
        if name.endswith("kernel"):
            stored = np.moveaxis(stored, [0, 1], [3, 2])
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, stored)


def test_the_last_layer_and_its_classes(tmp_path):
    path = str(tmp_path / "darknet19.weights")
    arrays = write_public_weights(path, classes=7)
    for cfg_classes in (None, 7):
        if cfg_classes:
            (tmp_path / "darknet19.cfg").write_text(PUBLIC_CFG.replace("1000", "7"))
        weights = darknet_weights.read_weights(path)
        assert set(weights) == set(weight_shapes())
        np.testing.assert_array_equal(weights["conv_18/bias"], arrays[-2])
        np.testing.assert_array_equal(weights["conv_18/kernel"][0, 0].T, arrays[-1][..., 0, 0])
    (tmp_path / "darknet19.cfg").write_text(PUBLIC_CFG)
    with pytest.raises(UserError, match="conv_18 kernel at offset .* truncated"):
        darknet_weights.read_weights(path)


def test_round_trip_to_the_bit(tiny_model, tmp_path):
    path = str(tmp_path / "face.weights")
    weights = dict(tiny_model.weights)
    odd = weights["conv_3/kernel"] = weights["conv_3/kernel"].copy()
    odd.ravel()[:4] = [-0.0, 1e-45, np.finfo(np.float32).max, np.float32(1 / 3)]
    darknet_weights.write_weights(path, weights)
    darknet_cfg.write_cfg(str(tmp_path / "face.cfg"), 32)
    read = darknet_weights.read_weights(path)
    assert set(read) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name].view(np.uint32), array.view(np.uint32))
    with open(path, "rb") as stream:
        assert stream.read(20) == struct.pack("<iiiq", 0, 2, 0, 0)
        np.testing.assert_array_equal(
            np.frombuffer(stream.read(4 * 32), "<f4"), weights["conv_0/beta"])


def test_raised_variances_come_back(tiny_model, tmp_path):
    """But for the rounding of the raised number, of 9e-6 at the least."""
    weights = dict(tiny_model.weights)
    weights["conv_1/variance"] = np.float32(2.0 ** np.arange(-30, 34))
    weights["conv_0/variance"] = np.float32([0, -0.0, 1e-45, 1e-38] + [1] * 28)
    paths = [str(tmp_path / name) for name in ("face.cfg", "face.weights")]
    darknet_weights.write_network(paths[0], paths[1], weights, 32)
    read = darknet_weights.read_weights(paths[1])
    for name, array in weights.items():
        if name.endswith("variance"):
            rounding = np.spacing(array + np.float32(9e-6))
            assert (np.abs(read[name] - array) <= rounding).all(), name
            assert read[name].min() >= 0
        else:
            assert read[name].tobytes() == array.tobytes(), name

    os.rename(paths[0], str(tmp_path / "elsewhere.cfg"))  # without it: the numbers of the file
    raised = darknet_weights.read_weights(paths[1])
    np.testing.assert_allclose(raised["conv_4/variance"] - weights["conv_4/variance"].astype(float),
                               9e-6, rtol=1e-3, atol=1e-6)
    assert (raised["conv_0/variance"][:4] == np.float32(9e-6)).all()
    plain = str(tmp_path / "plain.cfg")
    darknet_cfg.write_cfg(plain, 32)
    np.testing.assert_array_equal(
        darknet_weights.read_weights(paths[1], plain)["conv_1/variance"], raised["conv_1/variance"])


@pytest.mark.parametrize("cut, layer, offset", [
    (16 + 4 * 100, "conv_0 variance", 16 + 4 * 96),
    (16 + 4 * (4 * 32 + 3 * 9 * 32) + 2, "conv_1 beta", 16 + 4 * (4 * 32 + 3 * 9 * 32)),
    (16 + 4 * (4 * 32 + 3 * 9 * 32 + 4 * 64) + 8, "conv_1 kernel",
     16 + 4 * (4 * 32 + 3 * 9 * 32 + 4 * 64)),
])
def test_truncated_in_a_layer(small, cut, layer, offset):
    os.truncate(small, cut)
    with pytest.raises(UserError, match="{} at offset {:,}: .*truncated".format(layer, offset)):
        darknet_weights.read_weights(small)


@pytest.mark.parametrize("length", [0, 11, 15, 16])
def test_no_more_than_a_header(small, length):
    os.truncate(small, length)
    with pytest.raises(UserError, match="truncated"):
        darknet_weights.read_weights(small)


@pytest.mark.parametrize("array, value, cause", [
    (3, np.nan, "conv_0 variance, element 5 at offset {} is nan"),
    (3, -0.5, "conv_0 variance, element 5 at offset {} is -0.5"),
    (9, np.inf, "conv_1 kernel, element 5 at offset {:,} is inf"),
])
def test_numbers_that_are_none(small, array, value, cause):
    before = [32, 32, 32, 32, 3 * 9 * 32, 64, 64, 64, 64]
    offset = 16 + 4 * (sum(before[:array]) + 5)
    with open(small, "r+b") as stream:
        stream.seek(offset)
        stream.write(struct.pack("<f", value))
    with pytest.raises(UserError, match=cause.format(offset)):
        darknet_weights.read_weights(small)


def test_too_long(tmp_path):
    path = str(tmp_path / "darknet19.weights")
    write_public_weights(path)
    (tmp_path / "darknet19.cfg").write_text(PUBLIC_CFG)
    assert len(darknet_weights.read_weights(path)["conv_18/bias"]) == 1000
    size = size_of(path)
    with open(path, "ab") as stream:
        stream.write(b"\0" * 12)
    with pytest.raises(UserError, match="12 bytes too many after conv_18, from offset {:,}".format(
            size)):
        darknet_weights.read_weights(path)
    os.remove(str(tmp_path / "darknet19.cfg"))
    with pytest.raises(UserError, match="conv_18 at offset .* no multiple of 4,100"):
        darknet_weights.read_weights(path)
    os.truncate(path, size + 4100 * (1 << 28))  # sparse: reading it all would take a terabyte
    with pytest.raises(UserError, match="conv_18 at offset .* more than 100,000 classes"):
        darknet_weights.read_weights(path)


def test_what_is_no_weights_file(tmp_path):
    path = tmp_path / "x.weights"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 100)
    with pytest.raises(UserError, match="no version of darknet's"):
        darknet_weights.read_weights(str(path))
    with pytest.raises(UserError, match="not a regular file"):
        darknet_weights.read_weights(str(tmp_path))
    with pytest.raises(UserError, match="No such file"):
        darknet_weights.read_weights(str(tmp_path / "missing.weights"))
    os.mkfifo(str(tmp_path / "pipe.weights"))
    with pytest.raises(UserError, match="not a regular file"):
        darknet_weights.read_weights(str(tmp_path / "pipe.weights"))


def test_cfg_as_the_public_one(tmp_path):
    path = tmp_path / "darknet19.cfg"
    path.write_text(PUBLIC_CFG)
    assert darknet_cfg.read_cfg(str(path)) == 1000
    path.write_bytes(PUBLIC_CFG.replace("\n", "\r\n").encode())
    assert darknet_cfg.read_cfg(str(path)) == 1000


def test_cfg_written_and_read(tmp_path):
    path = str(tmp_path / "own.cfg")
    darknet_cfg.write_cfg(path, 224, 5)
    assert darknet_cfg.read_cfg(path) == 5
    with open(path) as stream:
        lines = stream.read().splitlines()
    assert lines[0] == "[net]" and "height=224" in lines and "channels=3" in lines
    assert lines.count("[convolutional]") == 19 and lines.count("[maxpool]") == 5


@pytest.mark.parametrize("old, new, cause", [
    ("[avgpool]", "[region]", "unknown section '.region.'"),
    ("[avgpool]", "[route]\nlayers=-4", "unknown section"),
    ("[avgpool]", "[avgpool", "unknown section"),
    ("[avgpool]", "[maxpool]\nsize=2\nstride=2\n[avgpool]", "expected .avgpool., found .maxpool."),
    ("filters=32\n", "filters=33\n", "line 12: .*expected filters=32, found '33'"),
    ("size=3", "size=5", "expected size=3, found '5'"),
    ("stride=1", "stride=2", "expected stride=1, found '2'"),
    ("activation=leaky", "activation=relu", "expected activation=leaky"),
    ("activation=leaky\n", "", "expected activation=leaky, found none"),
    ("batch_normalize=1\n", "", "expected batch_normalize=1, found none"),
    ("activation=leaky", "activation=leaky\ngroups=2", "'groups'='2', which Darknet-19 does not"),
    ("filters = 1000", "filters=999999999", "no number of classes"),
    ("filters = 1000", "filters=-1", "no number of classes"),
    ("filters = 1000", "filters=1e3", "no number of classes"),
    ("size=1\nstride=1\npad=1\n", "", "expected pad=1, found none"),  # the others are defaults
    ("[net]", "[maxpool]", r"does not begin with \[net\]"),
    ("channels=3", "channels=1", "channels='1' is not what"),
    ("height=224", "height=-224", "height='-224' is not what"),
    ("width=224", "width=" + "9" * 5000, "width='9{40}' is not what"),
    ("filters=32\n", "filters=32\nfilters=99\n", "line 15: 'filters' again in the same section"),
    ("batch=128", "batch 128", "line 3: .* is neither"),
    ("batch=128", "\0\xff", "is neither"),
    ("[softmax]\ngroups=1", "[softmax]\ngroups=1\n[softmax]\ngroups=1", "after the end"),
])
def test_cfg_of_another_network(tmp_path, old, new, cause):
    assert old in PUBLIC_CFG
    path = tmp_path / "other.cfg"
    path.write_text(PUBLIC_CFG.replace(old, new, 1), encoding="latin-1")
    with pytest.raises(UserError, match=cause) as caught:
        darknet_cfg.read_cfg(str(path))
    assert "\n" not in str(caught.value)


def test_the_image_size_that_a_cfg_tells(tmp_path):
    path = tmp_path / "sized.cfg"
    for old, new, size in (("", "", 224), ("height=224\nwidth=224", "height=96\nwidth=96", 96),
                           ("height=224", "height=96", None), ("224", "100", None),
                           ("height=224\nwidth=224\n", "", None), ("224", "0", None)):
        path.write_text(PUBLIC_CFG.replace(old, new))
        assert darknet_cfg.read_image_size(str(path)) == size, new


def test_cfg_cut_off_or_no_text(tmp_path):
    path = tmp_path / "cut.cfg"
    path.write_text(PUBLIC_CFG[:PUBLIC_CFG.rindex("[convolutional]")])
    with pytest.raises(UserError, match="convolutions, Darknet-19 has 19"):
        darknet_cfg.read_cfg(str(path))
    path.write_text("")
    with pytest.raises(UserError, match="does not begin"):
        darknet_cfg.read_cfg(str(path))
    with open(str(path), "wb") as stream:
        stream.truncate(3 << 30)  # sparse: reading it all would take 3 GiB
    with pytest.raises(UserError, match="are no .cfg"):
        darknet_cfg.read_cfg(str(path))


def test_names():
    for name in ("darknet19.weights", "a/b.weights", "darknet19_448.conv.23", "x.conv.18"):
        assert darknet_weights.is_darknet_file(name)
    for name in ("model.npz", "model-2800", "frozen.pb", "weights", "x.conv", "conv.1.npz"):
        assert not darknet_weights.is_darknet_file(name)
