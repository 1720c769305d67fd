"""Each source has a row of its own, counted by hand; a search's answers are measured alike."""

import collections

import numpy as np
import pytest

import test as test_script
from darknet_face.classify.api import load
from darknet_face.classify.sliding_window import scales_of
from darknet_face.evaluation.by_source import (
    format_by_source,
    mistakes_by_source,
    score_as_answered,
    union,
)
from darknet_face.evaluation.metrics import Scores
from darknet_face.images.file_lists import Split, load_split, save_list, source_list


def test_rows_by_hand():
    splits = collections.OrderedDict([
        ("a", Split(("f1", "f2", "f3"), ("n1",))), ("b", Split((), ("n2", "n3"))),
        ("c", Split(("gone",), ()))])
    paths = ["f1", "f2", "f3", "n1", "n2", "n3"]
    scores = Scores(paths, np.array([0, 0, 0, 1, 1, 1]),
                    np.array([0.9, 0.4, 0.6, 0.7, 0.2, 0.1]), 1)
    rows = mistakes_by_source(scores, splits)
    assert [(row["source"], row["class"], row["pictures"], row["mistakes"]) for row in rows] == [
        ("a", "faces", 3, 1), ("a", "non-faces", 1, 1), ("b", "non-faces", 2, 0)]
    assert rows[0]["rate"] == pytest.approx(1 / 3)
    assert rows[0]["interval"][0] < 1 / 3 < rows[0]["interval"][1]
    assert len(format_by_source(rows).splitlines()) == 4
    assert union(splits) == (("f1", "f2", "f3", "gone"), ("n1", "n2", "n3"))


@pytest.mark.parametrize("search", [2, "off"])
def test_scores_are_the_answers_of_a_call(sample_dir, tiny_model, tmp_path, capsys, search):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG")
    faces, others = load_split(sample_dir, "val")
    with load(tiny_model.npz, search=search) as model:
        scores = score_as_answered(model, Split(faces + (str(bad),), others))
        assert scores.skipped == 1 and "bad.png" in capsys.readouterr().err
        for path, probability in zip(scores.paths, scores.face_probabilities):
            result = model(path)
            assert result.probability == pytest.approx(probability, abs=1e-6)
            assert scores.boxes[path] == (tuple(result.box) if search == 2 else (None,) * 4)


def test_scales_of_the_option():
    assert scales_of("off") == scales_of(None) == () and scales_of("2") == (1, 0.6, 2)


def test_test_script_prints_sources_and_search(run_script, sample_dir, tiny_model, tmp_path):
    for label, paths in enumerate(load_split(sample_dir, "val")):
        save_list(str(tmp_path / source_list("more", label, "test")), list(paths))
    for label, paths in enumerate(load_split(sample_dir, "test")):
        save_list(str(tmp_path / source_list("celeba", label, "test")), list(paths))
    outcome = run_script(test_script, "--model", tiny_model.pb, "--data-dir", tmp_path, "--json",
                         tmp_path / "metrics.json", "--sources", "celeba", "more", "--search", "1",
                         "--report", tmp_path / "report")
    assert outcome.code == 0
    assert outcome.out.count("\nmore ") == 4, "faces and non-faces, by both judgements"
    assert (outcome.out.index("sliding window, scales 1, 0.6, as inference.py answers:\n")
            < outcome.out.index("single pass, each image stretched to 32 x 32:\n"))
    page = (tmp_path / "report" / "index.html").read_text()
    assert "judged by sliding window, scales 1, 0.6" in page
    for title in ("Mistakes by dataset: sliding window", "Mistakes by dataset: single pass",
                  "Judged by single pass"):
        assert "<h2>" + title in page
