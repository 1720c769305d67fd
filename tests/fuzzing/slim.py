"""Darknet-19 with a sixteenth of its filters: the same layers in files of 0.4 MB instead of 80 MB.

The detector's head has a sixteenth too. Import this before any module of ``model``: shapes are
taken from ``darknet19`` when files are read.
"""

import darknet19

SHARE = 16

darknet19.LAYERS = tuple(
    layer if layer == darknet19.MAX_POOL else (max(2, layer[0] // SHARE), layer[1])
    for layer in darknet19.LAYERS)
darknet19.CONVOLUTIONS = tuple(
    layer for layer in darknet19.LAYERS if layer != darknet19.MAX_POOL)

from examples.yolov2 import network  # noqa: E402 - it imports modules of model

_layer = network._layer
network._layer = lambda net, filters, *options: _layer(net, filters // SHARE, *options)
