"""Measure the frozen graph on the test lists.

    python test.py                 # saved_models/darknet19_frozen.pb over data/*_test*.pickle
    python test.py --model my.pb

Loads the frozen graph and nothing else of the model, prints a table and writes
``test_metrics.json`` in the model directory.
"""

import argparse
import os

import frozen
from dataset import add_data_arguments, load_split
from evaluation import evaluate_split, format_table
from utils import cli, number_type, write_json


def _parser():
    parser = argparse.ArgumentParser(
        description="Measure the frozen graph on the test lists: accuracy, precision, recall, F1, "
                    "ROC AUC, confusion matrix.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_data_arguments(parser)
    parser.add_argument("--model-dir", default="saved_models",
                        help="folder with the frozen graph")
    parser.add_argument("--model", metavar="PB",
                        help="the frozen graph (default: darknet19_frozen.pb in the model "
                             "directory)")
    parser.add_argument("--json", metavar="FILE",
                        help="where the figures go (default: test_metrics.json in the model "
                             "directory)")
    parser.add_argument("--batch-size", type=number_type(int, 1), default=16,
                        help="images classified at a time")
    return parser


@cli
def main():
    args = _parser().parse_args()
    split = load_split(args.data_dir, "test")
    model = args.model or os.path.join(args.model_dir, "darknet19_frozen.pb")
    figures = evaluate_split(frozen.load(model), split, args.batch_size)
    print("{}, {} faces and {} non-faces".format(model, *map(len, split)))
    print(format_table(figures))
    write_json(args.json or os.path.join(args.model_dir, "test_metrics.json"), figures)


if __name__ == "__main__":
    main()
