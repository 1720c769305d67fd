"""Turn CelebA as distributed into file lists, or build the small embedded data set.

    python preprocess_celeba.py                        # reads data/celeba
    python preprocess_celeba.py --celeba-dir ~/celeba  # reads it from elsewhere
    python preprocess_celeba.py --sample               # 200 real images, no download

CelebA is ``img_align_celeba/000001.jpg`` to ``202599.jpg`` with ``list_eval_partition.txt``, a line
``name 0|1|2`` for each image: train, validation, test. Every image is decoded once; those that do
not decode are reported and left out. Writes ``celeba_train_file.pickle``,
``celeba_val_file.pickle`` and ``celeba_test_file.pickle``.
"""

import argparse
import collections
import concurrent.futures
import itertools
import os

from pictures.decode import BadImage, find_images, pixel_digest, read_image
from pictures.lists import LISTS, relative_to_data, save_list
from pictures.sheets import save_picture
from utils import UserError, cli, number_type, progress, warn

SPLITS = ("train", "val", "test")
IMAGE_FOLDER = "img_align_celeba"
PARTITION_FILE = "list_eval_partition.txt"

# The official partition, for copies that come without the file: the last index of each split.
LAST_INDEX = (("train", 162770), ("val", 182637), ("test", 202599))

# How many pictures of each class the embedded data set gives to each split.
SAMPLE_COUNTS = collections.OrderedDict([("train", 70), ("val", 10), ("test", 20)])


def read_partition(celeba_dir):
    """Which split each CelebA image belongs to.

    Parameters
    ----------
    celeba_dir : str
        The folder with ``img_align_celeba`` and, if it is there, ``list_eval_partition.txt``.

    Returns
    -------
    dict of str to list of str
        Image names by split, in the official order.

    Raises
    ------
    UserError
        No images, or a line of the partition file that is not ``name 0|1|2``.
    """
    folder = os.path.join(celeba_dir, IMAGE_FOLDER)
    if not os.path.isdir(folder):
        raise UserError("{}: no such folder; unpack CelebA's img_align_celeba.zip there, or name "
                        "its place with --celeba-dir, or try --sample".format(folder))
    path = os.path.join(celeba_dir, PARTITION_FILE)
    if os.path.exists(path):
        return _parse_partition(path)
    warn("{} is not there; using the official index ranges".format(path))
    return _official_partition(os.path.basename(each) for each in find_images(folder))


def _parse_partition(path):
    partition = {split: [] for split in SPLITS}
    names = set()
    try:
        with open(path, encoding="ascii") as stream:
            for number, line in enumerate(stream, 1):
                fields = line.split()
                if not fields:
                    continue
                if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
                    raise UserError("{}:{}: not a line 'name 0|1|2'; get the file anew".format(
                        path, number))
                if os.path.basename(fields[0]) != fields[0] or fields[0] in names:
                    raise UserError("{}:{}: {!r} is named twice or is no plain file name; get the "
                                    "file anew".format(path, number, fields[0]))
                names.add(fields[0])
                partition[SPLITS[int(fields[1])]].append(fields[0])
    except UnicodeDecodeError:
        raise UserError("{}: not a text file; get the file anew".format(path))
    if not names:
        raise UserError("{}: empty; get the file anew, or remove it to use the official "
                        "index ranges".format(path))
    return partition


def _official_partition(names):
    partition = {split: [] for split in SPLITS}
    for name in names:
        stem = os.path.splitext(name)[0]
        if not stem.isdigit() or not 1 <= int(stem) <= LAST_INDEX[-1][1]:
            warn("{}: not an official CelebA name (000001.jpg to 202599.jpg); left out".format(
                name))
            continue
        split = next(split for split, last in LAST_INDEX if int(stem) <= last)
        partition[split].append(name)
    return partition


def limit_partition(partition, limit):
    """At most ``limit`` names in all, shared out over the splits as the whole is.

    A split that has images keeps at least one.
    """
    total = sum(map(len, partition.values()))
    if not limit or limit >= total:
        return partition
    return {split: names[:max(1, round(limit * len(names) / total))]
            for split, names in partition.items()}


