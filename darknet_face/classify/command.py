"""Classify named images: files, folders, patterns, lists, videos, a camera.

    darknet-face photo.jpg photos/                 # prints a line per image
    darknet-face photos/ --csv out.csv             # also a table; --resume continues it
    darknet-face 'photos/**/*.webp' --json - --sort-into sorted
    find / -name '*.jpg' | darknet-face -          # a list on standard input
    darknet-face film.mp4 --contact-sheet film.png --heatmap maps
    darknet-face film.mp4 --annotate answers.mp4 --fps 10
    darknet-face --camera 0
    darknet-face photos/ --only face               # prints only the faces
    darknet-face photos/ --sort-into sorted --sort-into-mode move
    if darknet-face --quiet photo.jpg; then ..     # exit code 0: a face, 1: none, 2: an error

The model is your newest one in saved_models: extracted weights, a frozen graph or the best
checkpoint; if there is none, the released one. ``--weights`` names another. The first line says
which model, input size and threshold are in use. Results are written as they are found and survive
Ctrl-C. Without ``--quiet`` the exit code is 0 if any image was classified, 1 if none was.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import os
import sys
import typing

from tqdm import tqdm

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.classify.annotated_video import MOST_PER_SECOND, video_name
from darknet_face.classify.api import load
from darknet_face.classify.find_inputs import check_names, find_inputs
from darknet_face.classify.inputs import InputImage, digest
from darknet_face.classify.options import add_model_arguments, add_search_argument
from darknet_face.classify.outputs import ONE_IMAGE_ERRORS, Output, OutputOptions, open_outputs
from darknet_face.classify.predict import Batches, Row, predict_on_all_ranks
from darknet_face.classify.tables import check_table, keep_whole_rows
from darknet_face.console import (
    HelpFormatter,
    UserError,
    cli,
    number_type,
    printable,
    progress,
    warn,
)
from darknet_face.images.contact_sheets import image_name
from darknet_face.images.decode import BadImage
from darknet_face.images.find_images import Skipped
from darknet_face.images.formats import VIDEO_EXTENSIONS
from darknet_face.images.samples import sample_images
from darknet_face.runtime import distributed
from darknet_face.runtime.session import explain_memory_errors

ONLY = {"face": CLASS_NAMES[FACE], "non-face": CLASS_NAMES[1 - FACE]}  # values of --only
MEMORY_REMEDY = "use a smaller --search, --batch-size or --image-size"
Counts = typing.Counter[str]


class InputOptions(typing.NamedTuple):
    """What to classify: names for :func:`find_inputs`, or the number of a camera."""

    names: typing.Sequence[str] = ()
    frames_per_second: float = 1.0
    camera: int | None = None


def parser() -> argparse.ArgumentParser:
    """The command line of ``darknet-face``."""
    command = argparse.ArgumentParser(
        prog="darknet-face", description="Say which images show a face.",
        formatter_class=HelpFormatter)
    add_arguments(command, "")
    return command


def add_arguments(command: argparse.ArgumentParser, without_names: str) -> None:
    """Add all options for named images. ``without_names`` says what is done without any."""
    command.add_argument("images", nargs="*", metavar="IMAGE",
                         help="image files, folders, patterns, videos, or - for a list of them on "
                              "standard input" + without_names)
    add_model_arguments(command)
    group = command.add_argument_group("for named images")
    add_search_argument(group, without_names and "; off for the test lists")
    group.add_argument("--photographs", action="store_true",
                       help="classify the photographs in the scikit-image package")
    group.add_argument("--fps", type=number_type(float, 1e-3, 1000), default=1.0,
                       help="frames to take from each second of video")
    group.add_argument("--camera", type=number_type(int, 0, 999), metavar="N",
                       help="classify the frames of this camera until Ctrl-C")
    group.add_argument("--quiet", action="store_true",
                       help="print no answers; exit with 0 if an image shows a face, 1 if none "
                            "does, 2 for an error")
    group.add_argument("--only", choices=ONLY,
                       help="print and write only faces, or only non-faces")
    group.add_argument("--csv", metavar="FILE",
                       help="write a table, - for standard output; its column face_probability "
                            "is the probability of a face, probability that of the class")
    command.add_argument("--json", metavar="FILE",
                         help="write one JSON object per image and line, - for standard output"
                         + (without_names and "; with the test lists: the metrics"))
    group.add_argument("--resume", action="store_true",
                       help="continue an interrupted run's --csv: skip the images in it")
    _add_drawing_arguments(group)
    group.add_argument("--sort-into", metavar="DIR",
                       help="put each image into DIR/face or DIR/non_face, under its path below "
                            "the folder that all named images share")
    group.add_argument("--sort-into-mode", choices=("copy", "link", "move"), default="copy",
                       help="copy files, make symbolic links, or move files")


def _add_drawing_arguments(group: argparse._ArgumentGroup) -> None:
    def add(names: list[str], default: typing.Any = None, **options: typing.Any) -> None:
        former = dict(options, dest=names[0][2:].replace("-", "_"), help=argparse.SUPPRESS)
        group.add_argument(names[0], default=default, **options)
        group.add_argument(names[1], default=argparse.SUPPRESS, **former)

    add(["--contact-sheet", "--montage"], type=image_name, metavar="PNG",
        help="draw a contact sheet: green frames for faces, red for non-faces")
    add(["--contact-sheet-images", "--montage-images"], 200, type=number_type(int, 1, 10000),
        metavar="N", help="show at most so many images on it, the first ones")
    group.add_argument("--annotate", type=video_name, metavar="VIDEO",
                       help="write the frames of a video with label, probability and box as a "
                            "video, .mp4 or .avi; --fps 10 makes it smoother")
    group.add_argument("--heatmap", metavar="DIR",
                       help="write each image with a map of where a face is seen")


def names_images(args: argparse.Namespace) -> bool:
    """Whether the command line names anything to classify."""
    return bool(args.images or args.photographs or args.camera is not None)


def check_arguments(command: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where options for named images contradict each other."""
    if args.camera is not None:
        if args.images or args.photographs:
            command.error("--camera takes no names of images")
        if distributed.size() > 1:
            command.error("--camera works with one process only")
        args.batch_size = 1  # show the answer for a frame before the next frame comes
    if args.resume and (args.only or args.quiet):
        command.error("--resume needs all rows and answers: leave out --only and --quiet")
    if args.annotate and (args.photographs or len(args.images) != 1
                          or not args.images[0].lower().endswith(VIDEO_EXTENSIONS)):
        command.error("--annotate takes one video: name it")
    if args.annotate and args.fps > MOST_PER_SECOND:
        command.error("--annotate writes at most {} frames per second: lower --fps".format(
            MOST_PER_SECOND))
    if args.annotate and (args.only or args.resume):
        command.error("--annotate shows all frames: leave out --only and --resume")
    if args.quiet and distributed.size() > 1:
        command.error("--quiet works with one process only")
    if args.resume and args.csv in (None, "-"):
        command.error("--resume continues a --csv FILE: name it")
    _check_outputs(command, args)


