"""The same weights out of every kind of file, and one clear line for every file that is damaged."""

import os

import numpy as np
import pytest
from test_darknet_weights import write_public_weights
from test_weights import altered

from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import build_classifier
from darknet_face.exporters.savedmodel import write_saved_model
from darknet_face.runtime.session import tf
from darknet_face.weights import arrays, darknet_weights, npz, weight_files
from darknet_face.weights.graph_files import read_graph_def


@pytest.fixture(scope="module")
def forms(tiny_model, tmp_path_factory):
    """A file of each kind with the tiny model's weights: a dict of str to path."""
    folder = str(tmp_path_factory.mktemp("forms"))
    paths = {"npz": tiny_model.npz, "frozen": tiny_model.pb}
    classifier = build_classifier(32)
    arrays.assign(classifier.session, tiny_model.weights)
    with classifier.session as session, session.graph.as_default():
        paths["checkpoint"] = tf.train.Saver().save(
            session, os.path.join(folder, "checkpoints", "model"), 7, write_meta_graph=False)
    paths["saved_model"] = os.path.join(folder, "saved_model")
    write_saved_model(tiny_model.weights, 32, os.path.join(paths["saved_model"], "1"))
    paths["constants"] = os.path.join(folder, "constants")
    graph = tf.Graph()
    with graph.as_default(), tf.Session() as session:
        tf.import_graph_def(read_graph_def(tiny_model.pb), name="")
        tf.saved_model.simple_save(
            session, paths["constants"], {"images": graph.get_tensor_by_name("input:0")},
            {"probabilities": graph.get_tensor_by_name("probabilities:0")})
    paths["darknet"] = os.path.join(folder, "face.weights")
    darknet_weights.write_weights(paths["darknet"], tiny_model.weights)
    return paths


@pytest.mark.parametrize("form", [
    "npz", "frozen", "checkpoint", "saved_model", "constants", "darknet"])
def test_every_form_gives_the_same_bits(tiny_model, forms, form):
    read = weight_files.read_weights(forms[form])
    assert list(read) == list(arrays.weight_shapes())
    for name, array in tiny_model.weights.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], array, err_msg=name)


def test_other_names_of_the_same(tiny_model, forms):
    checkpoint = forms["checkpoint"]
    model = os.path.join(forms["saved_model"], "1")
    for path in (checkpoint + ".index", os.path.dirname(checkpoint), model, model + os.sep,
                 os.path.join(model, "saved_model.pb"), checkpoint + ".data-00000-of-00001",
                 checkpoint + ".meta", os.path.join(os.path.dirname(checkpoint), "checkpoint")):
        read = weight_files.read_weights(path)
        np.testing.assert_array_equal(read["conv_5/mean"], tiny_model.weights["conv_5/mean"])


def test_the_newest_version_of_a_saved_model(tmp_path):
    for version in ("2", "10", "notes"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "saved_model.pb").write_bytes(b"")
    assert weight_files.find_saved_model(str(tmp_path)) == str(tmp_path / "10")
    assert weight_files.find_saved_model(str(tmp_path / "missing")) is None


def test_averaged_weights_are_preferred(tmp_path, tiny_model):
    with tf.Graph().as_default(), tf.Session() as session:
        for name, array in tiny_model.weights.items():
            tf.get_variable(arrays.variable_name(name), initializer=array)
        averaged = tiny_model.weights["conv_0/mean"] + 1
        tf.get_variable("conv_0/moving_mean/ExponentialMovingAverage", initializer=averaged)
        session.run(tf.global_variables_initializer())
        prefix = tf.train.Saver().save(session, str(tmp_path / "model"))
    read = weight_files.read_weights(prefix)
    np.testing.assert_array_equal(read["conv_0/mean"], averaged)
    np.testing.assert_array_equal(read["conv_0/kernel"], tiny_model.weights["conv_0/kernel"])


def test_class_counts(tiny_model, tmp_path):
    three = altered(tiny_model, conv_18__kernel=np.zeros((1, 1, 1024, 3), np.float32),
                    conv_18__bias=np.zeros(3, np.float32))
    path = str(tmp_path / "three.npz")
    npz.write_npz(path, three)
    with pytest.raises(UserError, match="conv_18/kernel: expected .*1024, 2.*1024, 3.*conv_18/bias"
                                        ": expected float .2., found float32 .3."):
        weight_files.read_weights(path)
    assert weight_files.read_weights(path, num_classes=None)["conv_18/bias"].shape == (3,)
    assert weight_files.read_weights(path, num_classes=3)["conv_18/bias"].shape == (3,)


