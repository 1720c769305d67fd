"""The YOLOv2 head on the full trunk: the network that these weights were first made for."""
