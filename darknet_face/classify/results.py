"""What the Python API returns: a result per picture, and the error for a picture that is unusable.

See :mod:`darknet_face.classify.api`.
"""

from __future__ import annotations

import collections

Place = collections.namedtuple("Place", "x y width height")
Place.__doc__ = """A box in whole pixels of the upright picture; ``x`` and ``y`` are its top left
corner."""


class Result(collections.namedtuple("Result", "name probability is_face label place error",
                                    defaults=(None,) * 5)):
    """The answer for one picture.

    Parameters
    ----------
    name : str
        The path, or what stands for it: "array", "image" or "bytes".
    probability : float or None
        Of a face, 0..1. None, like all that follows, if the picture could not be read.
    is_face : bool or None
        Whether ``probability`` is at least the threshold.
    label : str or None
        "FACE" or "NON_FACE".
    place : Place or None
        The window with the highest probability, whatever the label. None with ``search="off"``.
    error : str or None
        Why the picture could not be read.
    """

    __slots__ = ()


class BadPicture(ValueError):
    """A picture that can't be read or has the wrong type; the message names it.

    Parameters
    ----------
    name, cause : str
    """

    def __init__(self, name, cause):
        super().__init__("{}: {}".format(name, cause))
        self.name, self.cause = name, cause
