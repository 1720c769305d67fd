"""Look for a face where it is: the network as a sliding window over a whole photograph.

Darknet-19 is fully convolutional, so one run over a photograph of any size gives its class map at
every place. Averaged over as many cells as the network's input has (7 x 7 at 224), the map is what
the classifier says of every window of that size, 32 pixels apart, at a fraction of the cost. The
photograph keeps its aspect ratio and is looked at in several sizes, so that faces of several sizes
fill a window. A face that fills the picture and more is looked at as a part of a window, within a
border. The answer is the window with the highest probability.
"""

from __future__ import annotations

import collections

import cv2
import numpy as np
from scipy.special import expit

import darknet19
from darknet_face.classes import FACE, NON_FACE
from darknet_face.console import UserError, number_type
from darknet_face.engines.tensorflow_classifier import fold_batch_norm
from darknet_face.images.decode import resize
from darknet_face.images.reader import LARGEST_SIZE
from darknet_face.runtime.session import PRECISIONS, explain_memory_errors, new_session, tf
from darknet_face.weights.arrays import assign
from darknet_face.weights.metadata import read_metadata
from darknet_face.weights.released import add_weights_argument, choose_model
from darknet_face.weights.weight_files import read_weights

# The photograph's shorter side, in multiples of the network's input, in the order of the looks. For
# those below 1 its edges are repeated around it until it fills a window: faces that are cut off by
# the edges are small enough then to be known.
ZOOMS = (1, 0.6, 2, 4)
CERTAIN = 0.995  # a window as probable as this ends the search: larger sizes are left out
MOST_ENLARGED = 3.0  # sizes that would enlarge the photograph more are left out, but for the first
FINE = 0.98  # a smaller window must be as probable as this to replace a certain one as the place
PIXELS_PER_RUN = 1 << 20  # pictures share a run up to so many pixels, which bounds the memory
LONGEST = 8  # a side longer than this many times the other is compressed to it
OUTPUT = "windows"
CHOICES = ("off",) + tuple(str(zoom) for zoom in ZOOMS if zoom >= 1)  # of the option --search

Finding = collections.namedtuple("Finding", "probability left top width height zoom")
Finding.__doc__ = """The most probable window: P(FACE), its box in the picture's own pixels (what a
border adds is left out), and the zoom at which it was found."""


def zooms_of(choice):
    """The zooms for a value of the option --search: those up to it; none for ``off`` or None."""
    return () if choice in (None, "off") else tuple(
        zoom for zoom in ZOOMS if zoom <= int(choice))


