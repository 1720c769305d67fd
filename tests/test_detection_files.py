"""The one-pass detector's files are read as untrusted, and its boxes do not repeat each other."""

import json
import os

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.detection import load
from darknet_face.detection.detector import OnePassDetector, suppress
from darknet_face.detection.engines import open_network
from darknet_face.detection.model_file import (
    NOTE,
    Spec,
    detector_graph,
    is_detector,
    read_detector,
    read_spec,
    write_detector,
    write_frozen,
)
from darknet_face.detection.onnx_graph import detector_model
from darknet_face.detection.pyramid import variable_shapes
from darknet_face.engines.engine import ENGINES
from darknet_face.engines.onnx_runtime import open_session
from darknet_face.exporters import detector as exporter
from darknet_face.images.samples import sample_images
from darknet_face.runtime.session import tf

SPEC = Spec(width=0.02, channels=4, image_size=96, threshold=0.0, step=3, ap50=0.25, run="a1")


@pytest.fixture(scope="module")
def weights():
    rng = np.random.RandomState(0)
    return {name: (np.abs(rng.randn(*shape)) + 0.5 if name.endswith("variance")
                   else rng.randn(*shape) * 0.3).astype(np.float16).astype(np.float32)
            for name, shape in variable_shapes(SPEC.width, SPEC.channels).items()}


@pytest.fixture
def npz(weights, tmp_path):
    path = str(tmp_path / "detector.npz")
    write_detector(path, weights, SPEC)
    return path


@pytest.fixture
def frozen(weights, tmp_path):
    path = str(tmp_path / "detector.pb")
    write_frozen(path, weights, SPEC)
    return path


