"""Turn folders of your own pictures, faces and anything else, into file lists.

    python preprocess_folders.py --faces my/faces --non-faces my/rooms my/dogs
    python preprocess_folders.py --faces a --non-faces b --review doubts.png
    python preprocess_folders.py --faces masked --name masked   # one more source for train.py

Sub-folders and links to folders are searched too. Writes the six lists that train.py reads, or,
with ``--name``, the lists ``NAME_faces_train.pickle``, ``NAME_others_train.pickle`` and so on.

A picture's split follows from its content, so that pictures added later leave the others in their
splits. Equal pictures are listed once. Near duplicates, such as two sizes of a photograph, share a
split; if they are in both classes, they are left out. At the end the released model looks at every
picture, and those whose class it doubts are named: move what is in the wrong folder and run again.
"""

import argparse
import collections
import os

import numpy as np

from darknet_face.classes import FACE, NON_FACE
from darknet_face.images.contact_sheets import (
    GREEN,
    RED,
    contact_sheet,
    fit,
    image_name,
    save_image,
)
from darknet_face.images.decode import BadImage, pixel_digest, read_image
from darknet_face.images.file_lists import (
    CELEBA,
    SPLITS,
    new_source_name,
    relative_to_data,
    save_list,
    source_list,
)
from darknet_face.images.find_images import Skipped
from darknet_face.images.folders import OPTIONS, add_folder_arguments, find_files
from darknet_face.images.reader import map_in_threads, read_batches
from darknet_face.negatives.checks import near_duplicate_groups, perceptual_hash
from utils import HelpFormatter, UserError, cli, number_type, printable, progress, warn

CLASSES = {FACE: "faces", NON_FACE: "non-faces"}

# The released model doubts a picture's class if it is at least this sure of the other one.
DOUBT = 0.99
MOST_TILES, TILE_SIDE = 100, 160

Labelled = collections.namedtuple("Labelled", "path label digest hash")
Labelled.__doc__ = """A picture's file, class, pixel digest and perceptual hash (bool, [256])."""

Doubt = collections.namedtuple("Doubt", "path label face_probability")
Doubt.__doc__ = """A picture whose class the released model doubts."""


def read_images(paths, label, skipped):
    """Decode pictures and take their digests; what does not decode is counted.

    Returns
    -------
    list of Labelled
        In the order of ``paths``.
    """
    pictures = []
    with progress(total=len(paths), desc="reading {}".format(CLASSES[label]),
                  unit="picture") as bar:
        for path, (digest, bits, cause) in zip(paths, map_in_threads(_measure, paths)):
            bar.update()
            if cause:
                skipped.add("{}: {}".format(path, cause), "bad picture")
            else:
                pictures.append(Labelled(path, label, digest, bits))
    return pictures


def _measure(path):
    try:
        image = read_image(path)
    except BadImage as error:
        return None, None, str(error)
    return pixel_digest(image), perceptual_hash(image), None


def group_duplicates(pictures, skipped):
    """Group near duplicates; drop equal pictures but the first, and groups of both classes.

    Returns
    -------
    list of list of Labelled
        Each of one class.
    """
    if not pictures:
        return []
    groups = collections.OrderedDict()
    numbers = near_duplicate_groups(np.array([picture.hash for picture in pictures]))
    for picture, number in zip(pictures, numbers):
        groups.setdefault(number, []).append(picture)
    kept, ambiguous = [], Skipped()
    for group in groups.values():
        if len({picture.label for picture in group}) > 1:
            for picture in group:
                ambiguous.add(picture.path, "in both classes")
            continue
        different = collections.OrderedDict()
        for picture in group:
            if different.setdefault(picture.digest, picture) is not picture:
                skipped.add(picture.path, "duplicate")
        kept.append(list(different.values()))
    if ambiguous:
        warn("the same picture, or nearly, is among the faces and the non-faces: {}; these are "
             "left out".format(ambiguous))
        skipped.update(ambiguous)
    return kept


