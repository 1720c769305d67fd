"""Starting from trained weights instead of random ones: --init-from and --freeze-until."""

from __future__ import annotations

import collections
import functools
import typing

import numpy as np

from darknet19 import CLASSIFIER, NUM_CONVOLUTIONS
from darknet_face.console import UserError, warn
from darknet_face.runtime.safe_files import relative_to_here
from darknet_face.runtime.session import tf
from darknet_face.weights.arrays import assign, set_variables, weight_shapes, width_of
from darknet_face.weights.darknet_weights import is_darknet_file, read_network
from darknet_face.weights.metadata import metadata_of_darknet
from darknet_face.weights.model_file import read_model

if typing.TYPE_CHECKING:
    from darknet_face.training.settings import Settings

FEW = 2000  # images: fewer seldom teach a network that starts at random


def assign_initial_weights(session: typing.Any, init_from: str | None, freeze_until: int = 0,
                           width: float = 1.0) -> None:
    """Set the variables of the training graph to the weights of a file, as far as they fit.

    Parameters
    ----------
    session
        With the training graph, its variables initialised.
    init_from
        See :func:`read_initial_weights`; with None nothing is set.
    freeze_until
        How many convolutions will not be trained; the file must have them.
    width
        The share of the filters; the file must have the same.

    Raises
    ------
    UserError
        See :func:`read_initial_weights`; also for ``freeze_until`` without a file.
    """
    if not init_from:
        if freeze_until:
            raise UserError("--freeze-until {}: would keep the random weights of these layers; "
                            "name trained weights by --init-from".format(freeze_until))
        return
    weights, message = read_initial_weights(init_from, freeze_until, width)
    assign(session, weights)
    # The moving averages of the weights, where kept, must start at these weights too.
    suffix = "/ExponentialMovingAverage"
    averages = [each for each in session.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
                if each.op.name.endswith(suffix)]
    averaged = session.run([each.op.name[:-len(suffix)] + ":0" for each in averages])
    set_variables(session, dict(zip(averages, averaged)))
    print(message)


def read_initial_weights(path: str, freeze_until: int = 0, width: float = 1.0
                        ) -> tuple[dict[str, np.ndarray], str]:
    """Read initial weights.

    Parameters
    ----------
    path
        See :func:`darknet_face.weights.model_file.read_model`. A file of darknet's may also be for
        other classes, or end after a layer, as those trained on ImageNet do.
    freeze_until
        How many convolutions will not be trained; the file must have them.
    width
        The share of the filters; the file must have the same.

    Returns
    -------
    weights : dict of str to numpy.ndarray
        Without the last layer if the file's is for another number of classes.
    message : str
        Which layers start with the file's weights, which at random, and why.

    Raises
    ------
    UserError
        Naming each layer that does not fit, what was expected and what was found.
    """
    weights = collections.OrderedDict(_read(path)[0])
    if width_of(weights) != width:
        raise UserError("{}: has a share of {:g} of the filters, not {:g}: use --width {:g}, or "
                        "name it by --teacher".format(
                            path, width_of(weights), width, width_of(weights)))
    shapes = weight_shapes(width=width)
    others = [name for name in weights if weights[name].shape != shapes[name]]  # of the last layer
    reasons = ["{}: expected {}, found {}".format(
        name, list(shapes[name]), list(weights.pop(name).shape)) for name in others]
    loaded = len({name.split("/")[0] for name in weights})
    if loaded < freeze_until:
        raise UserError("{}: conv_{} is missing, so --freeze-until is at most {} with it".format(
            path, loaded, loaded))
    message = "starting from conv_0 to conv_{} of {}".format(
        loaded - 1, relative_to_here(path))
    if loaded < NUM_CONVOLUTIONS:
        rest = " to ".join(collections.OrderedDict.fromkeys(["conv_{}".format(loaded), CLASSIFIER]))
        message += "; at random: {} ({})".format(rest, "; ".join(reasons) or "not in the file")
    return weights, message


@functools.lru_cache(maxsize=1)
def _read(path):
    """The weights and the metadata; kept, since several need them and a large file takes seconds.
    """
    if is_darknet_file(path):
        weights, description = read_network(path)
        return weights, metadata_of_darknet(description)
    model = read_model(path)
    return model.weights, model.metadata


def hint(settings: Settings, pictures: int) -> str | None:
    """Advice for a training that starts now, in one line, or None.

    Parameters
    ----------
    settings
    images
        How many the training has.
    """
    if not settings.init_from:
        if pictures >= FEW:
            return None
        return ("hint: {:,} images are few for random initial weights; --init-from "
                "released starts from the released model".format(pictures))
    trained = _read(settings.init_from)[1].get("image_size")
    if trained in (None, settings.image_size):
        return None
    return ("hint: {0} was trained at {1} x {1}, this training is at {2} x {2}; --image-size {1} "
            "keeps its size".format(
                relative_to_here(settings.init_from), trained, settings.image_size))


def inherited_point(init_from: str | None, epoch: int) -> dict[str, typing.Any]:
    """What a model keeps of the operating point of its initial weights.

    Parameters
    ----------
    init_from
        The initial weights.
    epoch
        The epoch that is kept; 0 are the initial weights themselves.

    Returns
    -------
    dict
        ``search_bias``, a better guess than 0 until --at-fpr chooses one, and for epoch 0 also
        ``threshold``; each if the initial weights have it.
    """
    try:
        known = _read(init_from)[1] if init_from else {}
    except UserError as error:  # moved since the training began, which is no reason to lose it
        warn("{}: the model keeps no search bias of its initial weights".format(error))
        known = {}
    names = ("search_bias",) if epoch else ("search_bias", "threshold")
    return {name: known[name] for name in names if name in known}
