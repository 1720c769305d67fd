"""Exports, run by the engines they are for, and what happens where an engine disagrees."""

import collections
import copy
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT, WIDTH

import darknet_face.exporters.darknet
import darknet_face.exporters.onnx
import darknet_face.exporters.savedmodel
import train
from darknet_face.console import UserError
from darknet_face.engines import tensorflow_classifier as graphs
from darknet_face.exporters import command as export
from darknet_face.exporters import compare
from darknet_face.images.decode import read_image
from darknet_face.images.file_lists import LISTS, load_split, save_list
from darknet_face.images.reader import read_batches
from darknet_face.images.resize import resize
from darknet_face.runtime.atomic_files import staged
from darknet_face.runtime.session import tf
from darknet_face.training.loader import TrainingBatches
from darknet_face.training.settings import Settings
from darknet_face.weights import darknet_cfg, darknet_weights, frozen_graph
from darknet_face.weights.arrays import assign
from darknet_face.weights.model_file import choose_model, read_model
from darknet_face.weights.npz import write_npz

PICTURES = ("--images", "8")
Model = collections.namedtuple("Model", "checkpoint weights folder pb")


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

    So young a reference magnifies rounding errors: its last layer is scaled down, and its bias set
    so that about half of the images are called faces, the compared ones as clearly as can be.
    """
    paths, _ = compare.choose_images(sample_dir, int(PICTURES[1]))
    _, compared, _ = next(read_batches(paths, len(paths), 32))
    folder = str(tmp_path_factory.mktemp("trained"))
    prefix = os.path.join(folder, "checkpoints", "model")
    # The moving averages of so few steps are those of the last batch.
    settings = Settings(image_size=32, width=WIDTH, batch_size=32, momentum=0.0,
                        average_decay=0.0)
    batches = TrainingBatches(load_split(sample_dir, "train"), 32, 32, augment="none")
    with tf.Graph().as_default():
        net = train.build_training_graph(
            settings, train.cyclical_rate(settings, batches.schedule))
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for step in range(3):
                images, labels, _ = batches.batch(step)
                session.run(net.train_op, {net.images: images, net.labels: labels})
            weights = read_model(net.saver.save(session, prefix, 3)).weights
            with graphs.classifier_from_weights(weights, 32).session as fresh:
                margins, compared = (
                    np.subtract(*fresh.run("logits:0", {"input:0": each / np.float32(255)}).T)
                    for each in (pictures, compared))
            places = np.linspace(*np.percentile(margins, (42, 58)), 100)
            weights["conv_18/bias"][0] -= places[
                np.abs(places[:, np.newaxis] - compared).min(axis=1).argmax()]
            for name in ("conv_18/kernel", "conv_18/bias"):
                weights[name] *= np.float32(0.2)
                assign(session, {name: weights[name]})
            checkpoint = net.saver.save(session, prefix, 4)
    pb = os.path.join(folder, "darknet19_frozen.pb")
    frozen_graph.freeze(graphs.classifier_from_weights(weights, 32), pb, images[:4], {})
    return Model(checkpoint, weights, folder, pb)


@pytest.fixture(scope="module")
def exported(model, sample_dir, tmp_path_factory):
    """The folder of ``export.py all``."""
    out = str(tmp_path_factory.mktemp("exports"))
    assert run(export, "all", "--model-dir", model.folder, "--data-dir", sample_dir,
               "--out", out, *PICTURES) == 0
    return out


@pytest.fixture(scope="module")
def reference(model, sample_dir):
    """The model with its answers to some images, as the exporters get it."""
    return export._reference(export._parser().parse_args(
        ["onnx", "--from", model.pb, "--data-dir", sample_dir, "--images", "6"]))


@pytest.fixture(scope="module")
def pictures(sample_dir):
    """All 200 images of the sample: uint8 [200, 32, 32, 3]."""
    paths = [path for name in ("train", "val", "test") for path in load_split(
        sample_dir, name).paths]
    _, images, _ = next(read_batches(paths, len(paths), 32))
    assert len(images) == 200
    return images


def test_all_writes_everything(exported):
    assert sorted(os.listdir(exported)) == [
        "compare.json", "darknet19_face.cfg", "darknet19_face.names",
        "darknet19_face.onnx", "darknet19_face.weights", "darknet19_face_nchw.onnx",
        "darknet19_face_savedmodel"]
    with open(os.path.join(exported, "darknet19_face.names")) as stream:
        assert stream.read() == "FACE\nNON_FACE\n"


def test_the_table(exported):
    with open(os.path.join(exported, "compare.json")) as stream:
        table = json.load(stream)
    assert table["images"] == 8 and table["image_size"] == 32
    rows = table["engines"]
    assert [row["bound"] for row in rows] == [1e-5, 1e-5, 1e-4, 1e-5, 1e-5, 1e-4, 1e-5, 5e-2]
    assert all(row["largest_difference"] <= row["bound"] for row in rows)
    assert all(row["same_class"] == 8 for row in rows)
    assert rows[0]["from"].endswith("darknet19_frozen.pb")
    text = compare.format_table(rows, 8).splitlines()
    assert len(text) == 9 and "8 of 8" in text[3] and "OpenCV" in text[3]


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
        with tf.Graph().as_default(), graphs.classifier_from_weights(
                model.weights, None).session as fresh:
            expected = fresh.run("probabilities:0", {"input:0": images})
        np.testing.assert_allclose(probabilities, expected, atol=1e-5, rtol=0)


def test_saved_model_in_another_process(exported, model, sample_dir):
    """Encoded images in, classes and probabilities out, with TensorFlow alone."""
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
    expected = frozen_graph.load(read_model(model.pb))(images)
    np.testing.assert_allclose(probabilities, expected, atol=compare.BOUNDS["encoded"], rtol=0)
    assert classes == [("FACE", "NON_FACE")[int(face < 0.5)] for face, _ in probabilities]


def test_darknet_files_in_opencv(exported, model, pictures):
    """Read by OpenCV as a user would: one image, BGR from a file, swapped to RGB."""
    net = cv2.dnn.readNetFromDarknet(*[os.path.join(exported, "darknet19_face" + extension)
                                       for extension in (".cfg", ".weights")])
    net.setInput(cv2.dnn.blobFromImage(pictures[0][..., ::-1], 1 / 255.0, swapRB=True))
    expected = frozen_graph.load(read_model(model.pb))(pictures[:1])
    np.testing.assert_allclose(net.forward().ravel(), expected[0], atol=1e-4)


def test_trained_to_npz_to_darknet_to_npz(model, tmp_path):
    """Every bit of every array comes back, but for the rounding of the raised variances."""
    first, second = str(tmp_path / "first.npz"), str(tmp_path / "second.npz")
    write_npz(first, read_model(model.checkpoint).weights)
    darknet_weights.write_network(str(tmp_path / "face.cfg"), str(tmp_path / "face.weights"),
                                  read_model(first).weights, 32)
    write_npz(second, read_model(str(tmp_path / "face.weights")).weights)
    with np.load(first) as before, np.load(second) as after:
        assert before.files == after.files and len(before.files) == 92
        for name in before.files:
            if name.endswith("variance"):
                np.testing.assert_allclose(after[name], before[name], 1e-6, 1e-11, err_msg=name)
            else:
                assert before[name].tobytes() == after[name].tobytes(), name


def test_checkpoint_to_frozen_to_onnx(model, exported, pictures):
    """The same top class on every image of the sample: export.py took the frozen graph."""
    checkpoint = graphs.classifier_from_weights(read_model(model.checkpoint).weights, 32)(pictures)
    assert 80 <= checkpoint.argmax(1).sum() <= 120
    session = onnxruntime.InferenceSession(os.path.join(exported, "darknet19_face.onnx"),
                                           providers=["CPUExecutionProvider"])
    probabilities, = session.run(["probabilities"], {"input": pictures / np.float32(255)})
    np.testing.assert_array_equal(probabilities.argmax(1), checkpoint.argmax(1))
    np.testing.assert_allclose(probabilities, checkpoint, atol=1e-5, rtol=0)


@pytest.mark.parametrize("command, engine, old", [
    ("darknet", "run_opencv", "darknet19_face.weights"),
    ("onnx", "run_onnx", "darknet19_face.onnx"),
    ("savedmodel", "run_on_files", "darknet19_face_savedmodel/1/saved_model.pb"),
])
def test_an_engine_that_disagrees_stops_the_file(reference, exported, tmp_path, monkeypatch,
                                                 command, engine, old):
    """The older file stays, and nothing is left half-written."""
    with open(os.path.join(exported, "darknet19_face.onnx"), "rb") as stream:
        converted = stream.read()
    savedmodel = darknet_face.exporters.savedmodel
    monkeypatch.setattr(darknet_face.exporters.onnx, "to_onnx", lambda *_: converted)
    monkeypatch.setattr(savedmodel, "write_saved_model", lambda *arguments: os.mkdir(arguments[2]))
    monkeypatch.setattr(savedmodel, "run_on_tensors", lambda *_: reference.expected)
    (tmp_path / old).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / old).write_text("older")
    monkeypatch.setattr(getattr(darknet_face.exporters, command), engine,
                        lambda *_, **__: reference.expected + 0.1)
    with pytest.raises(UserError, match="not written.*differs by") as caught:
        export.EXPORTS[command].write(reference, str(tmp_path))
    assert caught.value.exit_code == 1
    assert (tmp_path / old).read_text() == "older"
    names = [name for _, folders, files in os.walk(str(tmp_path)) for name in folders + files]
    assert sorted(names) == sorted(old.split("/"))


def with_weights(write, place, wrong):
    """A function that gives ``write`` other weights than it gets, as argument number ``place``."""
    return lambda *arguments: write(*arguments[:place], wrong, *arguments[place + 1:])


def test_opencv_needs_the_raised_variances(reference, tmp_path):
    """With the variances as they are, OpenCV's other epsilon shows in the probabilities."""
    differences = []
    for write in (
            lambda cfg, content: darknet_weights.write_network(cfg, content, reference.weights, 32),
            lambda cfg, content: (darknet_cfg.write_cfg(cfg, 32, width=WIDTH),
                                  darknet_weights.write_weights(content, reference.weights))):
        write(*[str(tmp_path / (compare.NAME + extension)) for extension in (".cfg", ".weights")])
        differences.append(reference.difference(
            darknet_face.exporters.darknet.run_opencv(str(tmp_path), reference)))
    assert differences[0] < 1e-4 and differences[0] < differences[1] / 5, differences


