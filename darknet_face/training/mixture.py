"""Images of several datasets, mixed in chosen shares, for each class and epoch.

A dataset is a pair of lists: faces and non-faces. Without weights the largest dataset would
dominate the training; weights set the share of each dataset in each class.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import typing

import numpy as np

from darknet_face.images.file_lists import CELEBA, Split, load_source, source_name

Source = collections.namedtuple("Source", "name face_weight other_weight")
Source.__doc__ = """A dataset and its weights, as ``train.py --sources`` takes them.

The weights are relative to the other datasets' of the same class; None stands for the number of
the dataset's images.
"""


ONE_SOURCE = (Source(CELEBA, None, None),)  # the original's lists


def parse_source(text: str) -> Source:
    """An argparse ``type``: ``NAME``, ``NAME=WEIGHT`` or ``NAME=FACE_WEIGHT:OTHER_WEIGHT``."""
    name, equals, weights = text.partition("=")
    source_name(name)
    if not equals:
        return Source(name, None, None)
    faces, colon, others = weights.partition(":")
    try:
        source = Source(name, float(faces), float(others if colon else faces))
    except ValueError:
        source = None
    if source is None or not all(0 <= weight <= 1e6 for weight in source[1:]):
        raise argparse.ArgumentTypeError(
            "{!r}: not NAME, NAME=WEIGHT or NAME=FACE_WEIGHT:OTHER_WEIGHT".format(text))
    return source


class Mixture:
    """The images of one split of several datasets.

    Parameters
    ----------
    splits
        One for each dataset.
    sources
        Their names and weights; by default one aligned dataset, weighted by its number of images.

    Attributes
    ----------
    split
        All images together.
    aligned
        For each class whether an image is of CelebA's aligned ones, bool.
    """

    def __init__(self, splits: typing.Sequence[Split],
                 sources: typing.Sequence[Source] = ONE_SOURCE) -> None:
        self.split = Split(*[tuple(itertools.chain(*columns)) for columns in zip(*splits)])
        self.aligned = tuple(
            np.concatenate([np.full(len(split[label]), source.name == CELEBA)
                            for split, source in zip(splits, sources)])
            for label in (0, 1))
        self._sizes = [[len(split[label]) for split in splits] for label in (0, 1)]
        self._weights = [
            [size if source[1 + label] is None else source[1 + label] * bool(size)
             for source, size in zip(sources, self._sizes[label])]
            for label in (0, 1)]

    def order(self, label: int, count: int, seed: int) -> np.ndarray:
        """Which images of a class an epoch takes, in which order.

        Each dataset gives its share of them: all of its images once before one comes again.

        Parameters
        ----------
        label
        count
            How many images the epoch takes, repetitions included.
        seed

        Returns
        -------
        numpy.ndarray
            Indices into ``split[label]``, at least ``count``.
        """
        rng = np.random.RandomState(seed)
        sizes, weights = self._sizes[label], self._weights[label]
        if len(sizes) == 1:
            return _repeat(sizes[0], -(-count // sizes[0]) * sizes[0], rng)
        shares = np.cumsum([0.0] + weights) / sum(weights)
        ends = np.rint(shares * count).astype(int)
        parts, first = [], 0
        for size, number in zip(sizes, np.diff(ends)):
            if number:
                parts.append(first + _repeat(size, number, rng))
            first += size
        return rng.permutation(np.concatenate(parts))


def _repeat(size, count, rng):
    """``count`` indices below ``size``: one permutation after the other."""
    return np.concatenate([rng.permutation(size) for _ in range(-(-count // size))])[:count]


def load_mixture(data_dir: str, sources: typing.Sequence[Source], split_name: str) -> Mixture:
    """Read the lists of several datasets.

    Raises
    ------
    UserError
        As :func:`darknet_face.images.file_lists.load_source`.
    """
    return Mixture([load_source(data_dir, source.name, split_name) for source in sources], sources)


def describe(sources: typing.Iterable[Source]) -> str:
    """Datasets and weights as one line, as the command line takes them."""
    return " ".join(source.name if source.face_weight is None
                    else "{}={:g}:{:g}".format(*source) for source in sources)
