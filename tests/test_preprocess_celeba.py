"""CelebA's layout to file lists, and the embedded data set."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from skimage.data import lfw_subset

import preprocess_celeba
from pictures.decode import read_image
from pictures.lists import LISTS, load_list, resolve

FACE_LISTS = {split: names[0] for split, names in LISTS.items()}


def portrait(number):
    """A picture of CelebA's size that no other number has."""
    rng = np.random.RandomState(number)
    return Image.fromarray(rng.randint(0, 256, (218, 178, 3)).astype(np.uint8))


@pytest.fixture
def celeba(tmp_path):
    """A small copy of CelebA's layout: images 1 to 10; 6 train, 2 validation, 2 test."""
    folder = tmp_path / "data" / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    lines = []
    for number in range(1, 11):
        name = "{:06d}.jpg".format(number)
        portrait(number).save(str(folder / "img_align_celeba" / name))
        lines.append("{} {}\n".format(name, 0 if number <= 6 else 1 if number <= 8 else 2))
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    return folder


def lists(data_dir):
    return {split: [os.path.basename(name) for name in load_list(os.path.join(str(data_dir), name))]
            for split, name in FACE_LISTS.items()}


def test_the_partition_file_decides(celeba, run_script):
    data = celeba.parent
    outcome = run_script(preprocess_celeba, "--data-dir", data)
    assert outcome.code == 0
    assert lists(data) == {
        "train": ["{:06d}.jpg".format(n) for n in range(1, 7)],
        "val": ["000007.jpg", "000008.jpg"], "test": ["000009.jpg", "000010.jpg"]}
    first = load_list(str(data / FACE_LISTS["train"]))[0]
    assert first == os.path.join("celeba", "img_align_celeba", "000001.jpg")


def test_images_elsewhere_are_named_absolutely(celeba, run_script, tmp_path):
    outcome = run_script(
        preprocess_celeba, "--data-dir", tmp_path / "other", "--celeba-dir", celeba)
    assert outcome.code == 0
    for name in load_list(str(tmp_path / "other" / FACE_LISTS["test"])):
        assert os.path.isabs(name) and os.path.exists(name)


def test_official_ranges_where_the_partition_file_is_absent():
    names = ["{:06d}.jpg".format(n) for n in (1, 162770, 162771, 182637, 182638, 202599)]
    assert preprocess_celeba._official_partition(names) == {
        "train": names[:2], "val": names[2:4], "test": names[4:]}


def test_names_outside_the_official_ranges_are_left_out(capsys):
    partition = preprocess_celeba._official_partition(["000000.jpg", "202600.jpg", "me.jpg"])
    assert partition == {"train": [], "val": [], "test": []}
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_bad_images_are_reported_counted_and_left_out(celeba, run_script):
    images = celeba / "img_align_celeba"
    (images / "000001.jpg").write_bytes(b"")
    whole = (images / "000002.jpg").read_bytes()
    (images / "000002.jpg").write_bytes(whole[:len(whole) // 2])
    (images / "000003.jpg").unlink()
    (images / "000009.jpg").write_bytes((images / "000004.jpg").read_bytes())
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent)
    assert outcome.code == 0
    assert "3 bad, 1 duplicate" in outcome.out
    for name, cause in (("000001", "empty"), ("000002", "truncated"), ("000003", "no such file"),
                        ("000004", "same picture")):
        assert [line for line in outcome.err.splitlines() if name in line and cause in line]
    found = lists(celeba.parent)
    assert found["train"] == ["000005.jpg", "000006.jpg"]
    assert found["test"] == ["000009.jpg", "000010.jpg"], "the test split keeps its copy"


def test_limit_keeps_the_proportions(celeba, run_script):
    assert run_script(preprocess_celeba, "--data-dir", celeba.parent, "--limit", 5).code == 0
    assert {split: len(names) for split, names in lists(celeba.parent).items()} == {
        "train": 3, "val": 1, "test": 1}


@pytest.mark.parametrize("content", [
    b"000001.jpg\n", b"000001.jpg 3\n", b"000001.jpg 0 extra\n", b"../../secret 0\n", b"",
    b"000001.jpg 0\n000001.jpg 2\n", b"\xff\xfe\x00\x01"])
def test_damaged_partition_files_are_refused(celeba, run_script, content):
    (celeba / "list_eval_partition.txt").write_bytes(content)
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert "list_eval_partition.txt" in outcome.err
    assert not list(celeba.parent.glob("*.pickle"))


def test_no_celeba_is_one_line_and_exit_code_2(tmp_path):
    """The whole command, as a user types it."""
    ended = subprocess.run(
        [sys.executable, os.path.join(ROOT, "preprocess_celeba.py"), "--data-dir", str(tmp_path)],
        capture_output=True, text=True)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1 and "--sample" in ended.stderr
    assert os.listdir(str(tmp_path)) == []


def test_an_empty_split_writes_no_list(celeba, run_script):
    (celeba / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n")
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent)
    assert outcome.code == 2 and "test split" in outcome.err
    assert not list(celeba.parent.glob("*.pickle"))


def test_the_sample_is_the_200_real_pictures(sample_dir):
    counts = {"train": 70, "val": 10, "test": 20}
    originals = (lfw_subset() * 255).round().astype(np.uint8)
    found = []
    for class_index in (0, 1):
        for split in ("train", "val", "test"):
            names = load_list(os.path.join(sample_dir, LISTS[split][class_index]))
            assert len(names) == counts[split]
            found += [read_image(resolve(name, sample_dir)) for name in names]
    assert len(found) == 200
    for picture, original in zip(found, originals):
        assert picture.shape == (25, 25, 3)
        assert np.abs(picture.astype(int) - original[..., np.newaxis]).max() <= 1
