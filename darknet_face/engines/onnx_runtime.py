"""The network in ONNX Runtime, on a model that is written in memory from the weights."""

from __future__ import annotations

import threading
import typing

import numpy as np

from darknet_face.console import UserError
from darknet_face.engines.engine import Engine
from darknet_face.engines.onnx_graph import folded, onnx_model
from darknet_face.engines.onnx_int8 import Ranges, int8_model


class OnnxRuntimeEngine(Engine):
    """See :class:`darknet_face.engines.engine.Engine`.

    The session opens with the first images, which takes half a second: an answer by the detector
    may need none.

    Parameters
    ----------
    weights
        Named as in :mod:`darknet_face.weights.arrays`.
    image_size
        As for every engine.
    threads
        All cores if absent.
    ranges
        Compute in 8-bit numbers, with these: see :mod:`darknet_face.engines.onnx_int8`.
    """

    name = "onnxruntime"

    def __init__(self, weights: typing.Mapping[str, np.ndarray], image_size: int,
                 threads: int | None = None, ranges: Ranges | None = None) -> None:
        super().__init__(image_size)
        outputs = ["class_map"]
        self._open: typing.Callable[[], typing.Any] | None = lambda: open_session(
            int8_model(weights, ranges, outputs=outputs) if ranges else
            onnx_model(folded(weights), outputs=outputs), threads)
        self._session: typing.Any = None
        self._lock = threading.Lock()

    def prepare(self) -> None:
        with self._lock:
            if self._open:
                self._session = self._open()
                self._open = None  # frees the weights

    def class_map(self, images: np.ndarray) -> np.ndarray:
        self.prepare()
        try:
            maps, = self._session.run(["class_map"], {"input": images / np.float32(255)})
        except Exception as error:  # its exceptions have no common public base
            raise UserError("ONNX Runtime can't run the network on {} images of {} x {} ({}); use "
                            "a smaller --batch-size or --image-size".format(
                                *images.shape[:3], str(error).splitlines()[0]), exit_code=1)
        return maps.transpose(0, 2, 3, 1)

    def close(self) -> None:
        self._open = self._session = None


def open_session(model: str | bytes, threads: int | None = None) -> typing.Any:
    """An ``onnxruntime.InferenceSession`` on the processor, for a file or its content."""
    import onnxruntime  # takes 0.1 s

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Threads that spin while they wait take the cores from the detector and from the decoders.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
