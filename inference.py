"""Measure on the test lists, or classify named images, with the extracted weights.

    python inference.py                            # the test lists, the same metrics as test.py
    python inference.py --report report            # with a page of them
    python inference.py photo.jpg photos/          # a line per image
    mpirun -np 2 python inference.py photos/ --csv out.csv   # shared by two ranks, same table

The graph is built new. The model is your newest one in saved_models: extracted weights, a frozen
graph or the best checkpoint; if there is none, the released one. ``--weights`` names another. The
first line says which model, input size and threshold are in use.

Named images are what ``darknet-face`` does: see :mod:`darknet_face.classify.command`.
"""

import argparse
import os

from darknet_face.classify import command
from darknet_face.engines.engine import open_engine
from darknet_face.evaluation.options import add_evaluation_arguments, evaluation_options
from darknet_face.images.file_lists import load_sources
from darknet_face.options import (
    add_data_argument,
    add_sources_argument,
)
from darknet_face.runtime import distributed
from darknet_face.runtime.session import explain_memory_errors
from darknet_face.weights.model_file import choose_model
from utils import HelpFormatter, cli


def _parse_arguments():
    parser = argparse.ArgumentParser(
        description="Measure on the test lists, or classify named images, with the extracted "
                    "weights.", formatter_class=HelpFormatter)
    command.add_arguments(parser, " (default: the test lists)")
    lists = parser.add_argument_group("for the test lists")
    add_data_argument(lists)
    add_sources_argument(
        lists, "measure on the test lists of these datasets, each in a row of its own")
    add_evaluation_arguments(lists)
    args = parser.parse_args()
    if command.names_images(args):
        if args.report or args.robustness or args.at_fpr is not None:
            parser.error("--report, --robustness and --at-fpr need the labels of the test lists: "
                         "name no images with them")
    elif (args.csv or args.resume or args.contact_sheet or args.heatmap or args.sort_into
          or args.quiet or args.only):
        parser.error("--csv, --resume, --contact-sheet, --heatmap, --sort-into, --quiet and --only "
                     "are for named images: name some")
    elif args.json == "-":
        parser.error("--json - is for named images; the metrics of the test lists need a file")
    command.check_arguments(parser, args)
    return args


@cli
@distributed.job
@explain_memory_errors(command.MEMORY_REMEDY)
def main():
    args = _parse_arguments()
    if command.names_images(args):
        command.run(args)
        return
    from darknet_face.evaluation.evaluate import evaluate_and_report  # imports scikit-learn

    model = choose_model(args.model_dir, args.weights, args.image_size, args.threshold)
    command.print_model(str(model))
    evaluate_and_report(
        open_engine(model.weights, model.image_size, args.engine, precision=args.precision,
                    ranges=model.ranges),
        load_sources(args.data_dir, args.sources, "test"), model,
        args.json or os.path.join(args.model_dir, "inference_metrics.json"),
        evaluation_options(args, args.search or "off"))


if __name__ == "__main__":
    main()
