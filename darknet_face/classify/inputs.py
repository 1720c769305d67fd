"""One image to classify: an image file, or a frame of a video or camera."""

from __future__ import annotations

import hashlib
import os
import typing

import numpy as np
from PIL import Image

from darknet_face.images.decode import BadImage, read_image, read_pillow, reduction


class InputImage(typing.NamedTuple):
    """An image to classify.

    Parameters
    ----------
    name
        The path of the file. For a frame of a video: the path, ``@`` and the time in seconds.
    output_name
        A relative path for the files made from this image, unique within a run, as is
        :attr:`drawing_name`.
    content
        None: read the file. An array: the image, uint8, [height, width, 3], RGB. Bytes: the encoded
        image. A Pillow image. BadImage: the reason why there is no image.
    """

    name: str
    output_name: str
    content: typing.Any

    @property
    def drawing_name(self) -> str:
        """The same with an extension of a format that drawings are written in."""
        has_one = self.output_name.lower().endswith((".jpg", ".jpeg", ".png"))
        return self.output_name if has_one else self.output_name + ".png"

    def read(self, least_size: int | None = None) -> np.ndarray:
        """Read the image: uint8, [height, width, 3], RGB.

        Parameters
        ----------
        least_size
            See :func:`darknet_face.images.decode.read_image`.

        Raises
        ------
        BadImage
            If it does not decode.
        """
        if isinstance(self.content, BadImage):
            raise self.content
        if self.source is not None:
            return read_image(self.source, least_size=least_size)
        if isinstance(self.content, Image.Image):
            return read_pillow(self.content)
        return self.content

    def reduction(self, pixels: np.ndarray) -> float:
        """How many pixels of the image are one of what :meth:`read` gave: mostly 1.

        See :func:`darknet_face.images.decode.reduction`.
        """
        return 1.0 if self.source is None else reduction(self.source, pixels)

    @property
    def source(self) -> str | bytes | None:
        """The path or the content of the encoded image, if there is one."""
        if self.content is None or isinstance(self.content, bytes):
            return self.name if self.content is None else self.content
        return None


def digest(text: str) -> int:
    """A 64-bit hash of a name. A set of these is small even for millions of names."""
    content = os.fsencode(text)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
