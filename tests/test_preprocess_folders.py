"""Folders of own images to file lists: splits by content, duplicates, doubts, clear errors."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import preprocess_folders
from darknet_face.classes import FACE, NON_FACE
from darknet_face.images.decode import read_image
from darknet_face.images.file_lists import LISTS, check_disjoint, load_list, load_split, resolve
from preprocess_folders import Labelled, divide


def texture(seed, side=64):
    """An image that is like no other: 16 x 16 random colours, enlarged."""
    colours = np.random.RandomState(seed).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize((side, side), Image.BICUBIC)


def fill(folder, seeds, kind="png", **options):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        texture(seed).save(str(folder / "{:04d}.{}".format(seed, kind)), **options)
    return folder


def listed(data, name, base=True):
    names = load_list(os.path.join(str(data), name))
    return [os.path.basename(each) for each in names] if base else names


def by_split(data, column):
    return {split: listed(data, names[column]) for split, names in LISTS.items()}


@pytest.fixture
def folders(tmp_path):
    """40 faces and 40 non-faces, as far as the script can know without the check."""
    return fill(tmp_path / "data" / "f", range(40)), fill(tmp_path / "n", range(100, 140))


@pytest.fixture
def run(run_script, tmp_path):
    """Run the script without the check; ``run("--faces", f).code``."""
    return lambda *arguments: run_script(
        preprocess_folders, "--data-dir", tmp_path / "data", "--no-check", *arguments)


def test_six_lists_of_all_pictures(run, folders, tmp_path):
    outcome = run("--faces", folders[0], "--non-faces", folders[1], "--val-size", 0.25,
                  "--test-size", 0.25)
    assert (outcome.code, outcome.err) == (0, "")
    data = str(tmp_path / "data")
    splits = {name: load_split(data, name) for name in LISTS}
    check_disjoint(splits)
    for column, folder in enumerate(folders):
        assert sorted(sum(by_split(data, column).values(), [])) == sorted(os.listdir(str(folder)))
    assert listed(data, LISTS["train"][0], base=False)[0].startswith("f" + os.sep)
    assert os.path.isabs(listed(data, LISTS["train"][1], base=False)[0])
    sizes = [len(split.faces) for split in splits.values()]
    assert sizes[0] > 10 and min(sizes) >= 5
    assert "{} faces".format(sizes[0]) in outcome.out


def test_pictures_added_later_leave_the_others_in_their_splits(run, tmp_path):
    faces, others = fill(tmp_path / "f", range(60)), fill(tmp_path / "n", range(100, 160))
    assert run("--faces", faces, "--non-faces", others).code == 0
    before = by_split(tmp_path / "data", 0)
    (faces / "0001.png").rename(faces / "renamed.png")
    fill(faces, range(60, 120))
    assert run("--faces", faces, "--non-faces", others).code == 0
    after = by_split(tmp_path / "data", 0)
    rank = {"test": 0, "val": 1, "train": 2}
    now = {name: split for split, names in after.items() for name in names}
    now["0001.png"] = now["renamed.png"]
    moved = [name for split, names in before.items() for name in names
             if rank[now[name]] < rank[split]]
    assert moved == [], "what was trained on never becomes a test"
    same = sum(now[name] == split for split, names in before.items() for name in names)
    assert same >= 58, "only the one that is a test in any case may move up"


def test_shares(run, folders, tmp_path):
    assert run("--faces", folders[0], "--non-faces", folders[1], "--val-size", 0.3,
               "--test-size", 0.4).code == 0
    found = by_split(tmp_path / "data", 0)
    assert 4 <= len(found["val"]) <= 20 and 8 <= len(found["test"]) <= 24


def test_duplicates_and_near_duplicates(run, folders, tmp_path):
    faces, others = folders
    copies = fill(faces / "sub", range(5))
    small = fill(faces / "jpeg", [])
    for seed in range(40):
        texture(seed).save(str(small / "s{:04d}.jpg".format(seed)), quality=85)
    outcome = run("--faces", faces, "--non-faces", others)
    assert outcome.code == 0
    assert "5 duplicate ({}".format(copies / "0000.png") in outcome.out
    now = {name: split for split, names in by_split(tmp_path / "data", 0).items()
           for name in names}
    assert len(now) == 80
    for seed in range(40):
        assert now["{:04d}.png".format(seed)] == now["s{:04d}.jpg".format(seed)]


def test_pictures_of_both_classes_are_left_out(run, folders, tmp_path):
    faces, others = folders
    fill(others, [3])
    texture(4, side=80).save(str(others / "like4.png"))
    outcome = run("--faces", faces, "--non-faces", others, "--val-size", 0.3, "--test-size", 0.3)
    assert outcome.code == 0 and len(outcome.err.splitlines()) == 1
    assert "4 in both classes" in outcome.err and "4 in both classes" in outcome.out
    names = sum(sum((list(by_split(tmp_path / "data", column).values())
                     for column in (0, 1)), []), [])
    assert len(names) == 78 and not {"0003.png", "0004.png", "like4.png"} & set(names)


def test_what_is_left_out_is_counted(run, folders):
    faces, others = folders
    for name in ("film.mp4", "notes.txt", ".hidden.png", "empty.png"):
        (faces / name).write_bytes(b"")
    (others / "page.jpg").write_bytes(b"<html></html>")
    outcome = run("--faces", faces, "--non-faces", others)
    assert outcome.code == 0
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("skipped")]
    assert line.startswith("skipped 5: 2 bad image (")
    for part in ("empty.png: empty file", "1 hidden", "1 unknown extension", "1 video"):
        assert part in line


def test_links_to_folders_are_followed_once(run, folders, tmp_path):
    os.symlink(str(fill(tmp_path / "store", range(200, 210))), str(folders[0] / "link"))
    os.symlink("..", str(folders[0] / "loop"))
    outcome = run("--faces", folders[0], folders[0] / "link", "--non-faces", folders[1])
    assert outcome.code == 0 and "duplicate" not in outcome.out
    assert len(sum(by_split(tmp_path / "data", 0).values(), [])) == 50


def test_a_class_inside_the_other_s_folder(run, tmp_path):
    fill(tmp_path / "all", range(20))
    fill(tmp_path / "all" / "others", range(100, 120))
    assert run("--faces", tmp_path / "all", "--non-faces", tmp_path / "all" / "others").code == 0
    for column, first in ((0, "0000.png"), (1, "0100.png")):
        names = sum(by_split(tmp_path / "data", column).values(), [])
        assert len(names) == 20 and first in names


@pytest.mark.parametrize("option, part", [("--faces", "faces"), ("--non-faces", "others")])
def test_one_class_of_a_further_source(run, folders, tmp_path, option, part):
    assert run(option, folders[0], "--name", "mine").code == 0
    made = sorted(name for name in os.listdir(str(tmp_path / "data")) if name != "f")
    assert made == ["mine_{}_{}.pickle".format(part, split) for split in ("test", "train", "val")]
    names = sum((listed(tmp_path / "data", name) for name in made), [])
    assert sorted(names) == sorted(os.listdir(str(folders[0])))


def test_both_classes_of_a_further_source(run, folders, tmp_path):
    assert run("--faces", folders[0], "--non-faces", folders[1], "--name", "a-b_1").code == 0
    assert len(list((tmp_path / "data").glob("a-b_1_*_*.pickle"))) == 6


@pytest.mark.parametrize("arguments, message", [
    ([], "name folders with --faces and --non-faces"),
    (["--faces", "{f}"], "add --non-faces, or write one source's lists with --name"),
    (["--non-faces", "{n}"], "add --faces"),
    (["--faces", "{f}", "--non-faces", "{n}/gone"], "--non-faces .*gone: no such folder"),
    (["--faces", "{f}/0000.png", "--non-faces", "{n}"], "not a folder"),
    (["--faces", "{f}", "--non-faces", "{f}"], "given as --faces and as --non-faces"),
    (["--faces", "{f}", "--non-faces", "{empty}"], "no images in it; --non-faces needs"),
    (["--faces", "{videos}", "--non-faces", "{n}"], "no images in it, only 1 video"),
    (["--faces", "{bad}", "--non-faces", "{n}"], "no usable image in .*empty file"),
    (["--faces", "{two}", "--non-faces", "{n}"], "2 different images leave none for the t"),
    (["--faces", "{f}", "--non-faces", "{n}", "--val-size", "0.5", "--test-size", "0.5"],
     "leave nothing for training"),
    (["--faces", "{f}", "--name", "../x"], "a name has letters"),
    (["--faces", "{f}", "--name", "celeba"], "choose another"),
    (["--faces", "{f}", "--name", "x", "--review", "y.png"], "leave out --no-check"),
])
def test_every_error_is_one_line_and_leaves_nothing(run, folders, tmp_path, arguments, message):
    import re

    places = {"f": folders[0], "n": folders[1], "two": fill(tmp_path / "two", [1, 2])}
    for name in ("empty", "videos", "bad"):
        places[name] = tmp_path / name
        places[name].mkdir()
    (places["videos"] / "film.mp4").write_bytes(b"x")
    (places["bad"] / "a.png").write_bytes(b"")
    outcome = run(*[argument.format(**places) for argument in arguments])
    assert outcome.code == 2
    assert re.search(message, outcome.err.splitlines()[-1])
    assert not list((tmp_path / "data").glob("*.pickle"))


def test_divide_by_content_alone():
    """Groups below the shares' bounds; one that grows moves towards training, never back."""
    def member(place):
        return Labelled(str(place), FACE, "{:064x}".format(int(place * 16 ** 13) << 204), None)

    groups = [[member(place)] for place in (0.05, 0.15, 0.5, 0.9)]
    assert divide(groups, 0.1, 0.1) == {"test": ["0.05"], "val": ["0.15"], "train": ["0.5", "0.9"]}
    assert divide(groups[::-1], 0.1, 0.1) == divide(groups, 0.1, 0.1)
    grown = [[member(0.05), member(0.7)]] + groups[1:] + [[member(0.01)]]
    assert divide(grown, 0.1, 0.1) == {
        "test": ["0.01"], "val": ["0.15"], "train": ["0.05", "0.5", "0.7", "0.9"]}


