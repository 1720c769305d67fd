"""Classify pictures of any kind: the Python API, and what inference.py does with named pictures.

:func:`load` opens a model; :mod:`classify.api` shows how to use it.
"""

from classify.api import load
from classify.results import BadPicture, Place, Result

__all__ = ["BadPicture", "Place", "Result", "load"]
