"""Look for a face where it is: the network as a sliding window over a whole photograph.

Darknet-19 is fully convolutional, so one run over a photograph of any size gives its class map at
every place. Averaged over as many cells as the network's input has (7 x 7 at 224), the map is what
the classifier says of every window of that size, 32 pixels apart, at a fraction of the cost. The
photograph keeps its aspect ratio and is looked at in several sizes, so that faces of several sizes
fill a window. The answer is the window with the highest probability.
"""

import collections

import numpy as np
from scipy.special import expit

import darknet19
from model.classifier import fold_batch_norm
from model.metadata import read_metadata
from model.released import add_weights_argument, choose_model
from model.weight_files import read_weights
from model.weights import assign
from pictures.classes import FACE, NON_FACE
from pictures.decode import resize
from pictures.reader import LARGEST_SIZE
from runtime.session import PRECISIONS, new_session, tf
from utils import UserError, number_type

ZOOMS = (1, 2, 4)  # the photograph's shorter side, in multiples of the network's input
CERTAIN = 0.995  # a window as probable as this ends the search: larger sizes are left out
MOST_ENLARGED = 3.0  # sizes that would enlarge the photograph more are left out, but for the first
LONGEST = 8  # a side longer than this many times the other is compressed to it
OUTPUT = "windows"
CHOICES = ("off",) + tuple(map(str, ZOOMS))  # of the option --search

Finding = collections.namedtuple("Finding", "probability left top width height zoom")
Finding.__doc__ = """The most probable window: P(FACE), its box in the picture's own pixels, and
the zoom at which it was found."""


def zooms_of(choice):
    """The zooms for a value of the option --search: those up to it; none for ``off`` or None."""
    return () if choice in (None, "off") else tuple(
        zoom for zoom in ZOOMS if zoom <= int(choice))


class WindowSearch:
    """A graph of its own that looks through the windows of pictures of any size.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
    image_size : int
        The input size that the weights were trained at: the window's.
    zooms : sequence of float
        Sizes to look at, each the shorter side in multiples of ``image_size``, ascending.
    threads, precision
        See :func:`runtime.session.new_session`.
    bias : float
        Taken from every window's log-odds. The best of many windows scores higher than a single
        look; the bias, chosen on validation pictures, brings a probability of 0.5 back to where
        faces and other pictures part. Released weights carry theirs: see
        :func:`model.metadata.read_metadata`.
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
        """Find the most probable window of a picture.

        Parameters
        ----------
        image : numpy.ndarray
            uint8, [any height, any width, 3], RGB.
        certain : float
            A window as probable as this ends the search.

        Returns
        -------
        Finding
        """
        finding, highest = None, -np.inf
        for zoom, log_odds in self.windows(image):
            row, column = np.unravel_index(np.argmax(log_odds), log_odds.shape)
            if finding is None or log_odds[row, column] > highest:
                highest = np.float64(log_odds[row, column])
                finding = Finding(float(expit(highest)),
                                  *self.box(image.shape, log_odds.shape, row, column), zoom=zoom)
            if finding.probability >= certain:
                break
        return finding

    def windows(self, image):
        """Yield the zoom and the log-odds of FACE in every window, float32 [rows, columns]."""
        for zoom in self.zooms:
            size = self.input_size(image.shape, zoom)
            if size is None:
                continue
            scaled = resize(image, *size)
            yield zoom, self.session.run(
                OUTPUT + ":0", {"input:0": scaled[np.newaxis] / np.float32(255)})[0] - self.bias

    def input_size(self, shape, zoom):
        """The height and width, multiples of 32, at which a picture is looked at; None: not."""
        height, width = shape[:2]
        shorter = self.image_size * zoom
        scale = shorter / min(height, width)
        if scale > MOST_ENLARGED and zoom != self.zooms[0]:
            return None
        longest = min(max(height, width) * scale, shorter * LONGEST)
        longest = darknet19.STRIDE * int(round(longest / darknet19.STRIDE))
        shorter = darknet19.STRIDE * int(round(shorter / darknet19.STRIDE))
        return (shorter, longest) if height <= width else (longest, shorter)

    def box(self, shape, grid, row, column):
        """The box of a window, left, top, width, height, in the picture's own pixels."""
        cells = self.cells
        height, width = shape[0] / (grid[0] + cells - 1), shape[1] / (grid[1] + cells - 1)
        return column * width, row * height, cells * width, cells * height


def add_search_arguments(parser):
    """Add the options of a script that searches with any model."""
    add_weights_argument(parser, "your newest in saved_models, otherwise the released one")
    parser.add_argument("--image-size", type=number_type(int, darknet19.STRIDE, LARGEST_SIZE),
                        help="height and width of a window, a multiple of 32 (default: that of "
                             "the training)")
    parser.add_argument("--zooms", type=number_type(float, 0.5, 16), nargs="+",
                        default=list(ZOOMS), help="sizes at which a picture is looked at: its "
                                                  "shorter side in windows")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="what convolutions compute in")


def open_search(options):
    """The :class:`WindowSearch` for the options of :func:`add_search_arguments`.

    Raises
    ------
    UserError
        For an input size that is no multiple of 32, and as
        :func:`model.weight_files.read_weights`.
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
