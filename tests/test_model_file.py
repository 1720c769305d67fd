"""The same model out of every kind of file, read once; which one is used; what damage says."""

import builtins
import io
import os
import shutil

import numpy as np
import pytest
from conftest import WIDTH
from test_darknet_weights import write_public_weights
from test_weights import altered

import extract_weights
import inference
import test as test_script
from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import build_classifier
from darknet_face.exporters import command as export
from darknet_face.exporters.savedmodel import write_saved_model
from darknet_face.images.file_lists import load_split
from darknet_face.runtime.session import tf
from darknet_face.weights import arrays, darknet_cfg, darknet_weights, graph_files, model_file, npz
from darknet_face.weights.graph_files import read_graph_def


@pytest.fixture(scope="module")
def forms(tiny_model, tmp_path_factory):
    """A file of each kind with the tiny model's weights: a dict of str to path."""
    folder = str(tmp_path_factory.mktemp("forms"))
    paths = {"npz": tiny_model.npz, "frozen": tiny_model.pb}
    classifier = build_classifier(32, width=WIDTH)
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
    darknet_cfg.write_cfg(os.path.join(folder, "face.cfg"), 32, width=WIDTH)
    return paths


@pytest.mark.parametrize("form", [
    "npz", "frozen", "checkpoint", "saved_model", "constants", "darknet"])
def test_every_form_gives_the_same_bits(tiny_model, forms, form):
    read = model_file.read_model(forms[form]).weights
    assert list(read) == list(arrays.weight_shapes(WIDTH))
    for name, array in tiny_model.weights.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], array, err_msg=name)


def test_names_in_capitals(tiny_model, forms, tmp_path):
    os.link(forms["darknet"][:-len("weights")] + "cfg", str(tmp_path / "X.CFG"))
    for form, name in (("npz", "MODEL.NPZ"), ("darknet", "X.WEIGHTS"), ("frozen", "M.PB")):
        path = str(tmp_path / name)
        os.link(forms[form], path)
        read = model_file.read_model(path).weights
        np.testing.assert_array_equal(read["conv_5/mean"], tiny_model.weights["conv_5/mean"])


def test_other_names_of_the_same(tiny_model, forms):
    checkpoint = forms["checkpoint"]
    model = os.path.join(forms["saved_model"], "1")
    for path in (checkpoint + ".index", os.path.dirname(checkpoint), model, model + os.sep,
                 os.path.join(model, "saved_model.pb"), checkpoint + ".data-00000-of-00001",
                 checkpoint + ".meta", os.path.join(os.path.dirname(checkpoint), "checkpoint")):
        read = model_file.read_model(path).weights
        np.testing.assert_array_equal(read["conv_5/mean"], tiny_model.weights["conv_5/mean"])


def test_the_newest_version_of_a_saved_model(tmp_path):
    for version in ("2", "10", "notes"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "saved_model.pb").write_bytes(b"")
    assert graph_files.find_saved_model(str(tmp_path)) == str(tmp_path / "10")
    assert graph_files.find_saved_model(str(tmp_path / "missing")) is None


def test_averaged_weights_are_preferred(tmp_path, tiny_model):
    with tf.Graph().as_default(), tf.Session() as session:
        for name, array in tiny_model.weights.items():
            tf.get_variable(arrays.variable_name(name), initializer=array)
        averaged = tiny_model.weights["conv_0/mean"] + 1
        tf.get_variable("conv_0/moving_mean/ExponentialMovingAverage", initializer=averaged)
        session.run(tf.global_variables_initializer())
        prefix = tf.train.Saver().save(session, str(tmp_path / "model"))
    read = model_file.read_model(prefix).weights
    np.testing.assert_array_equal(read["conv_0/mean"], averaged)
    np.testing.assert_array_equal(read["conv_0/kernel"], tiny_model.weights["conv_0/kernel"])


def test_another_number_of_classes(tiny_model, tmp_path):
    three = altered(tiny_model, conv_18__kernel=np.zeros((1, 1, 64, 3), np.float32),
                    conv_18__bias=np.zeros(3, np.float32))
    path = str(tmp_path / "three.npz")
    npz.write_npz(path, three)
    with pytest.raises(UserError, match="conv_18/kernel: expected .*64, 2.*64, 3.*conv_18/bias"
                                        ": expected float .2., found float32 .3."):
        model_file.read_model(path)