def _check_outputs(command: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Check that no file is written twice and that no image is replaced."""
    files = [os.path.realpath(path)
             for path in (args.csv, args.json, args.contact_sheet, args.annotate) if path]
    if len(set(files)) < len(files):
        command.error("--csv, --json, --contact-sheet and --annotate need different files")
    if set(files) & {os.path.realpath(name) for name in args.images if name != "-"}:
        command.error("a file that --csv, --json, --contact-sheet or --annotate would write is "
                      "among the images")
    for option, folder in (("--heatmap", args.heatmap), ("--sort-into", args.sort_into)):
        if folder and os.path.lexists(folder) and not os.path.isdir(folder):
            command.error("{} {}: not a folder; name another".format(option, folder))


def run(args: argparse.Namespace) -> None:
    """Classify what the options of :func:`add_arguments` name, and write the results."""
    if args.images and not args.photographs and distributed.rank() == 0:
        check_names(args.images, [each for each in (args.sort_into, args.heatmap) if each])
    model = load(args.weights, args.search, args.threshold, args.precision,
                 args.image_size, args.batch_size, args.model_dir, engine=args.engine)
    if not args.quiet:
        print_model(model.description)
    names = args.images + (sample_images() if args.photographs else [])
    options = OutputOptions(**{name: getattr(args, name) for name in OutputOptions._fields})
    options = options._replace(only=ONLY.get(args.only))
    counts = classify_and_write(model.stream, InputOptions(names, args.fps, args.camera), options,
                                model.mapper)
    if args.quiet and not counts[CLASS_NAMES[FACE]]:
        sys.exit(2 if counts["bad"] or counts["not written"] else 1)


def print_model(description: str) -> None:
    """Say on stderr which model is in use."""
    if distributed.rank() == 0:
        print(description, file=sys.stderr)


def classify_and_write(predict: typing.Callable[[typing.Iterable[InputImage]], Batches],
                       inputs: InputOptions, options: OutputOptions,
                       make_mapper: typing.Callable[[], typing.Any]) -> Counts:
    """Classify the named images and write the results. Only rank 0 finds and writes.

    Parameters
    ----------
    predict
        See :mod:`darknet_face.classify.predict`.
    make_mapper
        Returns the FaceMapper for heat maps.

    Returns
    -------
    Counter of str to int
        Images by class, and those that are "bad", "not written" or "done before".

    Raises
    ------
    UserError
        If no image could be classified.
    """
    counts: Counts = collections.Counter()
    if distributed.size() > 1:
        predict = functools.partial(predict_on_all_ranks, predict)
    if distributed.rank():
        collections.deque(predict(()), maxlen=0)
        return counts
    done = _prepare_tables(options)
    skipped = Skipped()
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress(
            total=_count(inputs, options), desc="classifying", unit="image", leave=False))
        if not options.quiet:
            stack.callback(_summarise, counts, skipped)
        outputs = open_outputs(options, make_mapper)
        for output in outputs:  # on Ctrl-C too: the contact sheet then shows what was classified
            stack.callback(output.close)
        images = _not_done(_find(inputs, options, skipped.add), done, counts, bar)
        with contextlib.suppress(*([] if inputs.camera is None else [KeyboardInterrupt])):
            for results, bad in predict(images):
                _write(results, bad, outputs, counts, options.only)
                bar.update(len(results) + len(bad))
                if options.quiet and not outputs and counts[CLASS_NAMES[FACE]]:
                    break  # the exit code is known
    if not sum(counts[name] for name in CLASS_NAMES) and not counts["done before"]:
        raise UserError("no image could be classified", exit_code=2 if options.quiet else 1)
    return counts


def _prepare_tables(options: OutputOptions) -> set[int]:
    """Check the tables that would be replaced; return the digests of the files that are done."""
    for path, kind in ((options.csv, "csv"), (options.json, "json")):
        if path and path != "-":
            check_table(path, kind)
    done = keep_whole_rows(options.csv, "csv") if options.csv and options.resume else set()
    if options.resume and options.json and options.json != "-":
        keep_whole_rows(options.json, "json", done)
    return done


def _find(inputs: InputOptions, options: OutputOptions,
          report: typing.Callable[[str, str], None] | None = None
          ) -> typing.Iterator[InputImage]:
    if inputs.camera is not None:
        from darknet_face.classify.videos import camera_frames  # needs OpenCV

        return camera_frames(inputs.camera)
    written = [options.sort_into, options.heatmap, options.contact_sheet]
    exclude = {os.path.realpath(path) for path in written if path}
    return find_inputs(inputs.names, inputs.frames_per_second, exclude, report)


def _not_done(images: typing.Iterable[InputImage], done: set[int], counts: Counts,
              bar: tqdm) -> typing.Iterator[InputImage]:
    """The images that an interrupted run has not classified."""
    for image in images:
        if digest(image.name) in done:
            counts["done before"] += 1
            bar.update()
        else:
            yield image


def _write(results: list[tuple[InputImage, Row]], bad: list[tuple[InputImage, str]],
           outputs: list[Output], counts: Counts, only: str | None) -> None:
    for image, cause in bad:
        counts["bad"] += 1
        warn("{}: {}; skipped".format(printable(image.name), cause))
    for image, row in results:
        try:
            for output in outputs if only in (None, row["class"]) else ():
                output.write(image, row)
            counts[row["class"]] += 1
        except BadImage as error:  # the file changed between two readings
            counts["bad"] += 1
            warn("{}: {}; skipped".format(printable(image.name), error))
        except OSError as error:
            if error.errno not in ONE_IMAGE_ERRORS:
                raise
            counts["not written"] += 1
            warn("{}: {}: {}; skipped".format(
                printable(image.name), error.filename or "results", error.strerror))
    for output in outputs:
        output.flush()


def _count(inputs: InputOptions, options: OutputOptions) -> int | None:
    """The number of images for the progress bar, or None if it is costly or not needed."""
    if (not sys.stderr.isatty() or inputs.camera is not None or not inputs.names
            or not all(map(os.path.isdir, inputs.names))):
        return None
    return sum(1 for _ in _find(inputs, options))


def _summarise(counts: Counts, skipped: Skipped) -> None:
    """Print the counts to stderr, and what was skipped."""
    total = sum(counts[name] for name in CLASS_NAMES)
    parts = ["{:,} {}".format(counts[name], name) for name in CLASS_NAMES]
    for name, what in (("bad", "could not be read"), ("not written", "could not be written"),
                       ("done before", "were done before")):
        if counts[name]:
            parts.append("{:,} {}".format(counts[name], what))
    tqdm.write("classified {:,} image{}: {}".format(
        total, "" if total == 1 else "s", ", ".join(parts)), file=sys.stderr)
    if skipped:
        tqdm.write("skipped: {}".format(skipped), file=sys.stderr)


@cli
@distributed.job
@explain_memory_errors(MEMORY_REMEDY)
def main() -> None:
    """The console command: exits with 2 for bad input, as every program here."""
    command = parser()
    args = command.parse_args()
    if not names_images(args):
        command.error("name images, folders or videos, such as: darknet-face photo.jpg photos/")
    check_arguments(command, args)
    run(args)


if __name__ == "__main__":
    main()
