"""The ONNX model with 8-bit weights and activations: a quarter of the size, and faster.

ONNX Runtime's static quantisation measures the range of every activation on some images and
writes the scales into the model (QDQ format). The first and the last convolution stay float32: they
see the pixels and decide the answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import typing

import numpy as np

from darknet_face.console import UserError
from darknet_face.engines.onnx_runtime import open_session
from darknet_face.exporters.compare import BATCH, NAME, Reference, existing, run_batches
from darknet_face.runtime.atomic_files import staged, temporary_folder

INT8_NAME = NAME + "_int8.onnx"
# Of the reference's images, the share whose class may change; and of all answers, how far they
# may move on average. Measured on the released model: none of 200 and 0.004.
MOST_CHANGED = 0.02
MOST_MOVED = 0.02


def export_int8(reference: Reference, calibration: np.ndarray, out: str) -> float:
    """Quantise ``darknet19_face.onnx`` in the folder ``out`` into ``darknet19_face_int8.onnx``.

    Parameters
    ----------
    reference
        On whose images the answers are compared.
    calibration
        uint8, [images, height, width, 3], RGB: what the ranges are measured on.
    out
        Folder of the exports.

    Returns
    -------
    float
        The largest difference in probability.

    Raises
    ------
    UserError
        With exit code 1 if too many classes change. Nothing is written then.
    """
    out = os.path.abspath(out)
    source = existing(out, NAME + ".onnx", "onnx")
    with staged(out) as folder:
        path = os.path.join(folder, INT8_NAME)
        with temporary_folder(out, "int8") as work, _quietly_in(work):
            _quantise(shutil.copy(source, work), path, calibration)
        _describe(path, len(calibration))
        session = open_session(path)
        probabilities = run_batches(
            lambda images: session.run(["probabilities"], {"input": images / np.float32(255)})[0],
            reference.images, "ONNX Runtime, int8")
        differences = np.abs(probabilities - reference.expected)
        changed = (probabilities.argmax(1) != reference.expected.argmax(1)).mean()
        if changed > MOST_CHANGED or not differences.mean() <= MOST_MOVED:
            raise UserError("{}: not written: {:.1%} of the images change their class and "
                            "probabilities move by {:.3f} on average; use the float32 model".format(
                                INT8_NAME, changed, differences.mean()), exit_code=1)
        size, full = os.path.getsize(path), os.path.getsize(source)
    print("wrote {}: {:.1f} MB instead of {:.1f}, {:.1%} of {} images keep their class, "
          "probabilities move by at most {:.2g}".format(
              os.path.relpath(os.path.join(out, INT8_NAME)), size / 1e6, full / 1e6, 1 - changed,
              len(differences), differences.max()))
    return float(differences.max())


def _quantise(source: str, path: str, calibration: np.ndarray) -> None:
    import onnx
    from onnxruntime import quantization

    convolutions = [node.name for node in onnx.load(source).graph.node if node.op_type == "Conv"]

    class Batches(quantization.CalibrationDataReader):
        """The images, a few at a time, as the calibration asks for them."""

        def __init__(self) -> None:
            self.starts = iter(range(0, len(calibration), BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            start = next(self.starts, None)
            return None if start is None else {
                "input": calibration[start:start + BATCH] / np.float32(255)}

    quantization.quantize_static(
        source, path, Batches(), quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv", "MaxPool"],
        nodes_to_exclude=[convolutions[0], convolutions[-1]])


def _describe(path: str, images: int) -> None:
    """Add to the metadata, which quantisation keeps, how the model was made."""
    import onnx

    model = onnx.load(path)
    properties = {each.key: each.value for each in model.metadata_props}
    properties["quantization"] = "int8, QDQ, ranges measured on {} images".format(images)
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)


@contextlib.contextmanager
def _quietly_in(folder: str) -> typing.Iterator[None]:
    """Work in a folder: ONNX Runtime 1.10 leaves files there. Hold back its advice."""
    logger, before = logging.getLogger(), os.getcwd()
    level = logger.level
    logger.setLevel(logging.ERROR)
    os.chdir(folder)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        os.chdir(before)
        logger.setLevel(level)
