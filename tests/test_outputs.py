"""Lines, sorted copies, contact sheets and heat maps of inference.py."""

import errno
import glob
import io
import os
import shutil
import sys

import numpy as np
import pytest
from conftest import GOOD, make_odd_files, read_csv
from PIL import Image

from darknet_face.classify import inputs, outputs
from darknet_face.images.contact_sheets import GREEN, RED
from darknet_face.images.decode import read_image


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_odd_names_on_standard_output(infer, pictures, monkeypatch, encoding, tmp_path):
    """Not UTF-8, a line break, a terminal's escape, letters that the encoding lacks."""
    folder = os.fsencode(str(tmp_path / "odd"))
    os.mkdir(folder)
    names = [b"caf\xe9.png", b"a\nb.png", b"\x1b[31mred.png", "\u4e2d.png".encode()]
    for name in names:
        shutil.copy(pictures + "/00.png", os.path.join(folder, name))

    def run(*options):
        stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            outcome = infer(os.fsdecode(folder), *options)
        assert outcome.code == 0
        stream.flush()
        return stream.buffer.getvalue()

    lines = run()
    assert lines.count(b"\n") == 4 and b"\x1b" not in lines and b"a\\nb.png" in lines
    table = run("--csv", "-")
    assert all(name in table for name in names)
    assert len(run("--json", "-").splitlines()) == 4


def test_a_map_does_not_take_its_picture_s_place(infer, pictures):
    with open(pictures + "/00.png", "rb") as stream:
        before = stream.read()
    for named in (pictures, pictures + "/00.png", pictures + "/*0.png"):
        outcome = infer(named, "--heatmap", pictures)
        assert outcome.code == 2 and "another folder" in outcome.err.splitlines()[-1]
    with open(pictures + "/00.png", "rb") as stream:
        assert stream.read() == before


def test_a_contact_sheet_without_a_picture_s_name(infer, pictures, tmp_path):
    outcome = infer(pictures, "--contact-sheet", tmp_path / "sheet.txt")
    assert outcome.code == 2 and outcome.out == "" and "sheet.txt" in outcome.err.splitlines()[-1]


def test_sort_into(infer, pictures, tmp_path):
    table, target = str(tmp_path / "out.csv"), os.path.join(pictures, "sorted")
    for _ in range(2):  # the second run finds everything in its place, and none of it to classify
        assert infer(pictures, "--csv", table, "--sort-into", target).code == 0
        rows = read_csv(table)
        assert len(rows) == 20
        found = sorted(os.path.relpath(os.path.join(parent, name), target)
                       for parent, _, names in os.walk(target) for name in names)
        assert found == sorted(os.path.join(row["class"].lower(), os.path.relpath(
            row["file"], pictures)) for row in rows)
    for row in rows:
        copy = os.path.join(target, row["class"].lower(), os.path.relpath(row["file"], pictures))
        with open(copy, "rb") as one, open(row["file"], "rb") as other:
            assert one.read() == other.read()
        assert not os.path.islink(copy)


def test_sorting_never_overwrites(infer, pictures, tmp_path):
    """Two images of one name and folder name, one more from an earlier run."""
    names = []
    for number, source in enumerate(("00.png", "00.png", "02.png")):
        folder = tmp_path / str(number) / "album"
        folder.mkdir(parents=True)
        names.append(str(folder / "same.png"))
        shutil.copy(os.path.join(pictures, source), names[-1])
    target = tmp_path / "sorted"
    for name in (names[2], names[0], names[1]):
        infer(name, "--sort-into", target, "--threshold", 0)
    contents = sorted((target / "face" / name).read_bytes()
                      for name in os.listdir(str(target / "face")))
    with open(names[0], "rb") as first, open(names[2], "rb") as third:
        assert set(contents) == {first.read(), third.read()}
    assert len(contents) == 2, "the second run finds an equal image"


