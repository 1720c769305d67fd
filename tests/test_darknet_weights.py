"""darknet's weights, against a writer of their own that knows the format from its description."""

import os
import struct

import numpy as np
import pytest
from test_darknet_cfg import PUBLIC_CFG, TABLE

from darknet_face.console import UserError
from darknet_face.weights import darknet_cfg, darknet_weights
from darknet_face.weights.arrays import weight_shapes
from darknet_face.weights.model_file import read_model

CLASSIC_HEADER = struct.pack("<iiii", 0, 1, 0, 32013312)  # as the public darknet19.weights has it


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
    struct.pack("<iiiq", 0, 1, 0, 1 << 34), struct.pack("<iiii", 0, 2, 0, 32013312),  # 4 bytes off
    CLASSIC_HEADER, struct.pack("<iiiq", 0, 2, 0, 1), struct.pack("<iiiq", 1, 0, 5, 1 << 40)])
def test_reads_what_the_format_says(tmp_path, header):
    path = str(tmp_path / "darknet19.weights")
    arrays = write_public_weights(path, 2, header=header)
    weights, _ = darknet_weights.read_network(path)
    parts = ("beta", "gamma", "mean", "variance", "kernel")
    assert list(weights) == ["conv_{}/{}".format(k, part) for k in (0, 1) for part in parts]
    for stored, (name, array) in zip(arrays, weights.items()):
        if name.endswith("kernel"):
            stored = np.moveaxis(stored, [0, 1], [3, 2])
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, stored)


@pytest.mark.parametrize("header, cut", [(CLASSIC_HEADER, -4),
                                         (struct.pack("<iiiq", 0, 2, 0, 1), 4)])
def test_four_bytes_too_many_or_too_few_are_no_other_header(tmp_path, header, cut):
    """Read by the other header, every weight would be its neighbour."""
    path = str(tmp_path / "darknet19.weights")
    write_public_weights(path, 2, header=header)
    with open(path, "ab") as stream:
        stream.write(b"\0" * 4)
    os.truncate(path, size_of(path) - 4 - cut)
    with pytest.raises(UserError, match="truncated"):
        darknet_weights.read_network(path)


@pytest.mark.parametrize("width", [1 / 16, 0.25])
def test_a_narrow_network(tmp_path, width):
    """The .cfg tells its width."""
    rng = np.random.RandomState(0)
    weights = {name: rng.uniform(0.5, 1, shape).astype(np.float32)
               for name, shape in weight_shapes(width).items()}
    paths = [str(tmp_path / name) for name in ("FACE.CFG", "FACE.WEIGHTS")]
    darknet_weights.write_network(paths[0], paths[1], weights, 96)
    model = read_model(paths[1])
    assert (model.width, model.image_size) == (width, 96)
    np.testing.assert_array_equal(model.weights["conv_18/kernel"], weights["conv_18/kernel"])


def test_the_last_layer_and_its_classes(tmp_path):
    path = str(tmp_path / "darknet19.weights")
    arrays = write_public_weights(path, classes=7)
    for cfg_classes in (None, 7):
        if cfg_classes:
            (tmp_path / "darknet19.cfg").write_text(PUBLIC_CFG.replace("1000", "7"))
        weights, _ = darknet_weights.read_network(path)
        assert set(weights) == set(weight_shapes())
        np.testing.assert_array_equal(weights["conv_18/bias"], arrays[-2])
        np.testing.assert_array_equal(weights["conv_18/kernel"][0, 0].T, arrays[-1][..., 0, 0])
    (tmp_path / "darknet19.cfg").write_text(PUBLIC_CFG)
    with pytest.raises(UserError, match="conv_18 kernel at offset .* truncated"):
        darknet_weights.read_network(path)


@pytest.fixture(scope="module")
def whole():
    """Weights of the whole network: without a .cfg a file is read as no other."""
    rng = np.random.RandomState(0)
    return {name: rng.uniform(0.5, 1, shape).astype(np.float32)
            for name, shape in weight_shapes().items()}


def test_round_trip_to_the_bit(whole, tmp_path):
    path = str(tmp_path / "face.weights")
    weights = dict(whole)
    odd = weights["conv_3/kernel"] = weights["conv_3/kernel"].copy()
    odd.ravel()[:4] = [-0.0, 1e-45, np.finfo(np.float32).max, np.float32(1 / 3)]
    darknet_weights.write_weights(path, weights)
    darknet_cfg.write_cfg(str(tmp_path / "face.cfg"), 32)
    read, _ = darknet_weights.read_network(path)
    assert set(read) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name].view(np.uint32), array.view(np.uint32))
    with open(path, "rb") as stream:
        assert stream.read(20) == struct.pack("<iiiq", 0, 2, 0, 0)
        np.testing.assert_array_equal(
            np.frombuffer(stream.read(4 * 32), "<f4"), weights["conv_0/beta"])


