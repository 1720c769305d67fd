"""The sliding window says of a window what the classifier says of it alone."""

import cv2
import numpy as np
import pytest

from darknet_face.classify.sliding_window import MOST_ENLARGED, SlidingWindow
from darknet_face.engines.engine import ENGINES, open_engine
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.images.wider_face import Face
from darknet_face.negatives.mining import hard_windows

SIZE = 64  # of the window: 2 x 2 cells


@pytest.fixture(scope="module", params=ENGINES)
def search(tiny_model, request):
    return SlidingWindow(open_engine(tiny_model.weights, SIZE, request.param), (1, 2))


def test_one_window_is_the_classifier(search, tiny_model):
    image = np.random.RandomState(0).randint(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    classifier = classifier_from_weights(tiny_model.weights, SIZE)
    scale, log_odds = next(search.log_odds_maps(image))
    probability = classifier(image[np.newaxis])[0, 0]
    assert scale == 1 and log_odds.shape == (1, 1)
    assert 1 / (1 + np.exp(-log_odds[0, 0])) == pytest.approx(probability, abs=1e-5)
    window, = search.find([image])
    assert window.probability >= probability - 1e-5


@pytest.mark.parametrize("shape, grids", [
    ((64, 64), [(1, 1), (3, 3)]), ((64, 128), [(1, 3), (3, 7)]), ((300, 100), [(5, 1), (11, 3)])])
def test_windows_cover_the_picture_at_every_scale(search, shape, grids):
    image = np.zeros(shape + (3,), np.uint8)
    found = list(search.log_odds_maps(image))
    assert [log_odds.shape for _, log_odds in found] == grids
    for (rows, columns) in grids:
        left, top, width, height = search.box(image.shape, (rows, columns), rows - 1, columns - 1)
        assert left + width == pytest.approx(shape[1]) and top + height == pytest.approx(shape[0])
        assert search.box(image.shape, (rows, columns), 0, 0)[:2] == (0, 0)


def test_small_pictures_are_not_blown_up(search):
    side = int(2 * SIZE / MOST_ENLARGED) - 1
    assert len(list(search.log_odds_maps(np.zeros((side, side, 3), np.uint8)))) == 1
    assert len(list(search.log_odds_maps(np.zeros((side + 2, side + 2, 3), np.uint8)))) == 2


@pytest.mark.parametrize("scale", [1, 2, 0.6])
def test_extreme_shapes_stay_small(search, scale):
    for shape in ((1, 20000, 3), (20000, 1, 3)):
        for _, log_odds in search.log_odds_maps(np.zeros(shape, np.uint8), [scale]):
            assert 0 < log_odds.size <= 100


def test_below_one_the_picture_lies_within_its_repeated_edges(search, tiny_model):
    """Against OpenCV's border around the image at its own size."""
    image = np.random.RandomState(4).randint(0, 256, (40, 40, 3)).astype(np.uint8)
    padded = cv2.copyMakeBorder(image, 12, 12, 12, 12, cv2.BORDER_REPLICATE)  # 64 = 40 / 0.625
    probability = classifier_from_weights(tiny_model.weights, SIZE)(padded[np.newaxis])[0, 0]
    (scale, log_odds), = search.log_odds_maps(image, [0.625])
    assert scale == 0.625 and log_odds.shape == (1, 1)
    assert 1 / (1 + np.exp(-log_odds[0, 0])) == pytest.approx(probability, abs=1e-5)
    assert search.box(image.shape, log_odds.shape, 0, 0, scale) == (0, 0, 40, 40)


@pytest.mark.parametrize("shape", [(100, 100), (100, 340), (901, 300), (7, 5)])
def test_below_one_the_boxes_lie_in_the_picture_and_cover_it(search, shape):
    image = np.zeros(shape + (3,), np.uint8)
    (_, log_odds), = search.log_odds_maps(image, [0.6])
    boxes = [search.box(image.shape, log_odds.shape, row, column, 0.6)
             for row, column in np.ndindex(*log_odds.shape)]
    assert all(box[0] >= 0 and box[1] >= 0 and box[2] > 0 and box[3] > 0
               and box[0] + box[2] <= shape[1] and box[1] + box[3] <= shape[0] for box in boxes)
    assert boxes[0][:2] == (0, 0)
    left, top, width, height = boxes[-1]
    assert (left + width, top + height) == pytest.approx(shape[::-1])


def test_the_window_is_the_highest_window(search, monkeypatch):
    image = np.random.RandomState(1).randint(0, 256, (150, 200, 3)).astype(np.uint8)
    image[60:110, 90:140] = 255
    highest = max((log_odds.max(), scale) for scale, log_odds in search.log_odds_maps(image))
    monkeypatch.setattr("darknet_face.classify.sliding_window.CERTAIN", 2)
    window, = search.find([image])
    assert window.scale == highest[1]
    assert window.probability == pytest.approx(1 / (1 + np.exp(-highest[0])), abs=1e-6)
    monkeypatch.setattr("darknet_face.classify.sliding_window.CERTAIN", 0)
    assert search.find([image])[0].scale == 1  # the first size is certain enough


def test_a_tight_box_lies_inside_the_certain_window(search, monkeypatch):
    """Against a search by hand through the windows of the next size."""
    image = np.random.RandomState(3).randint(0, 256, (150, 200, 3)).astype(np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr("darknet_face.classify.sliding_window.CERTAIN", 0)
        coarse = search.find([image])[0]._replace(probability=0.999)
    (_, _), (_, log_odds) = search.log_odds_maps(image)
    best = (-np.inf, None)
    for row, column in np.ndindex(*log_odds.shape):
        left, top, width, height = box = search.box(image.shape, log_odds.shape, row, column)
        if (coarse.left - 1 < left and left + width < coarse.left + coarse.width + 1
                and coarse.top - 1 < top and top + height < coarse.top + coarse.height + 1):
            best = max(best, (log_odds[row, column], box))
    monkeypatch.setattr("darknet_face.classify.sliding_window.TIGHT", 0)
    tight = search.tighten(image, coarse)
    assert tight[1:5] == best[1] and tight.scale == 2 and tight.probability == 0.999
    monkeypatch.setattr("darknet_face.classify.sliding_window.TIGHT", 1.1)
    assert search.tighten(image, coarse) == coarse
    assert search.tighten(image, coarse._replace(probability=0.9)) == coarse._replace(
        probability=0.9), "all scales were run"
    assert search.tighten(image, tight) == tight


def test_hard_windows_touch_no_face_and_not_each_other(search):
    image = np.random.RandomState(2).randint(0, 256, (200, 300, 3)).astype(np.uint8)
    faces = [Face(100, 50, 60, 60, True)]
    found = hard_windows(search, image, faces, least_log_odds=-1e9, most=4)
    assert found and [value for value, _ in found] == sorted(
        (value for value, _ in found), reverse=True)
    covered = np.zeros(image.shape[:2], int)
    for _, (left, top, side) in found:
        assert left >= 0 and top >= 0 and left + side <= 300 and top + side <= 200
        assert left + side <= 100 or left >= 160 or top + side <= 50 or top >= 110
        covered[top:top + side, left:left + side] += 1
    assert hard_windows(search, image, faces, least_log_odds=1e9) == []
