"""train.py --width and --teacher: a narrow network is trained, frozen, extracted and read again."""

import os
import shutil

import numpy as np
import pytest

import extract_weights
import train
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.images.file_lists import load_split
from darknet_face.images.reader import read_batches
from darknet_face.runtime.session import tf
from darknet_face.weights import frozen_graph
from darknet_face.weights.arrays import width_of
from darknet_face.weights.checkpoints import newest_checkpoint
from darknet_face.weights.model_file import read_model

NARROW = ("--width", "0.0625", "--image-size", "32", "--batch-size", "8", "--threads", "1",
          "--workers", "0")


def run(run_script, data, work, *options):
    return run_script(train, "--data-dir", data, "--model-dir", os.path.join(work, "model"),
                      "--log-dir", os.path.join(work, "logs"), *(NARROW + options))


def variables(work):
    reader = tf.train.NewCheckpointReader(
        newest_checkpoint(os.path.join(work, "model", "checkpoints")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.fixture(scope="module")
def narrow(few, tmp_path_factory):
    """An epoch of a sixteenth of the filters."""
    work = str(tmp_path_factory.mktemp("narrow"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", "--data-dir", few, "--epochs", "1", "--model-dir",
                                   os.path.join(work, "model"), "--log-dir",
                                   os.path.join(work, "logs"), *NARROW])
        train.main()
    return work


def test_every_reader_knows_the_width(run_script, few, narrow):
    model = os.path.join(narrow, "model")
    assert run_script(extract_weights, "--data-dir", few, "--model-dir", model).code == 0
    _, images, _ = next(read_batches(load_split(few, "test").paths, 16, 32))
    expected = frozen_graph.load(
        read_model(os.path.join(model, "darknet19_frozen.pb")))(images)
    for name in ("darknet19_weights.npz", "darknet19_frozen.pb", "best"):
        weights = read_model(os.path.join(model, name)).weights
        assert width_of(weights) == 0.0625 and weights["conv_17/kernel"].shape[-1] == 64
        np.testing.assert_allclose(
            classifier_from_weights(weights, 32)(images), expected, atol=1e-5)


def test_a_run_of_another_width_does_not_resume_or_start_there(run_script, few, narrow, tmp_path):
    outcome = run(run_script, few, narrow, "--epochs", "2", "--width", "0.125")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert "made with width 0.0625, not 0.125" in outcome.err
    outcome = run(run_script, few, str(tmp_path), "--width", "0.125", "--init-from",
                  os.path.join(narrow, "model", "best"))
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert "use --width 0.0625" in outcome.err and "--teacher" in outcome.err
    assert run(run_script, few, str(tmp_path), "--width", "0.3").code == 2


def test_a_training_with_a_teacher_resumes_to_the_bit(run_script, few, narrow, tmp_path):
    teacher = ("--teacher", os.path.join(narrow, "model", "best"), "--save-every", "3")
    whole, parts, alone = (str(tmp_path / name) for name in ("whole", "parts", "alone"))
    assert run(run_script, few, whole, "--epochs", "2", *teacher).code == 0
    shutil.copytree(whole, parts)
    for ending in (".index", ".data-00000-of-00001"):  # as a kill in epoch 2 leaves it
        os.remove(os.path.join(parts, "model", "checkpoints", "model-8" + ending))
    outcome = run(run_script, few, parts, "--epochs", "2", *teacher)
    assert outcome.code == 0 and "resuming at step 6" in outcome.out
    expected, found = variables(whole), variables(parts)
    assert set(found) == set(expected) and not any("teacher" in name for name in found)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert run(run_script, few, alone, "--epochs", "2").code == 0
    assert not np.array_equal(variables(alone)["conv_0/kernel"], expected["conv_0/kernel"])
    outcome = run(run_script, few, whole, "--epochs", "3")
    assert outcome.code == 2 and "made with teacher" in outcome.err
