"""Measure a model on the test lists, or on two folders of images.

    python test.py                                      # the frozen graph in saved_models
    python test.py --weights released --at-fpr 0.01     # another model; also at 1 % false positives
    python test.py --report report --robustness         # also report/index.html with all metrics
    python test.py --faces my/faces --non-faces my/others     # two folders instead of the lists
    mpirun -np 2 python test.py                         # shared by two ranks, the same metrics

A frozen graph is run as it is. Other files of weights are loaded into a new graph. Prints a table
and writes ``test_metrics.json`` in the model directory.
"""

from __future__ import annotations

import argparse
import collections
import os

from darknet_face.classes import FACE, NON_FACE
from darknet_face.classify.options import add_answer_arguments, add_search_argument
from darknet_face.engines.tensorflow_classifier import Classifier, folded_classifier
from darknet_face.evaluation.options import add_evaluation_arguments, evaluation_options
from darknet_face.images.file_lists import (
    Split,
    load_sources,
)
from darknet_face.images.find_images import Skipped
from darknet_face.images.folders import add_folder_arguments, find_files
from darknet_face.options import (
    add_batch_size_argument,
    add_data_argument,
    add_sources_argument,
    add_weights_argument,
)
from darknet_face.runtime import distributed
from darknet_face.runtime.session import explain_memory_errors
from darknet_face.weights import frozen_graph
from darknet_face.weights.model_file import ModelFile, choose_model
from utils import HelpFormatter, UserError, cli

FOLDERS = "folders"  # the name of the source that --faces and --non-faces make


def open_model(model: ModelFile, precision: str) -> Classifier:
    """The classifier for a model file, at the input size of its training.

    For ``precision`` see :func:`darknet_face.runtime.session.new_session`.
    """
    if model.graph_def is not None:
        return frozen_graph.load(model, precision=precision)
    return folded_classifier(model.weights, model.image_size, precision=precision)


def split_of_folders(faces: list[str], non_faces: list[str]) -> dict[str, Split]:
    """The images in folders of either class, as a source of its own.

    Raises
    ------
    UserError
        Something that is not a folder, a folder of both classes, or a class without images.
    """
    skipped = Skipped()
    files = find_files({FACE: faces, NON_FACE: non_faces}, skipped)
    if skipped and distributed.rank() == 0:
        print("skipped in folders: {}".format(skipped))
    return collections.OrderedDict(
        [(FOLDERS, Split(tuple(files[FACE]), tuple(files[NON_FACE])))])


def _parser():
    parser = argparse.ArgumentParser(
        description="Measure a model on the test lists or on two folders of images: accuracy, "
                    "precision, recall, F1, areas under the curves, calibration, confusion matrix.",
        formatter_class=HelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--model-dir", default="saved_models",
                        help="folder with the frozen graph")
    add_weights_argument(parser, "darknet19_frozen.pb in the model directory", "--model")
    parser.add_argument("--json", metavar="FILE",
                        help="the file for the metrics (default: test_metrics.json in the model "
                             "directory)")
    add_batch_size_argument(parser)
    add_folder_arguments(parser.add_argument_group("images in folders instead of the test lists"))
    add_sources_argument(
        parser, "measure on the test lists of these datasets, each in a row of its own")
    add_answer_arguments(parser)
    add_evaluation_arguments(parser)
    add_search_argument(parser, "; off for the test lists, whose images are aligned")
    return parser


def _parse():
    parser = _parser()
    args = parser.parse_args()
    if bool(args.faces) != bool(args.non_faces):
        parser.error("a test needs both classes: add {}".format(
            "--non-faces" if args.faces else "--faces"))
    if args.faces and args.sources != parser.get_default("sources"):
        parser.error("--sources names lists, --faces and --non-faces name folders: leave one out")
    if not args.faces:
        args.search = args.search or "off"
    return args


@cli
@distributed.job
@explain_memory_errors("use a smaller --batch-size, or a smaller --search")
def main() -> None:
    args = _parse()
    path = args.weights or os.path.join(args.model_dir, "darknet19_frozen.pb")
    if not args.weights and not os.path.exists(path):
        raise UserError("{}: no such file; run train.py, or name a model with --weights, such as "
                        "--weights released".format(path))
    model = choose_model(args.model_dir, path, threshold=args.threshold)
    options = evaluation_options(args, args.search)
    if args.faces:
        splits = split_of_folders(args.faces, args.non_faces)
        options = options._replace(data_dir=None)
    else:
        splits = load_sources(args.data_dir, args.sources, "test")
    from darknet_face.evaluation.evaluate import evaluate_and_report  # imports scikit-learn

    evaluate_and_report(
        open_model(model, args.precision), splits, model,
        args.json or os.path.join(args.model_dir, "test_metrics.json"), options)


if __name__ == "__main__":
    main()
