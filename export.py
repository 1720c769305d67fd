"""Export the network to the engines that others use, each export checked before it is in place.

    python export.py all           # everything below, then the table
    python export.py darknet       # exports/darknet19_face.cfg, .weights and .names
    python export.py onnx          # exports/darknet19_face.onnx; --int8 also a small, fast one
    python export.py savedmodel    # exports/darknet19_face_savedmodel/1, for TensorFlow Serving
    python export.py compare       # all engines side by side on the same pictures

The weights are your newest ones in the model directory or, if there are none, the released ones.
What they say of themselves (classes, threshold, training step) goes into the exports.

Each file is written under a temporary name and run, on real pictures, by the engine it is for. It
is renamed into place if the answers are those of the network built from the weights. Otherwise the
exit code is 1. Each SavedModel is a version of its own, and the newest two are kept.
"""

import argparse
import os
import signal
import sys

import cv2

from darknet19 import STRIDE
from darknet_face.exporters import savedmodel
from darknet_face.exporters.compare import (
    Reference,
    choose_pictures,
    format_table,
    import_package,
    run_frozen,
    table_row,
)
from darknet_face.exporters.darknet import export_darknet, run_opencv
from darknet_face.exporters.onnx import export_onnx, run_onnx
from darknet_face.exporters.onnx_int8 import export_int8
from darknet_face.exporters.savedmodel import export_savedmodel
from darknet_face.images.file_lists import add_data_arguments
from darknet_face.images.reader import LARGEST_SIZE, read_batches
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.safe_files import check_json, relative_to_here
from darknet_face.runtime.session import explain_memory_errors, is_mkl_build, tf
from darknet_face.weights.metadata import read_metadata
from darknet_face.weights.released import add_weights_argument, choose_model
from darknet_face.weights.weight_files import read_weights
from utils import HelpFormatter, UserError, cli, number_type

EXPORTS = {
    "darknet": (export_darknet, "darknet's .cfg, .weights and .names"),
    "onnx": (export_onnx, "an ONNX model of any batch and size"),
    "savedmodel": (export_savedmodel, "a SavedModel for TensorFlow Serving"),
}


def compare(reference, out, model_dir, json_path):
    """Run all engines on the same pictures; print a table and write it as JSON.

    Parameters
    ----------
    reference : Reference
    out : str
        Folder of the exports.
    model_dir : str
        Folder of your own frozen graph.
    json_path : str
        For the table.

    Raises
    ------
    UserError
        With exit code 1, after the table, if an engine differs more than it may.
    """
    frozen = reference.source if reference.source.endswith(".pb") else os.path.join(
        model_dir, "darknet19_frozen.pb")
    expected, frozen = run_frozen(reference, frozen, out)
    saved_model = os.path.join(out, savedmodel.FOLDER)
    tensorflow = "TensorFlow " + tf.VERSION + (" (MKL)" if is_mkl_build() else "")
    rows = [
        table_row("frozen", tensorflow + ", frozen graph", frozen, expected, expected),
        table_row("fresh", tensorflow + ", fresh graph", reference.source, reference.expected,
                  expected),
    ]
    for key, engine, path, run in (
            ("opencv", "OpenCV " + cv2.__version__ + " DNN", out, run_opencv),
            ("onnx", "ONNX Runtime " + import_package("onnxruntime").__version__, out, run_onnx),
            ("tensor", "SavedModel, tensor", saved_model, savedmodel.run_on_tensors),
            ("encoded", "SavedModel, encoded files", saved_model, savedmodel.run_on_files)):
        rows.append(table_row(key, engine, path, run(path, reference), expected))
    print("\n" + format_table(rows, len(reference.paths)))
    write_json(json_path, {"source": reference.source, "image_size": reference.image_size,
                           "images": len(reference.paths), "engines": rows})
    print("\nwrote {}".format(json_path))
    outside = [each["engine"] for each in rows if not each["largest_difference"] <= each["bound"]]
    if outside:
        raise UserError("{}: exported from other weights than {}? run export.py all".format(
            ", ".join(outside), reference.source), exit_code=1)