def frames(folder, scenes, count=20):
    """Recordings of scenes that hardly change."""
    folder.mkdir()
    for scene in range(scenes):
        pixels = np.asarray(texture(500 + scene)).copy()
        for number in range(count):
            pixels[0, 0] = number
            Image.fromarray(pixels).save(str(folder / "{}-{}.png".format(scene, number)))
    return folder


def test_frames_of_two_recordings(run, folders, tmp_path):
    """They make no three lists, whatever the shares; the remedy is another one."""
    outcome = run("--faces", folders[0], "--non-faces", frames(tmp_path / "two", 2))
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert outcome.code == 2 and "--val-size" not in line
    for part in ("non-faces: 40 different images in only 2 groups of near duplicates",
                 "add images of other scenes", "--split-folders"):
        assert part in line
    assert not list((tmp_path / "data").glob("*.pickle"))


def test_frames_of_several_recordings(run, folders, tmp_path):
    """Each recording is in one list, and no list is empty."""
    outcome = run("--faces", folders[0], "--non-faces", frames(tmp_path / "five", 5))
    assert outcome.code == 0
    found = by_split(tmp_path / "data", 1)
    scenes = {split: {name[0] for name in names} for split, names in found.items()}
    assert sum(map(len, scenes.values())) == 5 and all(scenes.values())
    assert "non-faces: 100 different images in only 5 groups" in outcome.err


