"""TensorBoard's event file: TensorBoard reads what is written, and a full disk stops nothing."""

import io
import os
import resource

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from darknet_face.runtime.session import tf
from darknet_face.training.history import HISTORY
from darknet_face.training.summaries import EventLog, batch_summary


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        tf.placeholder(tf.float32, [None], "numbers")
    return graph


def test_tensorboard_reads_the_log(graph, tmp_path):
    folder = str(tmp_path / "logs")
    row = dict.fromkeys(HISTORY.columns, 0.5)
    truth, probabilities = np.array([0, 1, 0, 1]), np.array([0.9, 0.2, 0.6, 0.7])
    images = np.zeros((2, 32, 32, 3), np.uint8)
    with EventLog(folder, graph, 0) as log:
        log.add(batch_summary(images, [0, 1]), 0)
        log.add(tf.Summary(value=[tf.Summary.Value(tag="train/loss", simple_value=2.0)])
                .SerializeToString(), 3)
        log.add_validation(row, {"val": (truth, probabilities)}, 4)
    found = EventAccumulator(folder).Reload()
    assert [(each.step, each.value) for each in found.Scalars("train/loss")] == [(3, 2.0)]
    assert found.Scalars("disturbed/roc_auc")[0].value == 0.5
    assert len(found.Images("augmented_batch")) == 1
    assert "val/precision_recall/pr_curves" in found.Tags()["tensors"]
    assert [node.name for node in found.Graph().node] == ["numbers"]


def test_the_batch_is_an_image():
    images = np.random.RandomState(0).randint(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    (value,) = batch_summary(images, [0, 0, 0, 1, 1, 1]).value
    sheet = Image.open(io.BytesIO(value.image.encoded_image_string))
    assert sheet.size == (value.image.width, value.image.height)
    assert value.tag == "augmented_batch"


def test_a_full_disk_ends_the_log_alone(graph, tmp_path, capsys):
    """A writer that raised when it is closed hid the error of the checkpoint."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with EventLog(str(tmp_path), graph, 0) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
        try:
            for step in range(100):
                log.add(tf.Summary(value=[tf.Summary.Value(tag="x" * 1000)]), step)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (name,) = os.listdir(str(tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line and "File too large" in line and "goes on without it" in line
