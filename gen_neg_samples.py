"""Negative samples - pictures of anything but faces - and their train, validation and test lists.

From the web, by default 500 pictures for each of 12 queries from Wikimedia Commons::

    python gen_neg_samples.py --contact you@example.org

From a folder of your own pictures, one sub-folder a category::

    python gen_neg_samples.py --from-dir my_pictures

Both write ``neg_samples.pickle``, ``neg_samples_val.pickle`` and ``neg_samples_test.pickle`` into
the data directory. A picture's split follows from its content alone, so that pictures added later
never move one from training to test, and of near duplicates only one is kept. A collection from
the web is made in ``neg_samples/`` there (see neg_store.py) and can be killed at any moment: the
same command goes on where it was.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import itertools
import json
import os
import warnings

import numpy as np

from negatives.checks import (
    STORED_SIDE,
    FaceDetector,
    Unfit,
    decode_download,
    near_duplicate_groups,
    perceptual_hash,
    stored_form,
)
from negatives.client import (
    FetchError,
    Openverse,
    PoliteClient,
    Refused,
    UrlFile,
    Wikimedia,
    defused,
)
from negatives.store import NegativeStore, Picture, Rejection, write_report
from pictures import decode
from pictures.lists import relative_to_data, save_list
from utils import HelpFormatter, UserError, cli, number_type, progress, warn

QUERIES = ("dog", "car", "food", "buildings", "mountains", "cat", "animal", "laptop", "planets",
           "sun", "water", "sky")

LONGEST_QUERY = 200  # characters; Wikimedia refuses those above 300

LISTS = {  # in this order: pictures added later never move one from the first to the last
    "train": "neg_samples.pickle",
    "val": "neg_samples_val.pickle",
    "test": "neg_samples_test.pickle",
}


def read_folder(folder):
    """Read every picture under the sub-folders of ``folder``.

    Parameters
    ----------
    folder : str
        Its sub-folders are the categories. If none holds a picture, the pictures that stand in
        ``folder`` itself are taken as one category.

    Returns
    -------
    pictures : list of Picture
        Sorted by path; identical ones among them.
    rejections : list of Rejection

    Raises
    ------
    UserError
        Not a folder, or no usable picture in it.
    """
    if not os.path.isdir(folder):
        raise UserError("{}: not a folder; --from-dir wants a folder of sub-folders with "
                        "pictures".format(folder))
    paths, rejections = _choose_files(folder)
    pictures = []
    for path in progress(paths, desc="reading pictures", unit="picture"):
        category = _category(path, folder)
        try:
            image = decode.read_image(path)
        except decode.BadImage as error:
            warn("{}: {}; left out".format(path, error))
            rejections.append(Rejection(path, category, "bad picture", str(error)))
            continue
        pictures.append(
            Picture(path, category, decode.pixel_digest(image), perceptual_hash(image)))
    if not pictures:
        raise UserError("{}: no usable picture in it; --from-dir wants sub-folders with "
                        "pictures ({})".format(folder, ", ".join(decode.EXTENSIONS)))
    return pictures, rejections


def _choose_files(folder):
    """The picture files of a folder's categories, and those that belong to none."""
    passed_over = decode.PassedOver()
    paths = list(decode.find_images(folder, report=passed_over.add))
    if passed_over:
        warn("{}: passed over {}".format(folder, passed_over))
    inside = [path for path in paths if _category(path, folder)]
    if not inside:
        return paths, []
    stray = sorted(set(paths) - set(inside))
    if stray:
        warn("{}: {} pictures stand outside its sub-folders and are left out, {} first".format(
            folder, len(stray), os.path.basename(stray[0])))
    return inside, [Rejection(path, "", "in no category", "") for path in stray]


def _category(path, folder):
    """The sub-folder of ``folder`` that a file is in, at any depth; "" if it is in none."""
    parts = os.path.relpath(path, folder).split(os.sep)
    return parts[0] if len(parts) > 1 else ""


def position(digest):
    """A picture's place in [0, 1), from the first 52 bits of its content hash in hexadecimal."""
    return int(digest[:13], 16) / 16.0 ** 13


