"""darknet's three files, checked by OpenCV's DNN module, which reads them."""

from __future__ import annotations

import os

import cv2
import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.exporters.compare import BOUNDS, NAME, Reference, existing, run_batches
from darknet_face.runtime.atomic_files import staged, write_atomically
from darknet_face.weights import darknet_weights


def export_darknet(reference: Reference, out: str) -> float:
    """Write ``darknet19_face.cfg``, ``.weights`` and ``.names`` into the folder ``out``.

    Returns
    -------
    float
        The largest difference in probability.
    """
    with staged(out) as folder:
        cfg, content, names = (os.path.join(folder, NAME + extension)
                               for extension in (".cfg", ".weights", ".names"))
        darknet_weights.write_network(
            cfg, content, reference.weights, reference.image_size,
            ["# {} {:g}".format(name, reference.metadata[name])
             for name in ("threshold", "search_bias", "step") if name in reference.metadata])
        with write_atomically(names, "w", encoding="ascii") as stream:
            stream.write("\n".join(darknet19.CLASS_NAMES) + "\n")
        difference = reference.check(
            NAME + ".weights", "OpenCV", run_opencv(folder, reference), BOUNDS["opencv"])
    print("wrote {0}.cfg, {0}.weights and {0}.names: OpenCV agrees within {1:.1e}".format(
        os.path.join(out, NAME), difference))
    return difference


def run_opencv(folder: str, reference: Reference) -> np.ndarray:
    """Probabilities from OpenCV's DNN module with the files of :func:`export_darknet`."""
    cfg, content = (existing(folder, NAME + extension, "darknet")
                    for extension in (".cfg", ".weights"))
    darknet_weights.read_network(content, cfg)  # a damaged file could harm OpenCV's reader
    net = opencv_net(cfg, content)

    def predict(images: np.ndarray) -> np.ndarray:
        net.setInput(cv2.dnn.blobFromImages(list(images), 1 / 255.0))
        return net.forward().reshape(len(images), -1)

    return run_batches(predict, reference.images, "OpenCV")


def opencv_net(cfg: str, content: str) -> cv2.dnn.Net:
    """Read darknet's files, which were written or checked here, by OpenCV's DNN module."""
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        raise UserError("OpenCV {} does not read darknet's files; pip install -r requirements.txt"
                        .format(cv2.__version__))
    try:
        return cv2.dnn.readNetFromDarknet(cfg, content)
    except cv2.error as error:
        raise UserError("{}: OpenCV does not read it ({}); export it again".format(content, error))
