"""Use the model from Python: load it once, call it with images.

    from darknet_face import load

    model = load()                             # the newest model here, otherwise the released one
    result = model("photo.jpg")                # a path, an array, a Pillow image or encoded bytes
    print(result.probability, result.is_face, result.box)

    for result in model(["a.jpg", array, image]):    # a list: batched, in order
        print(result.name, result.error or result.label)

inference.py and serve.py use it too. docs/python.md says more.
"""

from __future__ import annotations

import os
import typing
import warnings

import numpy as np
from PIL import Image

from darknet19 import STRIDE
from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.classify.heatmaps import FaceMapper
from darknet_face.classify.inputs import InputImage
from darknet_face.classify.predict import (
    BOX,
    Batches,
    classify_by_detector,
    classify_by_sliding_window,
    classify_single_pass,
)
from darknet_face.classify.results import Box, Face, ImageError, Result
from darknet_face.classify.sliding_window import (
    DEFAULT_SEARCH,
    SCALES,
    SEARCH_CHOICES,
    SlidingWindow,
    scales_of,
)
from darknet_face.console import UserError
from darknet_face.detection import DETECTOR
from darknet_face.detection.confirm import calibrated_detector, open_finder
from darknet_face.engines.engine import ENGINES, open_engine
from darknet_face.images.decode import MAX_PIXELS, BadImage
from darknet_face.images.reader import LARGEST_BATCH, LARGEST_SIZE
from darknet_face.runtime.safe_files import relative_to_here
from darknet_face.weights.model_file import RELEASED, ModelFile, choose_model

SEARCHED_TOGETHER = 4  # images: their pixels are held at their own size, up to 300 MB each


def load(weights: str | os.PathLike | None = None, search: int | str | None = None,
         threshold: float | None = None, precision: str = "float32", image_size: int | None = None,
         batch_size: int = 16, model_dir: str | None = None, tight_boxes: bool = False,
         fine_places: bool = False, engine: str | None = None) -> FaceModel:
    """Load a model.

    Parameters
    ----------
    weights
        Any file that :func:`darknet_face.weights.model_file.read_model` reads: ``.npz``,
        frozen ``.pb``, checkpoint, SavedModel, darknet's ``.weights``. If absent, the newest model
        in ``model_dir``, or the released one.
    search
        As inference.py's ``--search``. "detector": a detector finds every face, and the classifier
        confirms them. 4, 2 or 1: the largest scale of a sliding window; the image's shorter side is
        enlarged to up to so many times the network's input. "off": a single pass over the stretched
        image. If absent, the detector where one is calibrated for the weights, otherwise 4.
    threshold
        An image is a face if its probability is at least this, 0..1. If absent, the threshold
        stored with the weights, or 0.5.
    precision
        What convolutions compute in: "float32", "bfloat16", "float16" or "int8".
    image_size
        Height and width of the network's input, a multiple of 32. If absent, as in training.
    batch_size
        The most images that are classified together.
    model_dir
        Where your own models are; ``saved_models`` beside this package if absent.
    tight_boxes
        The sliding window stops at the first scale where a window is certain, which may be as large
        as the image. Look for a smaller box inside it, at up to the cost of all scales. The
        probability stays the same.
    fine_places
        The former name of ``tight_boxes``, deprecated.
    engine
        What runs the network, "onnxruntime" or "tensorflow". If absent, the first of these that is
        installed and computes in the precision.

    Raises
    ------
    darknet_face.console.UserError
        Weights that are missing, damaged or of another network, or a precision that this computer
        lacks.
    ValueError
        An option out of range.
    """
    choices = (DETECTOR,) + SEARCH_CHOICES
    if search is not None and str(search) not in choices:
        raise ValueError("search={!r}: must be one of {}".format(search, ", ".join(choices)))
    if engine not in (None,) + ENGINES:
        raise ValueError("engine={!r}: must be one of {}".format(engine, ", ".join(ENGINES)))
    if image_size is not None and (
            not 0 < image_size <= LARGEST_SIZE or image_size % STRIDE):
        raise ValueError("image_size={!r}: must be a multiple of {} up to {}".format(
            image_size, STRIDE, LARGEST_SIZE))
    if not 1 <= batch_size <= LARGEST_BATCH:
        raise ValueError("batch_size={!r}: must be 1 to {}".format(batch_size, LARGEST_BATCH))
    if fine_places:
        warnings.warn("fine_places is called tight_boxes now", DeprecationWarning, stacklevel=2)
    if threshold is not None:
        _checked(threshold)
    model_dir = model_dir or os.path.dirname(RELEASED)
    model = choose_model(model_dir, None if weights is None else os.fspath(weights), image_size,
                         threshold)
    return FaceModel(model, None if search is None else str(search), precision, batch_size,
                     tight_boxes or fine_places, engine, model_dir)


