"""File lists to batches: balanced, disjoint, reshuffled, repeatable, robust."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from darknet_face.console import UserError
from darknet_face.images.file_lists import Split, check_disjoint, load_split, save_list
from darknet_face.images.reader import read_batches
from darknet_face.training.augment import Augmenter
from darknet_face.training.loader import TrainingBatches
from darknet_face.training.workers import BatchLoader

SIZE = 32


@pytest.fixture
def plain(tmp_path):
    """A split whose images say who they are: faces red 0..9, non-faces green 0..5."""
    paths = [[], []]
    for label, count in ((0, 10), (1, 6)):
        for number in range(count):
            picture = np.zeros((8, 8, 3), np.uint8)
            picture[..., label] = 10 * (number + 1)
            path = str(tmp_path / "{}-{}.png".format(label, number))
            Image.fromarray(picture).save(path)
            paths[label].append(path)
    return Split(tuple(paths[0]), tuple(paths[1]))


def identities(images, labels):
    """Which image of its class each image of a batch is."""
    return [int(image[..., label].max()) // 10 - 1 for image, label in zip(images, labels)]


def test_every_batch_is_half_faces(plain):
    batches = TrainingBatches(plain, 4, SIZE, augment="none")
    for step in range(12):
        images, labels, bad = batches.batch(step)
        assert labels.tolist() == [0, 0, 1, 1] and not bad
        assert images.shape == (4, SIZE, SIZE, 3) and images.dtype == np.uint8
        assert (images[:2, ..., 1] == 0).all() and (images[2:, ..., 0] == 0).all()


def test_an_epoch_shows_each_of_the_larger_class_once_and_is_reshuffled(plain):
    batches = TrainingBatches(plain, 4, SIZE, augment="none")
    assert batches.steps_per_epoch == 5
    epochs = []
    for epoch in range(3):
        shown = [[], []]
        for step in range(5 * epoch, 5 * epoch + 5):
            images, labels, _ = batches.batch(step)
            for label, number in zip(labels, identities(images, labels)):
                shown[label].append(number)
        assert sorted(shown[0]) == list(range(10))
        assert sorted(shown[1][:6]) == list(range(6)), "the smaller class too, round by round"
        epochs.append(shown[0])
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_depend_on_the_seed_and_the_step_alone(sample_dir):
    split = load_split(sample_dir, "train")
    first = TrainingBatches(split, 8, SIZE, seed=3)
    in_order = [first.batch(step)[0] for step in range(12)]
    again = TrainingBatches(split, 8, SIZE, seed=3)
    for step in (11, 4, 0):
        np.testing.assert_array_equal(again.batch(step)[0], in_order[step])
    assert not np.array_equal(TrainingBatches(split, 8, SIZE, seed=4).batch(0)[0], in_order[0])
    assert not np.array_equal(in_order[0], in_order[1])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_gives_the_same_stream(sample_dir, workers):
    source = TrainingBatches(load_split(sample_dir, "train"), 8, SIZE, seed=1)
    expected = [source.batch(step)[0] for step in range(2, 9)]
    with BatchLoader({"train": source}, workers) as loader:
        found = [images for images, _ in loader.stream("train", 2, 9)]
    assert len(found) == 7
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)


def test_leaving_a_stream_early_leaves_nothing_running(sample_dir):
    source = TrainingBatches(load_split(sample_dir, "train"), 8, SIZE)
    with BatchLoader({"train": source}, 2) as loader:
        for _ in loader.stream("train", 0, 1000):
            break
        processes = list(loader._pool._processes.values())
    assert processes and not any(process.is_alive() for process in processes)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux's /proc")
def test_workers_end_when_the_program_is_killed(sample_dir):
    program = """
import sys, time
from darknet_face.images.file_lists import load_split
from darknet_face.training.loader import TrainingBatches
from darknet_face.training.workers import BatchLoader
loader = BatchLoader({"train": TrainingBatches(load_split(sys.argv[1], "train"), 8, 32)}, 2)
next(loader.stream("train", 0, 100))
print(*loader._pool._processes, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program, sample_dir], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    workers = [int(number) for number in process.stdout.readline().split()]
    assert len(workers) == 2
    process.kill()
    # The end of its output is the end of all that could write there; until it is read, the program
    # is a zombie, as for every parent that waits for the output first.
    process.communicate(timeout=30)
    assert not any(running(worker) for worker in workers)