class WindowSearch:
    """A graph of its own that looks through the windows of pictures of any size.

    Several threads may use one search at once.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
    image_size : int
        The input size that the weights were trained at: the window's.
    zooms : sequence of float
        Sizes to look at, in this order, each the shorter side in multiples of ``image_size``.
    threads, precision
        See :func:`darknet_face.runtime.session.new_session`.
    bias : float
        Subtracted from every window's log-odds. The best of many windows scores higher than a
        single look. The bias is chosen on validation pictures, so that 0.5 again separates faces
        from other pictures. The released weights carry theirs: see
        :func:`darknet_face.weights.metadata.read_metadata`.
    """

    def __init__(self, weights, image_size=224, zooms=ZOOMS, threads=None, precision="float32",
                 bias=0.0):
        self.image_size = image_size
        self.zooms = tuple(zooms)
        self.bias = bias
        self.cells = image_size // darknet19.STRIDE
        graph = tf.Graph()
        with graph.as_default():
            images = tf.placeholder(tf.float32, [None, None, None, 3], "input")
            _, end_points = darknet19.build(images, training=False)
            windows = tf.nn.avg_pool2d(end_points["class_map"], self.cells, 1, "VALID")
            tf.subtract(windows[..., FACE], windows[..., NON_FACE], name=OUTPUT)
            with new_session(graph, threads) as session:
                assign(session, weights)
                graph_def = tf.graph_util.convert_variables_to_constants(
                    session, graph.as_graph_def(), [OUTPUT])
        folded = tf.Graph()
        with folded.as_default():
            tf.import_graph_def(fold_batch_norm(graph_def, [OUTPUT]), name="")
        self.session = new_session(folded, threads, precision)

    def __call__(self, image, certain=CERTAIN):
        """Find the most probable window of one picture: see :meth:`find`."""
        return self.find([image], certain)[0]

    def find(self, images, certain=CERTAIN):
        """Find the most probable window of each picture. Several threads may call this at once.

        Parameters
        ----------
        images : sequence of numpy.ndarray
            Each uint8, [any height, any width, 3], RGB. Those that are looked at in the same size
            share runs of the network.
        certain : float
            A window as probable as this ends the search of its picture.

        Returns
        -------
        list of Finding
        """
        findings = [None] * len(images)
        highest = [-np.inf] * len(images)
        searching = list(range(len(images)))
        for zoom in self.zooms:
            for index, log_odds in self._looks(images, searching, zoom, self.zooms[0]):
                row, column = np.unravel_index(np.argmax(log_odds), log_odds.shape)
                if findings[index] is None or log_odds[row, column] > highest[index]:
                    highest[index] = np.float64(log_odds[row, column])
                    box = self.box(images[index].shape, log_odds.shape, row, column, zoom)
                    findings[index] = Finding(float(expit(highest[index])), *box, zoom=zoom)
            searching = [each for each in searching if findings[each].probability < certain]
        return findings

    def refine(self, image, finding):
        """A smaller window inside that of a search that stopped early, for a picture's Finding.

        It keeps its probability. Without a smaller window that is at least :data:`FINE` probable
        it stays as it is.
        """
        if finding.probability < CERTAIN:
            return finding
        for zoom in self.zooms:
            if zoom <= finding.zoom:
                continue
            for _, log_odds in self._looks([image], [0], zoom, self.zooms[0]):
                boxes = self.box(image.shape, log_odds.shape, *np.ogrid[
                    :log_odds.shape[0], :log_odds.shape[1]])
                inside = np.where(_lie_inside(finding, *boxes), log_odds, -np.inf)
                row, column = np.unravel_index(np.argmax(inside), inside.shape)
                if expit(inside[row, column]) < FINE:
                    return finding
                box = self.box(image.shape, log_odds.shape, row, column)
                finding = Finding(finding.probability, *box, zoom=zoom)
        return finding

    def windows(self, image, zooms=None):
        """Yield the zoom and the log-odds of FACE in every window, float32 [rows, columns].

        ``zooms`` are those of the search if absent.
        """
        zooms = self.zooms if zooms is None else zooms
        for zoom in zooms:
            for _, log_odds in self._looks([image], [0], zoom, zooms[0]):
                yield zoom, log_odds

    def _looks(self, images, chosen, zoom, first_zoom):
        """Yield the number and the log-odds of each chosen picture that this zoom is for."""
        numbers = collections.defaultdict(list)
        for index in chosen:
            size = self.input_size(images[index].shape, zoom, first_zoom)
            if size:
                numbers[size].append(index)
        for size, group in numbers.items():
            most = max(1, PIXELS_PER_RUN // (size[0] * size[1]))
            for start in range(0, len(group), most):
                part = group[start:start + most]
                scaled = np.stack([_fit(images[index], size, zoom) for index in part])
                with explain_memory_errors("search smaller pictures, or less far"):
                    log_odds = self.session.run(
                        OUTPUT + ":0", {"input:0": scaled / np.float32(255)})
                yield from zip(part, log_odds - self.bias)

    def input_size(self, shape, zoom, first_zoom):
        """The height and width, multiples of 32, at which a picture is looked at.

        None if that would enlarge the picture too much; ``first_zoom`` and smaller ones are never
        left out.
        """
        height, width = _bordered(shape, zoom)
        shorter = self.image_size * max(zoom, 1)
        scale = shorter / min(height, width)
        if scale > MOST_ENLARGED and zoom > first_zoom:
            return None
        longest = min(max(height, width) * scale, shorter * LONGEST)
        longest = darknet19.STRIDE * int(round(longest / darknet19.STRIDE))
        shorter = darknet19.STRIDE * int(round(shorter / darknet19.STRIDE))
        return (shorter, longest) if height <= width else (longest, shorter)

    def box(self, shape, grid, row, column, zoom=1):
        """The box of a window, left, top, width, height, in the picture's own pixels."""
        cells = self.cells
        bordered = _bordered(shape, zoom)
        height, width = bordered[0] / (grid[0] + cells - 1), bordered[1] / (grid[1] + cells - 1)
        left, top, right, bottom = (
            column * width, row * height, (column + cells) * width, (row + cells) * height)
        if zoom >= 1:
            return left, top, cells * width, cells * height
        margin = (bordered[0] - shape[0]) / 2
        left, right = (min(max(each - margin, 0.0), shape[1]) for each in (left, right))
        top, bottom = (min(max(each - margin, 0.0), shape[0]) for each in (top, bottom))
        return left, top, right - left, bottom - top


def _bordered(shape, zoom):
    """Height and width of a picture with the border that a zoom below 1 puts around it."""
    margin = int(round(min(shape[:2]) * (1 / zoom - 1) / 2)) if zoom < 1 else 0
    return shape[0] + 2 * margin, shape[1] + 2 * margin


def _fit(image, size, zoom):
    """Scale a picture, with its border, to a height and width."""
    if zoom >= 1:
        return resize(image, *size)
    # The border is added to the small picture, so that a large one is not copied.
    inner = [max(1, int(round(full * own / whole)))
             for full, own, whole in zip(size, image.shape, _bordered(image.shape, zoom))]
    top, left = ((full - own) // 2 for full, own in zip(size, inner))
    return cv2.copyMakeBorder(resize(image, *inner), top, size[0] - inner[0] - top, left,
                              size[1] - inner[1] - left, cv2.BORDER_REPLICATE)


def _lie_inside(finding, left, top, width, height):
    """Which boxes (arrays) lie inside a finding's, up to a pixel."""
    return ((left > finding.left - 1) & (left + width < finding.left + finding.width + 1)
            & (top > finding.top - 1) & (top + height < finding.top + finding.height + 1))


def add_search_arguments(parser):
    """Add the options of a script that searches with any model."""
    add_weights_argument(parser, "your newest in saved_models, otherwise the released one")
    parser.add_argument("--image-size", type=number_type(int, darknet19.STRIDE, LARGEST_SIZE),
                        help="height and width of a window, a multiple of 32 (default: that of "
                             "the training)")
    parser.add_argument("--zooms", type=number_type(float, 0.5, 16), nargs="+",
                        default=list(ZOOMS), help="sizes at which a picture is looked at, in this "
                                                  "order: its shorter side in windows, below 1 "
                                                  "within a border")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="what convolutions compute in")


def open_search(options):
    """The :class:`WindowSearch` for the options of :func:`add_search_arguments`.

    Raises
    ------
    UserError
        For an input size that is no multiple of 32, and as
        :func:`darknet_face.weights.weight_files.read_weights`.
    """
    if options.image_size and options.image_size % darknet19.STRIDE:
        raise UserError("--image-size {}: not a multiple of {}".format(
            options.image_size, darknet19.STRIDE))
    path, size = choose_model("saved_models", options.weights, options.image_size)
    return WindowSearch(read_weights(path), size, options.zooms, precision=options.precision,
                        bias=search_bias(path))


def search_bias(path):
    """The bias of a file of weights: see :class:`WindowSearch`."""
    return read_metadata(path).get("search_bias", 0.0)
