"""The .npz: half precision, metadata, and hostile archives."""

import io
import json
import zipfile

import numpy as np
import pytest
from test_weights import altered

from darknet_face.console import UserError
from darknet_face.weights import npz


def test_half_precision(tiny_model, tmp_path):
    path = str(tmp_path / "half.npz")
    npz.write_npz(path, tiny_model.weights, np.float16)
    read, _ = npz.read_npz(path)
    assert read["conv_9/kernel"].dtype == np.float32
    np.testing.assert_allclose(read["conv_9/kernel"], tiny_model.weights["conv_9/kernel"],
                               atol=2e-3)


def test_numbers_too_large_for_half_precision(tiny_model, tmp_path):
    path = tmp_path / "half.npz"
    path.write_bytes(b"older")
    large = altered(tiny_model, conv_2__variance=np.full(8, 7e4, np.float32))
    with pytest.raises(UserError, match="conv_2/variance has numbers .* too large for float16"):
        npz.write_npz(str(path), large, np.float16)
    assert path.read_bytes() == b"older"


def npy_header(shape, kind="<f4"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("content, cause", [
    (npy_header((1 << 40,)), "claims 4,398,046,511,104 bytes"),
    (npy_header((1 << 40,)) + b"\0" * 100, "claims"),
    (npy_header((0,)) + b"", "expected float .2., found float32 .0."),
    (npy_header((2,), "|O") + b"\x80\x03K\x01.", "expected float .2., found object .2."),
    (npy_header((2,), ">f4") + b"\0" * 8, "expected float .2., found >f4"),
    (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "format 2.0"),
    (b"\x93NUMPY\x01\x00\x10\x00{'descr': __impo", "not a whole"),
    (b"rubbish", "not a whole"),
])
def test_hostile_npz(tiny_model, tmp_path, content, cause):
    """What an array claims to be is compared with what there is before memory is taken for it."""
    path = str(tmp_path / "hostile.npz")
    npz.write_npz(path, altered(tiny_model, conv_18__bias=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("conv_18/bias.npy", content)
    with pytest.raises(UserError, match=cause):
        npz.read_npz(path)


def test_metadata_travel_inside(tiny_model, tmp_path):
    path = str(tmp_path / "w.npz")
    weights = tiny_model.weights
    npz.write_npz(path, weights, metadata={"image_size": 64, "class_names": ["ü", "b"]})
    with np.load(path, allow_pickle=False) as archive:
        assert archive.files == list(weights) + ["metadata"]
        assert json.loads(archive["metadata"].tobytes().decode()) == {
            "image_size": 64, "class_names": ["ü", "b"]}
    assert npz.read_npz(path)[1]["image_size"] == 64
    npz.write_npz(path, weights)
    assert npz.read_npz(path)[1] == {}


@pytest.mark.parametrize("array, cause", [
    (np.zeros(1 << 17, np.uint8), "no text of at most 65,536 bytes"),
    (np.zeros((2, 2), np.uint8), "no text"), (np.zeros(2, np.float32), "no text"),
    (np.frombuffer(b"[1]", np.uint8), "no JSON object"),
    (np.frombuffer(b"{", np.uint8), "not a whole"), (np.frombuffer(b"\xff", np.uint8), "not a"),
    (np.frombuffer(b"[" * 60000, np.uint8), "not a whole"),
    (np.array(["{}"], object), "no text"),
])
def test_metadata_that_are_none(tmp_path, array, cause):
    path = str(tmp_path / "w.npz")
    np.savez(path, metadata=array)
    with pytest.raises(UserError, match="w.npz: .*" + cause):
        npz.read_npz(path)


@pytest.mark.parametrize("target", ["/dev/null", "."])
def test_only_a_regular_file_is_opened(tmp_path, target):
    """A device may never end, and a pipe may wait for ever."""
    path = tmp_path / "weights.npz"
    path.symlink_to(target)
    with pytest.raises(UserError, match="weights.npz: not a regular file"):
        npz.read_npz(str(path))
