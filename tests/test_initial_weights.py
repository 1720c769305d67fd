"""train.py --init-from: what begins with the file's weights, what does not, and what is said."""

import os

import numpy as np
import pytest
from conftest import WIDTH
from test_darknet_weights import write_public_weights

import train
from darknet_face.console import UserError
from darknet_face.images.file_lists import load_split
from darknet_face.training.initial_weights import hint, inherited_point, read_initial_weights
from darknet_face.training.loader import TrainingBatches
from darknet_face.training.resume import plan_run, remove_old_run
from darknet_face.training.settings import Settings
from darknet_face.weights.npz import write_npz

ORDER = ("beta", "gamma", "moving_mean", "moving_variance", "kernel")


@pytest.fixture
def trainer(sample_dir, tmp_path):
    """Build a Trainer at 32 x 32 for one that does not run."""
    splits = {name: load_split(sample_dir, name) for name in ("train", "val")}

    def build(**options):
        settings = Settings(
            data_dir=sample_dir, image_size=32, batch_size=4, threads=1,
            model_dir=str(tmp_path / "model"), log_dir=str(tmp_path / "logs"), **options)
        return train.Trainer(settings, plan_run(settings, splits), splits["val"], None, None)

    return build


def variables(trained):
    """Every variable of the training graph by name."""
    names = [each.op.name for each in trained.session.graph.get_collection("variables")]
    return dict(zip(names, trained.session.run([name + ":0" for name in names])))