def category_splits(pictures, val_fraction, test_fraction):
    """The split that each picture has by its content and its category.

    A picture is test material if its :func:`position` is below ``test_fraction``, validation
    material if it is below ``test_fraction + val_fraction``, else training material. In any case
    the lowest of a category of three or more is test material, and the lowest that is not is
    validation material, so that every split sees every such category. A new picture can only push
    others up, but for the third of a category, which can push one from training to validation;
    none comes from training to test.

    Parameters
    ----------
    pictures : list of Picture
        All there are, duplicates too: one that was left out could pull others down.
    val_fraction, test_fraction : float
        Above 0, their sum below 1.

    Returns
    -------
    list of str
        "train", "val" or "test" for each picture.
    """
    digests = collections.defaultdict(set)
    for picture in pictures:
        digests[picture.category].add(picture.digest)
    split_of = {}
    for category, members in digests.items():
        members = sorted(members)
        below = [position(digest) < test_fraction for digest in members]
        tests = max(1 if len(members) >= 3 else 0, sum(below))
        below = [position(digest) < test_fraction + val_fraction for digest in members]
        vals = max(1, sum(below) - tests)
        names = ["test"] * tests + ["val"] * vals + ["train"] * len(members)
        split_of.update(((category, digest), name) for digest, name in zip(members, names))
    return [split_of[picture.category, picture.digest] for picture in pictures]


def divide(pictures, val_fraction, test_fraction):
    """Keep one picture of each group of duplicates and near duplicates, and divide these.

    Kept is the picture with the highest :func:`position`, and its split is that of the group's
    member farthest from test. A group that grows can then only move up, from test towards
    training: a picture that was trained on never comes back as test material, be it under another
    name or in another category.

    Parameters
    ----------
    pictures : list of Picture
    val_fraction, test_fraction : float
        See :func:`category_splits`.

    Returns
    -------
    splits : dict of str to list of Picture
        Keys "train", "val" and "test"; the pictures in their given order.
    rejections : list of Rejection
    """
    groups = near_duplicate_groups(np.array([picture.hash for picture in pictures]))
    best, split_of = {}, {}
    for picture, group, split in zip(
            pictures, groups, category_splits(pictures, val_fraction, test_fraction)):
        if group not in best or position(picture.digest) > position(best[group].digest):
            best[group] = picture
        split_of[group] = min(split, split_of.get(group, split), key=list(LISTS).index)
    splits, rejections, first_with = {name: [] for name in LISTS}, [], {}
    for picture, group in zip(pictures, groups):
        first = first_with.setdefault(picture.digest, picture)
        if picture is best[group]:
            splits[split_of[group]].append(picture)
        elif picture is not first:
            rejections.append(Rejection(picture.path, picture.category, "duplicate",
                                        "same as " + first.path))
        else:
            rejections.append(Rejection(picture.path, picture.category, "near duplicate",
                                        "like " + best[group].path))
    return splits, rejections


def as_fraction(size, count, option):
    """A split's size as a fraction of ``count`` pictures; sizes from 1 up are numbers of them."""
    if size < 1:
        return size
    if size >= count:
        raise UserError("{} {:g}: there are only {} different pictures; ask for fewer".format(
            option, size, count))
    return size / count


def write_splits(pictures, args):
    """Drop duplicates and near duplicates, divide the rest and write the three lists.

    Parameters
    ----------
    pictures : list of Picture
    args : argparse.Namespace
        ``data_dir``, ``val_size`` and ``test_size``.

    Returns
    -------
    list of Rejection
        The duplicates.

    Raises
    ------
    UserError
        Sizes or categories that leave a split empty. Nothing is written then.
    """
    different = len({picture.digest for picture in pictures})
    val_fraction = as_fraction(args.val_size, different, "--val-size")
    test_fraction = as_fraction(args.test_size, different, "--test-size")
    if val_fraction + test_fraction >= 1:
        raise UserError("--val-size and --test-size leave nothing for training; make them smaller")
    splits, rejections = divide(pictures, val_fraction, test_fraction)
    kept = list(itertools.chain.from_iterable(splits.values()))
    categories = collections.Counter(picture.category for picture in kept)
    for name, members in splits.items():
        if not members:
            raise UserError(
                "{} different pictures in {} categories leave none for the {} list; add pictures, "
                "at least 3 to a category, or change --val-size and --test-size".format(
                    len(kept), len(categories), name))
    everywhere = set.intersection(
        *({picture.category for picture in members} for members in splits.values()))
    missing = sorted(set(categories) - everywhere)
    if missing:
        warn("{} categories are missing from some list, {} first; each wants at least 3 different "
             "pictures".format(len(missing), missing[0] or "."))
    # The test list first: killed in between, no picture is both trained on and tested with.
    for name, members in reversed(list(splits.items())):
        path = os.path.join(args.data_dir, LISTS[name])
        save_list(path, [relative_to_data(member.path, args.data_dir) for member in members])
        print("{}: {} pictures".format(path, len(members)))
    return rejections