def test_the_first_layers_alone(tiny_model, tmp_path):
    path = str(tmp_path / "darknet19.conv.3")
    write_public_weights(path, 2)
    assert len(weight_files.read_weights(path, partial=True)) == 10
    with pytest.raises(UserError, match="conv_2 is missing; conv_3 is missing.*conv_18 is missing"):
        weight_files.read_weights(path)
    for gap in ({"conv_3__mean": None}, {"conv_18__bias": None}):
        with pytest.raises(UserError, match="is missing"):
            arrays.check_weights(altered(tiny_model, **gap), "gap.npz", partial=True)
    with pytest.raises(UserError, match="conv_0 is missing"):
        arrays.check_weights({}, "empty.npz", partial=True)


def test_damaged_files(forms, tmp_path):
    for form, name in (("npz", "w.npz"), ("frozen", "w.pb"), ("darknet", "w.weights")):
        with open(forms[form], "rb") as stream:
            content = stream.read(3000000)
        for length in (0, 5, 3000000):
            path = tmp_path / name
            path.write_bytes(content[:length])
            with pytest.raises(UserError, match="w\\."):
                weight_files.read_weights(str(path))
    for name in ("missing.npz", "missing.pb", "missing.weights", "missing"):
        with pytest.raises(UserError, match="missing"):
            weight_files.read_weights(str(tmp_path / name))
    model = tmp_path / "model"
    model.mkdir()
    for content in (b"", b"\xff" * 50, b"\x0c", b"\x04\x0a"):
        (model / "saved_model.pb").write_bytes(content)
        with pytest.raises(UserError, match="saved_model.pb"):
            weight_files.read_weights(str(model))


def test_damaged_checkpoint(forms, tmp_path):
    for suffix, keep in ((".index", 100), (".data-00000-of-00001", 1000)):
        for part in (".index", ".data-00000-of-00001"):
            with open(forms["checkpoint"] + part, "rb") as stream:
                content = stream.read()
            (tmp_path / ("model" + part)).write_bytes(content[:keep] if part == suffix else content)
        with pytest.raises(UserError, match="not a whole checkpoint"):
            weight_files.read_weights(str(tmp_path / "model"))


@pytest.mark.parametrize("note", [b"", b"text", b"\xf0\x28\x8c",
                                  b'model_checkpoint_path: "/nowhere/model-3"'])
def test_a_folder_without_checkpoints(tmp_path, note):
    (tmp_path / "checkpoint").write_bytes(note)
    with pytest.raises(UserError, match="no checkpoint there"):
        weight_files.read_weights(str(tmp_path))


def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(str(tmp_path / "model-1.index"))
    for path in (tmp_path, tmp_path / "model-1"):
        with pytest.raises(UserError, match="model-1.index: not a regular file"):
            weight_files.read_weights(str(path))


def test_a_checkpoint_of_something_else(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("other", [2])
        session.run(tf.global_variables_initializer())
        other = tf.train.Saver().save(session, str(tmp_path / "other"))
        for name, shape in arrays.weight_shapes().items():
            kind = tf.int32 if name == "conv_4/beta" else tf.float32
            tf.get_variable(arrays.variable_name(name), shape, kind, tf.zeros_initializer())
        session.run(tf.global_variables_initializer())
        integers = tf.train.Saver().save(session, str(tmp_path / "integers"))
    with pytest.raises(UserError, match="other: none of Darknet-19's layers is in it"):
        weight_files.read_weights(other)
    with pytest.raises(UserError, match="conv_4/beta: expected float .128., found int32 .128."):
        weight_files.read_weights(integers)


def test_hostile_constants(tiny_model, tmp_path):
    """One number that is to be repeated 2^40 times, and a shape with no numbers."""
    graph_def = read_graph_def(tiny_model.pb)
    node = next(node for node in graph_def.node if node.name == "conv_18/bias")
    tensor = node.attr["value"].tensor
    tensor.tensor_content = b""
    tensor.tensor_shape.dim[0].size = 1 << 40
    tensor.float_val.append(1)
    path = tmp_path / "hostile.pb"
    path.write_bytes(graph_def.SerializeToString())
    for num_classes in (2, None):
        with pytest.raises(UserError, match="conv_18/bias: expected"):
            weight_files.read_weights(str(path), num_classes)
    tensor.tensor_shape.dim[0].size = 2
    tensor.float_val.extend([1, 1, 1])
    path.write_bytes(graph_def.SerializeToString())
    with pytest.raises(UserError, match="hostile.pb"):
        weight_files.read_weights(str(path))
