"""The graph that decodes and resizes, against darknet_face/images/decode.py: Pillow and OpenCV."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.exporters import decoding
from darknet_face.exporters.compare import BOUNDS, choose_images
from darknet_face.images import decode
from darknet_face.images.file_lists import load_split
from darknet_face.images.reader import read_batches
from darknet_face.images.resize import resize
from darknet_face.runtime.session import tf
from darknet_face.weights.model_file import RELEASED, read_model

SIZE = 64


@pytest.fixture(scope="module")
def run():
    """Run serving's graphs: ``run("decode", bytes)``, ``run("resize", array)``."""
    graph = tf.Graph()
    with graph.as_default(), tf.Session() as session:
        content = tf.placeholder(tf.string, [])
        picture = tf.placeholder(tf.uint8, [None, None, 3])
        contents = tf.placeholder(tf.string, [None])
        feeds = {"decode": content, "resize": picture, "batch": contents}
        fetches = {"decode": decoding.decode(content),
                   "resize": decoding.resize(picture, SIZE, SIZE),
                   "batch": decoding.decode_batch(contents, SIZE)}
        yield lambda name, value: session.run(fetches[name], {feeds[name]: value})


@pytest.fixture(scope="module")
def picture():
    """uint8 [40, 60, 3]: smooth colours of the full range."""
    rows, columns = np.mgrid[0:40, 0:60]
    return np.dstack([255 * (1 + np.sin(rows / 9 + columns / k)) / 2 for k in (7, 11, 23)]).astype(
        np.uint8)


def encode(image, kind, **options):
    stream = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("height, width", [
    (128, 192), (64, 64), (65, 64), (109, 89), (192, 192), (320, 256), (427, 640), (1000, 750),
    (96, 80),  # shrinks
    (25, 25), (1, 1), (3, 2), (63, 64), (30, 300), (300, 30), (1, 500),  # grows along an axis
])
def test_resize_within_one_level(run, height, width):
    noise = np.random.RandomState(height).randint(0, 256, (height, width, 3)).astype(np.uint8)
    resized, expected = run("resize", noise), resize(noise, SIZE, SIZE)
    assert_within_one_level(resized, expected)
    assert abs(resized.astype(float).mean() - expected.mean()) < 0.2