def test_exported_darknet_files_give_back_the_weights(exported, model):
    read = read_model(os.path.join(exported, "darknet19_face.weights")).weights
    for name, array in model.weights.items():
        np.testing.assert_allclose(read[name], array, 1e-6, 1e-11, err_msg=name)


def test_a_saved_model_becomes_the_next_version(reference, tmp_path):
    """TensorFlow Serving changes to it by itself. Nothing that is there is written over."""
    folder = tmp_path / "darknet19_face_savedmodel"
    for version, name in (("1", "saved_model.pb"), ("2", "notes.txt"), ("3", "saved_model.pb")):
        (folder / version).mkdir(parents=True)
        (folder / version / name).write_bytes(b"older")
    darknet_face.exporters.savedmodel.export_savedmodel(reference, str(tmp_path))
    assert sorted(os.listdir(str(folder))) == ["2", "3", "4"]
    assert (folder / "2" / "notes.txt").read_bytes() == b"older"
    assert (folder / "3" / "saved_model.pb").read_bytes() == b"older"
    assert sorted(os.listdir(str(folder / "4"))) == ["assets.extra", "saved_model.pb", "variables"]
    assert (folder / "4" / "saved_model.pb").stat().st_size > 10000
    assert read_model(str(folder)).metadata == {
        "image_size": 32, "class_names": ["FACE", "NON_FACE"]}


