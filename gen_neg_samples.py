"""Collect negatives (images without faces) and write their file lists.

From the web, by default 500 images for each of 12 queries from Wikimedia Commons::

    python gen_neg_samples.py --contact you@example.org

From a folder of your own images, one sub-folder per category::

    python gen_neg_samples.py --from-dir my_images

Both write three lists to the data directory: ``neg_samples.pickle`` for training,
``neg_samples_val.pickle`` and ``neg_samples_test.pickle``. The split of an image follows from its
content, so images that are added later never move one from training to test. Of near duplicates
one is kept. Images from the web go to ``neg_samples/`` in the data directory (see
darknet_face/negatives/store.py). A run can be killed at any moment; the same command continues it.
"""

import argparse
import collections
import contextlib
import os

from utils import HelpFormatter, UserError, cli, number_type, printable, warn

# What is missing outside the environment is said by then.
# isort: split
import numpy as np

from darknet_face.images.file_lists import LISTS, relative_to_data, save_list
from darknet_face.images.near_duplicates import near_duplicate_groups
from darknet_face.images.splits import position, split_groups
from darknet_face.negatives.checks import STORED_SIDE
from darknet_face.negatives.client import Patience, PoliteClient
from darknet_face.negatives.collector import Collector
from darknet_face.negatives.folder import read_folder
from darknet_face.negatives.reports import (
    Rejection,
    count_causes,
    write_attribution,
    write_rejections,
    write_sheet,
)
from darknet_face.negatives.services import allowed_networks, web_source
from darknet_face.negatives.store import NegativeStore

QUERIES = ("dog", "car", "food", "buildings", "mountains", "cat", "animal", "laptop", "planets",
           "sun", "water", "sky")

PATIENCE = Patience()

SplitSizes = collections.namedtuple("SplitSizes", "val test")
SplitSizes.__doc__ = """Sizes of validation and test: below 1 a fraction, else a number of images.
"""


def divide(samples, val_fraction, test_fraction):
    """Keep one image of each group of duplicates and near duplicates, and split these.

    The image with the highest position is kept; its split is that of
    :func:`darknet_face.images.splits.split_groups`.

    Parameters
    ----------
    samples : list of NegativeSample
    val_fraction, test_fraction : float
        Above 0, their sum below 1.

    Returns
    -------
    splits : dict of str to list of NegativeSample
        Keys "train", "val" and "test"; the images in their given order.
    rejections : list of Rejection
    """
    groups = near_duplicate_groups(np.array([sample.hash for sample in samples]))
    split_of = split_groups([sample.category for sample in samples],
                            [sample.digest for sample in samples], groups,
                            val_fraction, test_fraction)
    best = {}
    for sample, group in zip(samples, groups):
        if group not in best or position(sample.digest) > position(best[group].digest):
            best[group] = sample
    splits, rejections, first_with = {name: [] for name in LISTS}, [], {}
    for sample, group in zip(samples, groups):
        first = first_with.setdefault(sample.digest, sample)
        if sample is best[group]:
            splits[split_of[group]].append(sample)
        elif sample is not first:
            rejections.append(Rejection(sample.path, sample.category, "duplicate",
                                        "same as " + first.path))
        else:
            rejections.append(Rejection(sample.path, sample.category, "near duplicate",
                                        "like " + best[group].path))
    return splits, rejections


def as_fraction(size, count, option):
    """A split's size as a fraction of ``count`` images; from 1 up it is a number of images."""
    if size < 1:
        return size
    if size >= count:
        raise UserError("{} {:g}: there are only {} different images; ask for fewer".format(
            option, size, count))
    return size / count


