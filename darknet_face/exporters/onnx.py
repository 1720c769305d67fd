"""The ONNX model, checked by ONNX Runtime."""

from __future__ import annotations

import functools
import logging
import operator
import os

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import (
    OUTPUTS,
    classifier_from_weights,
    with_constants,
)
from darknet_face.exporters.compare import (
    BOUNDS,
    NAME,
    check_difference,
    existing,
    import_package,
    run_batches,
)
from darknet_face.images.reader import read_batches
from darknet_face.runtime.atomic_files import staged, write_atomically
from darknet_face.runtime.safe_files import regular_size
from darknet_face.weights.metadata import read_metadata
from darknet_face.weights.released import RELEASED

OPSET = 13
LICENSE = "for non-commercial research only; see saved_models/MODEL_CARD.md"  # the released model
# All that the exported models are made of, the int8 one too.
OPERATIONS = {"Conv", "DequantizeLinear", "GlobalAveragePool", "LeakyRelu", "MaxPool",
              "QuantizeLinear", "Softmax", "Squeeze", "Transpose"}


def export_onnx(reference, out):
    """Write ``darknet19_face.onnx`` into the folder ``out``.

    Returns
    -------
    float
        The largest difference in probability.
    """
    onnx = import_package("onnx")
    model = to_onnx(reference.weights, reference.image_size, properties_of(reference))
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise UserError("{}.onnx: not written: the checker refuses it ({})".format(NAME, error),
                        exit_code=1)
    with staged(out) as folder:
        with write_atomically(os.path.join(folder, NAME + ".onnx")) as stream:
            stream.write(model.SerializeToString())
        difference = reference.check(
            NAME + ".onnx", "ONNX Runtime", run_onnx(folder, reference), BOUNDS["onnx"])
        other = _difference_at_another_size(folder, reference)
        check_difference(NAME + ".onnx", "ONNX Runtime at another size", other, BOUNDS["onnx"])
    print("wrote {}.onnx: ONNX Runtime agrees within {:.1e}, at another size within {:.1e}".format(
        os.path.join(out, NAME), difference, other))
    return difference


def properties_of(reference):
    """What the model's metadata say of the weights: their threshold and licence, where known."""
    metadata = read_metadata(reference.source)
    properties = {name: str(metadata[name]) for name in ("threshold", "step") if name in metadata}
    if reference.source == RELEASED:
        properties["license"] = LICENSE
    return properties


def to_onnx(weights, image_size, properties=None):
    """Freeze the network with any batch, height and width, and convert it to ONNX.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
    image_size : int
        For the metadata.
    properties : dict of str to str, optional
        More metadata.

    Returns
    -------
    onnx.ModelProto
        Input ``input``: float32, [batch, height, width, 3], RGB 0..1, height and width multiples
        of 32. Outputs ``probabilities`` and ``logits``: float32, [batch, 2], FACE first. Its
        metadata name the classes and the preprocessing.
    """
    onnx, tf2onnx = import_package("onnx"), import_package("tf2onnx.convert")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    outputs = OUTPUTS[::-1]
    classifier = classifier_from_weights(weights, None)
    with classifier.session:
        graph_def = with_constants(classifier)
    model, _ = tf2onnx.from_graph_def(
        graph_def, name="Darknet-19", input_names=["input:0"],
        output_names=[name + ":0" for name in outputs], opset=OPSET,
        tensors_to_rename={name + ":0": name for name in ["input"] + outputs})
    for value, names in [(model.graph.input[0], ("batch", "height", "width"))] + [
            (output, ("batch",)) for output in model.graph.output]:
        for dimension, name in zip(value.type.tensor_type.shape.dim, names):
            dimension.dim_param = name
    model.doc_string = "Darknet-19 that tells faces from other pictures"
    onnx.helper.set_model_props(model, dict(properties or {}, **{
        "input_layout": "NHWC",
        "input_colours": "RGB",
        "input_range": "0..1",
        "class_names": ",".join(darknet19.CLASS_NAMES),
        "preprocessing": "RGB, stretched to {0} x {0}, divided by 255; float32, [batch, height, "
                         "width, 3]".format(image_size),
        "image_size": str(image_size),
        "size_multiple": str(darknet19.STRIDE),
    }))
    return model


def run_onnx(folder, reference, images=None):
    """Probabilities from ONNX Runtime, on the reference's pictures or on others."""
    predict = open_onnx(existing(folder, NAME + ".onnx", "onnx"))
    return run_batches(predict, reference.images if images is None else images, "ONNX Runtime")


def open_onnx(path):
    """A function from pictures, uint8 [batch, height, width, 3], to ONNX Runtime's probabilities.

    Raises
    ------
    UserError
        For a file that this project has not written, or that ONNX Runtime does not read or run.
    """
    runtime = import_package("onnxruntime")
    _check_own(path)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common public base
        raise UserError("{}: ONNX Runtime does not read it ({}); run export.py onnx".format(
            path, error))

    def predict(images):
        try:
            answers, = session.run(["probabilities"], {"input": images / np.float32(255)})
        except Exception as error:
            raise UserError("{}: ONNX Runtime does not run it ({}); run export.py onnx".format(
                path, error))
        if np.shape(answers) != (len(images), darknet19.NUM_CLASSES):
            raise UserError("{}: its answers have the shape {}; run export.py onnx".format(
                path, np.shape(answers)))
        return answers

    return predict


def _check_own(path):
    """Check that a model has no operations but ours, and all of its weights in its own file.

    A model is a program: it could loop for ever, ask for any amount of memory, or read other files.
    """
    onnx = import_package("onnx")
    size = regular_size(path, "run export.py onnx")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's decode errors have no common public base
        raise UserError("{}: not a whole ONNX model ({}); run export.py onnx".format(path, error))
    foreign = sorted({node.op_type for node in model.graph.node} - OPERATIONS)
    if model.functions or any(node.domain for node in model.graph.node):
        foreign.append("functions of its own")
    if any(tensor.external_data for tensor in model.graph.initializer):
        foreign.append("weights in other files")
    tensors = list(model.graph.initializer) + [
        attribute.t for node in model.graph.node for attribute in node.attribute]
    for dims in (list(tensor.dims) for tensor in tensors):
        # ONNX Runtime 1.10 ends the process at a negative one.
        if min(dims, default=0) < 0 or functools.reduce(operator.mul, dims, 1) > size:
            foreign.append("a tensor of the shape {}".format(dims))
    if foreign:
        raise UserError("{}: not an ONNX model of this project (it has {}); run export.py onnx"
                        .format(path, ", ".join(foreign)))


def _difference_at_another_size(folder, reference):
    """ONNX Runtime against TensorFlow on three pictures that are 32 pixels higher and wider."""
    size = reference.image_size + darknet19.STRIDE
    _, pictures, _ = next(read_batches(reference.paths[:3], 3, size))
    classifier = classifier_from_weights(reference.weights, size)
    with classifier.session:
        expected = classifier(pictures)
    return float(np.abs(run_onnx(folder, reference, pictures) - expected).max())
