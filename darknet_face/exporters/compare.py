"""What an export is compared with: the network built from the weights, on real pictures."""

from __future__ import annotations

import importlib
import os

import numpy as np

from darknet_face.console import UserError, progress, warn
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.images.file_lists import LISTS, load_split
from darknet_face.images.reader import read_batches
from darknet_face.images.samples import sample_images
from darknet_face.runtime.atomic_files import temporary_folder
from darknet_face.runtime.safe_files import open_regular, regular_size
from darknet_face.weights.frozen_graph import freeze, load
from darknet_face.weights.weight_files import read_frozen

# The largest difference in probability that an engine may show on any picture. "encoded" allows for
# pixels that are resized to the next level of 255, which moved one photograph's by 0.0014.
BOUNDS = {"frozen": 1e-5, "fresh": 1e-5, "opencv": 1e-4, "onnx": 1e-5, "tensor": 1e-5,
          "encoded": 1e-2}
# The same of the log-odds. A trained network gives many probabilities near 0 and 1, which hide a
# wrong weight; rounding moves the log-odds by some 1e-5.
LOG_ODDS_BOUND = 1e-3

NAME = "darknet19_face"  # of the exports
BATCH = 10
JPEG_AND_PNG = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # how such files begin


class Reference:
    """The network built from the weights, and its answers on some pictures.

    Parameters
    ----------
    source : str
        The file of the weights, for messages.
    weights : mapping of str to numpy.ndarray
    image_size : int
        Height and width of the input.
    paths : list of str
        Picture files; those that do not decode are reported and left out.
    metadata : dict, optional
        What the file of the weights says of itself; see
        :func:`darknet_face.weights.metadata.read_metadata`.
    """

    def __init__(self, source, weights, image_size, paths, metadata=None):
        self.source, self.weights, self.image_size = source, weights, image_size
        self.metadata = dict(metadata or {}, image_size=image_size)
        self.paths, self.images, bad = next(read_batches(paths, len(paths), image_size))
        for path, cause in bad:
            warn("{}: {}; skipped".format(path, cause))
        if not self.paths:
            raise UserError("none of the {} pictures to compare on could be read; check the test "
                            "lists".format(len(paths)))
        self.classifier = classifier_from_weights(weights, image_size)
        self.expected = run_batches(self.classifier, self.images, "TensorFlow")

    def contents(self):
        """The pictures as they are encoded: a list of bytes."""
        contents = []
        for path in self.paths:
            with open(path, "rb") as stream:
                contents.append(stream.read())
        return contents

    def difference(self, probabilities):
        """The largest difference of any probability from the network's own."""
        return float(np.abs(probabilities - self.expected).max())

    def check(self, name, engine, probabilities, bound):
        """Make sure that probabilities and log-odds are within their bounds.

        Returns
        -------
        float
            See :meth:`difference`.
        """
        difference = self.difference(probabilities)
        check_difference(name, engine, difference, bound)
        odds = np.abs(_log_odds(probabilities) - _log_odds(self.expected))
        check_difference(name, "the log-odds of " + engine, odds.max(), LOG_ODDS_BOUND)
        return difference


def _log_odds(probabilities):
    """log(FACE / NON_FACE), with probabilities of at least 1e-30."""
    face, other = np.log(np.maximum(probabilities, 1e-30)).T
    return face - other


def check_difference(name, engine, difference, bound):
    """Raise unless the difference is within the bound; NaN is not."""
    if not difference <= bound:
        raise UserError("{}: not written: {} differs by {:.2g}, more than {:g}; use the versions "
                        "in requirements.txt".format(name, engine, difference, bound), exit_code=1)


