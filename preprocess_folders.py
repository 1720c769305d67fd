"""Turn folders of your own images, faces and anything else, into file lists.

    python preprocess_folders.py --faces my/faces --non-faces my/rooms my/dogs
    python preprocess_folders.py --faces a --non-faces b --review doubts.png
    python preprocess_folders.py --faces masked --name masked   # one more source for train.py
    python preprocess_folders.py --split-folders root           # root/{train,val,test}/{faces,..}

Sub-folders and links to folders are searched too. Writes the six lists that train.py reads, or,
with ``--name``, the lists ``NAME_faces_train.pickle``, ``NAME_others_train.pickle`` and so on.

An image's split follows from its content, so that images added later leave the others in their
splits. Equal images are listed once. Near duplicates, such as two sizes of a photograph, share a
split; if they are in both classes, they are skipped. With ``--split-folders`` the images stay in
the splits that their folders name, and what is like a test or validation image is not trained on.
At the end the released model classifies every image, and those whose class it doubts are named:
move what is in the wrong folder and run again.
"""

from __future__ import annotations

import argparse
import collections
import os
from typing import Any, NamedTuple, Sequence

from utils import HelpFormatter, UserError, cli, number_type, printable, progress, warn

# What is missing outside the environment is said by then.
# isort: split
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
from darknet_face.images.folders import (
    OPTIONS,
    add_folder_arguments,
    find_files,
    find_split_folders,
)
from darknet_face.images.near_duplicates import near_duplicate_groups, perceptual_hash
from darknet_face.images.reader import map_in_threads, read_batches
from darknet_face.images.splits import fill_empty, split_groups

CLASSES = {FACE: "faces", NON_FACE: "non-faces"}

# The released model doubts an image's class if it is at least this sure of the other one.
DOUBT = 0.99
MOST_TILES, TILE_SIDE = 100, 160

FEW = 5  # images that differ, for validation or testing: metrics on fewer say nothing

Lists = dict  # of str to list of str: paths by split


class Labelled(NamedTuple):
    """An image's file, class, pixel digest, perceptual hash (bool, [256]) and given split."""

    path: str
    label: int
    digest: str
    hash: np.ndarray
    split: str | None = None


class Doubt(NamedTuple):
    """An image whose class the released model doubts."""

    path: str
    label: int
    face_probability: float


Groups = list  # of list of Labelled: near duplicates of one class


def read_images(paths: Sequence[str], label: int, skipped: Skipped,
                split: str | None = None) -> list[Labelled]:
    """Decode images and take their digests; what does not decode is counted."""
    images = []
    with progress(total=len(paths), desc="reading {}".format(CLASSES[label]), unit="image") as bar:
        for path, (digest, bits, cause) in zip(paths, map_in_threads(_measure, paths)):
            bar.update()
            if cause:
                skipped.add("{}: {}".format(path, cause), "bad image")
            else:
                images.append(Labelled(path, label, digest, bits, split))
    return images


def _measure(path: str) -> tuple[Any, Any, str | None]:
    try:
        image = read_image(path)
    except BadImage as error:
        return None, None, str(error)
    return pixel_digest(image), perceptual_hash(image), None


def group_duplicates(images: Sequence[Labelled], skipped: Skipped) -> Groups:
    """Group near duplicates; drop groups of both classes, and images that should not be listed.

    Those are equal images but the first. Of images with a given split, they are those that are
    like one of a later split too: what is tested with is not trained on.
    """
    if not images:
        return []
    numbers = near_duplicate_groups(np.array([image.hash for image in images]))
    groups: dict[int, list[Labelled]] = collections.OrderedDict()
    for image, number in zip(images, numbers):
        groups.setdefault(number, []).append(image)
    kept, ambiguous, leaked = [], Skipped(), Skipped()
    for group in groups.values():
        if len({image.label for image in group}) > 1:
            for image in group:
                ambiguous.add(image.path, "in both classes")
            continue
        kept.append(_listed(group, skipped, leaked))
    for found, meaning in ((ambiguous, "the same image, or nearly, is among the faces and the "
                                       "non-faces"), (leaked, "the splits share images")):
        if found:
            warn("{}: {}; these are skipped".format(meaning, found))
            skipped.update(found)
    return kept


def _listed(group: list[Labelled], skipped: Skipped, leaked: Skipped) -> list[Labelled]:
    """The different images of a group, those of its last split alone; count the others."""
    last = max((image.split for image in group if image.split), key=SPLITS.index, default=None)
    different: dict[str, Labelled] = collections.OrderedDict()
    for image in group:
        if image.split != last:
            leaked.add(image.path, "in {} but like one in {}".format(image.split, last))
        elif different.setdefault(image.digest, image) is not image:
            skipped.add(image.path, "duplicate")
    return list(different.values())