def test_compare_finds_files_of_other_weights(exported, model, reference, tmp_path, monkeypatch,
                                              capsys):
    other = copy.copy(reference)
    other.weights = dict(reference.weights)
    other.weights["conv_18/bias"] = reference.weights["conv_18/bias"] + np.float32([0.5, 0])
    other.classifier = graphs.classifier_from_weights(other.weights, 32)
    other.expected = other.classifier(reference.images)
    for name in ("run_on_tensors", "run_on_files"):
        monkeypatch.setattr(darknet_face.exporters.savedmodel, name, lambda *_: reference.expected)
    table = str(tmp_path / "table.json")
    with pytest.raises(UserError, match="exported from other weights") as caught:
        export.compare(other, exported, str(tmp_path), table)
    assert caught.value.exit_code == 1 and "SavedModel, tensor" in capsys.readouterr().out
    with open(table) as stream:
        rows = json.load(stream)["engines"]
    assert rows[0]["largest_difference"] == 0 and rows[1]["largest_difference"] < 1e-5
    assert all(row["largest_difference"] > 1e-3 for row in rows[2:])


def test_compare_without_the_exports(reference, tmp_path):
    with pytest.raises(UserError, match="no such file; run export.py darknet"):
        export.compare(reference, str(tmp_path), str(tmp_path), str(tmp_path / "compare.json"))
    with pytest.raises(UserError, match="no SavedModel there; run export.py savedmodel"):
        darknet_face.exporters.savedmodel.run_on_files(str(tmp_path), reference)


