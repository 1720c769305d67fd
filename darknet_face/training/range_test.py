"""The learning-rate range test: where to put --base-lr and --max-lr.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017
(arXiv 1506.01186), section 3.3.
"""

from __future__ import annotations

import csv
import os
import typing

import numpy as np

from darknet_face.console import progress, warn
from darknet_face.runtime.atomic_files import write_atomically
from darknet_face.runtime.session import new_session, tf
from darknet_face.training.initial_weights import assign_initial_weights

if typing.TYPE_CHECKING:
    from darknet_face.training.settings import Settings
    from darknet_face.training.workers import BatchLoader


def range_test(settings: Settings, loader: BatchLoader,
               build_graph: typing.Callable[..., typing.Any]) -> None:
    """Train while the learning rate rises from 0 to ``max_lr``; write loss and accuracy.

    Writes ``lr_range_test.csv`` and ``lr_range_test.png`` in the log folder. Stops early where the
    loss is no longer finite.

    Parameters
    ----------
    settings
    loader
        With the training batches under the name ``train``.
    build_graph
        train.py's build_range_test_graph; the number is that of the steps.
    """
    from darknet_face.training.curves import plot_range_test  # imports matplotlib

    steps = settings.epochs * loader.sources["train"].steps_per_epoch
    with tf.Graph().as_default():
        net = build_graph(settings, steps)
        with new_session(threads=settings.threads, precision=settings.precision) as session:
            session.run(tf.global_variables_initializer())
            assign_initial_weights(
            session, settings.init_from, settings.freeze_until, settings.width)
            rows = list(_measure(session, net, progress(
                loader.stream("train", 0, steps), total=steps, desc="range test", unit="step")))
    stem = os.path.join(settings.log_dir, "lr_range_test")
    with write_atomically(stem + ".csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("learning_rate", "loss", "accuracy")] + rows)
    plot_range_test(stem + ".png", np.array(rows))
    print("wrote {0}.csv and {0}.png: --base-lr is where the accuracy starts to rise, --max-lr "
          "where it becomes ragged or falls".format(stem))


def _measure(session, net, batches):
    """Yield learning rate, loss and accuracy of each step."""
    for images, labels in batches:
        session.run(net.reset)  # the running accuracy then is that of one batch
        values = session.run(net.fetches, {net.images: images, net.labels: labels})
        yield values["learning_rate"], values["loss"], session.run(net.running["accuracy"])
        if not np.isfinite(values["loss"]):
            warn("the loss is no longer finite at a rate of {:.2g}".format(
                values["learning_rate"]))
            return