def divide(groups: Groups, val_fraction: float, test_fraction: float) -> Lists:
    """Divide one class over the splits by content; each split has a group if there are three.

    Returns
    -------
    dict of str to list of str
        Paths by split, sorted; lists may be empty.
    """
    numbered = [(number, image) for number, group in enumerate(groups) for image in group]
    digests, numbers = [image.digest for _, image in numbered], [number for number, _ in numbered]
    split_of = split_groups([0] * len(digests), digests, numbers, val_fraction, test_fraction)
    fill_empty(split_of, digests, numbers)
    return {split: sorted(image.path for number, image in numbered if split_of[number] == split)
            for split in SPLITS}


def keep_splits(groups: Groups, val_fraction: float) -> Lists:
    """Divide one class as its folders do; without validation, take it from training by content."""
    given = {split: [group for group in groups if group[0].split == split] for split in SPLITS}
    lists = {split: sorted(image.path for group in given[split] for image in group)
             for split in SPLITS}
    if not lists["val"]:
        divided = divide(given["train"], val_fraction, 1e-9)
        lists["val"], lists["train"] = divided["val"], sorted(divided["train"] + divided["test"])
    return lists


def check_splits(lists: Lists, groups: Groups, label: int) -> None:
    """Raise UserError if a split of a class is empty; warn if one has few different images."""
    total = sum(map(len, groups))
    found = "{}: {:,} different images".format(CLASSES[label], total)
    are_alike = 2 * len(groups) <= total
    if are_alike:
        found += " in only {:,} groups of near duplicates (frames of one recording?), which are " \
                 "never divided,".format(len(groups))
    helps = "add images of other scenes" if are_alike else "add images"
    for split, paths in lists.items():
        if not paths:
            raise UserError(
                "{} leave none for the {} list; {}, or {}; the lists were left as they were".format(
                    found, split, helps, "divide them yourself: see --split-folders" if are_alike
                    else "change --val-size and --test-size"))
    group_of = {image.path: number for number, group in enumerate(groups) for image in group}
    counts = {split: len({group_of[path] for path in lists[split]}) for split in ("val", "test")}
    if min(counts.values()) < FEW:
        warn("{} leave {val:,} for validation and {test:,} for testing; metrics on so few say "
             "little: {}{}".format(found, helps, "" if are_alike else
                                   ", or raise --val-size and --test-size", **counts))


def write_lists(splits: dict[int, Lists], data_dir: str, name: str) -> None:
    """Write the lists of all classes (paths by class and split) and print their lengths."""
    # The test lists first: killed in between, no image is both trained on and tested with.
    for split in reversed(SPLITS):
        for label in splits:
            path = os.path.join(data_dir, source_list(name, label, split))
            paths = splits[label][split]
            save_list(path, [relative_to_data(each, data_dir) for each in paths])
            print("{}: {:,} {}".format(path, len(paths), CLASSES[label]))


def released_classifier() -> Any:
    """The released model, at its own input size."""
    from darknet_face.engines.engine import open_engine
    from darknet_face.weights.model_file import RELEASED, read_model

    if not os.path.exists(RELEASED):
        raise UserError("{}: no such file; get it from the repository, or skip the check of the "
                        "classes with --no-check".format(RELEASED))
    model = read_model(RELEASED)
    return open_engine(model.weights, model.image_size)


def find_doubts(classifier: Any, paths: Sequence[str], label: int) -> list[Doubt]:
    """The images of a class that the model is sure belong to the other one, the surest first."""
    doubts = []
    with progress(total=len(paths), desc="checking {}".format(CLASSES[label]),
                  unit="image") as bar:
        for good, images, bad in read_batches(paths, 32, classifier.image_size):
            bar.update(len(good) + len(bad))
            for path, row in zip(good, classifier(images) if good else ()):
                if row[1 - label] >= DOUBT:
                    doubts.append(Doubt(path, label, float(row[FACE])))
    return sorted(doubts, key=lambda doubt: abs(doubt.face_probability - 0.5), reverse=True)


def report_doubts(doubts: list[Doubt], total: int, label: int) -> None:
    """Print one warning with the number of doubted images of a class, and three names."""
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


