"""Does this picture show a face? Darknet-19 in TensorFlow graph mode.

    from darknet_face import load

    model = load()
    print(model("photo.jpg").probability)

:mod:`darknet_face.classify.api` says more. The names below are imported at their first use, so that
``import darknet_face`` costs nothing.
"""

from __future__ import annotations

import importlib
import typing

__version__ = "0.6.0"  # its only home: pyproject.toml reads it here

if typing.TYPE_CHECKING:
    from darknet_face.classify.api import load
    from darknet_face.classify.results import Box, ImageError, Result

__all__ = ["Box", "ImageError", "Result", "load"]

_HOMES = {
    "load": "darknet_face.classify.api",
    "Box": "darknet_face.classify.results",
    "ImageError": "darknet_face.classify.results",
    "Result": "darknet_face.classify.results",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _HOMES:
        raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(list(globals()) + __all__)
