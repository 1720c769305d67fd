"""Training of the one-pass detector as a whole: it learns, resumes to the bit, keeps the best."""

import contextlib
import csv
import io
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw

import train_detector
from darknet_face.console import UserError
from darknet_face.detection import detect, evaluate, pyramid, trainer
from darknet_face.detection.datasets import read_photographs
from darknet_face.detection.engines import open_network
from darknet_face.detection.material import Material, Validation
from darknet_face.detection.model_file import Spec, read_detector, read_spec, write_detector
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
        model=str(folder / "face.npz"), width=0.05, channels=8, steps=STEPS, batch_size=2,
        sizes=(64,), image_size=96, workers=0, threads=1, average_decay=0.5, checkpoint_minutes=1e9,
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


def test_a_wider_detector_starts_with_the_answers_of_a_trained_one(trained, images, tmp_path):
    chosen = settings(tmp_path, width=0.08, channels=11, init_from=trained[0].model, steps=1)
    trainer.train(chosen, *images, lambda step: tf.constant(0.0))
    narrow, wide = (read_detector(each.model) for each in (trained[0], chosen))
    for name, array in wide[0].items():  # one step has moved these
        if "/moving_" in name:
            array[:len(narrow[0][name])] = narrow[0][name]
    image = np.random.RandomState(3).rand(1, 96, 96, 3).astype(np.float32)
    answers = [open_network(*each)(image) for each in (narrow, wide)]
    for before, after in zip(*answers):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def test_a_narrower_detector_can_not_start_from_a_trained_one(trained, images, tmp_path):
    with pytest.raises(UserError, match=r"face.npz: .* is \[.*wider than .*--channels"):
        train(settings(tmp_path, channels=4, init_from=trained[0].model), images)
    assert not os.path.exists(settings(tmp_path).run_dir)  # refused: nothing is left


def fixed_measure(monkeypatch, *figures):
    left = list(figures)
    monkeypatch.setattr(trainer, "measure", lambda *_: (left.pop(0), 0.5))


@pytest.fixture(scope="module")
def parts(images, tmp_path_factory):
    """A training of one step, killed before the release, that then goes on to a second, worse one.

    Returns its settings, the history, the lines of both parts, and the file after the kill.
    """
    folder, said = tmp_path_factory.mktemp("parts"), io.StringIO()

    def killed(*_, **__):
        raise Killed()

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(trainer, "REPORT_SECONDS", 0)
        fixed_measure(patch, 0.5, 0.1)
        with pytest.MonkeyPatch.context() as kill:
            kill.setattr(trainer.Trainer, "_release", killed)
            with pytest.raises(Killed):
                train(settings(folder, steps=1), images)
        was_released = os.path.exists(settings(folder).model)
        rows = train(settings(folder, steps=2), images)
    return folder, rows, said.getvalue().splitlines(), was_released


def test_other_settings_do_not_resume_but_other_steps_do(parts, images):
    folder, rows, _, _ = parts
    assert [row["step"] for row in rows] == [1, 2]
    with pytest.raises(UserError, match="made with width 0.05, not 0.1; use the same"):
        train(settings(folder, width=0.1), images)


def test_progress_is_a_line_a_minute(parts):
    _, _, lines, _ = parts
    progress = r"step {0} of {0}: loss [\d.]+ .* learning rate 0.002, [\d.]+ scenes/s$"
    expected = [progress.format(1), r"validation at step 1: AP50 0.500.*\(best\)$",
                "resuming at step 1 of 2$", progress.format(2),
                r"validation at step 2: AP50 0.100.*[^)]$"]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected):
        assert re.match(pattern, line)


def test_a_kill_before_the_release_is_made_up_for(parts):
    folder, _, _, was_released = parts
    spec = read_spec(settings(folder).model)
    assert not was_released and (spec.ap50, spec.step) == (0.5, 1)