def hwio(array):
    return np.moveaxis(array, [0, 1], [3, 2]) if array.ndim == 4 else array


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A file like the public ImageNet darknet19.weights: 1000 classes, a version 0.1 header."""
    path = str(tmp_path_factory.mktemp("public") / "darknet19.weights")
    return path, write_public_weights(path)


@pytest.fixture(scope="module")
def convolutions(public, tmp_path_factory):
    """A file like the public darknet19_448.conv.23: the first 18 convolutions."""
    path = str(tmp_path_factory.mktemp("public") / "darknet19_448.conv.23")
    with open(public[0], "rb") as source, open(path, "wb") as target:
        target.write(source.read(16 + 4 * sum(array.size for array in public[1][:-2])))
    return path


def test_imagenet_weights_freeze_and_train(public, trainer, sample_dir, capsys):
    path, arrays = public
    started = trainer(init_from=path, freeze_until=10, max_lr=1e-3)
    started.start_or_resume()
    said = capsys.readouterr().out
    assert "starting from conv_0 to conv_17 of {}; at random: conv_18 (".format(path) in said
    assert "conv_18/kernel: expected [1, 1, 1024, 2], found [1, 1, 1024, 1000]" in said
    assert "conv_18/bias: expected [2], found [1000]" in said
    before = variables(started)
    names = ["conv_{}/{}".format(k, part) for k in range(18) for part in ORDER]
    for name, array in zip(names, arrays):
        np.testing.assert_array_equal(before[name], hwio(array), err_msg=name)
        average = before[name + "/ExponentialMovingAverage"]
        np.testing.assert_array_equal(average, hwio(array), err_msg=name)
    assert before["conv_18/kernel"].std() == pytest.approx(np.sqrt(2 / 1024), rel=0.1)

    images, labels, _ = TrainingBatches(load_split(sample_dir, "train"), 4, 32).batch(0)
    started.session.run(started.net.train_op, {started.net.images: images,
                                               started.net.labels: labels})
    after = variables(started)
    for name in before:
        layer = name.split("/")[0]
        if layer.startswith("conv_") and name.count("/") == 1:
            changed = not np.array_equal(before[name], after[name])
            assert changed == (int(layer[len("conv_"):]) >= 10), name
    started.session.close()


def test_a_truncated_convolutional_part(convolutions, public, trainer, tmp_path, capsys):
    """After two starts that fail, which leave nothing behind."""
    started = trainer(freeze_until=18, average_decay=0.0)
    for path, cause in ((None, "name trained weights by --init-from"), ("none.npz", "none.npz")):
        started.settings = started.settings._replace(init_from=path)
        with pytest.raises(UserError, match=cause):
            started.start_or_resume()
    assert not os.path.exists(str(tmp_path / "model"))

    started.settings = started.settings._replace(init_from=convolutions)
    started.start_or_resume()
    assert "conv_0 to conv_17 of {}; at random: conv_18 (not in the file)".format(
        convolutions) in capsys.readouterr().out
    assert os.listdir(str(tmp_path / "model" / "checkpoints")) == ["settings.json"]
    trainable = {each.op.name for each in started.session.graph.get_collection(
        "trainable_variables")}
    assert trainable == {"conv_18/kernel", "conv_18/bias"}
    np.testing.assert_array_equal(started.session.run("conv_17/kernel:0"), hwio(public[1][89]))
    started.session.close()


def test_fewer_layers(tmp_path):
    path = str(tmp_path / "darknet19.conv.3")
    write_public_weights(path, 2)
    loaded, message = read_initial_weights(path)
    assert len(loaded) == 10
    assert message.endswith("conv_0 to conv_1 of {}; at random: conv_2 to conv_18 (not in the "
                            "file)".format(path))
    with pytest.raises(UserError, match="conv_2 is missing, so --freeze-until is at most 2"):
        read_initial_weights(path, freeze_until=3)


def test_own_weights_whole(tiny_model):
    for path in (tiny_model.npz, tiny_model.pb):
        loaded, message = read_initial_weights(path, 18, WIDTH)
        assert len(loaded) == 92 and message == "starting from conv_0 to conv_18 of " + path


def test_what_is_kept_of_the_operating_point(tiny_model, tmp_path):
    path = str(tmp_path / "w.npz")
    write_npz(path, tiny_model.weights, metadata={
        "image_size": 64, "threshold": 0.25, "search_bias": 1.5})
    assert inherited_point(path, 0) == {"threshold": 0.25, "search_bias": 1.5}
    assert inherited_point(path, 3) == {"search_bias": 1.5}
    assert inherited_point(tiny_model.pb, 0) == inherited_point(None, 0) == {}


def test_hints(tiny_model):
    start = Settings(image_size=32)
    assert "480 images are few" in hint(start, 480) and "--init-from released" in hint(start, 480)
    assert hint(start, 5000) is None
    start = start._replace(init_from=tiny_model.pb)
    assert hint(start, 480) is None
    text = hint(start._replace(image_size=96), 480)
    assert "trained at 32 x 32, this training is at 96 x 96; --image-size 32" in text


def test_another_network(tiny_model, tmp_path):
    wrong = dict(tiny_model.weights)
    wrong["conv_2/kernel"] = np.zeros((5, 5, 4, 8), np.float32)
    wrong["conv_9/beta"] = np.zeros(3, np.float32)
    path = str(tmp_path / "wrong.npz")
    write_npz(path, wrong)
    with pytest.raises(UserError) as caught:
        read_initial_weights(path, width=WIDTH)
    assert "conv_2/kernel: expected float [3, 3, 4, 8], found float32 [5, 5, 4, 8]" in str(
        caught.value)
    assert "conv_9/beta: expected float [16], found float32 [3]" in str(caught.value)


@pytest.mark.parametrize("start", ["best", "best/model-5", "best/model-5.index", "checkpoints"])
def test_a_restart_does_not_remove_what_it_starts_from(tmp_path, start):
    names = ["best/model-5.index", "best/model-5.data-00000-of-00001", "checkpoints/checkpoint",
             "checkpoints/model-9.index", "other/model-5.index"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    settings = Settings(model_dir=str(tmp_path), log_dir=str(tmp_path), restart=True)
    with pytest.raises(UserError, match="--restart removes it; copy"):
        remove_old_run(settings._replace(init_from=str(tmp_path / start)))
    assert all((tmp_path / name).exists() for name in names)
    remove_old_run(settings._replace(init_from=str(tmp_path / "other/model-5")))
    assert [name for name in names if (tmp_path / name).exists()] == ["other/model-5.index"]
