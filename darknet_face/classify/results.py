"""What the Python API returns: a result per image, and the error for an image that is unusable.

See :mod:`darknet_face.classify.api`.
"""

from __future__ import annotations

import typing
import warnings


class Box(typing.NamedTuple):
    """A box in whole pixels of the upright image; ``x`` and ``y`` are its top left corner."""

    x: int
    y: int
    width: int
    height: int


class Face(typing.NamedTuple):
    """A face in an image: its box, and the probability that it is one, 0..1."""

    box: Box
    probability: float


class Result(typing.NamedTuple):
    """The answer for one image. All fields but ``name`` and ``error`` are None if it is unreadable.

    Parameters
    ----------
    name
        The path, or what stands for it: "array", "image" or "bytes".
    probability
        Of a face, 0..1.
    is_face
        Whether ``probability`` is at least the threshold.
    label
        "FACE" or "NON_FACE".
    box
        The box or window with the highest probability, whatever the label. None with
        ``search="off"``, and where the detector finds nothing at all.
    faces
        With ``search="detector"`` the faces whose probability is at least the threshold, the most
        probable first. None otherwise: a sliding window does not tell how many there are.
    error
        Why the image could not be read, or None.
    """

    name: str | None = None
    probability: float | None = None
    is_face: bool | None = None
    label: str | None = None
    box: Box | None = None
    error: str | None = None
    faces: list[Face] | None = None

    @property
    def place(self) -> Box | None:
        """The former name of ``box``, deprecated."""
        warnings.warn("Result.place is called box now", DeprecationWarning, stacklevel=2)
        return self.box


class ImageError(ValueError):
    """An image that can't be read or has the wrong type; the message names it."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__("{}: {}".format(name, cause))
        self.name, self.cause = name, cause
