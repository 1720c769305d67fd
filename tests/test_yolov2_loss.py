"""The YOLOv2 example's loss, against a plain NumPy version and finite differences."""

import numpy as np
import pytest

from darknet_face.detection.yolov2.boxes import encode
from darknet_face.detection.yolov2.loss import yolo_loss
from darknet_face.runtime.session import tf

ANCHORS = np.float32([[0.4, 0.6], [1.0, 0.8]])  # in cells
GRID = 2


def make_case(seed=0):
    """An output, its target, and the faces: two in the first image, one in the second."""
    rng = np.random.RandomState(seed)
    output = rng.randn(2, GRID, GRID, 10).astype(np.float32)
    faces = np.zeros((2, 3, 4), np.float32)
    faces[0, :2] = [[0.1, 0.15, 0.35, 0.4], [0.5, 0.5, 0.95, 0.9]]
    faces[1, 0] = [0.3, 0.6, 0.45, 0.85]
    target = np.stack([encode(each[each.any(1)], GRID, ANCHORS) for each in faces])
    return output, target, faces, np.zeros((2, 1, 4), np.float32)


def run_loss(output, target, faces, ignored):
    with tf.Graph().as_default(), tf.Session() as session:
        placed = tf.constant(output)
        loss = yolo_loss(placed, *(tf.constant(each) for each in (target, faces, ignored)),
                         anchors=ANCHORS)
        return session.run([loss, tf.gradients(loss.total, placed)[0]])


def plain_iou(ours, theirs):
    sides = np.minimum(ours[2:], theirs[2:]) - np.maximum(ours[:2], theirs[:2])
    overlap = np.maximum(sides, 0).prod()
    return overlap / ((ours[2:] - ours[:2]).prod() + (theirs[2:] - theirs[:2]).prod() - overlap)


def plain_loss(output, target, faces, fixed=None):
    """The loss by loops, in float64; ``fixed`` gives the boxes, which count as constants."""
    parts = dict.fromkeys(("place", "size", "object", "no_object"), 0.0)
    numbers = output.astype(np.float64).reshape(2, GRID, GRID, 2, 5)
    fixed = numbers if fixed is None else fixed.astype(np.float64).reshape(numbers.shape)

    def sigmoid(value):
        return 1 / (1 + np.exp(-value))

    for n, row, column, k in np.ndindex(2, GRID, GRID, 2):
        x, y, w, h, o = numbers[n, row, column, k]
        wanted = target[n, row, column, k].astype(np.float64)
        said = fixed[n, row, column, k]
        center = (sigmoid(said[:2]) + [column, row]) / GRID
        half = ANCHORS[k] / GRID * np.exp(said[2:4]) / 2
        box = np.concatenate([center - half, center + half])
        real = [face.astype(np.float64) for face in faces[n] if face.any()]
        if wanted[4]:
            size = ANCHORS[k] / GRID * np.exp(wanted[2:4])
            middle = (wanted[:2] + [column, row]) / GRID
            face = np.concatenate([middle - size / 2, middle + size / 2])
            weight = 2 - size.prod()
            parts["place"] += weight * np.square(sigmoid(np.array([x, y])) - wanted[:2]).sum()
            parts["size"] += weight * np.square(np.array([w, h]) - wanted[2:4]).sum()
            parts["object"] += 5 * np.square(sigmoid(o) - plain_iou(box, face))
        elif max(plain_iou(box, face) for face in real) <= 0.6:
            parts["no_object"] += np.square(sigmoid(o))
    return {name: value / 2 for name, value in parts.items()}


@pytest.mark.parametrize("seed", range(3))
def test_parts_equal_a_plain_version(seed):
    output, target, faces, ignored = make_case(seed)
    loss, _ = run_loss(output, target, faces, ignored)
    expected = plain_loss(output, target, faces)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(loss, name), value, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(loss.total, sum(expected.values()), rtol=1e-4)


def test_gradient_equals_finite_differences():
    output, target, faces, ignored = make_case(4)
    _, gradient = run_loss(output, target, faces, ignored)
    step, expected = 1e-5, np.zeros(output.shape)
    for place in np.ndindex(*output.shape):
        ends = []
        for sign in (1, -1):
            moved = output.astype(np.float64)
            moved[place] += sign * step
            ends.append(sum(plain_loss(moved, target, faces, output).values()))
        expected[place] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=1e-5)


def test_a_perfect_output_costs_nothing():
    _, target, faces, ignored = make_case()
    places = np.clip(target[..., :2], 1e-6, 1 - 1e-6)
    numbers = np.concatenate([np.log(places / (1 - places)), target[..., 2:4],
                              np.where(target[..., 4:], 20.0, -20.0)], -1)
    loss, _ = run_loss(numbers.reshape(2, GRID, GRID, 10).astype(np.float32), target, faces,
                       ignored)
    assert loss.total < 1e-4 and loss.iou > 0.999


def test_boxes_on_ignored_faces_cost_nothing():
    output, target, faces, ignored = make_case()
    everywhere = np.tile(np.float32([-9, -9, 9, 9]), (2, 1, 1))
    assert run_loss(output, target, faces, ignored)[0].no_object > 0
    assert run_loss(output, target, faces, everywhere)[0].no_object == 0


def test_a_picture_without_faces():
    output, target, faces, ignored = make_case()
    loss, gradient = run_loss(output, target * 0, faces * 0, ignored)
    assert loss.total == loss.no_object > 0 and loss.iou == 0 and np.isfinite(gradient).all()
