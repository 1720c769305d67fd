"""The two pickles of the YOLOv2 hand-off, checked by building the detector's backbone from them."""

import os

import numpy as np

import darknet19
from exporters.compare import check_difference
from model import handoff
from model.weights import assign
from pictures.reader import read_batches
from runtime.files import staged
from runtime.session import new_session, tf
from utils import progress

BOUND = 1e-4  # of an activation, relative to the largest one
SIZE = 416  # height and width that the detector runs at
PICTURES = 4


def export_yolov2(reference, out):
    """Write the two pickles into the folder ``out``.

    Returns
    -------
    float
        See :func:`compare_backbones`.
    """
    with staged(out) as folder:
        paths = [os.path.join(folder, name) for name in handoff.FILES]
        handoff.write_handoff(reference.weights, *paths)
        pickled = handoff.read_handoff(*paths)
        difference = compare_backbones(reference, pickled)
        check_difference(" and ".join(handoff.FILES), "the detector's backbone", difference, BOUND)
        classifier = darknet19.CLASSIFIER + "/kernel"  # in the file, but no part of the backbone
        check_difference(handoff.FILES[0], classifier,
                         np.abs(pickled[classifier] - reference.weights[classifier]).max(), 0)
    print("wrote {} and {}: layers 0 to 17 at {size} x {size} agree within {:.1e} of the largest "
          "activation".format(*[os.path.join(out, name) for name in handoff.FILES], difference,
                              size=SIZE))
    return difference


def compare_backbones(reference, pickled):
    """Run layers 0 to 17 as the detector builds them and as darknet19.py does.

    Parameters
    ----------
    reference : Reference
    pickled : mapping of str to numpy.ndarray
        What the pickles hold; see :func:`model.handoff.read_handoff`.

    Returns
    -------
    float
        The largest difference in the pass-through or the trunk, relative to the largest activation.
    """
    chosen = np.linspace(0, len(reference.paths), PICTURES, endpoint=False).astype(int)
    paths = [reference.paths[index] for index in sorted(set(chosen))]
    _, pictures, _ = next(read_batches(paths, len(paths), SIZE))
    outputs = []
    for build, weights in ((_detector_backbone, pickled), (_own_backbone, reference.weights)):
        graph = tf.Graph()
        with graph.as_default(), new_session(graph) as session:
            images = tf.placeholder(tf.float32, [None, SIZE, SIZE, 3])
            tensors = build(images, session, weights)
            outputs.append([session.run(tensors, {images: picture[None] / np.float32(255)})
                            for picture in progress(pictures, desc="backbone", leave=False)])
    return max(float(np.abs(theirs - ours).max() / np.abs(ours).max())
               for pair in zip(*outputs) for theirs, ours in zip(*pair))


def _detector_backbone(net, _, pickled):
    """Pass-through and trunk as the detector builds them, from the pickles alone."""
    index, outputs = 0, []
    for layer in darknet19.LAYERS:
        if layer == darknet19.MAX_POOL:
            net = tf.nn.max_pool(net, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
            continue
        part = {name: pickled["conv_{}/{}".format(index, name)]
                for name in ("kernel", "mean", "variance", "beta", "gamma")}
        net = tf.nn.conv2d(net, part["kernel"], [1, 1, 1, 1], "SAME")
        net = tf.nn.batch_normalization(
            net, part["mean"], part["variance"], part["beta"], part["gamma"], 1e-5)
        net = tf.nn.leaky_relu(net, 0.1)
        if index in (12, 17):
            outputs.append(net)
        index += 1
    return outputs


def _own_backbone(images, session, weights):
    """The same two activations of darknet19.py's network."""
    _, end_points = darknet19.build(images)
    assign(session, weights)
    return [end_points["pass_through"], end_points["trunk"]]
