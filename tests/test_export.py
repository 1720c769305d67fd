"""Exports, run by the engines they are for, and what happens where an engine disagrees."""

import collections
import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT

import export
import train
from model import darknet_files, frozen
from model.weights import assign, read_weights, write_npz
from pictures.decode import read_image, resize
from pictures.lists import load_split
from pictures.reader import read_batches
from runtime.session import tf
from training.loader import TrainingBatches
from training.settings import Settings
from utils import UserError

PICTURES = ("--images", "8")
Model = collections.namedtuple("Model", "checkpoint weights folder pb")


@pytest.fixture(autouse=True, scope="module")
def small_backbone():
    """The hand-off is compared at 64 x 64 here: 416 x 416 takes 40 times as long."""
    size, pictures = export.YOLOV2_SIZE, export.YOLOV2_PICTURES
    export.YOLOV2_SIZE, export.YOLOV2_PICTURES = 64, 2
    yield
    export.YOLOV2_SIZE, export.YOLOV2_PICTURES = size, pictures


def run(module, *arguments):
    saved, sys.argv = sys.argv, [module.__name__ + ".py"] + [str(each) for each in arguments]
    try:
        module.main()
        return 0
    except SystemExit as end:
        return end.code
    finally:
        sys.argv = saved


@pytest.fixture(scope="module")
def model(sample_dir, pictures, tmp_path_factory):
    """Three steps of training at 32 x 32: the checkpoint, its weights, the frozen graph.

    So young a network magnifies rounding errors: its last layer is scaled down, and its bias set
    into the widest gap about the middle, so that half of the pictures are clearly called faces.
    """
    folder = str(tmp_path_factory.mktemp("trained"))
    prefix = os.path.join(folder, "checkpoints", "model")
    # The moving averages of so few steps are those of the last batch.
    settings = Settings(image_size=32, batch_size=32, momentum=0.0, average_decay=0.0)
    batches = TrainingBatches(load_split(sample_dir, "train"), 32, 32, augment="none")
    with tf.Graph().as_default():
        net = train.build_training_graph(
            settings, train.cyclical_rate(settings, batches.schedule))
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for step in range(3):
                images, labels, _ = batches.batch(step)
                session.run(net.train_op, {net.images: images, net.labels: labels})
            weights = read_weights(net.saver.save(session, prefix, 3))
            with frozen.classifier_from_weights(weights, 32).session as fresh:
                logits = fresh.run("logits:0", {"input:0": pictures / np.float32(255)})
            margins = np.sort(logits[:, 0] - logits[:, 1])
            widest = 80 + np.argmax(np.diff(margins[80:120]))
            weights["conv_18/bias"][0] -= margins[widest:widest + 2].mean()
            for name in ("conv_18/kernel", "conv_18/bias"):
                weights[name] *= np.float32(0.2)
                assign(session, {name: weights[name]})
            checkpoint = net.saver.save(session, prefix, 4)
    pb = os.path.join(folder, "darknet19_frozen.pb")
    frozen.freeze(frozen.classifier_from_weights(weights, 32), pb, images[:4], {})
    return Model(checkpoint, weights, folder, pb)


@pytest.fixture(scope="module")
def exported(model, sample_dir, tmp_path_factory):
    """The folder of ``export.py all``."""
    out = str(tmp_path_factory.mktemp("exports"))
    assert run(export, "all", "--model-dir", model.folder, "--data-dir", sample_dir,
               "--out", out, *PICTURES) == 0
    return out


@pytest.fixture(scope="module")
def network(model, sample_dir):
    """The model with its pictures, as the subcommands get it."""
    return export.Network(export._parser().parse_args(
        ["onnx", "--from", model.pb, "--data-dir", sample_dir, "--images", "6"]))


@pytest.fixture(scope="module")
def pictures(sample_dir):
    """All 200 pictures of the sample: uint8 [200, 32, 32, 3]."""
    paths = [path for name in ("train", "val", "test") for path in load_split(
        sample_dir, name).paths]
    _, images, _ = next(read_batches(paths, len(paths), 32))
    assert len(images) == 200
    return images