def assert_within_one_level(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_shrinking_and_enlarging_move_no_probability(run, tiny_model, sample_dir):
    """The same answers, within the export's bound, to images of twice and of half the size."""
    weights = dict(tiny_model.weights)  # made less sure: near 0 and 1 nothing would show
    weights["conv_18/kernel"] = weights["conv_18/kernel"] * np.float32(0.02)
    weights["conv_18/bias"] = np.zeros(2, np.float32)
    classifier = classifier_from_weights(weights, SIZE)
    for size in (150, 128, 40, 32):
        _, pictures, _ = next(read_batches(load_split(sample_dir, "test").paths[::8], 5, size))
        answers = [classifier(np.stack([scale(picture) for picture in pictures])) for scale in (
            lambda picture: run("resize", picture),
            lambda picture: resize(picture, SIZE, SIZE))]
        assert np.ptp(answers[1][:, 0]) > 0.01, "the images must not all get the same answer"
        np.testing.assert_allclose(*answers, atol=BOUNDS["encoded"], rtol=0)


def read_all(paths):
    for path in paths:
        with open(path, "rb") as stream:
            yield stream.read()


def test_the_released_model_s_answers_to_photographs():
    """export.py savedmodel compares on these where there are no lists, and must not stop."""
    paths, _ = choose_images("none", 12)
    expected = np.stack([resize(decode.read_image(path, least_size=4 * 224), 224, 224)
                         for path in paths])
    with tf.Graph().as_default(), tf.Session() as session:
        contents = tf.placeholder(tf.string, [None])
        batch = decoding.decode_batch(contents, 224)
        found = np.concatenate([session.run(batch, {contents: [content]})
                                for content in read_all(paths)])
    assert_within_one_level(found, expected)
    classifier = classifier_from_weights(read_model(RELEASED).weights, 224)
    with classifier.session:
        np.testing.assert_allclose(classifier(found), classifier(expected), rtol=0,
                                   atol=BOUNDS["encoded"])


@pytest.mark.parametrize("height, width", [
    (255, 300), (256, 300), (511, 700), (513, 512), (1030, 1100), (2050, 2100)])
def test_large_jpegs_within_one_level(run, height, width):
    """Decoded at 1/1, 1/2, 1/4 or 1/8 of their size, by the same rule."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = np.dstack([255 * (1 + np.sin(rows / 9 + columns / k)) / 2 for k in (7, 11, 23)])
    content = encode(waves.astype(np.uint8), "JPEG", quality=90)
    expected = resize(
        decode.read_image(content, least_size=decode.OVERSAMPLING * SIZE), SIZE, SIZE)
    assert_within_one_level(run("batch", [content])[0], expected)


def forms(picture):
    grey = picture[..., 0]
    palette = Image.fromarray(picture).quantize(16)
    yield "jpeg", encode(picture, "JPEG", quality=90)
    yield "jpeg without subsampling", encode(picture, "JPEG", subsampling=0)
    yield "progressive jpeg", encode(picture, "JPEG", progressive=True)
    yield "grey jpeg", encode(grey, "JPEG")
    yield "cmyk jpeg", encode(Image.fromarray(picture).convert("CMYK"), "JPEG")
    yield "png", encode(picture, "PNG")
    yield "grey png", encode(grey, "PNG")
    yield "grey and alpha", encode(np.dstack([grey, picture[..., 1]]), "PNG")
    yield "rgba", encode(np.dstack([picture, grey]), "PNG")
    yield "1 bit", encode(grey > 128, "PNG")
    yield "1 bit, transparent", encode(grey > 128, "PNG", transparency=1)
    yield "palette", encode(palette, "PNG")
    yield "palette of 200", encode(Image.fromarray(picture).quantize(200), "PNG")
    yield "transparent colour", encode(palette, "PNG", transparency=3)
    yield "half transparent", encode(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    yield "transparent rgb", encode(picture, "PNG", transparency=tuple(map(int, picture[3, 3])))
    yield "transparent grey", encode(grey, "PNG", transparency=int(grey[3, 3]))


def test_decodes_to_the_same_pixels(run, picture):
    for name, content in forms(picture):
        np.testing.assert_array_equal(
            run("decode", content), decode.read_image(content), err_msg=name)


def test_sixteen_bits_within_one_level(run):
    deep = encode(np.arange(0, 65536, 16).astype(np.uint16).reshape(64, 64), "PNG")
    difference = run("decode", deep).astype(int) - decode.read_image(deep)
    assert np.abs(difference).max() == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_every_orientation(run, picture, kind):
    seen = set()
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x010F], exif[0x0112], exif[0x0131] = "maker", orientation, "software"
        content = encode(picture, kind, exif=exif)
        decoded = run("decode", content)
        np.testing.assert_array_equal(decoded, decode.read_image(content))
        seen.add(decoded.tobytes() + bytes(decoded.shape))
    assert len(seen) == 8


BIG_ENDIAN = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
LONG_VALUE = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


@pytest.mark.parametrize("exif, turned", [
    (BIG_ENDIAN, True), (LONG_VALUE, True), (BIG_ENDIAN[:20], False),
    (b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0", False),
    (b"Exif\0\0II*\0\xff\xff\xff\xff\x05\0\x12\x01\x03\0\x01\0", False),
    (b"Exif\0\0", False),
])
def test_exif_of_all_kinds(run, picture, exif, turned):
    content = encode(picture, "JPEG", exif=exif)
    decoded = run("decode", content)
    np.testing.assert_array_equal(decoded, decode.read_image(content))
    assert decoded.shape == ((60, 40, 3) if turned else (40, 60, 3))


def test_a_batch(run, picture):
    contents = [encode(picture, "JPEG"), encode(picture[:30, :20], "PNG")]
    batch = run("batch", contents)
    assert batch.shape == (2, SIZE, SIZE, 3) and batch.dtype == np.uint8
    for content, decoded in zip(contents, batch):
        assert_within_one_level(decoded, resize(decode.read_image(content), SIZE, SIZE))
    assert run("batch", np.zeros([0], object)).shape == (0, SIZE, SIZE, 3)


@pytest.mark.parametrize("kind, place, size", [("PNG", 16, ">II"), ("JPEG", None, ">HH")])
def test_pictures_of_gigabytes_are_refused(run, picture, kind, place, size):
    """By the size that a file claims, before memory is taken for the pixels."""
    content = bytearray(encode(picture, kind))
    if kind == "JPEG":
        place = content.index(b"\xff\xc0") + 5
    content[place:place + struct.calcsize(size)] = struct.pack(size, 16000, 6251)
    if kind == "PNG":
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    for name, value in (("decode", bytes(content)), ("batch", [bytes(content)])):
        with pytest.raises(tf.errors.InvalidArgumentError, match="at most 100,000,000 pixels"):
            run(name, value)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"<html></html>", "cut"])
def test_what_is_no_picture_is_an_invalid_argument(run, picture, content):
    if content == "cut":
        content = encode(picture, "PNG")[:200]
    with pytest.raises(tf.errors.InvalidArgumentError):
        run("decode", content)
