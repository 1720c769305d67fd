"""Does this image show a face? Darknet-19 in TensorFlow graph mode.

    from darknet_face import load

    model = load()
    print(model("photo.jpg").probability)

:mod:`darknet_face.classify.api` says more. The names below are imported at their first use, so that
``import darknet_face`` costs nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
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


def _explain_missing_packages() -> None:
    """Let a script of the clone end with one line where a package that it needs is not there."""
    clone = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or "")
    if os.path.dirname(script) != clone:
        return

    def explain(kind: typing.Any, error: BaseException, traceback: typing.Any) -> None:
        if not isinstance(error, ModuleNotFoundError):
            sys.__excepthook__(kind, error, traceback)
            return
        print("error: {} has no {}: run make, then 'source .venv-tf2/bin/activate' (or .venv-tf1); "
              "or, to classify only, pip install .".format(sys.executable, error.name),
              file=sys.stderr)
        sys.exit(2)

    sys.excepthook = explain


_explain_missing_packages()
