"""What a training writes for TensorBoard, and the labelled sheet of a batch."""

from __future__ import annotations

from tensorboard.plugins.pr_curve import summary as pr_curve

from darknet_face.classes import CLASS_NAMES, FACE
from darknet_face.console import warn
from darknet_face.images.contact_sheets import BLUE, RED, contact_sheet, encode_png, save_image
from darknet_face.runtime import distributed
from darknet_face.runtime.session import tf
from darknet_face.training.loader import TrainingBatches
from darknet_face.training.mixture import load_mixture


def batch_sheet(images, labels, title=None, **options):
    """Draw a batch as the network sees it: a Pillow image.

    Parameters
    ----------
    images : numpy.ndarray
        uint8, [batch, height, width, 3], RGB.
    labels : sequence of int
        0 FACE, 1 NON_FACE.
    title : str, optional
    options
        See :func:`darknet_face.images.contact_sheets.contact_sheet`.
    """
    return contact_sheet(images, [CLASS_NAMES[label] for label in labels],
                         [BLUE if label == FACE else RED for label in labels], title, **options)


def batch_summary(images, labels):
    """A training batch as a labelled sheet for TensorBoard, a tf.Summary."""
    sheet = batch_sheet(images, labels)
    image = tf.Summary.Image(width=sheet.width, height=sheet.height, colorspace=3,
                             encoded_image_string=encode_png(sheet))
    return tf.Summary(value=[tf.Summary.Value(tag="augmented_batch", image=image)])


def preview(settings):
    """Draw the first training batch as a labelled sheet, into the file ``settings.preview``."""
    images, labels, bad = TrainingBatches(
        load_mixture(settings.data_dir, settings.sources, "train"), settings.batch_size,
        settings.image_size, settings.seed, settings.augment).batch(0)
    for path, cause in bad:
        warn("{}: {}; skipped".format(path, cause))
    save_image(settings.preview, batch_sheet(
        images, labels, "Training images as the network sees them", tile=128))
    print("wrote {}".format(settings.preview))


class EventLog:
    """TensorBoard's event file of a training. Only rank 0 writes one.

    Parameters
    ----------
    folder : str
    graph : tf.Graph
        The training graph.
    step : int
        The first step of this run. TensorBoard drops what a killed run logged from there on.
    """

    def __init__(self, folder, graph, step):
        self._writer = None
        if distributed.rank() == 0:
            self._writer = tf.summary.FileWriter(folder, graph)
            self._writer.add_session_log(
                tf.SessionLog(status=tf.SessionLog.START), global_step=step)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._writer:
            self._writer.close()

    def add(self, summary, step):
        """Write a summary: a tf.Summary or its serialised bytes."""
        if self._writer:
            self._writer.add_summary(summary, step)

    def add_validation(self, row, scores, step):
        """Write the validation's metrics and precision-recall curves.

        Parameters
        ----------
        row : dict of str to float
            A row of the history.
        scores : dict of str to (numpy.ndarray, numpy.ndarray)
            Labels and probabilities of FACE, by the name of the validation pictures.
        step : int
        """
        summary = tf.Summary()
        for name, value in row.items():
            if name.startswith(("val_", "disturbed_")):
                group, _, rest = name.partition("_")
                summary.value.add(tag="{}/{}".format(group, rest), simple_value=value)
        self.add(summary, step)
        for name, (labels, probabilities) in scores.items():
            self.add(pr_curve.pb(name + "/precision_recall", labels == FACE, probabilities), step)