def test_all_writes_everything(exported):
    assert sorted(os.listdir(exported)) == [
        "bn_weights.pickle", "compare.json", "conv_weights.pickle", "darknet19_face.cfg",
        "darknet19_face.names", "darknet19_face.onnx", "darknet19_face.weights",
        "darknet19_face_savedmodel"]
    with open(os.path.join(exported, "darknet19_face.names")) as stream:
        assert stream.read() == "FACE\nNON_FACE\n"


def test_the_table(exported):
    with open(os.path.join(exported, "compare.json")) as stream:
        table = json.load(stream)
    assert table["images"] == 8 and table["image_size"] == 32
    rows = table["engines"]
    assert [row["bound"] for row in rows] == [1e-5, 1e-5, 1e-4, 1e-5, 1e-5, 1e-3]
    assert all(row["largest_difference"] <= row["bound"] for row in rows)
    assert all(row["same_class"] == 8 for row in rows)
    assert rows[0]["from"].endswith("darknet19_frozen.pb")
    text = export.format_table(rows, 8).splitlines()
    assert len(text) == 7 and "8 of 8" in text[3] and "OpenCV" in text[3]


def test_pickles(exported, model):
    with open(os.path.join(exported, "conv_weights.pickle"), "rb") as stream:
        kernels = pickle.load(stream)
    np.testing.assert_array_equal(kernels["conv_18"], model.weights["conv_18/kernel"])


