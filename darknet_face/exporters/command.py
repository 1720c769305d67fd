"""Export the network to the engines that others use, each export checked before it is in place.

    python export.py all           # darknet, onnx, onnx-nchw and savedmodel, then the table
    python export.py darknet       # exports/darknet19_face.cfg, .weights and .names
    python export.py onnx          # exports/darknet19_face.onnx; --int8 also a small, fast one
    python export.py onnx-nchw     # exports/darknet19_face_nchw.onnx, for OpenCV's blobFromImage
    python export.py detector      # exports/darknet19_detector.onnx; --half also a small one
    python export.py savedmodel    # exports/darknet19_face_savedmodel/1, for TensorFlow Serving
    python export.py tflite        # exports/darknet19_face.tflite, for phones
    python export.py compare       # all engines side by side on the same images

The weights are your newest ones in the model directory or, if there are none, the released ones.
What they say of themselves (classes, threshold, training step) goes into the exports.

Each file is written under a temporary name and run, on real images, by the engine it is for. It
is renamed into place if the answers are those of the network built from the weights. Otherwise the
exit code is 1. Each SavedModel is a version of its own, and the newest two are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import sys
import typing

import numpy as np

from darknet_face.console import HelpFormatter, UserError, cli, number_type
from darknet_face.detection import default_detector
from darknet_face.detection.yolov2.detector import is_detector as is_yolov2
from darknet_face.engines.onnx_int8 import Ranges, measure_ranges, write_ranges
from darknet_face.exporters import savedmodel
from darknet_face.exporters.compare import (
    BATCH,
    Reference,
    Runner,
    choose_images,
    format_table,
    run_frozen,
    table_row,
)
from darknet_face.exporters.darknet import export_darknet, run_opencv
from darknet_face.exporters.detector import FILES, HALF, export_detector
from darknet_face.exporters.onnx import export_onnx, run_onnx, run_onnx_in_opencv
from darknet_face.exporters.onnx_int8 import export_int8
from darknet_face.exporters.savedmodel import export_savedmodel
from darknet_face.exporters.tflite import export_tflite
from darknet_face.exporters.yolov2 import export_yolov2
from darknet_face.images.find_images import find_images
from darknet_face.images.reader import read_batches
from darknet_face.images.samples import sample_images
from darknet_face.options import (
    NEWEST,
    add_data_argument,
    add_image_size_argument,
    add_weights_argument,
)
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.safe_files import check_json, relative_to_here
from darknet_face.runtime.session import explain_memory_errors
from darknet_face.weights.model_file import ModelFile, choose_model


class Export(typing.NamedTuple):
    """A format: a line of help, what writes it, and what the table runs it with."""

    text: str
    write: typing.Callable[[Reference, str], float]
    runners: tuple[Runner, ...]
    in_all: bool = True  # False where a runtime lacks it


run_onnx_nchw = functools.partial(run_onnx, layout="NCHW")
EXPORTS = {
    "darknet": Export("darknet's .cfg, .weights and .names", export_darknet, (
        Runner("OpenCV {} DNN, darknet's files", "cv2", "opencv", run_opencv),)),
    "onnx": Export("an ONNX model of any batch and size", export_onnx, (
        Runner("ONNX Runtime {}", "onnxruntime", "onnx", run_onnx),)),
    "onnx-nchw": Export(
        "the ONNX model for clients that feed [batch, 3, height, width], as OpenCV's blobFromImage",
        functools.partial(export_onnx, layout="NCHW"), (
            Runner("ONNX Runtime {}, NCHW", "onnxruntime", "onnx", run_onnx_nchw),
            Runner("OpenCV {} DNN, ONNX, NCHW", "cv2", "opencv", run_onnx_in_opencv))),
    "savedmodel": Export("a SavedModel for TensorFlow Serving", export_savedmodel, (
        Runner("SavedModel, tensor", "tensorflow", "tensorflow",
               lambda out, reference: savedmodel.run_on_tensors(
                   os.path.join(out, savedmodel.FOLDER), reference)),
        Runner("SavedModel, encoded files", "tensorflow", "encoded",
               lambda out, reference: savedmodel.run_on_files(
                   os.path.join(out, savedmodel.FOLDER), reference)))),
    "tflite": Export("a TensorFlow Lite model, by TensorFlow 2", export_tflite, (), in_all=False),
}


def compare(reference: Reference, out: str, model_dir: str, json_path: str) -> None:
    """Run all engines on the same images; print a table and write it as JSON.

    Parameters
    ----------
    reference
    out
        Folder of the exports.
    model_dir
        Folder of your own frozen graph.
    json_path
        For the table.

    Raises
    ------
    UserError
        With exit code 1, after the table, if an engine differs more than it may.
    """
    frozen = reference.source if reference.model.graph_def is not None else os.path.join(
        model_dir, "darknet19_frozen.pb")
    expected, frozen = run_frozen(reference, frozen, out)
    rows = [table_row(Runner("TensorFlow {}, " + graph, "tensorflow", "tensorflow", None), path,
                      probabilities, expected)
            for graph, path, probabilities in (
                ("frozen graph", frozen, expected),
                ("fresh graph", reference.source, reference.expected))]
    for export in EXPORTS.values():
        rows += [table_row(runner, out, runner.run(out, reference), expected)
                 for runner in export.runners]
    print("\n" + format_table(rows, len(reference.paths)))
    write_json(json_path, {"source": reference.source, "image_size": reference.image_size,
                           "images": len(reference.paths), "engines": rows})
    print("\nwrote {}".format(json_path))
    outside = [each["engine"] for each in rows if not each["largest_difference"] <= each["bound"]]
    if outside:
        raise UserError("{}: exported from other weights than {}? run export.py all".format(
            ", ".join(outside), reference.source), exit_code=1)


def _reference(args: argparse.Namespace) -> Reference:
    """The network that the options name, with its answers on the images to compare on."""
    model = choose_model(args.model_dir, args.weights, args.image_size, cfg=args.cfg)
    paths, kind = choose_images(args.data_dir, args.images)
    reference = Reference(model, paths)
    print("exporting {0} at {1} x {1}, comparing on {2} {3}".format(
        relative_to_here(model.path), model.image_size, len(reference.paths), kind), flush=True)
    return reference


def int8_ranges(model: ModelFile, args: argparse.Namespace) -> tuple[Ranges, int]:
    """The ranges for 8-bit numbers, and on how many images they were measured now.

    Those beside the weights, unless others are asked for or there are none of these weights.
    """
    if not args.calibrate:
        with contextlib.suppress(UserError):
            return model.ranges(), 0
        paths, kind = choose_images(args.data_dir, args.calibration_images, "val")
    else:
        paths = sorted(find_images(args.calibrate))
        paths = paths[::max(1, len(paths) // args.calibration_images)][:args.calibration_images]
        kind = "images of {}".format(args.calibrate)
    images = [images for _, images, _ in read_batches(paths, BATCH, model.image_size)]
    count = sum(map(len, images))
    if not count:
        raise UserError("none of the {} {} could be read; --int8 measures ranges on images: name a "
                        "folder by --calibrate".format(len(paths), kind))
    print("measuring ranges on {} {}".format(count, kind), flush=True)
    return measure_ranges(model.weights, np.concatenate(images)), count


def _parser(prog: str | None = None) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    add_data_argument(common)
    common.add_argument("--model-dir", default="saved_models",
                        help="folder with your own weights or frozen graph")
    add_weights_argument(common, NEWEST, "--from")
    common.add_argument("--cfg", metavar="FILE",
                        help="darknet's description of .weights (default: the .cfg of the same "
                             "name beside them, or Darknet-19's own)")
    common.add_argument("--out", default="exports", metavar="DIR", help="folder for the exports")
    add_image_size_argument(common)
    common.add_argument("--images", type=number_type(int, 1), default=100,
                        help="images of the test lists to compare on, half of them faces")
    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("--json", metavar="FILE",
                       help="where the table goes (default: compare.json in --out)")
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    texts = {name: export.text for name, export in EXPORTS.items()}
    texts["all"] = "all of these, then the table"
    texts["compare"] = "all engines side by side on the same images"
    for name, text in texts.items():
        command = commands.add_parser(
            name, parents=[common] if name in EXPORTS else [common, table], help=text,
            formatter_class=HelpFormatter, description=text[0].upper() + text[1:] + ".")
        if name == "onnx":
            command.add_argument("--int8", action="store_true",
                                 help="also write a model of 8-bit numbers, a quarter of the size; "
                                      "its ranges are those beside the weights or, without any, "
                                      "are measured and stored there, also for --precision int8")
            command.add_argument("--calibrate", metavar="DIR",
                                 help="measure the ranges anew, on the images in this folder; "
                                      "without it on those of the validation lists")
            command.add_argument("--calibration-images", type=number_type(int, 1), default=300,
                                 help="on how many at most")
    _add_detector(commands)
    return parser


def _add_detector(commands):
    command = commands.add_parser(
        "detector", formatter_class=HelpFormatter, help="a face detector as ONNX models or darknet",
        description="The one-pass detector as ONNX models of both layouts; a YOLOv2 detector as "
                    "darknet's files.")
    command.add_argument("--detector", default=default_detector(), metavar="FILE",
                         help="a file of train_detector.py")
    command.add_argument("--out", default="exports", metavar="DIR", help="folder for the exports")
    command.add_argument("--half", action="store_true",
                         help="also write one of half the size: float16 kernels, of which runtimes "
                              "make float32 when they load it; the same answers")


@cli
@explain_memory_errors("use a smaller --image-size or fewer --images")
def main(arguments: typing.Sequence[str] | None = None, prog: str | None = None) -> None:
    """Export; ``arguments`` and ``prog`` are the program's own if absent."""
    parser = _parser(prog)
    args = parser.parse_args(arguments)
    # End by an exception, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if args.command == "detector":
        if is_yolov2(args.detector):
            export_yolov2(args.detector, sample_images(), args.out)
            return
        export_detector(args.detector, sample_images(), args.out,
                        [*FILES.values(), *([HALF] if args.half else [])])
        return
    if args.command in ("all", "compare"):
        args.json = args.json or os.path.join(args.out, "compare.json")
        check_json(args.json, ["source", "engines"], "a table of this script")
    reference = _reference(args)
    for name, export in EXPORTS.items():
        if args.command == name or args.command == "all" and export.in_all:
            export.write(reference, args.out)
    if args.command == "onnx" and args.int8:
        ranges, images = int8_ranges(reference.model, args)
        export_int8(reference, ranges, args.out)
        if images:
            print("wrote {}".format(write_ranges(
                reference.source, reference.weights, ranges, images)))
    if args.command in ("all", "compare"):
        compare(reference, args.out, args.model_dir, args.json)
