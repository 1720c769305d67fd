"""Find the most probable face window: the network as a sliding window over a whole image.

Darknet-19 is fully convolutional, so one run over an image of any size gives its class map
everywhere. Averaged over as many cells as the network's input has (7 x 7 at 224), the map is what
the classifier says of every window of that size, 32 pixels apart, at a fraction of the cost. The
image keeps its aspect ratio and is run at several scales, so that faces of several sizes fill a
window. Below scale 1 the image is padded, so that a face larger than the image fits a window. The
answer is the window with the highest probability.
"""

from __future__ import annotations

import argparse
import collections
import typing

import numpy as np

import darknet19
from darknet_face.console import number_type
from darknet_face.engines.engine import (
    Engine,
    add_engine_argument,
    add_precision_argument,
    open_engine,
)
from darknet_face.images.resize import resize
from darknet_face.options import (
    add_image_size_argument,
    add_weights_argument,
)
from darknet_face.runtime.session import explain_memory_errors
from darknet_face.weights.model_file import ModelFile, choose_model

# The image's shorter side, in multiples of the network's input, in the order of the runs. Below 1
# the image is padded by repeating its edges until it fills a window: faces that the image's edges
# cut off are then small enough to be recognised.
SCALES = (1, 0.6, 2, 4)
CERTAIN = 0.995  # a window as probable as this ends the search: larger scales are not run
MOST_ENLARGED = 3.0  # scales that would enlarge the image more are not run, except the first
TIGHT = 0.98  # a smaller window must be as probable as this to replace a certain one as the box
PIXELS_PER_RUN = 1 << 20  # images share a run up to so many pixels, which bounds the memory
LONGEST = 8  # a side longer than this many times the other is compressed to it

# Values of the option --search: the largest scale, or a single pass over the stretched image.
SEARCH_CHOICES = ("off",) + tuple(str(scale) for scale in SCALES if scale >= 1)
DEFAULT_SEARCH = "4"


class Window(typing.NamedTuple):
    """The most probable window of an image."""

    probability: float  # of FACE
    left: float  # the box in the image's own pixels, without padding
    top: float
    width: float
    height: float
    scale: float  # at which it was found


def sigmoid(log_odds: typing.Any) -> typing.Any:
    """The probability for log-odds, a number or an array; without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * np.asarray(log_odds, np.float64))


def scales_of(choice: str | None) -> tuple[float, ...]:
    """The scales for a value of the option --search: those up to it; none for ``off`` or None."""
    return () if choice in (None, "off") else tuple(
        scale for scale in SCALES if scale <= int(choice or 0))


class SlidingWindow:
    """Classifies all windows of images of any size. Several threads may use one at once.

    Parameters
    ----------
    engine
        Runs the network; its ``image_size`` is the window's.
    scales
        In the order of the runs, each the image's shorter side in multiples of ``image_size``.
    bias
        Subtracted from every window's log-odds. The best of many windows scores higher than a
        single pass. The bias is chosen on validation images, so that 0.5 again separates faces
        from non-faces. The released weights carry theirs: see
        :mod:`darknet_face.weights.metadata`.
    """

    def __init__(self, engine: Engine, scales: typing.Sequence[float] = SCALES, bias: float = 0.0
                 ) -> None:
        self.engine, self.image_size = engine, engine.image_size
        self.scales = tuple(scales)
        self.bias = bias
        self.cells = self.image_size // darknet19.STRIDE

    def find(self, images: typing.Sequence[np.ndarray]) -> list[Window]:
        """Find the most probable window of each image. Several threads may call this at once.

        Parameters
        ----------
        images
            Each uint8, [any height, any width, 3], RGB. Those that are scaled to the same size
            share runs of the network. A window as probable as :data:`CERTAIN` ends the search of
            its image.
        """
        best: list[typing.Any] = [None] * len(images)
        highest = [-np.inf] * len(images)
        searching = list(range(len(images)))
        for scale in self.scales:
            for index, log_odds in self._run(images, searching, scale, self.scales[0]):
                if best[index] is None or log_odds.max() > highest[index]:
                    highest[index] = log_odds.max()
                    best[index] = self._best(images[index], log_odds, scale)
            searching = [each for each in searching if best[each].probability < CERTAIN]
        return best

    def best_of_each_scale(self, image: np.ndarray) -> typing.Iterator[Window]:
        """Yield the most probable window of each scale, running that scale when it is asked for."""
        for scale, log_odds in self.log_odds_maps(image):
            yield self._best(image, log_odds, scale)

    def _best(self, image: np.ndarray, log_odds: np.ndarray, scale: float) -> Window:
        """The most probable window of a scale."""
        row, column = np.unravel_index(np.argmax(log_odds), log_odds.shape)
        return Window(float(sigmoid(log_odds[row, column])),
                      *self.box(image.shape, log_odds.shape, row, column, scale), scale)

    def tighten(self, image: np.ndarray, window: Window) -> Window:
        """A smaller box inside the window of a search that stopped early.

        The probability stays. Without a smaller window that is at least :data:`TIGHT` probable the
        window is returned as it is.
        """
        if window.probability < CERTAIN:
            return window
        for scale in self.scales:
            if scale <= window.scale:
                continue
            for _, log_odds in self._run([image], [0], scale, self.scales[0]):
                rows, columns = np.ogrid[:log_odds.shape[0], :log_odds.shape[1]]
                boxes = self.box(image.shape, log_odds.shape, rows, columns)
                inside = np.where(_lie_inside(window, *boxes), log_odds, -np.inf)
                row, column = np.unravel_index(np.argmax(inside), inside.shape)
                if sigmoid(inside[row, column]) < TIGHT:
                    return window
                box = self.box(image.shape, log_odds.shape, row, column)
                window = Window(window.probability, *box, scale)
        return window

    def log_odds_maps(self, image: np.ndarray, scales: typing.Sequence[float] | None = None
                      ) -> typing.Iterator[tuple[float, np.ndarray]]:
        """Yield each scale with the log-odds of FACE in every window, float32 [rows, columns].

        ``scales`` are the sliding window's own if absent.
        """
        scales = self.scales if scales is None else scales
        for scale in scales:
            for _, log_odds in self._run([image], [0], scale, scales[0]):
                yield scale, log_odds

    def _run(self, images: typing.Sequence[np.ndarray], chosen: list[int], scale: float,
             first_scale: float) -> typing.Iterator[tuple[int, np.ndarray]]:
        """Yield the number and the log-odds of each chosen image that this scale is for."""
        numbers = collections.defaultdict(list)
        for index in chosen:
            size = self.input_size(images[index].shape, scale, first_scale)
            if size:
                numbers[size].append(index)
        for size, group in numbers.items():
            most = max(1, PIXELS_PER_RUN // (size[0] * size[1]))
            for start in range(0, len(group), most):
                part = group[start:start + most]
                scaled = np.stack([_fit(images[index], size, scale) for index in part])
                with explain_memory_errors("search smaller images, or less far"):
                    log_odds = self.engine.window_log_odds(scaled)
                yield from zip(part, log_odds - self.bias)

    def input_size(self, shape: tuple[int, ...], scale: float, first_scale: float
                   ) -> tuple[int, int] | None:
        """The height and width, multiples of 32, that an image is scaled to.

        None if that would enlarge the image too much; ``first_scale`` and smaller ones are never
        skipped.
        """
        height, width = _padded(shape, scale)
        shorter = self.image_size * max(scale, 1)
        factor = shorter / min(height, width)
        if factor > MOST_ENLARGED and scale > first_scale:
            return None
        longest = min(max(height, width) * factor, shorter * LONGEST)
        longest = darknet19.STRIDE * int(round(longest / darknet19.STRIDE))
        shorter = darknet19.STRIDE * int(round(shorter / darknet19.STRIDE))
        return (shorter, longest) if height <= width else (longest, shorter)

    def box(self, shape: tuple[int, ...], grid: tuple[int, ...], row: typing.Any,
            column: typing.Any, scale: float = 1) -> tuple[typing.Any, typing.Any, float, float]:
        """The box of a window, left, top, width, height, in the image's own pixels.

        ``row`` and ``column`` are numbers or arrays.
        """
        cells = self.cells
        padded = _padded(shape, scale)
        height, width = padded[0] / (grid[0] + cells - 1), padded[1] / (grid[1] + cells - 1)
        left, top, right, bottom = (
            column * width, row * height, (column + cells) * width, (row + cells) * height)
        if scale >= 1:
            return left, top, cells * width, cells * height
        margin = (padded[0] - shape[0]) / 2
        left, right = (min(max(each - margin, 0.0), shape[1]) for each in (left, right))
        top, bottom = (min(max(each - margin, 0.0), shape[0]) for each in (top, bottom))
        return left, top, right - left, bottom - top


def _padded(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Height and width of an image with the padding of a scale below 1."""
    margin = int(round(min(shape[:2]) * (1 / scale - 1) / 2)) if scale < 1 else 0
    return shape[0] + 2 * margin, shape[1] + 2 * margin


