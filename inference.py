"""Classify pictures, or the test lists, with a fresh graph built from extracted weights.

    python inference.py                            # the test lists, the same figures as test.py
    python inference.py photo.jpg pictures/        # a line for each picture
    python inference.py pictures/ --csv out.csv    # and a table; --resume goes on with it
    python inference.py 'pictures/**/*.webp' --json - --sort-into sorted
    find / -name '*.jpg' | python inference.py -   # a list on standard input
    python inference.py film.mp4 --montage film.png --heatmap maps
    python inference.py --camera 0
    mpirun -np 2 python inference.py pictures/ --csv out.csv   # shared out, the same table

Without weights of your own (extract_weights.py makes them) the released model is used. Results come
as they are found; Ctrl-C keeps them. Exit code 0 if any picture was classified, 1 if none.
"""

import argparse
import collections
import contextlib
import csv
import filecmp
import itertools
import json
import os
import shutil
import sys

from tqdm import tqdm

from classify.finding import Picture, camera, check_names, digest, find_pictures, photographs
from darknet19 import STRIDE
from evaluation import heatmaps
from evaluation.report import add_evaluation_arguments, evaluate_and_report
from model import released
from model.classifier import folded_classifier
from model.npz import read_npz
from pictures.classes import CLASS_NAMES, FACE
from pictures.decode import BadImage
from pictures.lists import add_data_arguments, load_split
from pictures.reader import LARGEST_BATCH, LARGEST_SIZE, read_batches
from pictures.sheets import GREEN, RED, contact_sheet, fit, picture_name, save_picture
from runtime import distributed
from utils import (
    HelpFormatter,
    UserError,
    cli,
    number_type,
    printable,
    progress,
    temporary_path,
    warn,
    write_atomically,
)

COLUMNS = ("file", "class", "probability", "face_probability")
BATCHES_AT_ONCE = 4  # that each of several ranks takes before they put their answers together
TILE = 160  # height and width of a picture in the montage, in pixels


class Lines:
    """Writes an aligned line for each picture to the terminal."""

    def write(self, _, row):
        tqdm.write("{:<8}  {:.4f}  {}".format(
            row["class"], row["probability"], printable(row["file"])), file=sys.stdout)

    def flush(self):
        sys.stdout.flush()


class Table:
    """Writes the results to a CSV, or as JSON, one object a line, while they come.

    Unlike other files here it takes its name from the start and grows there: what was classified
    before a Ctrl-C or a loss of power is to be kept. What a line cut off in the middle leaves is
    dropped by :func:`keep_whole_rows` when the work is resumed.

    Parameters
    ----------
    path : str
        ``-`` for standard output.
    kind : {"csv", "json"}
    append : bool
        Add to a file that is there.
    """

    def __init__(self, path, kind, append=False):
        self.kind = kind
        if path == "-":
            self.stream = sys.stdout
            self.stream.reconfigure(encoding="utf-8", errors="surrogateescape")
        else:
            self.stream = _open(path, "a" if append else "w")
        self.csv = csv.DictWriter(self.stream, COLUMNS, lineterminator="\n")
        if kind == "csv" and not (append and os.path.getsize(path)):
            self.csv.writeheader()

    def write(self, _, row):
        if self.kind == "csv":
            self.csv.writerow(row)
        else:
            self.stream.write(json.dumps(row) + "\n")

    def flush(self):
        self.stream.flush()

    def close(self):
        if self.stream is not sys.stdout:
            self.stream.close()


def _open(path, mode):
    """Open a table; bytes in file names that are not UTF-8 go through as they are."""
    if mode != "r":
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    return open(path, mode, newline="", encoding="utf-8", errors="surrogateescape")