class Collector:
    """Fills a store from a source, query by query.

    Threads fetch and check pictures as they come; whether a picture is kept is decided in the
    order of the search results, so that the outcome does not hang on which thread was faster.

    Parameters
    ----------
    source : Wikimedia, Openverse or UrlFile
    store : NegativeStore
    client : PoliteClient
    args : argparse.Namespace
        ``per_query``, ``workers``, ``max_bytes``, ``max_pixels``, ``min_side`` and ``keep_faces``.
    """

    PATIENCE = 5  # result pages in a row that may bring nothing new
    CHOICE = 10  # candidates looked at for each picture that is asked for
    OUTAGE = 50  # pictures in a row that could not be had: the servers are down or want rest

    def __init__(self, source, store, client, args):
        self._source = source
        self._store = store
        self._client = client
        self._args = args
        self._faces = None if args.keep_faces else FaceDetector()
        self._pool = concurrent.futures.ThreadPoolExecutor(args.workers)
        self.notes = {}  # query -> why it brought fewer pictures than asked

    def close(self):
        """Give up what is still under way."""
        self._client.stop()
        self._pool.shutdown()

    def collect(self, query):
        """Keep pictures for a query until there are as many as asked, or no more are found."""
        wanted = self._args.per_query
        candidates = self._candidates(query)
        rejected = failed_in_a_row = 0
        with progress(total=wanted, desc=query, unit="picture",
                      initial=self._store.count_kept(query)) as bar:
            for candidate, settled in self._downloads(query, candidates):
                kept = self._store.decide(query, candidate)
                rejected += not kept
                bar.update(kept)
                bar.set_postfix(rejected=rejected, refresh=False)
                failed_in_a_row = 0 if settled else failed_in_a_row + 1
                if wanted and failed_in_a_row == self.OUTAGE:
                    self.notes[query] = "{} pictures in a row could not be had".format(self.OUTAGE)
                    candidates.close()

    def _downloads(self, query, candidates):
        """Fetch candidates with all threads: each with what :meth:`_fetch` says, in their order."""
        window = collections.deque()
        while True:
            # Never more under way than are still missing: nothing is fetched in vain.
            missing = (self._args.per_query or float("inf")) - self._store.count_kept(query)
            room = min(missing, 8 * self._args.workers) - len(window)
            for candidate in itertools.islice(candidates, max(0, room)):
                window.append((candidate, self._pool.submit(self._fetch, query, candidate)))
            if not window:
                return
            candidate, download = window.popleft()
            yield candidate, download.result()

    def _fetch(self, query, candidate):
        """Download and check one candidate; every outcome goes to the store.

        Returns
        -------
        bool
            False if it could not be had for a passing reason.
        """
        if self._store.has_picture(query, candidate):
            return True
        try:
            body = self._client.get_picture(candidate.url, self._args.max_bytes)
            image = decode_download(body, self._args.max_pixels, self._args.min_side)
            jpeg, stored = stored_form(image)
            if self._faces and self._faces.has_face(stored):
                raise Unfit("human face")
        except (FetchError, Unfit) as error:
            final = isinstance(error, (Refused, Unfit))
            self._store.add_failure(candidate, query, error, final)
            return final
        self._store.add_picture(
            candidate, jpeg, decode.pixel_digest(stored), perceptual_hash(stored))
        return True

    def _candidates(self, query):
        """Candidates for a query that nothing is settled about, each address once."""
        seen = set()
        stale = 0
        for page in self._pages(query):
            fresh = [candidate for candidate in page.candidates if candidate.url not in seen]
            stale = 0 if fresh else stale + 1
            if stale == self.PATIENCE:
                self.notes[query] = "{} result pages in a row brought nothing new".format(stale)
                return
            for candidate in fresh:
                if candidate.url in seen:
                    continue
                seen.add(candidate.url)
                if not self._store.is_settled(query, candidate):
                    yield candidate
            if self._args.per_query and len(seen) >= self.CHOICE * self._args.per_query + 100:
                self.notes[query] = "stopped after {} search results".format(len(seen))
                return

    def _pages(self, query):
        """The result pages of a query: those that are known already, then new ones."""
        pages = self._store.pages(self._source.name, query)
        yield from pages
        continuation = pages[-1].next if pages else {}
        asked = {_key(page.next) for page in pages[:-1]} | {_key({})} if pages else set()
        while continuation is not None:
            if _key(continuation) in asked:
                self.notes[query] = "the service repeats its result pages"
                return
            asked.add(_key(continuation))
            try:
                page = self._source.search(self._client, query, continuation)
            except FetchError as error:
                self.notes[query] = "the search failed: {}".format(error)
                return
            if self._source.is_remembered:
                self._store.add_page(self._source.name, query, page)
            yield page
            continuation = page.next
        self.notes[query] = "there are no more search results"


