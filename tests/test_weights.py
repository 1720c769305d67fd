"""Weights as named arrays: every mismatch is named, and only finite numbers pass."""

import numpy as np
import pytest

from darknet_face.console import UserError
from darknet_face.weights import arrays


def altered(tiny_model, **changes):
    """The tiny model's weights with some arrays exchanged (``conv_3__mean=..``) or, None, removed.
    """
    changed = dict(tiny_model.weights)
    for name, array in changes.items():
        changed[name.replace("__", "/")] = array
    return {name: array for name, array in changed.items() if array is not None}


def test_every_mismatch_is_named(tiny_model):
    wrong = altered(tiny_model, conv_3__kernel=np.zeros((3, 3, 4, 4), np.float32),
                    conv_7__mean=np.zeros(16), conv_9__gamma=None,
                    **{"conv_12__" + part: None
                       for part in ("kernel", "gamma", "beta", "mean", "variance")})
    with pytest.raises(UserError) as caught:
        arrays.check_weights(wrong, "some.npz")
    message = str(caught.value)
    assert "conv_3/kernel: expected float [1, 1, 8, 4], found float32 [3, 3, 4, 4]" in message
    assert "conv_7/mean: expected float [16], found float64 [16]" in message
    assert "conv_9/gamma is missing" in message and "conv_12 is missing" in message
    assert "conv_12/" not in message


@pytest.mark.parametrize("value, cause", [(np.nan, "not finite"), (-np.inf, "not finite"),
                                          (-1.0, "negative variance")])
def test_numbers_that_are_none(tiny_model, value, cause):
    variance = tiny_model.weights["conv_4/variance"].copy()
    variance[3] = value
    with pytest.raises(UserError, match="conv_4/variance.* " + cause):
        arrays.check_weights(altered(tiny_model, conv_4__variance=variance), "x.npz")
