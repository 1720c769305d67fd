"""The session loop: learns, resumes exactly, survives kills, refuses bad input."""

import csv
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, WIDTH
from PIL import Image

import train
from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.evaluation.metrics import measure, score_split
from darknet_face.evaluation.operating_point import best_threshold
from darknet_face.images.file_lists import LISTS, load_split, save_list
from darknet_face.runtime.session import tf
from darknet_face.training import resume
from darknet_face.training.history import HISTORY
from darknet_face.training.initial_weights import read_initial_weights
from darknet_face.training.lock import locked
from darknet_face.training.settings import Settings
from darknet_face.weights.checkpoints import find_checkpoint, read_checkpoint
from darknet_face.weights.literal_names import literal
from darknet_face.weights.model_file import read_model

TINY = ("--image-size", "32", "--batch-size", "8", "--threads", "1", "--workers", "1",
        "--log-every", "3", "--width", str(WIDTH))
PATTERN = "a[1]\\b] *?"  # a folder's name that TensorFlow would take for a pattern


def command(data, work, *options):
    return [sys.executable, os.path.join(ROOT, "train.py"), "--data-dir", data,
            "--model-dir", os.path.join(work, "model"), "--log-dir", os.path.join(work, "logs"),
            ] + list(TINY) + list(options)


