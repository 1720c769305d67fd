"""gen_neg_samples.py --from-dir, the split rule and the command line."""

import csv
import functools
import os
import pickle

import numpy as np
import pytest
from negatives_server import encode, texture
from PIL import Image
from skimage import data as photographs

import gen_neg_samples
from darknet_face.images import decode, near_duplicates, splits
from darknet_face.images.file_lists import LISTS, load_list, resolve, save_list
from darknet_face.negatives.store import NegativeSample

NAMES = [negatives for _, negatives in LISTS.values()]


@pytest.fixture
def run(run_script):
    """Run the script in this process, faces kept: its exit code, stdout and stderr."""
    return functools.partial(run_script, gen_neg_samples, "--keep-faces")


def fill(folder, category, numbers, form="JPEG"):
    """Write one texture per number into a category."""
    os.makedirs(os.path.join(str(folder), category), exist_ok=True)
    for number in numbers:
        name = "{}.{}".format(number, form.lower())
        Image.fromarray(texture(number, 48, 64)).save(os.path.join(str(folder), category, name))


def read_lists(data):
    return [load_list(os.path.join(str(data), name)) for name in NAMES]


def report(path):
    with open(str(path), encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_lists_are_disjoint_whole_and_stratified(run, tmp_path):
    fill(tmp_path / "in", "dog", range(60))
    fill(tmp_path / "in", "cat", range(100, 140))
    fill(tmp_path / "in", "owl", range(200, 203))
    code, _, err = run("--from-dir", tmp_path / "in", "--data-dir", tmp_path / "data")
    assert (code, err) == (0, "")
    train, val, test = read_lists(tmp_path / "data")
    assert len(set(train + val + test)) == len(train + val + test) == 103
    for names in (train, val, test):
        assert {os.path.basename(os.path.dirname(name)) for name in names} == {"dog", "cat", "owl"}
    assert len(train) > 65  # about 80 %


def test_names_are_relative_only_under_the_data_directory(run, tmp_path):
    fill(tmp_path / "data" / "own", "dog", range(4))
    run("--from-dir", tmp_path / "data" / "own", "--data-dir", tmp_path / "data")
    names = sum(read_lists(tmp_path / "data"), [])
    assert sorted(names) == [os.path.join("own", "dog", "{}.jpeg".format(n)) for n in range(4)]
    run("--from-dir", tmp_path / "data" / "own", "--data-dir", tmp_path / "elsewhere")
    names = sum(read_lists(tmp_path / "elsewhere"), [])
    assert all(os.path.isabs(name) for name in names)
    for name in names:
        decode.read_image(resolve(name, str(tmp_path / "elsewhere")))


def test_same_picture_under_two_names_is_kept_once(run, tmp_path):
    folder = tmp_path / "in"
    fill(folder, "dog", range(20), "PNG")
    fill(folder, "cat", range(100, 110), "PNG")
    for number in range(20):
        again = Image.fromarray(texture(number, 48, 64))
        again.save(str(folder / "cat" / "copy{}.png".format(number)))
        again.resize((128, 96), Image.BICUBIC).save(
            str(folder / "dog" / "large{}.jpg".format(number)), quality=60)
    code, out, _ = run("--from-dir", folder, "--data-dir", tmp_path / "data",
                       "--val-size", "0.3", "--test-size", "0.3")
    assert code == 0
    kept = sum(read_lists(tmp_path / "data"), [])
    hashes = [near_duplicates.perceptual_hash(decode.read_image(name)) for name in kept]
    assert len(kept) == 30
    assert len(set(near_duplicates.near_duplicate_groups(np.array(hashes)))) == 30
    causes = [row["cause"] for row in report(tmp_path / "data" / "neg_samples_report.csv")]
    assert sorted(causes) == ["duplicate"] * 20 + ["near duplicate"] * 20
    assert "skipped: 20 (near duplicate)" in out


def test_bad_pictures_are_reported_counted_and_skipped(run, tmp_path):
    folder = tmp_path / "in"
    fill(folder, "dog", range(10))
    whole = encode(texture(50))
    (folder / "dog" / "empty.jpg").write_bytes(b"")
    (folder / "dog" / "half.jpg").write_bytes(whole[:len(whole) // 2])
    (folder / "dog" / "page.png").write_bytes(b"<html></html>")
    code, out, err = run("--from-dir", folder, "--data-dir", tmp_path / "data")
    assert code == 0
    assert len(sum(read_lists(tmp_path / "data"), [])) == 10
    assert [line.split(":")[0] for line in err.splitlines()] == ["warning"] * 3
    assert all(name in err for name in ("empty.jpg", "half.jpg", "page.png"))
    assert "skipped: 3 (bad image)" in out


def test_pictures_outside_the_categories(run, tmp_path):
    fill(tmp_path / "in", ".", range(5))
    code, _, err = run("--from-dir", tmp_path / "in", "--data-dir", tmp_path / "flat")
    assert (code, err) == (0, "")
    assert len(sum(read_lists(tmp_path / "flat"), [])) == 5
    fill(tmp_path / "in", "dog", range(10, 14))
    code, _, err = run("--from-dir", tmp_path / "in", "--data-dir", tmp_path / "data")
    assert code == 0 and "5 images outside" in err
    assert len(sum(read_lists(tmp_path / "data"), [])) == 4


def test_sizes_as_counts_and_fractions(run, tmp_path):
    fill(tmp_path / "in", "dog", range(200))
    run("--from-dir", tmp_path / "in", "--data-dir", tmp_path / "a", "--test-size", "0.5")
    run("--from-dir", tmp_path / "in", "--data-dir", tmp_path / "b", "--test-size", "100")
    assert read_lists(tmp_path / "a") == read_lists(tmp_path / "b")
    assert 75 <= len(read_lists(tmp_path / "a")[2]) <= 125


def as_pictures(digests):
    return [NegativeSample("{:.6f}".format(splits.position(digest)),
                           "category " + digest[-1], digest,
                           hash=np.random.RandomState(int(digest[:8], 16)).rand(256) < 0.5)
            for digest in digests]


def random_digests(random, count):
    """Hashes of images that fall into one of three categories."""
    return ["{:060x}000{}".format(random.randint(2 ** 62) << 178, random.randint(3))
            for _ in range(count)]


def test_added_pictures_never_move_one_from_train_to_test():
    for seed in range(200):
        random = np.random.RandomState(seed)
        digests = random_digests(random, random.randint(1, 40))
        added = random_digests(random, random.randint(1, 40))
        before, _ = gen_neg_samples.divide(as_pictures(digests), 0.1, 0.15)
        after, _ = gen_neg_samples.divide(as_pictures(digests + added), 0.1, 0.15)
        trained = {picture.digest for picture in before["train"]}
        assert not trained & {picture.digest for picture in after["test"]}
        assert sum(map(len, after.values())) == len(digests + added)


def test_added_duplicates_never_move_one_from_train_to_test():
    """Neither do copies in other categories, or images that are like two others."""
    for seed in range(300):
        random = np.random.RandomState(seed)
        known = list(zip(random_digests(random, 25), near_hashes(random, 25)))
        placed = [known[random.randint(len(known))] for _ in range(40)]
        pictures = [NegativeSample(
            str(number), "category {}".format(random.randint(3)), digest, bits)
                    for number, (digest, bits) in enumerate(placed)]
        before, _ = gen_neg_samples.divide(pictures[:20], 0.02, 0.02)
        after, rejected = gen_neg_samples.divide(pictures, 0.02, 0.02)
        for trained in before["train"]:
            for tested in after["test"]:
                distance = np.count_nonzero(trained.hash != tested.hash)
                assert distance > near_duplicates.NEAR_BITS
        assert sum(map(len, after.values())) + len(rejected) == len(pictures)


def near_hashes(random, count):
    """Perceptual hashes in chains: neighbours are near duplicates, others are not."""
    hashes = []
    for _ in range(count):
        start = hashes[random.randint(len(hashes))] if hashes and random.rand() < 0.4 else (
            random.rand(256) < 0.5)
        flips = np.zeros(256, bool)
        flips[random.choice(256, near_duplicates.NEAR_BITS, replace=False)] = True
        hashes.append(start ^ flips)
    return hashes


def test_a_growing_group_of_near_duplicates_moves_away_from_test():
    """An image like one that was trained on does not replace it in the test list."""
    bits = np.random.RandomState(0).rand(256) < 0.5
    near = bits.copy()
    near[:near_duplicates.NEAR_BITS] ^= True
    trained = NegativeSample("trained", "dog", "f" * 64, bits)
    for digest in ("0" * 64, "8" * 64):
        splits, rejected = gen_neg_samples.divide(
            [NegativeSample("new", "dog", digest, near), trained], 0.1, 0.1)
        assert sum(splits.values(), []) == [trained]
        assert [(row.name, row.cause) for row in rejected] == [("new", "near duplicate")]


@pytest.mark.parametrize("arguments, words", [
    (["--from-dir", "missing"], "missing: not a folder"),
    (["--from-dir", ""], "not a folder"),
    (["--from-dir", "file.txt"], "file.txt: not a folder"),
    (["--from-dir", "empty"], "empty: no usable image"),
    (["--from-dir", "spoiled"], "spoiled: no usable image"),
    (["--from-dir", "two"], "leave none for the train list"),
    (["--from-dir", "good", "--test-size", "1000"], "--test-size 1000: there are only 12"),
    (["--from-dir", "good", "--val-size", "0.5", "--test-size", "0.5"], "nothing for training"),
    (["--from-dir", "good", "--data-dir", "file.txt"], "file.txt"),
])
def test_bad_input(run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    fill("good", "dog", range(12))
    fill("two", "dog", range(1, 2))
    (tmp_path / "empty").mkdir()
    (tmp_path / "spoiled").mkdir()
    (tmp_path / "spoiled" / "a.jpg").write_bytes(b"x")
    (tmp_path / "file.txt").write_text("text")
    code, _, err = run(*arguments)
    errors = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert code == 2
    assert len(errors) == 1 and errors[0].startswith("error: ") and words in errors[0]
    assert not list(tmp_path.glob("data/*"))


@pytest.mark.parametrize("arguments", [
    ["--test-size", "0"], ["--test-size", "1.5"], ["--val-size", "nan"], ["--val-size", "-1"],
    ["--val-size", "many"], ["--per-query", "0"], ["--workers", "1000"], ["--rate", "0"],
    ["--source", "bing"], ["--queries"], ["--source", "openverse", "--from-dir", "."],
    ["--min-side", "513"],
])
def test_bad_options(run, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code == 2
    assert arguments[0] in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_failed_run_leaves_the_old_lists(run, tmp_path):
    fill(tmp_path / "in", "dog", range(12))
    run("--from-dir", tmp_path / "in", "--data-dir", tmp_path / "data")
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    code, _, _ = run("--from-dir", tmp_path / "in", "--data-dir", tmp_path / "data",
                     "--test-size", "50")
    assert code == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before


def test_a_kill_between_the_lists_leaves_no_picture_in_two(run, tmp_path, monkeypatch):
    """Three images are one per list; further ones move them towards training."""
    sizes = ["--val-size", "0.01", "--test-size", "0.01"]
    for first in range(0, 30, 3):
        folder, data = tmp_path / "in{}".format(first), tmp_path / "data{}".format(first)
        fill(folder, "dog", range(first, first + 3))
        run("--from-dir", folder, "--data-dir", data, *sizes)
        fill(folder, "dog", range(100, 130))
        monkeypatch.setattr(gen_neg_samples, "save_list", save_some(2))
        run("--from-dir", folder, "--data-dir", data, *sizes)
        monkeypatch.undo()
        names = sum(read_lists(data), [])
        assert len(set(names)) == len(names)


def save_some(count):
    """A save_list that fails after so many lists, as if the disk were full."""
    left = iter(range(count))

    def save(path, strings):
        if next(left, None) is None:
            raise OSError("No space left on device")
        save_list(path, strings)

    return save


def test_faces_in_a_folder_are_kept_with_a_warning(run_script, tmp_path):
    """As when somebody names the parent folder of faces and other things."""
    folder = tmp_path / "in"
    fill(folder, "things", range(12))
    (folder / "faces").mkdir()
    face = photographs.astronaut()[:256, 100:356]
    for number in range(4):
        shifted = face[:, 8 * number:]
        Image.fromarray(shifted).save(str(folder / "faces" / "{}.png".format(number)))
    arguments = ["--from-dir", folder, "--data-dir", tmp_path / "data"]
    code, _, err = run_script(gen_neg_samples, *arguments)
    assert code == 0
    assert err.startswith("warning: {}: human faces found in 4 of 16 images".format(folder))
    assert err.count("\n") == 1
    assert all("faces/{}.png".format(number) in err for number in range(3)) and "3.png" not in err
    listed = {os.path.basename(os.path.dirname(name))
              for name in sum(read_lists(tmp_path / "data"), [])}
    assert listed == {"things", "faces"}
    code, _, err = run_script(gen_neg_samples, *arguments, "--keep-faces")
    assert (code, err) == (0, "")


def test_names_in_the_report_are_printable(run, tmp_path):
    fill(tmp_path / "in", "dog", range(10))
    (tmp_path / "in" / "dog" / "a\x1b[31m.png").write_bytes(b"x")
    code, _, _ = run("--from-dir", tmp_path / "in", "--data-dir", tmp_path / "data")
    assert code == 0
    rows = report(tmp_path / "data" / "neg_samples_report.csv")
    assert [os.path.basename(row["name"]) for row in rows] == ["a\\x1b[31m.png"]


def test_lists_are_plain_pickles(run, tmp_path):
    fill(tmp_path / "in", "dog", range(12))
    run("--from-dir", tmp_path / "in", "--data-dir", tmp_path / "data")
    for name in NAMES:
        with open(str(tmp_path / "data" / name), "rb") as stream:
            names = pickle.load(stream)
        assert type(names) is list and {type(item) for item in names} == {str}
