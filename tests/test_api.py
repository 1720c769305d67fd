"""The Python API: every kind of image, lists, threads, thresholds, errors."""

import io
import os
import pathlib
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
from conftest import BAD, GOOD, ROOT, make_odd_files
from PIL import Image

import inference
from darknet_face import Box, ImageError, Result, load
from darknet_face.classify.heatmaps import FaceMapper
from darknet_face.classify.inputs import InputImage
from darknet_face.classify.sliding_window import SlidingWindow, scales_of
from darknet_face.console import UserError
from darknet_face.images.decode import read_image
from darknet_face.images.samples import sample_images
from darknet_face.weights.npz import write_npz


@pytest.fixture(scope="module")
def model(tiny_model):
    with load(tiny_model.npz, search=2) as model:
        yield model


@pytest.fixture(scope="module")
def truth(engine):
    """A search of the same sizes, of one image at a time."""
    return SlidingWindow(engine, scales_of("2"))


@pytest.fixture
def photograph(tmp_path):
    """A file without loss, and its pixels."""
    path = str(tmp_path / "photo.png")
    pixels = np.asarray(Image.open(sample_images()[0]).convert("RGB").resize((150, 110)))
    Image.fromarray(pixels).save(path)
    return path, pixels


def cut_out(number, width, height):
    """A part of a photograph, another for each number."""
    source = Image.open(sample_images()[number % 3]).convert("RGB")
    left = 20 * number
    return np.asarray(source.crop((left, left, left + 200, left + 150)).resize((width, height)))


def test_every_kind_of_picture_has_the_same_answer(model, truth, photograph):
    path, pixels = photograph
    with open(path, "rb") as stream:
        content = stream.read()
    window = truth.find([pixels])[0]
    kinds = {"path": path, "pathlib": pathlib.Path(path), "array": pixels, "bytes": content,
             "image": Image.open(path), "in memory": Image.fromarray(pixels)}
    for kind, picture in kinds.items():
        result = model(picture)
        assert result.probability == pytest.approx(window.probability, abs=1e-6), kind
        assert result.box == Box(*[int(round(value)) for value in window[1:5]]), kind
        assert result.is_face == (window.probability >= 0.5)
        assert result.label == ("FACE" if result.is_face else "NON_FACE")
        assert result.error is None
    assert model(path).name == model(kinds["image"]).name == path
    assert [each.name for each in model([pixels, content, kinds["in memory"]])] == [
        "array", "bytes", "image"]


def test_a_list_of_all_sizes_is_answered_in_order(model, truth):
    pictures = [cut_out(number, *size) for number, size in enumerate((
        (40, 40), (64, 90), (40, 40), (90, 64), (30, 200), (40, 40), (64, 90), (1, 1), (300, 400)))]
    results = model(iter(pictures))
    assert isinstance(results, list) and len(results) == len(pictures)
    for picture, result in zip(pictures, results):
        window = truth.find([picture])[0]
        assert result.probability == pytest.approx(window.probability, abs=1e-6)
        assert result.box == tuple(int(round(value)) for value in window[1:5])
    assert len({result.probability for result in results}) > 3
    assert model([]) == []
    stacked = model(np.stack(pictures[:3:2]))
    assert [result.box for result in stacked] == [results[0].box, results[2].box]


def test_pictures_of_one_size_share_a_run(model, monkeypatch):
    shapes = []
    original = model._engine.class_map
    monkeypatch.setattr(model._engine, "class_map", lambda images: shapes.append(
        images.shape) or original(images))
    model([np.zeros((32, 32, 3), np.uint8)] * 4)
    assert shapes[0] == (4, 32, 32, 3)