def finish(data, work, *options):
    ended = subprocess.run(command(data, work, *options), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended


def end_after(data, work, checkpoint, number, *options):
    """Start training and send it a signal once a checkpoint of this step stands, a moment later.

    Returns its exit code, what it printed and what it complained of.
    """
    index = os.path.join(work, "model", "checkpoints", "model-{}.index".format(checkpoint))
    process = subprocess.Popen(command(data, work, *options), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    while not os.path.exists(index):
        assert process.poll() is None, "training ended before the signal"
        time.sleep(0.01)
    time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def all_variables(work):
    """Every variable of the newest checkpoint: weights, Adam's moments, averages, counters."""
    with literal(find_checkpoint(os.path.join(work, "model", "checkpoints"))) as prefix:
        reader = tf.train.NewCheckpointReader(prefix)
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def remove_checkpoint(work, step):
    for path in glob.glob(os.path.join(
            glob.escape(work), "model", "checkpoints", "model-{}.*".format(step))):
        os.remove(path)


def history(work):
    with open(os.path.join(work, "logs", "history.csv"), newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        del row["images_per_second"]
    return rows


@pytest.fixture(scope="module")
def uninterrupted(few, tmp_path_factory):
    """The folder of a training of two epochs."""
    work = str(tmp_path_factory.mktemp("whole") / PATTERN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command(few, work, "--epochs", "2", "--save-every", "3")[1:])
        train.main()
    return work


def test_killed_and_resumed_equals_uninterrupted(few, uninterrupted, tmp_path):
    """By Ctrl-C in epoch 1 or soon after, and without warning in epoch 2: the same seed ends with
    the same weights to the bit."""
    work = str(tmp_path)
    options = ("--epochs", "2", "--save-every", "3")
    code, out, err = end_after(few, work, 3, signal.SIGINT, *options)
    assert code == 128 + signal.SIGINT and "stopping: saved" in out and "Traceback" not in err
    read_checkpoint(find_checkpoint(os.path.join(work, "model", "checkpoints")))
    assert end_after(few, work, 6, signal.SIGKILL, *options)[0] == -signal.SIGKILL
    ended = finish(few, work, *options)
    assert "resuming at step" in ended.stdout
    expected, found = all_variables(uninterrupted), all_variables(work)
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert int(found["global_step"]) == 8
    assert history(work) == history(uninterrupted)


def test_batch_norm_follows_the_data(uninterrupted):
    variables = all_variables(uninterrupted)
    assert np.abs(variables["conv_0/moving_mean"]).max() > 0
    assert np.abs(variables["conv_17/moving_variance"] - 1).max() > 0.01


def test_what_a_training_leaves(uninterrupted):
    rows = history(uninterrupted)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"val_false_positive_rate", "val_false_negative_rate"} <= set(rows[0])
    with open(os.path.join(uninterrupted, "model", "darknet19_frozen.json")) as stream:
        metadata = json.load(stream)
    best = min(rows, key=lambda row: float(row["disturbed_loss"]))
    assert metadata["step"] == int(best["step"])
    assert metadata["largest_difference"] <= 1e-5
    frozen, best = (read_model(os.path.join(uninterrupted, "model", name))
                    for name in ("darknet19_frozen.pb", "best"))
    assert frozen.width == best.width == WIDTH
    for name, array in best.weights.items():
        np.testing.assert_array_equal(frozen.weights[name], array, err_msg=name)
    for name in ("history.png", "training_summary.png"):
        assert os.path.getsize(os.path.join(uninterrupted, "logs", name)) > 5000
    assert not [name for _, _, files in os.walk(uninterrupted) for name in files
                if "partial" in name]


def test_tensorboard_gets_its_curves_pictures_and_histograms(uninterrupted):
    logs = os.path.join(uninterrupted, "logs")
    tags = set()
    for name in os.listdir(logs):
        if name.startswith("events"):
            for event in tf.train.summary_iterator(os.path.join(logs, name)):
                tags.update(value.tag for value in event.summary.value)
    assert {"train/loss", "train/accuracy", "train/learning_rate", "val/loss", "augmented_batch",
            "weights/conv_0/kernel"} <= tags
    assert any("precision_recall" in tag for tag in tags)


class Killed(Exception):
    """In the place of a kill."""


def kill_after_step(number, patch):
    """End the training after this step and before what follows it."""
    after_step = train.Trainer._after_step

    def killed(self, values):
        if self.step + 1 == number:
            raise Killed()
        after_step(self, values)

    patch.setattr(train.Trainer, "_after_step", killed)


def test_start_weights_come_first_and_a_kill_changes_nothing(
        run_script, few, tiny_model, tmp_path, monkeypatch):
    """Row 0 is the file's own validation; killed in epoch 1, the run ends with the same bits."""
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    options = ("--epochs", "2", "--save-every", "3", "--init-from", tiny_model.npz, "--patience",
               "2", "--at-fpr", "0.5")
    outcome = run_here(run_script, few, whole, *options)
    assert outcome.code == 0 and "hint" not in outcome.out
    assert "the initial weights before training: validation loss" in outcome.out
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after_step(4, patch)
        run_here(run_script, few, killed, *options)
    assert "resuming at step 3" in run_here(run_script, few, killed, *options).out
    expected, found = all_variables(whole), all_variables(killed)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    rows = history(whole)
    assert rows == history(killed)
    assert [(row["epoch"], row["step"], row["train_loss"]) for row in rows][0] == ("0", "0", "")
    scores = score_split(classifier_from_weights(tiny_model.weights, 32), load_split(few, "val"))
    metrics = measure(scores.labels, scores.face_probabilities)
    assert float(rows[0]["val_loss"]) == pytest.approx(metrics["log_loss"], abs=1e-5)
    assert float(rows[0]["val_accuracy"]) == metrics["accuracy"]
    with open(os.path.join(whole, "model", "darknet19_frozen.json")) as stream:
        record = json.load(stream)
    assert record["pictures"] == {"train": [16, 16], "val": [8, 8]}
    assert record["log_dir"] == os.path.join("..", "logs")
    best = read_model(os.path.join(whole, "model", "darknet19_frozen.pb")).weights
    scores = score_split(classifier_from_weights(best, 32), load_split(few, "val"))
    point = best_threshold(scores.labels, scores.face_probabilities, 0.5)
    assert record.get("threshold") == pytest.approx(point["threshold"], abs=1e-4)


def test_nothing_worse_than_the_start_is_frozen(run_script, few, trained, tmp_path):
    """A rate that ruins the weights; --patience ends it, and says so after a restart too."""
    start = os.path.join(trained, "model", "best")
    options = ("--epochs", "5", "--base-lr", "0.5", "--max-lr", "0.5", "--lr-scaling", "none",
               "--average-decay", "0", "--init-from", start, "--patience", "1")
    for _ in range(2):
        outcome = run_here(run_script, few, str(tmp_path / "ruined"), *options)
        assert outcome.code == 0, outcome.err
        assert "stopping after epoch 1: 1 epochs without a better augmented loss" in outcome.out
        assert outcome.err.count("the frozen graph has the initial weights") == 1
    assert [row["epoch"] for row in history(str(tmp_path / "ruined"))] == ["0", "1"]
    frozen = read_model(str(tmp_path / "ruined" / "model" / "darknet19_frozen.pb")).weights
    for name, array in read_checkpoint(find_checkpoint(start)).items():
        np.testing.assert_array_equal(frozen[name], array, err_msg=name)


def test_a_stored_threshold_stays_when_the_same_epoch_is_frozen_again(run_script, few, trained):
    path = os.path.join(trained, "model", "darknet19_frozen.pb")
    assert "threshold" not in read_model(path).metadata
    assert run_here(run_script, few, trained, "--epochs", "2", "--at-fpr", "0.5").code == 0
    stored = read_model(path).metadata
    assert 0 <= stored["threshold"] <= 1 and "search_bias" in stored
    assert run_here(run_script, few, trained, "--epochs", "2").code == 0
    assert read_model(path).metadata == stored


@pytest.fixture
def trained(uninterrupted, tmp_path):
    """A copy of the finished training that a test may spoil."""
    shutil.copytree(uninterrupted, str(tmp_path / "work"))
    return str(tmp_path / "work")


def run_here(run_script, data, work, *options):
    return run_script(train, "--data-dir", data, "--model-dir", os.path.join(work, "model"),
                      "--log-dir", os.path.join(work, "logs"), *(TINY + options))


def test_other_settings_do_not_resume(run_script, few, trained):
    outcome = run_here(run_script, few, trained, "--epochs", "3", "--max-lr", "0.01")
    assert outcome.code == 2
    assert "max-lr" in outcome.err and len(outcome.err.splitlines()) == 1


def test_a_run_of_another_width_does_not_resume_or_start_there(run_script, few, trained):
    outcome = run_here(run_script, few, trained, "--epochs", "3", "--width", "0.125")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert "made with width 0.0625, not 0.125" in outcome.err
    with pytest.raises(UserError, match="use --width 0.0625, or name it by --teacher"):
        read_initial_weights(os.path.join(trained, "model", "best"), width=0.125)


def test_a_training_with_a_teacher_resumes_to_the_bit(
        run_script, few, uninterrupted, tiny_model, tmp_path):
    options = ("--epochs", "2", "--save-every", "3", "--workers", "0")
    teacher = options + ("--teacher", tiny_model.npz)
    whole, parts = (str(tmp_path / name) for name in ("whole", "parts"))
    assert run_here(run_script, few, whole, *teacher).code == 0
    shutil.copytree(whole, parts)
    remove_checkpoint(parts, 8)  # as a kill in epoch 2 leaves it
    outcome = run_here(run_script, few, parts, *teacher)
    assert outcome.code == 0 and "resuming at step 6" in outcome.out
    expected, found, alone = map(all_variables, (whole, parts, uninterrupted))
    assert set(found) == set(expected) == set(alone), "the teacher is in no checkpoint"
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert not np.array_equal(alone["conv_0/kernel"], expected["conv_0/kernel"])
    outcome = run_here(run_script, few, whole, *options)
    assert outcome.code == 2 and "made with teacher" in outcome.err


def test_an_epoch_may_be_shorter_than_the_lists(run_script, few, trained, tmp_path):
    """Two steps of 4 images of each class instead of the four that the 16 would take."""
    outcome = run_here(run_script, few, str(tmp_path / "short"), "--epochs", "2",
                       "--epoch-images", "8")
    assert outcome.code == 0, outcome.err
    assert [row["step"] for row in history(str(tmp_path / "short"))] == ["2", "4"]
    outcome = run_here(run_script, few, trained, "--epochs", "3", "--epoch-images", "8")
    assert outcome.code == 2 and "epoch-images" in outcome.err


def test_other_pictures_do_not_resume(run_script, few, trained, tmp_path):
    """As many as before, but one of them moved from validation to training."""
    swapped = str(tmp_path / "swapped")
    shutil.copytree(few, swapped)
    names = [LISTS[split][1] for split in ("train", "val")]
    lists = [list(load_split(few, split).negatives) for split in ("train", "val")]
    lists[0][0], lists[1][0] = lists[1][0], lists[0][0]
    for name, paths in zip(names, lists):
        save_list(os.path.join(swapped, name), paths)
    outcome = run_here(run_script, swapped, trained, "--epochs", "3")
    assert outcome.code == 2
    assert "file-lists" in outcome.err and len(outcome.err.splitlines()) == 1


def test_a_damaged_checkpoint_is_one_line(run_script, few, trained):
    prefix = find_checkpoint(os.path.join(trained, "model", "checkpoints"))
    with open(prefix + ".data-00000-of-00001", "r+b") as stream:
        stream.truncate(1000)
    outcome = run_here(run_script, few, trained, "--epochs", "3")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1 and prefix in outcome.err


def test_a_crafted_index_is_refused_before_tensorflow_reads_it(run_script, few, trained):
    prefix = find_checkpoint(os.path.join(trained, "model", "checkpoints"))
    with open(prefix + ".index", "r+b") as stream:
        stream.seek(20)
        stream.write(b"\xff" * 8)
    outcome = run_here(run_script, few, trained, "--epochs", "3")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert prefix + ": not a whole checkpoint" in outcome.err and "--restart" in outcome.err


def test_without_the_newest_checkpoint_it_goes_on_from_the_one_before(run_script, few, trained):
    """Whether the newest was removed, as that message advises, or TensorFlow's note is damaged."""
    remove_checkpoint(trained, 8)
    open(os.path.join(trained, "model", "checkpoints", "checkpoint"), "w").close()
    outcome = run_here(run_script, few, trained, "--epochs", "2", "--save-every", "3")
    assert outcome.code == 0 and "resuming at step 6" in outcome.out
    assert all_variables(trained)["global_step"] == 8


@pytest.mark.parametrize("segments", [
    None, 5, [], [5], [[0, 0]], [["0", 0, 2]], [[0, 0, 0]], [[0, -1, 2]], [[0, 0, float("nan")]],
    [[0, 0, "1"]], [[0, 0, 1e400]], [[0, 0, 2.0]], [[3, 0, 1]], [[0, 0, 1], [0, 1, 2]],
    [[0, 0, 10 ** 30]]])
def test_damaged_segments_are_one_line(few, uninterrupted, tmp_path, segments):
    checkpoints = tmp_path / "model" / "checkpoints"
    shutil.copytree(os.path.join(uninterrupted, "model", "checkpoints"), str(checkpoints),
                    copy_function=os.link)  # read only, so not worth hundreds of megabytes each
    settings = Settings(data_dir=few, model_dir=str(tmp_path / "model"), image_size=32, width=WIDTH,
                        batch_size=8)
    splits = {name: load_split(few, name) for name in ("train", "val")}
    plan = resume.plan_run(settings, splits)
    assert plan.checkpoint.endswith("model-8") and plan.schedule.ranks == 1
    path = checkpoints / "settings.json"
    stored = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps(dict(stored, segments=segments)))
    with pytest.raises(UserError, match="settings.json: (its segments are damaged|not JSON)"):
        resume.plan_run(settings, splits)
    del stored["segments"]
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError, match="settings.json: .*older train.py.*--restart"):
        resume.plan_run(settings, splits)


