"""Whole photographs: groups by the widest face, and rates counted by hand."""

import json

import pytest

from darknet_face.classes import FACE, NON_FACE
from darknet_face.evaluation import photographs
from darknet_face.evaluation.photographs import Image, format_rows, group_of, summarise
from darknet_face.images.file_lists import load_split, save_list, source_list


@pytest.mark.parametrize("share, group", [
    (0.03, None), (0.05, None), (0.051, "5 to 10"), (0.1, "5 to 10"), (0.25, "20 to 30"),
    (0.8, "50 to 100"), (1.0, "50 to 100")])
def test_groups(share, group):
    found = group_of(share)
    assert found is None if group is None else group in found


def test_shares_at_a_rate_of_false_positives():
    """At 1 % of 200 face-free images two may score above the threshold."""
    scores = [(Image("n", "cat", False), [float(number), float(number) + 5, float(number)])
              for number in range(200)]
    scores += [(Image("f", "celeba", True), [value, value + 5, 300.0])
               for value in (100.0, 197.5, 198.0, 300.0)]
    rows = summarise(scores, (1, 2))
    assert [(row["search"], row["zooms"], row["rate"]) for row in rows] == [
        ("1", [1], 0.01), ("1", [1], 0.001), ("2", [1, 2], 0.01), ("2", [1, 2], 0.001),
        ("detector", None, 0.01), ("detector", None, 0.001)]
    group, = rows[0]["groups"]
    assert group["pictures"] == 4 and group["found"] == 3, "197.5, 198 and 300 are above 197"
    assert rows[2]["groups"][0]["found"] == 3
    assert rows[1]["groups"][0]["found"] == 1, "none of 200 may be above: 199 is the bound"
    assert rows[5]["groups"][0]["found"] == 4
    text = format_rows(rows)
    assert "celeba" in text and "75.0 %" in text and "\ndetector and classifier, at 1 %" in text


def test_images_are_scored_by_each_way_that_there_is(run_script, sample_dir, tiny_model, tmp_path):
    split = load_split(sample_dir, "test")
    save_list(str(tmp_path / source_list("own", FACE, "test")), split.faces[:2])
    save_list(str(tmp_path / source_list("own", NON_FACE, "test")), split.negatives[:2])
    for weights, ways in ((tiny_model.npz, {"1"}), ("released", {"1", "detector"})):
        outcome = run_script(photographs, "--data-dir", tmp_path, "--sources", "own", "--weights",
                             weights, "--scales", 1, "--json", tmp_path / "found.json")
        assert outcome.code == 0, outcome.err
        rows = json.loads((tmp_path / "found.json").read_text())["rows"]
        assert {row["search"] for row in rows} == ways
        assert all(row["groups"][0]["pictures"] == 2 for row in rows)
    assert rows[-1]["groups"][0]["found"] == 2, "two faces, by detector and classifier"


def test_another_file_is_kept(run_script, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    outcome = run_script(photographs, "--data-dir", tmp_path, "--json", tmp_path / "photo.jpg")
    assert outcome.code == 2 and "photo.jpg: not a file of metrics" in outcome.err
    assert (tmp_path / "photo.jpg").read_bytes() == b"\xff\xd8\xff"


def test_no_face_free_image_decodes(run_script, sample_dir, tiny_model, tmp_path):
    face = load_split(sample_dir, "test").faces[0]
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    save_list(str(tmp_path / source_list("own", FACE, "test")), [face])
    save_list(str(tmp_path / source_list("own", NON_FACE, "test")), ["bad.jpg"])
    outcome = run_script(photographs, "--data-dir", tmp_path, "--sources", "own", "--weights",
                         tiny_model.npz, "--image-size", 32, "--scales", 1)
    assert outcome.code == 2 and "bad.jpg: not an image in a known format" in outcome.err
    assert outcome.err.splitlines()[-1] == (
        "error: none of the face-free images of own decodes; check the lists")
