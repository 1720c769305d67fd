"""Fixtures that several test files share: a small real data set and a small model of each form."""

import collections
import csv
import json
import os
import shutil
import signal
import struct
import sys
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402
from slim import make_slim  # noqa: E402

from darknet19 import build  # noqa: E402
from darknet_face.engines.engine import open_engine  # noqa: E402
from darknet_face.engines.tensorflow_classifier import classifier_from_weights  # noqa: E402
from darknet_face.images.file_lists import LISTS, load_split, save_list  # noqa: E402
from darknet_face.images.reader import read_batches  # noqa: E402
from darknet_face.images.samples import build_sample  # noqa: E402
from darknet_face.runtime.session import tf  # noqa: E402
from darknet_face.weights import frozen_graph, model_file  # noqa: E402
from darknet_face.weights.arrays import assign, weight_shapes  # noqa: E402
from darknet_face.weights.npz import write_npz  # noqa: E402

TinyModel = collections.namedtuple("TinyModel", "folder npz pb weights")
Outcome = collections.namedtuple("Outcome", "code out err")


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory):
    """A data folder with the 200 real images of scikit-image's LFW subset and their lists."""
    folder = str(tmp_path_factory.mktemp("sample"))
    build_sample(folder)
    return folder


WIDTH = 1 / 16  # of the networks in tests: the same layers in files of 1 MB instead of 80 MB


def plausible_weights(pictures, seed=0, width=WIDTH):
    """Weights as a training could leave them, without the training.

    Kernels are He-scaled, scales and shifts not the identity, and the moving statistics are those
    of the images, so that answers differ from image to image.

    Parameters
    ----------
    images : numpy.ndarray
        uint8, [n, height, width, 3].

    Returns
    -------
    OrderedDict of str to numpy.ndarray
        float32, named as in the .npz.
    """
    rng = np.random.RandomState(seed)
    weights = collections.OrderedDict()
    for name, shape in weight_shapes(width).items():
        part = name.split("/")[1]
        if part == "kernel":
            array = rng.randn(*shape) * np.sqrt(2.0 / np.prod(shape[:-1]))
        elif part in ("gamma", "variance"):
            array = rng.uniform(0.7, 1.3, shape)
        else:
            array = rng.uniform(-0.2, 0.2, shape)
        weights[name] = array.astype(np.float32)
    weights["conv_18/kernel"] *= np.float32(0.2)  # few channels: larger logits are all certain
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.constant(pictures / np.float32(255))
        # With momentum 0 an update copies the batch's statistics.
        build(images, training=True, momentum=0.0, width=width)
        assign(session, weights)
        session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
        for variable in tf.global_variables():
            layer, part = variable.op.name.split("/")
            if part.startswith("moving_"):
                weights["{}/{}".format(layer, part[len("moving_"):])] = session.run(variable)
    return weights


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, sample_dir):
    """A model folder with random weights at input size 32: the .npz and the frozen graph."""
    return make_model(str(tmp_path_factory.mktemp("model")), sample_dir)


@pytest.fixture(scope="module")
def few(tmp_path_factory, sample_dir):
    """A data folder with 16 training images a class: four steps of 8 an epoch."""
    folder = str(tmp_path_factory.mktemp("few"))
    for split, count in (("train", 16), ("val", 8), ("test", 8)):
        for paths, name in zip(load_split(sample_dir, split), LISTS[split]):
            save_list(os.path.join(folder, name), paths[:count])
    return folder


@pytest.fixture(scope="module")
def slim_model(tmp_path_factory, sample_dir):
    """Darknet-19 with a sixteenth of its filters for a whole file, and a model of it as above."""
    with pytest.MonkeyPatch.context() as patch:
        make_slim(set_attribute=patch.setattr)
        yield make_model(str(tmp_path_factory.mktemp("slim")), sample_dir, width=1.0)


