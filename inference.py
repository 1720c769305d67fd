"""Classify pictures, or measure on the test lists, with the extracted weights.

    python inference.py                            # the test lists, the same metrics as test.py
    python inference.py photo.jpg pictures/        # prints a line per picture
    python inference.py pictures/ --csv out.csv    # also a table; --resume continues it
    python inference.py 'pictures/**/*.webp' --json - --sort-into sorted
    find / -name '*.jpg' | python inference.py -   # a list on standard input
    python inference.py film.mp4 --contact-sheet film.png --heatmap maps
    python inference.py --camera 0
    mpirun -np 2 python inference.py pictures/ --csv out.csv   # shared by two ranks, same table

The graph is built new. The model is your newest one in saved_models: extracted weights, a frozen
graph or the best checkpoint; if there is none, the released one. ``--weights`` names another. The
first line says which model, input size and threshold are in use. Results are written as they are
found and survive Ctrl-C. The exit code is 0 if any picture was classified, 1 if none was.
"""

import argparse
import collections
import contextlib
import functools
import os
import sys

from tqdm import tqdm

from darknet19 import STRIDE
from darknet_face.classes import CLASS_NAMES
from darknet_face.classify.api import load
from darknet_face.classify.find_inputs import check_names, find_inputs
from darknet_face.classify.inputs import digest
from darknet_face.classify.outputs import ONE_PICTURE_ERRORS, OutputOptions, open_outputs
from darknet_face.classify.predict import predict_on_all_ranks
from darknet_face.classify.sliding_window import (
    DEFAULT_SEARCH,
    SEARCH_CHOICES,
    scales_of,
    search_bias,
)
from darknet_face.classify.tables import check_table, keep_whole_rows
from darknet_face.classify.videos import camera_frames
from darknet_face.engines.tensorflow_classifier import folded_classifier
from darknet_face.evaluation.evaluate import (
    add_evaluation_arguments,
    evaluate_and_report,
    evaluation_options,
)
from darknet_face.images.contact_sheets import image_name
from darknet_face.images.decode import BadImage
from darknet_face.images.file_lists import add_data_arguments, add_source_arguments, load_sources
from darknet_face.images.find_images import Skipped
from darknet_face.images.reader import LARGEST_BATCH, LARGEST_SIZE
from darknet_face.images.samples import sample_images
from darknet_face.runtime import distributed
from darknet_face.runtime.session import explain_memory_errors
from darknet_face.weights import released
from darknet_face.weights.weight_files import read_weights
from utils import HelpFormatter, UserError, cli, number_type, printable, progress, warn

InputOptions = collections.namedtuple(
    "InputOptions", "names frames_per_second camera", defaults=((), 1.0, None))
InputOptions.__doc__ = """What to classify: names for find_inputs(), or a camera's number."""


def classify_and_write(predict, inputs, options, make_mapper):
    """Classify the named pictures and write the results. Only rank 0 finds and writes.

    Parameters
    ----------
    predict : callable
        Yields results and bad pictures for an iterable of InputImage: see
        :func:`darknet_face.classify.predict.classify_single_pass`.
    inputs : InputOptions
    options : OutputOptions
    make_mapper : callable
        Returns the FaceMapper for heat maps.

    Raises
    ------
    UserError
        If no picture could be classified.
    """
    if distributed.size() > 1:
        predict = functools.partial(predict_on_all_ranks, predict)
    if distributed.rank():
        collections.deque(predict(()), maxlen=0)
        return
    done = _prepare_tables(options)
    counts, skipped = collections.Counter(), Skipped()
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress(
            total=_count(inputs, options), desc="classifying", unit="image", leave=False))
        stack.callback(_summarise, counts, skipped)
        outputs = open_outputs(options, make_mapper)
        for output in outputs:  # on Ctrl-C too: the contact sheet then shows what was classified
            stack.callback(output.close)
        images = _not_done(_find(inputs, options, skipped.add), done, counts, bar)
        with contextlib.suppress(*([] if inputs.camera is None else [KeyboardInterrupt])):
            for results, bad in predict(images):
                _write(results, bad, outputs, counts)
                bar.update(len(results) + len(bad))
    if not sum(counts[name] for name in CLASS_NAMES) and not counts["done before"]:
        raise UserError("no picture could be classified", exit_code=1)


def _prepare_tables(options):
    """Check the tables that would be replaced; return the digests of the files that are done."""
    for path, kind in ((options.csv, "csv"), (options.json, "json")):
        if path and path != "-":
            check_table(path, kind)
    done = keep_whole_rows(options.csv, "csv") if options.resume else set()
    if options.resume and options.json and options.json != "-":
        keep_whole_rows(options.json, "json", done)
    return done


