"""The cloth masks that the augmentation draws: python -m pytest tests/test_masks.py"""

import numpy as np
import pytest

from training import augment
from training.augment import Augmenter

SIZE = 160
EYES, MOUTH = np.s_[70:84, 55:105], np.s_[105:120, 62:98]  # of an aligned face, stretched


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(augment, "MASKED_SHARE", 1)
    monkeypatch.setattr(augment, "STRAY_MASK_SHARE", 1)


@pytest.fixture
def grey():
    return np.full((SIZE, SIZE, 3), 128, np.uint8)


def test_a_mask_covers_the_mouth_and_leaves_the_eyes(always, grey):
    """On stripes: what the cloth covers has lost them."""
    stripes = grey.copy()
    stripes[:, ::2] = 255
    for seed in range(30):
        worn = augment._wear_mask(stripes, True, np.random.RandomState(seed))
        assert (worn[EYES] == stripes[EYES]).mean() > 0.95
        across = np.abs(np.diff(worn[MOUTH].astype(int), axis=1))
        assert across.mean() < 40, "seed {}: the picture's own stripes differ by 127".format(seed)
        np.testing.assert_array_equal(worn[:60], stripes[:60])


def test_stray_masks_lie_anywhere(always, grey):
    """The means of many show no face's outline: the shape says nothing about the class."""
    changed = np.mean([(augment._wear_mask(grey, False, np.random.RandomState(seed)) != grey).any(2)
                       for seed in range(200)], 0)
    assert changed[:SIZE // 3].mean() > 0.05 and changed[SIZE // 2:].mean() > 0.1
    assert changed.max() < 0.9


def test_the_shares_are_kept(grey):
    for is_face, share in ((True, augment.MASKED_SHARE), (False, augment.STRAY_MASK_SHARE)):
        rng = np.random.RandomState(0)
        worn = np.mean([augment._wear_mask(grey, is_face, rng) is not grey for _ in range(2000)])
        assert abs(worn - share) < 0.03


def test_only_faces_whose_place_is_known_wear_one(monkeypatch, grey):
    worn = []
    monkeypatch.setattr(augment, "_wear_mask",
                        lambda square, is_face, rng: worn.append(is_face) or square)
    Augmenter(64)([grey] * 4, [0, 0, 1, 1], seed=3, aligned=[True, False, True, False])
    assert worn == [True, False, False]
