"""The pickles of the YOLOv2 hand-off: plain to any reader, and read without running anything."""

import os
import pickle

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.weights import handoff


def test_handoff(tiny_model, tmp_path):
    paths = [str(tmp_path / name) for name in ("conv.pickle", "bn.pickle")]
    handoff.write_handoff(tiny_model.weights, *paths)
    with open(paths[0], "rb") as stream:
        kernels = pickle.load(stream)
    with open(paths[1], "rb") as stream:
        norms = pickle.load(stream)
    assert list(kernels) == ["conv_{}".format(k) for k in range(19)]
    assert list(norms) == ["conv_{}".format(k) for k in range(18)]
    read = handoff.read_handoff(*paths)
    assert set(read) == set(tiny_model.weights) - {"conv_18/bias"}
    for name, array in read.items():
        layer, part = name.split("/")
        plain = kernels[layer] if part == "kernel" else norms[layer][part]
        assert plain.dtype == array.dtype == np.float32
        np.testing.assert_array_equal(plain, tiny_model.weights[name])
        np.testing.assert_array_equal(array, tiny_model.weights[name])


class Hostile:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("content", [
    Hostile(os.mkdir, ("made",)), Hostile(np.zeros, ((1 << 40,),)), Hostile(np.load, ("x",)), 3,
    {"conv_0": np.array([None])}, {"conv_0": "text"}, [1],
])
def test_hostile_handoff(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "conv.pickle")
    with open(path, "wb") as stream:
        pickle.dump(content, stream)
    with pytest.raises(UserError, match="not a pickle of the hand-off"):
        handoff.read_handoff(path, path)
    assert not os.path.exists("made")


def test_a_key_that_takes_for_ever_to_hash(tmp_path):
    """Sixty tuples, each of which holds the one before it twice."""
    key = ()
    for _ in range(60):
        key = (key, key)
    path = str(tmp_path / "conv.pickle")
    with open(path, "wb") as stream:
        stream.write(b"\x80\x02}" + pickle.dumps(key, 2)[2:-1] + b"K\x01s.")  # {key: 1}
    with pytest.raises(UserError, match="not a pickle of the hand-off .it asks for EMPTY_TUPLE"):
        handoff.read_handoff(path, path)


def test_arrays_are_ordinary_ones(tiny_model, tmp_path):
    paths = [str(tmp_path / name) for name in handoff.FILES]
    handoff.write_handoff(tiny_model.weights, *paths)
    with open(paths[1], "rb") as stream:
        mean = pickle.load(stream)["conv_0"]["mean"]
    assert mean.flags.writeable and mean.dtype.isnative
    with open(paths[1], "rb") as stream:
        content = stream.read()
    assert b"numpy\nndarray" in content and b"core" not in content, "any NumPy's classes"


@pytest.mark.parametrize("shape, text", [((1 << 40,), "0000"), ((2,), "0000"), ((-2,), "0000"),
                                         ((1,), "000")])
def test_arrays_that_claim_more_than_there_is(tmp_path, shape, text):
    path = str(tmp_path / "conv.pickle")
    with open(path, "wb") as stream:
        pickler = pickle.Pickler(stream, 2)
        pickler.fast = True
        pickler.dump({"conv_0": Hostile(np.ndarray, (shape, "<f4", Hostile(
            bytearray, (text, "latin-1"))))})
    with pytest.raises(UserError, match="not a pickle of the hand-off"):
        handoff.read_handoff(path, path)