@pytest.mark.parametrize("value", [float("nan"), 1e400, 10 ** 400, [], None, "x" * 9999])
def test_damaged_settings_are_one_short_line(few, uninterrupted, tmp_path, value):
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "model-8.index").write_text("")
    shutil.copy(os.path.join(uninterrupted, "model", "checkpoints", "settings.json"),
                str(checkpoints))
    path = checkpoints / "settings.json"
    path.write_text(json.dumps(dict(json.loads(path.read_text()), max_lr=value)))
    splits = {name: load_split(few, name) for name in ("train", "val")}
    with pytest.raises(UserError, match="--restart") as caught:
        resume.plan_run(Settings(data_dir=few, model_dir=str(tmp_path), image_size=32, width=WIDTH,
                                 batch_size=8), splits)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_second_training_in_the_folder_changes_nothing(run_script, few, trained):
    before = sorted(os.walk(trained))
    with locked(Settings(model_dir=os.path.join(trained, "model"), log_dir=trained)):
        outcome = run_here(run_script, few, trained, "--restart", "--epochs", "1")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1 and "another training" in outcome.err
    assert sorted(os.walk(trained)) == before


def test_folders_whose_names_are_patterns_and_what_a_finished_training_says(
        run_script, few, uninterrupted, tmp_path):
    work = str(tmp_path / PATTERN)
    shutil.copytree(uninterrupted, work)
    outcome = run_here(run_script, few, work, "--epochs", "2")
    assert outcome.code == 0 and not outcome.err
    assert "finished already: 2 epochs are trained (step 8)" in outcome.out
    assert "resuming" not in outcome.out and "epoch 1/2" not in outcome.out
    outcome = run_here(run_script, few, work, "--epochs", "3")
    assert outcome.code == 0 and "resuming at step 8 (epoch 3)" in outcome.out
    assert all_variables(work)["global_step"] == 12
    best = os.path.join(work, "model", "best")
    weights, message = read_initial_weights(best, width=WIDTH)
    assert len(weights) == 92 and message == "starting from conv_0 to conv_18 of " + best


