"""What inference.py takes: files, folders, patterns, lists, whatever their names."""

import io
import itertools
import os
import shutil
import sys

from classify import inputs, predict
from pictures.samples import PHOTOGRAPHS


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

    results = predict.classify_images(classifier, endless(), batch_size=4)
    for round_number in range(1, 20):
        batch, bad = next(results)
        assert len(batch) == 4 and not bad
        assert len(taken) <= 4 * (round_number + 4)
    results.close()


def test_photographs(infer):
    outcome = infer("--photographs")
    assert outcome.code == 0 and len(outcome.out.splitlines()) == len(PHOTOGRAPHS)
    assert "astronaut.png" in outcome.out and "could not be read" not in outcome.err
