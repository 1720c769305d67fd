"""Classify pictures, or the test lists, with a fresh graph built from extracted weights.

    python inference.py                        # the test lists, with the same figures as test.py
    python inference.py photo.jpg pictures/    # a line for each picture
    python inference.py pictures/ --csv out.csv

Exit code 0 if any picture was classified, 1 if none.
"""

import argparse
import csv
import os
import sys

from augment import FACE
from darknet19 import CLASS_NAMES, STRIDE
from dataset import add_data_arguments, load_split, read_batches
from evaluation import evaluate_split, format_table
from frozen import classifier_from_weights
from images import find_images
from utils import (
    UserError,
    cli,
    number_type,
    progress,
    read_json,
    warn,
    write_atomically,
    write_json,
)
from weights import read_npz

COLUMNS = ("file", "class", "probability", "face_probability")


def expand(names):
    """The picture files that names stand for: files as they are, folders searched.

    Raises
    ------
    UserError
        When a name is neither a file nor a folder, or no file is left.
    """
    paths = []
    for name in names:
        if os.path.isdir(name):
            paths.extend(find_images(name))
        elif os.path.exists(name):
            paths.append(name)
        else:
            raise UserError("{}: no such file or folder; check the spelling".format(name))
    if not paths:
        raise UserError("{}: no picture files in it; name others".format(", ".join(names)))
    return paths


def classify(classifier, paths, batch_size, threshold=0.5):
    """Classify files one by one, reporting those that do not decode.

    Parameters
    ----------
    classifier : frozen.Classifier
    paths : sequence of str
    batch_size : int
    threshold : float
        The probability of FACE from which on a picture is called one.

    Yields
    ------
    dict
        ``file``, ``class``, ``probability`` (of that class) and ``face_probability``.
    """
    with progress(total=len(paths), desc="classifying", unit="image", leave=False) as bar:
        for good, images, bad in read_batches(paths, batch_size, classifier.image_size):
            for path, cause in bad:
                warn("{}: {}; skipped".format(path, cause))
            if good:
                for path, probabilities in zip(good, classifier(images)):
                    index = FACE if probabilities[FACE] >= threshold else 1 - FACE
                    yield {"file": path, "class": CLASS_NAMES[index],
                           "probability": float(probabilities[index]),
                           "face_probability": float(probabilities[FACE])}
            bar.update(len(good) + len(bad))


def classify_and_print(classifier, args):
    """Classify what the command line names; print lines and write the CSV."""
    paths = expand(args.images)
    width = min(60, max(map(len, paths)))
    rows = []
    for row in classify(classifier, paths, args.batch_size, args.threshold):
        rows.append(row)
        print("{file:<{width}}  {class:<8}  {probability:.4f}".format(width=width, **row))
    if args.csv and rows:
        with write_atomically(args.csv, "w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    bad = len(paths) - len(rows)
    if bad:
        warn("{} of {} files did not decode and were skipped".format(bad, len(paths)))
    if not rows:
        raise UserError("no picture could be classified", exit_code=1)


def input_size(args):
    """The input size asked for, else that of the frozen graph's metadata, else 224."""
    if args.image_size:
        return args.image_size
    metadata = os.path.join(args.model_dir, "darknet19_frozen.json")
    if not os.path.exists(metadata):
        return 224
    size = read_json(metadata).get("image_size")
    if not isinstance(size, int) or size <= 0 or size % STRIDE:
        raise UserError("{}: no usable image_size; say --image-size".format(metadata))
    return size


def _parser():
    parser = argparse.ArgumentParser(
        description="Classify pictures, or measure on the test lists, with a fresh graph built "
                    "from extracted weights.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("images", nargs="*", metavar="IMAGE",
                        help="picture files and folders (default: the test lists)")
    add_data_arguments(parser)
    parser.add_argument("--model-dir", default="saved_models", help="folder with the weights")
    parser.add_argument("--weights", metavar="NPZ",
                        help="the weights (default: darknet19_weights.npz in the model directory)")
    parser.add_argument("--image-size", type=number_type(int, STRIDE),
                        help="height and width that pictures are stretched to, a multiple of 32 "
                             "(default: that of the training)")
    parser.add_argument("--threshold", type=number_type(float, 0, 1), default=0.5,
                        help="probability from which on a named picture is called a face")
    parser.add_argument("--batch-size", type=number_type(int, 1), default=16,
                        help="images classified at a time")
    parser.add_argument("--csv", metavar="FILE", help="write the named pictures' classes here too")
    parser.add_argument("--json", metavar="FILE",
                        help="where the test lists' figures go (default: inference_metrics.json "
                             "in the model directory)")
    return parser


@cli
def main():
    parser = _parser()
    args = parser.parse_args()
    if args.image_size and args.image_size % STRIDE:
        parser.error("--image-size is a multiple of {}".format(STRIDE))
    weights = args.weights or os.path.join(args.model_dir, "darknet19_weights.npz")
    classifier = classifier_from_weights(read_npz(weights), input_size(args))
    if args.images:
        classify_and_print(classifier, args)
        return
    split = load_split(args.data_dir, "test")
    figures = evaluate_split(classifier, split, args.batch_size)
    print("{}, {} faces and {} non-faces".format(weights, *map(len, split)))
    print(format_table(figures))
    write_json(args.json or os.path.join(args.model_dir, "inference_metrics.json"), figures)


if __name__ == "__main__":
    sys.exit(main())
