"""Engines give the same answers, and answering needs neither TensorFlow nor what training needs."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, read_csv

from darknet_face.classify.sliding_window import SlidingWindow
from darknet_face.console import UserError
from darknet_face.engines import engine as engines
from darknet_face.engines import onnx_runtime
from darknet_face.engines.engine import ENGINES, Engine, choose_engine, open_engine
from darknet_face.images.decode import read_image
from darknet_face.images.reader import read_batches
from darknet_face.images.samples import sample_images
from darknet_face.runtime.session import check_precision
from darknet_face.weights.model_file import RELEASED, read_model

# Runs a program without the modules that it must not need.
WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys({!r}))  # as if they were not installed
sys.argv = sys.argv[1:]
sys.path.insert(0, {!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""
HEAVY = ("tensorflow", "keras", "tf_keras", "scipy", "sklearn", "matplotlib", "imgaug", "skimage",
         "onnx", "requests", "imagehash", "pycocotools", "pandas")


SCRIPTS = sorted(name for name in os.listdir(ROOT) if name.endswith(".py")
                 and name not in ("utils.py", "clr.py", "darknet19.py"))


def run_without(modules, *arguments):
    return subprocess.run([sys.executable, "-c", WITHOUT.format(set(modules), ROOT), *arguments],
                          capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def released():
    """The released model on every engine."""
    weights = read_model(RELEASED).weights
    return [open_engine(weights, 224, name) for name in ENGINES]


def test_the_same_answers_to_photographs(released):
    _, images, _ = next(read_batches(sample_images()[:8], 8, 224))
    first, second = (engine(images) for engine in released)
    assert np.ptp(first[:, 0]) > 0.5, "the images must not all be alike"
    np.testing.assert_allclose(first, second, atol=1e-4, rtol=0)
    np.testing.assert_allclose(first.sum(axis=1), 1, atol=1e-6)


def test_the_same_windows(released):
    images = [read_image(path, least_size=300) for path in sample_images()[:3]]
    first, second = (SlidingWindow(engine, (1, 0.6)).find(images) for engine in released)
    for one, other in zip(first, second):
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-4, rtol=0)
        assert one[1:] == other[1:]


@pytest.mark.parametrize("name", ENGINES)
def test_class_maps_windows_and_answers_belong_together(tiny_model, name):
    images = np.random.RandomState(0).randint(0, 256, (2, 64, 96, 3)).astype(np.uint8)
    with open_engine(tiny_model.weights, 32, name) as engine:
        class_map = engine.class_map(images)
        assert (engine.name, engine.image_size) == (name, 32)
        assert class_map.shape == (2, 2, 3, 2) and class_map.dtype == np.float32
        odds = class_map[..., 0] - class_map[..., 1]
        np.testing.assert_allclose(engine.window_log_odds(images), odds)
        np.testing.assert_allclose(engine(images)[:, 0], 1 / (1 + np.exp(-odds.mean((1, 2)))),
                                   atol=1e-5)
        engine.image_size = 64
        np.testing.assert_allclose(engine.window_log_odds(images)[:, 0, 1],
                                   odds[:, :, 1:].mean((1, 2)), rtol=1e-4, atol=1e-4)


def test_an_image_that_an_engine_does_not_take(tiny_model):
    for name in ENGINES:
        with open_engine(tiny_model.weights, 32, name) as engine:
            with pytest.raises(UserError, match="on 1 images of 32 x 32 .*smaller") as caught:
                engine(np.zeros((1, 32, 32, 4), np.uint8))
            assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


def test_the_engine_that_is_taken(monkeypatch):
    assert choose_engine(None) == ENGINES[0] == "onnxruntime"
    assert choose_engine("tensorflow") == choose_engine(None, "bfloat16") == "tensorflow"
    with pytest.raises(UserError, match="onnxruntime computes in float32 and int8 only"):
        choose_engine("onnxruntime", "bfloat16")
    assert choose_engine(None, "int8") == "onnxruntime"
    with pytest.raises(UserError, match="int8: tensorflow .* only; use --engine onnxruntime"):
        choose_engine("tensorflow", "int8")
    with pytest.raises(UserError, match="int8: TensorFlow has no such mode"):
        check_precision("int8")
    monkeypatch.setattr(engines.importlib.util, "find_spec",
                        lambda name: None if name == "onnxruntime" else "found")
    assert choose_engine(None) == "tensorflow"
    with pytest.raises(UserError, match="not installed: onnxruntime; pip install onnxruntime"):
        choose_engine("onnxruntime")
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        choose_engine(None)


def test_the_session_opens_with_the_first_images(monkeypatch, tiny_model):
    """An answer by the detector alone needs none; a server opens it when it starts."""
    opened, real = [], onnx_runtime.open_session
    monkeypatch.setattr(onnx_runtime, "open_session",
                        lambda *arguments: opened.append(1) or real(*arguments))
    images = np.zeros((1, 32, 32, 3), np.uint8)
    with open_engine(tiny_model.weights, 32, "onnxruntime") as engine:
        assert not opened
        np.testing.assert_array_equal(engine(images), engine(images))
        assert len(opened) == 1
    with open_engine(tiny_model.weights, 32, "onnxruntime") as engine:
        engine.prepare()
        assert len(opened) == 2
    with pytest.raises(UserError, match="can't run the network"):
        engine(images)


def test_the_interface_is_what_an_engine_fills_in():
    with pytest.raises(NotImplementedError):
        Engine(32)(np.zeros((1, 32, 32, 3), np.uint8))


def test_images_are_answered_without_tensorflow(tiny_model, pictures, tmp_path):
    table = str(tmp_path / "out.csv")
    outcome = run_without(HEAVY, "inference.py", pictures, "--weights", tiny_model.npz,
                          "--image-size", "32", "--search", "1", "--csv", table, "--heatmap",
                          str(tmp_path / "maps"), "--contact-sheet", str(tmp_path / "sheet.png"))
    assert outcome.returncode == 0, outcome.stderr
    assert len(read_csv(table)) == 20 and (tmp_path / "sheet.png").exists()
    assert sum(len(names) for _, _, names in os.walk(str(tmp_path / "maps"))) == 20


def test_python_and_the_server_need_no_tensorflow(tiny_model, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import numpy, darknet_face.serving.command\n"
        "from darknet_face import load\n"
        "with load({!r}, search='off', image_size=32) as model:\n"
        "    print(model(numpy.zeros((40, 40, 3), numpy.uint8)).label)\n".format(tiny_model.npz))
    outcome = run_without(HEAVY, str(program))
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.strip() in ("FACE", "NON_FACE")


def test_what_needs_tensorflow_says_so(tiny_model, pictures):
    for options in (["--weights", tiny_model.pb], ["--weights", tiny_model.npz, "--image-size",
                                                   "32", "--precision", "bfloat16"]):
        outcome = run_without(HEAVY, "inference.py", pictures, *options)
        assert outcome.returncode == 2 and "Traceback" not in outcome.stderr
        assert "tensorflow" in outcome.stderr.splitlines()[-1].lower()


# Runs a script with --help and with a wrong option; prints the exit codes, and what it imported.
LISTING = """
import contextlib, json, os, runpy, sys
sys.path.insert(0, os.getcwd())
script, codes = sys.argv[1], []
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), (
        contextlib.redirect_stderr(nowhere)):
    for option in ("--help", "--no-such-option"):
        sys.argv = [script, option]
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            codes.append(end.code)
print(json.dumps([codes, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_wrong_options_load_nothing_heavy(script):
    outcome = subprocess.run([sys.executable, "-c", LISTING, script], capture_output=True,
                             text=True, cwd=ROOT)
    assert outcome.returncode == 0, outcome.stderr
    codes, modules = json.loads(outcome.stdout)
    assert codes == [0, 2] and "tqdm" in modules
    # The collector's classes are made of those of requests, which takes a tenth of a second.
    assert not {"onnxruntime", "tensorboard", *HEAVY} & set(modules) - {"requests"}


@pytest.mark.parametrize("name", ENGINES)
def test_answers_that_are_no_numbers_are_an_error(tiny_model, name):
    """Finite weights can be so large that the answers are not."""
    weights = dict(tiny_model.weights)
    for part in ("conv_17/gamma", "conv_18/kernel"):
        weights[part] = weights[part] * np.float32(1e30)
    images = np.random.RandomState(0).randint(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    with open_engine(weights, 32, name) as engine:
        for ask in (engine, engine.window_log_odds):
            with pytest.raises(UserError, match="not finite numbers; train it again"):
                ask(images)
