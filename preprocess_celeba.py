"""Turn CelebA as distributed into file lists, or build the small embedded dataset.

    python preprocess_celeba.py                        # reads data/celeba
    python preprocess_celeba.py --celeba-dir ~/celeba  # reads another folder
    python preprocess_celeba.py --sample               # 200 real images, no download

CelebA is ``img_align_celeba/000001.jpg`` to ``202599.jpg`` and ``list_eval_partition.txt``, with a
line ``name 0|1|2`` per image: train, validation, test. Kaggle's copy (nested folders, a ``.csv``)
and PNGs with the list of JPEGs work too. Other collections of faces, such as CelebA-HQ, and parts
of CelebA are for preprocess_folders.py. Every image is decoded once; those that do not decode are
reported and skipped. Writes ``celeba_train_file.pickle``, ``celeba_val_file.pickle`` and
``celeba_test_file.pickle``.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import re
from typing import Dict, Iterator, List, TextIO

from darknet_face.images.decode import BadImage, pixel_digest, read_image
from darknet_face.images.file_lists import SPLITS, save_lists
from darknet_face.images.find_images import Skipped, find_images
from darknet_face.images.reader import map_in_threads
from darknet_face.images.samples import SAMPLE_COUNTS, build_sample
from darknet_face.runtime.safe_files import open_regular
from utils import UserError, cli, number_type, printable, progress, warn

# Where copies of CelebA have their images and their partition, below its folder.
_IMAGE_FOLDERS = ("img_align_celeba", "Img/img_align_celeba", "img_align_celeba_png",
                  "Img/img_align_celeba_png")
_PARTITION_FILES = ("list_eval_partition.txt", "list_eval_partition.csv",
                    "Eval/list_eval_partition.txt")
_CSV_HEADER = ["image_id", "partition"]

# The official partition, for copies that come without the file: the last index of each split.
LAST_INDEX = (("train", 162770), ("val", 182637), ("test", 202599))

WARNINGS = 10  # of a kind; the rest are counted

OTHER_FACES = ("for other collections of faces, and for a part of CelebA: preprocess_folders.py "
               "--faces {} --non-faces DIR")

Partition = Dict[str, List[str]]  # file names or paths by split


def find_image_folder(celeba_dir: str) -> str:
    """The folder in a copy of CelebA that holds the images.

    It has one of the known names, or is inside of one: Kaggle's copy has two of one name.

    Raises
    ------
    UserError
        None of them is there, or they hold no images.
    """
    there = [path for path in (os.path.join(celeba_dir, *name.split("/"))
                               for name in _IMAGE_FOLDERS) if os.path.isdir(path)]
    if not there:
        first = next(find_images(celeba_dir), None)
        raise UserError("{}: no such folder; unpack CelebA's img_align_celeba.zip there, or name "
                        "its folder with --celeba-dir, or try --sample{}".format(
                            os.path.join(celeba_dir, _IMAGE_FOLDERS[0]), "; " + OTHER_FACES.format(
                                os.path.dirname(first)) if first else ""))
    for path in there:
        first = next(find_images(path), None)
        if first:
            return os.path.dirname(first)
    raise UserError("{}: no images in it; unpack CelebA's img_align_celeba.zip there".format(
        there[0]))


def read_partition(celeba_dir: str, folder: str) -> tuple[Partition, Skipped]:
    """Which split each CelebA image belongs to.

    Parameters
    ----------
    celeba_dir
        The folder with ``list_eval_partition.txt`` or ``.csv``; without it, the official index
        ranges decide.
    folder
        Where the images are.

    Returns
    -------
    partition
        File names, in the official order. A name that is missing is replaced by the file with the
        same stem, such as ``000001.png``.
    missing
        The names without a file.

    Raises
    ------
    UserError
        A line of the partition file that is not ``name 0|1|2``; no image of a split.
    """
    paths = itertools.takewhile(  # a folder's own files come before those of its sub-folders
        lambda path: os.path.dirname(path) == folder, find_images(folder))
    present = [os.path.basename(path) for path in paths]
    for name in _PARTITION_FILES:
        path = os.path.join(celeba_dir, *name.split("/"))
        if os.path.exists(path):
            partition, missing = _match(_parse_partition(path), present)
            rule = "as {} says".format(path)
            break
    else:
        partition, missing = _official_partition(present), Skipped()
        rule = "by the official index ranges (no list_eval_partition.txt)"
    print("{}: {:,} images, divided {}".format(folder, len(present), rule))
    for split in SPLITS:
        if not partition[split]:
            raise UserError("{}: none of its {:,} images is for the {} split {}; {}".format(
                folder, len(present), split, rule, OTHER_FACES.format(folder)))
    return partition, missing


def _match(partition: Partition, present: list[str]) -> tuple[Partition, Skipped]:
    """Replace the names in a partition by those of files; count the names without a file."""
    names = set(present)
    by_stem = {os.path.splitext(name)[0]: name for name in present}
    missing = Skipped()
    matched: Partition = {}
    for split in SPLITS:
        matched[split] = []
        for name in partition[split]:
            found = name if name in names else by_stem.get(os.path.splitext(name)[0])
            if found:
                matched[split].append(found)
            else:
                missing.add(name, "no such file")
    return matched, missing


def _parse_partition(path: str) -> Partition:
    partition: Partition = {split: [] for split in SPLITS}
    names: set[str] = set()
    try:
        with open_regular(path, "r", encoding="utf-8-sig", newline="") as stream:
            for number, fields in _rows(path, stream):
                if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
                    raise UserError("{}:{}: not a line 'name 0|1|2'; get the file again".format(
                        path, number))
                if os.path.basename(fields[0]) != fields[0] or fields[0] in names:
                    raise UserError(
                        "{}:{}: '{}' is named twice or is not a plain file name; get the file "
                        "again".format(path, number, printable(fields[0])))
                names.add(fields[0])
                partition[SPLITS[int(fields[1])]].append(fields[0])
    except (UnicodeDecodeError, csv.Error):
        raise UserError("{}: not a text file; get the file again".format(path))
    if not names:
        raise UserError("{}: empty; get the file again, or remove it to use the official "
                        "index ranges".format(path))
    return partition


def _rows(path: str, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the two fields of each line that is not empty or the CSV's header."""
    if path.endswith(".csv"):
        for number, fields in enumerate(csv.reader(stream), 1):
            fields = [field.strip() for field in fields]
            if any(fields) and not (number == 1 and fields == _CSV_HEADER):
                yield number, fields
    else:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line.strip().rsplit(None, 1)  # a name may hold blanks


