"""YOLOv2's loss, as the paper and darknet's region layer have it, for one class.

Squared errors, summed over an image and averaged over the batch:

- places and logarithms of sizes of the anchors that have a face, weighted by 2 - w h, so that
  small faces count up to twice as much as one that fills the image;
- objectness of those anchors, whose target is the IoU of the predicted box with the face, times 5;
- objectness of all others, whose target is 0. Boxes with an IoU over 0.6 with any face are
  skipped, for they are right about it although another anchor has it; so are boxes on ignored
  faces.

There is no term for the class: with one class its softmax is always 1.
Source: "YOLO9000", 2016, section 2, and the scales of darknet's ``cfg/yolov2-voc.cfg``.
"""

from __future__ import annotations

import collections
import typing

import numpy as np

from darknet_face.detection.yolov2.boxes import iou, split_anchors, to_boxes
from darknet_face.runtime.session import tf

OBJECT_SCALE = 5.0
NO_OBJECT_SCALE = 1.0
IGNORE_IOU = 0.6
IGNORED_COVER = 0.5  # share of a predicted box that ignored faces cover

# Scalars, float32: they add up to the total. iou: the mean IoU of the boxes that have a face.
Loss = collections.namedtuple("Loss", "total place size object no_object iou")


def yolo_loss(output: typing.Any, target: typing.Any, faces: typing.Any, ignored: typing.Any,
              anchors: np.ndarray) -> Loss:
    """The loss of a batch.

    Parameters
    ----------
    output
        float32, [n, grid, grid, 5 k], the network's.
    target
        float32, [n, grid, grid, k, 5]: see :func:`darknet_face.detection.yolov2.boxes.encode`.
    faces, ignored
        float32, [n, m, 4], left, top, right, bottom, 0..1; rows of zeros fill up.
    anchors
        float32, [k, 2], in cells.
    """
    numbers = split_anchors(output, len(anchors))
    places, log_sizes = tf.sigmoid(numbers[..., :2]), numbers[..., 2:4]
    objectness, has_face = tf.sigmoid(numbers[..., 4]), target[..., 4]
    # The boxes serve as targets of the objectness only, so no gradient passes through them.
    boxes = tf.stop_gradient(to_boxes(places, log_sizes, anchors))
    truth = to_boxes(target[..., :2], target[..., 2:4], anchors)
    weight = has_face * (2 - tf.reduce_prod(truth[..., 2:] - truth[..., :2], -1))
    overlap = iou(boxes, truth)
    quiet = (1 - has_face) * _is_background(boxes, faces, ignored)
    parts = [
        _per_image(weight[..., None] * tf.square(places - target[..., :2])),
        _per_image(weight[..., None] * tf.square(log_sizes - target[..., 2:4])),
        OBJECT_SCALE * _per_image(has_face * tf.square(objectness - overlap)),
        NO_OBJECT_SCALE * _per_image(quiet * tf.square(objectness)),
    ]
    mean_iou = tf.reduce_sum(has_face * overlap) / tf.maximum(tf.reduce_sum(has_face), 1.0)
    return Loss(tf.add_n(parts, name="loss"), *(parts + [mean_iou]))


def _per_image(errors: typing.Any) -> typing.Any:
    return tf.reduce_sum(errors) / tf.cast(tf.shape(errors)[0], tf.float32)


def _is_background(boxes: typing.Any, faces: typing.Any, ignored: typing.Any) -> typing.Any:
    """1 for predicted boxes whose objectness should be 0: float32, [n, grid, grid, k]."""
    best = tf.reduce_max(iou(boxes[..., None, :], faces[:, None, None, None]), -1)
    corners = ignored[:, None, None, None]
    boxes = boxes[..., None, :]
    sides = tf.minimum(boxes[..., 2:], corners[..., 2:]) - tf.maximum(
        boxes[..., :2], corners[..., :2])
    covered = tf.reduce_sum(tf.reduce_prod(tf.maximum(sides, 0.0), -1), -1)
    area = tf.reduce_prod(boxes[..., 0, 2:] - boxes[..., 0, :2], -1)
    return tf.cast((best <= IGNORE_IOU) & (covered <= IGNORED_COVER * area), tf.float32)
