"""The one-pass detector's targets, graph and loss."""

import numpy as np
import pytest

from darknet_face.detection import pyramid, targets
from darknet_face.runtime.session import tf

NONE = np.zeros((0, 4), np.float32)


def levels(target, size):
    """The target of each level as a grid."""
    start = 0
    for level in targets.LEVELS:
        side = size // level.stride
        yield target[start:start + side * side].reshape(side, side, -1)
        start += side * side


@pytest.mark.parametrize("side, found_by", [(9, 0), (20, 0), (50, 1), (100, 2), (300, 2)])
def test_a_face_belongs_to_the_level_of_its_size(side, found_by):
    box = np.float32([[112 - side / 2, 112 - side / 2, 112 + side / 2, 112 + side / 2]])
    target = targets.encode(box, NONE, 224)
    assert len(target) == targets.count_cells(224, 224) == 28 * 28 + 14 * 14 + 7 * 7
    counts = [(grid[..., 0] == targets.FACE).sum() for grid in levels(target, 224)]
    assert counts[found_by] >= 1 and sum(counts) == counts[found_by]
    assert (target[target[:, 0] == targets.FACE, 1:] == box).all()


def test_the_cells_around_the_centre_find_a_face():
    coarse = list(levels(targets.encode(np.float32([[60, 60, 164, 164]]), NONE, 224), 224))[2]
    assert np.argwhere(coarse[..., 0] == targets.FACE).tolist() == [
        [row, column] for row in (2, 3, 4) for column in (2, 3, 4)]


def test_a_face_between_two_sizes_is_no_background_for_either():
    fine, middle, _ = levels(targets.encode(np.float32([[40, 40, 70, 70]]), NONE, 224), 224)
    assert (fine[..., 0] == targets.FACE).any() and (middle[..., 0] == targets.IGNORED).any()


def test_the_smaller_of_two_faces_wins_a_cell_and_ignored_ones_are_not_background():
    faces = np.float32([[50, 50, 62, 62], [44, 44, 70, 70]])
    target = targets.encode(faces, np.float32([[150, 150, 200, 200]]), 224)
    fine = next(levels(target, 224))
    assert fine[6, 6, 1:].tolist() == faces[0].tolist()
    assert (fine[19:25, 19:25, 0] == targets.IGNORED).all() and (fine[:5, :, 0] == 0).all()


def test_distances_decode_to_boxes():
    rng = np.random.RandomState(0)
    output = rng.randn(2, targets.count_cells(64, 96), 5).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        boxes = session.run(pyramid.decode(tf.constant(output), 64, 96))
    start = 0
    for level in targets.LEVELS:
        rows, columns = 64 // level.stride, 96 // level.stride
        cell = 1 * columns + 2  # the third cell of the second row
        center = np.float32([2.5, 1.5]) * level.stride
        distances = np.exp(output[:, start + cell, 1:]) * level.stride
        np.testing.assert_allclose(boxes[:, start + cell, :2], center - distances[:, :2], rtol=1e-4,
                                   atol=1e-4)
        np.testing.assert_allclose(boxes[:, start + cell, 2:], center + distances[:, 2:], rtol=1e-4,
                                   atol=1e-4)
        start += rows * columns


@pytest.mark.parametrize("ours, theirs, iou, generalized", [
    ([0, 0, 2, 2], [0, 0, 2, 2], 1, 1),
    ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3, 1 / 3),
    ([0, 0, 1, 1], [3, 0, 4, 1], 0, -0.5),  # the hull is twice as large as both
])
def test_generalized_iou(ours, theirs, iou, generalized):
    with tf.Graph().as_default(), tf.Session() as session:
        found = session.run(pyramid.overlaps(
            tf.constant([ours], tf.float32), tf.constant([theirs], tf.float32)))
    np.testing.assert_allclose(np.ravel(found), [iou, generalized], rtol=1e-5, atol=1e-6)


def loss_of(output, target):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(pyramid.detector_loss(
            tf.constant(output, tf.float32), tf.constant(target, tf.float32), 64))


def test_the_loss_of_a_right_answer_is_small_and_ignored_cells_do_not_count():
    target = targets.encode(np.float32([[8, 8, 40, 40]]), np.float32([[48, 48, 64, 64]]), 64)[None]
    right = np.zeros((1, target.shape[1], 5), np.float32)
    right[..., 0] = np.where(target[..., 0] == targets.FACE, 9, -9)
    start, centers = 0, []
    for level in targets.LEVELS:
        side = 64 // level.stride
        y, x = np.mgrid[:side, :side] * level.stride + level.stride / 2
        centers.append(np.stack([x.ravel(), y.ravel(), np.full(side * side, level.stride)], 1))
        start += side * side
    x, y, stride = np.concatenate(centers).T
    faces = target[0, :, 0] == targets.FACE
    distances = np.stack([x - 8, y - 8, 40 - x, 40 - y], 1)[faces] / stride[faces, None]
    right[0, faces, 1:] = np.log(np.maximum(distances, 1e-3))
    loss = loss_of(right, target)
    assert loss.total < 0.01 and loss.iou > 0.99
    ignored = right.copy()
    ignored[0, target[0, :, 0] == targets.IGNORED, 0] = 9
    assert loss_of(ignored, target).total == pytest.approx(loss.total, abs=1e-6)
    wrong = right.copy()
    wrong[0, 0, 0] = 9  # a certain face in the background
    assert loss_of(wrong, target).score > loss.score + 0.5


@pytest.mark.parametrize("width, weights", [(0.25, 1316327), (0.125, None)])
def test_the_network_is_small_and_takes_any_multiple_of_32(width, weights):
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, None, None, 3])
        output = pyramid.build_network(images, width)
        variables = pyramid.network_variables()
        session.run(tf.global_variables_initializer())
        found = session.run(output, {images: np.zeros((2, 64, 96, 3))})
    count = sum(int(np.prod(each.shape.as_list())) for each in variables)
    assert {each.op.name: tuple(each.shape.as_list()) for each in variables
            } == pyramid.variable_shapes(width)
    assert found.shape == (2, targets.count_cells(64, 96), 5)
    assert weights in (None, count) and not any("conv_18" in each.op.name for each in variables)
    np.testing.assert_allclose(1 / (1 + np.exp(-found[..., 0])), pyramid.PRIOR, rtol=0.5)
