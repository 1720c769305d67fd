"""What inference.py takes: files, folders, patterns, lists, whatever their names."""

import io
import itertools
import os
import shutil
import sys

from conftest import read_csv, read_json_lines
from PIL import Image

from darknet_face.classify import find_inputs, inputs, predict
from darknet_face.images.samples import SAMPLE_IMAGES


def test_missing_names(infer, pictures, tmp_path):
    outcome = infer(tmp_path / "gone.jpg", "nowhere/")
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and "gone.jpg" in outcome.err
    outcome = infer(tmp_path / "gone.jpg", pictures + "/00.png")
    assert outcome.code == 0 and len(outcome.out.splitlines()) == 1
    assert "gone.jpg: no such file" in outcome.err and "1 could not be read" in outcome.err


def test_patterns(infer, pictures, tmp_path):
    names = [os.path.basename(line.split()[-1])
             for line in infer(pictures + "/**/*[02].png").out.splitlines()]
    assert sorted(names) == ["00.png", "02.png", "10.png", "12.png"]
    strange = str(tmp_path / "a[1].png")
    shutil.copy(pictures + "/00.png", strange)
    assert infer(strange).out.split()[-1] == strange, "a name that is there is no pattern"
    outcome = infer(str(tmp_path / "*.jpeg"))
    assert outcome.code == 1 and "no file matches" in outcome.err


def test_a_pattern_finds_a_picture_once(infer, pictures):
    """Though ``**`` finds the folder as well, and a link in it that leads back up."""
    os.symlink("..", pictures + "/below/again")
    for pattern in ("/**", "/**/*", "/**/*.png"):
        names = [line.split()[-1] for line in infer(pictures + pattern).out.splitlines()]
        assert len(names) == 20 and {os.path.basename(name) for name in names} == {
            "{:02d}.png".format(number) for number in range(20)}


def test_a_list_separated_by_zero_bytes(infer, pictures, monkeypatch):
    """As by ``find -print0``."""
    listed = b"\0".join(os.fsencode(pictures) + b"/%02d.png" % each for each in range(20)) + b"\0"
    for content, code in ((listed, 1), (listed + b"\n" + os.fsencode(pictures), 0)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        outcome = infer("-")
        assert outcome.code == code and "holds a zero byte" in outcome.err


def test_a_list_on_standard_input(infer, pictures, monkeypatch, tmp_path):
    raw = os.fsencode(str(tmp_path)) + b"/caf\xe9.png"  # Latin-1: not UTF-8
    shutil.copy(pictures + "/00.png", raw)
    listed = os.fsencode(pictures) + b"/00.png\r\n\n" + raw + b"\nmissing.png\n" + os.fsencode(
        pictures + "/below")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
    table = str(tmp_path / "out.csv")
    outcome = infer("-", "--csv", table)
    assert outcome.code == 0 and len(outcome.out.splitlines()) == 12
    assert "missing.png: no such file" in outcome.err
    with open(table, "rb") as stream:
        assert raw in stream.read()


def test_names_come_lazily(classifier, pictures):
    """From an endless source, results come after a few batches have been read ahead."""
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield inputs.InputImage(pictures + "/00.png", "00.png", None)

    results = predict.classify_single_pass(classifier, endless(), batch_size=4)
    for round_number in range(1, 20):
        batch, bad = next(results)
        assert len(batch) == 4 and not bad
        assert len(taken) <= 4 * (round_number + 4)
    results.close()


def test_photographs(infer):
    outcome = infer("--photographs")
    assert outcome.code == 0 and len(outcome.out.splitlines()) == len(SAMPLE_IMAGES)
    assert "astronaut.png" in outcome.out and "could not be read" not in outcome.err


def test_links_to_their_own_folder_end(tmp_path):
    """Two of them stand for 2^40 paths to glob.glob()."""
    folder = tmp_path / "loop"
    (folder / "below").mkdir(parents=True)
    for name in ("one", "two"):
        os.symlink(".", str(folder / name))
    os.symlink("..", str(folder / "below" / "up"))
    os.symlink("itself", str(folder / "itself"))
    for place in ("a.png", "below/b.png", ".hidden.png"):
        (folder / place).write_bytes(b"")
    both = ["a.png", "b.png"]
    for pattern, expected in (("loop/**/*.png", both), ("loop/**", both), ("**/*.png", both),
                              ("**/**/below/**/*.png", both), ("*/**/b.png", ["b.png"])):
        found = sorted(os.path.basename(image.name) for image in find_inputs.find_inputs(
            [os.path.join(str(tmp_path), pattern)]) if image.content is None)
        assert [name for name in found if name.endswith("png")] == expected, pattern


def test_patterns_are_relative_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    (tmp_path / "below").mkdir()
    for name in ("a.png", "below/b.png", "film.mp4"):
        (tmp_path / name).write_bytes(b"")
    names = [image.name for image in find_inputs.find_inputs(["**/*.png", "*.mp4", "below/**"])]
    assert names == ["a.png", "below/b.png", "film.mp4", "below/b.png"]


def test_a_spreadsheet_runs_no_name(infer, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    names = ["=1+1.png", "+1.png", "-1.png", "@a.png", "\t=1.png", "plain.png"]
    for name in names:
        shutil.copy(pictures + "/00.png", name)
    os.mkdir("=folder")
    shutil.copy(pictures + "/00.png", "=folder/a.png")
    arguments = ("--csv", "out.csv", "--json", "out.jsonl", "--", *names, "=folder")
    assert infer(*arguments).code == 0
    files = [row["file"] for row in read_csv("out.csv")]
    assert files == ["./" + name for name in names[:-1]] + ["plain.png", "./=folder/a.png"]
    assert all(os.path.isfile(name) for name in files)
    outcome = infer("--resume", *arguments)
    assert outcome.code == 0 and "7 were done before" in outcome.err
    assert len(read_csv("out.csv")) == len(read_json_lines("out.jsonl")) == 7


def test_drawings_of_two_images_get_two_names(infer, tmp_path):
    """A heat map of a.webp is a PNG, and there is an a.webp.png."""
    for name in ("a.webp", "a.webp.png"):
        Image.new("RGB", (40, 40)).save(str(tmp_path / name))
    assert infer(tmp_path / "a.webp", tmp_path / "a.webp.png", "--heatmap",
                 tmp_path / "maps").code == 0
    assert sorted(os.listdir(str(tmp_path / "maps"))) == ["a.webp-2.png", "a.webp.png"]


def test_a_file_where_results_would_go_is_told_at_once(infer, pictures, tmp_path):
    (tmp_path / "file").write_text("")
    for option in ("--heatmap", "--sort-into"):
        outcome = infer(pictures, option, tmp_path / "file" / "results")
        assert outcome.code == 2 and not outcome.out
        assert "file: a file, where a folder is to be; name another folder" in outcome.err