def _find(inputs, options, report=None):
    if inputs.camera is not None:
        return camera_frames(inputs.camera)
    written = [options.sort_into, options.heatmap, options.contact_sheet]
    exclude = {os.path.realpath(path) for path in written if path}
    return find_inputs(inputs.names, inputs.frames_per_second, exclude, report)


def _not_done(images, done, counts, bar):
    """The pictures that an interrupted run has not classified."""
    for image in images:
        if digest(image.name) in done:
            counts["done before"] += 1
            bar.update()
        else:
            yield image


def _write(results, bad, outputs, counts):
    for image, cause in bad:
        counts["bad"] += 1
        warn("{}: {}; skipped".format(printable(image.name), cause))
    for image, row in results:
        try:
            for output in outputs:
                output.write(image, row)
            counts[row["class"]] += 1
        except BadImage as error:  # the file changed between two readings
            counts["bad"] += 1
            warn("{}: {}; skipped".format(printable(image.name), error))
        except OSError as error:
            if error.errno not in ONE_PICTURE_ERRORS:
                raise
            counts["not written"] += 1
            warn("{}: {}: {}; skipped".format(
                printable(image.name), error.filename or "results", error.strerror))
    for output in outputs:
        output.flush()


def _count(inputs, options):
    """The number of pictures for the progress bar, or None if it is costly or not needed."""
    if (not sys.stderr.isatty() or inputs.camera is not None or not inputs.names
            or not all(map(os.path.isdir, inputs.names))):
        return None
    return sum(1 for _ in _find(inputs, options))


def _summarise(counts, skipped):
    """Print the counts to stderr, and what was passed over."""
    total = sum(counts[name] for name in CLASS_NAMES)
    parts = ["{:,} {}".format(counts[name], name) for name in CLASS_NAMES]
    for name, what in (("bad", "could not be read"), ("not written", "could not be written"),
                       ("done before", "were done before")):
        if counts[name]:
            parts.append("{:,} {}".format(counts[name], what))
    tqdm.write("classified {:,} picture{}: {}".format(
        total, "" if total == 1 else "s", ", ".join(parts)), file=sys.stderr)
    if skipped:
        tqdm.write("passed over: {}".format(skipped), file=sys.stderr)


def _parser():
    parser = argparse.ArgumentParser(
        description="Classify pictures, or measure on the test lists, with the extracted weights.",
        formatter_class=HelpFormatter)
    parser.add_argument("images", nargs="*", metavar="IMAGE",
                        help="image files, folders, patterns, videos, or - for a list of them on "
                             "standard input (default: the test lists)")
    add_data_arguments(parser)
    parser.add_argument("--model-dir", default="saved_models", help="folder with the weights")
    released.add_weights_argument(
        parser, "your newest in the model directory, otherwise the released one")
    parser.add_argument("--image-size", type=number_type(int, STRIDE, LARGEST_SIZE),
                        help="height and width of the network's input, a multiple of 32 "
                             "(default: as in training)")
    parser.add_argument("--batch-size", type=number_type(int, 1, LARGEST_BATCH), default=16,
                        help="images per batch")
    parser.add_argument("--json", metavar="FILE",
                        help="with named pictures: write one JSON object per line, - for standard "
                             "output; with the test lists: write the metrics (default: "
                             "inference_metrics.json in the model directory)")
    add_source_arguments(parser)
    add_evaluation_arguments(parser)
    _add_named_arguments(parser.add_argument_group("for named pictures"))
    return parser