class FaceModel:
    """A loaded model: call it with images. Several threads may call one model at once.

    Use it as a context manager, or :meth:`close` it, to free its memory. See :func:`load`.

    Attributes
    ----------
    path
        The model file.
    image_size
        Height and width of the network's input.
    threshold
        From which probability on an image is a face.
    description
        One line about the file, the input size, the threshold and the detector, if there is one.
    """

    def __init__(self, model: ModelFile, search: str | None = None, precision: str = "float32",
                 batch_size: int = 16, tight_boxes: bool = False, engine: str | None = None,
                 model_dir: str = "saved_models") -> None:
        detector = calibrated_detector(
            model.weights, model_dir) if search in (None, DETECTOR) else None
        if search == DETECTOR and not detector:
            raise UserError("--search detector: no detector is calibrated for this model; run "
                            "python -m darknet_face.detection.calibrate, or take --search "
                            "{}".format(DEFAULT_SEARCH))
        search = search or (DETECTOR if detector else DEFAULT_SEARCH)
        self.path, self.image_size, self.threshold = model.path, model.image_size, model.threshold
        self.description = str(model)
        self._batch_size, self._tight_boxes = batch_size, tight_boxes
        self._engine = open_engine(
            model.weights, model.image_size, engine, precision=precision, ranges=model.ranges)
        self._find_faces = open_finder(
            detector, self._engine, engine=engine, precision=precision) if detector else None
        if detector:
            self.description += ", detector {}".format(relative_to_here(detector))
        # Heat maps need a window even where answers do not.
        scales = SCALES if search in ("off", DETECTOR) else scales_of(search)
        self._search = SlidingWindow(self._engine, scales, model.search_bias)
        self._is_single_pass = search == "off"

    def prepare(self) -> None:
        """Open what would otherwise open with the first images, such as for a server."""
        self._engine.prepare()

    def __call__(self, images: typing.Any, threshold: float | None = None) -> typing.Any:
        """Classify one image or several.

        Parameters
        ----------
        images
            One of these, or an iterable of them: a path; an array, uint8, [height, width, 3], RGB,
            upright; a Pillow image, which is turned upright by its orientation tag; an encoded
            file. An array [n, height, width, 3] counts as a list.
        threshold
            For this call; the model's own if absent.

        Returns
        -------
        Result or list of Result
            For a list a list, in order. A bad image has a result with ``error`` set.

        Raises
        ------
        ImageError
            When a single image can't be read.
        TypeError
            For anything that is no image, in a list too.
        """
        if _is_one(images):
            result, = self([images], threshold)
            if result.error:
                raise ImageError(result.name, result.error)
            return result
        names: list[str] = []
        answers = {}
        for rows, bad in self.stream(_inputs(images, names), threshold):
            for image, row in rows:
                answers[image.output_name] = Result(
                    image.name, row["face_probability"], row["class"] == CLASS_NAMES[FACE],
                    row["class"], None if row["x"] is None else _box(row),
                    faces=None if row["boxes"] is None else [
                        Face(_box(each), each["probability"]) for each in row["boxes"]])
            for image, cause in bad:
                answers[image.output_name] = Result(image.name, error=cause)
        return [answers[str(index)] for index in range(len(names))]

    def stream(self, images: typing.Iterable[InputImage],
               threshold: float | None = None) -> Batches:
        """Classify images as they come, with a few read ahead.

        Parameters
        ----------
        images
        threshold
            The model's own if absent.

        Yields
        ------
        results, bad
            As :func:`darknet_face.classify.predict.classify_single_pass`.
        """
        threshold = self.threshold if threshold is None else _checked(threshold)
        if self._find_faces:
            return classify_by_detector(self._find_faces, images, self._batch_size, threshold)
        if self._is_single_pass:
            return classify_single_pass(self._engine, images, self._batch_size, threshold)
        return classify_by_sliding_window(
            self._search, images, min(self._batch_size, SEARCHED_TOGETHER), threshold,
            self._tight_boxes)

    def heat_map(self, image: typing.Any) -> np.ndarray:
        """Where a face is seen.

        Parameters
        ----------
        image
            One image, as for a call.

        Returns
        -------
        numpy.ndarray
            float32, [height, width] of the upright image, 0..1; see
            :class:`darknet_face.classify.heatmaps.FaceMapper`.

        Raises
        ------
        ImageError, TypeError
            As for a call.
        """
        image = _input(image, "0")
        try:
            pixels = image.read()
        except BadImage as error:
            raise ImageError(image.name, str(error))
        return self.mapper()(pixels)

    @property
    def method(self) -> str:
        """How images are judged, in words."""
        if self._find_faces:
            return "detector whose boxes the classifier confirms"
        if self._is_single_pass:
            return "single pass"
        return "sliding window, scales {}".format(
            ", ".join("{:g}".format(scale) for scale in self._search.scales))

    def mapper(self) -> FaceMapper:
        """The :class:`darknet_face.classify.heatmaps.FaceMapper` of this model."""
        return FaceMapper(self._search)

    def close(self) -> None:
        """Free the memory; the model can't be called afterwards."""
        self._engine.close()

    def __enter__(self) -> FaceModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _box(row):
    return Box(*[row[name] for name in BOX])


