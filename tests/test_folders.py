"""test.py --faces DIR --non-faces DIR: two folders measured without lists."""

import os
import shutil

import pytest

import test as test_script
from darknet_face.images.file_lists import load_split
from darknet_face.runtime.safe_files import read_json


@pytest.fixture
def folders(sample_dir, tmp_path, monkeypatch):
    """The test images of the lists, in two folders of the current one."""
    split = load_split(sample_dir, "test")
    for name, paths in (("faces", split.faces), ("others/below", split.negatives)):
        (tmp_path / name).mkdir(parents=True)
        for path in paths:
            shutil.copy(path, str(tmp_path / name))
    (tmp_path / "others" / "bad.png").write_bytes(b"\x89PNG")
    (tmp_path / "others" / "notes.txt").write_text("no image")
    monkeypatch.chdir(str(tmp_path))
    return "--faces", "faces", "--non-faces", "others"


def test_the_metrics_are_those_of_lists_of_the_same_pictures(
        run_script, folders, sample_dir, tiny_model):
    options = ("--weights", tiny_model.npz, "--search", "1", "--json")
    outcome = run_script(test_script, *folders + options + ("mine.json", "--report", "report"))
    assert outcome.code == 0, outcome.err
    assert "20 faces and 21 non-faces, threshold 0.5" in outcome.out
    assert outcome.err.count("bad.png") == 2, "in each judgement"
    assert outcome.out.index("sliding window, scales 1") < outcome.out.index("single pass")
    assert run_script(test_script, "--data-dir", sample_dir, *options + ("lists.json",)).code == 0
    mine, lists = (read_json(name) for name in ("mine.json", "lists.json"))
    assert mine["skipped"] == 1
    assert mine["confusion_matrix"] == lists["confusion_matrix"]
    for name in ("images", "accuracy", "roc_auc"):
        assert mine[name] == pytest.approx(lists[name], abs=1e-5), name
        assert mine["search"][name] == pytest.approx(lists["search"][name], abs=1e-5), name
    report = read_json("report/report.json")
    assert report["judged_by"].startswith("sliding window")
    assert report["pictures"] == {"test": {"faces": 20, "non_faces": 21}}
    assert report["mistakes"] and report["data_dir"] is None
    for row in report["mistakes"]:
        assert os.path.exists(row["file"]) and not os.path.isabs(row["file"])
    with open("report/index.html") as stream:
        assert os.getcwd() not in stream.read()


@pytest.mark.parametrize("arguments, cause", [
    (("--faces", "faces"), "add --non-faces"),
    (("--non-faces", "others"), "add --faces"),
    (("--faces", "faces", "--non-faces", "others", "--sources", "a"), "leave one out"),
    (("--faces", "none", "--non-faces", "others"), "no such folder"),
    (("--faces", "faces", "--non-faces", "faces"), "each class needs folders of its own"),
    (("--faces", "faces", "--non-faces", "empty"), "no images in it"),
    (("--faces", "faces", "--non-faces", "spoilt"), "no image of class NON_FACE decodes")])
def test_what_can_t_be_measured_is_one_line(run_script, folders, tiny_model, arguments, cause):
    for name in ("empty", "spoilt"):
        os.mkdir(name)
    shutil.copy("others/bad.png", "spoilt/bad.png")
    outcome = run_script(test_script, "--weights", tiny_model.pb, *arguments)
    assert outcome.code == 2 and cause in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err and "preprocess_celeba" not in outcome.err


def test_without_a_model_the_line_names_the_remedies(run_script, folders, tmp_path):
    outcome = run_script(test_script, *folders + ("--model-dir", tmp_path / "none"))
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "run train.py" in outcome.err and "--weights released" in outcome.err