def _key(continuation):
    """A continuation as something that can stand in a set."""
    return json.dumps(continuation, sort_keys=True)


def collect_from_web(args):
    """Search, download, check and store pictures, then write the lists.

    Raises
    ------
    UserError
        With exit code 1 if not a single picture was kept.
    """
    folder = os.path.join(args.data_dir, "neg_samples")
    source, queries = choose_source(args)
    args.workers = args.workers or source.workers
    warnings.simplefilter("ignore")  # Pillow's, on odd metadata; its own switch is not for threads
    if not args.contact:
        warn("no --contact given; Wikimedia and others may refuse clients that do not say whom "
             "to write to")
    client = PoliteClient(
        contact=args.contact, rate=args.rate or source.rate, workers=args.workers,
        connect_timeout=args.connect_timeout, read_timeout=args.read_timeout,
        time_limit=args.time_limit, retries=args.retries, backoff=args.backoff,
        longest_wait=args.longest_wait)
    settings = {"min-side": args.min_side, "max-pixels": args.max_pixels,
                "max-bytes": args.max_bytes, "keep-faces": args.keep_faces}
    with contextlib.closing(NegativeStore(folder, settings)) as store:
        collector = Collector(source, store, client, args)
        try:
            for query in queries:
                collector.collect(query)
                store.write_attribution()
                report_query(query, store, collector.notes, args.per_query)
        finally:
            collector.close()
            store.write_attribution()
            write_report(os.path.join(folder, "report.csv"), store.rejections())
        store.clear_incoming()
        finish_collection(store, collector.notes, args)


def finish_collection(store, notes, args):
    """Write the contact sheet and the three lists over all that the store holds."""
    pictures = store.kept_pictures()
    report = os.path.join(store.folder, "report.csv")
    if not pictures:
        causes = collections.Counter(rejection.cause for rejection in store.rejections())
        why = ["{} {}".format(count, cause) for cause, count in sorted(causes.items())]
        raise UserError("no picture was kept ({}); see {} and run again later".format(
            "; ".join(why + sorted(set(notes.values()))), report), exit_code=1)
    print("contact sheet: {}".format(store.write_sheet()))
    rejections = store.rejections() + write_splits(pictures, args)
    write_report(report, rejections)
    print_causes(rejections, report)


def report_query(query, store, notes, wanted):
    """Print what a query brought, and warn if that is less than asked."""
    kept = store.count_kept(query)
    causes = collections.Counter(
        rejection.cause for rejection in store.rejections() if rejection.category == query)
    print("{}: {} kept; left out: {}".format(
        query, kept, ", ".join("{} {}".format(count, cause)
                               for cause, count in sorted(causes.items())) or "none"))
    if wanted and kept < wanted:
        warn("{}: {} pictures of {}: {}".format(query, kept, wanted, notes.get(query, "")))


def choose_source(args):
    """The source to collect from, and the queries to ask it.

    Returns
    -------
    source : Wikimedia, Openverse or UrlFile
    queries : list of str
    """
    if args.source == "urls":
        if not args.urls:
            raise UserError("--source urls: --urls FILE is missing; give a file with one address "
                            "a line")
        args.per_query = None
        return UrlFile(args.urls), [os.path.splitext(os.path.basename(args.urls))[0]]
    queries = [defused(query, LONGEST_QUERY + 1) for query in args.queries]
    if not all(queries):
        raise UserError("--queries: one of them is empty; name things to search for")
    if max(map(len, queries)) > LONGEST_QUERY:
        raise UserError("--queries: one of them is longer than {} characters; name things in "
                        "fewer".format(LONGEST_QUERY))
    service = {"wikimedia": Wikimedia, "openverse": Openverse}[args.source]
    return service(args.endpoint), list(collections.OrderedDict.fromkeys(queries))


def collect_from_folder(args):
    """Read a folder of pictures and write the lists."""
    pictures, rejections = read_folder(args.from_dir)
    rejections += write_splits(pictures, args)
    report = os.path.join(args.data_dir, "neg_samples_report.csv")
    write_report(report, rejections)
    print_causes(rejections, report)


def print_causes(rejections, report):
    """Print how many pictures each cause left out, and where they are listed."""
    causes = collections.Counter(rejection.cause for rejection in rejections)
    for cause, count in sorted(causes.items()):
        print("left out: {} ({})".format(count, cause))
    print("{} left out in all, listed in {}".format(len(rejections), report))


