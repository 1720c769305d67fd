"""The YOLOv2 example's anchors and boxes: clusters, encoding and decoding, suppression."""

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.detection.yolov2.anchors import find_anchors, mean_best_iou, size_iou
from darknet_face.detection.yolov2.boxes import decode, detections, encode, iou
from darknet_face.runtime.session import tf

ANCHORS = np.float32([[0.4, 0.5], [0.8, 1.2], [2.0, 1.6]])  # in cells


def logit(share):
    return np.log(share / (1 - share))


def evaluate(tensor):
    with tf.Session() as session:
        return session.run(tensor)


def test_iou_of_sizes_by_hand():
    found = size_iou(np.float32([[2, 2], [1, 4]]), np.float32([[2, 2], [4, 1], [1, 1]]))
    np.testing.assert_allclose(found, [[1, 2 / 6, 1 / 4], [2 / 6, 1 / 7, 1 / 4]], rtol=1e-6)


def test_anchors_find_the_clusters():
    rng = np.random.RandomState(0)
    centers = np.float32([[0.05, 0.07], [0.2, 0.25], [0.6, 0.5]])
    sizes = np.concatenate([center * rng.uniform(0.95, 1.05, (50, 2)) for center in centers])
    anchors = find_anchors(sizes, 3, seed=1)
    np.testing.assert_allclose(anchors, centers, rtol=0.03)
    assert mean_best_iou(sizes, anchors) > 0.93


def test_more_anchors_fit_better():
    sizes = np.random.RandomState(0).uniform(0.05, 0.9, (300, 2))
    fits = [mean_best_iou(sizes, find_anchors(sizes, count)) for count in (1, 3, 6, 9)]
    assert fits == sorted(fits)


def test_too_few_sizes():
    with pytest.raises(UserError, match="2 distinct face sizes are too few for 5 anchors"):
        find_anchors(np.float32([[0.1, 0.1], [0.2, 0.2], [0.2, 0.2]]), 5)


def random_boxes(count, rng):
    sizes, corners = rng.uniform(0.05, 0.5, (count, 2)), rng.uniform(0, 0.5, (count, 2))
    return np.concatenate([corners, corners + sizes], 1).astype(np.float32)


@pytest.mark.parametrize("grid", [3, 7, 13])
def test_decoding_inverts_encoding(grid):
    boxes = random_boxes(6, np.random.RandomState(grid))
    target = encode(boxes, grid, ANCHORS)
    assert target.shape == (grid, grid, 3, 5) and target[..., 4].sum() == 6
    numbers = np.concatenate([logit(np.clip(target[..., :2], 1e-6, 1 - 1e-6)), target[..., 2:4],
                              np.where(target[..., 4:], 20.0, -20.0)], -1)
    decoded, objectness = evaluate(decode(
        tf.constant(numbers.reshape(1, grid, grid, 15).astype(np.float32)), ANCHORS))
    found = decoded[objectness > 0.5]
    order = [np.abs(found - box).sum(1).argmin() for box in boxes]
    assert sorted(order) == list(range(6))
    np.testing.assert_allclose(found[order], boxes, atol=1e-4)


def test_a_box_has_the_same_size_in_pixels_at_every_input_size():
    """What the network says in a cell, it says of the pixels around it: darknet's anchors."""
    for grid in (4, 9):
        boxes, _ = evaluate(decode(tf.zeros([1, grid, grid, 15]), ANCHORS))
        pixels = (boxes[0, 1, 2, :, 2:] - boxes[0, 1, 2, :, :2]) * grid * 32
        np.testing.assert_allclose(pixels, ANCHORS * 32, rtol=1e-5)


def test_faces_in_one_cell_take_different_anchors():
    boxes = np.float32([[0.4, 0.4, 0.6, 0.7], [0.42, 0.42, 0.58, 0.68], [0.45, 0.5, 0.55, 0.62]])
    target = encode(boxes, 2, ANCHORS)
    assert target[..., 4].sum() == 3 and target[1, 1, :, 4].sum() + target[1, 0, :, 4].sum() == 3


def test_a_face_at_the_far_corner_stays_in_the_grid():
    target = encode(np.float32([[1, 1, 1, 1]]) - np.float32([[1e-3, 1e-3, 0, 0]]), 4, ANCHORS)
    assert target[3, 3, :, 4].sum() == 1 and (target[..., :2] <= 1).all()


def test_iou_by_hand():
    ours = np.float32([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 0, 0]])
    theirs = np.float32([[1, 1, 3, 3], [0, 0, 1, 1], [0, 0, 1, 1]])
    np.testing.assert_allclose(evaluate(iou(tf.constant(ours), tf.constant(theirs))), [1 / 7, 1, 0])


def test_suppression_keeps_the_best_of_overlapping_boxes():
    target = encode(np.float32([[0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.7, 0.72]]), 4, ANCHORS)
    numbers = np.concatenate([logit(np.clip(target[..., :2], 1e-4, 1 - 1e-4)), target[..., 2:4],
                              np.full((4, 4, 3, 1), -9.0)], -1)
    faces = np.argwhere(target[..., 4])
    for score, (row, column, anchor) in zip((2.0, 1.0), faces):
        numbers[row, column, anchor, 4] = score
    row, column, anchor = faces[0]
    other = (anchor + 1) % 3  # nearly the same box from another anchor, with a lower score
    numbers[row, column, other] = numbers[row, column, anchor]
    numbers[row, column, other, 2:4] += np.log(ANCHORS[anchor] / ANCHORS[other]) + 0.02
    numbers[row, column, other, 4] = 1.5
    output = tf.constant(numbers.reshape(1, 4, 4, 15).astype(np.float32))
    boxes, scores = evaluate(detections(output, ANCHORS, 0.5))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp([-2.0, -1.0])), rtol=1e-5)
    np.testing.assert_allclose(boxes, [[0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.7, 0.72]], atol=1e-3)
    assert len(evaluate(detections(output, ANCHORS, 0.5, 0.99))[0]) == 3