def choose_pictures(data_dir, count, split="test"):
    """Choose JPEG and PNG files to compare on.

    Parameters
    ----------
    data_dir : str
        With the lists of the split, half of whose pictures are to be faces. Without any of them,
        the photographs that scikit-image carries are taken.
    count : int
        The most pictures to take.
    split : {"test", "val"}

    Returns
    -------
    paths : list of str
    kind : str
        What they are, for a message.
    """
    if not any(os.path.exists(os.path.join(data_dir, name)) for name in LISTS[split]):
        return ([path for path in sample_images() if _is_jpeg_or_png(path)][:count],
                "photographs that scikit-image carries (there are no {} lists)".format(split))
    lists = load_split(data_dir, split)
    chosen = []
    for paths, most in ((lists.faces, count - count // 2), (lists.negatives, count // 2)):
        usable = [path for path in paths if _is_jpeg_or_png(path)]
        places = np.linspace(0, len(usable), min(most, len(usable)), endpoint=False)
        chosen += [usable[int(place)] for place in places]
    if not chosen:
        raise UserError("{}: the {} lists name no JPEG or PNG that is there; run "
                        "preprocess_celeba.py or preprocess_folders.py".format(data_dir, split))
    return chosen, "pictures of the {} lists".format(split)


def _is_jpeg_or_png(path):
    try:
        with open_regular(path) as stream:
            return stream.read(8).startswith(JPEG_AND_PNG)
    except OSError:
        return False


def run_batches(predict, pictures, engine):
    """The probabilities of all pictures, a few at a time.

    Parameters
    ----------
    predict : callable
        Pictures to float32 [batch, 2].
    pictures : sequence
        What it takes.
    engine : str
        For the progress bar.
    """
    steps = progress(range(0, len(pictures), BATCH), desc=engine, unit="batch", leave=False)
    return np.concatenate([predict(pictures[start:start + BATCH]) for start in steps])


def run_frozen(reference, path, out):
    """Probabilities from the frozen graph of the same weights, or from one made for the purpose.

    Parameters
    ----------
    reference : Reference
    path : str
        A frozen graph; used if it is there and has the reference's weights and input size.
    out : str
        Folder for temporary files.

    Returns
    -------
    probabilities : numpy.ndarray
    origin : str
        Where the graph came from.
    """
    if os.path.exists(path) and _same_weights(read_frozen(path), reference.weights):
        classifier = load(path, fold=False)
        if classifier.image_size == reference.image_size:
            with classifier.session:
                return run_batches(classifier, reference.images, "frozen graph"), path
    with temporary_folder(out, "frozen") as folder:
        temporary = os.path.join(folder, "frozen.pb")
        freeze(reference.classifier, temporary, reference.images[:2], {})
        classifier = load(temporary, fold=False)
    with classifier.session:
        answers = run_batches(classifier, reference.images, "frozen graph")
    return answers, "frozen for the comparison"


def _same_weights(first, second):
    return all(np.array_equal(first[name], second[name]) for name in second)


def table_row(key, engine, path, probabilities, expected):
    """A row of the table that compares the engines.

    Parameters
    ----------
    key : str
        Of :data:`BOUNDS`.
    engine, path : str
        What ran, and on which file.
    probabilities, expected : numpy.ndarray
        float32 [pictures, 2].
    """
    return {"engine": engine, "from": path, "bound": BOUNDS[key],
            "largest_difference": float(np.abs(probabilities - expected).max()),
            "same_class": int((probabilities.argmax(1) == expected.argmax(1)).sum())}


def format_table(rows, count):
    """The rows for people to read.

    Parameters
    ----------
    rows : list of dict
        As :func:`table_row` makes them.
    count : int
        Of pictures.
    """
    width = max(len(each["engine"]) for each in rows)
    lines = ["{:<{width}}   largest difference     bound   same class".format(
        "{} pictures".format(count), width=width)]
    for each in rows:
        lines.append("{engine:<{width}}   {largest_difference:18.1e}   {bound:7.0e}   "
                     "{same_class} of {count}".format(width=width, count=count, **each))
    return "\n".join(lines)


def import_package(name):
    """Import a package that exporting alone needs."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError("{} can't be imported ({}); pip install -r requirements.txt".format(
            name, error))


def existing(folder, name, command):
    """The path of an exported file, which must be there."""
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise UserError("{}: no such file; run export.py {}".format(path, command))
    regular_size(path, "run export.py " + command)
    return path