def split_size(text):
    """An argparse ``type``: a fraction above 0 and below 1, or a whole number of pictures."""
    value = float(text)
    if not (0 < value < 1 or (1 <= value < 1e9 and value == int(value))):
        raise argparse.ArgumentTypeError(
            "{}: neither a fraction between 0 and 1 nor a whole number from 1 up".format(text))
    return value


def parse_arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Collect negative samples (pictures without faces) from the web or a folder "
                    "and write their train, validation and test lists.",
        formatter_class=HelpFormatter)
    parser.add_argument("--data-dir", default="data",
                        help="where the lists, and neg_samples/ with pictures from the web, go")
    parser.add_argument("--val-size", type=split_size, default=0.1, metavar="N",
                        help="validation share: a fraction, or about so many pictures")
    parser.add_argument("--test-size", type=split_size, default=0.1, metavar="N",
                        help="test share: a fraction, or about so many pictures")
    _add_source_arguments(parser.add_argument_group("where pictures come from"))
    _add_picture_arguments(parser.add_argument_group("which pictures from the web are kept"))
    _add_client_arguments(parser.add_argument_group("how servers are asked"))
    return parser.parse_args()


def _add_source_arguments(group):
    either = group.add_mutually_exclusive_group()
    either.add_argument("--from-dir", metavar="FOLDER", help="take pictures from this folder, "
                        "not from the web; its sub-folders are categories")
    either.add_argument("--source", choices=("wikimedia", "openverse", "urls"),
                        default="wikimedia", help="search service, or a file of addresses")
    group.add_argument("--urls", metavar="FILE",
                       help="for --source urls: a text file, one picture address a line; "
                       "all of them are taken")
    group.add_argument("--queries", nargs="+", default=list(QUERIES), metavar="QUERY",
                       help="what to search for; each is a category")
    group.add_argument("--per-query", type=number_type(int, 1), default=500, metavar="N",
                       help="pictures to keep for each query")
    group.add_argument("--endpoint", metavar="URL",
                       help="another base address of the service: a mirror, a test server")


def _add_picture_arguments(group):
    group.add_argument("--keep-faces", action="store_true",
                       help="do not leave out pictures with a human face")
    group.add_argument("--min-side", type=number_type(int, 1, STORED_SIDE), default=64,
                       metavar="PIXELS", help="least height and width, after a picture was shrunk "
                       "to {} pixels along its longer side".format(STORED_SIDE))
    group.add_argument("--max-pixels", type=number_type(int, 1, decode.MAX_PIXELS),
                       default=50 * 1000 * 1000, metavar="N",
                       help="larger pictures are not even decoded")
    group.add_argument("--max-bytes", type=number_type(int, 1), default=20 * 1000 * 1000,
                       metavar="N", help="longer files are not read to their end")


def _add_client_arguments(group):
    seconds = number_type(float, 0.01)
    group.add_argument("--contact", default="", help="your e-mail or web address, told to the "
                       "servers in the User-Agent; Wikimedia's policy asks for it")
    group.add_argument("--rate", type=number_type(float, 0.01), metavar="N",
                       help="requests per second to one host (default: 2, for openverse 1)")
    group.add_argument("--workers", type=number_type(int, 1, 64), metavar="N",
                       help="download threads (default: 2, as Wikimedia asks, for urls 8)")
    group.add_argument("--connect-timeout", type=seconds, default=10, metavar="SECONDS",
                       help="wait for a connection")
    group.add_argument("--read-timeout", type=seconds, default=20, metavar="SECONDS",
                       help="wait for the next piece of an answer")
    group.add_argument("--time-limit", type=seconds, default=60, metavar="SECONDS",
                       help="wait for a whole answer")
    group.add_argument("--retries", type=number_type(int, 0, 20), default=4, metavar="N",
                       help="further tries after a passing failure")
    group.add_argument("--backoff", type=seconds, default=1, metavar="SECONDS",
                       help="wait before the first further try, doubled each time")
    group.add_argument("--longest-wait", type=seconds, default=120, metavar="SECONDS",
                       help="a host that asks for more patience is left for a later run")


@cli
def main():
    args = parse_arguments()
    if args.urls is not None and args.source != "urls":
        raise UserError("--urls {}: wants --source urls beside it".format(args.urls))
    if args.from_dir is not None:
        collect_from_folder(args)
    else:
        collect_from_web(args)


if __name__ == "__main__":
    main()
