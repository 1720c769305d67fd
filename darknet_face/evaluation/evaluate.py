"""The evaluation on test pictures that test.py and inference.py share."""

from __future__ import annotations

import os
import typing

from darknet_face.classify.heatmaps import FaceMapper
from darknet_face.classify.sliding_window import SCALES, SlidingWindow
from darknet_face.engines.engine import Engine, open_engine
from darknet_face.evaluation.by_source import (
    format_by_source,
    mistakes_by_source,
    score_by_search,
    union,
)
from darknet_face.evaluation.metrics import format_table, measure_scores, score_split, threshold_at
from darknet_face.evaluation.options import EvaluationOptions
from darknet_face.evaluation.provenance import find_provenance
from darknet_face.evaluation.report import check_report_folder, write_report
from darknet_face.evaluation.robustness import format_robustness, measure_corrupted
from darknet_face.images.file_lists import Split
from darknet_face.runtime import distributed
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.safe_files import check_json, relative_to_here
from darknet_face.weights.model_file import ModelFile


def evaluate_and_report(classifier: Engine, splits: dict[str, Split], model: ModelFile,
                        metrics_path: str, options: EvaluationOptions) -> None:
    """Measure on test pictures, print the tables and write the files.

    All ranks classify. Rank 0 does the rest.

    Parameters
    ----------
    classifier
    splits
        The test images of each source, by its name.
    model
    metrics_path
        The JSON file for the metrics.
    options

    Raises
    ------
    UserError
        If no picture of a class decodes, or if a file of another kind would be replaced.
    """
    if distributed.rank() == 0:
        _check_outputs(metrics_path, options.report)
    split = union(splits)
    scores = score_split(classifier, split, options.batch_size)
    searched = None
    window: typing.Any = None
    if options.scales or options.report:
        window = SlidingWindow(
            open_engine(model.weights, classifier.image_size, precision=options.precision),
            options.scales or SCALES, model.search_bias)
    if options.scales:
        searched = score_by_search(window, split)
    if distributed.rank():
        return
    metrics = measure_scores(scores, model.threshold)
    if options.false_positive_rate is not None:
        metrics["at_false_positive_rate"] = threshold_at(
            scores.labels, scores.face_probabilities, options.false_positive_rate)
    name = relative_to_here(model.path)
    print("{}, {} faces and {} non-faces, threshold {}".format(
        name, *map(len, split), model.describe_threshold()))
    print(format_table(metrics), flush=True)
    if len(splits) > 1:
        metrics["by_source"] = mistakes_by_source(scores, splits, model.threshold)
        print("\n" + format_by_source(metrics["by_source"]), flush=True)
    if searched:
        metrics["search"] = _measure_search(searched, splits, model.threshold, options)
    if options.robustness:
        metrics["robustness"] = measure_corrupted(
            classifier, scores, options.batch_size, model.threshold)
        print("\n" + format_robustness(metrics["robustness"]), flush=True)
    write_json(metrics_path, metrics)
    if options.report:
        provenance = find_provenance(
            model.path, options.data_dir, options.log_dir, tuple(map(len, split)))
        write_report(options.report, name, scores, metrics, FaceMapper(window), provenance)
        print("wrote {}".format(os.path.join(options.report, "index.html")))


def _check_outputs(metrics_path, report):
    """Check that no file of another kind would be replaced."""
    check_json(metrics_path, ["images", "accuracy", "threshold"], "a file of metrics")
    if report:
        check_report_folder(report)


def _measure_search(searched, splits, threshold, options):
    """Print and return the metrics of the answers that a search gave."""
    metrics = measure_scores(searched, threshold)
    if options.false_positive_rate is not None:
        metrics["at_false_positive_rate"] = threshold_at(
            searched.labels, searched.face_probabilities, options.false_positive_rate)
    metrics["by_source"] = mistakes_by_source(searched, splits, threshold)
    print("\nby search, sizes {}:\n{}".format(
        ", ".join("{:g}".format(scale) for scale in options.scales), format_table(metrics)))
    if len(splits) > 1:
        print("\n" + format_by_source(metrics["by_source"]), flush=True)
    return metrics