def check_images(partition, folder):
    """Decode every image; drop the bad, and of equal pictures all but one.

    Of a picture that stands in several splits the test split keeps it, else validation, so that
    nothing tested was trained on.

    Parameters
    ----------
    partition : dict of str to list of str
    folder : str

    Returns
    -------
    kept : dict of str to list of str
        Paths by split.
    bad : int
        Images that are missing or do not decode.
    duplicates : int
    """
    kept, seen = {}, {}
    bad = duplicates = 0
    total = sum(map(len, partition.values()))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool, \
            progress(total=total, desc="checking images", unit="image") as bar:
        for split in reversed(SPLITS):
            kept[split] = []
            paths = [os.path.join(folder, name) for name in partition[split]]
            for path, digest, cause in _map_in_chunks(pool, _digest, paths):
                bar.update()
                if cause:
                    warn("{}: {}; left out".format(path, cause))
                    bad += 1
                elif digest in seen:
                    warn("{}: same picture as {}; left out".format(path, seen[digest]))
                    duplicates += 1
                else:
                    seen[digest] = path
                    kept[split].append(path)
    return kept, bad, duplicates


def _map_in_chunks(pool, function, items, chunk=512):
    """``pool.map`` that does not queue the whole list at once."""
    items = iter(items)
    for part in iter(lambda: list(itertools.islice(items, chunk)), []):
        yield from pool.map(function, part)


def _digest(path):
    try:
        return path, pixel_digest(read_image(path)), None
    except BadImage as error:
        return path, None, str(error)


def write_lists(kept, data_dir, class_index=0):
    """Write the file lists of one class; all of them or, when a split is empty, none.

    Parameters
    ----------
    kept : dict of str to list of str
        Paths by split.
    data_dir : str
    class_index : {0, 1}
        0 writes the lists of faces, 1 those of non-faces.

    Raises
    ------
    UserError
        When a split has no image.
    """
    for split in SPLITS:
        if not kept[split]:
            raise UserError("no usable image for the {} split; the lists were left as they were: "
                            "check the data set or raise --limit".format(split))
    for split in SPLITS:
        save_list(os.path.join(data_dir, LISTS[split][class_index]),
                  [relative_to_data(path, data_dir) for path in kept[split]])


def build_sample(sample_dir):
    """Write the embedded data set: 100 faces and 100 non-faces that scikit-image carries.

    They are 25x25 grey pictures from Labelled Faces in the Wild (``skimage.data.lfw_subset``): the
    first 100 show faces, the last 100 do not.

    Parameters
    ----------
    sample_dir : str
        Where the PNGs and the six lists go.
    """
    from skimage.data import lfw_subset
    from skimage.util import img_as_ubyte

    pictures = img_as_ubyte(lfw_subset())
    halves = (("faces", pictures[:100]), ("non_faces", pictures[100:]))
    for class_index, (class_name, half) in enumerate(halves):
        numbers = iter(range(len(half)))
        kept = {}
        for split, count in SAMPLE_COUNTS.items():
            kept[split] = []
            for number in itertools.islice(numbers, count):
                path = os.path.join(sample_dir, class_name, "{:03d}.png".format(number))
                save_picture(path, half[number])
                kept[split].append(path)
        write_lists(kept, sample_dir, class_index)


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data",
                        help="where the file lists go (default: data)")
    parser.add_argument("--celeba-dir", metavar="DIR",
                        help="folder with img_align_celeba and list_eval_partition.txt "
                             "(default: celeba in the data directory)")
    parser.add_argument("--limit", type=number_type(int, 3), metavar="N",
                        help="use about N images, shared out over the splits (default: all)")
    parser.add_argument("--sample", action="store_true",
                        help="build the embedded data set, faces and non-faces, in the folder "
                             "sample of the data directory instead")
    return parser


@cli
def main():
    args = _parser().parse_args()
    if args.sample:
        sample_dir = os.path.join(args.data_dir, "sample")
        build_sample(sample_dir)
        print("{}: faces and non-faces, {} of each".format(
            sample_dir, ", ".join("{} {}".format(*item) for item in SAMPLE_COUNTS.items())))
        return
    celeba_dir = args.celeba_dir or os.path.join(args.data_dir, "celeba")
    partition = limit_partition(read_partition(celeba_dir), args.limit)
    kept, bad, duplicates = check_images(partition, os.path.join(celeba_dir, IMAGE_FOLDER))
    write_lists(kept, args.data_dir)
    print("{}: {}; left out {} bad, {} duplicate".format(
        args.data_dir, ", ".join("{} {}".format(split, len(kept[split])) for split in SPLITS),
        bad, duplicates))


if __name__ == "__main__":
    main()
