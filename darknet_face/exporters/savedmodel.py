"""The SavedModel for TensorFlow Serving: written, and run as TensorFlow runs it.

Each export becomes a version of its own, ``darknet19_face_savedmodel/<number>``: TensorFlow Serving
changes to the highest number by itself. The newest two versions are kept.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import typing

import numpy as np

import darknet19
from darknet_face.console import UserError
from darknet_face.exporters import decoding
from darknet_face.exporters.compare import BOUNDS, NAME, Reference, check_difference, run_batches
from darknet_face.runtime.atomic_files import staged, write_json
from darknet_face.runtime.session import new_session, tf
from darknet_face.weights.arrays import assign, width_of
from darknet_face.weights.checkpoint_index import check_index
from darknet_face.weights.graph_files import find_saved_model, read_meta_graph
from darknet_face.weights.literal_names import literal
from darknet_face.weights.metadata import IN_SAVED_MODEL, metadata_of_saved_model

FOLDER = NAME + "_savedmodel"
KEPT_VERSIONS = 2
WIDEST = 4  # share of the filters that a SavedModel may claim: a graph is built to compare it with


def export_savedmodel(reference: Reference, out: str) -> float:
    """Write the next version of the SavedModel below the folder ``out``.

    Returns
    -------
    float
        The largest difference in probability for encoded images.
    """
    folder = os.path.join(out, FOLDER)
    version = str(1 + max(_versions(folder), default=0))
    target = os.path.join(folder, version)
    with staged(folder) as temporary:
        path = os.path.join(temporary, version)
        try:
            write_saved_model(reference.weights, reference.image_size, path, reference.metadata)
        except tf.errors.OpError as error:
            raise UserError("{}: can't be written ({}); check the free disk space".format(
                target, error.message.splitlines()[0]))
        tensor = reference.check(target, "the signature tensor",
                                 run_on_tensors(temporary, reference), BOUNDS["tensorflow"])
        encoded = reference.difference(run_on_files(temporary, reference))
        check_difference(target, "the signature serving_default", encoded, BOUNDS["encoded"])
    print("wrote {}: agrees within {:.1e}, for encoded images within {:.1e}".format(
        target, tensor, encoded))
    _remove_old_versions(folder)
    return encoded


def _remove_old_versions(folder: str) -> None:
    """Remove all but the newest SavedModels; what is no SavedModel stays."""
    paths = [os.path.join(folder, str(version)) for version in _versions(folder)]
    models = [path for path in paths if os.path.isfile(os.path.join(path, "saved_model.pb"))]
    for path in models[:-KEPT_VERSIONS]:
        shutil.rmtree(path)


def _versions(folder: str) -> list[int]:
    """The numbers that are names in a folder, in rising order.

    Those without a SavedModel count too, so that a new version never takes the place of anything.
    """
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def write_saved_model(weights: typing.Mapping[str, np.ndarray], image_size: int, folder: str,
                      metadata: dict[str, typing.Any] | None = None) -> None:
    """Write a SavedModel.

    Parameters
    ----------
    weights
        Named as in :mod:`darknet_face.weights.arrays`.
    image_size
        Height and width that encoded images are resized to.
    folder
        Must not be there yet. The signature ``serving_default`` takes ``image_bytes`` (string,
        [batch]: whole JPEG or PNG files), ``tensor`` takes ``images`` (float32, [batch, height,
        width, 3], RGB 0..1, height and width multiples of 32); both return ``classes`` (string,
        [batch]) and ``probabilities`` (float32, [batch, 2], FACE first).
    metadata
        More for ``assets.extra/metadata.json``; see :mod:`darknet_face.weights.metadata`.
    """
    graph, signatures, saver = _serving_graph(image_size, width_of(weights))
    with graph.as_default(), new_session(graph) as session:
        assign(session, weights)
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.tag_constants.SERVING], strip_default_attrs=True,
            signature_def_map=signatures, saver=saver)
        builder.save()
    write_json(os.path.join(folder, IN_SAVED_MODEL), dict(
        metadata or {}, image_size=image_size, class_names=list(darknet19.CLASS_NAMES)))


def _serving_graph(
        image_size: int, width: float) -> tuple[typing.Any, dict[str, typing.Any], typing.Any]:
    """The graph of the SavedModel, its signatures, and the saver of its variables."""
    graph = tf.Graph()
    with graph.as_default():
        contents = tf.placeholder(tf.string, [None], "image_bytes")
        decoded = decoding.decode_batch(contents, image_size)
        images = tf.placeholder_with_default(
            tf.cast(decoded, tf.float32) / 255.0, [None, None, None, 3], "input")
        logits, _ = darknet19.build(images, width=width)
        outputs = {
            "classes": tf.gather(tf.constant(darknet19.CLASS_NAMES), tf.argmax(logits, axis=1)),
            "probabilities": tf.nn.softmax(logits, name="probabilities"),
        }
        signatures = {
            "serving_default": tf.saved_model.predict_signature_def(
                {"image_bytes": contents}, outputs),
            "tensor": tf.saved_model.predict_signature_def({"images": images}, outputs),
        }
        return graph, signatures, tf.train.Saver()


def check_own(folder: str) -> None:
    """Make sure that a SavedModel has the graph that this module writes, and nothing else.

    A graph is a program: TensorFlow runs some of it on loading, and it could write files.

    Parameters
    ----------
    folder
        With ``saved_model.pb`` in it.
    """
    path = os.path.join(folder, "saved_model.pb")
    found = read_meta_graph(folder)
    image_size = metadata_of_saved_model(folder).get("image_size")
    if not image_size:
        raise UserError("{}: {} tells no image_size; run export.py savedmodel again".format(
            folder, IN_SAVED_MODEL))
    graph, signatures, saver = _serving_graph(image_size, _width(found))
    expected = tf.train.export_meta_graph(
        graph=graph, saver_def=saver.as_saver_def(), strip_default_attrs=True)
    for name, signature in signatures.items():
        expected.signature_def[name].CopyFrom(signature)
    foreign = sorted({node.op for node in found.graph_def.node}
                     - {node.op for node in expected.graph_def.node})
    if foreign:
        raise UserError("{}: not a SavedModel of this project (it has {}); run export.py "
                        "savedmodel again".format(path, ", ".join(foreign)))
    if _program(found) != _program(expected):
        raise UserError("{}: not the SavedModel that this version of export.py writes; run "
                        "export.py savedmodel again".format(path))


def _width(meta_graph: typing.Any) -> float:
    """The share of the filters that the first kernel claims; that of the paper if it is absurd."""
    for node in meta_graph.graph_def.node:
        if node.name == "conv_0/kernel" and len(node.attr["shape"].shape.dim) == 4:
            width = node.attr["shape"].shape.dim[3].size / darknet19.CONVOLUTIONS[0][0]
            return width if 0 < width <= WIDEST else 1.0
    return 1.0


def _program(meta_graph: typing.Any) -> tuple:
    """All of a meta graph that can run, in a form that can be compared."""
    nodes = sorted(meta_graph.graph_def.node, key=lambda node: node.name)
    return (nodes, meta_graph.graph_def.library, dict(meta_graph.signature_def),
            meta_graph.saver_def, sorted(meta_graph.collection_def),
            list(meta_graph.asset_file_def))


def run_on_tensors(folder: str, reference: Reference) -> np.ndarray:
    """Probabilities from the signature ``tensor`` of the newest version in a folder."""
    with _loaded(folder, "tensor") as predict:
        return run_batches(lambda images: predict(images / np.float32(255)), reference.images,
                           "SavedModel")


def run_on_files(folder: str, reference: Reference) -> np.ndarray:
    """Probabilities from the signature ``serving_default`` of the newest version in a folder."""
    with _loaded(folder, "serving_default") as predict:
        return run_batches(predict, reference.contents(), "SavedModel, encoded files")


@contextlib.contextmanager
def _loaded(folder: str, signature_name: str) -> typing.Iterator[typing.Callable]:
    """Load a SavedModel; yield a function from a signature's input to its probabilities."""
    path = find_saved_model(folder)
    if not path:
        raise UserError("{}: no SavedModel there; run export.py savedmodel".format(folder))
    check_own(path)
    check_index(os.path.join(path, "variables", "variables"))
    graph = tf.Graph()
    with graph.as_default(), new_session(graph) as session:
        try:
            with literal(path) as name:
                model = tf.saved_model.load(session, [tf.saved_model.tag_constants.SERVING], name)
            signature = model.signature_def[signature_name]
            feed, = (each.name for each in signature.inputs.values())
            fetch = signature.outputs["probabilities"].name
        except (tf.errors.OpError, OSError, RuntimeError, ValueError, KeyError) as error:
            raise UserError("{}: not a whole SavedModel ({}); run export.py savedmodel".format(
                path, error))

        def predict(batch: typing.Any) -> np.ndarray:
            try:
                return session.run(fetch, {feed: batch})
            except tf.errors.OpError as error:
                raise UserError("{}: an image that Pillow decodes makes it fail ({})".format(
                    path, error.message.splitlines()[0]), exit_code=1)

        yield predict
