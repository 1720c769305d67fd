"""ONNX models: written without the package onnx, and only this project's are run."""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from darknet_face.console import UserError
from darknet_face.engines.onnx_graph import onnx_model
from darknet_face.exporters.onnx import run_onnx, run_onnx_in_opencv, to_onnx

NARROW = {"conv_0/kernel": np.zeros((3, 3, 3, 2))}  # tells the width
REFERENCE = argparse.Namespace(images=np.zeros((2, 32, 32, 3), np.uint8), weights=NARROW)


@pytest.fixture(scope="module")
def models(tiny_model):
    """The content of both files."""
    return {layout: to_onnx(tiny_model.weights, 32, {"threshold": "0.25"}, layout)
            for layout in ("NHWC", "NCHW")}


def write(folder, content):
    (folder / "darknet19_face.onnx").write_bytes(content)
    return str(folder)


def changed(content, change):
    """A model after a change to its protobuf."""
    model = onnx.load_from_string(content)
    change(model)
    return model.SerializeToString()


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_the_checker_finds_nothing(models, layout):
    model = onnx.load_from_string(models[layout])
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) == 19 + 18 + 5 + 3 + (layout == "NHWC")
    assert {each.key: each.value for each in model.metadata_props}["threshold"] == "0.25"
    assert model.SerializeToString() == models[layout], "as the package onnx writes it"


def test_both_layouts_and_opencv_answer_alike(models, tmp_path):
    images = np.random.RandomState(0).randint(0, 256, (3, 64, 96, 3)).astype(np.uint8)
    answers = []
    for layout, content in models.items():
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        scaled = images / np.float32(255)
        feed = scaled if layout == "NHWC" else scaled.transpose(0, 3, 1, 2)
        answers.append(session.run(["probabilities"], {"input": feed})[0])
    (tmp_path / "darknet19_face_nchw.onnx").write_bytes(models["NCHW"])
    answers.append(run_onnx_in_opencv(
        str(tmp_path), argparse.Namespace(images=images, weights=NARROW)))
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "darknet19_face_nchw.onnx"))
    net.setInput(cv2.dnn.blobFromImages(list(images), 1 / 255.0))  # as its users call it
    answers.append(net.forward("probabilities"))
    for each in answers[1:]:
        np.testing.assert_allclose(each, answers[0], atol=1e-5, rtol=0)


def test_the_project_s_own_passes(models, tmp_path):
    assert run_onnx(write(tmp_path, models["NHWC"]), REFERENCE).shape == (2, 2)


def other_slope(model):
    node = next(each for each in model.graph.node if each.op_type == "LeakyRelu")
    node.attribute[0].f = 0.5


def no_strides(model):
    """It ends the process in ONNX Runtime."""
    node = next(each for each in model.graph.node if each.op_type == "MaxPool")
    next(each for each in node.attribute if each.name == "strides").ints[:] = [0, 0]


def weights_elsewhere(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")


def another_graph_merged(model):
    """Protobuf adds a field that comes twice to the first one."""
    model.graph.node.append(onnx.helper.make_node("Tile", ["input", "input"], ["tiled"]))


def negative_shape(model):
    """It ends the process in ONNX Runtime 1.10."""
    model.graph.initializer[0].dims[0] = -1


@pytest.mark.parametrize("change", [
    other_slope, no_strides, weights_elsewhere, another_graph_merged, negative_shape,
    lambda model: model.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param"),
    lambda model: setattr(model.graph.node[-1], "domain", "x"),
    lambda model: setattr(model.functions.add(), "name", "f"),
    lambda model: model.graph.initializer.reverse(),
])
def test_another_model_is_one_line(models, tmp_path, change):
    folder = write(tmp_path, changed(models["NHWC"], change))
    with pytest.raises(UserError, match="not the ONNX model that this .* run export.py onnx$"):
        run_onnx(folder, REFERENCE)


def test_what_follows_or_is_missing(models, tmp_path):
    content = models["NHWC"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Tile", ["a", "a"], ["b"])], "g", [], [])
    for bad in (b"", b"rubbish", content[:-1], content[:1000], content + b"\0", content + b"\x72",
                content + b"\x72\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", models["NCHW"],
                content + onnx.ModelProto(graph=graph).SerializeToString(),
                onnx_model([(np.ones((1, 1, 1, 1), np.float32), np.ones(1, np.float32))] * 19)):
        with pytest.raises(UserError, match="not the ONNX model that this version writes"):
            run_onnx(write(tmp_path, bad), REFERENCE)