def test_many_threads_share_a_model(model):
    pictures = [cut_out(number, 50 + number, 60) for number in range(8)]
    alone = [model(picture) for picture in pictures]
    together = {}

    def work(number):
        together[number] = [model(pictures[number]) for _ in range(3)] + model(pictures)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        expected = [alone[number]] * 3 + alone
        for result, single in zip(together[number], expected):
            assert result.probability == pytest.approx(single.probability, abs=1e-6)
            assert result._replace(probability=0) == single._replace(probability=0)


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
def test_orientation_is_respected(model, tmp_path, photograph, kind):
    """For files and for Pillow images, loaded before or not."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = str(tmp_path / ("turned." + kind))
    Image.fromarray(photograph[1]).save(path, exif=exif)
    Image.fromarray(photograph[1]).save(path + "." + kind)
    upright = np.ascontiguousarray(np.rot90(np.asarray(Image.open(path + "." + kind)), -1))
    loaded = Image.open(path)
    loaded.load()
    for picture in (path, Image.open(path), loaded, loaded):
        result = model(picture)
        assert result.probability == pytest.approx(model(upright).probability, abs=1e-6)
        assert result.box == model(upright).box


def test_thresholds(tiny_model, model, tmp_path):
    pictures = [cut_out(number, 50, 60) for number in range(6)]
    probabilities = [result.probability for result in model(pictures)]
    assert min(probabilities) < max(probabilities)
    for threshold in probabilities:
        assert [result.is_face for result in model(pictures, threshold=threshold)] == [
            probability >= threshold for probability in probabilities]
    stored = str(tmp_path / "stored.npz")
    write_npz(stored, tiny_model.weights, metadata={"image_size": 32, "threshold": 0.875})
    with load(stored, search=1) as own:
        assert own.threshold == 0.875 and own.image_size == 32
    with load(stored, search=1, threshold=0.25) as own:
        assert own.threshold == 0.25
    assert model.threshold == 0.5


def test_one_look_has_no_place(tiny_model, photograph, classifier):
    path, pixels = photograph
    with load(pathlib.Path(tiny_model.pb), search="off") as model:
        result = model(path)
        stretched = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA)[np.newaxis]
        assert result.probability == pytest.approx(classifier(stretched)[0, 0], abs=1e-5)
        assert result.box is None and isinstance(result.is_face, bool)
        assert model.heat_map(path).shape == pixels.shape[:2]


def test_heat_map(model, engine, photograph):
    path, pixels = photograph
    expected = FaceMapper(SlidingWindow(engine))(pixels)
    np.testing.assert_allclose(model.heat_map(path), expected, atol=1e-6)
    with pytest.raises(ImageError, match="^nowhere.jpg: no such file$"):
        model.heat_map("nowhere.jpg")


def test_bad_pictures_in_a_list_have_their_cause(model, tmp_path):
    folder = tmp_path / "odd"
    make_odd_files(folder)
    paths = sorted(map(str, folder.iterdir()))
    results = model(paths)
    assert [result.name for result in results] == paths
    bad = {os.path.basename(result.name) for result in results if result.error}
    assert bad == BAD and len(results) == len(BAD | GOOD)
    for result in results:
        if result.error:
            assert result == Result(result.name, error=result.error)
            with pytest.raises(ImageError) as caught:
                model(result.name)
            assert str(caught.value) == "{}: {}".format(result.name, result.error)
            assert (caught.value.name, caught.value.cause) == (result.name, result.error)


@pytest.mark.parametrize("array, cause", [
    (np.zeros((8, 8, 3)), r"float64 \[8, 8, 3\], must be uint8"),
    (np.zeros((8, 8), np.uint8), r"uint8 \[8, 8\], must be"),
    (np.zeros((8, 8, 4), np.uint8), r"uint8 \[8, 8, 4\], must be"),
    (np.zeros((0, 8, 3), np.uint8), "8 x 0 pixels"),
    (np.zeros((1, 10 ** 8 + 1, 3), np.uint8), "100000001 x 1 pixels")])
def test_unusable_arrays_are_bad_pictures(model, array, cause):
    with pytest.raises(ImageError, match="array: " + cause):
        model(array)
    assert model([array])[0].error


def test_truncated_images_and_bytes(model, photograph):
    content = pathlib.Path(photograph[0]).read_bytes()[:2000]
    for picture in (content, Image.open(io.BytesIO(content)), b"", b"<html>"):
        with pytest.raises(ImageError):
            model(picture)


@pytest.mark.parametrize("value", [None, 3, [None], [[1, 2]], {"a": 1}.values()])
def test_what_is_no_picture(model, value):
    with pytest.raises(TypeError, match="is no image"):
        model(value)


@pytest.mark.parametrize("options", [
    {"search": 3}, {"threshold": 1.5}, {"threshold": -0.1}, {"image_size": 33}, {"batch_size": 0},
    {"image_size": 0}])
def test_options_out_of_range(tiny_model, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        load(tiny_model.npz, **options)


def test_weights_that_are_missing(tmp_path):
    with pytest.raises(UserError, match="nowhere.npz"):
        load(str(tmp_path / "nowhere.npz"))


def test_own_model_comes_before_the_released_one(tiny_model):
    with load(model_dir=tiny_model.folder, search=1) as model:
        assert model.path == tiny_model.npz


def test_from_another_folder_the_released_model_is_found(tmp_path):
    """As a stranger's program uses it: three lines, any working folder."""
    program = ("import sys; sys.path.insert(0, {!r})\n"
               "from darknet_face import load\n"
               "model = load(search=1)\n"
               "print(model.path, model({!r}).probability)").format(ROOT, sample_images()[0])
    out = subprocess.run([sys.executable, "-c", program], cwd=str(tmp_path), check=True,
                         stdout=subprocess.PIPE).stdout.decode().split()
    assert os.path.dirname(out[0]) == os.path.join(ROOT, "saved_models")
    assert float(out[1]) > 0.9, "the astronaut"


def test_boxes_are_in_the_pixels_of_the_file(model, tmp_path, run_script, tiny_model):
    """A JPEG of 108 megapixels is decoded at half of its size."""
    path = tmp_path / "phone.jpg"
    shades = np.random.RandomState(0).randint(0, 256, (3, 4)).astype(np.uint8)
    Image.fromarray(shades).resize((12000, 9000)).save(str(path))
    found, half = model(str(path)).box, model(read_image(str(path))).box
    assert found == pytest.approx([2 * each for each in half], abs=1)
    assert InputImage(str(path), "0", None).reduction(np.empty((4500, 6000, 3), np.uint8)) == 2
    outcome = run_script(inference, path, "--weights", tiny_model.npz, "--search", 1,
                         "--threshold", 0, "--contact-sheet", tmp_path / "sheet.png")
    assert outcome.code == 0, outcome.err