def running(pid):
    """Whether a process is there and is no zombie that waits for init."""
    try:
        with open("/proc/{}/stat".format(pid)) as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_bad_pictures_are_replaced_and_reported_once(plain, capsys, tmp_path):
    with open(plain.faces[3], "wb"):
        pass
    missing = str(tmp_path / "gone.png")
    split = Split(plain.faces, plain.negatives[:5] + (missing,))
    source = TrainingBatches(split, 4, SIZE, augment="none")
    with BatchLoader({"train": source}, 1) as loader:
        batches = list(loader.stream("train", 0, 15))
        assert loader.bad_files == 2
    assert all(len(images) == 4 for images, _ in batches)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert any(plain.faces[3] in line and "empty" in line for line in lines)
    assert any(missing in line and "no such file" in line for line in lines)


def test_nothing_but_bad_pictures_ends_with_one_error(tmp_path):
    split = Split((str(tmp_path / "a.png"),), (str(tmp_path / "b.png"),))
    for workers in (0, 1):
        with BatchLoader({"train": TrainingBatches(split, 2, SIZE)}, workers) as loader:
            with pytest.raises(UserError, match="in a row do not decode"):
                next(loader.stream("train", 0, 1))


def test_odd_batches_are_refused(plain):
    with pytest.raises(ValueError, match="even"):
        TrainingBatches(plain, 3, SIZE)


class TestDisjointness:
    def splits(self, plain, **changes):
        splits = {
            "train": Split(plain.faces[:6], plain.negatives[:2]),
            "val": Split(plain.faces[6:8], plain.negatives[2:4]),
            "test": Split(plain.faces[8:], plain.negatives[4:]),
        }
        splits.update(changes)
        return splits

    def test_disjoint_splits_pass(self, plain):
        check_disjoint(self.splits(plain))

    def test_the_same_name_in_two_splits(self, plain):
        test = Split(plain.faces[8:], plain.negatives[1:2])
        with pytest.raises(UserError, match="same image"):
            check_disjoint(self.splits(plain, test=test))

    def test_the_same_content_under_another_name(self, plain, tmp_path):
        copy = str(tmp_path / "copy.png")
        shutil.copy(plain.faces[0], copy)
        with pytest.raises(UserError, match="same image"):
            check_disjoint(self.splits(plain, test=Split((copy,), plain.negatives[4:])))

    def test_a_link_to_the_same_file(self, plain, tmp_path):
        link = str(tmp_path / "link.png")
        os.symlink(plain.faces[0], link)
        with pytest.raises(UserError, match="same image"):
            check_disjoint(self.splits(plain, test=Split((link,), plain.negatives[4:])))

    @pytest.mark.parametrize("name", ["a\0b.png", "\ud800.png", "none.png", "/", "x" * 5000])
    def test_names_of_no_file_are_left_to_whoever_reads_them(self, plain, name):
        check_disjoint(self.splits(plain, test=Split((name,), plain.negatives[4:])))

    @pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 half a JPEG"])
    def test_equal_files_that_do_not_decode_are_no_pictures(self, plain, tmp_path, content):
        names = [str(tmp_path / name) for name in ("one.jpg", "two.jpg")]
        for name in names:
            with open(name, "wb") as stream:
                stream.write(content)
        check_disjoint(self.splits(
            plain, train=Split(plain.faces[:6] + (names[0],), plain.negatives[:2]),
            test=Split(plain.faces[8:], plain.negatives[4:] + (names[1],))))

    def test_the_same_picture_in_both_classes(self, plain):
        train = Split(plain.faces[:6], plain.negatives[:2] + plain.faces[:1])
        with pytest.raises(UserError, match="same image"):
            check_disjoint(self.splits(plain, train=train))


@pytest.mark.parametrize("again", ["a.png", "./a.png", "x/../a.png"])
def test_a_list_that_names_a_file_twice_is_refused(sample_dir, tmp_path, again):
    folder = str(tmp_path / "data")
    shutil.copytree(sample_dir, folder)
    save_list(os.path.join(folder, "neg_samples.pickle"), ["a.png", again])
    with pytest.raises(UserError, match="twice"):
        load_split(folder, "train")


