"""How good a classifier is: predictions over file lists and the figures drawn from them.

FACE is the positive class throughout: a false positive is a non-face that is let through, a false
negative is a face that is missed. scikit-learn computes, this module names and prints.
"""

import numpy as np
from sklearn import metrics as sklearn_metrics

from augment import FACE, NON_FACE
from darknet19 import CLASS_NAMES
from dataset import read_batches
from utils import UserError, progress, warn


def predict(classifier, paths, batch_size=16, description="classifying"):
    """Classify files, skipping and reporting those that do not decode.

    Parameters
    ----------
    classifier : frozen.Classifier
    paths : sequence of str
    batch_size : int
    description : str
        The progress bar's.

    Returns
    -------
    dict of str to float
        The probability of FACE by path, in order, without the bad files.
    """
    scores = {}
    with progress(total=len(paths), desc=description, unit="image", leave=False) as bar:
        for good, images, bad in read_batches(paths, batch_size, classifier.image_size):
            for path, cause in bad:
                warn("{}: {}; skipped".format(path, cause))
            if good:
                scores.update(zip(good, classifier(images)[:, FACE].astype(float)))
            bar.update(len(good) + len(bad))
    return scores


def evaluate_split(classifier, split, batch_size=16, description="testing"):
    """Classify a split's two lists and measure.

    Parameters
    ----------
    classifier : frozen.Classifier
    split : dataset.Split

    Returns
    -------
    dict
        As :func:`measure`, with ``skipped``, the number of files that did not decode.

    Raises
    ------
    UserError
        When no image of a class decodes.
    """
    scores = predict(classifier, split.paths, batch_size, description)
    labelled = [(label, scores[path]) for path, label in zip(split.paths, split.labels)
                if path in scores]
    labels = np.array([label for label, _ in labelled])
    for index, name in enumerate(CLASS_NAMES):
        if not (labels == index).any():
            raise UserError("no image of class {} decodes; check the file lists and --data-dir"
                            .format(name))
    figures = measure(labels, np.array([score for _, score in labelled]))
    figures["skipped"] = len(split.paths) - len(labelled)
    return figures


def measure(labels, face_probabilities, threshold=0.5):
    """The figures of a binary classifier.

    Parameters
    ----------
    labels : array of int, [n]
        0 FACE, 1 NON_FACE; both must occur.
    face_probabilities : array of float, [n]
        0..1.
    threshold : float
        A picture is taken for a face from this probability on.

    Returns
    -------
    dict
        ``images``, ``accuracy``, ``precision``, ``recall``, ``f1``, ``roc_auc``, ``log_loss``,
        ``false_positive_rate``, ``false_negative_rate`` and ``confusion_matrix`` (rows: actual
        FACE, NON_FACE; columns: predicted).
    """
    is_face = np.asarray(labels) == FACE
    predicted = np.asarray(face_probabilities) >= threshold
    matrix = sklearn_metrics.confusion_matrix(is_face, predicted, labels=[True, False])
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        is_face, predicted, average="binary", zero_division=0)
    return {
        "images": int(len(is_face)),
        "accuracy": float((is_face == predicted).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(sklearn_metrics.roc_auc_score(is_face, face_probabilities)),
        "log_loss": float(sklearn_metrics.log_loss(is_face, face_probabilities, eps=1e-7)),
        "false_positive_rate": float(matrix[NON_FACE, FACE] / matrix[NON_FACE].sum()),
        "false_negative_rate": float(matrix[FACE, NON_FACE] / matrix[FACE].sum()),
        "confusion_matrix": matrix.tolist(),
    }


def format_table(figures):
    """The figures as lines for people."""
    rows = [(name.replace("_", " "), figures[name]) for name in (
        "accuracy", "precision", "recall", "f1", "roc_auc", "false_positive_rate",
        "false_negative_rate")]
    lines = ["{:<20} {:.4f}".format(*row) for row in rows]
    (tp, fn), (fp, tn) = figures["confusion_matrix"]
    lines += [
        "",
        "{:<20} {:>15} {:>19}".format("", "predicted FACE", "predicted NON_FACE"),
        "{:<20} {:>15} {:>19}".format("actual FACE", tp, fn),
        "{:<20} {:>15} {:>19}".format("actual NON_FACE", fp, tn),
    ]
    if figures.get("skipped"):
        lines.append("{} files did not decode and were skipped".format(figures["skipped"]))
    return "\n".join(lines)
