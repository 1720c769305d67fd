"""Heat maps: where in a picture the network sees a face.

    python inference.py --heatmap maps photo.jpg       # writes maps/photo.jpg

Darknet-19 ends in a 1x1 convolution and global average pooling. The map before the pooling is
therefore the class activation map (Zhou et al., "Learning Deep Features for Discriminative
Localization", CVPR 2016): the logits are its mean, and its softmax is the probability of FACE at
each place. The network is fully convolutional, so each picture is run at several sizes. Large and
small faces then both appear at a size that the network was trained on.
"""

import cv2
import numpy as np

import darknet19
from model.weights import assign
from pictures.classes import FACE
from runtime.session import new_session, tf

# Multiples of the input size at which a picture is run, if it has enough pixels. 1 is left out: at
# the input size every cell of the map sees a whole portrait, and the map is warm everywhere.
ZOOMS = (1.6, 2.5, 4, 6.4)


class FaceMapper:
    """Maps the FACE class over pictures of any size, in a graph and session of its own.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
    image_size : int
        The input size in training, in pixels.
    zooms : sequence of float
        Multiples of the input size at which to run a picture.
    threads : int, optional
        See :func:`runtime.session.new_session`.
    """

    def __init__(self, weights, image_size, zooms=ZOOMS, threads=None):
        self.image_size = image_size
        self.zooms = zooms
        graph = tf.Graph()
        with graph.as_default():
            self._images = tf.placeholder(tf.float32, [None, None, None, 3])
            _, end_points = darknet19.build(self._images, training=False)
            self._map = tf.nn.softmax(end_points["class_map"])[..., FACE]
        self.session = new_session(graph, threads)
        assign(self.session, weights)

    def __call__(self, image):
        """Map one picture.

        Parameters
        ----------
        image : numpy.ndarray
            uint8, [any height, any width, 3], RGB.

        Returns
        -------
        numpy.ndarray
            float32, [height, width], 0..1: the probability of FACE at each place, the maximum
            over the sizes.
        """
        height, width = image.shape[:2]
        highest = np.zeros((height, width), np.float32)
        for size in self.input_sizes(height, width):
            scaled = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
            cells = self.session.run(
                self._map, {self._images: scaled[np.newaxis] / np.float32(255)})[0]
            smooth = cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)
            np.maximum(highest, smooth, out=highest)
        return highest

    def input_sizes(self, height, width):
        """The input sizes for a picture, as (height, width), multiples of 32.

        Each keeps the aspect ratio. Its area is that of the network's input times the square of a
        zoom. At most two of the sizes enlarge the picture to more than twice its pixels.
        """
        sizes = []
        for zoom in self.zooms:
            scale = self.image_size * zoom / np.sqrt(height * width)
            size = tuple(darknet19.STRIDE * max(1, int(round(side * scale / darknet19.STRIDE)))
                         for side in (height, width))
            if size not in sizes and (len(sizes) < 2 or scale <= np.sqrt(2)):
                sizes.append(size)
        return sizes


def overlay(image, face_map):
    """Lay a map over its picture: grey where no face is seen, warm colours where one is.

    Parameters
    ----------
    image : numpy.ndarray
        uint8, [height, width, 3], RGB.
    face_map : numpy.ndarray
        float32, [height, width], 0..1.

    Returns
    -------
    numpy.ndarray
        uint8, [height, width, 3]. A white line with black edges marks where the map is 0.5.
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    levels = np.rint(face_map * 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    share = (0.55 * np.sqrt(face_map))[..., np.newaxis]
    mixed = np.rint(grey * (1 - share) + colours * share).astype(np.uint8)
    outlines, _ = cv2.findContours(
        (face_map >= 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, min(image.shape[:2]) // 200)
    cv2.drawContours(mixed, outlines, -1, (0, 0, 0), 2 * thickness + 1, cv2.LINE_AA)
    cv2.drawContours(mixed, outlines, -1, (255, 255, 255), thickness, cv2.LINE_AA)
    return mixed