def test_equal_names_keep_their_folders(infer, pictures, tmp_path, monkeypatch):
    """Below the folder that all named files share; listed ones as they are from here."""
    names = []
    for number, folder in enumerate(("2019", "2020/below")):
        (tmp_path / folder).mkdir(parents=True)
        names.append(str(tmp_path / folder / "same.png"))
        shutil.copy(os.path.join(pictures, "0{}.png".format(2 * number)), names[-1])

    def sorted_files(*arguments):
        target = tmp_path / "sorted"
        assert infer(*arguments, "--sort-into", target, "--threshold", 0).code == 0
        found = {os.path.relpath(os.path.join(parent, name), str(target / "face"))
                 for parent, _, files in os.walk(str(target)) for name in files}
        shutil.rmtree(str(target))
        return found

    both = {"2019/same.png", "2020/below/same.png"}
    assert sorted_files(*names) == both
    assert sorted_files(tmp_path / "2019", tmp_path / "2020") == both
    assert sorted_files(tmp_path / "20*" / "**" / "same.png") == both
    assert sorted_files(tmp_path / "2020") == {"below/same.png"}
    assert sorted_files(names[0]) == {"same.png"}
    monkeypatch.chdir(str(tmp_path))
    listed = "2019/same.png\n../{}/2019/../2020/below/same.png".format(tmp_path.name)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
    assert sorted_files("-") == both


@pytest.mark.parametrize("other_disk", [False, True])
def test_sort_by_moving(infer, pictures, tmp_path, monkeypatch, other_disk):
    """With every other output, and never over a file; a link moves as a link."""
    if other_disk:
        def rename(*_):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(outputs.os, "rename", rename)
    with open(pictures + "/00.png", "rb") as stream:
        content = stream.read()
    for path in glob.glob(pictures + "/**/*.png", recursive=True):
        if not path.endswith(("00.png", "01.png", "02.png")):
            os.remove(path)
    os.symlink("00.png", pictures + "/0-link.png")  # comes before its target
    target, table = tmp_path / "sorted", str(tmp_path / "out.csv")
    (target / "face").mkdir(parents=True)
    (target / "face" / "00.png").write_bytes(content)
    outcome = infer(pictures, "--sort-into", target, "--sort-into-mode", "move", "--threshold", 0,
                    "--csv", table, "--contact-sheet", tmp_path / "sheet.png",
                    "--heatmap", tmp_path / "maps")
    assert outcome.code == 0 and len(read_csv(table)) == 4 and (tmp_path / "sheet.png").exists()
    assert [name for _, _, names in os.walk(pictures) for name in names] == []
    assert (target / "face" / "00-2.png").read_bytes() == content
    assert len([name for _, _, names in os.walk(str(target)) for name in names]) == 5
    assert os.readlink(str(target / "face" / "0-link.png")) == pictures + "/00.png"


def test_only_faces_or_only_non_faces(infer, pictures, tmp_path):
    table = str(tmp_path / "out.csv")
    assert infer(pictures, "--csv", table).code == 0
    rows = read_csv(table)
    for only, name in (("face", "FACE"), ("non-face", "NON_FACE")):
        target = tmp_path / only
        outcome = infer(pictures, "--csv", table, "--only", only, "--sort-into", target)
        expected = [row for row in rows if row["class"] == name]
        assert outcome.code == 0 and 0 < len(expected) < 20
        assert [line.split() for line in outcome.out.splitlines()] == [
            [name, "{:.4f}".format(float(row["probability"])), row["file"]] for row in expected]
        assert read_csv(table) == expected and os.listdir(str(target)) == [name.lower()]
        assert "classified 20 images" in outcome.err


def test_sort_by_links(infer, pictures, tmp_path):
    target = tmp_path / "sorted"
    for _ in range(2):
        assert infer(pictures + "/00.png", "--sort-into", target, "--sort-into-mode",
                     "link", "--threshold", 0).code == 0
    assert os.listdir(str(target / "face")) == ["00.png"]
    assert os.readlink(str(target / "face" / "00.png")) == pictures + "/00.png"