def _official_partition(names: list[str]) -> Partition:
    partition: Partition = {split: [] for split in SPLITS}
    odd = 0
    for name in names:
        stem = os.path.splitext(name)[0]
        if re.match(r"[0-9]{6}\Z", stem) and 1 <= int(stem) <= LAST_INDEX[-1][1]:
            split = next(split for split, last in LAST_INDEX if int(stem) <= last)
            partition[split].append(name)
            continue
        odd += 1
        if odd <= WARNINGS:
            warn("{}: not an official CelebA name (000001.jpg to 202599.jpg); skipped".format(
                name))
    if odd > WARNINGS:
        warn("{:,} more names are not official; skipped".format(odd - WARNINGS))
    return partition


def limit_partition(partition: Partition, limit: int | None) -> Partition:
    """At most ``limit`` names, divided over the splits in proportion to their sizes.

    A split that has images keeps at least one.
    """
    total = sum(map(len, partition.values()))
    if not limit or limit >= total:
        return partition
    return {split: names[:max(1, round(limit * len(names) / total))]
            for split, names in partition.items()}


def check_images(partition: Partition, folder: str) -> tuple[Partition, Skipped, int]:
    """Decode every image; drop those that fail and, of equal images, all but one.

    Of an image that is in several splits, test keeps it before validation, and validation before
    training, so that nothing tested was trained on.

    Returns
    -------
    kept, bad, duplicates
        ``bad`` are the images that do not decode, by cause.
    """
    kept: Partition = {}
    seen: dict[str, str] = {}
    bad, duplicates = Skipped(), 0
    total = sum(map(len, partition.values()))
    with progress(total=total, desc="checking images", unit="image") as bar:
        for split in reversed(SPLITS):
            kept[split] = []
            paths = [os.path.join(folder, name) for name in partition[split]]
            for path, digest, cause in map_in_threads(_digest, paths):
                bar.update()
                if cause:
                    bad.add(path, cause)
                    _warn_at_first("{}: {}; skipped".format(path, cause), len(bad))
                elif digest in seen:
                    duplicates += 1
                    _warn_at_first("{}: same image as {}; skipped".format(path, seen[digest]),
                                   duplicates)
                else:
                    seen[digest] = path
                    kept[split].append(path)
    return kept, bad, duplicates


def _warn_at_first(message: str, number: int) -> None:
    if number <= WARNINGS:
        warn(message)
    elif number == WARNINGS + 1:
        warn("more of this kind are only counted")


def _digest(path: str) -> tuple[str, str, str]:
    try:
        return path, pixel_digest(read_image(path)), ""
    except BadImage as error:
        return path, "", str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data",
                        help="where the file lists go (default: data)")
    parser.add_argument("--celeba-dir", metavar="DIR",
                        help="folder with img_align_celeba and list_eval_partition.txt "
                             "(default: celeba in the data directory)")
    parser.add_argument("--limit", type=number_type(int, 3), metavar="N",
                        help="use about N images, in the splits' proportions (default: all)")
    parser.add_argument("--sample", action="store_true",
                        help="instead, build the embedded dataset, faces and non-faces, in the "
                             "folder sample of the data directory")
    return parser


@cli
def main() -> None:
    args = _parser().parse_args()
    if args.sample:
        sample_dir = os.path.join(args.data_dir, "sample")
        build_sample(sample_dir)
        print("{}: faces and non-faces, {} of each".format(
            sample_dir, ", ".join("{} {}".format(*item) for item in SAMPLE_COUNTS.items())))
        return
    celeba_dir = args.celeba_dir or os.path.join(args.data_dir, "celeba")
    folder = find_image_folder(celeba_dir)
    partition, missing = read_partition(celeba_dir, folder)
    if missing:
        warn("named in the partition but not in {}: {}".format(folder, missing))
    kept, bad, duplicates = check_images(limit_partition(partition, args.limit), folder)
    save_lists(kept, args.data_dir,
               remedy="raise --limit" if args.limit else "unpack img_align_celeba.zip again")
    print("{}: {}; skipped {} bad, {} duplicate".format(
        args.data_dir, ", ".join("{} {}".format(split, len(kept[split])) for split in SPLITS),
        len(bad) + len(missing), duplicates))


if __name__ == "__main__":
    main()
