"""Which weights to use, and at which input size: your own, or the released ones."""

import os

from model.metadata import read_metadata

RELEASED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                        "saved_models", "darknet19_face.npz")
DEFAULT_SIZE = 224


def choose_model(model_dir, weights=None, image_size=None, cfg=None, or_frozen=False):
    """The weights to use and the input size that belongs to them.

    The weights are ``weights``; else your own, ``darknet19_weights.npz`` in the model directory,
    as extract_weights.py writes it; else the released ones.

    Parameters
    ----------
    model_dir : str
    weights : str, optional
        Any file that :func:`model.weight_files.read_weights` reads.
    image_size : int, optional
        Use this size, whatever the file says.
    cfg : str, optional
        darknet's description of ``weights``.
    or_frozen : bool
        Prefer your own ``darknet19_frozen.pb`` to the released weights.

    Returns
    -------
    path : str
    image_size : int
    """
    own, frozen = (os.path.join(model_dir, name)
                   for name in ("darknet19_weights.npz", "darknet19_frozen.pb"))
    if weights:
        path = weights
    elif os.path.exists(own):
        path = own
    elif or_frozen and os.path.exists(frozen):
        path = frozen
    else:
        path = RELEASED if os.path.exists(RELEASED) else own
    return path, image_size or read_metadata(path, cfg).get("image_size", DEFAULT_SIZE)