def test_both_forms_give_back_the_weights_and_the_answers(weights, npz, frozen):
    image = np.random.RandomState(1).randint(0, 256, (70, 120, 3)).astype(np.uint8)
    answers = []
    for path in (npz, frozen):
        found, spec = read_detector(path)
        assert spec == SPEC == read_spec(path) and is_detector(path)
        assert set(found) == set(weights)
        for name, array in weights.items():
            np.testing.assert_array_equal(found[name], array)
        with load(path) as detect:
            answers.append(detect(image))
    for boxes, scores in answers:
        assert len(boxes) == len(scores) > 0 and boxes.min() >= 0 and boxes.max() <= 1
        assert (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(answers[0][0], answers[1][0], atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_answers_as_the_graph_that_is_trained(weights, engine):
    """The engines' folded networks against the graph with its batch norms."""
    image = np.random.RandomState(1).randint(0, 256, (64, 96, 3)).astype(np.uint8)
    with OnePassDetector(weights, SPEC, engine=engine) as detector:
        found = detector._run(image)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.import_graph_def(detector_graph(weights, SPEC), name="")
        expected = session.run(["boxes:0", "scores:0"], {"input:0": image[None] / np.float32(255)})
    assert graph is not None
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("width, height, input_shape", [
    (400, 100, (32, 96)), (50, 30, (32, 64)), (96, 96, (96, 96)), (3, 500, (96, 32))])
def test_images_are_scaled_down_but_never_up(weights, monkeypatch, width, height, input_shape):
    with OnePassDetector(weights, SPEC) as detector:
        shapes = []
        run = detector._network
        monkeypatch.setattr(detector, "_network", lambda images: shapes.append(
            images.shape[1:3]) or run(images))
        detector(np.zeros((height, width, 3), np.uint8))
    assert shapes == [input_shape]


def changed_metadata(path, weights, **changes):
    from darknet_face.weights.npz import write_npz

    write_npz(path, weights, np.float32, dict(dict(vars(SPEC), detector="pyramid"), **changes))


@pytest.mark.parametrize("change, message", [
    ({"width": 1e9}, "no usable width"), ({"width": True}, "no usable width"),
    ({"channels": 4.5}, "no usable channels"), ({"channels": 10 ** 9}, "no usable channels"),
    ({"image_size": 97}, "no usable image_size"), ({"threshold": "0.5"}, "no usable threshold"),
    ({"ap50": 7}, "no usable ap50"), ({"run": 3}, "no usable"),
    ({"width": 0.04}, "expected float"), ({"detector": "other"}, "not a detector of"),
])
def test_absurd_metadata_are_refused(npz, weights, change, message):
    changed_metadata(npz, weights, **change)
    with pytest.raises(UserError, match=message):
        read_detector(npz)


@pytest.mark.parametrize("name, array, message", [
    ("conv_3/kernel", np.zeros((1, 1, 2, 2), np.float32), "conv_3/kernel: expected float"),
    ("conv_0/gamma", np.full(1, np.inf, np.float32), "not finite"),
    ("conv_0/moving_variance", np.full(1, -1, np.float32), "a negative variance"),
    ("conv_99/kernel", np.zeros(1, np.float32), "conv_99/kernel' is no part of it"),
])
def test_other_weights_are_refused(npz, weights, name, array, message):
    changed = dict(weights)
    changed[name] = array
    np.savez(npz, metadata=np.frombuffer(json.dumps(
        dict(vars(SPEC), detector="pyramid")).encode(), np.uint8), **changed)
    with pytest.raises(UserError, match=message):
        read_detector(npz)


def rewrite(path, change):
    graph_def = tf.GraphDef()
    with open(path, "rb") as stream:
        graph_def.ParseFromString(stream.read())
    change(graph_def, {node.name: node for node in graph_def.node})
    with open(path, "wb") as stream:
        stream.write(graph_def.SerializeToString())


def tile(graph_def, nodes):
    many = tf.make_tensor_proto(np.int32([1, 1 << 20, 1]))
    graph_def.node.add(op="Const", name="many", attr={
        "dtype": tf.AttrValue(type=many.dtype), "value": tf.AttrValue(tensor=many)})
    nodes["boxes"].name = "few"
    graph_def.node.add(op="Tile", name="boxes", input=["few", "many"], attr={
        "T": tf.AttrValue(type=1), "Tmultiples": tf.AttrValue(type=3)})


def pool(graph_def, nodes):
    first = next(node for node in graph_def.node if node.op == "MaxPool")
    first.attr["ksize"].list.i[1] = 10 ** 6


def mismatch(graph_def, nodes):
    for node in graph_def.node:
        node.input[:] = ["boxes" if name == "never" else name for name in node.input]
    nodes["scores"].input[0] = nodes["boxes"].input[0]


def larger_claim(graph_def, nodes):
    nodes["conv_1/kernel"].attr["value"].tensor.tensor_shape.dim[0].size = 1 << 20


def other_note(graph_def, nodes):
    nodes[NOTE].attr["_metadata"].s = json.dumps(
        dict(vars(SPEC), detector="pyramid", width=2.0, channels=1024)).encode()


def fixed_input(graph_def, nodes):
    nodes["input"].attr["shape"].shape.dim[1].size = 1 << 20


@pytest.mark.parametrize("change, message", [
    (tile, "it has Tile"), (pool, "another ksize"), (mismatch, "is not|another|it has"),
    (larger_claim, "conv_1/kernel: expected float"), (other_note, "conv_0/kernel: expected float"),
    (fixed_input, "another shape"),
    (lambda graph_def, nodes: setattr(nodes["boxes"], "name", "others"), "is no node|no part"),
    (lambda graph_def, nodes: setattr(nodes["conv_3/kernel"], "device", "/gpu:7"), "device"),
    (lambda graph_def, nodes: nodes[NOTE].attr["_metadata"].Clear(), "not a detector of"),
])
def test_other_graphs_are_refused(frozen, change, message):
    rewrite(frozen, change)
    with pytest.raises(UserError, match=message) as caught:
        read_detector(frozen)
    assert "\n" not in str(caught.value)


def test_finite_weights_with_answers_that_are_not(npz, weights):
    rng = np.random.RandomState(0)
    write_detector(npz, {name: array if array.ndim < 4 else np.float32(
        rng.choice([-1e17, 1e17], array.shape)) for name, array in weights.items()},
                   SPEC, np.float32)
    with pytest.raises(UserError, match="answers are not finite"):
        load(npz)


@pytest.mark.parametrize("content", [b"", b"bad", b"\xff\xd8\xff photo"])
def test_another_file_is_no_detector(tmp_path, content):
    for name in ("x.npz", "x.pb"):
        (tmp_path / name).write_bytes(content)
        assert not is_detector(str(tmp_path / name))
        with pytest.raises(UserError):
            load(str(tmp_path / name))
    assert not is_detector(str(tmp_path))


def test_overlapping_and_nested_boxes_are_one_face():
    boxes = np.float32([[0, 0, 10, 10], [1, 1, 11, 11], [3, 3, 6, 6], [20, 20, 30, 30],
                        [0, 0, 0, 9]])
    scores = np.float32([0.8, 0.9, 0.7, 0.6, 0.99])
    found, kept = suppress(boxes, scores, 0.5)
    assert found.tolist() == [boxes[1].tolist(), boxes[3].tolist()]
    assert kept.tolist() == pytest.approx([0.9, 0.6])
    assert len(suppress(boxes, scores, 0.95)[0]) == 0
    assert len(suppress(boxes[:0], scores[:0])[0]) == 0


def test_the_export_answers_alike_in_both_layouts(run_script, npz, weights, tmp_path, monkeypatch):
    import export

    outcome = run_script(export, "detector", "--detector", npz, "--out", tmp_path / "out", "--half")
    assert outcome.code == 0 and "agrees within" in outcome.out, outcome.err
    assert sorted(os.listdir(str(tmp_path / "out"))) == sorted(
        [*exporter.FILES.values(), exporter.HALF])
    image = np.random.RandomState(1).rand(1, 64, 96, 3).astype(np.float32)
    expected = open_network(weights, SPEC, "tensorflow")(image)
    for name, given in (("darknet19_detector.onnx", image),
                        ("darknet19_detector_nchw.onnx", image.transpose(0, 3, 1, 2).copy()),
                        (exporter.HALF, image.transpose(0, 3, 1, 2).copy())):
        session = open_session(str(tmp_path / "out" / name))
        for one, other in zip(session.run(["boxes", "scores"], {"input": given}), expected):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    os.remove(str(tmp_path / "out" / "darknet19_detector.onnx"))
    monkeypatch.setattr(exporter, "SCORE_BOUND", -1.0)
    outcome = run_script(export, "detector", "--detector", npz, "--out", tmp_path / "out")
    assert outcome.code == 1 and "not written: ONNX Runtime's score differs" in outcome.err
    assert sorted(os.listdir(str(tmp_path / "out"))) == [
        exporter.HALF, "darknet19_detector_nchw.onnx"]


def test_half_the_size_has_the_same_answers_or_is_refused(weights, tmp_path):
    wide = {name: np.ones(shape, np.float32) for name, shape in variable_shapes(0.25, 32).items()}
    size, half = (len(detector_model(wide, half=half)) for half in (False, True))
    assert half < 0.51 * size
    path = str(tmp_path / "detector.npz")
    write_detector(path, {name: array * 1.0001 for name, array in weights.items()}, SPEC,
                   np.float32)
    with pytest.raises(UserError, match="detector.npz: float16 would round its kernels; name the"):
        exporter.export_detector(path, sample_images(), str(tmp_path / "out"), [exporter.HALF])
    assert not os.path.exists(str(tmp_path / "out"))


def test_answers_that_are_no_numbers_are_not_written(npz, tmp_path, monkeypatch):
    model = exporter.detector_model
    monkeypatch.setattr(exporter, "detector_model", lambda weights, *rest: model(
        {name: array * np.float32(np.nan) for name, array in weights.items()}, *rest))
    with pytest.raises(UserError, match="not written: ONNX Runtime's score differs by nan"):
        exporter.export_detector(npz, sample_images(), str(tmp_path / "out"))
