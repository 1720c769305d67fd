"""The whole job on the embedded data set: 200 real images, no download, a few minutes.

    make demo

Prepares the images, trains Darknet-19 on 140 of them, freezes it, tests the frozen graph on 40
that it has not seen, extracts the weights, loads them into a fresh graph and tests that on the
same 40. Then the released model, trained on far more, looks at the photographs that scikit-image
carries, and maps show where it sees a face.

Each step is one of the project's scripts, shown as it would be typed. Exit code 1 if the two tests
disagree in the fourth decimal or the accuracy is below 90 %.
"""

import argparse
import os
import shlex
import subprocess
import sys

from darknet_face.runtime.safe_files import read_json
from utils import UserError, cli

SAMPLE = "data/sample"
MODEL = "saved_models/sample"
LOGS = "logs/sample"
PLACES = ("--data-dir", SAMPLE, "--model-dir", MODEL)
STEPS = (
    ("preprocess_celeba.py", "--sample"),
    ("train.py", "--data-dir", SAMPLE, "--image-size", "32", "--preview", LOGS + "/augmented.png"),
    ("train.py",) + PLACES + ("--log-dir", LOGS, "--restart", "--image-size", "32",
                              "--batch-size", "16", "--epochs", "48", "--step-epochs", "24",
                              "--validate-every", "8"),
    ("test.py",) + PLACES,
    ("extract_weights.py",) + PLACES,
    ("inference.py",) + PLACES,
    ("inference.py", "--photographs", "--weights", "saved_models/darknet19_face.npz",
     "--contact-sheet", LOGS + "/photographs.png", "--heatmap", LOGS + "/photograph_maps"),
)
FIGURES = ("accuracy", "precision", "recall", "f1", "roc_auc")
LEAST_ACCURACY = 0.9


def run(step):
    """Show a step and run it; the end of a step that fails is the end of the demonstration."""
    print("\n$ python " + " ".join(map(shlex.quote, step)), flush=True)
    code = subprocess.call([sys.executable] + list(step))
    if code:
        raise UserError("{} ended with exit code {}".format(step[0], code), exit_code=code)


def report():
    """Print the metrics of both tests side by side and compare them."""
    frozen, fresh = (read_json(os.path.join(MODEL, name + "_metrics.json"))
                     for name in ("test", "inference"))
    rows = [(name.replace("_", " "), "{:.4f}".format(frozen[name]), "{:.4f}".format(fresh[name]))
            for name in FIGURES]
    print("\n{} held-out images    test.py (frozen)    inference.py (fresh)".format(
        frozen["images"]))
    for row in rows:
        print("{:<22}{:>19}{:>24}".format(*row))
    if any(row[1] != row[2] for row in rows):
        raise UserError("the frozen graph and the fresh graph disagree", exit_code=1)
    if frozen["accuracy"] < LEAST_ACCURACY:
        raise UserError("the accuracy is below {}".format(LEAST_ACCURACY), exit_code=1)


@cli
def main():
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for step in STEPS:
        run(step)
    report()
    print("\nPictures to look at:")
    for name, what in (("augmented.png", "training images as the network sees them"),
                       ("training_summary.png", "loss, accuracy and learning rate"),
                       ("photographs.png", "what the released model says of photographs"),
                       ("photograph_maps", "a folder: where it sees a face in each")):
        print("  {:<36} {}".format(os.path.join(LOGS, name), what))


if __name__ == "__main__":
    main()