def write_splits(samples, data_dir, sizes):
    """Drop duplicates and near duplicates, split the rest and write the three lists.

    Parameters
    ----------
    samples : list of NegativeSample
    data_dir : str
    sizes : SplitSizes

    Returns
    -------
    list of Rejection
        The duplicates.

    Raises
    ------
    UserError
        A split would be empty. Then nothing is written.
    """
    different = len({sample.digest for sample in samples})
    val_fraction = as_fraction(sizes.val, different, "--val-size")
    test_fraction = as_fraction(sizes.test, different, "--test-size")
    if val_fraction + test_fraction >= 1:
        raise UserError("--val-size and --test-size leave nothing for training; make them smaller")
    splits, rejections = divide(samples, val_fraction, test_fraction)
    check_splits(splits, different)
    # The test list first: after a kill in between, no image is in training and test.
    for split, members in reversed(list(splits.items())):
        path = os.path.join(data_dir, LISTS[split][1])
        save_list(path, [relative_to_data(member.path, data_dir) for member in members])
        print("{}: {} images".format(printable(path), len(members)))
    return rejections


def check_splits(splits, different):
    """Check that no split is empty, and warn of categories that a split lacks.

    Parameters
    ----------
    splits : dict of str to list of NegativeSample
    different : int
        How many different images there were, near duplicates included.

    Raises
    ------
    UserError
        With what was found, and what helps.
    """
    kept = sum(map(len, splits.values()))
    categories = {name: {member.category for member in members}
                  for name, members in splits.items()}
    every = set.union(*categories.values())
    for name, members in splits.items():
        if not members:
            raise UserError(
                "{} different images in {} categories leave none for the {} list{}; add images, at "
                "least 3 per category{}".format(
                    different, len(every), name,
                    ": {} without near duplicates (frames of one recording?)".format(kept)
                    if kept < different else "",
                    ", of other scenes" if 2 * kept < different
                    else ", or change --val-size and --test-size"))
    missing = sorted(every - set.intersection(*categories.values()))
    if missing:
        warn("{} categories are missing from some list, {} first; each needs at least 3 different "
             "images".format(len(missing), missing[0] or "."))


def collect_from_web(collector, store, queries, wanted, data_dir, sizes):
    """Collect images into a store and write the lists of all that it holds.

    Parameters
    ----------
    collector : Collector
    store : NegativeStore
    queries : list of str
    wanted : int or None
        Images per query.
    data_dir : str
    sizes : SplitSizes

    Raises
    ------
    UserError
        With exit code 1 if no image was kept.
    """
    attribution, report = (
        os.path.join(store.folder, name) for name in ("ATTRIBUTION.csv", "report.csv"))
    try:
        for query in queries:
            collector.collect(query)
            write_attribution(attribution, store.inventory().attribution())
            report_query(query, store, collector.notes.get(query, ""), wanted)
    finally:
        collector.close()
        write_attribution(attribution, store.inventory().attribution())
        write_rejections(report, store.inventory().rejections())
    store.clear_incoming()
    samples, rejections = store.inventory().samples(), store.inventory().rejections()
    if not samples:
        causes = ["{} {}".format(count, cause) for cause, count in count_causes(rejections)]
        raise UserError("no image was kept ({}); see {} and run again later".format(
            "; ".join(causes + sorted(set(collector.notes.values()))), report), exit_code=1)
    sheet = os.path.join(store.folder, "sheet.png")
    write_sheet(sheet, store.inventory().folders())
    print("contact sheet: {}".format(printable(sheet)))
    finish(samples, rejections, report, data_dir, sizes)


def report_query(query, store, note, wanted):
    """Print what a query gave, and warn if that is less than wanted."""
    kept = store.count_kept(query)
    causes = count_causes(rejection for rejection in store.inventory().rejections()
                          if rejection.category == query)
    print("{}: {} kept; skipped: {}".format(
        query, kept, ", ".join("{} {}".format(count, cause) for cause, count in causes) or "none"))
    if wanted and kept < wanted:
        warn("{}: {} images of {}: {}".format(query, kept, wanted, note))


def finish(samples, rejections, report, data_dir, sizes):
    """Write the lists and the report, and print the number of images skipped per cause."""
    rejections = rejections + write_splits(samples, data_dir, sizes)
    write_rejections(report, rejections)
    for cause, count in count_causes(rejections):
        print("skipped: {} ({})".format(count, cause))
    print("{} skipped in all, listed in {}".format(len(rejections), printable(report)))