def position(group):
    """A group's place in [0, 1): the highest that one of its content hashes gives.

    It can only grow when a picture joins the group.
    """
    return max(int(picture.digest[:13], 16) for picture in group) / 16.0 ** 13  # 52 bits


def divide(groups, val_fraction, test_fraction):
    """Divide one class over the splits by content.

    Groups at a :func:`position` below ``test_fraction`` are for testing, those below
    ``test_fraction + val_fraction`` for validation, and the rest for training. The lowest is for
    testing in any case, and the next for validation. Pictures added later can only move a group
    upwards, from testing towards training: what was trained on never becomes a test.

    Returns
    -------
    dict of str to list of str
        Paths by split, sorted; lists may be empty.
    """
    groups = sorted(groups, key=position)
    places = [position(group) for group in groups]
    tests = max(1, sum(place < test_fraction for place in places))
    vals = max(1, sum(place < test_fraction + val_fraction for place in places) - tests)
    parts = {"test": groups[:tests], "val": groups[tests:tests + vals],
             "train": groups[tests + vals:]}
    return {split: sorted(picture.path for group in part for picture in group)
            for split, part in parts.items()}


def check_splits(splits, label):
    """Raise UserError if a split of a class is empty."""
    for split, paths in splits.items():
        if not paths:
            raise UserError(
                "{}: {} different pictures leave none for the {} list; add pictures, or change "
                "--val-size and --test-size; the lists were left as they were".format(
                    CLASSES[label], sum(map(len, splits.values())), split))


def write_lists(splits, data_dir, name):
    """Write the lists of all classes and print how many pictures each has.

    Parameters
    ----------
    splits : dict of int to dict of str to list of str
        Paths by class and split.
    data_dir : str
    name : str
        The source.
    """
    # The test lists first: killed in between, no picture is both trained on and tested with.
    for split in reversed(SPLITS):
        for label in splits:
            path = os.path.join(data_dir, source_list(name, label, split))
            paths = splits[label][split]
            save_list(path, [relative_to_data(each, data_dir) for each in paths])
            print("{}: {:,} {}".format(path, len(paths), CLASSES[label]))


def released_classifier():
    """The released model, at its own input size."""
    from darknet_face.engines.engine import open_engine
    from darknet_face.weights.model_file import RELEASED, read_model

    if not os.path.exists(RELEASED):
        raise UserError("{}: no such file; get it from the repository, or skip the check of the "
                        "classes with --no-check".format(RELEASED))
    model = read_model(RELEASED)
    return open_engine(model.weights, model.image_size)


def find_doubts(classifier, paths, label):
    """The pictures of a class that the model is sure belong to the other one.

    Returns
    -------
    list of Doubt
        The surest first.
    """
    doubts = []
    with progress(total=len(paths), desc="checking {}".format(CLASSES[label]),
                  unit="picture") as bar:
        for good, images, bad in read_batches(paths, 32, classifier.image_size):
            bar.update(len(good) + len(bad))
            for path, row in zip(good, classifier(images) if good else ()):
                if row[1 - label] >= DOUBT:
                    doubts.append(Doubt(path, label, float(row[FACE])))
    return sorted(doubts, key=lambda doubt: abs(doubt.face_probability - 0.5), reverse=True)


def report_doubts(doubts, total, label):
    """Print one warning with the number of doubted pictures of a class, and three names."""
    if not doubts:
        return
    if 2 * len(doubts) > total:
        remedy = "are the folders of --faces and --non-faces swapped?"
    else:
        remedy = "move what is in the wrong folder and run again; --review draws them all"
    warn("{:,} of {:,} {} {} by the released model: {}{}; {}".format(
        len(doubts), total, CLASSES[label],
        "show no face" if label == FACE else "clearly show a face",
        ", ".join(printable(doubt.path) for doubt in doubts[:3]),
        ", ..." if len(doubts) > 3 else "", remedy))


