"""Crops hold the whole face that they are cut for; face-free windows touch none."""

import numpy as np

from darknet_face.images.crops import FACE_SHARES, face_crops, face_free_windows, touches
from darknet_face.images.wider_face import Face

FACES = [Face(50, 40, 30, 40, True), Face(200, 100, 60, 70, True), Face(300, 20, 8, 9, False)]
SHAPE = (240, 400, 3)


def test_a_crop_holds_its_face_and_lies_in_the_photograph():
    shares = []
    for seed in range(50):
        crops = face_crops(SHAPE, FACES[:2], np.random.RandomState(seed), per_face=2)
        assert len(crops) == 4
        for (left, top, side), face in zip(crops, (FACES[1], FACES[1], FACES[0], FACES[0])):
            assert left >= 0 and top >= 0 and left + side <= 400 and top + side <= 240
            assert left <= face.left and face.right <= left + side
            assert top <= face.top and face.bottom <= top + side
            shares.append(face.height / side)
    assert FACE_SHARES[0] <= min(shares) < 0.3 and 0.8 < max(shares) <= 1


def test_a_crop_may_cut_off_a_share_of_its_face():
    lost = []
    for seed in range(50):
        for left, top, side in face_crops(
                SHAPE, FACES[1:2], np.random.RandomState(seed), cut=0.35):
            face = FACES[1]
            assert left >= 0 and top >= 0 and left + side <= 400 and top + side <= 240
            seen = (min(face.right, left + side) - max(face.left, left),
                    min(face.bottom, top + side) - max(face.top, top))
            assert seen[0] >= 0.65 * face.width - 1 and seen[1] >= 0.65 * face.height - 1
            lost.append(1 - seen[0] * seen[1] / (face.width * face.height))
    assert np.mean(np.array(lost) > 0.05) > 0.2


def test_the_largest_faces_come_first():
    crops = face_crops(SHAPE, FACES[:2], np.random.RandomState(0), per_face=3, most=3)
    assert len(crops) == 3 and all(left <= 200 and left + side >= 260 for left, _, side in crops)


def test_a_face_larger_than_the_photograph_has_no_square():
    assert face_crops((50, 400, 3), [Face(0, 0, 60, 60, True)], np.random.RandomState(0)) == []


def test_windows_touch_no_face_not_even_an_unusable_one():
    count = 0
    for seed in range(50):
        windows = face_free_windows(SHAPE, FACES, np.random.RandomState(seed), most=8)
        count += len(windows)
        for left, top, side in windows:
            assert left >= 0 and top >= 0 and left + side <= 400 and top + side <= 240
            covered = np.zeros(SHAPE[:2], bool)
            covered[top:top + side, left:left + side] = True
            for face in FACES:
                assert not covered[face.top:face.bottom, face.left:face.right].any()
                assert not touches(face, left, top, side)
    assert count > 300


def test_a_photograph_full_of_faces_has_no_window():
    assert face_free_windows((50, 50, 3), [Face(0, 0, 50, 50, True)],
                             np.random.RandomState(0)) == []
