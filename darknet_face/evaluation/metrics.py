"""How good a classifier is: predictions over file lists, and the metrics computed from them.

FACE is the positive class everywhere: a false positive is a non-face called a face, a false
negative is a missed face. scikit-learn computes the metrics; this module names and prints them.
"""

from __future__ import annotations

import collections
import decimal
import os
import typing

import numpy as np

from darknet_face.classes import CLASS_NAMES, FACE, NON_FACE
from darknet_face.console import UserError, printable, progress, warn
from darknet_face.images.reader import read_batches
from darknet_face.runtime import distributed

if typing.TYPE_CHECKING:
    from darknet_face.engines.engine import Engine
    from darknet_face.images.file_lists import Split

CALIBRATION_BINS = 10


class Scores(collections.namedtuple(
        "Scores", "paths labels face_probabilities skipped boxes", defaults=({},))):
    """A classifier's predictions for the images of a split.

    Parameters
    ----------
    paths
        The files that decoded.
    labels
        int, [len(paths)]: 0 FACE, 1 NON_FACE.
    face_probabilities
        float64, [len(paths)], 0..1.
    skipped
        How many files did not decode.
    boxes
        Path -> x, y, width and height of the most probable face in pixels, Nones where there is no
        box; empty for a single pass.
    """

    @property
    def categories(self) -> list[str]:
        """The name of each image's parent folder."""
        return [os.path.basename(os.path.dirname(path)) for path in self.paths]


def predict(classifier: Engine, paths: typing.Sequence[str], batch_size: int = 16,
            description: str = "classifying") -> dict[str, float]:
    """Classify files. Those that do not decode are reported and skipped.

    Ranks share the files by whole batches, so that each batch is the same as with one process.
    Every rank gets all results.

    Parameters
    ----------
    classifier
    paths
    batch_size
    description
        The label of the progress bar.

    Returns
    -------
    dict of str to float
        Path -> probability of FACE, 0..1, without the bad files.
    """
    scores: dict[str, float] = {}
    mine = [path for start in range(distributed.rank() * batch_size, len(paths),
                                    distributed.size() * batch_size)
            for path in paths[start:start + batch_size]]
    with progress(total=len(mine), desc=description, unit="image", leave=False) as bar:
        for good, images, bad in read_batches(mine, batch_size, classifier.image_size):
            for path, cause in bad:
                warn("{}: {}; skipped".format(printable(path), cause))
            if good:
                scores.update(zip(good, classifier(images)[:, FACE].astype(float)))
            bar.update(len(good) + len(bad))
    for others in distributed.gather(scores):
        scores.update(others)
    return scores


def score_split(classifier: Engine, split: Split, batch_size: int = 16,
                description: str = "testing") -> Scores:
    """Classify the two lists of a split.

    Parameters
    ----------
    classifier
    split
    batch_size
    description
        The label of the progress bar.

    Raises
    ------
    UserError
        If no image of a class decodes.
    """
    return scores_of(predict(classifier, split.paths, batch_size, description), split)


def scores_of(probabilities: dict[str, float], split: Split) -> Scores:
    """The :class:`Scores` of a split's images whose probabilities are known.

    Parameters
    ----------
    probabilities
        Path -> probability of FACE, without the files that did not decode.
    split

    Raises
    ------
    UserError
        If no image of a class decoded.
    """
    kept = [(path, label) for path, label in zip(split.paths, split.labels)
            if path in probabilities]
    labels = np.array([label for _, label in kept])
    check_classes(labels)
    paths = [path for path, _ in kept]
    return Scores(paths, labels, np.array([probabilities[path] for path in paths]),
                  len(split.paths) - len(paths))


def check_classes(labels: typing.Any) -> None:
    """Check that both classes occur among the labels of the images that decoded.

    Raises
    ------
    UserError
        If one does not.
    """
    for index, name in enumerate(CLASS_NAMES):
        if not (np.asarray(labels) == index).any():
            raise UserError("no image of class {} decodes; check the file lists and --data-dir"
                            .format(name))


def measure_scores(scores: Scores, threshold: float = 0.5) -> dict[str, typing.Any]:
    """Compute all metrics of an evaluation.

    Parameters
    ----------
    scores
    threshold
        An image is called a face if its probability of FACE is at least this.

    Returns
    -------
    dict
        The metrics of :func:`measure`; ``skipped``, the number of files that did not decode; and
        ``false_positives_by_category``.
    """
    metrics = measure(scores.labels, scores.face_probabilities, threshold)
    metrics["skipped"] = scores.skipped
    metrics["false_positives_by_category"] = false_positives_by_category(scores, threshold)
    return metrics


