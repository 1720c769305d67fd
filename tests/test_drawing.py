"""The cloth that the augmentation draws: python -m pytest tests/test_drawing.py"""

import numpy as np
import pytest

from darknet_face.training import augment, occlusions
from darknet_face.training.augment import Augmenter

SIZE = 160
# Of an aligned face, stretched.
FOREHEAD, EYES, MOUTH = np.s_[30:60, 55:105], np.s_[76:82, 55:105], np.s_[105:120, 62:98]


@pytest.fixture
def grey():
    return np.full((SIZE, SIZE, 3), 128, np.uint8)


@pytest.mark.parametrize("cloth, covered, free", [
    (occlusions.MASK, MOUTH, np.s_[:60]), (occlusions.CAP, FOREHEAD, np.s_[100:])])
def test_cloth_covers_its_part_and_leaves_the_eyes(monkeypatch, grey, cloth, covered, free):
    """On stripes: what the cloth covers has lost them."""
    monkeypatch.setattr(occlusions, "SHARES", {cloth: (1, 1)})
    stripes = grey.copy()
    stripes[:, ::2] = 255
    for seed in range(30):
        worn = occlusions.wear_cloth(stripes, True, np.random.RandomState(seed))
        assert (worn[EYES] == stripes[EYES]).mean() > 0.9
        across = np.abs(np.diff(worn[covered].astype(int), axis=1))
        assert across.mean() < 40, "seed {}: the image's own stripes differ by 127".format(seed)
        np.testing.assert_array_equal(worn[free], stripes[free])


@pytest.mark.parametrize("cloth", [occlusions.MASK, occlusions.CAP])
def test_stray_cloth_lies_anywhere(monkeypatch, grey, cloth):
    """The means of many show no face's outline: the shape says nothing about the class."""
    monkeypatch.setattr(occlusions, "SHARES", {cloth: (1, 1)})
    changed = np.mean([
        (occlusions.wear_cloth(grey, False, np.random.RandomState(seed)) != grey).any(2)
        for seed in range(200)], 0)
    assert changed[:SIZE // 3].mean() > 0.05 and changed[SIZE // 2:].mean() > 0.1
    assert changed.max() < 0.9


@pytest.mark.parametrize("is_face", [True, False])
def test_the_shares_are_kept(grey, is_face):
    rng = np.random.RandomState(0)
    worn = np.mean([occlusions.wear_cloth(grey, is_face, rng) is not grey for _ in range(2000)])
    mask, cap = (shares[not is_face] for shares in occlusions.SHARES.values())
    assert abs(worn - (1 - (1 - mask) * (1 - cap))) < 0.03


def test_only_faces_whose_place_is_known_wear_it(monkeypatch, grey):
    worn = []
    monkeypatch.setattr(augment, "wear_cloth",
                        lambda square, is_face, rng: worn.append(is_face) or square)
    Augmenter(64)([grey] * 4, [0, 0, 1, 1], seed=3, aligned=[True, False, True, False])
    assert worn == [True, False, False]
