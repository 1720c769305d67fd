"""The YOLOv2 example's frozen graph is read as what a stranger may have made."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

import export
from darknet_face.console import UserError
from darknet_face.detection.yolov2.detector import Detector, build_detector, is_detector
from darknet_face.engines.tensorflow_classifier import without_newer_attributes
from darknet_face.exporters import yolov2
from darknet_face.exporters.yolov2 import _with_stride
from darknet_face.images.samples import sample_images
from darknet_face.runtime.session import tf

ANCHORS = [(0.1, 0.1), (0.2, 0.3)]


@pytest.fixture(scope="module")
def graph_def(slim_model):
    """A detector with random weights."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.set_random_seed(0)
        build_detector(ANCHORS)
        session.run(tf.global_variables_initializer())
        return without_newer_attributes(tf.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), ["boxes", "scores"]))


@pytest.fixture
def write(graph_def, tmp_path):
    """Write the graph after a change: ``write(change)`` returns its path."""

    def written(change=lambda changed: None):
        changed = tf.GraphDef()
        changed.CopyFrom(graph_def)
        change(changed)
        path = str(tmp_path / "detector.pb")
        with open(path, "wb") as stream:
            stream.write(changed.SerializeToString())
        return path

    return written


def node(graph_def, name):
    return next(each for each in graph_def.node if each.name == name)


def test_a_whole_graph_detects(write):
    path = write()
    assert is_detector(path)
    with Detector(path, 64, min_score=0.0) as detect:
        boxes, scores = detect(np.full((40, 50, 3), 90, np.uint8))
    assert boxes.shape[1:] == (4,) and len(boxes) == len(scores) > 0


def trained(graph_def):
    """Numbers as a training leaves them, where a new network has zeros and ones."""
    rng = np.random.RandomState(0)
    for each in graph_def.node:
        part = each.name.rsplit("/", 1)[-1]
        if each.op != "Const" or part not in ("gamma", "beta", "moving_mean", "moving_variance",
                                              "bias"):
            continue
        array = tf.make_ndarray(each.attr["value"].tensor)
        numbers = rng.uniform(0.5, 1.5, array.shape) if part in (
            "gamma", "moving_variance") else rng.randn(*array.shape) * 0.2
        each.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(numbers.astype(np.float32)))


def test_opencv_finds_the_same_boxes_by_darknets_files(write, run_script, tmp_path):
    path, out = write(trained), tmp_path / "exports"
    outcome = run_script(export, "detector", "--detector", path, "--out", out)
    assert outcome.code == 0, outcome.err
    difference = float(outcome.out.split("within ")[1])
    assert 0 < difference < 1e-4
    net = cv2.dnn.readNetFromDarknet(*[str(out / ("yolov2_face" + extension))
                                       for extension in (".cfg", ".weights")])
    assert (out / "yolov2_face.names").read_text() == "face\n"
    photo = np.asarray(Image.open(sample_images()[0]).convert("RGB").resize((320, 320)))
    net.setInput(cv2.dnn.blobFromImage(photo, 1 / 255.0))
    found = net.forward().reshape(-1, 6)
    with Detector(path, 320, min_score=0.0, nms_iou=1.0) as detect:
        boxes, scores = detect(photo)
    best = np.argsort(-found[:, 4], kind="stable")[:len(scores)]
    np.testing.assert_allclose(found[best, 4], scores, atol=1e-4)
    np.testing.assert_allclose(found[:, 5], found[:, 4], atol=1e-6, err_msg="the class is certain")
    centers = np.clip(found[best[0], :2] - found[best[0], 2:4] / 2, 0, 1)
    np.testing.assert_allclose(centers, boxes[0, :2], atol=1e-3)


def test_a_file_that_opencv_reads_otherwise_is_not_written(write, run_script, tmp_path,
                                                          monkeypatch):
    monkeypatch.setattr(yolov2, "_with_stride", lambda layer: dict(
        _with_stride(layer), beta=np.zeros_like(np.tile(layer["beta"], 4))))
    outcome = run_script(export, "detector", "--detector", write(trained), "--out",
                         tmp_path / "exports")
    assert outcome.code == 1 and "not written: OpenCV's" in outcome.err
    assert not (tmp_path / "exports").exists() or not os.listdir(str(tmp_path / "exports"))


