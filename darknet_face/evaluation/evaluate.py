"""The evaluation on test images that test.py and inference.py share."""

from __future__ import annotations

import os
import typing

from darknet_face.classify.api import FaceModel
from darknet_face.engines.engine import Engine
from darknet_face.evaluation.by_source import (
    format_by_source,
    mistakes_by_source,
    score_as_answered,
    union,
)
from darknet_face.evaluation.metrics import (
    Scores,
    format_table,
    measure_scores,
    score_split,
    threshold_at,
)
from darknet_face.evaluation.options import EvaluationOptions
from darknet_face.evaluation.provenance import find_provenance
from darknet_face.evaluation.report import Judgement, check_report_folder, write_report
from darknet_face.evaluation.robustness import format_robustness, measure_corrupted
from darknet_face.runtime import distributed
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.safe_files import check_json, relative_to_here

if typing.TYPE_CHECKING:
    from darknet_face.images.file_lists import Split
    from darknet_face.weights.model_file import ModelFile


def evaluate_and_report(classifier: Engine, splits: typing.Mapping[str, Split], model: ModelFile,
                        metrics_path: str, options: EvaluationOptions) -> None:
    """Measure on test images, print the tables and write the files.

    Unless ``options.search`` is "off", each image is judged twice: as darknet-face answers, by the
    detector or a sliding window, and by a single pass. The former comes first. All ranks classify;
    rank 0 does the rest.

    Parameters
    ----------
    classifier
    splits
        The test images of each dataset, by its name.
    model
    metrics_path
        The JSON file for the metrics: those of the single pass, and those of the answers under
        ``search``.
    options

    Raises
    ------
    UserError
        If no image of a class decodes, or if a file of another kind would be replaced.
    """
    if distributed.rank() == 0:
        _check_outputs(metrics_path, options.report)
    split = union(splits)
    scores = [("single pass, each image stretched to {0} x {0}".format(classifier.image_size),
               score_split(classifier, split, options.batch_size))]
    answering: typing.Any = None
    if options.search != "off" or options.report:
        answering = FaceModel(model, options.search, options.precision, options.batch_size,
                              model_dir=options.model_dir)
    if options.search != "off":
        scores.insert(0, (answering.method + ", as inference.py answers",
                          score_as_answered(answering, split)))
    if distributed.rank():
        return
    name = relative_to_here(model.path)
    print("{}, {} faces and {} non-faces, threshold {}".format(
        name, *map(len, split), model.describe_threshold()))
    judgements = [_judge(title, each, splits, model.threshold, options) for title, each in scores]
    metrics = judgements[-1].metrics
    if options.search != "off":
        metrics["search"] = judgements[0].metrics
    if options.robustness:
        metrics["robustness"] = measure_corrupted(
            classifier, judgements[-1].scores, options.batch_size, model.threshold)
        print("\n" + format_robustness(metrics["robustness"]), flush=True)
    write_json(metrics_path, metrics)
    if options.report:
        provenance = find_provenance(
            model.path, options.data_dir, options.log_dir, (len(split[0]), len(split[1])))
        write_report(options.report, name, judgements, answering.mapper(), provenance)
        print("wrote {}".format(os.path.join(options.report, "index.html")))


def _check_outputs(metrics_path: str, report: str | None) -> None:
    """Check that no file of another kind would be replaced."""
    check_json(metrics_path, ["images", "accuracy", "threshold"], "a file of metrics")
    if report:
        check_report_folder(report)


def _judge(title: str, scores: Scores, splits: typing.Mapping[str, Split], threshold: float,
           options: EvaluationOptions) -> Judgement:
    """Measure and print one way of judging the images."""
    metrics = measure_scores(scores, threshold)
    if options.false_positive_rate is not None:
        metrics["at_false_positive_rate"] = threshold_at(
            scores.labels, scores.face_probabilities, options.false_positive_rate)
    print("\n{}:\n{}".format(title, format_table(metrics)), flush=True)
    if len(splits) > 1:
        metrics["by_source"] = mistakes_by_source(scores, splits, threshold)
        print("\n" + format_by_source(metrics["by_source"]), flush=True)
    return Judgement(title, scores, metrics)
