"""SavedModels that strangers left under --out are not run."""

import os
import shutil

import pytest
from tensorflow.core.protobuf import saved_model_pb2

from darknet_face.console import UserError
from darknet_face.exporters import savedmodel
from darknet_face.runtime.session import tf


@pytest.fixture(scope="module")
def written(tiny_model, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("saved") / "1")
    savedmodel.write_saved_model(tiny_model.weights, 32, folder)
    return folder


@pytest.fixture
def copy(written, tmp_path):
    """A copy, and a function that changes its meta graph in place."""
    folder = str(tmp_path / "1")
    shutil.copytree(written, folder)
    path = os.path.join(folder, "saved_model.pb")

    def change(function):
        with open(path, "rb") as stream:
            model = saved_model_pb2.SavedModel.FromString(stream.read())
        function(model.meta_graphs[0])
        with open(path, "wb") as stream:
            stream.write(model.SerializeToString())
        return folder

    return change


def test_the_project_s_own_passes(written):
    savedmodel.check_own(written)


def test_what_loading_would_run(copy, tmp_path):
    """An operation that writes a file, in the place of the one that reads the variables."""
    trace = str(tmp_path / "trace")

    def write_on_loading(meta_graph):
        with tf.Graph().as_default() as graph:
            tf.io.write_file(trace, "content", name="write")
            meta_graph.graph_def.node.extend(graph.as_graph_def().node)
        meta_graph.saver_def.restore_op_name = "write"

    folder = copy(write_on_loading)
    with pytest.raises(UserError, match="not a SavedModel of this project .it has WriteFile"):
        savedmodel.check_own(folder)
    with pytest.raises(UserError, match="it has WriteFile"), savedmodel._loaded(
            os.path.dirname(folder), "tensor"):
        pass
    assert not os.path.exists(trace)


def save_on_loading(meta_graph):
    """Our own operations alone, but for another purpose."""
    meta_graph.saver_def.restore_op_name = meta_graph.saver_def.save_tensor_name.split(":")[0]


def another_slope(meta_graph):
    node = next(each for each in meta_graph.graph_def.node if each.op == "LeakyRelu")
    node.attr["alpha"].f = 0.5


@pytest.mark.parametrize("change", [
    save_on_loading, another_slope,
    lambda meta_graph: meta_graph.signature_def["tensor"].inputs["images"].CopyFrom(
        meta_graph.signature_def["serving_default"].inputs["image_bytes"]),
    lambda meta_graph: meta_graph.collection_def["saved_model_main_op"].node_list.value.append(
        "input"),
    lambda meta_graph: setattr(meta_graph.graph_def.library.function.add().signature, "name", "f"),
])
def test_other_programs(copy, change):
    with pytest.raises(UserError, match="not the SavedModel that this version of export.py writes"):
        savedmodel.check_own(copy(change))


def test_one_without_its_size(copy):
    folder = copy(lambda meta_graph: None)
    shutil.rmtree(os.path.join(folder, "assets.extra"))
    with pytest.raises(UserError, match="tells no image_size; run export.py savedmodel again"):
        savedmodel.check_own(folder)
