"""Average precision: pycocotools on cases with a known result."""

import numpy as np
import pytest

from darknet_face.detection.evaluate import at_least, average_precision

NONE = np.zeros((0, 4), np.float32)
FACE = np.float32([[0.1, 0.1, 0.3, 0.3]])
FAR = np.float32([[0.6, 0.6, 0.8, 0.8]])


def found(*scored):
    boxes = np.concatenate([box for box, _ in scored]) if scored else NONE
    return boxes, np.float32([score for _, score in scored])


@pytest.mark.parametrize("truths, detections, expected", [
    ([(FACE, NONE)], [found((FACE, 0.9))], 1.0),
    ([(FACE, NONE)], [found()], 0.0),
    ([(FACE, NONE)], [found((FAR, 0.9))], 0.0),
    # A false one above: the precision is 1 / 2 at every recall.
    ([(FACE, NONE)], [found((FAR, 0.9), (FACE, 0.8))], 0.5),
    # One of two faces found: precision 1 up to recall 0.5, which is 51 of COCO's 101 recalls.
    ([(np.concatenate([FACE, FAR]), NONE)], [found((FACE, 0.9))], 51 / 101),
    # A face found twice counts as one right and one wrong, below it: no harm to the precision.
    ([(FACE, NONE)], [found((FACE, 0.9), (FACE, 0.8))], 1.0),
    # Ignored faces count neither way.
    ([(FACE, FAR)], [found((FAR, 0.9), (FACE, 0.8))], 1.0),
    # Scores are compared across photographs.
    ([(FACE, NONE), (FACE, NONE)], [found((FACE, 0.5)), found((FAR, 0.9))], 51 / 101 / 2),
])
def test_known_results(truths, detections, expected):
    assert average_precision(truths, detections) == pytest.approx([expected] * 2, abs=1e-6)


def test_each_iou_has_its_own_precision():
    shifted = FACE + np.float32([0.07, 0, 0.07, 0])  # IoU 0.13 / 0.27 = 0.48
    precision = average_precision([(FACE, NONE)], [found((shifted, 0.9))])
    assert precision == pytest.approx([1, 0])


def test_no_faces_at_all():
    assert np.isnan(average_precision([(NONE, NONE)], [found((FACE, 0.9))])).all()


def test_threshold():
    (boxes, scores), = at_least([found((FACE, 0.9), (FAR, 0.05))], 0.1)
    assert len(boxes) == 1 and scores == [np.float32(0.9)]


def test_equals_scikit_learn_where_no_box_is_wrong_in_place():
    """With one candidate per photograph the AP is that of a ranking, but for the interpolation."""
    rng = np.random.RandomState(0)
    truths, detections, right = [], [], []
    for _ in range(300):
        right.append(rng.rand() < 0.6)
        score = rng.rand() * 0.5 + 0.4 * right[-1]
        truths.append((FACE, NONE) if right[-1] else (NONE, NONE))
        detections.append(found((FACE, score)))
    from sklearn.metrics import average_precision_score

    expected = average_precision_score(right, [scores[0] for _, scores in detections])
    assert average_precision(truths, detections)[1] == pytest.approx(expected, abs=0.01)
