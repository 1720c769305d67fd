"""What an export is compared with: the network built from the weights, on real images."""

from __future__ import annotations

import importlib
import os
import typing

import numpy as np

from darknet_face.console import UserError, progress, warn
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.images.file_lists import LISTS, load_split
from darknet_face.images.reader import read_batches
from darknet_face.images.samples import sample_images
from darknet_face.runtime.atomic_files import temporary_folder
from darknet_face.runtime.safe_files import open_regular, regular_size
from darknet_face.weights.frozen_graph import freeze, load
from darknet_face.weights.model_file import ModelFile, read_model

# The largest difference in probability that an engine may show on any image. "encoded" allows for
# pixels of the next level of 255, which moved that of an image enlarged from 25 pixels by 0.024.
BOUNDS = {"tensorflow": 1e-5, "opencv": 1e-4, "onnx": 1e-5, "encoded": 5e-2}
# The same of the log-odds. A trained network gives many probabilities near 0 and 1, which hide a
# wrong weight; rounding moves the log-odds by some 1e-5.
LOG_ODDS_BOUND = 1e-3

NAME = "darknet19_face"  # of the exports
BATCH = 10
JPEG_AND_PNG = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # how such files begin


class Runner(typing.NamedTuple):
    """An engine that runs an export: a row of the table of ``export.py compare``.

    ``engine`` is its name, with braces for the version of ``package``. ``bound`` is a key of
    :data:`BOUNDS`. ``run`` takes the folder of the exports and the :class:`Reference`, and returns
    the probabilities.
    """

    engine: str
    package: str
    bound: str
    run: typing.Any  # a function; None for a row that was computed before


class Reference:
    """The network built from the weights, and its answers on some images.

    Parameters
    ----------
    model
    paths
        Image files; those that do not decode are reported and skipped.
    """

    def __init__(self, model: ModelFile, paths: list[str]) -> None:
        self.model, self.source, self.weights = model, model.path, model.weights
        self.image_size = image_size = model.image_size
        self.metadata = dict(model.metadata, image_size=image_size)
        self.paths, self.images, bad = next(read_batches(paths, len(paths), image_size))
        for path, cause in bad:
            warn("{}: {}; skipped".format(path, cause))
        if not self.paths:
            raise UserError("none of the {} images to compare on could be read; check the test "
                            "lists".format(len(paths)))
        self.classifier = classifier_from_weights(self.weights, image_size)
        self.expected = run_batches(self.classifier, self.images, "TensorFlow")

    def contents(self) -> list[bytes]:
        """The images as they are encoded."""
        contents = []
        for path in self.paths:
            with open(path, "rb") as stream:
                contents.append(stream.read())
        return contents

    def difference(self, probabilities: np.ndarray) -> float:
        """The largest difference of any probability from the network's own."""
        return float(np.abs(probabilities - self.expected).max())

    def check(self, name: str, engine: str, probabilities: np.ndarray, bound: float) -> float:
        """Make sure that probabilities and log-odds are within their bounds.

        Returns :meth:`difference`.
        """
        difference = self.difference(probabilities)
        check_difference(name, engine, difference, bound)
        odds = np.abs(_log_odds(probabilities) - _log_odds(self.expected))
        check_difference(name, "the log-odds of " + engine, odds.max(), LOG_ODDS_BOUND)
        return difference


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    """log(FACE / NON_FACE), with probabilities of at least 1e-30."""
    face, other = np.log(np.maximum(probabilities, 1e-30)).T
    return face - other


def check_difference(name: str, engine: str, difference: float, bound: float) -> None:
    """Raise unless the difference is within the bound; NaN is not."""
    if not difference <= bound:
        raise UserError("{}: not written: {} differs by {:.2g}, more than {:g}; use the versions "
                        "in requirements.txt".format(name, engine, difference, bound), exit_code=1)


