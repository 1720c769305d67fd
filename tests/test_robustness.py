"""Corruptions do what their names say, and the table measures them on the right images."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from darknet_face.console import UserError
from darknet_face.evaluation import metrics, robustness
from darknet_face.evaluation.robustness import CORRUPTIONS
from darknet_face.images.decode import read_image
from darknet_face.images.file_lists import load_split
from darknet_face.images.resize import resize


@pytest.fixture(scope="module")
def picture():
    """A smooth image with colour and structure, uint8 [100, 100, 3]."""
    y, x = np.mgrid[:100, :100]
    channels = [128 + 100 * np.sin(x / 9.0), 128 + 100 * np.cos(y / 7.0), (x + y) * 1.2]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", list(CORRUPTIONS))
def test_shape_type_and_repeatability(picture, name):
    before = picture.copy()
    once, again = CORRUPTIONS[name](picture), CORRUPTIONS[name](picture)
    assert once.shape == picture.shape and once.dtype == np.uint8
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(picture, before)
    if name not in ("as it is", "shrunk to 96 px"):
        assert np.abs(once.astype(int) - picture).mean() > 0.3, "it must change something"


def test_grey_equals_pillows(picture):
    expected = np.asarray(Image.fromarray(picture).convert("L").convert("RGB")).astype(int)
    assert np.abs(robustness.grey(picture) - expected).max() <= 1


def test_blur_equals_pillows_away_from_the_edges(picture):
    """Pillow's is a box approximation of the same Gaussian: deviation 100 / 50 = 2 pixels."""
    expected = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(2)))
    difference = np.abs(robustness.blur(picture).astype(int) - expected)[12:-12, 12:-12]
    assert difference.mean() < 1 and difference.max() <= 6


def test_noise_has_the_stated_deviation():
    plain = np.full((200, 200, 3), 128, np.uint8)
    added = robustness.noise(plain).astype(float) - 128
    assert abs(added.mean()) < 0.3 and added.std() == pytest.approx(20, abs=0.3)


def test_jpeg_is_about_pillows_at_the_same_quality(picture):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=20)
    expected = np.asarray(Image.open(stream)).astype(int)
    assert np.abs(robustness.jpeg(picture) - expected).mean() < 2


def test_shrinking_leaves_nothing_finer():
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 254  # the finest pattern there is
    shrunk = CORRUPTIONS["shrunk to 32 px"](stripes)
    assert shrunk.std() < 50 < stripes.std()
    np.testing.assert_array_equal(CORRUPTIONS["shrunk to 96 px"](stripes), stripes)


def spot(row, column, radius=4):
    """A white spot on black, uint8 [100, 100, 3], for telling where things go."""
    image = np.zeros((100, 100, 3), np.uint8)
    image[row - radius:row + radius, column - radius:column + radius] = 255
    return image


def center_of_light(image):
    light = image[..., 0].astype(float)
    light[light < 200] = 0
    rows, columns = np.mgrid[:100, :100]
    return (light * (rows + 0.5)).sum() / light.sum(), (light * (columns + 0.5)).sum() / light.sum()


@pytest.mark.parametrize("name, expected", [
    ("shifted right by 1/5", (50, 80)), ("shifted up by 1/5", (30, 60)),
    ("zoomed in, 1.5 times", (50, 65)), ("zoomed out, to a half", (50, 55)),
])
def test_where_things_move(name, expected):
    """From row 50, column 60; the middle of the image is at 50, 50."""
    moved = CORRUPTIONS[name](spot(50, 60))
    np.testing.assert_allclose(center_of_light(moved), expected, atol=0.6)


def test_what_a_move_uncovers_is_grey():
    white = np.full((100, 100, 3), 255, np.uint8)
    out = CORRUPTIONS["zoomed out, to a half"](white)
    assert (out[:23] == 128).all() and (out[27:73, 27:73] == 255).all()
    right = CORRUPTIONS["shifted right by 1/5"](white)
    assert (right[:, :19] == 128).all() and (right[:, 21:] == 255).all()


class ColourClassifier:
    """Calls an image a face by its lower half's brightness: it falls when images move."""

    image_size = 32

    def __call__(self, images):
        score = images[:, 16:].mean(axis=(1, 2, 3), dtype=np.float64) / 255
        return np.stack([score, 1 - score], axis=1)


def test_the_table_against_a_plain_loop(sample_dir):
    split = load_split(sample_dir, "test")
    classifier = ColourClassifier()
    scores = metrics.score_split(classifier, split)
    rows = robustness.measure_corrupted(classifier, scores, batch_size=7)
    assert [row["disturbance"] for row in rows] == list(CORRUPTIONS)
    clean = metrics.measure(scores.labels, scores.face_probabilities)
    assert rows[0] == dict(clean, disturbance="as it is")
    moved = np.stack([CORRUPTIONS["shifted up by 1/5"](resize(read_image(path), 32, 32))
                      for path in split.paths])
    expected = metrics.measure(split.labels, classifier(moved)[:, 0])
    row = rows[list(CORRUPTIONS).index("shifted up by 1/5")]
    for name, value in expected.items():
        assert row[name] == value
    table = robustness.format_robustness(rows)
    assert len(table.splitlines()) == 1 + len(CORRUPTIONS)
    assert "{:.4f}".format(expected["accuracy"]) in table.splitlines()[10]


def test_pictures_that_vanish_in_between(capsys):
    """Scored once, then gone: one line, and no mean of nothing."""
    scores = metrics.Scores(["gone/1.png", "gone/2.png"], np.array([0, 1]), np.array([0.9, 0.1]), 0)
    with pytest.raises(UserError, match="no image of class FACE decodes"):
        robustness.measure_corrupted(ColourClassifier(), scores)
    assert capsys.readouterr().err.count("no such file") == 2