def make_model(folder, sample_dir, width=WIDTH):
    _, pictures, _ = next(read_batches(load_split(sample_dir, "val").paths, 20, 32))
    weights = plausible_weights(pictures, width=width)
    classifier = classifier_from_weights(weights, 32)
    npz = os.path.join(folder, "darknet19_weights.npz")
    pb = os.path.join(folder, "darknet19_frozen.pb")
    frozen_graph.freeze(classifier, pb, pictures, {"step": 0})
    write_npz(npz, weights)  # after the graph, as extract_weights.py does
    classifier.session.close()
    return TinyModel(folder, npz, pb, weights)


def heed_sigint():
    """For Popen's preexec_fn: shells start what runs in the background with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run a script's main in this process: ``run_script(train, "--epochs", 1).code``."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__name__ + ".py"] + [str(a) for a in arguments])
        try:
            module.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def classifier(tiny_model):
    """The tiny model in a graph of its own."""
    return classifier_from_weights(tiny_model.weights, 32)


@pytest.fixture(scope="session")
def engine(tiny_model):
    """The tiny model in the engine that the scripts take."""
    return open_engine(tiny_model.weights, 32)


@pytest.fixture
def infer(run_script, tiny_model, engine, monkeypatch):
    """inference.py with the tiny model, whose graph is built once for all tests; single passes."""
    import inference
    from darknet_face.classify import api

    read = model_file._read
    monkeypatch.setattr(
        model_file, "_read", lambda path, cfg: read(path, cfg) if path != tiny_model.npz else (
            tiny_model.weights, {"image_size": 32}, None))
    for module in (inference, api):
        monkeypatch.setattr(module, "open_engine", lambda *_, **options: engine)
    return lambda *arguments: run_script(
        inference, "--model-dir", tiny_model.folder, "--search", "off", *arguments)


@pytest.fixture
def pictures(sample_dir, tmp_path):
    """A folder of 10 faces and 10 others, half of them in a folder below."""
    split = load_split(sample_dir, "train")
    folder = tmp_path / "pictures"
    for number, path in enumerate(split.faces[:10] + split.negatives[:10]):
        place = folder / ("below" if number % 2 else "") / "{:02d}.png".format(number)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, str(place))
    return str(folder)


@pytest.fixture
def video(tmp_path):
    """Three seconds at 10 frames/s: a second each of red, green and blue."""
    path = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for colour in ((220, 20, 20), (20, 220, 20), (20, 20, 220)):
        for _ in range(10):
            writer.write(np.full((48, 64, 3), colour[::-1], np.uint8))
    writer.release()
    return path


def read_csv(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def read_json_lines(path):
    with open(path) as stream:
        return [json.loads(line) for line in stream]


def chunk(name, content, damage=0):
    """A chunk of a PNG; with a damage its checksum is wrong."""
    return (struct.pack(">I", len(content)) + name + content
            + struct.pack(">I", zlib.crc32(name + content) ^ damage))


def make_odd_files(folder):
    """Images of unusual kinds that decode, and files that do not."""
    folder.mkdir()
    noise = np.random.RandomState(0).randint(0, 256, (40, 60, 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(str(folder / "turned.jpg"), exif=exif)
    image.convert("CMYK").save(str(folder / "cmyk.jpg"))
    image.convert("L").save(str(folder / "grey.png"))
    image.convert("RGBA").save(str(folder / "rgba.png"))
    image.save(str(folder / "picture.webp"))
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(str(folder / "deep.png"))
    image.save(str(folder / "moving.gif"), save_all=True, append_images=[image.rotate(90)])
    with open(str(folder / "turned.jpg"), "rb") as stream:
        (folder / "truncated.jpg").write_bytes(stream.read()[:-200])
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<html></html>")


GOOD = {"turned.jpg", "cmyk.jpg", "grey.png", "rgba.png", "picture.webp", "deep.png", "moving.gif"}
BAD = {"truncated.jpg", "empty.png", "page.jpg"}
