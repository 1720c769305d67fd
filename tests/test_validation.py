"""The record of the best checkpoint: kept, replaced, and refused where it is damaged."""

import json
import os

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.images.file_lists import load_split
from darknet_face.runtime.session import tf
from darknet_face.training.settings import Settings
from darknet_face.training.validation import Validator, first_images, read_best


@pytest.mark.parametrize("record", [
    "", "[]", "{}", '{"epoch": 1, "step": 4, "val_loss": "low", "checkpoint": "model-4"}',
    '{"epoch": 1, "step": 4, "val_loss": 0.5}',
    '{"epoch": 1, "step": 4, "disturbed_loss": 0.5, "checkpoint": "model-4"}',
    '{"epoch": 1, "step": 4, "val_loss": NaN, "checkpoint": "model-4"}',
    '{"epoch": 1, "step": 4, "val_loss": 1e400, "checkpoint": "model-4"}',
    '{"epoch": 1, "step": 4, "val_loss": 1' + 400 * "0" + ', "checkpoint": "model-4"}',
    '{"epoch": 1e400, "step": 4, "val_loss": 0.5, "checkpoint": "model-4"}',
    '{"epoch": 1, "step": -4, "val_loss": 0.5, "checkpoint": "model--4"}',
    '{"epoch": 1, "step": true, "val_loss": 0.5, "checkpoint": "model-True"}',
    '{"epoch": 1, "step": 4, "val_loss": 0.5, "val_accuracy": 7, "checkpoint": "model-4"}',
    '{"epoch": 1, "step": 4, "val_loss": 0.5, "checkpoint": "../model-4"}'])
def test_a_damaged_record_of_the_best_is_refused(tmp_path, record):
    assert read_best(str(tmp_path), "val_loss") is None
    whole = {"epoch": 1, "step": 4, "val_loss": 0.5, "checkpoint": "model-4"}
    (tmp_path / "best.json").write_text(json.dumps(whole))
    assert read_best(str(tmp_path), "val_loss") == whole
    (tmp_path / "best.json").write_text(record)
    with pytest.raises(UserError, match="best.json"):
        read_best(str(tmp_path), "val_loss")


def test_the_best_of_a_new_run_beside_an_old_one_stays(tmp_path):
    """As after a removal of the checkpoints alone: the new best has the lower step."""
    validator = Validator(Settings(image_size=32, model_dir=str(tmp_path)))
    with validator.classifier.session.graph.as_default():
        validator.classifier.session.run(tf.global_variables_initializer())
    for step, loss, is_best in ((8, 0.25, True), (4, 0.5, True), (6, 0.75, False)):
        assert validator.keep_if_best(
            {"epoch": 1, "step": step, "disturbed_loss": loss}) == is_best
    assert sorted(os.listdir(str(tmp_path / "best"))) == [
        "best.json", "checkpoint", "model-4.data-00000-of-00001", "model-4.index"]
    assert validator.read_best()[0]["step"] == 4
    os.remove(str(tmp_path / "best" / "best.json"))
    with pytest.raises(UserError, match="--restart"):
        validator.read_best()


def test_the_first_images_that_decode(sample_dir, tmp_path):
    good, bad = load_split(sample_dir, "val").faces[:6], str(tmp_path / "none.png")
    expected = first_images(good, 4, 32)
    assert expected.shape == (4, 32, 32, 3) and expected.dtype == np.uint8
    paths = [bad] * 9 + list(good[:1]) + [bad] * 9 + list(good[1:])
    np.testing.assert_array_equal(first_images(paths, 4, 32), expected)
    assert len(first_images(paths, 100, 32)) == 6
    with pytest.raises(UserError, match="no other of 9 images does"):
        first_images([bad] * 9, 4, 32)