def test_few_images_of_a_class_are_not_divided_without_a_word(run, folders, tmp_path):
    outcome = run("--faces", folders[0], "--non-faces", fill(tmp_path / "few", range(700, 708)))
    assert outcome.code == 0
    (line,) = [line for line in outcome.err.splitlines() if ": non-faces: " in line]
    assert line.startswith("warning: non-faces: 8 different images leave 1 for validation and ")
    assert "add images, or raise --val-size and --test-size" in line


@pytest.fixture
def root(tmp_path):
    """root/{train,valid,test}/{Face,cats,dogs}; there are no cats for testing."""
    for index, split in enumerate(("train", "valid", "test")):
        for number, name in enumerate(("Face", "cats", "dogs")):
            if (split, name) != ("test", "cats"):
                first = 1000 * (number + 1) + 100 * index
                fill(tmp_path / "root" / split / name, range(first, first + 20 - 5 * index))
    return tmp_path / "root"


def test_folders_that_are_divided_already(run, root, tmp_path):
    outcome = run("--split-folders", root)
    assert (outcome.code, outcome.err) == (0, "")
    sizes = {split: [len(by_split(tmp_path / "data", label)[split]) for label in (0, 1)]
             for split in LISTS}
    assert sizes == {"train": [20, 40], "val": [15, 30], "test": [10, 10]}
    faces = by_split(tmp_path / "data", 0)
    assert sorted(faces["test"]) == sorted(os.listdir(str(root / "test" / "Face")))
    assert run("--split-folders", root, "--faces", "cats", "--name", "pets").code == 2
    assert run("--split-folders", root, "--faces", "dogs", "--name", "pets").code == 0
    assert len(listed(tmp_path / "data", "pets_faces_train.pickle")) == 20
    assert len(listed(tmp_path / "data", "pets_others_train.pickle")) == 40