def _checked(threshold):
    if not 0 <= threshold <= 1:
        raise ValueError("threshold={!r}: must be 0 to 1".format(threshold))
    return threshold


def _is_one(images):
    """Whether this is one image and no list of them."""
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, (str, os.PathLike, bytes, Image.Image))


def _inputs(images, names):
    """Yield each image as an InputImage, numbered; its name is appended to ``names``."""
    try:
        images = iter(images)
    except TypeError:
        raise _not_an_image(images)
    for number, each in enumerate(images):
        image = _input(each, str(number))
        names.append(image.name)
        yield image


def _input(picture, output_name):
    if isinstance(picture, (str, os.PathLike)):
        return InputImage(os.fsdecode(picture), output_name, None)
    if isinstance(picture, bytes):
        return InputImage("bytes", output_name, picture)
    if isinstance(picture, Image.Image):
        return InputImage(getattr(picture, "filename", "") or "image", output_name, picture)
    if isinstance(picture, np.ndarray):
        return InputImage("array", output_name, _checked_array(picture))
    raise _not_an_image(picture)


def _checked_array(array):
    """The array itself, or the BadImage that says what is wrong with it."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        return BadImage("{} {}, must be uint8 [height, width, 3], RGB".format(
            array.dtype, list(array.shape)))
    if not 0 < array.shape[0] * array.shape[1] <= MAX_PIXELS:
        return BadImage("{} x {} pixels, must be 1 to {:,}".format(
            array.shape[1], array.shape[0], MAX_PIXELS))
    return array


def _not_an_image(value):
    return TypeError("{} is no image: give a path, a uint8 array, a Pillow image or bytes".format(
        type(value).__name__))
