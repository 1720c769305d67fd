"""Heat maps: the windows' own numbers, at the right places, at any size."""

import cv2
import numpy as np
import pytest
from conftest import WIDTH

from darknet_face.classify import heatmaps
from darknet_face.classify.sliding_window import SlidingWindow
from darknet_face.engines import tensorflow_classifier as graphs
from darknet_face.engines.engine import open_engine
from darknet_face.runtime.session import tf
from darknet_face.weights.arrays import assign, weight_shapes


def make_mapper(weights, size, scales=heatmaps.SCALES, name=None):
    return heatmaps.FaceMapper(SlidingWindow(open_engine(weights, size, name)), scales)


@pytest.fixture(scope="module")
def mapper(tiny_model):
    return make_mapper(tiny_model.weights, 32)


@pytest.mark.parametrize("size", [(32, 32), (96, 64)])
def test_logits_are_the_mean_of_the_class_map(tiny_model, size):
    """What makes the map an explanation of the answer; at sizes other than the training's too."""
    picture = np.random.RandomState(0).rand(2, size[0], size[1], 3).astype(np.float32)
    classifier = graphs.build_classifier(None, width=WIDTH)
    assign(classifier.session, tiny_model.weights)
    graph = classifier.session.graph
    logits, class_map = classifier.session.run(
        [graph.get_tensor_by_name("logits:0"), graph.get_tensor_by_name("conv_18/BiasAdd:0")],
        {classifier.input: picture})
    assert class_map.shape == (2, size[0] // 32, size[1] // 32, 2)
    np.testing.assert_allclose(class_map.mean(axis=(1, 2)), logits, atol=1e-4)


def test_a_picture_of_one_cell_gets_the_classifier_s_answer(tiny_model):
    """At scale 1 a 32 x 32 image has a single cell: the map is its probability everywhere."""
    mapper = make_mapper(tiny_model.weights, 32, scales=(1,))
    classifier = graphs.classifier_from_weights(tiny_model.weights, 32)
    for seed in range(5):
        picture = np.random.RandomState(seed).randint(0, 256, (32, 32, 3)).astype(np.uint8)
        expected = classifier(picture[np.newaxis])[0, 0]
        np.testing.assert_allclose(mapper(picture), np.full((32, 32), expected), atol=1e-5)


def bright_is_face():
    """Weights by which a place's FACE logit grows with its brightness and nothing else."""
    weights = {}
    for name, shape in weight_shapes(WIDTH).items():
        part = name.split("/")[1]
        weights[name] = np.full(shape, 1.0 if part in ("gamma", "variance") else 0.0, np.float32)
        if part == "kernel":
            middle = shape[0] // 2
            weights[name][middle, middle, :, :] = 1.0 / shape[2]
    weights["conv_18/kernel"] *= np.array([20, 0], np.float32)
    weights["conv_18/bias"] = np.array([-10, 0], np.float32)
    return weights


def test_the_map_is_warm_where_the_feature_is():
    mapper = make_mapper(bright_is_face(), 64)
    picture = np.zeros((256, 512, 3), np.uint8)
    picture[128:, 384:] = 255  # the lower right corner
    face_map = mapper(picture)
    assert face_map.shape == (256, 512) and face_map.dtype == np.float32
    assert face_map[172:250, 428:506].min() > 0.9
    # The coarsest map has cells of 102 pixels, one of which straddles the corner's edge.
    assert face_map[:40].max() < 0.1 and face_map[:, :256].max() < 0.1


@pytest.mark.parametrize("height, width", [(1, 1), (7, 300), (33, 45), (500, 20)])
def test_any_size(mapper, height, width):
    picture = np.random.RandomState(2).randint(0, 256, (height, width, 3)).astype(np.uint8)
    face_map = mapper(picture)
    assert face_map.shape == (height, width)
    assert face_map.min() >= 0 and face_map.max() <= 1
    drawn = heatmaps.overlay(picture, face_map)
    assert drawn.shape == picture.shape and drawn.dtype == np.uint8


def test_the_mean_of_the_windows_over_each_cell():
    values = np.array([[1.0, 0.0, 0.5]])
    np.testing.assert_allclose(heatmaps.mean_over_windows(values, 2), [
        [1.0, 0.5, 0.25, 0.5], [1.0, 0.5, 0.25, 0.5]])
    np.testing.assert_allclose(heatmaps.mean_over_windows(values, 1), values)


def test_the_map_is_warmest_at_the_face_and_not_at_the_edge():
    """All windows of 7 x 7 cells that show row 4, column 9 whole see a face there."""
    values = np.zeros((8, 12))
    values[:4, 3:9] = 1
    cells = heatmaps.mean_over_windows(values, 7)
    assert cells.shape == (14, 18)
    warmest = np.argwhere(cells > 0.95)
    assert len(warmest) and (np.abs(warmest - [4, 9]) <= 2).all()
    assert cells[0].max() < 0.1 and cells[10:].max() < 0.1
    np.testing.assert_allclose(heatmaps.mean_over_windows(np.ones((1, 1)), 7)[3, 3], 1)


def test_windows_below_one_half_draw_no_line():
    """A cell of the class map may be warm where no window is: the line follows the windows."""
    weights = bright_is_face()
    mapper = make_mapper(weights, 128)  # windows of 4 x 4 cells
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[96:128, 96:128] = 255  # a bright cell, too small to fill a window
    assert mapper(picture).max() < 0.5


def test_overlay_is_grey_without_a_face_and_warm_with_one():
    picture = np.full((40, 80, 3), (60, 120, 200), np.uint8)
    face_map = np.zeros((40, 80), np.float32)
    face_map[:, 40:] = 0.8
    drawn = heatmaps.overlay(picture, face_map).astype(int)
    left, right = drawn[20, 10], drawn[20, 60]
    assert left.max() == left.min(), "no colour where there is no face"
    assert right[0] > right[2] + 50, "red over blue where there is one"
    line = drawn[20, 36:44].max(axis=1)
    assert line.max() > 180 and line.min() < 20, "a white line, edged in black, where it is 0.5"


def test_strips_give_the_same_drawing(monkeypatch):
    """A large image is drawn in strips, since a drawing takes many times its memory."""
    rng = np.random.RandomState(0)
    picture = rng.randint(0, 256, (41, 30, 3)).astype(np.uint8)
    face_map = rng.rand(41, 30).astype(np.float32)
    whole = heatmaps.overlay(picture, face_map)
    for pixels in (1, 100):
        monkeypatch.setattr(heatmaps, "STRIP_PIXELS", pixels)
        np.testing.assert_array_equal(heatmaps.overlay(picture, face_map), whole)


def test_the_mapper_leaves_the_default_graph_alone(tiny_model):
    before = len(tf.get_default_graph().get_operations())
    make_mapper(tiny_model.weights, 32, name="tensorflow").search.engine.close()
    assert len(tf.get_default_graph().get_operations()) == before


def test_colours_are_those_of_inferno():
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO)[:, 0, ::-1]
    found = heatmaps.warm_colours(np.arange(256, dtype=np.float32) / 255)
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - table).max() <= 10


@pytest.mark.parametrize("thickness", [1, 3])
def test_a_line_runs_around_what_is_at_least_one_half(thickness):
    side = 200 * thickness
    face_map = np.zeros((side, side), np.float32)
    inside = slice(side // 4, side // 2)
    face_map[inside, inside] = 0.6
    lined = heatmaps.overlay(np.full((side, side, 3), 90, np.uint8), face_map)
    bare = heatmaps.overlay(np.full((side, side, 3), 90, np.uint8), face_map, outline=False)
    changed = (lined != bare).any(axis=2)
    assert (lined[side // 4 + 5] == 255).all(axis=1).sum() == 2 * thickness, "two white lines"
    assert not changed[side // 3, side // 3] and not changed[:side // 4 - 2 * thickness].any()
    assert changed[side // 4 - 1, inside].all() and changed[side // 2, inside].all()
