"""The ONNX model of 8-bit numbers, checked by ONNX Runtime: a quarter of the size, and faster.

:mod:`darknet_face.engines.onnx_int8` writes it.
"""

from __future__ import annotations

import os

import numpy as np

from darknet_face.console import UserError
from darknet_face.engines.onnx_int8 import Ranges, int8_model
from darknet_face.engines.onnx_runtime import open_session
from darknet_face.exporters.compare import NAME, Reference, run_batches
from darknet_face.exporters.onnx import preprocessing, properties_of
from darknet_face.runtime.atomic_files import staged, write_atomically

INT8_NAME = NAME + "_int8.onnx"
# Of the reference's images, the share whose class may change; and of all answers, how far they
# may move on average.
MOST_CHANGED = 0.02
MOST_MOVED = 0.02


def export_int8(reference: Reference, ranges: Ranges, out: str) -> float:
    """Write ``darknet19_face_int8.onnx`` into the folder ``out``.

    Returns
    -------
    float
        The largest difference in probability from the ``reference``.

    Raises
    ------
    UserError
        With exit code 1 if too many classes change. Nothing is written then.
    """
    content = int8_model(reference.weights, ranges, properties=dict(
        properties_of(reference), **preprocessing(reference.image_size)))
    session = open_session(content)
    probabilities = run_batches(
        lambda images: session.run(["probabilities"], {"input": images / np.float32(255)})[0],
        reference.images, "ONNX Runtime, int8")
    differences = np.abs(probabilities - reference.expected)
    changed = (probabilities.argmax(1) != reference.expected.argmax(1)).mean()
    if changed > MOST_CHANGED or not differences.mean() <= MOST_MOVED:
        raise UserError("{}: not written: {:.1%} of the images change their class and "
                        "probabilities move by {:.3f} on average; use the float32 model".format(
                            INT8_NAME, changed, differences.mean()), exit_code=1)
    with staged(out) as folder, write_atomically(os.path.join(folder, INT8_NAME)) as stream:
        stream.write(content)
    print("wrote {}: {:.1f} MB, {:.1%} of {} images keep their class, probabilities move by at "
          "most {:.2g}".format(os.path.join(out, INT8_NAME), len(content) / 1e6, 1 - changed,
                               len(differences), differences.max()))
    return float(differences.max())
