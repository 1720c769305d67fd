"""Names that TensorFlow takes literally.

TensorFlow finds the files of a checkpoint by a pattern. If a folder's name has a ``[``, ``]`` or
backslash it finds none, and with a ``*`` or ``?`` perhaps the wrong ones.
"""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import typing

from darknet_face.console import UserError

_SPECIAL = set("[]\\*?")


@contextlib.contextmanager
def literal(path: str) -> typing.Iterator[str]:
    """Yield a name for the same file, folder or checkpoint prefix without special characters.

    That is ``path`` itself if it has none; otherwise the name of links in a temporary folder, for
    as long as the block lasts. It is to be read, not written.

    Raises
    ------
    UserError
        When the folder for temporary files has such a name too.
    """
    if not _SPECIAL & set(os.path.abspath(path)):
        yield path
        return
    if _SPECIAL & set(tempfile.gettempdir()):
        raise UserError("{}: TensorFlow cannot read from a folder with such a name, nor through "
                        "links in {}; set TMPDIR to a folder without any of []\\*? in its name"
                        .format(path, tempfile.gettempdir()))
    with tempfile.TemporaryDirectory() as folder:
        link = os.path.join(folder, "link")
        for each in glob.glob(glob.escape(path) + "*"):
            os.symlink(os.path.abspath(each), link + each[len(path):])
        yield link
