"""A YOLOv2 face detector on this project's weights. README.md says how to run it."""
