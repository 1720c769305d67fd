"""The two classes, and their order in every label, probability and list of names."""

FACE, NON_FACE = 0, 1
CLASS_NAMES = ("FACE", "NON_FACE")