def test_what_is_tested_with_is_not_trained_on(run, root, tmp_path):
    fill(root / "train" / "Face", [1200])  # as in test
    texture(1100, side=90).save(str(root / "train" / "Face" / "like.png"))  # as in valid
    fill(root / "valid" / "dogs", [3201])  # as in test
    outcome = run("--split-folders", root)
    assert outcome.code == 0 and len(outcome.err.splitlines()) == 1
    for part in ("the splits share images", "1 in train but like one in test (",
                 "1 in train but like one in val (", "1 in val but like one in test ("):
        assert part in outcome.err and (part in outcome.out or "share" in part)
    assert "1200.png" in by_split(tmp_path / "data", 0)["test"]
    assert not {"1200.png", "like.png"} & set(by_split(tmp_path / "data", 0)["train"])
    assert "3201.png" not in by_split(tmp_path / "data", 1)["val"]


def test_divided_folders_without_validation(run, root, tmp_path):
    import shutil

    shutil.rmtree(str(root / "valid"))
    assert run("--split-folders", root, "--val-size", 0.3).code == 0
    faces = by_split(tmp_path / "data", 0)
    assert sorted(faces["train"] + faces["val"]) == sorted(os.listdir(str(root / "train" / "Face")))
    assert 0 < len(faces["val"]) < 15 and len(faces["test"]) == 10
    shutil.rmtree(str(root / "test"))
    outcome = run("--split-folders", root)
    assert outcome.code == 2 and "no folder test or testing in it" in outcome.err
    outcome = run("--split-folders", tmp_path / "n")
    assert outcome.code == 2


def test_divided_folders_of_other_names(run, root):
    for split in ("train", "valid", "test"):
        (root / split / "Face").rename(root / split / "people")
    outcome = run("--split-folders", root)
    assert outcome.code == 2
    assert "has the folders cats, dogs, people, and none of them is for --faces" in outcome.err
    assert run("--split-folders", root, "--faces", "people").code == 0


class Seer:
    """Stands in for the released model: sees a face in what is bright."""

    image_size = 32

    def __call__(self, images):
        face = (images.mean(axis=(1, 2, 3)) > 127).astype(np.float32)
        return np.stack([face, 1 - face], axis=1)


