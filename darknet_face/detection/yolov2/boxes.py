"""The detector's numbers and boxes: encode faces for the loss, decode the network's output.

The network predicts five numbers per anchor and grid cell: t_x, t_y, t_w, t_h and t_o. With the
cell's corner c and the anchor's size p the paper defines (section 2, "Direct location prediction"):

    b_x = sigmoid(t_x) + c_x        b_w = p_w exp(t_w)        objectness = sigmoid(t_o)
    b_y = sigmoid(t_y) + c_y        b_h = p_h exp(t_h)

all in cells of 32 pixels. So an anchor has the same size in pixels at every input size, which is
what a convolution sees, and one network works at many sizes. The boxes that come in and go out are
shares of the image's sides.
"""

from __future__ import annotations

import typing

import numpy as np

from darknet_face.detection import NMS_IOU
from darknet_face.detection.yolov2.anchors import size_iou
from darknet_face.runtime.session import tf

NUMBERS = 5  # per anchor
MAX_LOG_SIZE = 8.0  # e^8 anchors wide: bounds what an untrained network says
MAX_DETECTIONS = 100  # per image
MIN_SCORE = 0.01


def encode(boxes: np.ndarray, grid: int, anchors: np.ndarray) -> np.ndarray:
    """What the network should predict for an image's faces.

    Each face belongs to the cell that its centre lies in, and there to the anchor whose shape has
    the highest IoU with it, or to the next best if a larger face has that one.

    Parameters
    ----------
    boxes
        float32, [n, 4], left, top, right, bottom, 0..1.
    grid
        Cells along a side.
    anchors
        [k, 2], in cells.

    Returns
    -------
    target
        float32, [grid, grid, k, 5]: the centre's place in its cell (0..1), log(size / anchor), and
        1 where a face is; zeros elsewhere.
    """
    target = np.zeros((grid, grid, len(anchors), NUMBERS), np.float32)
    sizes = (boxes[:, 2:] - boxes[:, :2]) * grid
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2 * grid
    order = size_iou(sizes, anchors).argsort(1)[:, ::-1]
    for index in sizes.prod(1).argsort()[::-1]:
        column, row = np.minimum(centers[index].astype(int), grid - 1)
        free = [anchor for anchor in order[index] if not target[row, column, anchor, 4]]
        if free:
            target[row, column, free[0]] = np.concatenate([
                centers[index] - (column, row), np.log(sizes[index] / anchors[free[0]]), [1]])
    return target


def decode(output: typing.Any, anchors: typing.Any) -> tuple[typing.Any, typing.Any]:
    """Boxes and objectness of the network's output.

    Parameters
    ----------
    output
        float32, [n, grid, grid, 5 k].
    anchors
        Array or tensor, float32, [k, 2], in cells.

    Returns
    -------
    boxes
        float32, [n, grid, grid, k, 4], left, top, right, bottom as shares of the image's sides.
    objectness
        float32, [n, grid, grid, k], 0..1.
    """
    numbers = split_anchors(output, int(anchors.shape[0]))
    return to_boxes(tf.sigmoid(numbers[..., :2]), numbers[..., 2:4], anchors), tf.sigmoid(
        numbers[..., 4])


def split_anchors(output: typing.Any, count: int) -> typing.Any:
    """[n, grid, grid, 5 k] to [n, grid, grid, k, 5]."""
    return tf.reshape(output, tf.concat([tf.shape(output)[:3], [count, NUMBERS]], 0))


def to_boxes(places: typing.Any, log_sizes: typing.Any, anchors: typing.Any) -> typing.Any:
    """Boxes from places within cells and logarithms of sizes: float32, [n, grid, grid, k, 4].

    Parameters
    ----------
    places, log_sizes
        float32, [n, grid, grid, k, 2]; see :func:`encode`.
    anchors
        Array or tensor, float32, [k, 2], in cells.
    """
    rows, columns = tf.shape(places)[1], tf.shape(places)[2]
    x, y = tf.meshgrid(tf.range(columns), tf.range(rows))
    corners = tf.cast(tf.stack([x, y], -1), tf.float32)[None, :, :, None]
    cells = tf.cast(tf.stack([columns, rows]), tf.float32)
    centers = (places + corners) / cells
    halves = tf.exp(tf.minimum(log_sizes, MAX_LOG_SIZE)) * anchors / 2 / cells
    return tf.concat([centers - halves, centers + halves], -1)


def iou(ours: typing.Any, theirs: typing.Any) -> typing.Any:
    """Intersection over union of boxes whose shapes broadcast: [..., 4] and [..., 4] to [...]."""
    overlap = tf.reduce_prod(tf.maximum(
        tf.minimum(ours[..., 2:], theirs[..., 2:]) - tf.maximum(ours[..., :2], theirs[..., :2]),
        0.0), -1)
    union = sum(tf.reduce_prod(tf.maximum(each[..., 2:] - each[..., :2], 0.0), -1)
                for each in (ours, theirs)) - overlap
    return overlap / tf.maximum(union, 1e-9)


def detections(output: typing.Any, anchors: typing.Any, min_score: typing.Any = MIN_SCORE,
               nms_iou: typing.Any = NMS_IOU) -> tuple[typing.Any, typing.Any]:
    """Faces of one image, by TensorFlow's non-maximum suppression.

    Parameters
    ----------
    output
        float32, [1, grid, grid, 5 k].
    anchors
        Array or tensor, float32, [k, 2], in cells.
    min_score
        Number or tensor: drop boxes with a lower objectness.
    nms_iou
        Number or tensor: of two boxes with a higher IoU, drop the one with the lower objectness.

    Returns
    -------
    boxes
        float32, [m, 4], clipped to the image, best first; m is at most MAX_DETECTIONS.
    scores
        float32, [m]: the objectness. With one class its probability is 1, so this is the score.
    """
    boxes, objectness = decode(output, anchors)
    boxes = tf.clip_by_value(tf.reshape(boxes, [-1, 4]), 0.0, 1.0)
    scores = tf.reshape(objectness, [-1])
    # It takes y before x; the IoU is the same in either order.
    kept = tf.image.non_max_suppression(boxes, scores, MAX_DETECTIONS, nms_iou, min_score)
    return tf.gather(boxes, kept, name="boxes"), tf.gather(scores, kept, name="scores")
