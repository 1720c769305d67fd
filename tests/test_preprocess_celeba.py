"""CelebA's layout to file lists, and the embedded data set."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import preprocess_celeba
from darknet_face.images.file_lists import LISTS, load_list

FACE_LISTS = {split: names[0] for split, names in LISTS.items()}


def portrait(number):
    """An image of CelebA's size that no other number has."""
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
                        ("000004", "same image")):
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


@pytest.mark.parametrize("names", [
    ["{:05d}.png".format(number) for number in range(30)],  # CelebA-HQ
    ["{:06d}.jpg".format(number) for number in range(1, 31)]])  # the beginning of CelebA
@pytest.mark.parametrize("options", [[], ["--limit", 10]])
def test_other_collections_and_parts_of_celeba(celeba, run_script, names, options):
    (celeba / "list_eval_partition.txt").unlink()
    for path in (celeba / "img_align_celeba").iterdir():
        path.unlink()
    for number, name in enumerate(names):
        portrait(number).save(str(celeba / "img_align_celeba" / name))
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent, *options)
    error = outcome.err.splitlines()[-1]
    assert outcome.code == 2 and "none of its 30 images is for the " in error
    assert "preprocess_folders.py --faces {} ".format(celeba / "img_align_celeba") in error


def test_another_layout(celeba, run_script):
    (celeba / "img_align_celeba").rename(celeba / "CelebA-HQ-img")
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "preprocess_folders.py --faces {} ".format(celeba / "CelebA-HQ-img") in outcome.err


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


def test_kaggle_s_copy(celeba, run_script):
    """Nested folders, a partition in CSV with a header, and CR LF."""
    nested = celeba / "img_align_celeba" / "img_align_celeba"
    (celeba / "img_align_celeba").rename(celeba / "inner")
    (celeba / "img_align_celeba").mkdir()
    (celeba / "inner").rename(nested)
    lines = (celeba / "list_eval_partition.txt").read_text().replace(" ", ",")
    (celeba / "list_eval_partition.txt").unlink()
    (celeba / "list_eval_partition.csv").write_bytes(
        b"\xef\xbb\xbf" + ("image_id,partition\n" + lines).replace("\n", "\r\n").encode())
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent)
    assert (outcome.code, outcome.err) == (0, "")
    assert "10 images, divided as" in outcome.out and "list_eval_partition.csv" in outcome.out
    found = lists(celeba.parent)
    assert len(found["train"]) == 6 and found["test"] == ["000009.jpg", "000010.jpg"]


@pytest.mark.parametrize("folder", ["img_align_celeba", "img_align_celeba_png"])
def test_pngs_with_the_official_list(celeba, run_script, folder):
    for path in (celeba / "img_align_celeba").iterdir():
        Image.open(str(path)).save(str(path)[:-3] + "png")
        path.unlink()
    (celeba / "img_align_celeba").rename(celeba / folder)
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent)
    assert (outcome.code, outcome.err) == (0, "")
    assert lists(celeba.parent)["val"] == ["000007.png", "000008.png"]


def test_many_missing_images_are_one_line(celeba, run_script):
    with open(str(celeba / "list_eval_partition.txt"), "a") as stream:
        stream.writelines("{:06d}.jpg 0\n".format(number) for number in range(11, 2011))
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent, "--limit", 10)
    assert outcome.code == 0 and len(outcome.err.splitlines()) == 1
    assert "2,000 no such file (000011.jpg, 000012.jpg, 000013.jpg, ...)" in outcome.err
    assert len(sum(lists(celeba.parent).values(), [])) == 10, "--limit counts what is there"


def test_many_bad_images_are_few_lines(celeba, run_script):
    for number in range(11, 61):
        (celeba / "img_align_celeba" / "{:06d}.jpg".format(number)).write_bytes(b"")
    with open(str(celeba / "list_eval_partition.txt"), "a") as stream:
        stream.writelines("{:06d}.jpg 0\n".format(number) for number in range(11, 61))
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent)
    assert outcome.code == 0 and "50 bad" in outcome.out
    assert len(outcome.err.splitlines()) == preprocess_celeba.WARNINGS + 1


@pytest.mark.parametrize("start, end", [("", "\n"), ("\ufeff", "\r\n")])
def test_partitions_in_utf_8(celeba, run_script, start, end):
    """With a byte-order mark, CR LF and blanks in names."""
    images = celeba / "img_align_celeba"
    lines = []
    for number in range(1, 11):
        name = "größe {}.jpg".format(number)
        (images / "{:06d}.jpg".format(number)).rename(images / name)
        lines.append("{} {}".format(name, 0 if number <= 6 else 1 if number <= 8 else 2))
    (celeba / "list_eval_partition.txt").write_bytes(
        (start + end.join(lines) + end).encode("utf-8"))
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent)
    assert (outcome.code, outcome.err) == (0, "")
    assert lists(celeba.parent)["test"] == ["größe 9.jpg", "größe 10.jpg"]


def test_odd_names_without_a_partition(celeba, run_script):
    """Digits that int() does not read, and many odd names in few lines."""
    (celeba / "list_eval_partition.txt").unlink()
    for name in ["²².jpg"] + ["odd{}.jpg".format(number) for number in range(30)]:
        portrait(99).save(str(celeba / "img_align_celeba" / name), "JPEG")
    for name in ("170000.jpg", "200000.jpg"):
        portrait(int(name[:6])).save(str(celeba / "img_align_celeba" / name))
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent)
    assert outcome.code == 0
    assert len(outcome.err.splitlines()) == preprocess_celeba.WARNINGS + 1
    assert "21 more names" in outcome.err
    assert lists(celeba.parent)["val"] == ["170000.jpg"]


def test_a_pipe_for_a_partition_is_refused(celeba, run_script):
    (celeba / "list_eval_partition.txt").unlink()
    os.mkfifo(str(celeba / "list_eval_partition.txt"))
    outcome = run_script(preprocess_celeba, "--data-dir", celeba.parent)
    assert outcome.code == 2 and "not a regular file" in outcome.err


def test_a_folder_without_images(tmp_path, run_script):
    (tmp_path / "img_align_celeba").mkdir()
    outcome = run_script(preprocess_celeba, "--data-dir", tmp_path, "--celeba-dir", tmp_path)
    assert outcome.code == 2 and "no images in it" in outcome.err
