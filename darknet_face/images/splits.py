"""Which images are for training, validation and testing: by content.

So images added later change little, and near duplicates share a split. The rule is the same for
images from folders and from the web.
"""

from __future__ import annotations

import collections
from typing import Hashable, Sequence

from darknet_face.images.file_lists import SPLITS


def position(digest: str) -> float:
    """An image's position in [0, 1): the first 52 bits of its hexadecimal content hash."""
    return int(digest[:13], 16) / 16.0 ** 13


def split_groups(categories: Sequence[Hashable], digests: Sequence[str], groups: Sequence[int],
                 val_fraction: float, test_fraction: float) -> dict[int, str]:
    """The split of each group of near duplicates.

    An image whose :func:`position` is below ``test_fraction`` is for testing, below
    ``test_fraction + val_fraction`` for validation, and otherwise for training. In a category of
    three or more, the lowest is always for testing and the next for validation, so that every split
    has every such category. A group's split is that of the member that is farthest from testing.

    A new image moves others, and growing groups, towards training only: what was trained on never
    comes back for testing, not even under another name or category. There is one exception: the
    third of a category can move one from training to validation.

    Parameters
    ----------
    categories, digests, groups
        Of each image, duplicates included: without them, others could move towards testing.
    val_fraction, test_fraction
        Above 0, their sum below 1.
    """
    members: dict[Hashable, set[str]] = collections.defaultdict(set)
    for category, digest in zip(categories, digests):
        members[category].add(digest)
    split_of: dict[tuple[Hashable, str], str] = {}
    for category, of_category in members.items():
        ordered = sorted(of_category)
        tests = sum(position(digest) < test_fraction for digest in ordered)
        tests = max(1 if len(ordered) >= 3 else 0, tests)
        below = sum(position(digest) < test_fraction + val_fraction for digest in ordered)
        names = ["test"] * tests + ["val"] * max(1, below - tests) + ["train"] * len(ordered)
        split_of.update(((category, digest), name) for digest, name in zip(ordered, names))
    splits: dict[int, str] = {}
    for category, digest, group in zip(categories, digests, groups):
        split = split_of[category, digest]
        splits[group] = min(split, splits.get(group, split), key=SPLITS.index)
    return splits


def fill_empty(splits: dict[int, str], digests: Sequence[str], groups: Sequence[int]) -> None:
    """Give the empty ones of testing and validation a group each, if there are three groups.

    They are the groups whose highest :func:`position` is lowest. Large groups of near duplicates
    are hardly ever for testing otherwise.
    """
    highest: dict[int, float] = {}
    for digest, group in zip(digests, groups):
        highest[group] = max(position(digest), highest.get(group, 0.0))
    for split in ("test", "val"):
        trained = sorted((each for each in splits if splits[each] == "train"),
                         key=lambda each: highest[each])
        if split not in splits.values() and len(splits) >= 3 and len(trained) > 1:
            splits[trained[0]] = split
