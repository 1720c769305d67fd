"""Two real ranks: exact averaging, equal weights, resuming, failures.

``make test-distributed`` runs these; plain ``make test`` needs neither MPI nor Horovod.
"""

import collections
import csv
import glob
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT

from darknet_face.images.file_lists import LISTS, load_list, load_split, save_list
from darknet_face.runtime import distributed
from darknet_face.runtime.session import tf
from darknet_face.weights.checkpoints import find_checkpoint, read_checkpoint

pytestmark = pytest.mark.distributed

PROGRAM = os.path.join(ROOT, "tests", "distributed_program.py")
TINY = ("--image-size", "32", "--batch-size", "8", "--threads", "1", "--workers", "1",
        "--save-every", "1000", "--augment", "none")
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
MOST = 600  # seconds: on a busy machine TensorFlow's start alone can take a minute


@pytest.fixture(scope="module", autouse=True)
def tools():
    if not shutil.which("mpirun") or not importlib.util.find_spec("horovod"):
        pytest.exit("mpirun or Horovod is missing: run make distributed", returncode=2)


@pytest.fixture(scope="module")
def few(tmp_path_factory, sample_dir):
    """21 training images a class: 3 steps an epoch of two ranks, the last short and uneven."""
    folder = str(tmp_path_factory.mktemp("few"))
    for split, count in (("train", 21), ("val", 9), ("test", 9)):
        for paths, name in zip(load_split(sample_dir, split), LISTS[split]):
            save_list(os.path.join(folder, name), paths[:count])
    return folder


def mpirun(ranks, *command):
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks),
            sys.executable] + [str(part) for part in command]


def run(ranks, *command):
    return subprocess.run(mpirun(ranks, *command), capture_output=True, text=True, timeout=MOST,
                          env=ENVIRONMENT)


def training(data, work, *options, stage=""):
    """The watched training's command; its records lie in ``work``, in a folder for the stage."""
    records = os.path.join(work, stage)
    os.makedirs(records, exist_ok=True)
    exact = ["exact"] if "exact" in options else []
    return [PROGRAM, records] + exact + [
        "--data-dir", data, "--model-dir", os.path.join(work, "model"),
        "--log-dir", os.path.join(work, "logs")] + list(TINY) + [
            option for option in options if option != "exact"]


def train(ranks, data, work, *options, **stage):
    ended = run(ranks, *training(data, work, *options, **stage))
    assert ended.returncode == 0, ended.stderr
    return ended


def records(work):
    """What the ranks wrote after each step."""
    lines = []
    for path in sorted(glob.glob(os.path.join(work, "steps-*.jsonl"))):
        with open(path) as stream:
            lines += [json.loads(line) for line in stream]
    return lines


