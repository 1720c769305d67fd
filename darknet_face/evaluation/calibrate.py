"""Calibrate a classifier: make a probability of 0.8 right in 8 cases of 10.

    python -m darknet_face.evaluation.calibrate --weights best.npz --sources celeba wider \\
        --out calibrated.npz

A logistic regression of the validation images' log-odds gives a factor and a bias (Platt, 1999;
the factor is the temperature of Guo et al., 2017). Both classes weigh the same. The last
convolution is linear, so both go into its weights: every engine and every export answers alike.
The bias of the sliding window moves so that the same windows as before reach 0.5, or, with --rate,
so that 0.5 has that rate of false positives (see
:mod:`darknet_face.evaluation.operating_point`). With several models the mean of their weights is
calibrated; it has no bias of before.
"""

from __future__ import annotations

import argparse
import typing

import numpy as np

from darknet19 import CLASSIFIER
from darknet_face.classes import FACE, NON_FACE
from darknet_face.classify.sliding_window import SlidingWindow, sigmoid
from darknet_face.console import HelpFormatter, UserError, cli, number_type
from darknet_face.detection.calibration import log_odds
from darknet_face.engines.engine import open_engine
from darknet_face.evaluation.metrics import measure, score_split
from darknet_face.evaluation.operating_point import best_windows, bias_of_search
from darknet_face.images.file_lists import Split
from darknet_face.options import FORMS, add_data_argument
from darknet_face.runtime.atomic_files import temporary_path
from darknet_face.runtime.safe_files import check_replaceable
from darknet_face.runtime.session import explain_memory_errors
from darknet_face.training.mixture import ONE_SOURCE, load_mixture, parse_source
from darknet_face.weights.model_file import ModelFile, locate, read_model
from darknet_face.weights.npz import is_npz, write_npz

Weights = typing.Mapping[str, np.ndarray]

RATE = 0.01  # of the mean of several models, unless --rate says another
REGULARISATION = 1e4  # sklearn's C: next to none, for two numbers of hundreds of images


def mean_weights(models: typing.Sequence[Weights]) -> dict[str, np.ndarray]:
    """The mean of several models' weights, float32; raises UserError if they differ in shape."""
    first = models[0]
    if any(model[name].shape != first[name].shape for model in models for name in first):
        raise UserError("--weights: models of different widths have no mean")
    return {name: np.asarray(sum(model[name].astype(np.float64) for model in models)
                             / len(models), np.float32) for name in first}


def fit_line(labels: np.ndarray, face_log_odds: np.ndarray) -> tuple[float, float]:
    """The factor and the bias that make calibrated log-odds of log-odds.

    Parameters
    ----------
    labels
        [n], the classes.
    face_log_odds
        [n].
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(class_weight="balanced", C=REGULARISATION).fit(
        face_log_odds[:, None], labels == FACE)
    factor = float(model.coef_[0, 0])
    if factor <= 0:
        raise UserError("the model's answers say nothing about the validation images; train it "
                        "first")
    return factor, float(model.intercept_[0])


def apply_line(weights: Weights, factor: float, bias: float) -> dict[str, np.ndarray]:
    """The weights of a model whose log-odds of FACE are ``factor`` times as large, plus a bias."""
    applied = dict(weights)
    for part in ("kernel", "bias"):
        name = "{}/{}".format(CLASSIFIER, part)
        applied[name] = (weights[name] * np.float32(factor)).astype(np.float32)
    shift = np.zeros(2, np.float32)
    shift[[FACE, NON_FACE]] = bias / 2, -bias / 2
    applied[CLASSIFIER + "/bias"] += shift
    return applied


def _describe(labels, face_log_odds):
    metrics = measure(labels, sigmoid(face_log_odds))
    return ("log loss {:.4f}, calibration error {:.4f}, {:.1%} of the non-faces and {:.1%} of the "
            "faces wrong at 0.5".format(
                metrics["log_loss"], metrics["calibration"]["expected_calibration_error"],
                metrics["false_positive_rate"], metrics["false_negative_rate"]))


def calibrate(models: typing.Sequence[ModelFile], split: Split, rate: float | None,
              path: str) -> None:
    """Write the calibrated mean of models.

    Parameters
    ----------
    models
    split
        The validation images.
    rate
        Of the non-faces: at most this share has a window of 0.5 or more. None keeps the windows
        of a single model that have it, and is :data:`RATE` for a mean.
    path
        The ``.npz``.
    """
    weights, size = mean_weights([each.weights for each in models]), models[0].image_size
    with open_engine(weights, size) as engine:
        scores = score_split(engine, split, description="calibrating")
    odds = log_odds(scores.face_probabilities)
    factor, bias = fit_line(scores.labels, odds)
    print("factor {:.3f}, bias {:.2f}: {}; before {}".format(
        factor, bias, _describe(scores.labels, factor * odds + bias),
        _describe(scores.labels, odds)))
    weights = apply_line(weights, factor, bias)
    if rate is None and len(models) == 1:
        search_bias = factor * models[0].search_bias + bias
    else:
        with open_engine(weights, size) as engine:
            search_bias = bias_of_search(
                best_windows(SlidingWindow(engine), split.negatives), 0.5,
                RATE if rate is None else rate)
    metadata = {name: value for name, value in models[0].metadata.items() if name != "threshold"}
    metadata.update(image_size=size, search_bias=search_bias)
    print("search bias {search_bias:.2f}".format(**metadata))
    write_npz(path, weights, np.float16, metadata)


@cli
@explain_memory_errors("use a smaller --image-size")
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Calibrate a classifier on the validation lists.",
        formatter_class=HelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--weights", nargs="+", required=True, metavar="PATH",
                        help="the model, or several whose mean is taken: {}".format(FORMS))
    parser.add_argument("--sources", nargs="+", type=parse_source, default=ONE_SOURCE,
                        metavar="NAME", help="the lists (default: celeba)")
    parser.add_argument("--out", required=True, metavar="NPZ", help="write the result here")
    parser.add_argument("--rate", type=number_type(float, 0, 0.5),
                        help="share of the validation non-faces that the sliding window may call "
                             "a face at a probability of 0.5 (default: it calls the same a face "
                             "as before; of several models {})".format(RATE))
    options = parser.parse_args()
    if not options.out.lower().endswith(".npz"):
        parser.error("--out: end its name in .npz")
    check_replaceable(options.out, is_npz, "weights of this program")
    models = [read_model(locate(path)) for path in options.weights]
    split = load_mixture(options.data_dir, options.sources, "val").split
    with temporary_path(options.out) as temporary:  # first: what can't be written is told at once
        calibrate(models, split, options.rate, temporary)
    print("wrote {}".format(options.out))


if __name__ == "__main__":
    main()
