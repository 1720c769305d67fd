"""The ONNX model in two layouts, checked by ONNX Runtime, and by OpenCV where it reads it."""

from __future__ import annotations

import os
import typing

import cv2
import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.engines.onnx_graph import check_model, folded, onnx_model
from darknet_face.engines.onnx_runtime import open_session
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.exporters.compare import (
    BOUNDS,
    NAME,
    Reference,
    check_difference,
    existing,
    run_batches,
)
from darknet_face.images.reader import read_batches
from darknet_face.runtime.atomic_files import staged, write_atomically
from darknet_face.weights.arrays import weight_shapes, width_of

LICENSE = "for non-commercial research only; see saved_models/MODEL_CARD.md"  # the released model
# By the layout of the input: the file's name, the command that writes it, the shape for people.
FILES = {"NHWC": (NAME + ".onnx", "onnx", "[batch, height, width, 3]"),
         "NCHW": (NAME + "_nchw.onnx", "onnx-nchw", "[batch, 3, height, width]")}
MOST_METADATA = 1 << 16  # bytes in a file beside the weights


def export_onnx(reference: Reference, out: str, layout: str = "NHWC") -> float:
    """Write the model of a layout into the folder ``out``.

    Returns
    -------
    float
        The largest difference in probability.
    """
    name, _, _ = FILES[layout]
    content = to_onnx(reference.weights, reference.image_size, properties_of(reference), layout)
    with staged(out) as folder:
        with write_atomically(os.path.join(folder, name)) as stream:
            stream.write(content)
        difference = reference.check(
            name, "ONNX Runtime", run_onnx(folder, reference, layout=layout), BOUNDS["onnx"])
        other = _difference_at_another_size(folder, reference, layout)
        check_difference(name, "ONNX Runtime at another size", other, BOUNDS["onnx"])
        if layout == "NCHW":
            reference.check(name, "OpenCV", run_onnx_in_opencv(folder, reference), BOUNDS["opencv"])
    print("wrote {}: ONNX Runtime agrees within {:.1e}, at another size within {:.1e}".format(
        os.path.join(out, name), difference, other))
    return difference


def properties_of(reference: Reference) -> dict[str, str]:
    """What the model's metadata say of the weights: their threshold and licence, where known."""
    metadata = reference.metadata
    properties: dict[str, str] = {
        name: str(metadata[name]) for name in ("threshold", "step") if name in metadata}
    if reference.model.is_released:
        properties["license"] = LICENSE
    return properties


def to_onnx(weights: typing.Mapping[str, np.ndarray], image_size: int,
            properties: typing.Mapping[str, str] | None = None, layout: str = "NHWC") -> bytes:
    """The model, whose metadata name the classes and the preprocessing.

    Parameters are those of :func:`darknet_face.engines.onnx_graph.onnx_model`, but for
    ``image_size``, which goes into the metadata, like ``properties``.
    """
    return onnx_model(folded(weights), layout, properties=dict(
        properties or {}, **preprocessing(image_size, layout)))


def preprocessing(image_size: int, layout: str = "NHWC") -> dict[str, str]:
    """What a model's metadata say of the input and the classes."""
    return {
        "input_layout": layout,
        "input_colours": "RGB",
        "input_range": "0..1",
        "class_names": ",".join(darknet19.CLASS_NAMES),
        "preprocessing": "RGB, stretched to {0} x {0}, divided by 255; float32, {1}".format(
            image_size, FILES[layout][2]),
        "image_size": str(image_size),
        "size_multiple": str(darknet19.STRIDE),
    }


def run_onnx(folder: str, reference: Reference, images: np.ndarray | None = None,
             layout: str = "NHWC") -> np.ndarray:
    """Probabilities from ONNX Runtime, on the reference's images or on others."""
    path = _checked(folder, layout, width_of(reference.weights))
    try:
        session = open_session(path)
    except Exception as error:  # its exceptions have no common public base
        raise UserError("{}: ONNX Runtime does not read it ({}); run export.py {}".format(
            path, error, FILES[layout][1]))

    def predict(images: np.ndarray) -> np.ndarray:
        return session.run(["probabilities"], {"input": _as_input(images, layout)})[0]

    return run_batches(predict, reference.images if images is None else images, "ONNX Runtime")


def run_onnx_in_opencv(folder: str, reference: Reference) -> np.ndarray:
    """Probabilities from OpenCV's own reader of ONNX, with the layout NCHW."""
    net = cv2.dnn.readNetFromONNX(
        _checked(folder, "NCHW", width_of(reference.weights)))

    def predict(images: np.ndarray) -> np.ndarray:
        net.setInput(_as_input(images, "NCHW"))
        return net.forward("probabilities")

    return run_batches(predict, reference.images, "OpenCV")


def _as_input(images: np.ndarray, layout: str) -> np.ndarray:
    scaled = images / np.float32(255)
    return scaled if layout == "NHWC" else np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _checked(folder: str, layout: str, width: float) -> str:
    """The path of a model of this project; no engine is given another's.

    Raises
    ------
    UserError
        For a file that this project has not written.
    """
    name, command, _ = FILES[layout]
    path = existing(folder, name, command)
    shapes = [(filters, channels, height, width) for (height, width, channels, filters) in (
        shape for name, shape in weight_shapes(width).items() if name.endswith("/kernel"))]
    most = sum(4 * int(np.prod(shape)) for shape in weight_shapes(width).values()) + MOST_METADATA
    try:
        with open(path, "rb") as stream:
            check_model(stream.read(most), shapes, layout)
    except ValueError as error:
        raise UserError("{}: not the ONNX model that this version writes ({}); run export.py {}"
                        .format(path, error, command))
    return path


def _difference_at_another_size(folder: str, reference: Reference, layout: str) -> float:
    """ONNX Runtime against TensorFlow on three images that are 32 pixels higher and wider."""
    size = reference.image_size + darknet19.STRIDE
    _, images, _ = next(read_batches(reference.paths[:3], 3, size))
    with classifier_from_weights(reference.weights, size) as classifier:
        expected = classifier(images)
    return float(np.abs(run_onnx(folder, reference, images, layout) - expected).max())
