"""The model for TensorFlow Lite (LiteRT), as phones and small computers run it: one image a run.

TensorFlow converts the graph with batch norm folded, and its interpreter checks the result.
"""

from __future__ import annotations

import os
import typing
import warnings

import numpy as np

from darknet_face.console import UserError
from darknet_face.engines.tensorflow_classifier import (
    classifier_from_weights,
    fold_batch_norm,
    with_constants,
)
from darknet_face.exporters.compare import BOUNDS, NAME, Reference, run_batches
from darknet_face.runtime.atomic_files import staged, write_atomically
from darknet_face.runtime.session import is_tf2, new_session, quiet, tf

FILE = NAME + ".tflite"


def export_tflite(reference: Reference, out: str) -> float:
    """Write ``darknet19_face.tflite`` into the folder ``out``.

    Its input is float32, [1, height, width, 3], RGB 0..1, of the reference's size; its output is
    ``probabilities``, float32, [1, 2], FACE first.

    Returns
    -------
    float
        The largest difference in probability.
    """
    if not is_tf2():
        raise UserError("{}: TensorFlow {} does not write it; use TensorFlow 2 (make RUNTIME=tf2)"
                        .format(FILE, tf.__version__))
    content = to_tflite(reference.weights, reference.image_size)
    with staged(out) as folder:
        with write_atomically(os.path.join(folder, FILE)) as stream:
            stream.write(content)
        difference = reference.check(
            FILE, "TensorFlow Lite", _run(content, reference), BOUNDS["tensorflow"])
    print("wrote {}: TensorFlow Lite agrees within {:.1e}".format(
        os.path.join(out, FILE), difference))
    return difference


def to_tflite(weights: typing.Mapping[str, np.ndarray], image_size: int) -> bytes:
    """The content of the file."""
    with classifier_from_weights(weights, image_size) as classifier:
        graph_def = fold_batch_norm(with_constants(classifier))
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    with new_session(graph) as session, quiet():
        images, probabilities = (
            graph.get_tensor_by_name(name) for name in ("input:0", "probabilities:0"))
        images.set_shape([1, image_size, image_size, 3])
        return tf.lite.TFLiteConverter.from_session(session, [images], [probabilities]).convert()


def _run(content: bytes, reference: Reference) -> np.ndarray:
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # that a later TensorFlow has the interpreter elsewhere
        interpreter = tf.lite.Interpreter(model_content=content)
        interpreter.allocate_tensors()
    source, = (each["index"] for each in interpreter.get_input_details())
    target, = (each["index"] for each in interpreter.get_output_details())

    def predict(images: np.ndarray) -> np.ndarray:
        answers = []
        for image in images:
            interpreter.set_tensor(source, image[np.newaxis] / np.float32(255))
            interpreter.invoke()
            answers.append(interpreter.get_tensor(target)[0])
        return np.stack(answers)

    return run_batches(predict, reference.images, "TensorFlow Lite")