def draw_doubts(path, doubts):
    """Draw the pictures whose class is doubted: framed green if the model sees a face."""
    tiles, captions, frames = [], [], []
    for doubt in doubts[:MOST_TILES]:
        try:
            tiles.append(fit(read_image(doubt.path), TILE_SIDE))
        except BadImage as error:  # changed since
            warn("{}: {}; not on the sheet".format(doubt.path, error))
            continue
        captions.append("face: {:.3f}\n{}\n{}".format(
            doubt.face_probability, OPTIONS[doubt.label], printable(doubt.path)))
        frames.append(RED if doubt.label == FACE else GREEN)
    if not tiles:
        print("{}: not drawn, no picture's class is doubted".format(path))
        return
    save_image(path, contact_sheet(
        tiles, captions, frames, "green: face; red: no face", tile=TILE_SIDE))
    print("{}: {:,} of {:,} pictures whose class is doubted".format(
        path, len(tiles), len(doubts)))


def check_classes(splits, review):
    """Compare the classes with what the released model sees."""
    from darknet_face.runtime.session import explain_memory_errors

    doubts = []
    with explain_memory_errors("close other programs, or skip the check with --no-check"):
        classifier = released_classifier()
        for label in splits:
            doubts += _check_class(classifier, splits[label], label)
    if review:
        draw_doubts(review, doubts)


def _check_class(classifier, splits, label):
    """Warn of the doubts about one class, and return them."""
    paths = [path for split in SPLITS for path in splits[split]]
    doubts = find_doubts(classifier, paths, label)
    report_doubts(doubts, len(paths), label)
    return doubts


def _parse():
    parser = argparse.ArgumentParser(
        description="Turn folders of your own pictures into the file lists that train.py reads.",
        formatter_class=HelpFormatter)
    add_folder_arguments(parser)
    parser.add_argument("--data-dir", default="data", help="where the file lists go")
    parser.add_argument("--name", type=new_source_name,
                        help="write the lists of a further source of this name, for train.py "
                             "--sources; one class alone will do")
    share = number_type(float, 0.001, 0.9)
    parser.add_argument("--val-size", type=share, default=0.1, metavar="SHARE",
                        help="share of the pictures for validation")
    parser.add_argument("--test-size", type=share, default=0.1, metavar="SHARE",
                        help="share of the pictures for testing")
    parser.add_argument("--no-check", action="store_true",
                        help="do not compare the classes with what the released model sees")
    parser.add_argument("--review", type=image_name, metavar="PNG",
                        help="draw the pictures whose class the released model doubts")
    args = parser.parse_args()
    if not args.faces and not args.non_faces:
        parser.error("name folders with --faces and --non-faces")
    if not args.name and not (args.faces and args.non_faces):
        parser.error("training needs both classes: add {}, or write one source's lists with --name"
                     .format("--non-faces" if args.faces else "--faces"))
    if args.val_size + args.test_size >= 1:
        parser.error("--val-size and --test-size leave nothing for training; make them smaller")
    if args.no_check and args.review:
        parser.error("--review draws what the check finds: leave out --no-check")
    return args


@cli
def main():
    args = _parse()
    folders = {label: names for label, names in ((FACE, args.faces), (NON_FACE, args.non_faces))
               if names}
    skipped = Skipped()
    files = find_files(folders, skipped, args.review)
    pictures = [picture for label, paths in files.items()
                for picture in read_images(paths, label, skipped)]
    groups = group_duplicates(pictures, skipped)
    splits = {}
    for label in folders:
        of_class = [group for group in groups if group[0].label == label]
        if not of_class:
            raise UserError("{}: no usable picture in {}; left out: {}".format(
                OPTIONS[label], ", ".join(folders[label]), skipped))
        splits[label] = divide(of_class, args.val_size, args.test_size)
        check_splits(splits[label], label)
    write_lists(splits, args.data_dir, args.name or CELEBA)
    if skipped:
        print("left out {:,}: {}".format(len(skipped), skipped))
    if not args.no_check:
        check_classes(splits, args.review)


if __name__ == "__main__":
    main()