def measure(labels: typing.Any, face_probabilities: typing.Any, threshold: float = 0.5
           ) -> dict[str, typing.Any]:
    """Compute the metrics of a binary classifier.

    Parameters
    ----------
    labels
        0 FACE, 1 NON_FACE; both must occur.
    face_probabilities
        0..1.
    threshold
        An image is called a face if its probability of FACE is at least this.

    Returns
    -------
    dict
        ``images``, ``threshold``, ``accuracy``, ``accuracy_interval`` (see :func:`interval`),
        ``precision``, ``recall``, ``f1``, ``roc_auc``, ``average_precision``, ``log_loss``,
        ``false_positive_rate``, ``false_negative_rate``, ``confusion_matrix`` (rows: actual FACE,
        NON_FACE; columns: predicted) and ``calibration`` (see :func:`calibration`).
    """
    from sklearn import metrics as sklearn_metrics  # takes a second

    is_face = np.asarray(labels) == FACE
    face_probabilities = np.asarray(face_probabilities, np.float64)
    predicted = face_probabilities >= threshold
    matrix = sklearn_metrics.confusion_matrix(is_face, predicted, labels=[True, False])
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        is_face, predicted, average="binary", zero_division=0)
    return {
        "images": int(len(is_face)),
        "threshold": float(threshold),
        "accuracy": float((is_face == predicted).mean()),
        "accuracy_interval": interval((is_face == predicted).sum(), len(is_face)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(sklearn_metrics.roc_auc_score(is_face, face_probabilities)),
        "average_precision": float(
            sklearn_metrics.average_precision_score(is_face, face_probabilities)),
        "log_loss": float(sklearn_metrics.log_loss(
            is_face, np.clip(face_probabilities, 1e-7, 1 - 1e-7))),
        "false_positive_rate": float(matrix[NON_FACE, FACE] / matrix[NON_FACE].sum()),
        "false_negative_rate": float(matrix[FACE, NON_FACE] / matrix[FACE].sum()),
        "confusion_matrix": matrix.tolist(),
        "calibration": calibration(is_face, face_probabilities),
    }


def interval(successes: float, trials: float) -> list[float]:
    """The 95 % confidence interval of a proportion, [low, high].

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    from scipy.stats import binomtest

    found = binomtest(int(successes), int(trials)).proportion_ci(method="wilson")
    return [float(found.low), float(found.high)]


def calibration(is_face: np.ndarray, face_probabilities: np.ndarray) -> dict[str, typing.Any]:
    """Measure whether a probability of 0.8 is right in 8 cases of 10.

    The expected calibration error is the mean, over the images, of the distance between the mean
    probability of a bin and its share of faces: Naeini, Cooper & Hauskrecht, "Obtaining Well
    Calibrated Probabilities Using Bayesian Binning", AAAI 2015.

    Returns
    -------
    dict
        ``expected_calibration_error`` and ``bins``, :data:`CALIBRATION_BINS` of equal width. Each
        bin with images has ``images``,
        ``mean_probability``, ``face_share`` and ``face_share_interval``.
    """
    from sklearn.calibration import calibration_curve

    shares, means = calibration_curve(is_face, face_probabilities, n_bins=CALIBRATION_BINS)
    edges = np.linspace(0, 1 + 1e-8, CALIBRATION_BINS + 1)  # as in calibration_curve
    counts = np.bincount(np.digitize(face_probabilities, edges) - 1)
    counts = counts[counts > 0]
    return {
        "expected_calibration_error": float(
            (counts * np.abs(shares - means)).sum() / counts.sum()),
        "bins": [{"images": int(count), "mean_probability": float(mean), "face_share": float(share),
                  "face_share_interval": interval(round(count * share), count)}
                 for count, mean, share in zip(counts, means, shares)],
    }


def false_positives_by_category(scores: Scores, threshold: float = 0.5
                               ) -> list[dict[str, typing.Any]]:
    """Count the false positives per category of non-face.

    Parameters
    ----------
    scores
        The category of a non-face is the name of its folder.
    threshold

    Returns
    -------
    list of dict
        ``category``, ``images``, ``false_positives``, ``rate``; the highest rate first.
    """
    totals: collections.Counter = collections.Counter()
    wrong: collections.Counter = collections.Counter()
    for category, label, probability in zip(
            scores.categories, scores.labels, scores.face_probabilities):
        if label == NON_FACE:
            totals[category] += 1
            wrong[category] += int(probability >= threshold)
    rows = [{"category": category, "images": totals[category],
             "false_positives": wrong[category], "rate": wrong[category] / totals[category]}
            for category in totals]
    return sorted(rows, key=lambda row: (-row["rate"], -row["images"], row["category"]))


def threshold_at(labels: typing.Any, face_probabilities: typing.Any, false_positive_rate: float
                ) -> dict[str, typing.Any]:
    """The lowest threshold whose false-positive rate does not exceed a given one.

    Every threshold between two neighbouring scores gives the same answers; the one with the
    fewest decimals is taken.

    Parameters
    ----------
    labels
    face_probabilities
    false_positive_rate
        The target, 0..1.

    Returns
    -------
    dict
        ``target``, ``threshold``, and the ``false_positive_rate`` and ``recall`` at the threshold.
        The threshold is None if no score keeps the rate: the highest scores belong to non-faces.
    """
    from sklearn import metrics as sklearn_metrics

    rates, recalls, thresholds = sklearn_metrics.roc_curve(
        np.asarray(labels) == FACE, face_probabilities, drop_intermediate=False)
    index = np.flatnonzero(rates <= false_positive_rate)[-1]
    threshold = None  # the first threshold of a ROC curve stands for "no image is a face"
    if index:
        below = thresholds[index + 1] if index + 1 < len(thresholds) else -1.0
        threshold = _shortest_decimal(float(below), float(thresholds[index]))
    return {"target": false_positive_rate, "threshold": threshold,
            "false_positive_rate": float(rates[index]), "recall": float(recalls[index])}


def _shortest_decimal(low, high):
    """The number with the fewest decimals in (low, high], the largest of those."""
    exact = decimal.Decimal(repr(high))
    for places in range(1, 20):
        rounded = float(exact.quantize(decimal.Decimal(1).scaleb(-places), decimal.ROUND_FLOOR))
        if low < rounded:
            return rounded
    return high


# The metrics in tables, with their titles.
TABLE = (
    ("accuracy", "accuracy"), ("precision", "precision"), ("recall", "recall"), ("f1", "F1"),
    ("roc_auc", "ROC AUC"), ("average_precision", "average precision"),
    ("false_positive_rate", "false-positive rate"), ("false_negative_rate", "false-negative rate"),
)  # fmt: skip


def format_metric(value: float) -> str:
    """A metric as text, with four decimals, as everywhere in tables, charts and the report."""
    return "{:.4f}".format(value)


def format_threshold(value: float) -> str:
    """A threshold as text: four decimals at most, or as many as distinguish it from 0 and 1."""
    places = next((places for places in range(4, 16)
                   if value in (0, 1) or 0 < float("{:.{}f}".format(value, places)) < 1), 16)
    return "{:.{}f}".format(value, places).rstrip("0").rstrip(".")


def format_table(metrics: dict[str, typing.Any], worst: int = 5) -> str:
    """Format the metrics as a table for the terminal.

    Parameters
    ----------
    metrics
        From :func:`measure_scores`. ``at_false_positive_rate``, from :func:`threshold_at`, is shown
        if it is there.
    worst
        How many categories of false positives to show.
    """
    lines = ["{:<27} {}".format(title, format_metric(metrics[name]))
             for name, title in TABLE]
    lines[0] += "   (95 % interval {:.4f} to {:.4f})".format(*metrics["accuracy_interval"])
    lines.append("{:<27} {:.4f}".format(
        "expected calibration error", metrics["calibration"]["expected_calibration_error"]))
    (tp, fn), (fp, tn) = metrics["confusion_matrix"]
    lines += [
        "",
        "{:<20} {:>15} {:>19}".format("", "predicted FACE", "predicted NON_FACE"),
        "{:<20} {:>15} {:>19}".format("actual FACE", tp, fn),
        "{:<20} {:>15} {:>19}".format("actual NON_FACE", fp, tn),
    ]
    if "at_false_positive_rate" in metrics:
        lines += ["", _format_point(metrics["at_false_positive_rate"])]
    wrong = [row for row in metrics.get("false_positives_by_category", ())
             if row["false_positives"]]
    if wrong:
        lines += ["", "false positives by category:"]
        lines += [printable("  {category:<24} {rate:.4f}   ({false_positives} of {images})"
                            .format(**row))
                  for row in wrong[:worst]]
        if len(wrong) > worst:
            lines.append("  and {} more categories".format(len(wrong) - worst))
    if metrics.get("skipped"):
        lines.append("{} files did not decode and were skipped".format(metrics["skipped"]))
    return "\n".join(lines)


def _format_point(point):
    if point["threshold"] is None:
        return "false-positive rate of at most {target:g}: no threshold reaches it".format(**point)
    return ("false-positive rate of at most {target:g}: --threshold {threshold!r} finds "
            "{recall:.4f} of the faces at a rate of {false_positive_rate:.4f}").format(**point)
