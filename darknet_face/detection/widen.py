"""A trained detector in a wider one, which at first says the same: the start of its training.

The first channels of each layer are the trained ones. The further channels get the initial weights
of an untrained network, and the trained channels do not listen to them yet: those weights are 0.

Source: Chen, Goodfellow & Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", 2016
(arXiv 1511.05641), for a start that keeps the function; there channels are copied instead.
"""

from __future__ import annotations

import numpy as np

from darknet_face.console import UserError


def widen(trained: dict[str, np.ndarray], untrained: dict[str, np.ndarray], path: str,
          ) -> dict[str, np.ndarray]:
    """The weights of a wider network that answers as the trained one does.

    Parameters
    ----------
    trained
        Arrays by the variables' names, of the narrower network or one as wide.
    untrained
        The initial weights of the wider network.
    path
        The trained detector's file, for messages.

    Raises
    ------
    UserError
        If a layer of the trained network has more channels.
    """
    widened = {}
    for name, fresh in untrained.items():
        old, new = trained[name], fresh.copy()
        if any(before > now for before, now in zip(old.shape, new.shape)):
            raise UserError("{}: {} is {}, wider than the {} of this training; use a larger "
                            "--width and --channels".format(
                                path, name, list(old.shape), list(new.shape)))
        if old.ndim == 4:
            new[:, :, old.shape[2]:, :old.shape[3]] = 0
        new[tuple(slice(count) for count in old.shape)] = old
        widened[name] = new
    return widened