def choose_images(data_dir: str, count: int, split: str = "test") -> tuple[list[str], str]:
    """Choose JPEG and PNG files to compare on.

    Parameters
    ----------
    data_dir
        With the lists of the split, half of whose images are to be faces. Without any of them, the
        sample images that scikit-image carries are taken.
    count
        The most images to take.
    split : {"test", "val"}

    Returns
    -------
    paths
    kind
        What they are, for a message.
    """
    if not any(os.path.exists(os.path.join(data_dir, name)) for name in LISTS[split]):
        return ([path for path in sample_images() if _is_jpeg_or_png(path)][:count],
                "images that scikit-image carries (there are no {} lists)".format(split))
    lists = load_split(data_dir, split)
    chosen = []
    for paths, most in ((lists.faces, count - count // 2), (lists.negatives, count // 2)):
        usable = [path for path in paths if _is_jpeg_or_png(path)]
        places = np.linspace(0, len(usable), min(most, len(usable)), endpoint=False)
        chosen += [usable[int(place)] for place in places]
    if not chosen:
        raise UserError("{}: the {} lists name no JPEG or PNG that is there; run "
                        "preprocess_celeba.py or preprocess_folders.py".format(data_dir, split))
    return chosen, "images of the {} lists".format(split)


def _is_jpeg_or_png(path: str) -> bool:
    try:
        with open_regular(path) as stream:
            return stream.read(8).startswith(JPEG_AND_PNG)
    except OSError:
        return False


def run_batches(predict: typing.Callable[[typing.Any], np.ndarray], images: typing.Any, engine: str
                ) -> np.ndarray:
    """The probabilities of all images (a sequence), a few at a time; ``engine`` names the bar."""
    steps = progress(range(0, len(images), BATCH), desc=engine, unit="batch", leave=False)
    return np.concatenate([predict(images[start:start + BATCH]) for start in steps])


def run_frozen(reference: Reference, path: str, out: str) -> tuple[np.ndarray, str]:
    """Probabilities from the frozen graph of the same weights, or from one made for the purpose.

    Parameters
    ----------
    reference
    path
        A frozen graph; used if it is there and has the reference's weights and input size.
    out
        Folder for temporary files.

    Returns
    -------
    probabilities
    origin
        Where the graph came from.
    """
    if os.path.exists(path):
        model = reference.model if path == reference.source else read_model(path)
        if (_same_weights(model.weights, reference.weights)
                and model.metadata.get("image_size") == reference.image_size):
            with load(model, fold=False) as classifier:
                return run_batches(classifier, reference.images, "frozen graph"), path
    with temporary_folder(out, "frozen") as folder:
        temporary = os.path.join(folder, "frozen.pb")
        freeze(reference.classifier, temporary, reference.images[:2], {})
        with load(read_model(temporary), fold=False) as classifier:
            return (run_batches(classifier, reference.images, "frozen graph"),
                    "frozen for the comparison")


def _same_weights(first: typing.Mapping[str, np.ndarray],
                  second: typing.Mapping[str, np.ndarray]) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in second)


def table_row(runner: Runner, path: str, probabilities: np.ndarray, expected: np.ndarray
              ) -> dict[str, typing.Any]:
    """A row of the table that compares the engines.

    Parameters
    ----------
    runner
    path
        What it ran on.
    probabilities, expected
        float32 [images, 2].
    """
    version = importlib.import_module(runner.package).__version__
    return {"engine": runner.engine.format(version), "from": path, "bound": BOUNDS[runner.bound],
            "largest_difference": float(np.abs(probabilities - expected).max()),
            "same_class": int((probabilities.argmax(1) == expected.argmax(1)).sum())}


def format_table(rows: list[dict[str, typing.Any]], count: int) -> str:
    """The rows of :func:`table_row` for people to read; ``count`` is that of the images."""
    width = max(len(each["engine"]) for each in rows)
    lines = ["{:<{width}}   largest difference     bound   same class".format(
        "{} images".format(count), width=width)]
    for each in rows:
        lines.append("{engine:<{width}}   {largest_difference:18.1e}   {bound:7.0e}   "
                     "{same_class} of {count}".format(width=width, count=count, **each))
    return "\n".join(lines)


def existing(folder: str, name: str, command: str) -> str:
    """The path of an exported file, which must be there."""
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise UserError("{}: no such file; run export.py {}".format(path, command))
    regular_size(path, "run export.py " + command)
    return path
