"""Where in a picture the network sees a face: class activation maps over photographs.

    python inference.py --heatmap maps photo.jpg       # writes maps/photo.jpg

Darknet-19 ends in a 1x1 convolution and global average pooling, so the map before the pooling is
the class activation map as it is (Zhou et al., "Learning Deep Features for Discriminative
Localization", CVPR 2016): the logits are its mean, and its softmax says of every place how much of
a face it is. The network is fully convolutional: a picture is run at several sizes, a large one at
large ones, so that the faces in it, large and small, come out at the size the network knows.
"""

import cv2
import numpy as np

import darknet19
from model.weights import assign
from pictures.classes import FACE
from runtime.session import new_session, tf

# Multiples of the input size that a picture is run at, as far as it has the pixels. At the input
# size itself every cell of the map sees the whole of a portrait, which then is face all over.
ZOOMS = (1.6, 2.5, 4, 6.4)


class FaceMapper:
    """A graph of its own that maps the FACE class over pictures of any size.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
    image_size : int
        The input size that the weights were trained at.
    zooms : sequence of float
        Multiples of it to run a picture at.
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
            float32, [height, width], 0..1: the probability of FACE at each place, the highest of
            those at the several sizes.
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
        """The input sizes, (height, width) in multiples of 32, that a picture is run at.

        They keep the picture's shape and have the area of the network's input times the square of
        a zoom. Of those that would enlarge the picture to more than
        twice its pixels only the smallest two are kept.
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
    """Lay a map over its picture: grey where there is no face, in warm colours where there is one.

    Parameters
    ----------
    image : numpy.ndarray
        uint8, [height, width, 3], RGB.
    face_map : numpy.ndarray
        float32, [height, width], 0..1.

    Returns
    -------
    numpy.ndarray
        uint8, [height, width, 3]. A white line, edged in black, runs where the map is 0.5.
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
