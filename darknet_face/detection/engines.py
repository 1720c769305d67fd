"""What runs the one-pass detector's network: ONNX Runtime, or a session of TensorFlow.

As in :mod:`darknet_face.engines.engine`, but for boxes and scores instead of class maps.
"""

from __future__ import annotations

import typing

import numpy as np

from darknet_face.detection.model_file import OUTPUTS, Spec, detector_graph
from darknet_face.detection.onnx_graph import detector_model
from darknet_face.engines.engine import choose_engine
from darknet_face.engines.onnx_runtime import open_session
from darknet_face.engines.tensorflow_classifier import fold_batch_norm
from darknet_face.runtime.session import new_session, tf

Network = typing.Callable[[np.ndarray], typing.Tuple[np.ndarray, np.ndarray]]


def open_network(weights: typing.Mapping[str, np.ndarray], spec: Spec, engine: str | None = None,
                 precision: str = "float32", threads: int | None = None) -> Network:
    """Open an engine with the detector's network.

    Parameters
    ----------
    weights, spec
        See :func:`darknet_face.detection.model_file.read_detector`.
    engine, precision, threads
        See :func:`darknet_face.engines.engine.open_engine`.

    Returns
    -------
    callable
        Takes float32, [n, height, width, 3], RGB 0..1, sides multiples of 32. Returns the boxes,
        [n, cells, 4], left, top, right, bottom in pixels, and the scores, [n, cells]. Several
        threads may call it at once.
    """
    if choose_engine(engine, precision) == "onnxruntime":
        return _OnnxRuntime(weights, threads)
    return _TensorFlow(weights, spec, precision, threads)


class _OnnxRuntime:
    def __init__(self, weights, threads):
        self._session = open_session(detector_model(weights), threads)

    def __call__(self, images):
        boxes, scores = self._session.run(list(OUTPUTS), {"input": images})
        return boxes, scores


class _TensorFlow:
    def __init__(self, weights, spec, precision, threads):
        graph = tf.Graph()
        with graph.as_default():
            # Folding is needed: on CPUs without AVX-512 TensorFlow 2 takes ten times as long for
            # a convolution that it fuses with a batch norm itself.
            tf.import_graph_def(
                fold_batch_norm(detector_graph(weights, spec), OUTPUTS), name="")
        self._session = new_session(graph, threads, precision)

    def __call__(self, images):
        boxes, scores = self._session.run([name + ":0" for name in OUTPUTS], {"input:0": images})
        return boxes, scores
