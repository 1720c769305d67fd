"""Darknet-19 with a part of its filters: the same layers in files of 1 MB or less instead of 80 MB.

Shapes are taken from ``darknet19`` when a graph is built or a file is read, so change it before.
"""

import darknet19


def make_slim(share=16, set_attribute=setattr):
    """Leave one filter of so many in Darknet-19 and in the detector's head.

    Parameters
    ----------
    share : int
    set_attribute : callable
        As ``setattr``; that of pytest's ``monkeypatch`` takes it back later.
    """
    layers = tuple(
        layer if layer == darknet19.MAX_POOL else (max(2, layer[0] // share), layer[1])
        for layer in darknet19.LAYERS)
    set_attribute(darknet19, "LAYERS", layers)
    set_attribute(darknet19, "CONVOLUTIONS",
                  tuple(layer for layer in layers if layer != darknet19.MAX_POOL))

    from darknet_face.detection.yolov2 import network

    whole = network._layer
    set_attribute(network, "_layer",  # the head is narrow already
                  lambda net, filters, *options: whole(net, 4 * filters // share, *options))
