"""Freezing the best checkpoint of a training."""

from __future__ import annotations

import os
import typing

import numpy as np

from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.runtime.atomic_files import remove_leftovers
from darknet_face.training.history import summarise
from darknet_face.training.initial_weights import inherited_point
from darknet_face.training.validation import first_images
from darknet_face.weights.frozen_graph import freeze, stored_point

if typing.TYPE_CHECKING:
    from darknet_face.images.file_lists import Split
    from darknet_face.training.settings import Settings
    from darknet_face.training.validation import Validator


def freeze_best(settings: Settings, validator: Validator, split: Split,
                details: dict[str, typing.Any] | None = None) -> None:
    """Freeze the best checkpoint; the file is compared with it before it is renamed into place.

    Parameters
    ----------
    settings
    validator
    split
        The validation images.
    details
        More for the ``.json`` beside the graph: see :func:`train.describe_run`.
    """
    record, weights = validator.read_best()
    classifier = classifier_from_weights(weights, settings.image_size, settings.threads)
    images = np.concatenate([first_images(paths, 16, settings.image_size) for paths in split])
    path = os.path.join(settings.model_dir, "darknet19_frozen.pb")
    metadata = {
        "step": int(record["step"]), "epoch": int(record["epoch"]),
        "validation": {name: value for name, value in record.items()
                       if name.startswith(("val_", "disturbed_"))}}
    metadata.update(dict(inherited_point(settings.init_from, record["epoch"]),
                         **dict(stored_point(path, metadata), **(details or {}))))
    remove_leftovers(path)
    difference = freeze(classifier, path, images, metadata)
    print("wrote {} (step {}, largest difference from the checkpoint {:.1g})".format(
        path, int(record["step"]), difference))
    summarise(settings, record)
