"""Measure the frozen graph on the test lists.

    python test.py                                # saved_models/darknet19_frozen.pb
    python test.py --model my.pb --at-fpr 0.01    # also the threshold for 1 % false positives
    python test.py --report report --robustness   # also report/index.html with all figures
    mpirun -np 2 python test.py                   # shared by two ranks, the same figures

Uses the frozen graph alone. Prints a table and writes ``test_metrics.json`` in the model
directory.
"""

import argparse
import os

from classify.search import CHOICES, search_bias, zooms_of
from evaluation.evaluate import add_evaluation_arguments, evaluate_and_report, evaluation_options
from model import frozen
from model.weight_files import read_frozen
from pictures.lists import add_data_arguments, add_source_arguments, load_sources
from pictures.reader import LARGEST_BATCH
from runtime import distributed
from runtime.session import explain_memory_errors
from utils import HelpFormatter, cli, number_type


def _parser():
    parser = argparse.ArgumentParser(
        description="Measure the frozen graph on the test lists: accuracy, precision, recall, F1, "
                    "areas under the curves, calibration, confusion matrix.",
        formatter_class=HelpFormatter)
    add_data_arguments(parser)
    parser.add_argument("--model-dir", default="saved_models",
                        help="folder with the frozen graph")
    parser.add_argument("--model", metavar="PB",
                        help="the frozen graph (default: darknet19_frozen.pb in the model "
                             "directory)")
    parser.add_argument("--json", metavar="FILE",
                        help="the file for the figures (default: test_metrics.json in the model "
                             "directory)")
    parser.add_argument("--batch-size", type=number_type(int, 1, LARGEST_BATCH), default=16,
                        help="images per batch")
    add_source_arguments(parser)
    add_evaluation_arguments(parser)
    parser.add_argument("--search", choices=CHOICES, default="off",
                        help="also measure with the pictures searched through windows, at sizes up "
                             "to this, as inference.py does")
    return parser


@cli
@distributed.job
@explain_memory_errors("use a smaller --batch-size, or a smaller --search")
def main():
    args = _parser().parse_args()
    splits = load_sources(args.data_dir, args.sources, "test")
    model = args.model or os.path.join(args.model_dir, "darknet19_frozen.pb")
    evaluate_and_report(
        frozen.load(model, precision=args.precision), splits, model, lambda: read_frozen(model),
        args.json or os.path.join(args.model_dir, "test_metrics.json"),
        evaluation_options(args, zooms_of(args.search), search_bias(model)))


if __name__ == "__main__":
    main()
