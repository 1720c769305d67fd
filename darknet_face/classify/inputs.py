"""One picture to classify: an image file, or a frame of a video or camera."""

from __future__ import annotations

import collections
import hashlib
import os

from PIL import Image

from darknet_face.images.decode import BadImage, read_image, read_pillow


class InputImage(collections.namedtuple("InputImage", "name output_name content")):
    """A picture to classify.

    Parameters
    ----------
    name : str
        The path of the file. For a frame of a video: the path, ``@`` and the time in seconds.
    output_name : str
        A relative path for the files made from this picture. It is unique within a run.
    content : None, numpy.ndarray, bytes, PIL.Image.Image or BadImage
        None: read the file. An array: the picture, uint8, [height, width, 3], RGB. Bytes: the
        encoded picture. BadImage: the reason why there is no picture.
    """

    def read(self, least_size=None):
        """Read the picture.

        Parameters
        ----------
        least_size : int, optional
            See :func:`darknet_face.images.decode.read_image`.

        Returns
        -------
        numpy.ndarray
            uint8, [height, width, 3], RGB.

        Raises
        ------
        BadImage
            If it does not decode.
        """
        if isinstance(self.content, BadImage):
            raise self.content
        if self.content is None or isinstance(self.content, bytes):
            source = self.name if self.content is None else self.content
            return read_image(source, least_size=least_size)
        if isinstance(self.content, Image.Image):
            return read_pillow(self.content)
        return self.content


def digest(text):
    """A 64-bit hash of a name. A set of these is small even for millions of names."""
    content = os.fsencode(text)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
