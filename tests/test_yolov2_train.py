"""The YOLOv2 example as a whole: it learns made images, resumes, freezes and detects."""

import glob
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw

from darknet_face.console import UserError
from darknet_face.detection import detect
from darknet_face.detection.datasets import read_photographs
from darknet_face.detection.evaluate import average_precision, detect_all
from darknet_face.detection.yolov2.data import DetectionBatches
from darknet_face.detection.yolov2.detector import Detector
from darknet_face.detection.yolov2.train import Options, Trainer, train
from darknet_face.engines.tensorflow_classifier import NEWER_ATTRIBUTES
from darknet_face.runtime.session import tf
from darknet_face.weights.graph_files import read_graph_def
from train_detector import WARM_UP, learning_rate

STEPS = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Eight images of noise with a disc each, the face, and their box file."""
    folder, rng, lines = tmp_path_factory.mktemp("made"), np.random.RandomState(0), []
    for number in range(8):
        image = Image.fromarray(rng.randint(0, 90, (96, 96, 3)).astype(np.uint8))
        width, height = rng.randint(30, 60, 2)
        left, top = rng.randint(0, 96 - width), rng.randint(0, 96 - height)
        ImageDraw.Draw(image).ellipse([left, top, left + width, top + height], fill=(240, 200, 170))
        image.save(str(folder / "{}.png".format(number)))
        lines += ["{}.png".format(number), "1", "{} {} {} {}".format(left, top, width, height)]
    (folder / "boxes.txt").write_text("\n".join(lines))
    photographs = read_photographs(str(folder), str(folder / "boxes.txt"))
    return str(folder), {"train": photographs, "val": photographs}


def rate(settings):
    return learning_rate(WARM_UP * settings.max_lr, settings.max_lr, settings.steps)


def options(folder, weights, **changes):
    return Options(
        weights=weights, workers=0, sizes=(96,), val_size=96,
        run_dir=os.path.join(folder, "run [1] *?\\ {x}"),  # TensorFlow takes it for a pattern
        model=os.path.join(folder, "detector.pb"), steps=STEPS, freeze_steps=STEPS - 2,
        validate_every=STEPS, batch_size=8, augment=False, max_lr=1e-3)._replace(**changes)


@pytest.fixture(scope="module")
def trained(made, slim_model, tmp_path_factory):
    settings = options(str(tmp_path_factory.mktemp("trained")), slim_model.npz)
    return settings, train(settings, made[1], rate(settings))


def test_learns_made_pictures(trained):
    _, rows = trained
    assert [row["step"] for row in rows] == [STEPS]
    assert rows[-1]["ap50"] > 0.9 and rows[-1]["ap40"] > 0.9


def test_the_frozen_graph_detects_the_same(trained, made):
    settings, rows = trained
    with Detector(settings.model, 96) as detector:
        precision = average_precision(*detect_all(detector, made[1]["val"]))
    assert precision == pytest.approx([rows[-1]["ap40"], rows[-1]["ap50"]], abs=1e-3)


def test_either_tensorflow_reads_the_frozen_graph(trained):
    nodes = read_graph_def(trained[0].model).node
    assert {"FusedBatchNormV3", "MaxPool"} <= {node.op for node in nodes}
    for operation, attribute in NEWER_ATTRIBUTES:
        assert not [node.name for node in nodes if node.op == operation and attribute in node.attr]


def test_resumes_where_it_ended(trained, made, capsys):
    settings, rows = trained
    assert train(settings, made[1], rate(settings)) == rows
    assert "resuming at step 60 of 60" in capsys.readouterr().out
    with pytest.raises(UserError, match="made with max-lr 0.001, not 0.01"):
        Trainer(settings._replace(max_lr=1e-2), made[1], rate(settings))


def test_a_kill_before_the_freezing_is_made_up_for(trained, made, tmp_path, capsys):
    settings, rows = trained
    shutil.copytree(settings.run_dir, str(tmp_path / "run"))
    again = settings._replace(run_dir=str(tmp_path / "run"), model=str(tmp_path / "later.pb"))
    assert train(again, made[1], rate(settings)) == rows
    with open(again.model, "rb") as found, open(settings.model, "rb") as expected:
        assert found.read() == expected.read()


def test_a_better_detector_is_not_replaced(trained, made, tmp_path, capsys):
    settings, _ = trained
    model = shutil.copy(settings.model, str(tmp_path / "detector.pb"))
    worse = settings._replace(run_dir=str(tmp_path / "run"), model=model, steps=1,
                              freeze_steps=1, validate_every=1)
    rows = train(worse, made[1], rate(worse))
    assert rows[-1]["ap50"] < 0.9
    with open(model, "rb") as found, open(settings.model, "rb") as expected:
        assert found.read() == expected.read()
    train(worse._replace(model=str(tmp_path / "new.pb")), made[1], rate(worse))
    assert os.path.exists(str(tmp_path / "new.pb"))  # nothing better was there


def test_a_damaged_checkpoint_is_refused(trained, made, tmp_path):
    settings, _ = trained
    shutil.copytree(settings.run_dir, str(tmp_path / "run"))
    index, = glob.glob(str(tmp_path / "run" / "checkpoints" / "*.index"))
    with open(index, "r+b") as stream:
        stream.truncate(os.path.getsize(index) - 7)
    with pytest.raises(UserError, match="not a whole checkpoint.*begin again with --restart"):
        train(settings._replace(run_dir=str(tmp_path / "run")), made[1], rate(settings))


def test_detect_writes_pictures_and_json(trained, made, run_script, tmp_path, video):
    settings, _ = trained
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    outcome = run_script(detect, made[0] + "/0.png", str(tmp_path / "bad.jpg"), video, "--model",
                         settings.model, "--image-size", "96", "--out", str(tmp_path / "found"))
    assert outcome.code == 0 and "skipped 1 bad ones" in outcome.out, outcome.err
    assert "bad.jpg: not an image in a known format; skipped" in outcome.err
    written, = glob.glob(str(tmp_path / "found" / "**" / "0.png.json"), recursive=True)
    with open(written) as stream:
        record = json.load(stream)
    assert record["width"] == record["height"] == 96 and record["faces"][0]["score"] > 0.4
    assert len(record["faces"][0]["box"]) == 4
    assert Image.open(written[:-len(".json")]).size == (96, 96)
    assert len([name for _, _, names in os.walk(str(tmp_path / "found")) for name in names
                if "film" in name]) == 6


@pytest.mark.parametrize("content", [b"", b"bad", None])
def test_detect_refuses_other_graphs(run_script, made, tmp_path, slim_model, content):
    path = slim_model.npz if content is None else str(tmp_path / "bad.pb")
    if content is not None:
        (tmp_path / "bad.pb").write_bytes(content)
    outcome = run_script(detect, made[0], "--model", path, "--out", str(tmp_path / "found"))
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and "Traceback" not in outcome.err
    assert "train_detector.py" in outcome.err
    assert not os.path.exists(str(tmp_path / "found"))


def test_detect_refuses_other_operations(run_script, made, tmp_path):
    with tf.Graph().as_default() as graph:
        tf.io.write_file("x", "y")
    (tmp_path / "write.pb").write_bytes(graph.as_graph_def().SerializeToString())
    outcome = run_script(detect, made[0], "--model", str(tmp_path / "write.pb"))
    assert outcome.code == 2 and "not a detector of" in outcome.err


def test_the_trunk_is_trained_only_once_freed(made, slim_model, tmp_path):
    trainer = Trainer(options(str(tmp_path), slim_model.npz, steps=2, freeze_steps=1,
                              validate_every=9), made[1], rate(options(str(tmp_path), None)))
    with trainer.session as session:
        trunk, head = (next(each for each in session.graph.get_collection(
            tf.GraphKeys.TRAINABLE_VARIABLES) if each.op.name == name)
            for name in ("conv_5/kernel", "head/conv_1/kernel"))
        moving = session.graph.get_tensor_by_name("head/conv_1/moving_mean:0")
        images, truth, _ = DetectionBatches(made[1]["train"], 4, (96,), augment=False).batch(0)
        values = [session.run([trunk, head, moving])]
        for step in (1, 2):
            trainer._step(step, images, truth)
            values.append(session.run([trunk, head, moving]))
    same = [[np.array_equal(*pair) for pair in zip(*states)] for states in zip(values, values[1:])]
    assert same == [[True, False, False], [False, False, False]]