def variables(work):
    reader = tf.train.NewCheckpointReader(
        find_checkpoint(os.path.join(work, "model", "checkpoints")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def digests(work, rank):
    with open(os.path.join(work, "end-{}.json".format(rank))) as stream:
        return json.load(stream)


def kill_rank(work, ranks, data, number, *options, rank=1, checkpoint=1, stage=""):
    """Start a training, signal one rank once a checkpoint stands; its outcome and the seconds."""
    process = subprocess.Popen(
        mpirun(ranks, *training(data, work, "--save-every", "1", "--epochs", "500", *options,
                                stage=stage)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    index = os.path.join(work, "model", "checkpoints", "model-{}.index".format(checkpoint))
    while not os.path.exists(index):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    with open(os.path.join(work, stage, "pid-{}".format(rank))) as stream:
        os.kill(int(stream.read()), number)
    started = time.time()
    out, err = process.communicate(timeout=MOST)
    return process.returncode, out, err, time.time() - started


@pytest.fixture(scope="module")
def two_ranks(few, tmp_path_factory):
    work = str(tmp_path_factory.mktemp("two"))
    return work, train(2, few, work, "--epochs", "2", "--warmup-epochs", "1")


def test_two_ranks_average_exactly(few, tmp_path):
    """Two ranks with a batch of 8 end with the weights of one with 16, over every variable."""
    data = str(tmp_path / "data")
    for split, count in (("train", 16), ("val", 9), ("test", 9)):
        for paths, name in zip(load_split(few, split), LISTS[split]):
            save_list(os.path.join(data, name), paths[:count])
    options = ("exact", "--epochs", "2", "--lr-scaling", "none", "--base-lr", "0.01",
               "--max-lr", "0.1")
    two, one = str(tmp_path / "two"), str(tmp_path / "one")
    train(2, data, two, *options)
    train(1, data, one, *options, "--batch-size", "16")
    expected, found = variables(one), variables(two)
    assert set(found) == set(expected) and int(found["global_step"]) == 4
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6,
                                   err_msg=name)


def test_all_ranks_hold_the_same_after_a_run(two_ranks):
    """Weights, Adam's moments, moving averages and counters, to the bit, a short batch included."""
    work, _ = two_ranks
    assert digests(work, 0) == digests(work, 1)
    assert any("moving_variance" in name for name in digests(work, 0))


def test_compressed_gradients_leave_all_ranks_the_same(few, tmp_path):
    work = str(tmp_path)
    train(2, few, work, "--epochs", "1", "--fp16-compression")
    assert digests(work, 0) == digests(work, 1)


def test_each_picture_once_and_the_rate_warms_up(two_ranks, few):
    work, _ = two_ranks
    lines = records(work)
    counts = collections.Counter((line["epoch"], image) for line in lines if line["weight"]
                                 for image in line["images"])
    assert len(counts) == 2 * 42 and set(counts.values()) == {1}
    rates = [line["rate"] for line in lines[:6]]  # of rank 0
    assert rates[0] == pytest.approx(1e-4)
    # Triangular from 1e-4 to 1e-3 over 2 epochs of 6 one-process steps, twice as high from 1 on.
    clocks = np.array([0, 2, 4, 6, 8, 10])
    np.testing.assert_allclose(
        rates, (1e-4 + 9e-4 * clocks / 12) * (1 + np.minimum(clocks / 6, 1)), rtol=1e-5)


def test_rank_0_alone_writes(two_ranks):
    work, ended = two_ranks
    logs = os.listdir(os.path.join(work, "logs"))
    assert sum(name.startswith("events") for name in logs) == 1
    assert ended.stdout.count("epoch 2/2") == 1
    with open(os.path.join(work, "logs", "history.csv"), newline="") as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["3", "6"]
    assert os.path.exists(os.path.join(work, "model", "darknet19_frozen.pb"))


def test_validation_of_two_ranks_is_that_of_one(two_ranks, few, tmp_path):
    """The metrics in the history against those of one process on the same checkpoint."""
    work = str(tmp_path / "work")
    shutil.copytree(two_ranks[0], work)
    rows = []
    for _ in range(2):
        with open(os.path.join(work, "logs", "history.csv"), newline="") as stream:
            rows.append(list(csv.DictReader(stream)))
        # Without its last row the epoch counts as not validated: one process does it again.
        with open(os.path.join(work, "logs", "history.csv"), "w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0][0])
            writer.writeheader()
            writer.writerow(rows[0][0])
        if len(rows) == 1:
            train(1, few, work, "--epochs", "2", "--warmup-epochs", "1")
    for name, value in rows[0][1].items():
        if name.startswith(("val_", "disturbed_")):
            assert float(rows[1][1][name]) == pytest.approx(float(value), abs=1e-6), name


def test_killed_and_resumed_by_as_many_ranks_equals_uninterrupted(two_ranks, few, tmp_path):
    """To the bit: weights, Adam's moments, moving averages and counters."""
    work = str(tmp_path)
    assert kill_rank(work, 2, few, signal.SIGKILL, "--warmup-epochs", "1")[0] != 0
    assert latest_step(work) < 6, "killed in time"
    ended = train(2, few, work, "--warmup-epochs", "1", "--epochs", "2")
    assert "resuming at step" in ended.stdout and "begins again" not in ended.stdout
    assert latest_step(work) == 6
    assert digests(work, 0) == digests(two_ranks[0], 0)


def test_another_number_of_ranks_begins_the_epoch_again(few, tmp_path):
    """2, then 1, then 2: steps go on, and each epoch's images are complete in the end."""
    work = str(tmp_path)
    options = ("--warmup-epochs", "4", "--step-epochs", "4")
    stages, first = [], 0
    for ranks, checkpoint in ((2, 2), (1, 5)):
        stage = "by{}".format(ranks)
        assert kill_rank(work, ranks, few, signal.SIGKILL, *options, rank=ranks - 1,
                         checkpoint=checkpoint, stage=stage)[0] != 0
        # What was trained beyond the last checkpoint was lost and does not count.
        stages.append((stage, first, latest_step(work)))
        first = latest_step(work)
    ended = train(2, few, work, *options, "--epochs", "5", stage="end")
    assert "resuming at step {}".format(first) in ended.stdout
    stages.append(("end", first, latest_step(work)))
    steps, begun = [], 0
    for stage, first, last in stages:
        lines = [line for line in records(os.path.join(work, stage))
                 if first <= line["step"] < last]
        steps += sorted({line["step"] for line in lines})
        assert min(line["epoch"] for line in lines) in (begun, begun + 1)
        begun = max(line["epoch"] for line in lines)
    assert steps == list(range(last))
    counts = collections.Counter((line["epoch"], image) for line in lines if line["weight"]
                                 for image in line["images"])
    assert set(counts.values()) == {1}
    assert len(counts) == 42 * (5 - min(line["epoch"] for line in lines))
    with open(os.path.join(work, "model", "checkpoints", "settings.json")) as stream:
        segments = json.load(stream)["segments"]
    assert [segment[0] for segment in segments] == [first for _, first, _ in stages]
    assert [segment[2] for segment in segments] == [2, 1, 2]


def latest_step(work):
    return int(find_checkpoint(os.path.join(work, "model", "checkpoints")).rpartition("-")[2])


def test_a_killed_rank_ends_all_within_a_minute(few, tmp_path):
    code, _, err, seconds = kill_rank(str(tmp_path), 2, few, signal.SIGKILL)
    assert code not in (0, None) and seconds < 60
    assert "Traceback" not in err
    read_checkpoint(find_checkpoint(str(tmp_path / "model" / "checkpoints")))


def test_a_rank_asked_to_stop_stops_all_and_saves(few, tmp_path):
    code, out, err, _ = kill_rank(str(tmp_path), 2, few, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert "stopping: saved" in out and "Traceback" not in err
    read_checkpoint(find_checkpoint(str(tmp_path / "model" / "checkpoints")))


def our_errors(err):
    return [line for line in err.splitlines() if "error: rank" in line]


def run_with_data(first, second, work):
    """Two ranks, each with a data folder of its own."""
    command = mpirun(1, *training(first, work)) + [
        ":", "-np", "1", sys.executable] + training(second, work)
    started = time.time()
    ended = subprocess.run(command, capture_output=True, text=True, timeout=MOST, env=ENVIRONMENT)
    assert time.time() - started < MOST
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 2 and len(our_errors(ended.stderr)) == 1, ended.stderr
    return our_errors(ended.stderr)[0]


@pytest.fixture
def copied(few, tmp_path):
    """The data copied into a folder of its own, as onto another machine's disk."""
    folder = str(tmp_path / "copied")
    for split in LISTS:
        for paths, name in zip(load_split(few, split), LISTS[split]):
            names = [os.path.join(name.partition(".")[0], os.path.basename(path)) for path in paths]
            for path, copy in zip(paths, names):
                os.makedirs(os.path.dirname(os.path.join(folder, copy)), exist_ok=True)
                shutil.copy(path, os.path.join(folder, copy))
            save_list(os.path.join(folder, name), names)
    return folder


def test_a_rank_that_cannot_read_its_data_ends_all(copied, tmp_path):
    """The other machine has the lists but not the images."""
    other = str(tmp_path / "other")
    shutil.copytree(copied, other, ignore=shutil.ignore_patterns("*.png", "*.jpg"))
    error = run_with_data(copied, other, str(tmp_path / "work"))
    assert "rank 1" in error and "no such file" in error


def test_a_rank_with_other_lists_ends_all(copied, tmp_path):
    other = str(tmp_path / "other")
    shutil.copytree(copied, other)
    path = os.path.join(other, LISTS["train"][0])
    save_list(path, load_list(path)[:-1])
    error = run_with_data(copied, other, str(tmp_path / "work"))
    assert "rank 1" in error and "copy them again" in error
    assert not os.path.exists(str(tmp_path / "work" / "model"))


def test_a_full_disk_on_rank_0_ends_all_with_the_last_checkpoint_whole(few, tmp_path):
    """A limit on the size of files stands in for the full disk: writing beyond it fails."""
    work = str(tmp_path)
    train(2, few, work, "--epochs", "1")
    before = latest_step(work)
    limited = ["bash", "-c", "trap '' XFSZ; ulimit -f 60000; exec \"$@\"", "limited"]
    command = mpirun(2, *training(few, work, "--epochs", "9", "--save-every", "1"))
    started = time.time()
    ended = subprocess.run(limited + command, capture_output=True, text=True, timeout=MOST,
                           env=ENVIRONMENT)
    assert ended.returncode not in (0, None) and time.time() - started < MOST
    assert len(our_errors(ended.stderr)) == 1, ended.stderr
    assert "free disk space" in ended.stderr and "Traceback" not in ended.stderr
    assert latest_step(work) == before
    read_checkpoint(find_checkpoint(os.path.join(work, "model", "checkpoints")))


def test_two_ranks_measure_what_one_does(tiny_model, few, tmp_path):
    """test.py and inference.py on the test lists, a missing file in each list."""
    data = str(tmp_path / "data")
    for paths, name in zip(load_split(few, "test"), LISTS["test"]):
        save_list(os.path.join(data, name), list(paths) + [str(tmp_path / ("gone-" + name))])
    for script, model in (("test.py", ("--model", tiny_model.pb)),
                          ("inference.py", ("--weights", tiny_model.npz, "--image-size", "32"))):
        metrics = []
        for ranks in (1, 2):
            path = str(tmp_path / "{}-{}.json".format(script, ranks))
            ended = run(ranks, os.path.join(ROOT, script), "--data-dir", data, *model,
                        "--batch-size", "4", "--json", path)
            assert ended.returncode == 0, ended.stderr
            assert ended.stdout.count("accuracy") == 1
            with open(path) as stream:
                metrics.append(json.load(stream))
        assert metrics[0]["images"] == 18 and metrics[0]["skipped"] == 2
        assert metrics[0] == metrics[1]


def test_two_ranks_classify_each_file_once_in_order(tiny_model, sample_dir, tmp_path):
    folder = os.path.dirname(load_split(sample_dir, "test").faces[0])
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    tables = []
    for ranks in (1, 2):
        csv_path, json_path = (str(tmp_path / "{}.{}".format(ranks, kind))
                               for kind in ("csv", "json"))
        ended = run(ranks, os.path.join(ROOT, "inference.py"), folder, broken, "--weights",
                    tiny_model.npz, "--image-size", "32", "--batch-size", "3", "--csv", csv_path,
                    "--json", json_path)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("broken.jpg") == 1 and ended.stderr.count("classified") == 1
        with open(csv_path) as table, open(json_path) as lines:
            tables.append((table.read(), lines.read()))
    assert tables[0] == tables[1]
    rows = tables[1][0].splitlines()[1:]
    assert len(rows) == len(os.listdir(folder)) and len(set(rows)) == len(rows)


def test_what_is_for_one_process_says_so(few, tmp_path):
    ended = run(2, os.path.join(ROOT, "train.py"), "--data-dir", few, "--lr-range-test",
                "--model-dir", tmp_path)
    assert ended.returncode == 2 and "one process" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_horovod_the_remedy_is_named(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)
    with pytest.raises(distributed.UserError, match="make distributed"):
        distributed.job(lambda: None)()