def _add_named_arguments(group):
    group.add_argument("--search", choices=SEARCH_CHOICES,
                       help="look through windows of the picture, its shorter side enlarged to up "
                            "to so many times the network's input: 4 finds faces from about 5 %% "
                            "of the width on, 2 from 10 %%, 1 from 20 %%, at 22, 6 and 2 times "
                            "the cost of off, which stretches the picture and looks once "
                            "(default: 4 for named pictures, off for the test lists)")
    group.add_argument("--csv", metavar="FILE", help="write a table, - for standard output")
    group.add_argument("--resume", action="store_true",
                       help="continue an interrupted run's --csv: skip the pictures in it")
    group.add_argument("--contact-sheet", type=image_name, metavar="PNG",
                       help="draw a contact sheet: green frames for faces, red for others")
    group.add_argument("--montage", type=image_name, dest="contact_sheet",
                       default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    group.add_argument("--contact-sheet-images", type=number_type(int, 1, 10000), default=200,
                       metavar="N", help="show at most so many pictures on it, the first ones")
    group.add_argument("--montage-images", type=number_type(int, 1, 10000), metavar="N",
                       dest="contact_sheet_images", default=argparse.SUPPRESS,
                       help=argparse.SUPPRESS)
    group.add_argument("--heatmap", metavar="DIR",
                       help="write each picture with a map of where a face is seen")
    group.add_argument("--sort-into", metavar="DIR",
                       help="put each picture into DIR/face or DIR/non_face")
    group.add_argument("--sort-into-mode", choices=("copy", "link"), default="copy",
                       help="copy files or make symbolic links")
    group.add_argument("--fps", type=number_type(float, 1e-3), default=1.0,
                       help="frames to take from each second of video")
    group.add_argument("--camera", type=number_type(int, 0, 999), metavar="N",
                       help="classify the frames of this camera until Ctrl-C")
    group.add_argument("--photographs", action="store_true",
                       help="classify the photographs in the scikit-image package")


def _parse_arguments():
    parser = _parser()
    args = parser.parse_args()
    if args.image_size and args.image_size % STRIDE:
        parser.error("--image-size is a multiple of {}".format(STRIDE))
    args.named = bool(args.images or args.photographs or args.camera is not None)
    for_lists = [args.report, args.robustness or None, args.at_fpr]
    for_named = [args.csv, args.resume or None, args.contact_sheet, args.heatmap,
                 args.sort_into]
    if args.named and any(each is not None for each in for_lists):
        parser.error("--report, --robustness and --at-fpr need the labels of the test lists: name "
                     "no pictures with them")
    if not args.named and any(each is not None for each in for_named):
        parser.error("--csv, --resume, --contact-sheet, --heatmap and --sort-into are for named "
                     "pictures: name some")
    if args.camera is not None:
        if args.images or args.photographs:
            parser.error("--camera takes no names of pictures")
        if distributed.size() > 1:
            parser.error("--camera works with one process only")
        args.batch_size = 1  # show the answer for a frame before the next frame comes
    if args.resume and args.csv in (None, "-"):
        parser.error("--resume continues a --csv FILE: name it")
    if not args.named and args.json == "-":
        parser.error("--json - is for named pictures; the metrics of the test lists need a file")
    _check_outputs(parser, args)
    return args


def _check_outputs(parser, args):
    """Check that no file is written twice and that no picture is replaced."""
    outputs = [os.path.realpath(path)
               for path in (args.csv, args.json, args.contact_sheet) if path]
    if len(set(outputs)) < len(outputs):
        parser.error("--csv, --json and --contact-sheet need different files")
    if set(outputs) & {os.path.realpath(name) for name in args.images if name != "-"}:
        parser.error("a file that --csv, --json or --contact-sheet would write is among the "
                     "pictures")
    for option, folder in (("--heatmap", args.heatmap), ("--sort-into", args.sort_into)):
        if folder and os.path.lexists(folder) and not os.path.isdir(folder):
            parser.error("{} {}: not a folder; name another".format(option, folder))


@cli
@distributed.job
@explain_memory_errors("use a smaller --search, --batch-size or --image-size")
def main():
    args = _parse_arguments()
    if args.images and not args.photographs and distributed.rank() == 0:
        check_names(args.images, [each for each in (args.sort_into, args.heatmap) if each])
    if args.named:
        model = load(args.weights, args.search or DEFAULT_SEARCH, args.threshold, args.precision,
                     args.image_size, args.batch_size, args.model_dir)
        _print_model(model.path, model.image_size, args.threshold)
        names = args.images + (sample_images() if args.photographs else [])
        options = OutputOptions(**{name: getattr(args, name) for name in OutputOptions._fields})
        classify_and_write(model.stream, InputOptions(names, args.fps, args.camera), options,
                           model.mapper)
        return
    path, image_size = released.choose_model(args.model_dir, args.weights, args.image_size)
    weights = read_weights(path)
    _print_model(path, image_size, args.threshold)
    args.threshold = released.threshold_of(path, args.threshold)
    evaluate_and_report(
        folded_classifier(weights, image_size, precision=args.precision),
        load_sources(args.data_dir, args.sources, "test"), path, lambda: weights,
        args.json or os.path.join(args.model_dir, "inference_metrics.json"),
        evaluation_options(args, scales_of(args.search), search_bias(path)))


def _print_model(path, image_size, threshold):
    if distributed.rank() == 0:
        print(released.describe_model(path, image_size, threshold), file=sys.stderr)


if __name__ == "__main__":
    main()