def set_kernel(value):
    def change(graph_def):
        kernel = node(graph_def, "head/conv_1/kernel")
        array = tf.make_ndarray(kernel.attr["value"].tensor).copy()
        array.flat[7] = value
        kernel.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
    return change


def all_kernels_large(graph_def):
    for each in graph_def.node:
        if each.op == "Const" and each.name.endswith("/kernel"):
            array = tf.make_ndarray(each.attr["value"].tensor)
            each.attr["value"].tensor.CopyFrom(
                tf.make_tensor_proto(np.full_like(array, 1e38)))


def claim(graph_def):
    tensor = node(graph_def, "head/conv_1/kernel").attr["value"].tensor
    tensor.tensor_content, tensor.float_val[:] = b"", [1.0]
    for dimension in tensor.tensor_shape.dim:
        dimension.size = 1 << 15


def fill(graph_def):
    for name, value in (("many", np.int32([1 << 30])), ("one", np.float32(1))):
        tensor = tf.make_tensor_proto(value)
        graph_def.node.add(op="Const", name=name, attr={
            "dtype": tf.AttrValue(type=tensor.dtype), "value": tf.AttrValue(tensor=tensor)})
    graph_def.node.add(op="Fill", name="filled", input=["many", "one"], attr={
        "T": tf.AttrValue(type=1), "index_type": tf.AttrValue(type=3)})


def circle(graph_def):
    for each in graph_def.node:
        each.input[:] = ["scores" if name == "input" else name for name in each.input]


def several_pictures(graph_def):
    node(graph_def, "input").attr["shape"].shape.dim[0].size = 2


def on_a_device(graph_def):
    graph_def.node[3].device = "/device:GPU:7"


def doubles(graph_def):
    node(graph_def, "input").attr["dtype"].type = tf.float64.as_datatype_enum


def no_results(graph_def):
    node(graph_def, "boxes").name = "other"


def tile(graph_def):
    many = tf.make_tensor_proto(np.int32([1 << 28, 1]))
    graph_def.node.add(op="Const", name="many", attr={
        "dtype": tf.AttrValue(type=many.dtype), "value": tf.AttrValue(tensor=many)})
    node(graph_def, "boxes").name = "few"
    graph_def.node.add(op="Tile", name="boxes", input=["few", "many"], attr={
        "T": tf.AttrValue(type=1), "Tmultiples": tf.AttrValue(type=3)})


def pool(graph_def):
    first = next(each for each in graph_def.node if each.op == "MaxPool")
    first.attr["ksize"].list.i[1] = 10 ** 6


def mismatch(graph_def):
    """Scores of other cells than the boxes': the indices of the one gather in the other's place."""
    node(graph_def, "scores").input[1] = node(graph_def, "scores").input[2]


def no_anchors(graph_def):
    node(graph_def, "anchors").name = "other"


@pytest.mark.parametrize("change, cause", [
    (set_kernel(np.nan), "head/conv_1/kernel holds a number that is not finite"),
    (set_kernel(np.inf), "head/conv_1/kernel holds a number that is not finite"),
    (all_kernels_large, "its answers are not finite numbers"),
    (claim, "head/conv_1/kernel: expected float"),
    (fill, "filled is no part of the network"),
    (circle, ""), (several_pictures, "input has another shape"),
    (on_a_device, "is bound to the device"), (doubles, ""), (no_results, "boxes"),
    (tile, "it has Tile"), (pool, "another ksize"), (mismatch, "is not"),
    (no_anchors, "no anchors"),
])
def test_other_graphs_are_refused(write, change, cause):
    path = write(change)
    with pytest.raises(UserError) as caught:
        Detector(path, 64)
    assert cause in str(caught.value) and str(caught.value).startswith(path)


def test_a_photograph_is_no_detector(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 and so on")
    assert not is_detector(str(tmp_path / "photo.jpg"))
    assert not is_detector(str(tmp_path))
    assert not os.path.exists(str(tmp_path / "none.pb")) and not is_detector(
        str(tmp_path / "none.pb"))