def test_a_better_detector_is_never_replaced_by_a_worse_one(
        trained, images, tmp_path, monkeypatch, capsys):
    """Neither that of another run, nor this run's own by its later weights."""
    chosen = settings(tmp_path, steps=3, restart=True, validate_minutes=0)
    shutil.copytree(trained[0].run_dir, chosen.run_dir)
    shutil.copy(trained[0].model, chosen.model)
    # The other run's is measured after each one that is the best so far.
    fixed_measure(monkeypatch, 0.3, 0.8, 0.9, 0.8, 0.2)
    assert [row["step"] for row in train(chosen, images)] == [1, 2, 3]
    spec = read_spec(chosen.model)
    assert (spec.step, spec.ap50) == (2, 0.9) and spec.run != read_spec(trained[0].model).run
    assert "face.npz: kept, since its AP50" in capsys.readouterr().out


def write_random(path, **options):
    """A detector with random weights; returns what its file says."""
    spec, rng = Spec(width=0.05, channels=8, image_size=96, **options), np.random.RandomState(0)
    write_detector(str(path), {
        name: rng.rand(*shape).astype(np.float32)
        for name, shape in pyramid.variable_shapes(spec.width, spec.channels).items()}, spec)
    return spec


def not_measured(path):
    pytest.fail("measured " + path)


def released(tmp_path, measure_other=not_measured):
    """What the model file says after a release by the run "this"."""
    paths = [str(tmp_path / name) for name in ("best.npz", "face.npz")]
    trainer.release(*paths, "this", measure_other)
    return read_spec(paths[1])


def test_the_first_detector_is_released(tmp_path):
    best = write_random(tmp_path / "best.npz", run="this", step=5, ap50=0.1)
    assert released(tmp_path) == best
    before = os.stat(str(tmp_path / "face.npz"))
    assert released(tmp_path) == best
    assert os.path.samestat(os.stat(str(tmp_path / "face.npz")), before), "written once"
    (tmp_path / "face.npz").write_bytes(b"")
    assert released(tmp_path) == best


@pytest.mark.parametrize("other, is_kept", [
    (0.9, True), (0.5, True), (float("nan"), True), (0.49, False)])
def test_a_detector_of_another_run_is_measured(tmp_path, capsys, other, is_kept):
    """What its own file says does not count: it was measured on other images."""
    best = write_random(tmp_path / "best.npz", run="this", ap50=0.5)
    there = write_random(tmp_path / "face.npz", run="other", ap50=0.7)
    assert released(tmp_path, lambda _: other) == (there if is_kept else best)
    assert ("face.npz: kept, since its AP50" in capsys.readouterr().out) == is_kept


def test_negatives_that_do_not_decode_leave_the_recall_open(images, tmp_path, capsys):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = np.float32([[0, 0, 1, 1]]), np.float32([0.5])
    ap50, recall = trainer.measure(lambda _: found, Validation(
        images[1].photographs, [str(tmp_path / "cut.png")]))
    assert ap50 == ap50 and recall != recall and "cut.png" in capsys.readouterr().err


def test_a_run_replaces_its_own_detector_and_releases_no_other(tmp_path):
    there = write_random(tmp_path / "face.npz", run="this", step=1, ap50=0.7)
    assert released(tmp_path) == there
    write_random(tmp_path / "best.npz", run="other", step=2, ap50=0.8)
    assert released(tmp_path) == there
    best = write_random(tmp_path / "best.npz", run="this", step=2, ap50=0.8)
    assert released(tmp_path) == best


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
               "--sizes", 64, 96, "--image-size", 96, "--workers", 0]
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
    (["--sizes", "64", "100"], "multiples of 32"),
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


def test_a_count_that_no_float_holds_is_refused(run_script):
    outcome = run_script(train_detector, "--steps", "1" + 400 * "0")
    assert outcome.code == 2 and "is out of range" in outcome.err


def test_a_name_too_long_for_its_result_leaves_no_half(run_script, made, trained, tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a" * 247 + ".png", "b.png"):
        shutil.copy(str(made / "images" / "0.png"), str(tmp_path / "images" / name))
    outcome = run_script(detect, str(tmp_path / "images"), "--model", trained[0].model, "--out",
                         str(tmp_path / "found"))
    assert outcome.code == 0 and "skipped 1 bad ones" in outcome.out
    assert sorted(os.listdir(str(tmp_path / "found"))) == ["b.png", "b.png.json"]
