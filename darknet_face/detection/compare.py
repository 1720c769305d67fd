"""What the weights are worth: train on them and on random ones, and plot both curves.

    python -m darknet_face.detection.compare --wider-dir wider --steps 500 --seeds 0 1

Each pair of trainings has equal photographs, batches, head and steps; only the trunk's weights
differ. By default the trunk stays frozen, which shows what its features are worth. With
``--freeze-steps 0`` both are trained as a whole. A random trunk has He initialisation and the
moving statistics of training photographs.
"""

from __future__ import annotations

import argparse
import os

from darknet_face.console import HelpFormatter, cli, number_type
from darknet_face.detection import history
from darknet_face.detection.network import RANDOM
from darknet_face.detection.photographs import KEEP, read_wider
from darknet_face.detection.train import Options, train
from darknet_face.images.contact_sheets import BLUE, RED, hexadecimal, image_name
from darknet_face.runtime.atomic_files import temporary_folder, write_json
from darknet_face.runtime.safe_files import check_replaceable, starts_with
from darknet_face.runtime.session import PRECISIONS, explain_memory_errors

JSON_START = '[\n  {\n    "weights": '  # how the numbers' file starts


def compare(options, seeds, photographs, weights, folder):
    """Train with each seed on each kind of weights.

    Parameters
    ----------
    options : Options
        ``weights``, ``seed``, ``run_dir`` and ``model`` are set for each training.
    seeds : sequence of int
    photographs : dict of str to list of Photograph
    weights : dict of str to str
        What to train from, by label.
    folder : str
        For temporary files, 300 MB.

    Returns
    -------
    list of (str, int, list of dict)
        Label, seed and history of each training.
    """
    results = []
    for seed in seeds:
        for label, source in weights.items():
            print("{}, seed {}".format(label, seed), flush=True)
            with temporary_folder(folder, "yolov2-compare") as run_dir:
                rows = train(options._replace(
                    weights=source, seed=seed, run_dir=run_dir,
                    model=os.path.join(run_dir, "detector.pb")), photographs)
            results.append((label, seed, rows))
    return results


@cli
@explain_memory_errors("use a smaller --batch-size or a smaller --size")
def main():
    default = Options()
    parser = argparse.ArgumentParser(
        description="Compare a detector on these weights with one on random weights.",
        formatter_class=HelpFormatter)
    parser.add_argument("--wider-dir", default="wider", help="WIDER FACE as distributed")
    parser.add_argument("--keep", choices=KEEP, default="pruned",
                        help="which training photographs: see photographs.py")
    parser.add_argument("--weights", default=default.weights,
                        help="an .npz or a folder with the two pickles")
    parser.add_argument("--steps", type=number_type(int, 1), default=500, help="updates")
    parser.add_argument("--freeze-steps", type=number_type(int, 0), metavar="STEPS",
                        help="updates of the head alone (default: all)")
    parser.add_argument("--seeds", type=number_type(int, 0, 2 ** 31 - 1), nargs="+", default=[0, 1],
                        help="each trains a pair")
    parser.add_argument("--batch-size", type=number_type(int, 1, 1024), default=16,
                        help="photographs per update")
    parser.add_argument("--size", type=number_type(int, 64, 1024), default=224, help="input size")
    parser.add_argument("--validate-every", type=number_type(int, 1), default=100,
                        help="updates between the points of a curve")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="bfloat16 is faster on processors that have it")
    parser.add_argument("--plot", type=image_name, default="yolov2_compare.png",
                        help="the chart to write; the numbers go to .json beside it")
    args = parser.parse_args()
    if args.size % 32:
        parser.error("--size is a multiple of 32")
    path = os.path.splitext(args.plot)[0] + ".json"
    check_replaceable(path, lambda name: starts_with(name, JSON_START),
                      "a comparison of this program")
    photographs = {"train": read_wider(args.wider_dir, "train", args.keep),
                   "val": read_wider(args.wider_dir, "val")}
    options = default._replace(
        steps=args.steps, batch_size=args.batch_size, sizes=(args.size,), val_size=args.size,
        freeze_steps=args.steps if args.freeze_steps is None else args.freeze_steps,
        validate_every=args.validate_every, precision=args.precision)
    results = compare(options, args.seeds, photographs,
                      {"these weights": args.weights, "random weights": RANDOM},
                      os.path.dirname(os.path.abspath(args.plot)))
    colours = {"these weights": hexadecimal(BLUE), "random weights": hexadecimal(RED)}
    history.plot_precision(
        args.plot, [(label, colours[label], rows) for label, _, rows in results],
        "Validation, {} photographs, seeds {}".format(
            len(photographs["val"]), ", ".join(map(str, args.seeds))))
    write_json(path, [dict(weights=label, seed=seed, history=rows)
                      for label, seed, rows in results])
    for label, seed, rows in results:
        print("{:<15} seed {}: AP40 {:.3f}, AP50 {:.3f} after {:,} steps".format(
            label, seed, rows[-1]["ap40"], rows[-1]["ap50"], args.steps))
    print("wrote {} and {}".format(args.plot, path))


if __name__ == "__main__":
    main()