def test_freezing_passes_over_pictures_that_do_not_decode(few, tiny_model, tmp_path, capsys):
    split = load_split(few, "val")
    missing = tuple(str(tmp_path / "{}.png".format(number)) for number in range(40))
    row = dict.fromkeys(HISTORY.columns, 0.5)
    row.update(epoch=1, step=4)
    settings = Settings(image_size=32, width=WIDTH, model_dir=str(tmp_path / "model"),
                        log_dir=str(tmp_path / "logs"))
    HISTORY.write(str(tmp_path / "logs" / "history.csv"), [row])

    class Best:
        def read_best(self):
            return {"epoch": 1, "step": 4, "disturbed_loss": 0.5}, tiny_model.weights

    (tmp_path / "model").mkdir()
    broken = type(split)(*(missing + paths for paths in split))
    train.freeze_best(settings, Best(), broken)
    assert (tmp_path / "model" / "darknet19_frozen.pb").exists()
    assert "training_summary.png" in capsys.readouterr().out
    with pytest.raises(UserError, match="no other of 40 images does"):
        train.freeze_best(settings, Best(), type(split)(missing, missing))


def test_restart_removes_only_its_own(run_script, few, trained):
    mine = os.path.join(trained, "model", "checkpoints", "notes.txt")
    with open(mine, "w") as stream:
        stream.write("keep me")
    outcome = run_here(run_script, few, trained, "--restart", "--epochs", "1")
    assert outcome.code == 0 and "resuming" not in outcome.out
    assert os.path.exists(mine)
    assert len(history(trained)) == 1


