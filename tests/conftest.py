"""Fixtures that several test files share: a small real data set and a small model of each form."""

import collections
import os
import signal
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import numpy as np  # noqa: E402
import pytest  # noqa: E402

import preprocess_celeba  # noqa: E402
from darknet19 import build  # noqa: E402
from model import frozen  # noqa: E402
from model.classifier import classifier_from_weights  # noqa: E402
from model.npz import write_npz  # noqa: E402
from model.weights import assign, weight_shapes  # noqa: E402
from pictures.lists import load_split  # noqa: E402
from pictures.reader import read_batches  # noqa: E402
from runtime.session import tf  # noqa: E402

TinyModel = collections.namedtuple("TinyModel", "folder npz pb weights")
Outcome = collections.namedtuple("Outcome", "code out err")


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory):
    """A data folder with the 200 real pictures of scikit-image's LFW subset and their lists."""
    folder = str(tmp_path_factory.mktemp("sample"))
    preprocess_celeba.build_sample(folder)
    return folder


def plausible_weights(pictures, seed=0):
    """Weights as a training could leave them, without the training.

    Kernels are He-scaled, scales and shifts not the identity, and the moving statistics are those
    of the pictures, so that answers differ from picture to picture.

    Parameters
    ----------
    pictures : numpy.ndarray
        uint8, [n, height, width, 3].

    Returns
    -------
    OrderedDict of str to numpy.ndarray
        float32, named as in the .npz.
    """
    rng = np.random.RandomState(seed)
    weights = collections.OrderedDict()
    for name, shape in weight_shapes().items():
        part = name.split("/")[1]
        if part == "kernel":
            array = rng.randn(*shape) * np.sqrt(2.0 / np.prod(shape[:-1]))
        elif part in ("gamma", "variance"):
            array = rng.uniform(0.7, 1.3, shape)
        else:
            array = rng.uniform(-0.2, 0.2, shape)
        weights[name] = array.astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.constant(pictures / np.float32(255))
        build(images, training=True, momentum=0.0)  # an update then copies the batch's statistics
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
    folder = str(tmp_path_factory.mktemp("model"))
    _, pictures, _ = next(read_batches(load_split(sample_dir, "val").paths, 20, 32))
    weights = plausible_weights(pictures)
    classifier = classifier_from_weights(weights, 32)
    npz = os.path.join(folder, "darknet19_weights.npz")
    pb = os.path.join(folder, "darknet19_frozen.pb")
    write_npz(npz, weights)
    frozen.freeze(classifier, pb, pictures, {"step": 0})
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
