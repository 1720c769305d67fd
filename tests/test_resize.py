"""Scaling: by NumPy to the pixels of OpenCV, and what an installation without OpenCV answers."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from darknet_face.images import resize as module
from darknet_face.images.resize import resize

SAMPLES = os.path.join(ROOT, "darknet_face", "serving", "samples")
# Runs a module as a program where OpenCV can't be imported.
WITHOUT_OPENCV = """
import runpy, sys
sys.modules["cv2"] = None
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("before, after", [
    ((40, 60), (20, 30)), ((97, 131), (32, 64)), ((64, 64), (63, 64)), ((513, 700), (1, 1)),
    ((30, 20), (224, 224)), ((1, 1), (5, 7)), ((500, 30), (224, 224)), ((30, 500), (224, 224)),
    ((2000, 3), (1999, 3))])
@pytest.mark.parametrize("dtype, tolerance", [(np.uint8, 1), (np.float32, 0.3)])
def test_numpy_scales_as_opencv_does(monkeypatch, before, after, dtype, tolerance):
    noise = np.random.RandomState(0).randint(0, 256, before + (3,)).astype(dtype)
    expected = resize(noise, *after)
    monkeypatch.setattr(module, "cv2", None)
    found = resize(noise, *after)
    assert found.shape == after + (3,) and found.dtype == dtype and found.flags.c_contiguous
    difference = np.abs(found.astype(float) - expected)
    assert difference.max() <= tolerance and difference.mean() < 0.3


def test_means_of_areas_are_exact(monkeypatch):
    """Three rows become two: each is one old row and half of the middle one."""
    monkeypatch.setattr(module, "cv2", None)
    rows = np.float32([[0], [30], [60]])
    np.testing.assert_allclose(resize(rows, 2, 1), [[10], [50]], atol=1e-4)
    np.testing.assert_allclose(resize(rows[:2], 4, 1), [[0], [7.5], [22.5], [30]], atol=1e-4)


def run(*arguments, cwd=None):
    return subprocess.run([sys.executable, "-c", WITHOUT_OPENCV, "darknet_face.command",
                           *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
                          env=dict(os.environ, PYTHONPATH=ROOT))


def table(path):
    with open(str(path), newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_answers_without_opencv(run_script, video, tmp_path):
    """The same faces and all outputs; a video among the images is reported and skipped."""
    ended = run(SAMPLES, video, "--csv", tmp_path / "without.csv", "--heatmap", tmp_path / "maps",
                "--contact-sheet", tmp_path / "sheet.png")
    assert ended.returncode == 0 and "1 could not be read" in ended.stderr
    assert "film.avi: a video; to read it: pip install opencv-python-headless" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "sheet.png").exists()
    assert sum(len(files) for _, _, files in os.walk(str(tmp_path / "maps"))) == 4
    from darknet_face.classify import command
    assert run_script(command, SAMPLES, "--csv", tmp_path / "with.csv").code == 0
    without = [row for row in table(tmp_path / "without.csv") if "film.avi" not in row["file"]]
    for found, expected in zip(without, table(tmp_path / "with.csv")):
        assert found["file"] == expected["file"] and found["faces"] == expected["faces"]
        assert float(found["face_probability"]) == pytest.approx(
            float(expected["face_probability"]), abs=0.005)


@pytest.mark.parametrize("options", [("--camera", "0"), ("film.avi", "--annotate", "out.mp4")])
def test_what_needs_opencv_names_the_remedy(video, tmp_path, options):
    ended = run(*options, cwd=str(tmp_path))
    assert ended.returncode == 2 and not (tmp_path / "out.mp4").exists()
    assert "Traceback" not in ended.stderr and ended.stderr.splitlines()[-1] == (
        "error: cv2 is not installed: pip install 'darknet-face[video]'")


def test_info_says_so():
    ended = run("info", "--weights", "released")
    assert ended.returncode == 0 and "cv2 not installed" in ended.stdout