def test_the_size_that_the_source_tells(model, exported, tmp_path):
    """A graph, a .cfg or a SavedModel on its own, away from what else was written with it."""
    lone = str(tmp_path / "lone.pb")
    os.link(model.pb, lone)
    for source in (lone, os.path.join(exported, "darknet19_face.weights"),
                   os.path.join(exported, "darknet19_face_savedmodel")):
        model = choose_model(str(tmp_path), source)
        assert (model.path, model.image_size) == (source, 32)
        assert choose_model(str(tmp_path), source, 64).image_size == 64


def test_a_full_disk_is_one_line(reference, tmp_path, monkeypatch):
    """The real error: /dev/full in the place of a file."""
    def write(weights, image_size, folder, metadata):
        os.makedirs(os.path.join(folder, "variables"))
        with tf.Graph().as_default(), tf.Session() as session:
            session.run(tf.io.write_file("/dev/full", "content"))

    monkeypatch.setattr(darknet_face.exporters.savedmodel, "write_saved_model", write)
    with pytest.raises(UserError, match="can't be written .*; check the free disk space"):
        darknet_face.exporters.savedmodel.export_savedmodel(reference, str(tmp_path))
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("nudge, passes", [(1e-5, True), (0.01, False)])
def test_saturated_probabilities_hide_nothing(reference, nudge, passes):
    def answers(logits):
        face = 1 / (1 + np.exp(-np.array(logits)))
        return np.stack([face, 1 - face], axis=1).astype(np.float32)

    sure = copy.copy(reference)
    sure.expected = answers([-11.0, -12.0, -200.0])
    probabilities = answers([-11.0, -12.0 + nudge, -200.0])
    if passes:
        assert sure.check("x.onnx", "ONNX Runtime", probabilities, 1e-5) < 1e-6
        return
    assert sure.difference(probabilities) < 1e-6
    with pytest.raises(UserError, match="not written: the log-odds of ONNX Runtime differs by"):
        sure.check("x.onnx", "ONNX Runtime", probabilities, 1e-5)