def test_raised_variances_come_back(whole, tmp_path):
    """But for the rounding of the raised number, of 9e-6 at the least."""
    weights = dict(whole)
    weights["conv_1/variance"] = np.float32(2.0 ** np.arange(-30, 34))
    weights["conv_0/variance"] = np.float32([0, -0.0, 1e-45, 1e-38] + [1] * 28)
    paths = [str(tmp_path / name) for name in ("face.cfg", "face.weights")]
    darknet_weights.write_network(paths[0], paths[1], weights, 32)
    read, _ = darknet_weights.read_network(paths[1])
    for name, array in weights.items():
        if name.endswith("variance"):
            rounding = np.spacing(array + np.float32(9e-6))
            assert (np.abs(read[name] - array) <= rounding).all(), name
            assert read[name].min() >= 0
        else:
            assert read[name].tobytes() == array.tobytes(), name

    os.rename(paths[0], str(tmp_path / "elsewhere.cfg"))  # without it: the numbers of the file
    raised, _ = darknet_weights.read_network(paths[1])
    np.testing.assert_allclose(raised["conv_4/variance"] - weights["conv_4/variance"].astype(float),
                               9e-6, rtol=1e-3, atol=1e-6)
    assert (raised["conv_0/variance"][:4] == np.float32(9e-6)).all()
    plain = str(tmp_path / "plain.cfg")
    darknet_cfg.write_cfg(plain, 32)
    unchanged, _ = darknet_weights.read_network(paths[1], plain)
    np.testing.assert_array_equal(unchanged["conv_1/variance"], raised["conv_1/variance"])


@pytest.mark.parametrize("cut, layer, offset", [
    (16 + 4 * 100, "conv_0 variance", 16 + 4 * 96),
    (16 + 4 * (4 * 32 + 3 * 9 * 32) + 2, "conv_1 beta", 16 + 4 * (4 * 32 + 3 * 9 * 32)),
    (16 + 4 * (4 * 32 + 3 * 9 * 32 + 4 * 64) + 8, "conv_1 kernel",
     16 + 4 * (4 * 32 + 3 * 9 * 32 + 4 * 64)),
])
def test_truncated_in_a_layer(small, cut, layer, offset):
    os.truncate(small, cut)
    with pytest.raises(UserError, match="{} at offset {:,}: .*truncated".format(layer, offset)):
        darknet_weights.read_network(small)


@pytest.mark.parametrize("length", [0, 11, 15, 16])
def test_no_more_than_a_header(small, length):
    os.truncate(small, length)
    with pytest.raises(UserError, match="truncated"):
        darknet_weights.read_network(small)


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
        darknet_weights.read_network(small)


def test_too_long(tmp_path):
    path = str(tmp_path / "darknet19.weights")
    write_public_weights(path)
    (tmp_path / "darknet19.cfg").write_text(PUBLIC_CFG)
    assert len(darknet_weights.read_network(path)[0]["conv_18/bias"]) == 1000
    size = size_of(path)
    with open(path, "ab") as stream:
        stream.write(b"\0" * 12)
    with pytest.raises(UserError, match="12 bytes too many after conv_18, from offset {:,}".format(
            size)):
        darknet_weights.read_network(path)
    os.remove(str(tmp_path / "darknet19.cfg"))
    with pytest.raises(UserError, match="conv_18 at offset .* no multiple of 4,100"):
        darknet_weights.read_network(path)
    os.truncate(path, size + 4100 * (1 << 28))  # sparse: reading it all would take a terabyte
    with pytest.raises(UserError, match="conv_18 at offset .* more than 100,000 classes"):
        darknet_weights.read_network(path)


def test_what_is_no_weights_file(tmp_path):
    path = tmp_path / "x.weights"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 100)
    with pytest.raises(UserError, match="no version of darknet's"):
        darknet_weights.read_network(str(path))
    with pytest.raises(UserError, match="not a regular file"):
        darknet_weights.read_network(str(tmp_path))
    with pytest.raises(UserError, match="No such file"):
        darknet_weights.read_network(str(tmp_path / "missing.weights"))
    os.mkfifo(str(tmp_path / "pipe.weights"))
    with pytest.raises(UserError, match="not a regular file"):
        darknet_weights.read_network(str(tmp_path / "pipe.weights"))


def test_names():
    for name in ("darknet19.weights", "a/b.weights", "darknet19.backup", "darknet19_448.conv.23",
                 "x.conv.18", "X.WEIGHTS"):
        assert darknet_weights.is_darknet_file(name)
    for name in ("model.npz", "model-2800", "frozen.pb", "weights", "x.conv", "conv.1.npz"):
        assert not darknet_weights.is_darknet_file(name)
