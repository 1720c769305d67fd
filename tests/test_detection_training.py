"""Training of the one-pass detector as a whole: it learns, resumes to the bit, keeps the best."""

import csv
import os
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

import train_detector
from darknet_face.console import UserError
from darknet_face.detection import detect, evaluate, trainer
from darknet_face.detection.datasets import read_photographs
from darknet_face.detection.material import Material, Validation
from darknet_face.detection.model_file import read_detector, read_spec
from darknet_face.runtime.session import tf

STEPS = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Eight images of noise with a disc each, the face, their box file, and negatives."""
    folder, rng, lines = tmp_path_factory.mktemp("made"), np.random.RandomState(0), []
    for name in ("images", "negatives"):
        (folder / name).mkdir()
    for number in range(8):
        image = Image.fromarray(rng.randint(0, 90, (96, 96, 3)).astype(np.uint8))
        image.save(str(folder / "negatives" / "{}.png".format(number)))
        left, top = rng.randint(0, 50, 2)
        ImageDraw.Draw(image).ellipse([left, top, left + 40, top + 44], fill=(240, 200, 170))
        image.save(str(folder / "images" / "{}.png".format(number)))
        lines += ["{}.png".format(number), "1", "{} {} 40 44".format(left, top)]
    (folder / "boxes.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def images(made):
    photographs = read_photographs(str(made / "images"), str(made / "boxes.txt"), "all")
    negatives = [str(made / "negatives" / "{}.png".format(number)) for number in range(8)]
    return Material([(photographs, 1.0)], [], negatives[:4]), Validation(photographs, negatives[4:])


def settings(folder, **changes):
    return trainer.Settings(**dict(dict(
        run_dir=str(folder / "run [1] *?"),  # TensorFlow takes it for a pattern
        model=str(folder / "face.npz"), width=0.05, channels=8, steps=STEPS, batch_size=2, size=64,
        image_size=96, workers=0, threads=1, average_decay=0.5, checkpoint_minutes=1e9,
        validate_minutes=1e9), **changes))


def rate(step):
    return tf.constant(2e-3)


def train(chosen, images):
    return trainer.train(chosen, *images, rate)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images):
    chosen = settings(tmp_path_factory.mktemp("trained"))
    return chosen, train(chosen, images)


def test_the_file_holds_the_best_weights_in_half_the_bytes(trained):
    chosen, rows = trained
    assert [row["step"] for row in rows] == [STEPS]
    weights, spec = read_detector(chosen.model)
    assert (spec.width, spec.channels, spec.image_size, spec.step) == (0.05, 8, 96, STEPS)
    best = read_detector(os.path.join(chosen.run_dir, "best.npz"))
    assert best[1] == spec and os.path.getsize(chosen.model) < os.path.getsize(
        os.path.join(chosen.run_dir, "best.npz"))
    for name, array in weights.items():
        np.testing.assert_allclose(array, best[0][name], rtol=1e-3, atol=1e-4)


class Killed(Exception):
    """In the place of a kill."""


def test_a_killed_training_resumes_to_the_bit(trained, images, tmp_path, monkeypatch, capsys):
    chosen = settings(tmp_path, checkpoint_minutes=0)
    step = trainer.Trainer._step

    def killed(self, *arguments):
        if self.step == 4:
            raise Killed()
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", killed)
        with pytest.raises(Killed):
            train(chosen, images)
    rows = train(chosen, images)
    assert "resuming at step 4 of 6" in capsys.readouterr().out
    found, expected = (read_detector(os.path.join(each.run_dir, "best.npz"))[0]
                       for each in (chosen, trained[0]))
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert rows[-1]["ap50"] == trained[1][-1]["ap50"]


def test_other_settings_do_not_resume_but_other_steps_do(trained, images, tmp_path):
    chosen = settings(tmp_path, steps=1)
    train(chosen, images)
    assert [row["step"] for row in train(settings(tmp_path, steps=2), images)] == [1, 2]
    with pytest.raises(UserError, match="made with width 0.05, not 0.1; use the same"):
        train(settings(tmp_path, width=0.1), images)


def fixed_measure(monkeypatch, *figures):
    left = list(figures)
    monkeypatch.setattr(trainer, "measure", lambda *_: (left.pop(0), 0.5))


def test_a_kill_before_the_release_is_made_up_for(images, tmp_path, monkeypatch):
    fixed_measure(monkeypatch, 0.5)
    chosen = settings(tmp_path, steps=2)

    def killed(*_, **__):
        raise Killed()

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_release", killed)
        with pytest.raises(Killed):
            train(chosen, images)
    assert not os.path.exists(chosen.model)
    train(chosen, images)
    assert read_spec(chosen.model).ap50 == 0.5 and read_spec(chosen.model).step == 2


def test_a_better_detector_is_never_replaced_by_a_worse_one(images, tmp_path, monkeypatch, capsys):
    fixed_measure(monkeypatch, 0.8)
    train(settings(tmp_path, run_dir=str(tmp_path / "good"), steps=1), images)
    good = read_spec(str(tmp_path / "face.npz"))
    for restart in (False, True):
        fixed_measure(monkeypatch, 0.3, 0.8)  # the new one's, then the other's on the same images
        train(settings(tmp_path, steps=1, restart=restart), images)
        assert read_spec(str(tmp_path / "face.npz")) == good
        assert "face.npz: kept, since its AP50" in capsys.readouterr().out
    fixed_measure(monkeypatch, 0.9, 0.8)
    train(settings(tmp_path, steps=1, restart=True), images)
    assert read_spec(str(tmp_path / "face.npz")).ap50 == 0.9
    fixed_measure(monkeypatch, 0.2)  # its own later weights are worse
    train(settings(tmp_path, steps=2), images)
    assert read_spec(str(tmp_path / "face.npz")).step == 1


@pytest.mark.parametrize("name, content", [
    ("face.npz", b"a photograph"), ("run [1] *?/settings.json", b'{"fontSize": 12}'),
    ("run [1] *?/history.csv", b"epoch,loss\n1,0.5\n"), ("run [1] *?/best.npz", b"notes"),
    ("run [1] *?/checkpoints/settings.json", b"{}"),
])
def test_other_files_are_kept(images, tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    for restart in (False, True):
        with pytest.raises(UserError) as caught:
            train(settings(tmp_path, restart=restart), images)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_loss_that_is_not_finite_ends_the_training(images, tmp_path):
    with pytest.raises(UserError, match="loss is not finite.*lower --max-lr") as caught:
        trainer.train(settings(tmp_path, steps=40), *images, lambda _: tf.constant(1e30))
    assert caught.value.exit_code == 1


def test_progress_is_a_line_a_minute(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "REPORT_SECONDS", 0)
    fixed_measure(monkeypatch, 0.1)
    train(settings(tmp_path, steps=2), images)
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"step 1 of 2: loss [\d.]+ .* learning rate 0.002, [\d.]+ scenes/s$", lines[0])
    assert lines[2].startswith("validation at step 2: AP50 0.100") and lines[2].endswith("(best)")


def test_training_lowers_the_loss(images, tmp_path, monkeypatch):
    fixed_measure(monkeypatch, 0.1)
    losses, step = [], trainer.Trainer._step

    def noted(self, *arguments):
        losses.append(step(self, *arguments).total)
        return trainer.pyramid.Loss(losses[-1], 0.0, 0.0, 0.0)

    monkeypatch.setattr(trainer.Trainer, "_step", noted)
    train(settings(tmp_path, steps=60, batch_size=4), images)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_the_commands(run_script, made, trained, tmp_path):
    """One command trains; the next ones measure and detect with the file that it wrote."""
    boxes = [str(made / "images"), str(made / "boxes.txt")]
    options = ["--wider-dir", "", "--also", *boxes, "--validation", *boxes, "--negatives",
               str(made / "negatives"), "--run-dir", str(tmp_path / "run"), "--model",
               str(tmp_path / "face.pb"), "--width", 0.05, "--channels", 8, "--batch-size", 2,
               "--size", 64, "--image-size", 96, "--workers", 0]
    outcome = run_script(train_detector, *options, "--steps", 2)
    assert outcome.code == 0, outcome.err
    assert "best: step 2" in outcome.out
    preview = run_script(train_detector, *options, "--preview", str(tmp_path / "scenes.png"))
    assert preview.code == 0 and Image.open(str(tmp_path / "scenes.png")).size[0] > 64
    found = run_script(detect, str(made / "images"), "--model", str(tmp_path / "face.pb"),
                       "--threshold", 0.0, "--out", str(tmp_path / "found"))
    assert found.code == 0 and "in 8 images" in found.out
    assert len(os.listdir(str(tmp_path / "found"))) == 16


@pytest.mark.parametrize("options, message", [
    (["--size", "100"], "multiples of 32"),
    (["--crops", "x", "0.1", "0.9", "0.8", "0.2"], "--crops"),
    (["--crops", "x", "a", "0", "1", "1"], "--crops"), (["--wider-dir", ""], "nothing to train on"),
    (["--head", "yolov2", "--sizes", "100"], "multiples of 32"),
    (["--head", "other"], "invalid choice"),
])
def test_bad_options(run_script, options, message):
    outcome = run_script(train_detector, *options)
    assert outcome.code == 2 and message in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize("head", ["pyramid", "yolov2"])
def test_each_head_explains_its_options(run_script, head):
    outcome = run_script(train_detector, "--head", head, "--help")
    assert outcome.code == 0 and "--max-lr" in outcome.out
    assert ("--celeba-dir" in outcome.out) == (head == "pyramid")


def test_the_learning_rate_rises_stays_and_falls():
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        value = train_detector.learning_rate(1e-5, 1e-3, 1600, 8.0)(step)
        found = [session.run(value, {step: each}) for each in (0, 50, 101, 800, 1499, 1550, 1600)]
    assert found[0] == pytest.approx(1e-5) and found[-1] == pytest.approx(1e-5)
    assert found[2] == found[3] == found[4] == np.float32(1e-3)
    assert found[0] < found[1] < found[2] and found[4] > found[5] > found[6]


def test_evaluation_by_size_and_by_image(run_script, made, trained, tmp_path):
    wider = tmp_path / "wider"
    (wider / "WIDER_val").mkdir(parents=True)
    (wider / "wider_face_split").mkdir()
    os.symlink(str(made / "images"), str(wider / "WIDER_val" / "images"))
    os.symlink(str(made / "boxes.txt"),
               str(wider / "wider_face_split" / "wider_face_val_bbx_gt.txt"))
    outcome = run_script(evaluate, trained[0].model, "--wider-dir", str(wider), "--negatives",
                         str(made / "negatives"), "--plot", str(tmp_path / "pr.png"))
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert "8 images with 8 faces, 8 negatives" in lines[0] and "at 0.1 %" in lines[1]
    assert [line[:12].strip() for line in lines[2:9]] == [
        "faces from 5", "5% to 10%", "10% to 20%", "20% to 30%", "30% to 50%", "over 50%",
        "all faces"]
    assert "published" not in outcome.out and Image.open(str(tmp_path / "pr.png")).size[0] > 300
    published = run_script(evaluate, trained[0].model, "--wider-dir", str(wider), "--published")
    assert "77.2" in published.out


def test_image_recall_counts_images_above_the_negatives():
    faces, none = np.float32([[0, 0, 0.3, 0.3]]), np.zeros((0, 4), np.float32)
    truths = [(faces, none), (faces, none), (none, none)]
    found = [(faces, np.float32([0.9])), (faces, np.float32([0.2])), (faces, np.float32([0.95]))]
    negatives = np.linspace(0, 0.6, 100)
    assert evaluate.image_recall(truths, found, negatives, 0.01) == (0.5, 2)
    assert evaluate.image_recall(truths, found, negatives, 0.9) == (1.0, 2)
    assert evaluate.image_recall(truths, found, negatives, 0.01, 0.5)[1] == 0
    selected = evaluate.of_width(truths, 0.5)
    assert [len(each) for each, _ in selected] == [0, 0, 0] and len(selected[0][1]) == 1


def test_history_is_a_table(trained):
    chosen, _ = trained
    with open(os.path.join(chosen.run_dir, "history.csv")) as stream:
        row, = csv.DictReader(stream)
    assert row["step"] == str(STEPS) and 0 <= float(row["ap50"]) <= 1