@pytest.mark.parametrize("options", [("--freeze-until", "3"), ("--init-from", "best")])
def test_a_restart_that_is_refused_removes_nothing(run_script, few, trained, options):
    folder = os.path.join(trained, "model", "best")
    options = tuple(folder if each == "best" else each for each in options)
    before = sorted(os.walk(trained))
    outcome = run_here(run_script, few, trained, "--restart", "--epochs", "1", *options)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert sorted(os.walk(trained)) == before


def test_a_loss_that_is_not_finite_stops_with_the_checkpoint_intact(run_script, few, trained):
    before = all_variables(trained)
    settings = os.path.join(trained, "model", "checkpoints", "settings.json")
    with open(settings) as stream:
        stored = json.load(stream)
    stored.update(max_lr=1e30, base_lr=1e30)
    with open(settings, "w") as stream:
        json.dump(stored, stream)
    outcome = run_here(run_script, few, trained, "--epochs", "9", "--max-lr", "1e30",
                       "--base-lr", "1e30")
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 1
    assert "--max-lr" in outcome.err and "--restart" in outcome.err and "model-8" in outcome.err
    after = all_variables(trained)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_lr_range_test_writes_its_curve_and_no_checkpoint(run_script, few, tmp_path):
    data, bad = str(tmp_path / "data"), str(tmp_path / "bad.png")
    shutil.copytree(few, data)
    with open(bad, "w") as stream:
        stream.write("no image")
    faces = list(load_split(few, "train").faces)
    save_list(os.path.join(data, LISTS["train"][0]), faces[1:] + [bad])
    outcome = run_here(run_script, data, str(tmp_path), "--epochs", "2", "--lr-range-test")
    assert outcome.code == 0
    assert len(outcome.err.splitlines()) == 2 and bad in outcome.err.splitlines()[0]
    assert outcome.err.splitlines()[1].endswith("skipped: 1")
    with open(str(tmp_path / "logs" / "lr_range_test.csv")) as stream:
        rows = list(csv.DictReader(stream))
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, np.arange(8) / 8 * 1e-3, rtol=1e-5, atol=1e-12)
    assert os.path.getsize(str(tmp_path / "logs" / "lr_range_test.png")) > 5000
    assert not os.path.exists(str(tmp_path / "model"))


