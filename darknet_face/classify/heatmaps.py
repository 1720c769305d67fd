"""Heat maps: where in an image the network sees a face.

    python inference.py --heatmap maps photo.jpg       # writes maps/photo.jpg

The network looks at the image through windows of the size that it was trained at (see
:mod:`darknet_face.classify.sliding_window`), and the map gives every place the mean answer of the
windows that show it, above all of those that have it in their middle. A single cell of the class
activation map would say less: it is trained only as a part of a mean, and is above one half
somewhere in nearly every image.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from darknet_face.classify.sliding_window import SlidingWindow, sigmoid
from darknet_face.images.resize import resize

# Without 1: there a portrait is a single window, and the map the same everywhere.
SCALES = (2, 4)

INFERNO = ((0, 0, 4), (24, 12, 60), (66, 10, 104), (106, 23, 110), (147, 38, 103), (188, 55, 84),
           (221, 81, 58), (243, 118, 27), (252, 165, 10), (246, 215, 70), (252, 255, 164))

STRIP_PIXELS = 1000 * 1000  # are drawn at a time: a drawing takes 60 bytes for each


class FaceMapper:
    """Maps the probability of FACE over images of any size.

    Parameters
    ----------
    search : SlidingWindow
    scales : sequence of float
        Of the image, whatever the sliding window's own are.
    """

    def __init__(self, search: SlidingWindow, scales: tuple[float, ...] = SCALES) -> None:
        self.search, self.scales = search, scales

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Map one image.

        Parameters
        ----------
        image : numpy.ndarray
            uint8, [any height, any width, 3], RGB.

        Returns
        -------
        numpy.ndarray
            float32, [height, width], 0..1: the mean probability of FACE in the windows that show
            each place, the maximum over the sizes.
        """
        height, width = image.shape[:2]
        highest = np.zeros((height, width), np.float32)
        for _, log_odds in self.search.log_odds_maps(image, self.scales):
            cells = mean_over_windows(sigmoid(log_odds), self.search.cells)
            np.maximum(highest, resize(cells, height, width), out=highest)
        return highest


def mean_over_windows(values: np.ndarray, cells: int) -> np.ndarray:
    """The mean value of the windows that cover each cell, those in whose middle it lies most.

    A window that shows a face shows other things at its edges. Weights that fall towards them
    (Hann's window) leave the warmth where the face is. A cell at the edge of the image lies in the
    middle of no window, and must not take its value from a window's edge alone: below half of all
    weight it is not made up for.

    Parameters
    ----------
    values : numpy.ndarray
        [rows, columns], one for each window; neighbours are a cell apart.
    cells : int
        Cells along each side of a window.

    Returns
    -------
    numpy.ndarray
        float32, [rows + cells - 1, columns + cells - 1].
    """
    weights = np.hanning(cells + 2)[1:-1]
    weights /= weights.sum()
    for axis in (0, 1):
        present = np.convolve(np.ones(values.shape[axis]), weights)
        values = np.apply_along_axis(np.convolve, axis, values, weights)
        values /= np.expand_dims(np.maximum(present, min(0.5, present.max())), 1 - axis)
    return values.astype(np.float32)


def overlay(image: np.ndarray, face_map: np.ndarray, outline: bool = True) -> np.ndarray:
    """Lay a map over its image: grey where no face is seen, warm colours where one is.

    Parameters
    ----------
    image
        uint8, [height, width, 3], RGB.
    face_map
        float32, [height, width], 0..1.
    outline
        Mark where the map is 0.5 by a white line with black edges.

    Returns
    -------
    numpy.ndarray
        uint8, [height, width, 3].
    """
    mixed = np.empty_like(image)
    rows = max(1, STRIP_PIXELS // image.shape[1])
    for top in range(0, image.shape[0], rows):
        part = slice(top, top + rows)
        mixed[part] = _mix(image[part], face_map[part])
    if not outline:
        return mixed
    thickness = max(1, min(image.shape[:2]) // 200)
    for width, level in ((2 * thickness + 1, 0), (thickness, 255)):
        mixed[_outline(face_map >= 0.5, width)] = level
    return mixed


def _outline(inside: np.ndarray, width: int) -> np.ndarray:
    """Whether a place lies on a line of about this width in pixels around a region, bool."""
    line = np.zeros_like(inside)
    for axis in (0, 1):
        places = np.arange(inside.shape[axis])
        first, last = np.maximum(places - (width + 1) // 2, 0), places + width // 2
        padding = [(0, 0), (0, 0)]
        padding[axis] = 1, 0
        crossings = np.pad(np.cumsum(np.diff(inside, axis=axis), axis, np.int32), padding)
        line |= (crossings.take(np.minimum(last, places[-1]), axis)
                 > crossings.take(first, axis))
    return line


def warm_colours(levels: np.ndarray) -> np.ndarray:
    """Colours from black over red to pale yellow for 0..1: uint8, [.., 3], RGB.

    Between eleven colours of matplotlib's map "inferno".
    """
    places = np.linspace(0, 1, len(INFERNO))
    table = np.stack([np.interp(np.linspace(0, 1, 256), places, channel)
                      for channel in np.transpose(INFERNO)], 1)
    return np.rint(table).astype(np.uint8)[np.rint(levels * 255).astype(np.uint8)]


def _mix(image, face_map):
    """A strip of :func:`overlay`, without lines."""
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., np.newaxis]
    colours = warm_colours(face_map)
    share = (0.55 * np.sqrt(face_map))[..., np.newaxis]
    return np.rint(grey * (1 - share) + colours * share).astype(np.uint8)