class Montage:
    """Collects the first pictures for a contact sheet, framed green (FACE) and red (NON_FACE)."""

    def __init__(self, path, most):
        self.path, self.most = path, most
        self.tiles, self.rows = [], []
        self.total = 0

    def write(self, picture, row):
        self.total += 1
        if len(self.tiles) < self.most:
            self.tiles.append(fit(picture.read(), TILE))
            self.rows.append(row)

    def close(self):
        if self.tiles:
            shown = "" if self.total == len(self.tiles) else ": the first {:,} of {:,}".format(
                len(self.tiles), self.total)
            columns = min(8, max(2, round(len(self.tiles) ** 0.5 * 1.3)))
            frames = [GREEN if row["class"] == CLASS_NAMES[FACE] else RED for row in self.rows]
            save_picture(self.path, contact_sheet(
                self.tiles, list(self._captions()), frames,
                "green: called a face, red: not a face" + shown, columns, TILE))

    def _captions(self):
        names = collections.Counter(os.path.basename(row["file"]) for row in self.rows)
        for row in self.rows:
            name = os.path.basename(row["file"])
            yield "{class} {probability:.3f}\n".format(**row) + printable(
                name if names[name] == 1 else row["file"])  # whose end says which it is


class Sorter:
    """Copies or links pictures into ``face/`` and ``non_face/``."""

    def __init__(self, folder, mode):
        self.folder, self.mode = folder, mode

    def write(self, picture, row):
        path = os.path.join(self.folder, row["class"].lower(), picture.place)
        if picture.content is not None:
            save_picture(path, picture.content)
            return
        stem, extension = os.path.splitext(path)
        number = 1
        while os.path.lexists(path) and not self._is_same(path, picture):
            number += 1
            path = "{}-{}{}".format(stem, number, extension)
        if not os.path.lexists(path):
            self._put(os.path.abspath(picture.name), path)

    def _put(self, source, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if self.mode == "link":
            os.symlink(source, path)
            return
        with temporary_path(path) as temporary:
            shutil.copyfile(source, temporary)
        shutil.copystat(source, path)

    def _is_same(self, path, picture):
        """Whether an earlier run has put the picture there."""
        return os.path.isfile(path) and (os.path.samefile(path, picture.name) or (
            not os.path.islink(path) and filecmp.cmp(path, picture.name, shallow=False)))


class HeatMaps:
    """Writes each picture with the map of where a face was seen, at the picture's own size."""

    def __init__(self, folder, mapper):
        self.folder, self.mapper = folder, mapper

    def write(self, picture, _):
        image = picture.read()
        path = os.path.join(self.folder, picture.place)
        if not path.lower().endswith((".jpg", ".jpeg", ".png")):
            path += ".png"
        if os.path.exists(path) and os.path.exists(picture.name) and os.path.samefile(
                path, picture.name):
            raise UserError("{}: its map would take its place; give --heatmap another folder"
                            .format(picture.name))
        save_picture(path, heatmaps.overlay(image, self.mapper(image)))


def classify(classifier, pictures, batch_size, threshold=0.5):
    """Classify pictures as they come.

    Parameters
    ----------
    classifier : frozen.Classifier
    pictures : iterable of sources.Picture
        Read as far ahead as a few batches.
    batch_size : int
    threshold : float
        The probability of FACE from which on a picture is called one.

    Yields
    ------
    results : list of (sources.Picture, dict)
        A batch's pictures with ``file``, ``class``, ``probability`` (of that class) and
        ``face_probability``.
    bad : list of (sources.Picture, str)
        The batch's pictures that did not decode, each with the cause.
    """
    for good, images, bad in read_batches(
            pictures, batch_size, classifier.image_size, read=Picture.read):
        results = []
        for picture, probabilities in zip(good, classifier(images) if good else ()):
            index = FACE if float(probabilities[FACE]) >= threshold else 1 - FACE
            results.append((picture, {
                "file": picture.name, "class": CLASS_NAMES[index],
                "probability": float(probabilities[index]),
                "face_probability": float(probabilities[FACE])}))
        yield results, bad


def classify_together(classifier, pictures, batch_size, threshold=0.5):
    """Classify pictures by all ranks: rank 0 deals them out, round by round, and gets the answers.

    Parameters are those of :func:`classify`; ``pictures`` counts on rank 0 only, so that each is
    taken once, whatever the other ranks' folders hold meanwhile.

    Yields
    ------
    results, bad
        As :func:`classify`, in the order of ``pictures``; on the other ranks nothing.
    """
    hand = batch_size * BATCHES_AT_ONCE
    pictures = iter(pictures if distributed.rank() == 0 else ())
    while True:
        hands = distributed.from_first(
            [list(itertools.islice(pictures, hand)) for _ in range(distributed.size())])
        if not hands[0]:
            return
        mine = list(classify(classifier, hands[distributed.rank()], batch_size, threshold))
        for results in distributed.gather(mine):
            if distributed.rank() == 0:
                yield from results


def keep_whole_rows(path, kind, only=None):
    """Prepare a table for more rows: what is damaged at its end is removed.

    Parameters
    ----------
    path : str
        Written anew, atomically, if it is there.
    kind : {"csv", "json"}
    only : set of int, optional
        Keep only rows whose file is among these digests.

    Returns
    -------
    set of int
        The digests of the files that it names.

    Raises
    ------
    UserError
        If it is not a table that this script wrote.
    """
    if not os.path.exists(path):
        return set()
    kept = set()
    with _open(path, "r") as source, write_atomically(
            path, "w", newline="", encoding="utf-8", errors="surrogateescape") as target:
        writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
        if kind == "csv":
            writer.writeheader()
        for row in _whole_rows(path, source, kind):
            if only is None or digest(row["file"]) in only:
                kept.add(digest(row["file"]))
                if kind == "csv":
                    writer.writerow(row)
                else:
                    target.write(json.dumps(row) + "\n")
    return kept


def check_table(path, kind):
    """Make sure that a file about to be written over is one of these tables, or torn off one.

    Raises
    ------
    UserError
        If it is something else: a slip such as ``--csv *.jpg`` must not cost a photograph.
    """
    if not os.path.isfile(path):
        return
    start = ",".join(COLUMNS) if kind == "csv" else '{"file": '
    with _open(path, "r") as stream:
        found = stream.read(len(start)).rstrip("\0")
    if not start.startswith(found):
        raise UserError("{}: not a table of this script; name another file".format(path))


def _whole_rows(path, source, kind):
    """The rows of a table up to its end or to where it was cut off."""
    lines = iter(_whole_lines(source))
    try:
        if kind == "csv":
            lines = csv.reader(lines)
            if next(lines, list(COLUMNS)) != list(COLUMNS):
                raise UserError("{}: not a table of this script; name another file".format(path))
        for line in lines:
            row = _parse(line, kind)
            # A name with a line break in it can be cut off where it breaks.
            if row is None and kind == "csv" and next(lines, None) is None:
                return
            if row is None:
                raise UserError("{}: damaged, or not a table of this script; name another file"
                                .format(path))
            yield row
    except csv.Error as error:
        raise UserError("{}: damaged ({}); name another file".format(path, error))


def _whole_lines(source):
    """Lines up to one that has no end, or holds the zeros that a loss of power leaves."""
    for line in source:
        if not line.endswith("\n") or "\0" in line:
            return
        yield line


def _parse(line, kind):
    """A row as a dict, or None if it is not whole."""
    try:
        if kind == "json":
            row = json.loads(line)
            return row if isinstance(row, dict) and set(row) == set(COLUMNS) else None
        row = dict(zip(COLUMNS, line))
        return row if len(line) == 4 and 0 <= float(row["face_probability"]) <= 1 else None
    except (ValueError, TypeError):
        return None


def classify_and_write(classifier, weights, args):
    """Classify what the command line names, and write what its options ask for."""
    run = classify if distributed.size() == 1 else classify_together
    if distributed.rank():
        collections.deque(run(classifier, (), args.batch_size, args.threshold), maxlen=0)
        return
    done = _prepare_tables(args)
    counts = collections.Counter()

    def new_pictures():
        for picture in _pictures(args):
            if digest(picture.name) in done:
                counts["done before"] += 1
                bar.update()
            else:
                yield picture

    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(progress(
            total=_count(args), desc="classifying", unit="image", leave=False))
        stack.callback(_summarise, counts)
        writers = _writers(args, weights, classifier.image_size)
        for writer in writers:  # on Ctrl-C too: the montage then shows what there is
            stack.callback(getattr(writer, "close", lambda: None))
        with contextlib.suppress(*([KeyboardInterrupt] if args.camera is not None else [])):
            for results, bad in run(classifier, new_pictures(), args.batch_size, args.threshold):
                _write(results, bad, writers, counts)
                bar.update(len(results) + len(bad))
    if not sum(counts[name] for name in CLASS_NAMES) and not counts["done before"]:
        raise UserError("no picture could be classified", exit_code=1)


def _prepare_tables(args):
    """Check what the tables would write over; the digests of the files that are done."""
    for path, kind in ((args.csv, "csv"), (args.json, "json")):
        if path and path != "-":
            check_table(path, kind)
    done = keep_whole_rows(args.csv, "csv") if args.resume else set()
    if args.resume and args.json and args.json != "-":
        keep_whole_rows(args.json, "json", done)
    return done


def _write(results, bad, writers, counts):
    for picture, cause in bad:
        counts["bad"] += 1
        warn("{}: {}; skipped".format(printable(picture.name), cause))
    for picture, row in results:
        try:
            for writer in writers:
                writer.write(picture, row)
            counts[row["class"]] += 1
        except BadImage as error:  # gone between two readings
            counts["bad"] += 1
            warn("{}: {}; skipped".format(printable(picture.name), error))
    for writer in writers:
        getattr(writer, "flush", lambda: None)()


def _pictures(args):
    if args.camera is not None:
        return camera(args.camera)
    outputs = [args.sort_into, args.heatmap, args.montage]
    exclude = {os.path.realpath(path) for path in outputs if path}
    return find_pictures(_names(args), args.fps, exclude, lambda error: warn(
        "{}: {}; skipped".format(error.filename, error.strerror)))


def _names(args):
    return args.images + (photographs() if args.photographs else [])


def _count(args):
    """How many pictures there are, if a progress bar is to be shown and it is cheap to tell."""
    names = _names(args)
    if not sys.stderr.isatty() or not all(map(os.path.isdir, names)) or not names:
        return None
    return sum(1 for _ in _pictures(args))


def _writers(args, weights, image_size):
    """The outputs asked for. The CSV comes last: what it names has all its other outputs."""
    writers = []
    if args.sort_into:
        writers.append(Sorter(args.sort_into, args.sort_into_mode))
    if args.heatmap:
        writers.append(HeatMaps(args.heatmap, heatmaps.FaceMapper(weights, image_size)))
    if args.montage:
        writers.append(Montage(args.montage, args.montage_images))
    if "-" not in (args.csv, args.json):
        writers.append(Lines())
    if args.json:
        writers.append(Table(args.json, "json", args.resume))
    if args.csv:
        writers.append(Table(args.csv, "csv", args.resume))
    return writers


def _summarise(counts):
    """One line on stderr with what was found."""
    total = sum(counts[name] for name in CLASS_NAMES)
    parts = ["{:,} {}".format(counts[name], name) for name in CLASS_NAMES]
    if counts["bad"]:
        parts.append("{:,} could not be read".format(counts["bad"]))
    if counts["done before"]:
        parts.append("{:,} were done before".format(counts["done before"]))
    tqdm.write("classified {:,} picture{}: {}".format(
        total, "" if total == 1 else "s", ", ".join(parts)), file=sys.stderr)


def _parser():
    parser = argparse.ArgumentParser(
        description="Classify pictures, or measure on the test lists, with a fresh graph built "
                    "from extracted weights.",
        formatter_class=HelpFormatter)
    parser.add_argument("images", nargs="*", metavar="IMAGE",
                        help="picture files, folders, patterns, videos, or - for a list of them on "
                             "standard input (default: the test lists)")
    add_data_arguments(parser)
    parser.add_argument("--model-dir", default="saved_models", help="folder with the weights")
    parser.add_argument("--weights", metavar="NPZ",
                        help="the weights (default: darknet19_weights.npz in the model directory, "
                             "else the released model)")
    parser.add_argument("--image-size", type=number_type(int, STRIDE, LARGEST_SIZE),
                        help="height and width that pictures are stretched to, a multiple of 32 "
                             "(default: that of the training)")
    parser.add_argument("--batch-size", type=number_type(int, 1, LARGEST_BATCH), default=16,
                        help="images classified at a time")
    parser.add_argument("--json", metavar="FILE",
                        help="with pictures: write one JSON object a line here, - for standard "
                             "output; with the test lists: where the figures go (default: "
                             "inference_metrics.json in the model directory)")
    add_evaluation_arguments(parser)
    group = parser.add_argument_group("for named pictures")
    group.add_argument("--csv", metavar="FILE", help="write a table here, - for standard output")
    group.add_argument("--resume", action="store_true",
                       help="go on with an interrupted run's --csv: skip what it has")
    group.add_argument("--montage", type=picture_name, metavar="PNG",
                       help="draw a contact sheet, faces framed green and others red")
    group.add_argument("--montage-images", type=number_type(int, 1, 10000), default=200,
                       metavar="N",
                       help="the first so many pictures go on it")
    group.add_argument("--heatmap", metavar="DIR",
                       help="write each picture with a map of where a face is seen")
    group.add_argument("--sort-into", metavar="DIR",
                       help="put each picture into face/ or non_face/ there")
    group.add_argument("--sort-into-mode", choices=("copy", "link"), default="copy",
                       help="copy files or make symbolic links")
    group.add_argument("--fps", type=number_type(float, 1e-3), default=1.0,
                       help="frames to take from a second of video")
    group.add_argument("--camera", type=number_type(int, 0, 999), metavar="N",
                       help="classify what this camera sees, until Ctrl-C")
    group.add_argument("--photographs", action="store_true",
                       help="classify photographs that the scikit-image package carries")
    return parser


def _parse_arguments():
    parser = _parser()
    args = parser.parse_args()
    if args.image_size and args.image_size % STRIDE:
        parser.error("--image-size is a multiple of {}".format(STRIDE))
    args.named = bool(args.images or args.photographs or args.camera is not None)
    for_lists = [args.report, args.robustness or None, args.at_fpr]
    for_named = [args.csv, args.resume or None, args.montage, args.heatmap, args.sort_into]
    if args.named and any(each is not None for each in for_lists):
        parser.error("--report, --robustness and --at-fpr need the test lists' labels: name no "
                     "pictures with them")
    if not args.named and any(each is not None for each in for_named):
        parser.error("--csv, --resume, --montage, --heatmap and --sort-into are for named pictures:"
                     " name some")
    if args.camera is not None:
        if args.images or args.photographs:
            parser.error("--camera takes no names of pictures")
        if distributed.size() > 1:
            parser.error("--camera is for one process")
        args.batch_size = 1  # a frame's answer is not to wait for later frames
    if args.resume and args.csv in (None, "-"):
        parser.error("--resume goes on with a --csv FILE: name it")
    if not args.named and args.json == "-":
        parser.error("--json - is for named pictures; the test lists' figures go into a file")
    _check_outputs(parser, args)
    return args


def _check_outputs(parser, args):
    """No file is written twice, and none of the pictures is written over."""
    outputs = [os.path.realpath(path) for path in (args.csv, args.json, args.montage) if path]
    if len(set(outputs)) < len(outputs):
        parser.error("--csv, --json and --montage can't go to one place")
    if set(outputs) & {os.path.realpath(name) for name in args.images if name != "-"}:
        parser.error("a file that --csv, --json or --montage would write is among the pictures")


@cli
@distributed.job
def main():
    args = _parse_arguments()
    if args.images and not args.photographs and distributed.rank() == 0:
        check_names(args.images)
    path, image_size = released.choose_model(args.model_dir, args.weights, args.image_size)
    weights = read_npz(path)
    classifier = folded_classifier(weights, image_size, precision=args.precision)
    if distributed.rank() == 0:
        print("model: {0}{1}, input {2} x {2}".format(
            path, " (the released one)" if path == released.RELEASED else "", image_size),
            file=sys.stderr)
    if args.named:
        classify_and_write(classifier, weights, args)
        return
    evaluate_and_report(
        classifier, load_split(args.data_dir, "test"), args, path, lambda: weights,
        args.json or os.path.join(args.model_dir, "inference_metrics.json"))


if __name__ == "__main__":
    main()
