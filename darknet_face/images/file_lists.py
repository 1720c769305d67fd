"""The file lists: which images belong to which split and class.

A list is a pickled list of file names, absolute or relative to the data folder. Each split has two:
its faces and its non-faces. No image is in two lists, neither by name nor by content.
"""

from __future__ import annotations

import argparse
import codecs
import collections
import contextlib
import os
import pickle
import re
from typing import BinaryIO, Iterable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from darknet_face.classes import FACE, NON_FACE
from darknet_face.console import UserError, number_type, progress
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.pickles import parse_names
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.safe_files import open_regular, sha256

# The lists of each split: faces, then non-faces.
LISTS = {
    "train": ("celeba_train_file.pickle", "neg_samples.pickle"),
    "val": ("celeba_val_file.pickle", "neg_samples_val.pickle"),
    "test": ("celeba_test_file.pickle", "neg_samples_test.pickle"),
}

SPLITS = tuple(LISTS)
CELEBA = "celeba"  # the dataset with the original's lists; every other has lists of its own

# What to do about a missing or bad list of faces, and of non-faces.
_MAKERS = (
    "run preprocess_folders.py on folders of your own images, or preprocess_celeba.py for CelebA",
    "run preprocess_folders.py on folders of your own images, or gen_neg_samples.py",
)

MAX_LIST_BYTES = 256 * 1000 * 1000
MAX_LINE_BYTES = 1 << 16  # of a text with a name per line; Linux takes 4,096 for a path


class Split(NamedTuple):
    """The image paths of one split, by class."""

    faces: tuple[str, ...]
    negatives: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return self.faces + self.negatives

    @property
    def labels(self) -> np.ndarray:
        return np.array([FACE] * len(self.faces) + [NON_FACE] * len(self.negatives), np.int32)


def load_split(data_dir: str, name: str) -> Split:
    """Read the two file lists of a split.

    Parameters
    ----------
    data_dir
        The folder with the lists; relative names in them are relative to it.
    name : {"train", "val", "test"}

    Raises
    ------
    UserError
        A list that is missing or damaged, or that names a file twice.
    """
    columns = []
    for filename, maker in zip(LISTS[name], _MAKERS):
        columns.append(_load_paths(os.path.join(data_dir, filename), data_dir, maker))
    return Split(*columns)


def _load_paths(path: str, data_dir: str, remedy: str) -> tuple[str, ...]:
    """The paths that a list names, each once."""
    paths = tuple(resolve(each, data_dir) for each in load_list(path, remedy))
    if len(set(map(os.path.normpath, paths))) != len(paths):
        raise UserError("{}: names a file twice; {}".format(path, remedy))
    return paths


def check_disjoint(splits: Mapping[str, Split]) -> None:
    """Check that no image is in two splits or in both classes.

    First by name, then by content: files of equal size are compared by SHA-256. Files that do not
    decode are no images; the reader reports them.

    Raises
    ------
    UserError
        Names the two files.
    """
    lists: dict[str, str] = {}  # the split and class of each path
    for split_name, split in splits.items():
        for class_name, paths in zip(("faces", "non-faces"), split):
            for path in paths:
                here = "{} {}".format(split_name, class_name)
                there = lists.setdefault(_real_path(path), here)
                if there != here:
                    _overlap(path, here, path, there)
    by_size: dict[int, list[str]] = collections.defaultdict(list)
    for path in lists:
        with contextlib.suppress(OSError, ValueError):
            if os.path.isfile(path):
                by_size[os.path.getsize(path)].append(path)
    suspects = [path for size, paths in by_size.items() if size and len(paths) > 1
                for path in paths]
    seen: dict[str, str] = {}
    for path in progress(suspects, desc="checking for overlap", unit="file", leave=False):
        try:
            twin = seen.setdefault(sha256(path), path)
        except OSError:
            continue
        if lists[twin] != lists[path] and _decodes(path):
            _overlap(path, lists[path], twin, lists[twin])


def _decodes(path: str) -> bool:
    try:
        read_image(path)
    except BadImage:
        return False
    return True


def _real_path(path: str) -> str:
    """A path without symbolic links; unchanged if it can't be a file's name."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL, or half of a surrogate pair
        return path


def _overlap(path: str, here: str, twin: str, there: str) -> None:
    raise UserError(
        "{} ({}) is the same image as {} ({}); make the lists again: an image belongs to one "
        "split and one class".format(path, here, twin, there))


def add_rate_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option of every script that chooses a threshold on the validation lists."""
    parser.add_argument("--at-fpr", type=number_type(float, 0, 0.5), metavar="RATE",
                        help="choose the threshold on the validation lists so that at most this "
                             "share of the non-faces is called a face, and store it with the "
                             "model, for all scripts (default: keep what is stored, or 0.5)")


def load_list(path: str, remedy: str = "make it again") -> list[str]:
    """Read a file list: a pickled, non-empty list of strings.

    Parameters
    ----------
    path
        The pickle, of any protocol, written by Python 2 or 3. Nothing in it is executed: see
        :mod:`darknet_face.images.pickles`.
    remedy
        What to do when the file is missing or bad, for the error line.

    Raises
    ------
    UserError
        Missing, empty, truncated, huge or hostile file, or anything but a list of strings.
    """
    try:
        with open_regular(path) as stream:
            if os.fstat(stream.fileno()).st_size > MAX_LIST_BYTES:
                raise ValueError("larger than {:,} bytes".format(MAX_LIST_BYTES))
            names = parse_names(stream.read(MAX_LIST_BYTES))
    except FileNotFoundError:
        raise UserError("{}: no such file; {}".format(path, remedy))
    except OSError as error:
        raise UserError("{}: {}; {}".format(path, error.strerror, remedy))
    except ValueError as error:
        raise UserError("{}: not a pickled list of file names ({}); write it by pickle.dump([str("
                        "name) for name in names], stream, protocol=2), or {}".format(
                            path, error, remedy))
    if not names:
        raise UserError("{}: the list is empty; {}".format(path, remedy))
    return names


