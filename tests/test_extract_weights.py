"""extract_weights.py: the same files out of whatever holds the weights."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, WIDTH

import export
import extract_weights
import inference
import mine_negatives
import train
from darknet_face.weights import darknet_cfg, darknet_weights
from darknet_face.weights.model_file import choose_model, read_model

FILES = ("darknet19_weights.npz", "conv_weights.pickle", "bn_weights.pickle")


@pytest.fixture(scope="module")
def darknet(tiny_model, tmp_path_factory):
    """The tiny model's weights in darknet's format."""
    path = str(tmp_path_factory.mktemp("darknet") / "face.weights")
    darknet_weights.write_weights(path, tiny_model.weights)
    darknet_cfg.write_cfg(path[:-len("weights")] + "cfg", 32, width=WIDTH)
    return path


@pytest.fixture
def extract(run_script, tmp_path):
    def run(*arguments):
        return run_script(extract_weights, "--model-dir", tmp_path, "--data-dir", tmp_path,
                          *arguments)
    return run


@pytest.mark.parametrize("form", ["npz", "pb", "darknet"])
def test_the_same_files_from_every_form(tiny_model, darknet, extract, tmp_path, form):
    """test_weights.py reads the other forms by the same function."""
    sources = {"npz": tiny_model.npz, "pb": tiny_model.pb, "darknet": darknet}
    outcome = extract("--from", sources[form])
    assert outcome.code == 0 and "92 arrays, {:,} numbers".format(
        sum(array.size for array in tiny_model.weights.values())) in outcome.out
    read = read_model(str(tmp_path / "darknet19_weights.npz")).weights
    for name, array in tiny_model.weights.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)
    with open(str(tmp_path / "bn_weights.pickle"), "rb") as stream:
        norms = pickle.load(stream)
    np.testing.assert_array_equal(
        norms["conv_17"]["variance"], tiny_model.weights["conv_17/variance"])


def test_the_frozen_graph_is_the_default(tiny_model, run_script, tmp_path):
    os.link(tiny_model.pb, str(tmp_path / "darknet19_frozen.pb"))
    outcome = run_script(extract_weights, "--model-dir", tmp_path, "--data-dir", tmp_path)
    assert outcome.code == 0 and outcome.out.startswith(str(tmp_path / "darknet19_frozen.pb"))
    outcome = run_script(extract_weights, "--model-dir", tmp_path / "none")
    assert outcome.code == 2 and "run train.py, or name weights by --weights" in outcome.err
    assert sorted(os.listdir(str(tmp_path))) == sorted(FILES + ("darknet19_frozen.pb",))


@pytest.mark.parametrize("form", ["pb", "npz"])
def test_the_input_size_travels_along(tiny_model, extract, tmp_path, form):
    """Into the .npz, and from there into another, without any .json beside them."""
    lone = str(tmp_path / "lone.pb")
    os.link(tiny_model.pb, lone)
    assert extract("--from", lone).code == 0
    path = str(tmp_path / FILES[0])
    if form == "npz":
        os.rename(path, str(tmp_path / "other.npz"))
        assert extract("--from", tmp_path / "other.npz").code == 0
    assert read_model(path).metadata == {"image_size": 32}
    model = choose_model(str(tmp_path / "none"), path)
    assert (model.path, model.image_size) == (path, 32)


def test_float16_halves_the_file(tiny_model, extract, tmp_path):
    assert extract("--from", tiny_model.npz, "--float16").code == 0
    path = str(tmp_path / "darknet19_weights.npz")
    assert os.path.getsize(path) < 0.6 * os.path.getsize(tiny_model.npz)
    for name, array in read_model(path).weights.items():
        assert array.dtype == np.float32
        # Half precision has 11 significant bits, and 2^-24 below its normal range.
        np.testing.assert_allclose(array, tiny_model.weights[name], 2**-11, 2**-25, err_msg=name)


def test_nothing_is_replaced_before_all_is_written(tiny_model, extract, tmp_path):
    """New weights beside pickles of older ones would be another network's backbone."""
    for name in FILES[:2]:
        (tmp_path / name).write_bytes(b"older")
    (tmp_path / FILES[2]).mkdir()
    outcome = extract("--from", tiny_model.npz)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert outcome.err.startswith("error: {}: Is a directory".format(tmp_path / FILES[2]))
    assert all((tmp_path / name).read_bytes() == b"older" for name in FILES[:2])
    assert sorted(os.listdir(str(tmp_path))) == sorted(FILES)


def test_cfg_decides(darknet, extract, tmp_path):
    """A .weights file under another name, with the .cfg that describes it and with another."""
    path = str(tmp_path / "backup")
    os.link(darknet, path)
    cfg = str(tmp_path / "other.cfg")
    darknet_cfg.write_cfg(cfg, 32, 2, width=WIDTH)
    assert extract("--from", path, "--cfg", cfg).code == 0
    os.remove(str(tmp_path / FILES[0]))
    darknet_cfg.write_cfg(cfg, 32, 3, width=WIDTH)
    outcome = extract("--from", path, "--cfg", cfg)
    assert outcome.code == 2 and "conv_18" in outcome.err and "truncated" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not os.path.exists(str(tmp_path / FILES[0]))


def test_bad_input_in_one_line(extract, tmp_path):
    (tmp_path / "short.weights").write_bytes(b"\0" * 40)
    outcome = extract("--from", tmp_path / "short.weights")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "conv_0 beta at offset 16" in outcome.err
    outcome = subprocess.run(
        [sys.executable, os.path.join(ROOT, "extract_weights.py"), "--from", "none"],
        capture_output=True, text=True, cwd=str(tmp_path))
    assert outcome.returncode == 2 and outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("error: none: no checkpoint there")
    assert os.listdir(str(tmp_path)) == ["short.weights"]


def test_a_name_of_a_dataset_is_no_path(extract):
    outcome = extract("--sources", "../../etc")
    assert outcome.code == 2 and "a name has letters, digits" in outcome.err


@pytest.mark.parametrize("size", ["100", "0", "8192", "x"])
@pytest.mark.parametrize("module", [export, inference, mine_negatives, train])
def test_an_input_size_is_a_multiple_of_32(run_script, module, size):
    command = ["onnx"] if module is export else []
    outcome = run_script(module, *command, "--image-size", size)
    assert outcome.code == 2 and "argument --image-size: " in outcome.err