def _reference(args):
    """The network that the options name, with its answers on the pictures to compare on."""
    source, image_size = choose_model(
        args.model_dir, args.weights, args.image_size, args.cfg)
    weights = read_weights(source, cfg=args.cfg)
    paths, kind = choose_pictures(args.data_dir, args.images)
    reference = Reference(source, weights, image_size, paths, read_metadata(source, args.cfg))
    print("exporting {0} at {1} x {1}, comparing on {2} {3}".format(
        relative_to_here(source), image_size, len(reference.paths), kind), flush=True)
    return reference


def calibration_pictures(data_dir, count, image_size):
    """Pictures for the ranges of 8-bit numbers: uint8, [pictures, image_size, image_size, 3]."""
    paths, kind = choose_pictures(data_dir, count, "val")
    _, images, _ = next(read_batches(paths, len(paths), image_size))
    if not len(images):
        raise UserError("none of the {} pictures for --int8 could be read; check the validation "
                        "lists".format(len(paths)))
    print("measuring ranges on {} {}".format(len(images), kind), flush=True)
    return images


def _parser():
    common = argparse.ArgumentParser(add_help=False)
    add_data_arguments(common)
    common.add_argument("--model-dir", default="saved_models",
                        help="folder with your own weights or frozen graph")
    add_weights_argument(common, "your newest in the model directory, otherwise the released one",
                         "--from")
    common.add_argument("--cfg", metavar="FILE",
                        help="darknet's description of .weights (default: the .cfg of the same "
                             "name beside them, or Darknet-19's own)")
    common.add_argument("--out", default="exports", metavar="DIR", help="folder for the exports")
    common.add_argument("--image-size", type=number_type(int, STRIDE, LARGEST_SIZE),
                        help="height and width of the input, a multiple of 32 (default: what the "
                             "file of the weights says, or 224)")
    common.add_argument("--images", type=number_type(int, 1), default=100,
                        help="pictures of the test lists to compare on, half of them faces")
    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("--json", metavar="FILE",
                       help="where the table goes (default: compare.json in --out)")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    texts = {name: text for name, (_, text) in EXPORTS.items()}
    texts["all"] = "all of these, then the table"
    texts["compare"] = "all engines side by side on the same pictures"
    for name, text in texts.items():
        command = commands.add_parser(
            name, parents=[common] if name in EXPORTS else [common, table], help=text,
            formatter_class=HelpFormatter, description=text[0].upper() + text[1:] + ".")
        if name == "onnx":
            command.add_argument("--int8", action="store_true",
                                 help="also write a model of 8-bit numbers, a quarter of the size; "
                                      "its ranges are measured on pictures of the validation lists")
            command.add_argument("--calibration-images", type=number_type(int, 1), default=100,
                                 help="how many pictures --int8 measures on, half of them faces")
    return parser


@cli
@explain_memory_errors("use a smaller --image-size or fewer --images")
def main():
    parser = _parser()
    args = parser.parse_args()
    if args.image_size and args.image_size % STRIDE:
        parser.error("--image-size is a multiple of {}".format(STRIDE))
    # End by an exception, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if args.command in ("all", "compare"):
        args.json = args.json or os.path.join(args.out, "compare.json")
        check_json(args.json, ["source", "engines"], "a table of this script")
    reference = _reference(args)
    for name, (export, _) in EXPORTS.items():
        if args.command in (name, "all"):
            export(reference, args.out)
    if args.command == "onnx" and args.int8:
        export_int8(reference, calibration_pictures(
            args.data_dir, args.calibration_images, reference.image_size), args.out)
    if args.command in ("all", "compare"):
        compare(reference, args.out, args.model_dir, args.json)


if __name__ == "__main__":
    main()