def _fit(image: np.ndarray, size: tuple[int, int], scale: float) -> np.ndarray:
    """Scale an image, with its padding, to a height and width."""
    if scale >= 1:
        return resize(image, *size)
    # The small image is padded, so that a large one is not copied.
    inner = [max(1, int(round(full * own / whole)))
             for full, own, whole in zip(size, image.shape, _padded(image.shape, scale))]
    top, left = ((full - own) // 2 for full, own in zip(size, inner))
    return np.pad(resize(image, *inner), ((top, size[0] - inner[0] - top),
                                          (left, size[1] - inner[1] - left), (0, 0)), "edge")


def _lie_inside(window: Window, left: np.ndarray, top: np.ndarray, width: float, height: float
                ) -> np.ndarray:
    """Which boxes (arrays) lie inside a window's, up to a pixel."""
    return ((left > window.left - 1) & (left + width < window.left + window.width + 1)
            & (top > window.top - 1) & (top + height < window.top + window.height + 1))


def add_sliding_window_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a script that runs a sliding window with any model."""
    add_weights_argument(parser, "your newest in saved_models, otherwise the released one")
    add_image_size_argument(parser)
    scales: dict[str, typing.Any] = {
        "type": number_type(float, 0.5, 16), "nargs": "+", "dest": "scales"}
    parser.add_argument("--scales", default=list(SCALES), **scales,
                        help="scales of the image, in this order: its shorter side in windows; "
                             "below 1 the image is padded")
    parser.add_argument("--zooms", default=argparse.SUPPRESS, help=argparse.SUPPRESS, **scales)
    add_precision_argument(parser)
    add_engine_argument(parser)


def open_sliding_window(options: argparse.Namespace, model: ModelFile | None = None
                        ) -> SlidingWindow:
    """The :class:`SlidingWindow` for the options of :func:`add_sliding_window_arguments`.

    ``model`` is the one that they name, if it has been read.

    Raises
    ------
    UserError
        As :func:`darknet_face.weights.model_file.read_model`.
    """
    model = model or choose_model("saved_models", options.weights, options.image_size)
    engine = open_engine(
        model.weights, model.image_size, options.engine, precision=options.precision,
        ranges=model.ranges)
    return SlidingWindow(engine, options.scales, model.search_bias)
