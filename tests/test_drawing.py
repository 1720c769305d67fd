"""What the augmentation draws over faces, and its light: python -m pytest tests/test_drawing.py"""

import numpy as np
import pytest

from darknet_face.training import augment, light, occlusions
from darknet_face.training.augment import Augmenter

SIZE = 160
# Of an aligned face, stretched.
FOREHEAD, EYES, MOUTH = np.s_[30:60, 55:105], np.s_[76:82, 55:105], np.s_[105:120, 62:98]
NAMES = sorted(occlusions.SHARES["hard"])


@pytest.fixture
def grey():
    return np.full((SIZE, SIZE, 3), 128, np.uint8)


@pytest.fixture
def stripes(grey):
    grey[:, ::2] = 255
    return grey


def wear(name, square, is_face, seed, *textures):
    """An image that wears one thing and nothing else."""
    return occlusions.cover(square, is_face, np.random.RandomState(seed), textures, dict(
        {"mask": (0, 0, 0)}, **{name: (1, 1, 1)}))


def contrast(image, part):
    """How much neighbours differ: 127 on the stripes, little where something covers them."""
    return np.abs(np.diff(image[part].astype(int), axis=1)).mean()


@pytest.mark.parametrize("name, covered, free, eyes", [
    ("mask", MOUTH, np.s_[:60], True), ("cap", FOREHEAD, np.s_[100:], True),
    ("hood", None, MOUTH, True), ("fringe", FOREHEAD, MOUTH, None),
    ("glasses", None, np.s_[112:], None)])
def test_things_cover_their_part_of_a_face(stripes, name, covered, free, eyes):
    for seed in range(30):
        worn = wear(name, stripes, True, seed)
        assert (worn != stripes).any()
        np.testing.assert_array_equal(worn[free], stripes[free])
        if covered:  # a print's own edges are left, in some cloths
            assert contrast(worn, covered) < 80, "seed {}".format(seed)
        if eyes is not None:
            assert ((worn[EYES] == stripes[EYES]).mean() > 0.9) == eyes


def test_something_before_a_face_leaves_most_of_it(stripes):
    face = np.s_[int(0.22 * SIZE):int(0.95 * SIZE), int(0.2 * SIZE):int(0.8 * SIZE)]
    shares = [(wear("thing", stripes, True, seed)[face]
               != stripes[face]).any(2).mean() for seed in range(100)]
    assert 0.1 < np.mean(shares) < 0.4 and max(shares) < 0.75


def test_objects_are_made_of_other_images(grey):
    red = np.zeros_like(grey)
    red[..., 0] = 200
    seen = [(wear("thing", grey, True, seed, red) == red[0, 0]).all(2)
            .mean() for seed in range(60)]
    assert 0.2 < np.mean(np.array(seen) > 0.02) < 0.7


@pytest.mark.parametrize("name", NAMES)
def test_on_other_images_they_lie_anywhere(grey, name):
    """The means of many show no face's outline: the shape says nothing about the class."""
    changed = np.mean([
        (wear(name, grey, False, seed) != grey).any(2)
        for seed in range(200)], 0)
    assert changed[:SIZE // 3].mean() > 0.01 and changed[SIZE // 2:].mean() > 0.01
    assert changed.max() < 0.9


@pytest.mark.parametrize("kind", ["all", "hard"])
@pytest.mark.parametrize("is_face", [True, False])
def test_the_shares_are_kept(grey, is_face, kind):
    rng, shares = np.random.RandomState(0), occlusions.SHARES[kind]
    worn = np.mean([occlusions.cover(grey, is_face, rng, (), shares) is not grey
                    for _ in range(1000)])
    bare = np.prod([1 - each[0 if is_face else 2] for each in shares.values()])
    assert abs(worn - (1 - bare)) < 0.04


def test_only_faces_whose_place_is_known_wear_it(monkeypatch, grey):
    worn = []
    monkeypatch.setattr(augment, "cover", lambda square, is_face, rng, textures, shares: (
        worn.append((is_face, len(textures))) or square))
    Augmenter(64)([grey] * 4, [0, 0, 1, 1], seed=3, aligned=[True, False, True, False])
    assert worn == [(True, 2), (False, 2), (False, 2)]


class TestLight:
    @pytest.mark.parametrize("kind, share", [("all", 0.2), ("hard", 0.3)])
    def test_its_share_is_kept(self, grey, kind, share):
        rng = np.random.RandomState(0)
        lit = np.mean([light.light(grey, rng, kind) is not grey for _ in range(1000)])
        assert abs(lit - share) < 0.05

    def test_every_lamp_does_what_it_says(self, grey):
        image = grey.astype(np.float32)
        image[:, 40:80] -= 60
        rng = np.random.RandomState(1)
        for _ in range(20):
            assert light._night(image, rng).mean() < 0.51 * image.mean()
            side = light._from_one_side(grey, rng)
            assert np.ptp(side) > 10 and not np.ptp(side, 2).any()
            shadow = light._half_shadow(grey, rng)
            between = (shadow > shadow.min() + 1) & (shadow < shadow.max() - 1)
            assert np.ptp(shadow) > 40 and between.mean() < 0.3, "a clear edge"
            assert np.ptp(light._coloured(image, rng), 2).max() > 5
            assert np.ptp(light._blown_out(image, rng)) > 1.5 * np.ptp(image)