def test_the_first_layers_alone(tmp_path):
    """They are initial weights of a training, and no model."""
    path = str(tmp_path / "darknet19.conv.3")
    write_public_weights(path, 2)
    with pytest.raises(UserError, match="conv_2 is missing; conv_3 is missing.*conv_18 is missing"):
        model_file.read_model(path)


def test_damaged_files(forms, tmp_path):
    for form, name in (("npz", "w.npz"), ("frozen", "w.pb"), ("darknet", "w.weights")):
        with open(forms[form], "rb") as stream:
            content = stream.read()
        for length in (0, 5, len(content) // 2):
            path = tmp_path / name
            path.write_bytes(content[:length])
            with pytest.raises(UserError, match="w\\."):
                model_file.read_model(str(path))
    for name in ("missing.npz", "missing.pb", "missing.weights", "missing"):
        with pytest.raises(UserError, match="missing"):
            model_file.read_model(str(tmp_path / name))
    model = tmp_path / "model"
    model.mkdir()
    for content in (b"", b"\xff" * 50, b"\x0c", b"\x04\x0a"):
        (model / "saved_model.pb").write_bytes(content)
        with pytest.raises(UserError, match="saved_model.pb"):
            model_file.read_model(str(model))


def test_damaged_checkpoint(forms, tmp_path):
    for suffix, keep in ((".index", 100), (".data-00000-of-00001", 1000)):
        for part in (".index", ".data-00000-of-00001"):
            with open(forms["checkpoint"] + part, "rb") as stream:
                content = stream.read()
            (tmp_path / ("model" + part)).write_bytes(content[:keep] if part == suffix else content)
        with pytest.raises(UserError, match="not a whole checkpoint"):
            model_file.read_model(str(tmp_path / "model"))


@pytest.mark.parametrize("note", [b"", b"text", b"\xf0\x28\x8c",
                                  b'model_checkpoint_path: "/nowhere/model-3"'])
def test_a_folder_without_checkpoints(tmp_path, note):
    (tmp_path / "checkpoint").write_bytes(note)
    with pytest.raises(UserError, match="no checkpoint there"):
        model_file.read_model(str(tmp_path))


def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(str(tmp_path / "model-1.index"))
    for path in (tmp_path, tmp_path / "model-1"):
        with pytest.raises(UserError, match="model-1.index: not a regular file"):
            model_file.read_model(str(path))


def test_a_checkpoint_of_something_else(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("other", [2])
        session.run(tf.global_variables_initializer())
        other = tf.train.Saver().save(session, str(tmp_path / "other"))
        for name, shape in arrays.weight_shapes(WIDTH).items():
            kind = tf.int32 if name == "conv_4/beta" else tf.float32
            tf.get_variable(arrays.variable_name(name), shape, kind, tf.zeros_initializer())
        session.run(tf.global_variables_initializer())
        integers = tf.train.Saver().save(session, str(tmp_path / "integers"))
    with pytest.raises(UserError, match="other: none of Darknet-19's layers is in it"):
        model_file.read_model(other)
    with pytest.raises(UserError, match="conv_4/beta: expected float .8., found int32 .8."):
        model_file.read_model(integers)


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
    with pytest.raises(UserError, match="conv_18/bias: expected"):
        model_file.read_model(str(path))
    tensor.tensor_shape.dim[0].size = 2
    tensor.float_val.extend([1, 1, 1])
    path.write_bytes(graph_def.SerializeToString())
    with pytest.raises(UserError, match="hostile.pb"):
        model_file.read_model(str(path))


def chosen(*arguments, **options):
    """The path and the input size of the chosen model."""
    model = model_file.choose_model(*arguments, **options)
    return model.path, model.image_size


def test_one_s_own_model_comes_first(tiny_model, tmp_path, monkeypatch):
    released = str(tmp_path / "darknet19_face.npz")
    monkeypatch.setattr(model_file, "RELEASED", released)
    assert chosen(tiny_model.folder) == (tiny_model.npz, 32)
    shutil.copy(tiny_model.npz, released)
    assert chosen(tiny_model.folder) == (tiny_model.npz, 32)
    none = str(tmp_path / "none")
    assert chosen(none) == (released, 224)
    os.rename(released, str(tmp_path / "other.npz"))
    with pytest.raises(UserError, match="darknet19_weights.npz: .* extract_weights"):
        chosen(none)
    other = tmp_path / "other.npz"
    other.with_suffix(".json").write_text('{"image_size": 96}')
    assert chosen(none, str(other)) == (str(other), 96)
    other.with_suffix(".json").write_text('{"image_size": 100}')
    with pytest.raises(UserError, match="image_size"):
        chosen(none, str(other))


def age(path, days):
    os.utime(str(path), (1e9 - 86400 * days,) * 2)


def test_the_newest_of_one_s_own_models(tiny_model, forms, tmp_path):
    """Extracted weights, frozen graph or best checkpoint, whichever the last command wrote."""
    folder = str(tmp_path)
    assert chosen(folder) == (model_file.RELEASED, 224)
    npz_file, graph = tmp_path / "darknet19_weights.npz", tmp_path / "darknet19_frozen.pb"
    for path in (npz_file, graph, graph.with_suffix(".json")):
        shutil.copy(os.path.join(tiny_model.folder, path.name), folder)
    age(npz_file, 1)
    age(graph, 2)
    assert chosen(folder) == (str(npz_file), 32)
    age(graph, 0)
    assert chosen(folder) == (str(graph), 32), "trained again, not extracted yet"
    age(graph, 1)
    assert chosen(folder) == (str(npz_file), 32), "extracted within the same second"
    shutil.copytree(os.path.dirname(forms["checkpoint"]), str(tmp_path / "best"))
    (tmp_path / "best" / "best.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "settings.json").write_text('{"image_size": 64}')
    assert chosen(folder) == (str(tmp_path / "best"), 64), "training goes on"
    assert chosen(folder, forms["darknet"])[0] == forms["darknet"]
    assert chosen(folder, "released") == (model_file.RELEASED, 224)


def test_another_size_than_that_of_the_training_is_said(tiny_model, tmp_path, capsys):
    assert chosen(tiny_model.folder, image_size=64) == (tiny_model.npz, 64)
    assert "trained at 32 x 32, run at 64 x 64" in capsys.readouterr().err
    assert chosen(tiny_model.folder, image_size=32) == (tiny_model.npz, 32)
    assert capsys.readouterr().err == ""
    lone = str(tmp_path / "lone.npz")
    shutil.copy(tiny_model.npz, lone)
    assert chosen("", lone)[1] == 224
    assert "does not say its input size; 224 x 224 is used" in capsys.readouterr().err


def test_the_threshold_in_use_is_said(tiny_model, tmp_path):
    path = str(tmp_path / "w.npz")
    npz.write_npz(path, tiny_model.weights, metadata={"threshold": 0.25, "search_bias": 1.5})
    model, asked = model_file.read_model(path), model_file.read_model(path, 32, 0.75)
    assert (model.threshold, asked.threshold, model.search_bias) == (0.25, 0.75, 1.5)
    assert str(model).endswith(
        "w.npz, input 224 x 224, threshold 0.25 (stored with the model)")
    assert str(asked).endswith("input 32 x 32, threshold 0.75")
    model = model_file.read_model(tiny_model.npz)
    assert (model.threshold, model.search_bias, model.width) == (0.5, 0.0, WIDTH)


@pytest.mark.parametrize("arguments, code", [
    ((inference, "photo.png"), 0), ((inference, "photo.png", "--search", "off"), 0),
    ((test_script, "--search", "1", "--report", "report"), 0), ((extract_weights,), 0),
    ((export, "compare", "--images", "2"), 2),  # after the frozen graph it misses other exports
])
def test_a_frozen_graph_is_read_once(arguments, code, tiny_model, sample_dir, run_script, tmp_path,
                                     monkeypatch):
    """It has 79 MB, and inference.py once read it six times."""
    model = str(tmp_path / "darknet19_frozen.pb")
    shutil.copy(tiny_model.pb, model)
    shutil.copy(load_split(sample_dir, "test").faces[0], str(tmp_path / "photo.png"))
    monkeypatch.chdir(tmp_path)
    opened = count_opens(monkeypatch, model)
    outcome = run_script(*arguments, "--weights", model, "--model-dir", tmp_path,
                         "--data-dir", sample_dir)
    assert outcome.code == code, outcome.err
    assert len(opened) == 1


def count_opens(monkeypatch, path):
    """A list that grows when Python opens a file."""
    opened = []
    whole = builtins.open

    def noting(name, *arguments, **options):
        if str(name) == path:
            opened.append(name)
        return whole(name, *arguments, **options)

    monkeypatch.setattr(builtins, "open", noting)
    monkeypatch.setattr(io, "open", noting)
    return opened