def test_the_loss_is_cross_entropy_with_smooth_labels():
    """test_teacher.py has it without smoothing."""
    smoothing = 0.2
    labels = np.array([0, 1, 1, 0, 1, 0, 1, 0])
    with tf.Graph().as_default() as graph, tf.Session() as session:
        net = train.build_training_graph(
            Settings(image_size=32, width=WIDTH, label_smoothing=smoothing), lambda step: 1e-3)
        session.run(tf.global_variables_initializer())
        images = np.random.RandomState(0).randint(0, 256, (8, 32, 32, 3))
        logits, loss = session.run([graph.get_tensor_by_name("logits:0"), net.loss],
                                   {net.images: images, net.labels: labels})
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = np.eye(2)[labels] * (1 - smoothing) + smoothing / 2
    losses = -(targets * log_softmax).sum(axis=1)
    assert loss == pytest.approx(losses.mean(), rel=1e-5)


@pytest.mark.parametrize("options", [
    ("--image-size", "100"), ("--batch-size", "7"), ("--max-lr", "1e-9"), ("--epochs", "0"),
    ("--average-decay", "2"), ("--policy", "cosine"), ("--threads", "100000000000"),
    ("--image-size", "3200000000"), ("--batch-size", "1" + "0" * 21), ("--width", "0.3")])
def test_senseless_options_are_refused(run_script, few, tmp_path, options):
    assert run_script(train, "--data-dir", few, "--model-dir", tmp_path / "m", *options).code == 2
    assert not (tmp_path / "m").exists()


def test_preview(run_script, sample_dir, tmp_path):
    path = tmp_path / "preview.png"
    outcome = run_script(train, "--data-dir", sample_dir, "--preview", path, "--image-size", 32,
                         "--batch-size", 8, "--model-dir", tmp_path / "m")
    assert outcome.code == 0
    assert Image.open(str(path)).size[0] >= 8 * 128
    assert run_script(train, "--data-dir", tmp_path / "none", "--preview", path).code == 2
    for options in (("--preview", tmp_path), ("--preview", path, "--batch-size", 10 ** 9),
                    ("--preview", path, "--image-size", 10 ** 9)):
        assert run_script(train, "--data-dir", sample_dir, *options).code == 2
    assert os.listdir(str(tmp_path)) == ["preview.png"]


def test_overlapping_lists_stop_before_anything_is_written(run_script, few, tmp_path):
    data = str(tmp_path / "data")
    shutil.copytree(few, data)
    shutil.copy(os.path.join(data, "celeba_train_file.pickle"),
                os.path.join(data, "celeba_test_file.pickle"))
    outcome = run_here(run_script, data, str(tmp_path / "work"))
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1 and "same image" in outcome.err
    assert not (tmp_path / "work").exists()


def test_missing_lists_name_the_remedy(run_script, tmp_path):
    outcome = run_script(train, "--data-dir", tmp_path, "--model-dir", tmp_path / "m")
    assert outcome.code == 2
    assert "preprocess_celeba.py" in outcome.err and len(outcome.err.splitlines()) == 1
