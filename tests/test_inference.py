"""inference.py on anything: what it reads, what it writes, how it stops and goes on."""

import csv
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import ROOT, heed_sigint
from PIL import Image

import inference
import test as test_script
from classify import finding
from model import classifier as graphs
from model import released
from model.npz import read_npz, write_npz
from pictures.decode import read_image
from pictures.lists import load_split
from pictures.sheets import GREEN, RED


@pytest.fixture(scope="module")
def classifier(tiny_model):
    return graphs.classifier_from_weights(tiny_model.weights, 32)


@pytest.fixture
def infer(run_script, tiny_model, classifier, monkeypatch):
    """inference.py with the tiny model, whose graph is built once for the whole module."""
    monkeypatch.setattr(inference, "read_npz", lambda path: tiny_model.weights)
    monkeypatch.setattr(inference, "folded_classifier", lambda *_: classifier)
    return lambda *arguments: run_script(
        inference, "--model-dir", tiny_model.folder, *arguments)


@pytest.fixture
def pictures(sample_dir, tmp_path):
    """A folder of 10 faces and 10 others, half of them in a folder below."""
    split = load_split(sample_dir, "train")
    folder = tmp_path / "pictures"
    for number, path in enumerate(split.faces[:10] + split.negatives[:10]):
        place = folder / ("below" if number % 2 else "") / "{:02d}.png".format(number)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, str(place))
    return str(folder)