def save_list(path: str, strings: Iterable[str]) -> None:
    """Write a list of strings as a pickle that Python 2 and 3 both read (protocol 2)."""
    with write_atomically(path) as stream:
        pickle.dump(list(strings), stream, protocol=2)


def save_lists(kept: Mapping[str, Sequence[str]], data_dir: str, class_index: int = 0,
               remedy: str = "add images") -> None:
    """Write the file lists of one class; if a split is empty, write none.

    Parameters
    ----------
    kept
        Paths by split.
    class_index : {0, 1}
        0 writes the lists of faces, 1 those of non-faces.
    remedy
        What to do about a split without images, for the error line.

    Raises
    ------
    UserError
        A split without images.
    """
    for split in LISTS:
        if not kept[split]:
            raise UserError("no usable image for the {} split; the lists were left as they were: "
                            "{}".format(split, remedy))
    for split in LISTS:
        save_list(os.path.join(data_dir, LISTS[split][class_index]),
                  [relative_to_data(path, data_dir) for path in kept[split]])


def save_source_list(paths: Sequence[str], data_dir: str, name: str, label: int,
                     split: str) -> None:
    """Write a list of a dataset anew: without paths, one of an earlier run is removed."""
    path = os.path.join(data_dir, source_list(name, label, split))
    if paths:
        save_list(path, [relative_to_data(each, data_dir) for each in paths])
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def read_names(stream: BinaryIO) -> Iterator[str]:
    """Yield the file names in a text, one a line.

    Parameters
    ----------
    stream
        Lines in UTF-8, with or without a byte-order mark, that end in LF or CR LF. Blanks belong
        to the names. Empty lines are skipped.

    Yields
    ------
    str
        As :func:`os.fsdecode` makes it.

    Raises
    ------
    UserError
        A line that is too long for a name: a device may never end one.
    """
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES), b"")):
        if len(line) == MAX_LINE_BYTES:
            raise UserError("line {:,} of the list has {:,} bytes or more; list one name per "
                            "line".format(number + 1, MAX_LINE_BYTES))
        if number == 0 and line.startswith(codecs.BOM_UTF8):
            line = line[len(codecs.BOM_UTF8):]
        name = os.fsdecode(line).rstrip("\r\n")
        if name:
            yield name


def relative_to_data(path: str, data_dir: str) -> str:
    """A file's name in a list: relative to ``data_dir`` if it is in there, otherwise absolute."""
    path, data_dir = os.path.abspath(path), os.path.abspath(data_dir)
    if path.startswith(os.path.join(data_dir, "")):
        return os.path.relpath(path, data_dir)
    return path


def resolve(name: str, data_dir: str) -> str:
    """The path of a file named in a list; the inverse of :func:`relative_to_data`."""
    return os.path.join(data_dir, name)  # an absolute name wins over data_dir


def source_name(text: str) -> str:
    """An argparse ``type``: the name of a dataset, which is part of its lists' file names."""
    if not re.match(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z", text):
        raise argparse.ArgumentTypeError(
            "{!r}: a name has letters, digits, - and _, and at most 64 of them".format(text))
    return text


def new_source_name(text: str) -> str:
    """An argparse ``type``: the name of a dataset that is to be made."""
    if text == CELEBA:
        raise argparse.ArgumentTypeError(
            "{}: stands for the six lists without a name; choose another".format(text))
    return source_name(text)


def source_list(name: str, label: int, split: str) -> str:
    """The file name of a dataset's list.

    Parameters
    ----------
    name
        :data:`CELEBA` stands for the original's lists.
    label
        FACE or NON_FACE.
    split : {"train", "val", "test"}
    """
    if name == CELEBA:
        return LISTS[split][label]
    return "{}_{}_{}.pickle".format(name, ("faces", "others")[label], split)


def load_sources(data_dir: str, names: Iterable[str], split: str) -> dict[str, Split]:
    """Read the lists of one split of several datasets, in their order."""
    return collections.OrderedDict((name, load_source(data_dir, name, split)) for name in names)


def load_source(data_dir: str, name: str, split: str) -> Split:
    """Read the lists of one split of a dataset; the split, or one of its classes, may be empty.

    Raises
    ------
    UserError
        When the dataset has no list at all, or one is damaged or names a file twice.
    """
    if name == CELEBA:
        return load_split(data_dir, split)
    paths = [os.path.join(data_dir, source_list(name, label, split)) for label in (FACE, NON_FACE)]
    every = [os.path.join(data_dir, source_list(name, label, each))
             for each in SPLITS for label in (FACE, NON_FACE)]
    if not any(map(os.path.exists, every)):
        raise UserError("{} .. {}: none of these lists is there; make the dataset {} by "
                        "preprocess_wider.py or preprocess_folders.py --name, or leave it out of "
                        "--sources".format(every[0], every[-1], name))
    return Split(*[_load_paths(path, data_dir, "make it again") if os.path.exists(path) else ()
                   for path in paths])
