"""The hardest images without a face are copied as they are, and nothing else is touched."""

import os

import numpy as np
import pytest
from PIL import Image

from darknet_face.detection import hardest
from darknet_face.images.decode import read_image
from darknet_face.images.samples import sample_images


@pytest.fixture
def negatives(tmp_path):
    """Two images with a face, which the detector finds, one without, and one that is damaged."""
    folder = tmp_path / "negatives"
    (folder / "cat").mkdir(parents=True)
    face = read_image(sample_images()[0])
    Image.fromarray(face).save(str(folder / "cat" / "one.png"))
    Image.fromarray(face[:, ::-1]).save(str(folder / "two.png"))
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(str(folder / "grey.png"))
    (folder / "bad.png").write_bytes(b"bad")
    return folder


def contents(folder):
    """The content of each file by its path in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def test_the_hardest_are_copied_with_their_folders(negatives, tmp_path, run_script):
    before = contents(negatives)
    out, sheet = tmp_path / "hard", tmp_path / "hard.png"
    code, output, errors = run_script(
        hardest, negatives, "--out", out, "--sheet", sheet, "--count", 2)
    assert code == 0 and "2 images with scores from" in output and "bad.png" in errors
    copied = contents(out)
    assert sorted(copied) == [os.path.join("cat", "one.png"), "two.png"]
    assert all(before[name] == content for name, content in copied.items())
    assert contents(negatives) == before
    assert Image.open(str(sheet)).size[0] > 200


def test_the_surest_comes_first(negatives):
    found = hardest.find_hardest(
        lambda image: (None, np.array([image.mean() / 255])), str(negatives), 2)
    assert len(found) == 2 and found[0][0] >= found[1][0] > 90 / 255 - 1e-6


@pytest.mark.parametrize("arguments, message", [
    (["--out", "{full}"], "is not empty"),
    (["--image-size", "100"], "multiple of 32"),
    (["--sheet", "{full}/note.png"], "note.png"),
    (["--model", "{full}/note.png"], "note.png"),
    (["--out", "{negatives}/hard"], "among images to train on"),
    (["--sheet", "{negatives}/hard.png"], "among images to train on"),
    (["--sheet", "{new}/hard.png"], "among images to train on"),
])
def test_wrong_arguments_are_refused_and_nothing_is_written(
        negatives, tmp_path, run_script, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.png").write_text("mine")
    code, _, errors = run_script(hardest, negatives, "--out", tmp_path / "new", *[
        each.format(full=tmp_path / "full", new=tmp_path / "new", negatives=negatives)
        for each in arguments])
    assert code == 2 and message in errors and "Traceback" not in errors
    assert len(contents(negatives)) == 4 and contents(tmp_path / "full") == {"note.png": b"mine"}
    assert not (tmp_path / "new").exists()


def test_a_folder_without_a_whole_image_is_refused(tmp_path, run_script):
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "bad.png").write_bytes(b"bad")
    code, _, errors = run_script(hardest, tmp_path / "all", "--out", tmp_path / "new")
    assert code == 2 and "nothing to copy" in errors and not (tmp_path / "new").exists()
