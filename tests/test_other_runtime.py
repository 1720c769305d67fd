"""The two runtimes agree: each reads what the other writes, and both give the same answers.

These tests run only where the other runtime's environment stands beside this one: in the Makefile's
place for it, or at the interpreter that the variable OTHER_PYTHON names. The network is narrow.
"""

import json
import os
import pickle
import subprocess

import numpy as np
import pytest
from conftest import ROOT, WIDTH

import test as test_script
import train
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.images.file_lists import load_split
from darknet_face.images.reader import read_batches
from darknet_face.runtime.session import is_tf2, new_session, tf
from darknet_face.weights.model_file import read_model

OTHER = os.environ.get("OTHER_PYTHON") or os.path.join(
    ROOT, ".venv-tf1" if is_tf2() else ".venv-tf2", "bin", "python")
TINY = ("--image-size", "32", "--batch-size", "8", "--threads", "1", "--workers", "1",
        "--width", str(WIDTH))
FORMS = ("darknet19_frozen.pb", "checkpoints", "exports/darknet19_face_savedmodel",
         "exports/darknet19_face.weights", "darknet19_weights.npz")

pytestmark = pytest.mark.skipif(not os.path.exists(OTHER), reason="the other runtime is not here")


# Runs scripts one after the other: TensorFlow is imported once.
PROGRAM = """
import json, runpy, sys
for argv in json.loads(sys.argv[1]):
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")
"""


def run_other(*commands):
    argvs = [[os.path.join(ROOT, script), *arguments] for script, *arguments in commands]
    ended = subprocess.run([OTHER, "-c", PROGRAM, json.dumps(argvs)], cwd=ROOT,
                           capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr, "it complains: {}".format(ended.stderr)
    return ended.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory, few, tiny_model):
    """A model folder that the other runtime wrote: an epoch of training and every export of it."""
    folder = str(tmp_path_factory.mktemp("written"))
    exports = [["export.py", kind, "--model-dir", folder, "--image-size", "32", "--out",
                folder + "/exports"] for kind in ("savedmodel", "darknet")]
    run_other(["train.py", "--data-dir", few, "--model-dir", folder, "--log-dir",
               folder + "/logs", "--epochs", "1", *TINY],
              ["extract_weights.py", "--model-dir", folder, "--data-dir", folder],
              ["test.py", "--model-dir", folder, "--data-dir", few], *exports)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_weights_loads_in_the_other_runtime(written, form):
    expected = np.load(os.path.join(written, "darknet19_weights.npz"))
    found = read_model(os.path.join(written, form)).weights
    assert set(expected.files) == set(found) | {"metadata"}
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("name", ["conv_weights.pickle", "bn_weights.pickle"])
def test_plain_pickle_reads_the_hand_off(written, name):
    """Under any NumPy: the detector's may be an old one, which knows no ``numpy._core``."""
    expected = np.load(os.path.join(written, "darknet19_weights.npz"))
    with open(os.path.join(written, name), "rb") as stream:
        content = stream.read()
    assert b"numpy._core" not in content
    for layer, stored in pickle.loads(content).items():
        parts = stored if isinstance(stored, dict) else {"kernel": stored}
        for part, array in parts.items():
            np.testing.assert_array_equal(array, expected["{}/{}".format(layer, part)])


def test_the_frozen_graph_gives_the_same_metrics(written, few, run_script, tmp_path):
    path = str(tmp_path / "metrics.json")
    outcome = run_script(test_script, "--model-dir", written, "--data-dir", few, "--json", path)
    assert (outcome.code, outcome.err) == (0, "")
    metrics = []
    for name in (path, os.path.join(written, "test_metrics.json")):
        with open(name) as stream:
            metrics.append(json.load(stream))
    for name in ("accuracy", "roc_auc", "log_loss", "average_precision"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], abs=1e-5)


def test_the_saved_model_gives_the_same_answers(written, few):
    _, pictures, _ = next(read_batches(load_split(few, "test").paths, 8, 32))
    weights = read_model(os.path.join(written, "darknet19_weights.npz")).weights
    with tf.Graph().as_default(), new_session() as session:
        model = tf.saved_model.load(session, ["serve"], os.path.join(
            written, "exports", "darknet19_face_savedmodel", "1"))
        signature = model.signature_def["tensor"]
        (feed,) = signature.inputs.values()
        found = session.run(signature.outputs["probabilities"].name,
                            {feed.name: pictures / np.float32(255)})
    expected = classifier_from_weights(weights, 32)(pictures)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_training_begun_under_the_other_runtime_goes_on_here(written, few, run_script):
    """And then there again: each takes the other's step, weights and moments of Adam."""
    options = ("--data-dir", few, "--model-dir", written, "--log-dir", written + "/logs") + TINY
    outcome = run_script(train, "--epochs", 2, *options)
    assert outcome.code == 0 and "resuming at step 4 (epoch 2)" in outcome.out, outcome.err
    assert "resuming at step 8 (epoch 3)" in run_other(
        ["train.py", "--epochs", "3", *options])
