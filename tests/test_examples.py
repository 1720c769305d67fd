"""The example of a consumer, against the network that the weights come from."""

import importlib.util
import os
import pathlib
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from darknet19 import build
from model.handoff import write_handoff
from model.weights import assign
from pictures.lists import load_split
from pictures.reader import read_batches
from runtime.session import tf

PATH = os.path.join(ROOT, "examples", "yolov2_backbone.py")


@pytest.fixture(scope="module")
def handoff(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("handoff")
    write_handoff(tiny_model.weights, str(folder / "conv_weights.pickle"),
                  str(folder / "bn_weights.pickle"))
    return str(folder)


def run(*arguments):
    return subprocess.run([sys.executable, PATH] + list(arguments), capture_output=True, text=True)


def test_runs_and_trains_its_head(handoff):
    outcome = run("--data-dir", handoff, "--image-size", "64")
    assert outcome.returncode == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    assert lines[0] == "18 of 18 trunk kernels equal those in the files"
    norms = {line.split()[0]: float(line.split()[-1]) for line in lines[1:]}
    assert len(norms) == 14 and all(name.startswith("head_") for name in norms)
    assert all(np.isfinite(norm) and norm > 0 for norm in norms.values())


def test_backbone_is_the_network(tiny_model, handoff, sample_dir):
    """Pass-through and trunk equal darknet19.py's; the output has 6 numbers an anchor."""
    spec = importlib.util.spec_from_file_location("yolov2_backbone", PATH)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    contents = [example.load(pathlib.Path(handoff, name))
                for name in ("conv_weights.pickle", "bn_weights.pickle")]
    _, pictures, _ = next(read_batches(load_split(sample_dir, "test").paths[:2], 2, 64))
    images = pictures / np.float32(255)
    with tf.Graph().as_default(), tf.Session() as session:
        theirs = example.backbone(tf.constant(images), *contents)
        session.run(tf.global_variables_initializer())
        theirs = session.run(theirs)
    with tf.Graph().as_default(), tf.Session() as session:
        _, ends = build(tf.constant(images))
        assign(session, tiny_model.weights)
        ours = session.run([ends["pass_through"], ends["trunk"]])
    assert [each.shape for each in theirs] == [(2, 4, 4, 512), (2, 2, 2, 1024)]
    for theirs_, ours_ in zip(theirs, ours):
        np.testing.assert_allclose(theirs_, ours_, atol=1e-4 * np.abs(ours_).max(), rtol=0)
    with tf.Graph().as_default():
        assert example.detector(tf.zeros([2, 64, 64, 3]), *contents).shape == (2, 2, 2, 30)


def test_bad_pickles(tmp_path):
    # without the instructions that memoize, which are refused before it
    content = pickletools.optimize(pickle.dumps(os.getcwd, 2))
    (tmp_path / "conv_weights.pickle").write_bytes(content)
    outcome = run("--data-dir", str(tmp_path))
    assert outcome.returncode == 2
    assert outcome.stderr.splitlines()[-1].startswith("error: ")
    assert "it asks for posix.getcwd" in outcome.stderr and "Traceback" not in outcome.stderr


@pytest.mark.parametrize("size", ["0", "-64", "32", "100", "4096"])
def test_sizes_that_it_does_not_take(handoff, size):
    outcome = run("--data-dir", handoff, "--image-size", size)
    assert outcome.returncode == 2 and "--image-size: invalid choice: " + size in outcome.stderr


def test_a_key_that_takes_for_ever_to_hash(tmp_path):
    """Sixty tuples, each of which holds the one before it twice."""
    key = ()
    for _ in range(60):
        key = (key, key)
    content = b"\x80\x02}" + pickle.dumps(key, 2)[2:-1] + b"K\x01s."  # {key: 1}
    (tmp_path / "conv_weights.pickle").write_bytes(content)
    outcome = run("--data-dir", str(tmp_path))
    assert outcome.returncode == 2 and "it has the instruction BINPUT" in outcome.stderr


def test_fits_on_a_page():
    with open(PATH) as stream:
        assert len(stream.readlines()) <= 90
