"""ONNX models that export.py compare is given: only this project's operations are run."""

import argparse

import numpy as np
import onnx
import pytest

from darknet_face.console import UserError
from darknet_face.exporters.onnx import run_onnx

REFERENCE = argparse.Namespace(images=np.zeros((2, 32, 32, 3), np.uint8))


def write(folder, node, shape, initializers=()):
    """Write a model of one node."""
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "g", [info("input", onnx.TensorProto.FLOAT, shape)],
        [info("probabilities", onnx.TensorProto.FLOAT, None)], list(initializers))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 7
    (folder / "darknet19_face.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("node, shape, cause", [
    (onnx.helper.make_node("Tile", ["input", "input"], ["probabilities"]), [None], "it has Tile"),
    (onnx.helper.make_node("LeakyRelu", ["input"], ["probabilities"], domain="x"), [None],
     "it has functions of its own"),
    (onnx.helper.make_node("LeakyRelu", ["input"], ["probabilities"]), [2, 32, 32, 3],
     "its answers have the shape"),
    (onnx.helper.make_node("LeakyRelu", ["input"], ["probabilities"]), [3], "does not run it"),
])
def test_other_models_are_one_line(tmp_path, node, shape, cause):
    write(tmp_path, node, shape)
    with pytest.raises(UserError, match=cause):
        run_onnx(str(tmp_path), REFERENCE)


def test_weights_in_other_files_and_rubbish(tmp_path):
    tensor = onnx.TensorProto(name="w", dims=[1], data_type=1, data_location=1)
    tensor.external_data.add(key="location", value="../secret")
    write(tmp_path, onnx.helper.make_node("LeakyRelu", ["input"], ["probabilities"]), [None],
          [tensor])
    with pytest.raises(UserError, match="weights in other files"):
        run_onnx(str(tmp_path), REFERENCE)
    (tmp_path / "darknet19_face.onnx").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="not a whole ONNX model"):
        run_onnx(str(tmp_path), REFERENCE)


@pytest.mark.parametrize("dims", [[-1], [4, -1], [1 << 40], [1 << 31, 1 << 31, 1 << 31]])
def test_shapes_that_no_weights_have(tmp_path, dims):
    """A negative one ends the whole process in ONNX Runtime 1.10."""
    write(tmp_path, onnx.helper.make_node("Conv", ["input", "w"], ["probabilities"]), [None],
          [onnx.TensorProto(name="w", dims=dims, data_type=1, raw_data=b"\0\0\0\0")])
    with pytest.raises(UserError, match="it has a tensor of the shape"):
        run_onnx(str(tmp_path), REFERENCE)