def test_inference_batches_keep_the_order_and_name_the_bad(plain, tmp_path):
    paths = list(plain.paths)
    paths.insert(5, str(tmp_path / "gone.png"))
    seen, bad = [], []
    for good, images, failed in read_batches(iter(paths), 4, SIZE):
        assert len(good) == len(images) and len(good) + len(failed) <= 4
        seen += good
        bad += failed
    assert seen == list(plain.paths)
    assert bad == [(paths[5], "no such file")]


class TestAugmentation:
    def test_detail_is_no_cue(self):
        """Sharp and soft images come out with overlapping sharpness.

        Without augmentation the soft class is told from the sharp one by its detail alone.
        """
        import cv2

        rng = np.random.RandomState(0)
        sharp = [rng.randint(0, 256, (96, 96, 3)).astype(np.uint8) for _ in range(32)]
        sharp = [cv2.GaussianBlur(each, (0, 0), 1) for each in sharp]
        soft = [cv2.resize(cv2.resize(each, (24, 24), interpolation=cv2.INTER_AREA), (96, 96))
                for each in sharp]

        def detail(images):
            return np.array([cv2.Laplacian(image, cv2.CV_64F).std() for image in images])

        assert detail(soft).max() < detail(sharp).min()
        out = Augmenter(96)(soft + sharp, [0] * 32 + [1] * 32, seed=0)
        assert (detail(out[:32])[:, np.newaxis] > detail(out[32:])).mean() > 0.1

    def test_place_and_size_are_no_cue(self):
        """A mark in the middle of every image lands elsewhere, larger and smaller."""
        picture = np.zeros((96, 96, 3), np.uint8)
        picture[44:52, 44:52] = 255
        augmenter = Augmenter(96, hidden_face_share=0)
        out = augmenter([picture] * 64 + [np.zeros_like(picture)] * 64, [0] * 64 + [1] * 64, 5)[:64]
        centres, areas = [], []
        for image in out:
            bright = np.argwhere(image.min(axis=2) > 0.6 * max(1, image.max()))
            if len(bright):
                centres.append(bright.mean(axis=0))
                areas.append(len(bright))
        assert np.std(centres, axis=0).min() > 3
        assert np.percentile(areas, 90) > 2 * np.percentile(areas, 10)

    def test_parts(self):
        """Framing leaves a plain image's colour, distortion its left and right, none all."""
        picture = np.full((96, 96, 3), (200, 30, 90), np.uint8)
        picture[:, :48] = (190, 40, 80)
        batch, labels = [picture] * 32, [0] * 16 + [1] * 16
        seed = 1 if np.__version__ < "1.19" else 4  # imgaug's draws differ from NumPy 1.19 on
        framed, distorted, plain = (
            Augmenter(96, kind)(batch, labels, seed) for kind in ("framing", "distortion", "none"))
        np.testing.assert_array_equal(plain, batch)
        # Between the two colours only, where the image is: in the middle of nearly every one.
        off = np.abs(framed[:, 48, 48].astype(int) - (195, 35, 85)).max(axis=1)
        assert (off <= 5).mean() > 0.7
        assert (np.abs(distorted[:, 48, 48].astype(int) - (195, 35, 85)).max(axis=1) > 5).any()
        red = distorted[..., 0].astype(float)
        assert (red[:, :, 52:].mean(axis=(1, 2)) >= red[:, :, :44].mean(axis=(1, 2)) - 1).all()
        assert (framed[:, :, 52:, 0].mean(axis=(1, 2)) < framed[:, :, :44, 0].mean(
            axis=(1, 2))).any()

    def test_labels_get_the_same_distortions(self, sample_dir):
        """Grey images stay three equal channels or become coloured at the same rate."""
        batches = TrainingBatches(load_split(sample_dir, "train"), 500, SIZE, seed=2)
        images, labels, _ = batches.batch(0)
        coloured = np.array([np.ptp(image.astype(int), axis=2).max() > 8 for image in images])
        assert abs(coloured[labels == 0].mean() - coloured[labels == 1].mean()) < 0.2
        assert 0.1 < coloured.mean() < 0.9