@pytest.mark.parametrize("command", ["darknet", "onnx", "savedmodel"])
def test_an_export_of_other_weights_stops(reference, tmp_path, monkeypatch, command):
    """Not the engine is wrong here but the file: its classes are exchanged, its stem is scaled."""
    wrong = dict(reference.weights)
    for name in ("conv_18/kernel", "conv_18/bias"):
        wrong[name] = np.ascontiguousarray(wrong[name][..., ::-1])
    wrong["conv_0/gamma"] = wrong["conv_0/gamma"] * np.float32(1.01)
    for module, name, place in (
            (darknet_weights, "write_network", 2), (darknet_face.exporters.onnx, "to_onnx", 0),
            (darknet_face.exporters.savedmodel, "write_saved_model", 0)):
        monkeypatch.setattr(module, name, with_weights(getattr(module, name), place, wrong))
    with pytest.raises(UserError, match="not written: .* differs by") as caught:
        export.EXPORTS[command].write(reference, str(tmp_path))
    assert caught.value.exit_code == 1
    assert not [name for _, _, names in os.walk(str(tmp_path)) for name in names]


def test_sigterm_tidies_up(tmp_path, monkeypatch):
    def interrupted(_, out):
        with staged(out) as folder:
            (tmp_path / os.path.basename(folder) / "half").write_text("")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    monkeypatch.setattr(export, "_reference", lambda args: None)
    monkeypatch.setitem(export.EXPORTS, "onnx", export.Export("interrupted", interrupted, ()))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run(export, "onnx", "--out", tmp_path) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.listdir(str(tmp_path)) == []


def test_help_says_each_default_once(capsys):
    with pytest.raises(SystemExit):
        export._parser().parse_args(["onnx", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "An ONNX model of any batch and size." in text
    assert "(default: None)" not in text and "faces (default: 100)" in text


def test_pictures_to_compare_on(sample_dir, tmp_path):
    chosen, kind = compare.choose_images(sample_dir, 10)
    assert "test lists" in kind
    split = load_split(sample_dir, "test")
    assert len(set(chosen)) == 10 and len(set(chosen) & set(split.faces)) == 5
    photographs, kind = compare.choose_images(str(tmp_path), 100)
    assert len(photographs) >= 10 and "images that scikit-image carries" in kind
    assert all(read_image(path).ndim == 3 for path in photographs[:2])


def test_bad_input_in_one_line(tmp_path):
    outcome = subprocess.run(
        [sys.executable, os.path.join(ROOT, "export.py"), "onnx", "--from", "none.pb"],
        capture_output=True, text=True, cwd=str(tmp_path))
    assert outcome.returncode == 2 and outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("error: none.pb: No such file")
    assert os.listdir(str(tmp_path)) == []


def test_the_table_replaces_tables_alone(run_script, tmp_path):
    (tmp_path / "boxes.json").write_text('{"images": []}')
    outcome = run_script(export, "compare", "--json", tmp_path / "boxes.json", "--out", tmp_path)
    assert outcome.code == 2 and "boxes.json: not a table of this script" in outcome.err
    assert (tmp_path / "boxes.json").read_text() == '{"images": []}'


def test_pipes_in_the_place_of_files_are_not_opened(sample_dir, tmp_path):
    os.mkfifo(str(tmp_path / "pipe.jpg"))
    os.mkfifo(str(tmp_path / "model.onnx"))
    for name in LISTS["test"]:
        save_list(str(tmp_path / name), ["pipe.jpg"])
    with pytest.raises(UserError, match="name no JPEG or PNG that is there"):
        compare.choose_images(str(tmp_path), 10)
    with pytest.raises(UserError, match="model.onnx: not a regular file; run export.py onnx"):
        compare.existing(str(tmp_path), "model.onnx", "onnx")
