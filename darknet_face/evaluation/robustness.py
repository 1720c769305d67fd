"""Robustness: the metrics when every test image is corrupted in the same way.

If the faces of a test set are always small, soft and centred, and the non-faces large and
sharp, a classifier can score well without looking at faces. Each corruption removes one such cue
from faces and non-faces alike: colour, sharpness, noise, compression, resolution, position or size.
If a metric falls steeply, the classifier relied on that cue.

``python test.py --robustness`` and ``python inference.py --robustness`` print the table.
"""

from __future__ import annotations

import typing
import zlib
from collections import OrderedDict

import cv2
import numpy as np

from darknet_face.classes import FACE
from darknet_face.console import progress, warn
from darknet_face.evaluation.metrics import check_classes, format_metric, measure
from darknet_face.images.reader import read_batches
from darknet_face.images.resize import resize

if typing.TYPE_CHECKING:
    from darknet_face.engines.engine import Engine
    from darknet_face.evaluation.metrics import Scores

Corruption = typing.Callable[[np.ndarray], np.ndarray]

SURROUND = (128, 128, 128)  # fills the area that a moved image uncovers


def grey(image: np.ndarray) -> np.ndarray:
    """Remove colour: ITU-R BT.601 luma in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def blur(image: np.ndarray) -> np.ndarray:
    """Blur by a Gaussian whose standard deviation is 1/50 of the image's width."""
    return cv2.GaussianBlur(image, (0, 0), image.shape[1] / 50)


def noise(image: np.ndarray) -> np.ndarray:
    """Add Gaussian noise, standard deviation 20, to each channel. Repeatable per image."""
    rng = np.random.RandomState(zlib.crc32(image.tobytes()))
    noisy = image + rng.normal(0, 20, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray) -> np.ndarray:
    """Encode as a JPEG of quality 20 and decode again."""
    _, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 20])
    decoded: typing.Any = cv2.imdecode(content, cv2.IMREAD_COLOR)
    return decoded[..., ::-1]


def downsample(size: int) -> Corruption:
    """Make a corruption that scales down to ``size`` x ``size`` pixels and up again."""
    def corrupt(image):
        small = resize(image, min(size, image.shape[0]), min(size, image.shape[1]))
        return resize(small, *image.shape[:2])

    return corrupt


def move(zoom: float = 1.0, right: float = 0.0, down: float = 0.0) -> Corruption:
    """Make a corruption that scales about the centre, then shifts.

    ``right`` and ``down`` are fractions of the width and height.
    """
    def corrupt(image):
        height, width = image.shape[:2]
        matrix: typing.Any = np.array([
            [zoom, 0, width * ((1 - zoom) / 2 + right) - 0.5 + zoom / 2],
            [0, zoom, height * ((1 - zoom) / 2 + down) - 0.5 + zoom / 2]], np.float64)
        source = image
        if zoom < 1:  # warpAffine samples points: smooth first to avoid aliasing
            source = cv2.GaussianBlur(image, (0, 0), 0.4 / zoom)
        return cv2.warpAffine(source, matrix, (width, height), flags=cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_CONSTANT, borderValue=SURROUND)

    return corrupt


# Each maps an image to an image of the same size: uint8 [height, width, 3], RGB.
CORRUPTIONS = OrderedDict([
    ("as it is", lambda image: image),
    ("grey", grey),
    ("blurred", blur),
    ("noisy", noise),
    ("JPEG quality 20", jpeg),
    ("shrunk to 32 px", downsample(32)),
    ("shrunk to 48 px", downsample(48)),
    ("shrunk to 96 px", downsample(96)),
    ("shifted right by 1/5", move(right=0.2)),
    ("shifted up by 1/5", move(down=-0.2)),
    ("zoomed in, 1.5 times", move(zoom=1.5)),
    ("zoomed out, to a half", move(zoom=0.5)),
])


def measure_corrupted(classifier: Engine, scores: Scores, batch_size: int = 16,
                      threshold: float = 0.5) -> list[dict[str, typing.Any]]:
    """Measure a classifier on every corruption of its test images.

    Images are resized to the network's input first, so that a corruption has the same effect on
    large and small images. Each file is read once.

    Parameters
    ----------
    classifier
    scores
    batch_size
    threshold
        An image is called a face if its probability of FACE is at least this.

    Returns
    -------
    list of dict
        Per corruption the metrics of :func:`darknet_face.evaluation.metrics.measure` and its name,
        ``disturbance``.

    Raises
    ------
    UserError
        If no image of a class can be read again.
    """
    labels = dict(zip(scores.paths, scores.labels))
    truth: list[int] = []
    probabilities: dict[str, list[float]] = {name: [] for name in CORRUPTIONS}
    with progress(total=len(labels), desc="corrupting", unit="image", leave=False) as bar:
        for good, images, bad in read_batches(scores.paths, batch_size, classifier.image_size):
            truth.extend(labels[path] for path in good)
            for path, cause in bad:
                warn("{}: {}; skipped".format(path, cause))
            for name, corrupt in CORRUPTIONS.items():
                if good:
                    corrupted = np.stack([corrupt(image) for image in images])
                    probabilities[name].extend(classifier(corrupted)[:, FACE].astype(float))
            bar.update(len(good) + len(bad))
    check_classes(truth)
    return [dict(measure(truth, probabilities[name], threshold), disturbance=name)
            for name in CORRUPTIONS]


def format_robustness(rows: typing.Any) -> str:
    """Format the metrics as a table for the terminal, one line per corruption."""
    names = ("accuracy", "precision", "recall", "f1", "roc_auc")
    lines = ["{:<22} {:>9} {:>9} {:>9} {:>9} {:>9}".format(
        "test images", "accuracy", "precision", "recall", "F1", "ROC AUC")]
    lines += ["{:<22} ".format(row["disturbance"])
              + " ".join("{:>9}".format(format_metric(row[name])) for name in names)
              for row in rows]
    return "\n".join(lines)