@pytest.fixture
def bright(monkeypatch, tmp_path):
    """Bright faces and dark non-faces, with three and one in the wrong folder."""
    monkeypatch.setattr(preprocess_folders, "released_classifier", Seer)
    monkeypatch.setattr(preprocess_folders, "FEW", 1)
    for name, wrong, right in (("f", 0.3, 1), ("n", 1, 0.3)):
        (tmp_path / name).mkdir()
        for number in range(20):
            share = wrong if number < (3 if name == "f" else 1) else right
            image = np.asarray(texture(number + (0 if name == "f" else 50))) * 0.4 + 150
            Image.fromarray((image * share).astype(np.uint8)).save(
                str(tmp_path / name / "{:02d}.png".format(number)))
    return "--faces", tmp_path / "f", "--non-faces", tmp_path / "n", "--data-dir", tmp_path / "data"


def test_doubts_are_reported_and_drawn(bright, run_script, tmp_path):
    sheet = tmp_path / "f" / "sheet.png"  # among the images, but none of them
    for _ in range(2):
        outcome = run_script(preprocess_folders, *bright + ("--review", sheet))
        assert outcome.code == 0 and len(outcome.err.splitlines()) == 2
        assert "3 of 20 faces show no face by the released model: " in outcome.err
        assert "1 of 20 non-faces clearly show a face by the released model" in outcome.err
        assert str(tmp_path / "n" / "00.png") in outcome.err
        assert "4 of 4 images whose class is doubted" in outcome.out
    assert read_image(str(sheet)).shape[1] > 4 * preprocess_folders.TILE_SIDE
    assert len(list((tmp_path / "data").glob("*.pickle"))) == 6


def test_swapped_folders_are_suspected(bright, run_script):
    swapped = ("--faces", bright[3], "--non-faces", bright[1]) + bright[4:]
    outcome = run_script(preprocess_folders, *swapped)
    assert outcome.code == 0 and outcome.err.count("swapped?") == 2


def test_nothing_to_draw(bright, run_script, tmp_path):
    for path in [tmp_path / "f" / "{:02d}.png".format(n) for n in range(3)] + [
            tmp_path / "n" / "00.png"]:
        path.unlink()
    outcome = run_script(preprocess_folders, *bright + ("--review", tmp_path / "sheet.png"))
    assert (outcome.code, outcome.err) == (0, "") and "not drawn" in outcome.out
    assert not (tmp_path / "sheet.png").exists()


def test_a_missing_released_model_is_one_line(run_script, folders, monkeypatch, tmp_path):
    monkeypatch.setattr("darknet_face.weights.model_file.RELEASED", str(tmp_path / "gone.npz"))
    monkeypatch.setattr(preprocess_folders, "FEW", 1)
    outcome = run_script(preprocess_folders, "--faces", folders[0], "--non-faces", folders[1],
                         "--data-dir", tmp_path / "data")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert "--no-check" in outcome.err


def test_the_released_model_tells_faces_from_others(sample_dir, tmp_path):
    """Real images, given as what they are and as what they are not."""
    classifier = preprocess_folders.released_classifier()
    doubts = {}
    for shown in (FACE, NON_FACE):
        paths = [resolve(name, sample_dir) for name in load_list(
            os.path.join(sample_dir, LISTS["test"][shown]))[:6]]
        for label in (FACE, NON_FACE):
            doubts[shown, label] = preprocess_folders.find_doubts(classifier, paths, label)
    assert doubts[FACE, FACE] == doubts[NON_FACE, NON_FACE] == []
    assert len(doubts[FACE, NON_FACE]) >= 3 and len(doubts[NON_FACE, FACE]) >= 3
    assert all(doubt.face_probability >= 0.99 for doubt in doubts[FACE, NON_FACE])
    assert all(doubt.face_probability <= 0.01 for doubt in doubts[NON_FACE, FACE])


def test_help_needs_no_tensorflow():
    program = ("import sys, preprocess_folders; sys.argv = ['x', '--help']\n"
               "try:\n    preprocess_folders.main()\n"
               "finally:\n    assert 'tensorflow' not in sys.modules")
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True,
                           capture_output=True)
    assert ended.returncode == 0 and "--non-faces" in ended.stdout and ended.stderr == ""