def test_onnx_any_batch_and_size(exported, model, pictures):
    path = os.path.join(exported, "darknet19_face.onnx")
    converted = onnx.load(path)
    onnx.checker.check_model(converted)
    assert [dim.dim_param or dim.dim_value for dim in
            converted.graph.input[0].type.tensor_type.shape.dim] == ["batch", "height", "width", 3]
    metadata = {each.key: each.value for each in converted.metadata_props}
    assert metadata["class_names"] == "FACE,NON_FACE" and metadata["image_size"] == "32"
    assert "divided by 255" in metadata["preprocessing"] and "RGB" in metadata["preprocessing"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count, height, width in ((1, 32, 32), (3, 64, 96)):
        images = np.stack([resize(picture, height, width) for picture in pictures[:count]])
        images = images / np.float32(255)
        logits, probabilities = session.run(["logits", "probabilities"], {"input": images})
        assert probabilities.shape == logits.shape == (count, 2)
        with tf.Graph().as_default(), frozen.classifier_from_weights(
                model.weights, None).session as fresh:
            expected = fresh.run("probabilities:0", {"input:0": images})
        np.testing.assert_allclose(probabilities, expected, atol=1e-5, rtol=0)


def test_saved_model_in_another_process(exported, model, sample_dir):
    """Encoded pictures in, classes and probabilities out, with TensorFlow alone."""
    paths = load_split(sample_dir, "test").paths[::8]
    program = (
        "import json, sys, tensorflow.compat.v1 as tf\n"
        "with tf.Session(graph=tf.Graph()) as session:\n"
        "    model = tf.saved_model.load(session, ['serve'], sys.argv[1])\n"
        "    signature = model.signature_def['serving_default']\n"
        "    feed = {signature.inputs['image_bytes'].name: [open(p, 'rb').read()\n"
        "                                                   for p in sys.argv[2:]]}\n"
        "    names = [signature.outputs[k].name for k in ('classes', 'probabilities')]\n"
        "    classes, probabilities = session.run(names, feed)\n"
        "print(json.dumps([[c.decode() for c in classes], probabilities.tolist()]))\n")
    outcome = subprocess.run(
        [sys.executable, "-c", program, os.path.join(exported, "darknet19_face_savedmodel", "1")]
        + list(paths), capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    classes, probabilities = json.loads(outcome.stdout.splitlines()[-1])
    _, images, _ = next(read_batches(paths, len(paths), 32))
    expected = frozen.load(model.pb)(images)
    np.testing.assert_allclose(probabilities, expected, atol=1e-3, rtol=0)
    assert classes == [("FACE", "NON_FACE")[row.argmax()] for row in expected]


def test_darknet_files_in_opencv(exported, model, pictures):
    """Read by OpenCV as a user would: one picture, BGR from a file, swapped to RGB."""
    net = cv2.dnn.readNetFromDarknet(*[os.path.join(exported, "darknet19_face" + extension)
                                       for extension in (".cfg", ".weights")])
    net.setInput(cv2.dnn.blobFromImage(pictures[0][..., ::-1], 1 / 255.0, swapRB=True))
    expected = frozen.load(model.pb)(pictures[:1])
    np.testing.assert_allclose(net.forward().ravel(), expected[0], atol=1e-4)


def test_trained_to_npz_to_darknet_to_npz(model, tmp_path):
    """Every bit of every array comes back."""
    first, second = str(tmp_path / "first.npz"), str(tmp_path / "second.npz")
    write_npz(first, read_weights(model.checkpoint))
    darknet_files.write_network(str(tmp_path / "face.cfg"), str(tmp_path / "face.weights"),
                                 read_weights(first), 32)
    write_npz(second, read_weights(str(tmp_path / "face.weights")))
    with np.load(first) as before, np.load(second) as after:
        assert before.files == after.files and len(before.files) == 92
        for name in before.files:
            assert before[name].tobytes() == after[name].tobytes(), name


def test_checkpoint_to_frozen_to_onnx(model, exported, pictures):
    """The same top class on every picture of the sample: export.py took the frozen graph."""
    checkpoint = frozen.classifier_from_weights(read_weights(model.checkpoint), 32)(pictures)
    assert 80 <= checkpoint.argmax(1).sum() <= 120
    session = onnxruntime.InferenceSession(os.path.join(exported, "darknet19_face.onnx"),
                                           providers=["CPUExecutionProvider"])
    probabilities, = session.run(["probabilities"], {"input": pictures / np.float32(255)})
    np.testing.assert_array_equal(probabilities.argmax(1), checkpoint.argmax(1))
    np.testing.assert_allclose(probabilities, checkpoint, atol=1e-5, rtol=0)


@pytest.mark.parametrize("command, engine, old", [
    ("darknet", "run_opencv", "darknet19_face.weights"),
    ("onnx", "run_onnx", "darknet19_face.onnx"),
    ("yolov2", "compare_backbones", "conv_weights.pickle"),
    ("savedmodel", "run_saved_model_on_files", "darknet19_face_savedmodel/1/saved_model.pb"),
])
def test_an_engine_that_disagrees_stops_the_file(network, exported, tmp_path, monkeypatch, command,
                                                 engine, old):
    """The older file stays, and nothing is left half-written."""
    converted = onnx.load(os.path.join(exported, "darknet19_face.onnx"))
    monkeypatch.setattr(export, "to_onnx", lambda *_: converted)
    monkeypatch.setattr(export, "write_saved_model", lambda *arguments: os.mkdir(arguments[-1]))
    monkeypatch.setattr(export, "run_saved_model_on_tensors", lambda *_: network.expected)
    (tmp_path / old).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / old).write_text("older")
    wrong = np.nan if engine == "compare_backbones" else network.expected + 0.002
    monkeypatch.setattr(export, engine, lambda *_: wrong)
    args = argparse_of(command, tmp_path)
    with pytest.raises(UserError, match="not written.*differs by") as caught:
        args.run(network, args)
    assert caught.value.exit_code == 1
    assert (tmp_path / old).read_text() == "older"
    names = [name for _, folders, files in os.walk(str(tmp_path)) for name in folders + files]
    assert sorted(names) == sorted(old.split("/"))


def with_weights(write, place, wrong):
    """A function that gives ``write`` other weights than it gets, as argument number ``place``."""
    return lambda *arguments: write(*arguments[:place], wrong, *arguments[place + 1:])


def argparse_of(command, out):
    return export._parser().parse_args([command, "--out", str(out)])


def test_opencv_needs_the_raised_variances(network, tmp_path):
    """With the variances as they are, OpenCV's other epsilon shows in the probabilities."""
    differences = []
    for write in (
            lambda cfg, content: darknet_files.write_network(cfg, content, network.weights, 32),
            lambda cfg, content: (darknet_files.write_cfg(cfg, 32),
                                  darknet_files.write_weights(content, network.weights))):
        write(*[str(tmp_path / (export.NAME + extension)) for extension in (".cfg", ".weights")])
        differences.append(network.difference(export.run_opencv(str(tmp_path), network)))
    assert differences[0] < 1e-4 and differences[0] < differences[1] / 5, differences


def test_exported_darknet_files_give_back_the_weights(exported, model):
    read = read_weights(os.path.join(exported, "darknet19_face.weights"))
    for name, array in model.weights.items():
        assert read[name].tobytes() == array.tobytes(), name


def test_a_saved_model_replaces_an_older_one(network, tmp_path):
    args = argparse_of("savedmodel", tmp_path)
    version = tmp_path / "darknet19_face_savedmodel" / "1"
    version.mkdir(parents=True)
    (version / "notes.txt").write_text("not a model")
    with pytest.raises(UserError, match="no SavedModel; remove it"):
        args.run(network, args)
    assert (version / "notes.txt").read_text() == "not a model"
    (version / "saved_model.pb").write_bytes(b"older")
    assert args.run(network, args) < 1e-3
    assert sorted(os.listdir(str(version))) == ["saved_model.pb", "variables"]
    assert os.listdir(str(version.parent)) == ["1"]
    assert (version / "saved_model.pb").stat().st_size > 10000


@pytest.mark.parametrize("at_once", [True, False])
def test_folders_are_exchanged(tmp_path, monkeypatch, at_once):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    if not at_once:
        monkeypatch.setattr(export.ctypes, "CDLL", lambda _: object())
    export._exchange(str(tmp_path / "new"), str(tmp_path / "old"))
    assert os.listdir(str(tmp_path / "old")) == ["new"]


def test_compare_finds_files_of_other_weights(exported, network, tmp_path, monkeypatch, capsys):
    other = copy.copy(network)
    other.weights = dict(network.weights)
    other.weights["conv_18/bias"] = network.weights["conv_18/bias"] + np.float32([0.5, 0])
    other.classifier = frozen.classifier_from_weights(other.weights, 32)
    other.expected = other.classifier(network.images)
    for name in ("run_saved_model_on_tensors", "run_saved_model_on_files"):
        monkeypatch.setattr(export, name, lambda *_: network.expected)
    args = export._parser().parse_args(
        ["compare", "--out", exported, "--json", str(tmp_path / "table.json")])
    with pytest.raises(UserError, match="exported from other weights") as caught:
        export.compare(other, args)
    assert caught.value.exit_code == 1 and "SavedModel, tensor" in capsys.readouterr().out
    with open(str(tmp_path / "table.json")) as stream:
        rows = json.load(stream)["engines"]
    assert rows[0]["largest_difference"] == 0 and rows[1]["largest_difference"] < 1e-5
    assert all(row["largest_difference"] > 1e-3 for row in rows[2:])


def test_compare_without_the_exports(network, tmp_path):
    with pytest.raises(UserError, match="no such file; run export.py darknet"):
        export.compare(network, argparse_of("compare", tmp_path))


def test_a_missing_package_is_one_line(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx.convert", None)
    args = argparse_of("onnx", tmp_path)
    with pytest.raises(UserError, match="tf2onnx.convert can't be imported.*requirements.txt"):
        args.run(network, args)


def test_which_weights(model, tmp_path):
    """Your own .npz, then your own frozen graph, then the released weights; --from before all."""
    args = argparse_of("onnx", tmp_path)
    args.model_dir = str(tmp_path)
    assert "darknet19_frozen" not in export.choose_source(args)[0]
    for name in ("darknet19_frozen.pb", "darknet19_frozen.json"):
        os.link(os.path.join(model.folder, name), str(tmp_path / name))
    assert export.choose_source(args) == (str(tmp_path / "darknet19_frozen.pb"), 32)
    (tmp_path / "darknet19_weights.npz").write_bytes(b"")
    assert export.choose_source(args) == (str(tmp_path / "darknet19_weights.npz"), 32)
    args.source = "other.weights"
    assert export.choose_source(args)[0] == "other.weights"


def test_the_size_that_the_source_tells(model, exported, tmp_path):
    """A graph or a .cfg on its own, away from what else was written with it."""
    args = argparse_of("onnx", tmp_path)
    args.model_dir = str(tmp_path)
    lone = tmp_path / "lone.pb"
    os.link(model.pb, str(lone))
    for source, expected in ((lone, 32), (os.path.join(exported, "darknet19_face.weights"), 32)):
        args.source, args.image_size = str(source), None
        assert export.choose_source(args) == (str(source), expected)
    args.image_size = 64
    assert export.choose_source(args)[1] == 64


def test_a_full_disk_is_one_line(network, tmp_path, monkeypatch):
    """The real error: /dev/full in the place of a file."""
    def write(_, __, folder):
        os.makedirs(os.path.join(folder, "variables"))
        with tf.Graph().as_default(), tf.Session() as session:
            session.run(tf.io.write_file("/dev/full", "content"))

    monkeypatch.setattr(export, "write_saved_model", write)
    with pytest.raises(UserError, match="can't be written .*; check the free disk space"):
        export.export_savedmodel(network, argparse_of("savedmodel", tmp_path))
    assert os.listdir(str(tmp_path / "darknet19_face_savedmodel")) == []


@pytest.mark.parametrize("nudge, passes", [(1e-5, True), (0.01, False)])
def test_saturated_probabilities_hide_nothing(network, nudge, passes):
    def answers(logits):
        face = 1 / (1 + np.exp(-np.array(logits)))
        return np.stack([face, 1 - face], axis=1).astype(np.float32)

    sure = copy.copy(network)
    sure.expected = answers([-11.0, -12.0, -200.0])
    probabilities = answers([-11.0, -12.0 + nudge, -200.0])
    if passes:
        assert sure.check("x.onnx", "ONNX Runtime", probabilities, 1e-5) < 1e-6
        return
    assert sure.difference(probabilities) < 1e-6
    with pytest.raises(UserError, match="not written: the log-odds of ONNX Runtime differs by"):
        sure.check("x.onnx", "ONNX Runtime", probabilities, 1e-5)


@pytest.mark.parametrize("command", ["darknet", "onnx", "yolov2", "savedmodel"])
def test_an_export_of_other_weights_stops(network, tmp_path, monkeypatch, command):
    """Not the engine is wrong here but the file: its classes are exchanged, its stem is scaled."""
    wrong = dict(network.weights)
    for name in ("conv_18/kernel", "conv_18/bias"):
        wrong[name] = np.ascontiguousarray(wrong[name][..., ::-1])
    wrong["conv_0/gamma"] = wrong["conv_0/gamma"] * np.float32(1.01)
    for module, name, place in ((darknet_files, "write_network", 2), (export, "to_onnx", 0),
                                (export, "write_saved_model", 0), (export, "write_handoff", 0)):
        monkeypatch.setattr(module, name, with_weights(getattr(module, name), place, wrong))
    args = argparse_of(command, tmp_path)
    with pytest.raises(UserError, match="not written: .* differs by") as caught:
        args.run(network, args)
    assert caught.value.exit_code == 1
    assert not [name for _, _, names in os.walk(str(tmp_path)) for name in names]


def test_sigterm_tidies_up(tmp_path, monkeypatch):
    def interrupted(_, args):
        with export.staged(args.out) as folder:
            (tmp_path / os.path.basename(folder) / "half").write_text("")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    monkeypatch.setattr(export, "Network", lambda args: None)
    monkeypatch.setattr(export, "export_onnx", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run(export, "onnx", "--out", tmp_path) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.listdir(str(tmp_path)) == []


def test_help_says_each_default_once(capsys):
    with pytest.raises(SystemExit):
        export._parser().parse_args(["yolov2", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "The two pickles of the YOLOv2 face detector." in text
    assert "(default: None)" not in text and "faces (default: 100)" in text


def test_pictures_to_compare_on(sample_dir, tmp_path):
    chosen, kind = export.test_pictures(sample_dir, 10)
    assert "test lists" in kind
    split = load_split(sample_dir, "test")
    assert len(set(chosen)) == 10 and len(set(chosen) & set(split.faces)) == 5
    photographs, kind = export.test_pictures(str(tmp_path), 100)
    assert len(photographs) >= 10 and "photographs" in kind
    assert all(read_image(path).ndim == 3 for path in photographs[:2])


def test_bad_input_in_one_line(tmp_path):
    outcome = subprocess.run(
        [sys.executable, os.path.join(ROOT, "export.py"), "onnx", "--from", "none.pb"],
        capture_output=True, text=True, cwd=str(tmp_path))
    assert outcome.returncode == 2 and outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("error: none.pb: No such file")
    assert os.listdir(str(tmp_path)) == []