def test_a_contact_sheet_names_pictures_by_what_tells_them_apart(tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr(outputs, "contact_sheet", lambda *sheet: sheets.append(sheet))
    monkeypatch.setattr(outputs, "save_image", lambda *_: None)
    sheet = outputs.ContactSheet(str(tmp_path / "sheet.png"), 9)
    pixels = inputs.InputImage("", "", np.zeros((4, 4, 3), np.uint8))
    for name in ("x/1.png", "y/1.png", "y/2.png"):
        sheet.write(pixels, {"file": name, "class": "FACE", "probability": 0.75})
    sheet.close()
    assert sheets[0][1] == ["FACE 0.750\n" + name for name in ("x/1.png", "y/1.png", "2.png")]


def test_contact_sheet_frames_tell_the_class(infer, pictures, tmp_path):
    table, sheet = str(tmp_path / "out.csv"), str(tmp_path / "sheets" / "contacts.png")
    infer(pictures, "--csv", table, "--contact-sheet", sheet, "--contact-sheet-images", 12)
    sheet = np.asarray(Image.open(sheet).convert("RGB")).astype(int)
    frames = sum(float(row["probability"]) > 0 and row["class"] == "FACE"
                 for row in read_csv(table)[:12])
    assert 0 < frames < 12
    areas = [(np.abs(sheet - np.array(colour)).max(axis=2) == 0).sum() for colour in (GREEN, RED)]
    # Each frame is 4 pixels around a tile of 160.
    one = 168 ** 2 - 160 ** 2
    np.testing.assert_allclose(np.array(areas) / one, [frames, 12 - frames], atol=0.05)


def test_heatmaps_have_the_pictures_sizes(infer, tmp_path):
    folder = tmp_path / "odd"
    make_odd_files(folder)
    assert infer(folder, "--heatmap", tmp_path / "maps").code == 0
    made = sorted(os.listdir(str(tmp_path / "maps")))
    assert made == sorted(name if name.endswith((".png", ".jpg")) else name + ".png"
                          for name in GOOD)
    assert read_image(str(tmp_path / "maps" / "turned.jpg")).shape == (60, 40, 3)
    assert read_image(str(tmp_path / "maps" / "deep.png")).shape == (40, 60, 3)


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_a_contact_sheet_replaces_contact_sheets_alone(infer, pictures, tmp_path, extension):
    """The shell turns ``--contact-sheet *.png`` into the name of a photograph."""
    photograph = tmp_path / ("photo" + extension)
    Image.open(pictures + "/00.png").convert("RGB").save(str(photograph))
    before = photograph.read_bytes()
    outcome = infer(pictures, "--contact-sheet", photograph)
    assert outcome.code == 2 and outcome.out == "" and photograph.read_bytes() == before
    assert "photo{}: not an image drawn by".format(extension) in outcome.err.splitlines()[-1]
    for _ in range(2):
        assert infer(pictures, "--contact-sheet", tmp_path / ("sheet" + extension)).code == 0


def test_heat_maps_replace_heat_maps_alone(infer, pictures, tmp_path):
    (tmp_path / "maps").mkdir()
    other = tmp_path / "maps" / "00.png"
    shutil.copy(pictures + "/02.png", str(other))
    before = other.read_bytes()
    outcome = infer(pictures + "/00.png", "--heatmap", tmp_path / "maps")
    assert outcome.code == 2 and "00.png: not an image drawn by" in outcome.err.splitlines()[-1]
    assert other.read_bytes() == before
    other.unlink()
    for _ in range(2):
        assert infer(pictures + "/00.png", "--heatmap", tmp_path / "maps").code == 0


@pytest.mark.parametrize("option", ["--sort-into", "--heatmap"])
def test_results_never_become_pictures(infer, pictures, monkeypatch, option):
    """Each run would find those of the runs before."""
    def files():
        return {os.path.join(parent, name) for parent, _, names in os.walk(pictures)
                for name in names}

    for path in files():
        if not path.endswith(("00.png", "01.png", "02.png")):
            os.remove(path)
    before = files()
    for named in (pictures, pictures + "/*.png", pictures + "/00.png", pictures + "/below"):
        outcome = infer(named, option, pictures)
        assert outcome.code == 2 and "another folder" in outcome.err.splitlines()[-1]
    assert files() == before
    target = os.path.join(pictures, "results")
    listed = []
    for named in (pictures, pictures + "/**/*.png", "-", "-"):
        stream = io.BytesIO(b"".join(os.fsencode(path) + b"\n" for path in sorted(files())))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        outcome = infer(named, option, target)
        assert outcome.code == 0 and len(outcome.out.splitlines()) == 3
        assert not listed or " among the results (" in outcome.err
        listed.append(len(files()))
    assert listed[0] == 6 and listed[2] == listed[3]


@pytest.mark.parametrize("option", ["--heatmap", "--sort-into"])
def test_a_file_is_no_folder_for_results(infer, pictures, tmp_path, option):
    (tmp_path / "photo.png").write_bytes(b"content")
    outcome = infer(option, tmp_path / "photo.png", pictures)
    assert outcome.code == 2 and "photo.png: not a folder; name another" in outcome.err
    assert not outcome.out and (tmp_path / "photo.png").read_bytes() == b"content"


def test_one_picture_in_the_way_does_not_end_the_run(infer, pictures, tmp_path):
    """Names too long for a map; a file where a folder belongs; a folder where a file belongs."""
    folder = tmp_path / "input"
    (folder / "b.png").mkdir(parents=True)
    long_name = "x" * 251 + ".gif"
    Image.open(pictures + "/00.png").save(str(folder / long_name))
    for name in ("a.png", "b.png/c.png", "d.png"):
        shutil.copy(pictures + "/00.png", str(folder / name))
    maps, target = tmp_path / "maps", tmp_path / "sorted"
    (maps / "a.png").mkdir(parents=True)
    (maps / "b.png").write_bytes(b"")
    table = str(tmp_path / "out.csv")
    outcome = infer(folder, "--csv", table, "--heatmap", maps)
    assert outcome.code == 0 and "3 could not be written" in outcome.err
    assert [os.path.basename(row["file"]) for row in read_csv(table)] == ["d.png"]
    for name in ("a.png", "c.png", long_name):
        assert sum(name in line for line in outcome.err.splitlines()) == 1
    for group in ("face", "non_face"):
        (target / group / "a.png").mkdir(parents=True)
        (target / group / "b.png").write_bytes(b"in the way")
    outcome = infer(folder, "--csv", table, "--sort-into", target)
    assert outcome.code == 0
    assert {"a.png", "d.png"} <= {os.path.basename(row["file"]) for row in read_csv(table)}
    assert "c.png" not in {os.path.basename(row["file"]) for row in read_csv(table)}


def test_a_picture_that_vanishes_before_it_is_copied(infer, pictures, tmp_path, monkeypatch):
    write = outputs.Sorter.write

    def remove_first(self, image, row):
        if image.name.endswith("00.png"):
            os.remove(image.name)
        write(self, image, row)

    monkeypatch.setattr(outputs.Sorter, "write", remove_first)
    outcome = infer(pictures, "--sort-into", tmp_path / "sorted")
    assert outcome.code == 0 and "1 could not be written" in outcome.err
    assert sum("00.png" in line for line in outcome.err.splitlines()) == 1


def test_frames_are_sorted_once_and_replace_nothing(infer, video, tmp_path):
    target = tmp_path / "sorted"
    for _ in range(2):
        assert infer(video, "--sort-into", target, "--threshold", 0).code == 0
        assert len(os.listdir(str(target / "face"))) == 3
    other = target / "face" / "film.avi-0000010.jpg"
    other.write_bytes(b"another film's frame")
    assert infer(video, "--sort-into", target, "--threshold", 0).code == 0
    assert other.read_bytes() == b"another film's frame"
    assert len(os.listdir(str(target / "face"))) == 4
