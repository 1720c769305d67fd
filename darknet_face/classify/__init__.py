"""Classify images of any kind: the Python API, and what inference.py does with named images."""