def read_csv(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def read_json_lines(path):
    with open(path) as stream:
        return [json.loads(line) for line in stream]


def face_probability(classifier, path):
    """The truth for one file, without the code under test: Pillow decodes, OpenCV resizes."""
    image = cv2.resize(np.asarray(Image.open(path).convert("RGB")), (32, 32))
    return float(classifier(image[np.newaxis])[0, 0])


def test_terminal_csv_and_json_tell_the_same(infer, pictures, classifier, tmp_path):
    table, lines = str(tmp_path / "out.csv"), str(tmp_path / "out.jsonl")
    outcome = infer(pictures, "--csv", table, "--json", lines, "--batch-size", 7)
    assert outcome.code == 0
    rows = read_csv(table)
    objects = read_json_lines(lines)
    assert len(rows) == len(objects) == len(outcome.out.splitlines()) == 20
    assert len({line.index(pictures) for line in outcome.out.splitlines()}) == 1, "aligned"
    for row, each, line in zip(rows, objects, outcome.out.splitlines()):
        truth = face_probability(classifier, row["file"])
        assert each["face_probability"] == pytest.approx(truth, abs=1e-5)
        assert float(row["face_probability"]) == each["face_probability"]
        name = "FACE" if truth >= 0.5 else "NON_FACE"
        assert row["class"] == each["class"] == name
        assert each["probability"] == pytest.approx(max(truth, 1 - truth), abs=1e-5)
        assert line.split() == [name, "{:.4f}".format(each["probability"]), row["file"]]
    assert len({row["class"] for row in rows}) == 2, "the pictures must not all be alike"
    assert "classified 20 pictures" in outcome.err
    assert "model: " in outcome.err and "darknet19_weights.npz" in outcome.err


def test_tables_on_standard_output(infer, pictures):
    objects = [json.loads(line) for line in infer(pictures, "--json", "-").out.splitlines()]
    rows = list(csv.DictReader(io.StringIO(infer(pictures, "--csv", "-").out)))
    assert [each["file"] for each in objects] == [row["file"] for row in rows]
    assert len(rows) == 20


def test_threshold(infer, pictures, tmp_path):
    table = str(tmp_path / "out.csv")
    infer(pictures, "--csv", table)
    scores = sorted(float(row["face_probability"]) for row in read_csv(table))
    infer(pictures, "--csv", table, "--threshold", repr(scores[15]))
    assert sum(row["class"] == "FACE" for row in read_csv(table)) == 5


def make_odd_files(folder):
    """Pictures of unusual kinds that decode, and files that do not."""
    folder.mkdir()
    noise = np.random.RandomState(0).randint(0, 256, (40, 60, 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(str(folder / "turned.jpg"), exif=exif)
    image.convert("CMYK").save(str(folder / "cmyk.jpg"))
    image.convert("L").save(str(folder / "grey.png"))
    image.convert("RGBA").save(str(folder / "rgba.png"))
    image.save(str(folder / "picture.webp"))
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(str(folder / "deep.png"))
    image.save(str(folder / "moving.gif"), save_all=True, append_images=[image.rotate(90)])
    with open(str(folder / "turned.jpg"), "rb") as stream:
        (folder / "truncated.jpg").write_bytes(stream.read()[:-200])
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<html></html>")


GOOD = {"turned.jpg", "cmyk.jpg", "grey.png", "rgba.png", "picture.webp", "deep.png", "moving.gif"}
BAD = {"truncated.jpg", "empty.png", "page.jpg"}


def test_unusual_and_bad_files(infer, tmp_path):
    folder = tmp_path / "odd"
    make_odd_files(folder)
    outcome = infer(folder, "--csv", tmp_path / "out.csv")
    assert outcome.code == 0
    assert {os.path.basename(row["file"]) for row in read_csv(str(tmp_path / "out.csv"))} == GOOD
    for name in BAD:
        assert sum(name in line for line in outcome.err.splitlines()) == 1
    assert "3 could not be read" in outcome.err
    assert "Traceback" not in outcome.err


def test_no_picture_at_all(infer, tmp_path):
    make_odd_files(tmp_path / "odd")
    outcome = infer(*[tmp_path / "odd" / name for name in BAD])
    assert outcome.code == 1 and outcome.out == ""
    assert "no picture could be classified" in outcome.err.splitlines()[-1]
    (tmp_path / "nothing").mkdir()
    assert infer(tmp_path / "nothing").code == 1


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
            yield finding.Picture(pictures + "/00.png", "00.png", None)

    results = inference.classify(classifier, endless(), batch_size=4)
    for round_number in range(1, 20):
        batch, bad = next(results)
        assert len(batch) == 4 and not bad
        assert len(taken) <= 4 * (round_number + 4)
    results.close()


def test_resume_after_a_line_cut_in_the_middle(infer, pictures, tmp_path):
    table, lines = str(tmp_path / "out.csv"), str(tmp_path / "out.jsonl")
    infer(pictures, "--csv", table, "--json", lines)
    with open(table, "rb") as stream:
        whole = stream.read()
    rows, objects = read_csv(table), read_json_lines(lines)
    for cut in (whole.index(b"\n", 700) + 1, whole.index(b"\n", 700) - 1, 20, 0):
        with open(table, "wb") as stream:
            stream.write(whole[:cut])
        done = max(0, whole[:cut].count(b"\n") - 1)
        outcome = infer(pictures, "--csv", table, "--json", lines, "--resume")
        assert outcome.code == 0
        assert len(outcome.out.splitlines()) == 20 - done, "what is done is not done again"
        for found, expected in ((read_csv(table), rows), (read_json_lines(lines), objects)):
            assert [row["file"] for row in found] == [row["file"] for row in expected]
            for one, other in zip(found, expected):  # in other batches, sums round otherwise
                assert float(one["face_probability"]) == pytest.approx(
                    float(other["face_probability"]), abs=1e-5)
    outcome = infer(pictures, "--csv", table, "--resume")
    assert outcome.code == 0 and outcome.out == "" and "20 were done before" in outcome.err


def test_resume_keeps_names_with_line_breaks(infer, pictures, tmp_path):
    folder = tmp_path / "odd names"
    folder.mkdir()
    for name in ("a\nb.png", 'c",d.png', "e.png"):
        shutil.copy(pictures + "/00.png", str(folder / name))
    table = str(tmp_path / "out.csv")
    infer(folder, "--csv", table)
    with open(table, "rb") as stream:
        whole = stream.read()
    for cut in range(whole.index(b"\n") + 1, len(whole), 9):
        with open(table, "wb") as stream:
            stream.write(whole[:cut])
        inference.keep_whole_rows(table, "csv")
        with open(table, "rb") as stream:
            kept = stream.read()
        assert whole.startswith(kept)
        assert [row["file"] for row in read_csv(table)] == [
            row["file"] for row in csv.DictReader(io.StringIO(whole.decode()))][
                :len(read_csv(table))]


@pytest.mark.parametrize("content", [
    b"name,score\na.png,1\n", b"\xff\xd8\xff\xe0" * 99 + b"\n",
    b"file,class,probability,face_probability\noops\na.png,FACE,0.9,0.9\n"])
def test_resume_refuses_other_files(infer, pictures, tmp_path, content):
    table = tmp_path / "notes.csv"
    table.write_bytes(content)
    outcome = infer(pictures, "--csv", table, "--resume")
    assert outcome.code == 2 and "notes.csv" in outcome.err.splitlines()[-1]
    assert table.read_bytes() == content


@pytest.mark.parametrize("option", ["--csv", "--json"])
@pytest.mark.parametrize("content", [
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0", b"file,size\n", b'{"name": 1}', b"notes"])
def test_no_other_file_is_written_over(infer, pictures, tmp_path, option, content):
    """``--csv *.png`` names a picture as the table."""
    other = tmp_path / "other"
    other.write_bytes(content)
    for extra in ((), ("--csv", tmp_path / "out.csv", "--resume")[:3 if option == "--json" else 0]):
        outcome = infer(pictures, option, other, *extra)
        assert outcome.code == 2 and "other: not a table" in outcome.err.splitlines()[-1]
        assert other.read_bytes() == content
    outcome = infer(pictures, "--csv", other, "--resume")
    assert outcome.code == 2 and other.read_bytes() == content


def test_an_old_table_is_written_over(infer, pictures, tmp_path):
    table, lines = str(tmp_path / "out.csv"), str(tmp_path / "out.jsonl")
    for _ in range(2):
        assert infer(pictures, "--csv", table, "--json", lines).code == 0
        assert len(read_csv(table)) == len(read_json_lines(lines)) == 20


def test_a_map_does_not_take_its_picture_s_place(infer, pictures):
    with open(pictures + "/00.png", "rb") as stream:
        before = stream.read()
    for named in (pictures, pictures + "/00.png", pictures + "/*0.png"):
        outcome = infer(named, "--heatmap", pictures)
        assert outcome.code == 2 and "another folder" in outcome.err.splitlines()[-1]
    with open(pictures + "/00.png", "rb") as stream:
        assert stream.read() == before


def test_a_montage_without_a_picture_s_name(infer, pictures, tmp_path):
    outcome = infer(pictures, "--montage", tmp_path / "sheet.txt")
    assert outcome.code == 2 and outcome.out == "" and "sheet.txt" in outcome.err.splitlines()[-1]


def test_interrupt_keeps_what_is_done(infer, pictures, tmp_path, classifier, monkeypatch):
    table = str(tmp_path / "out.csv")
    infer(pictures, "--csv", table, "--batch-size", 4)
    uninterrupted = read_csv(table)
    original, calls = graphs.Classifier.__call__, []

    def interrupted(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(graphs.Classifier, "__call__", interrupted)
        montage = str(tmp_path / "montage.png")
        outcome = infer(pictures, "--csv", table, "--batch-size", 4, "--montage", montage)
    assert outcome.code == 130 and "Traceback" not in outcome.err
    assert read_csv(table) == uninterrupted[:8]
    assert os.path.exists(montage)
    assert infer(pictures, "--csv", table, "--batch-size", 4, "--resume").code == 0
    assert read_csv(table) == uninterrupted


def test_results_stream_and_survive_a_signal(tiny_model, pictures, tmp_path):
    """A process of its own: rows appear while the list is still coming; SIGINT ends it cleanly."""
    table = str(tmp_path / "out.csv")
    process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "inference.py"), "-", "--csv", table, "--batch-size",
         "2", "--model-dir", tiny_model.folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heed_sigint)
    try:
        for _ in range(6):
            process.stdin.write(os.fsencode(pictures) + b"/00.png\n")
        process.stdin.flush()
        deadline = time.time() + 120
        while not os.path.exists(table) or len(read_csv(table)) < 2:
            assert time.time() < deadline and process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and b"Traceback" not in errors
    assert len(read_csv(table)) >= 2


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
    """Two pictures of one name, one more from an earlier run: three files in the end."""
    names = []
    for number, source in enumerate(("00.png", "00.png", "02.png")):
        folder = tmp_path / str(number)
        folder.mkdir()
        names.append(str(folder / "same.png"))
        shutil.copy(os.path.join(pictures, source), names[-1])
    target = tmp_path / "sorted"
    infer(names[2], "--sort-into", target, "--threshold", 0)
    infer(names[0], names[1], "--sort-into", target, "--threshold", 0)
    contents = sorted((target / "face" / name).read_bytes()
                      for name in os.listdir(str(target / "face")))
    with open(names[0], "rb") as first, open(names[2], "rb") as third:
        assert set(contents) == {first.read(), third.read()}
    assert len(contents) >= 2


def test_sort_by_links(infer, pictures, tmp_path):
    target = tmp_path / "sorted"
    for _ in range(2):
        assert infer(pictures + "/00.png", "--sort-into", target, "--sort-into-mode",
                     "link", "--threshold", 0).code == 0
    assert os.listdir(str(target / "face")) == ["00.png"]
    assert os.readlink(str(target / "face" / "00.png")) == pictures + "/00.png"


def test_a_montage_names_pictures_by_what_tells_them_apart(tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr(inference, "contact_sheet", lambda *sheet: sheets.append(sheet))
    monkeypatch.setattr(inference, "save_picture", lambda *_: None)
    montage = inference.Montage(str(tmp_path / "sheet.png"), 9)
    pixels = inference.Picture("", "", np.zeros((4, 4, 3), np.uint8))
    for name in ("x/1.png", "y/1.png", "y/2.png"):
        montage.write(pixels, {"file": name, "class": "FACE", "probability": 0.75})
    montage.close()
    assert sheets[0][1] == ["FACE 0.750\n" + name for name in ("x/1.png", "y/1.png", "2.png")]


def test_montage_frames_tell_the_class(infer, pictures, tmp_path):
    table, montage = str(tmp_path / "out.csv"), str(tmp_path / "sheets" / "montage.png")
    infer(pictures, "--csv", table, "--montage", montage, "--montage-images", 12)
    sheet = np.asarray(Image.open(montage).convert("RGB")).astype(int)
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


@pytest.fixture
def video(tmp_path):
    """Three seconds at 10 frames/s: a second each of red, green and blue."""
    path = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for colour in ((220, 20, 20), (20, 220, 20), (20, 20, 220)):
        for _ in range(10):
            writer.write(np.full((48, 64, 3), colour[::-1], np.uint8))
    writer.release()
    return path


def test_video_frames(video):
    pictures = list(finding.find_pictures([video], frames_per_second=1.0))
    assert [each.name for each in pictures] == [
        video + "@0.00s", video + "@1.00s", video + "@2.00s"]
    for channel, picture in enumerate(pictures):
        assert picture.read().shape == (48, 64, 3)
        assert picture.read().mean(axis=(0, 1)).argmax() == channel
    assert len(list(finding.find_pictures([video], frames_per_second=5))) == 15
    assert len(list(finding.find_pictures([video], frames_per_second=1000))) == 30


def test_classifying_a_video(infer, video, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 500)
    outcome = infer(video, broken, "--sort-into", tmp_path / "sorted", "--threshold", 0,
                    "--heatmap", tmp_path / "maps")
    assert outcome.code == 0 and len(outcome.out.splitlines()) == 3
    assert "broken.mp4: not a video that OpenCV reads" in outcome.err
    expected = ["film.avi-{:07d}.jpg".format(number) for number in (0, 10, 20)]
    assert sorted(os.listdir(str(tmp_path / "sorted" / "face"))) == expected
    assert sorted(os.listdir(str(tmp_path / "maps"))) == expected


def test_large_frames_are_shrunk(tmp_path):
    path = str(tmp_path / "large.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (2560, 640))
    writer.write(np.zeros((640, 2560, 3), np.uint8))
    writer.release()
    (picture,) = finding.find_pictures([path])
    assert picture.read().shape == (320, 1280, 3)


def test_a_camera_that_is_not_there(infer):
    outcome = infer("--camera", 99)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("error: camera 99: does not open")
    assert "Traceback" not in outcome.err


def test_camera_frames_come_one_by_one(infer, video, monkeypatch):
    """A recorded film in the camera's place."""
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: real(video))
    outcome = infer("--camera", 0)
    assert outcome.code == 0 and len(outcome.out.splitlines()) == 30
    assert "camera 0 frame 29" in outcome.out


def test_photographs(infer):
    outcome = infer("--photographs")
    assert outcome.code == 0 and len(outcome.out.splitlines()) == len(finding.PHOTOGRAPHS)
    assert "astronaut.png" in outcome.out and "could not be read" not in outcome.err


@pytest.mark.parametrize("arguments", [
    ("--csv", "out.csv"), ("--heatmap", "maps"), ("x.jpg", "--robustness"),
    ("x.jpg", "--report", "r"), ("x.jpg", "--at-fpr", "0.1"), ("x.jpg", "--resume"),
    ("x.jpg", "--camera", "0"),
    ("x.jpg", "--csv", "-", "--json", "-"), ("x.jpg", "--csv", "out", "--json", "./out"),
    ("x.png", "--montage", "x.png"), ("x.png", "--csv", "a.png", "--montage", "a.png"),
    ("--camera", str(10 ** 20)), ("--json", "-"), ("x.jpg", "--threshold", "50"),
    ("x.jpg", "--image-size", "100"), ("x.jpg", "--fps", "0")])
def test_contradictory_options(infer, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    outcome = infer(*arguments)
    assert outcome.code == 2 and outcome.err.startswith("usage: ")
    assert os.listdir(str(tmp_path)) == []


def test_the_released_model_stands_in(run_script, tiny_model, pictures, tmp_path, monkeypatch):
    path = tmp_path / "released" / "darknet19_face.npz"
    write_npz(str(path), tiny_model.weights, np.float16)
    (path.parent / "darknet19_face.json").write_text('{"image_size": 64}')
    monkeypatch.setattr(released, "RELEASED", str(path))
    empty = tmp_path / "models"
    empty.mkdir()
    outcome = run_script(inference, pictures, "--model-dir", empty, "--json", "-")
    assert outcome.code == 0
    first = outcome.err.splitlines()[0]
    assert "darknet19_face.npz (the released one), input 64 x 64" in first
    truth = graphs.classifier_from_weights(read_npz(str(path)), 64)
    row = json.loads(outcome.out.splitlines()[0])
    image = cv2.resize(read_image(row["file"]), (64, 64))
    assert row["face_probability"] == pytest.approx(float(truth(image[np.newaxis])[0, 0]), abs=1e-5)


def test_both_scripts_find_the_same_figures(infer, run_script, sample_dir, tiny_model):
    assert infer("--data-dir", sample_dir, "--at-fpr", 0.1).code == 0
    assert run_script(test_script, "--data-dir", sample_dir, "--model-dir", tiny_model.folder,
                      "--at-fpr", 0.1).code == 0
    figures = []
    for name in ("test_metrics.json", "inference_metrics.json"):
        with open(os.path.join(tiny_model.folder, name)) as stream:
            figures.append(json.load(stream))
    assert figures[0]["images"] == 40
    for name in ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision",
                 "log_loss", "confusion_matrix", "accuracy_interval"):
        np.testing.assert_allclose(figures[0][name], figures[1][name], atol=1e-5, err_msg=name)
    assert figures[0]["at_false_positive_rate"]["recall"] == pytest.approx(
        figures[1]["at_false_positive_rate"]["recall"])