def draw_doubts(path: str, doubts: list[Doubt]) -> None:
    """Draw the images whose class is doubted: framed green if the model sees a face."""
    tiles, captions, frames = [], [], []
    for doubt in doubts[:MOST_TILES]:
        try:
            tiles.append(fit(read_image(doubt.path), TILE_SIDE))
        except BadImage as error:  # changed since
            warn("{}: {}; not drawn".format(doubt.path, error))
            continue
        captions.append("face: {:.3f}\n{}\n{}".format(
            doubt.face_probability, OPTIONS[doubt.label], printable(doubt.path)))
        frames.append(RED if doubt.label == FACE else GREEN)
    if not tiles:
        print("{}: not drawn, no image's class is doubted".format(path))
        return
    save_image(path, contact_sheet(
        tiles, captions, frames, "green: face; red: no face", tile=TILE_SIDE))
    print("{}: {:,} of {:,} images whose class is doubted".format(
        path, len(tiles), len(doubts)))


def check_classes(splits: dict[int, Lists], review: str | None) -> None:
    """Compare the classes with what the released model sees."""
    from darknet_face.runtime.session import explain_memory_errors

    doubts = []
    with explain_memory_errors("close other programs, or skip the check with --no-check"):
        classifier = released_classifier()
        for label in splits:
            doubts += _check_class(classifier, splits[label], label)
    if review:
        draw_doubts(review, doubts)


def _check_class(classifier: Any, splits: Lists, label: int) -> list[Doubt]:
    """Warn of the doubts about one class, and return them."""
    paths = [path for split in SPLITS for path in splits[split]]
    doubts = find_doubts(classifier, paths, label)
    report_doubts(doubts, len(paths), label)
    return doubts


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Turn folders of your own images into the file lists that train.py reads.",
        formatter_class=HelpFormatter)
    add_folder_arguments(parser)
    parser.add_argument("--split-folders", metavar="ROOT",
                        help="images that are divided already, ROOT/{train,val,test}/{class}; "
                             "--faces and --non-faces then name the classes' folders (default: "
                             "face and faces are faces, others are not)")
    parser.add_argument("--data-dir", default="data", help="where the file lists go")
    parser.add_argument("--name", type=new_source_name,
                        help="write the lists of a further source of this name, for train.py "
                             "--sources; one class alone will do")
    share = number_type(float, 0.001, 0.9)
    parser.add_argument("--val-size", type=share, default=0.1, metavar="SHARE",
                        help="share of the images for validation")
    parser.add_argument("--test-size", type=share, default=0.1, metavar="SHARE",
                        help="share of the images for testing")
    parser.add_argument("--no-check", action="store_true",
                        help="do not compare the classes with what the released model sees")
    parser.add_argument("--review", type=image_name, metavar="PNG",
                        help="draw the images whose class the released model doubts")
    args = parser.parse_args()
    if not args.split_folders and not args.faces and not args.non_faces:
        parser.error("name folders with --faces and --non-faces")
    if not args.split_folders and not args.name and not (args.faces and args.non_faces):
        parser.error("training needs both classes: add {}, or write one source's lists with --name"
                     .format("--non-faces" if args.faces else "--faces"))
    if args.val_size + args.test_size >= 1:
        parser.error("--val-size and --test-size leave nothing for training; make them smaller")
    if args.no_check and args.review:
        parser.error("--review draws what the check finds: leave out --no-check")
    return args


def find_labelled(args: argparse.Namespace, skipped: Skipped) -> list[Labelled]:
    """Find and read all images that the command line names."""
    if args.split_folders:
        folders = find_split_folders(args.split_folders, args.faces, args.non_faces)
    else:
        folders = {None: {label: names for label, names in (
            (FACE, args.faces), (NON_FACE, args.non_faces)) if names}}
    images = []
    for split, by_class in folders.items():
        for label, paths in find_files(by_class, skipped, args.review).items():
            found = read_images(paths, label, skipped, split)
            if not found:
                raise UserError("{}: no usable image in {}; skipped: {}".format(
                    OPTIONS[label], ", ".join(by_class[label]), skipped))
            images += found
    return images


@cli
def main() -> None:
    args = _parse()
    skipped = Skipped()
    images = find_labelled(args, skipped)
    groups = group_duplicates(images, skipped)
    splits = {}
    for label in sorted({image.label for image in images}):
        of_class = [group for group in groups if group[0].label == label]
        splits[label] = (keep_splits(of_class, args.val_size) if args.split_folders
                         else divide(of_class, args.val_size, args.test_size))
        check_splits(splits[label], of_class, label)
    write_lists(splits, args.data_dir, args.name or CELEBA)
    if skipped:
        print("skipped {:,}: {}".format(len(skipped), skipped))
    if not args.no_check:
        check_classes(splits, args.review)


if __name__ == "__main__":
    main()