def split_size(text):
    """An argparse ``type``: a fraction above 0 and below 1, or a whole number of images."""
    value = float(text)
    if not (0 < value < 1 or (1 <= value < 1e9 and value == int(value))):
        raise argparse.ArgumentTypeError(
            "{}: neither a fraction between 0 and 1 nor a whole number from 1 up".format(text))
    return value


def parse_arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Collect negatives (images without faces) from the web or a folder "
                    "and write their train, validation and test lists.",
        formatter_class=HelpFormatter)
    parser.add_argument("--data-dir", default="data",
                        help="folder for the lists, and for neg_samples/ with images from the "
                        "web")
    for split in ("val", "test"):
        parser.add_argument("--{}-size".format(split), type=split_size, default=0.1, metavar="N",
                            help="size of the {} list: a fraction, or an approximate number of "
                            "images".format(split))
    parser.add_argument("--keep-faces", action="store_true",
                        help="do not look for human faces; otherwise images with one are skipped, "
                        "or named if they come from a folder")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--from-dir", metavar="FOLDER", help="take images from this folder "
                        "instead of the web; its sub-folders are categories")
    either.add_argument("--source", choices=("wikimedia", "openverse", "urls"),
                        default="wikimedia", help="search service, or a file of addresses")
    add_web_arguments(parser.add_argument_group("images from the web"))
    return parser.parse_args()


def add_web_arguments(group):
    """The options for images from the web."""
    group.add_argument("--contact", default="", help="your e-mail or web address for the "
                       "User-Agent; Wikimedia's policy demands it")
    group.add_argument("--queries", nargs="+", default=list(QUERIES), metavar="QUERY",
                       help="what to search for; each is a category")
    group.add_argument("--per-query", type=number_type(int, 1), default=500, metavar="N",
                       help="images to keep per query")
    group.add_argument("--min-side", type=number_type(int, 1, STORED_SIDE), default=64,
                       metavar="PIXELS", help="least height and width of an image, after it is "
                       "shrunk to {} pixels along its longer side".format(STORED_SIDE))
    group.add_argument("--urls", metavar="FILE", help="for --source urls: a text file with one "
                       "image address per line; all are downloaded")
    group.add_argument("--endpoint", metavar="URL",
                       help="another base address of the service, such as a mirror; if that is on "
                       "a private network, images may be there too")
    group.add_argument("--rate", type=number_type(float, 0.01), metavar="N",
                       help="requests per second to one host (default: 2, for openverse 1)")
    group.add_argument("--workers", type=number_type(int, 1, 64), metavar="N",
                       help="download threads (default: 2, as Wikimedia asks, for urls 8)")


@cli
def main():
    args = parse_arguments()
    sizes = SplitSizes(args.val_size, args.test_size)
    if args.urls is not None and args.source != "urls":
        raise UserError("--urls {}: needs --source urls too".format(args.urls))
    if args.from_dir is not None:
        samples, rejections = read_folder(args.from_dir, args.keep_faces)
        report = os.path.join(args.data_dir, "neg_samples_report.csv")
        finish(samples, rejections, report, args.data_dir, sizes)
        return
    source, queries = web_source(args.source, args.urls, args.endpoint, args.queries)
    wanted = None if args.source == "urls" else args.per_query
    if not args.contact:
        warn("no --contact given; Wikimedia and others may refuse clients that name no contact")
    workers = args.workers or source.workers
    client = PoliteClient(args.contact, args.rate or source.rate, workers,
                          allowed_networks(source.endpoint), PATIENCE)
    settings = {"min-side": args.min_side, "keep-faces": args.keep_faces}
    folder = os.path.join(args.data_dir, "neg_samples")
    with contextlib.closing(NegativeStore(folder, settings)) as store:
        collector = Collector(source, store, client, wanted, args.min_side, args.keep_faces,
                              workers)
        collect_from_web(collector, store, queries, wanted, args.data_dir, sizes)


if __name__ == "__main__":
    main()
