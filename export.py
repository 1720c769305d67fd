"""Export the network to the engines that others use, each export checked before it is in place.

    python export.py all           # everything below, then the table
    python export.py yolov2        # exports/conv_weights.pickle and bn_weights.pickle
    python export.py darknet       # exports/darknet19_face.cfg, .weights and .names
    python export.py onnx          # exports/darknet19_face.onnx
    python export.py savedmodel    # exports/darknet19_face_savedmodel/1, for TensorFlow Serving
    python export.py compare       # all engines side by side on the same pictures

The weights are your own (darknet19_weights.npz or darknet19_frozen.pb in the model directory) or,
without any, the released ones. Each file is written under a temporary name, run by the engine it
is for on real pictures, and put in place only if the answers are those of the network built from
the weights. Exit code 1 if they are not.
"""

import argparse
import contextlib
import ctypes
import importlib
import logging
import os
import shutil
import signal
import sys
import tempfile

import cv2
import numpy as np

import darknet19
from exporters import savedmodel
from inference import choose_model
from model import darknet_files
from model.frozen import classifier_from_weights, freeze, load
from model.literal_names import literal
from model.weights import (
    assign,
    read_frozen,
    read_graph_def,
    read_handoff,
    read_weights,
    write_handoff,
)
from pictures.lists import LISTS, add_data_arguments, load_split
from pictures.reader import read_batches
from pictures.samples import photographs
from runtime.session import is_mkl_build, new_session, tf
from utils import (
    HelpFormatter,
    UserError,
    cli,
    number_type,
    progress,
    warn,
    write_atomically,
    write_json,
)

# The largest difference in probability that an engine may show on any picture.
BOUNDS = {"frozen": 1e-5, "fresh": 1e-5, "opencv": 1e-4, "onnx": 1e-5, "tensor": 1e-5,
          "encoded": 1e-3}
# The same of the log-odds. Probabilities near 0 and 1, of which a trained network gives many, hide
# it if a weight is off; rounding moves the log-odds by some 1e-5.
LOG_ODDS_BOUND = 1e-3
YOLOV2_BOUND = 1e-4  # of an activation, relative to the largest one
YOLOV2_SIZE = 416  # height and width that the detector runs at
YOLOV2_PICTURES = 4

NAME = "darknet19_face"
HANDOFF = ("conv_weights.pickle", "bn_weights.pickle")
BATCH = 10
OPSET = 13

JPEG_AND_PNG = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # how such files begin


class Network:
    """The weights to export, and what the network built from them says of some real pictures.

    Parameters
    ----------
    args : argparse.Namespace
        The options of this script.
    """

    def __init__(self, args):
        self.source, self.image_size = choose_source(args)
        self.weights = read_weights(self.source, cfg=args.cfg)
        paths, kind = test_pictures(args.data_dir, args.images)
        self.paths, self.images, bad = next(read_batches(paths, len(paths), self.image_size))
        for path, cause in bad:
            warn("{}: {}; skipped".format(path, cause))
        if not self.paths:
            raise UserError("{}: no picture to compare on could be read; check the test lists"
                            .format(args.data_dir))
        print("exporting {0} at {1} x {1}, comparing on {2} {3}".format(
            self.source, self.image_size, len(self.paths), kind), flush=True)
        self.classifier = classifier_from_weights(self.weights, self.image_size)
        self.expected = run_batches(self.classifier, self.images, "TensorFlow")

    def contents(self):
        """The pictures as they are encoded: a list of bytes."""
        contents = []
        for path in self.paths:
            with open(path, "rb") as stream:
                contents.append(stream.read())
        return contents

    def difference(self, probabilities):
        """The largest difference of any probability from the network's own."""
        return float(np.abs(probabilities - self.expected).max())

    def check(self, name, engine, probabilities, bound):
        """The same, after a check that it and that of the log-odds are within their bounds."""
        difference = self.difference(probabilities)
        _check(name, engine, difference, bound)
        odds = np.abs(_log_odds(probabilities) - _log_odds(self.expected))
        _check(name, "the log-odds of " + engine, odds.max(), LOG_ODDS_BOUND)
        return difference


def _log_odds(probabilities):
    """The logarithm of FACE's share over NON_FACE's, the smallest float32 numbers apart."""
    face, other = np.log(np.maximum(probabilities, 1e-30)).T
    return face - other


def choose_source(args):
    """The file to export, and the input size that belongs to it.

    ``--from`` if it is given; else what inference.py would use, except that a frozen graph of your
    own comes before the released weights.
    """
    npz, frozen = (os.path.join(args.model_dir, name)
                   for name in ("darknet19_weights.npz", "darknet19_frozen.pb"))
    args.weights = args.source
    if not args.source and os.path.exists(frozen) and not os.path.exists(npz):
        args.weights = frozen
    if args.weights and not args.image_size:
        args.image_size = _told_size(args.weights, args.cfg)
    return choose_model(args)


def _told_size(path, cfg):
    """The height and width of the input that a frozen graph or a .cfg tells, else None."""
    if cfg or darknet_files.is_darknet_file(path):
        cfg = darknet_files.find_cfg(path, cfg)
        return darknet_files.read_image_size(cfg) if cfg else None
    if not path.endswith(".pb") or os.path.basename(path) == "saved_model.pb":
        return None
    for node in read_graph_def(path).node:
        if (node.op, node.name) == ("Placeholder", "input"):
            sizes = {dim.size for dim in node.attr["shape"].shape.dim[1:3]}
            size = sizes.pop() if len(sizes) == 1 else 0
            return size if size > 0 and size % darknet19.STRIDE == 0 else None
    return None


def test_pictures(data_dir, count):
    """JPEG and PNG files to compare on: of the test lists, half faces; else photographs.

    Parameters
    ----------
    data_dir : str
        Without any test list in it, the photographs that scikit-image carries are taken.
    count : int

    Returns
    -------
    paths : list of str
    kind : str
        What they are, to be told.
    """
    if not any(os.path.exists(os.path.join(data_dir, name)) for name in LISTS["test"]):
        return ([path for path in photographs() if _is_jpeg_or_png(path)][:count],
                "photographs that scikit-image carries, for want of test lists")
    split = load_split(data_dir, "test")
    chosen = []
    for paths, most in ((split.faces, count - count // 2), (split.negatives, count // 2)):
        usable = [path for path in paths if _is_jpeg_or_png(path)]
        places = np.linspace(0, len(usable), min(most, len(usable)), endpoint=False)
        chosen += [usable[int(place)] for place in places]
    if not chosen:
        raise UserError("{}: the test lists name no JPEG or PNG that is there; run "
                        "preprocess_celeba.py".format(data_dir))
    return chosen, "pictures of the test lists"


def _is_jpeg_or_png(path):
    try:
        with open(path, "rb") as stream:
            return stream.read(8).startswith(JPEG_AND_PNG)
    except OSError:
        return False


def run_batches(predict, pictures, engine):
    """The probabilities of all pictures, a few at a time.

    Parameters
    ----------
    predict : callable
        Pictures to float32 [batch, 2].
    pictures : sequence
        What it takes.
    engine : str
        For the progress bar.
    """
    steps = progress(range(0, len(pictures), BATCH), desc=engine, unit="batch", leave=False)
    return np.concatenate([predict(pictures[start:start + BATCH]) for start in steps])


@contextlib.contextmanager
def staged(folder):
    """Yield a temporary folder; what is put in it moves to ``folder`` if the block succeeds.

    A folder that is already there is exchanged for the new one in one step.
    """
    os.makedirs(folder, exist_ok=True)
    temporary = tempfile.mkdtemp(dir=folder, prefix=".partial-")
    try:
        yield temporary
        for name in sorted(os.listdir(temporary)):
            new, old = os.path.join(temporary, name), os.path.join(folder, name)
            if os.path.isdir(new) and os.path.lexists(old):
                _exchange(new, old)
            else:
                os.replace(new, old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(new, old):
    """Exchange two folders' names: at once where the kernel can, else by renaming them in turn."""
    at_working_directory, exchange = -100, 2  # Linux: fcntl.h, linux/fs.h
    with contextlib.suppress(AttributeError, OSError):
        renameat2 = ctypes.CDLL(None).renameat2
        if renameat2(at_working_directory, os.fsencode(new), at_working_directory,
                     os.fsencode(old), exchange) == 0:
            return
    aside = new + ".old"
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except BaseException:
        os.rename(aside, old)
        raise


def _check(name, engine, difference, bound):
    """Raise unless the difference is within the bound; NaN is not."""
    if not difference <= bound:
        raise UserError("{}: not written: {} differs by {:.2g}, more than {:g}; use the versions "
                        "in requirements.txt".format(name, engine, difference, bound), exit_code=1)


def _module(name):
    """Import a package that only exporting needs."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError("{} can't be imported ({}); pip install -r requirements.txt".format(
            name, error))


# The YOLOv2 detector's backbone


def export_yolov2(network, args):
    """Write the two pickles of the hand-off; return the relative difference of the activations."""
    with staged(args.out) as folder:
        paths = [os.path.join(folder, name) for name in HANDOFF]
        write_handoff(network.weights, *paths)
        handoff = read_handoff(*paths)
        difference = compare_backbones(network, handoff)
        _check(" and ".join(HANDOFF), "the detector's backbone", difference, YOLOV2_BOUND)
        classifier = darknet19.CLASSIFIER + "/kernel"  # in the file, but no part of the backbone
        _check(HANDOFF[0], classifier,
               np.abs(handoff[classifier] - network.weights[classifier]).max(), 0)
    print("wrote {} and {}: layers 0 to 17 at {size} x {size} agree within {:.1e} of the largest "
          "activation".format(*[os.path.join(args.out, name) for name in HANDOFF], difference,
                              size=YOLOV2_SIZE))
    return difference


def compare_backbones(network, handoff):
    """Run layers 0 to 17 as the detector builds them and as darknet19.py does.

    Returns
    -------
    float
        The largest difference in the pass-through or the trunk, relative to the largest activation.
    """
    chosen = np.linspace(0, len(network.paths), YOLOV2_PICTURES, endpoint=False).astype(int)
    paths = [network.paths[index] for index in sorted(set(chosen))]
    _, pictures, _ = next(read_batches(paths, len(paths), YOLOV2_SIZE))
    outputs = []
    for build in (_detector_backbone, _own_backbone):
        graph = tf.Graph()
        with graph.as_default(), new_session(graph) as session:
            images = tf.placeholder(tf.float32, [None, YOLOV2_SIZE, YOLOV2_SIZE, 3])
            tensors = build(images, session, network.weights, handoff)
            outputs.append([session.run(tensors, {images: picture[None] / np.float32(255)})
                            for picture in progress(pictures, desc="backbone", leave=False)])
    return max(float(np.abs(theirs - ours).max() / np.abs(ours).max())
               for pair in zip(*outputs) for theirs, ours in zip(*pair))


def _detector_backbone(net, _, __, handoff):
    """The backbone as the detector builds it, from the pickles alone."""
    index, outputs = 0, []
    for layer in darknet19.LAYERS:
        if layer == darknet19.MAX_POOL:
            net = tf.nn.max_pool(net, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
            continue
        part = {name: handoff["conv_{}/{}".format(index, name)]
                for name in ("kernel", "mean", "variance", "beta", "gamma")}
        net = tf.nn.conv2d(net, part["kernel"], [1, 1, 1, 1], "SAME")
        net = tf.nn.batch_normalization(
            net, part["mean"], part["variance"], part["beta"], part["gamma"], 1e-5)
        net = tf.nn.leaky_relu(net, 0.1)
        if index in (12, 17):
            outputs.append(net)
        index += 1
    return outputs


def _own_backbone(images, session, weights, _):
    """The same two activations of darknet19.py's network."""
    _, end_points = darknet19.build(images)
    assign(session, weights)
    return [end_points["pass_through"], end_points["trunk"]]


# darknet and OpenCV


def export_darknet(network, args):
    """Write darknet's three files; return the largest difference in probability."""
    with staged(args.out) as folder:
        cfg, content, names = (os.path.join(folder, NAME + extension)
                               for extension in (".cfg", ".weights", ".names"))
        darknet_files.write_network(cfg, content, network.weights, network.image_size)
        with write_atomically(names, "w", encoding="ascii") as stream:
            stream.write("\n".join(darknet19.CLASS_NAMES) + "\n")
        difference = network.check(
            NAME + ".weights", "OpenCV", run_opencv(folder, network), BOUNDS["opencv"])
    print("wrote {0}.cfg, {0}.weights and {0}.names: OpenCV agrees within {1:.1e}".format(
        os.path.join(args.out, NAME), difference))
    return difference


def run_opencv(folder, network):
    """Probabilities from OpenCV's DNN module, which reads the files of :func:`export_darknet`."""
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        raise UserError("OpenCV {} does not read darknet's files; pip install -r requirements.txt"
                        .format(cv2.__version__))
    paths = [_existing(folder, NAME + extension, "darknet") for extension in (".cfg", ".weights")]
    try:
        net = cv2.dnn.readNetFromDarknet(*paths)
    except cv2.error as error:
        raise UserError("{}: OpenCV does not read it ({}); run export.py darknet".format(
            paths[1], error))

    def predict(images):
        net.setInput(cv2.dnn.blobFromImages(list(images), 1 / 255.0))
        return net.forward().reshape(len(images), -1)

    return run_batches(predict, network.images, "OpenCV")


def _existing(folder, name, command):
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise UserError("{}: no such file; run export.py {}".format(path, command))
    return path


# ONNX


def export_onnx(network, args):
    """Write the ONNX model; return the largest difference in probability."""
    onnx = _module("onnx")
    model = to_onnx(network.weights, network.image_size)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise UserError("{}.onnx: not written: the checker refuses it ({})".format(NAME, error),
                        exit_code=1)
    with staged(args.out) as folder:
        with write_atomically(os.path.join(folder, NAME + ".onnx")) as stream:
            stream.write(model.SerializeToString())
        difference = network.check(
            NAME + ".onnx", "ONNX Runtime", run_onnx(folder, network), BOUNDS["onnx"])
        other = _difference_at_another_size(folder, network)
        _check(NAME + ".onnx", "ONNX Runtime at another size", other, BOUNDS["onnx"])
    print("wrote {}.onnx: ONNX Runtime agrees within {:.1e}, at another size within {:.1e}".format(
        os.path.join(args.out, NAME), difference, other))
    return difference


def to_onnx(weights, image_size):
    """Freeze the network with its batch, height and width left open, and convert it to ONNX.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
    image_size : int
        For the metadata.

    Returns
    -------
    onnx.ModelProto
        Input ``input``: float32, [batch, height, width, 3], RGB 0..1, height and width multiples
        of 32. Outputs ``probabilities`` and ``logits``: float32, [batch, 2], FACE first. Its
        metadata name the classes and the preprocessing.
    """
    onnx, tf2onnx = _module("onnx"), _module("tf2onnx.convert")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    outputs = ["probabilities", "logits"]
    classifier = classifier_from_weights(weights, None)
    with classifier.session as session:
        graph_def = tf.graph_util.convert_variables_to_constants(
            session, session.graph.as_graph_def(), outputs)
    model, _ = tf2onnx.from_graph_def(
        graph_def, name="Darknet-19", input_names=["input:0"],
        output_names=[name + ":0" for name in outputs], opset=OPSET,
        tensors_to_rename={name + ":0": name for name in ["input"] + outputs})
    for value, names in [(model.graph.input[0], ("batch", "height", "width"))] + [
            (output, ("batch",)) for output in model.graph.output]:
        for dimension, name in zip(value.type.tensor_type.shape.dim, names):
            dimension.dim_param = name
    model.doc_string = "Darknet-19 that tells faces from other pictures"
    onnx.helper.set_model_props(model, {
        "class_names": ",".join(darknet19.CLASS_NAMES),
        "preprocessing": "RGB, stretched to {0} x {0}, divided by 255; float32, [batch, height, "
                         "width, 3]".format(image_size),
        "image_size": str(image_size),
        "size_multiple": str(darknet19.STRIDE),
    })
    return model


def run_onnx(folder, network, images=None):
    """Probabilities from ONNX Runtime, on the network's pictures unless others are given."""
    runtime = _module("onnxruntime")
    path = _existing(folder, NAME + ".onnx", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common public base
        raise UserError("{}: ONNX Runtime does not read it ({}); run export.py onnx".format(
            path, error))

    def predict(images):
        return session.run(["probabilities"], {"input": images / np.float32(255)})[0]

    return run_batches(predict, network.images if images is None else images, "ONNX Runtime")


def _difference_at_another_size(folder, network):
    """ONNX Runtime against TensorFlow on three pictures that are one stride higher and wider."""
    size = network.image_size + darknet19.STRIDE
    _, pictures, _ = next(read_batches(network.paths[:3], 3, size))
    classifier = classifier_from_weights(network.weights, size)
    with classifier.session:
        expected = classifier(pictures)
    return float(np.abs(run_onnx(folder, network, pictures) - expected).max())


# SavedModel


def export_savedmodel(network, args):
    """Write the SavedModel; return the largest difference for encoded pictures."""
    out = os.path.join(args.out, NAME + "_savedmodel")
    target = os.path.join(out, "1")
    if os.path.lexists(target) and not os.path.isfile(os.path.join(target, "saved_model.pb")):
        raise UserError("{}: there already and no SavedModel; remove it or name another "
                        "--out".format(target))
    with staged(out) as folder:
        try:
            write_saved_model(network.weights, network.image_size, os.path.join(folder, "1"))
        except tf.errors.OpError as error:
            raise UserError("{}: can't be written ({}); check the free disk space".format(
                target, error.message.splitlines()[0]))
        tensor = network.check(target, "the signature tensor",
                               run_saved_model_on_tensors(folder, network), BOUNDS["tensor"])
        encoded = network.difference(run_saved_model_on_files(folder, network))
        _check(target, "the signature serving_default", encoded, BOUNDS["encoded"])
    print("wrote {}: agrees within {:.1e}, for encoded pictures within {:.1e}".format(
        target, tensor, encoded))
    return encoded


def write_saved_model(weights, image_size, folder):
    """Write a SavedModel for TensorFlow Serving.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
    image_size : int
        Height and width that encoded pictures are resized to.
    folder : str
        Must not be there yet. The signature ``serving_default`` takes ``image_bytes`` (string,
        [batch]: whole JPEG or PNG files), ``tensor`` takes ``images`` (float32, [batch, height,
        width, 3], RGB 0..1, height and width multiples of 32); both return ``classes`` (string,
        [batch]) and ``probabilities`` (float32, [batch, 2], FACE first).
    """
    graph = tf.Graph()
    with graph.as_default(), new_session(graph) as session:
        contents = tf.placeholder(tf.string, [None], "image_bytes")
        pictures = savedmodel.decode_batch(contents, image_size)
        images = tf.placeholder_with_default(
            tf.cast(pictures, tf.float32) / 255.0, [None, None, None, 3], "input")
        logits, _ = darknet19.build(images)
        outputs = {
            "classes": tf.gather(tf.constant(darknet19.CLASS_NAMES), tf.argmax(logits, axis=1)),
            "probabilities": tf.nn.softmax(logits, name="probabilities"),
        }
        assign(session, weights)
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.tag_constants.SERVING], strip_default_attrs=True,
            signature_def_map={
                "serving_default": tf.saved_model.predict_signature_def(
                    {"image_bytes": contents}, outputs),
                "tensor": tf.saved_model.predict_signature_def({"images": images}, outputs),
            })
        builder.save()


def run_saved_model_on_tensors(folder, network):
    """Probabilities from the SavedModel's signature ``tensor``."""
    with _saved_model(folder, "tensor") as predict:
        return run_batches(lambda images: predict(images / np.float32(255)), network.images,
                           "SavedModel")


def run_saved_model_on_files(folder, network):
    """Probabilities from the SavedModel's signature ``serving_default``."""
    with _saved_model(folder, "serving_default") as predict:
        return run_batches(predict, network.contents(), "SavedModel, encoded files")


@contextlib.contextmanager
def _saved_model(folder, signature_name):
    """Load a SavedModel; yield a function from a signature's input to its probabilities."""
    path = os.path.join(folder, "1")
    _existing(path, "saved_model.pb", "savedmodel")
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

        def predict(batch):
            try:
                return session.run(fetch, {feed: batch})
            except tf.errors.OpError as error:
                raise UserError("{}: a picture that Pillow decodes makes it fail ({})".format(
                    path, error.message.splitlines()[0]), exit_code=1)

        yield predict


# Side by side


def compare(network, args):
    """Run all engines on the same pictures; print a table and write it as JSON.

    Raises
    ------
    UserError
        With exit code 1, after the table, if an engine differs more than it may.
    """
    reference, graph_file = _run_frozen(network, args)
    saved_model = os.path.join(args.out, NAME + "_savedmodel")
    tensorflow = "TensorFlow " + tf.VERSION + (" (MKL)" if is_mkl_build() else "")
    rows = [
        _row("frozen", tensorflow + ", frozen graph", graph_file, reference, reference),
        _row("fresh", tensorflow + ", fresh graph", network.source, network.expected, reference),
    ]
    for key, engine, path, run in (
            ("opencv", "OpenCV " + cv2.__version__ + " DNN", args.out, run_opencv),
            ("onnx", "ONNX Runtime " + _module("onnxruntime").__version__, args.out, run_onnx),
            ("tensor", "SavedModel, tensor", saved_model, run_saved_model_on_tensors),
            ("encoded", "SavedModel, encoded files", saved_model, run_saved_model_on_files)):
        rows.append(_row(key, engine, path, run(path, network), reference))
    print("\n" + format_table(rows, len(network.paths)))
    path = args.json or os.path.join(args.out, "compare.json")
    write_json(path, {"source": network.source, "image_size": network.image_size,
                      "images": len(network.paths), "engines": rows})
    print("\nwrote {}".format(path))
    outside = [row["engine"] for row in rows if not row["largest_difference"] <= row["bound"]]
    if outside:
        raise UserError("{}: exported from other weights than {}? run export.py all".format(
            ", ".join(outside), network.source), exit_code=1)


def _run_frozen(network, args):
    """Probabilities from the frozen graph of these weights: your own, or one made for the purpose.

    Returns
    -------
    probabilities : numpy.ndarray
    path : str
        Where the graph came from.
    """
    own = os.path.join(args.model_dir, "darknet19_frozen.pb")
    path = network.source if network.source.endswith(".pb") else own
    if os.path.exists(path) and _same_weights(read_frozen(path), network.weights):
        classifier = load(path, fold=False)
        if classifier.image_size == network.image_size:
            with classifier.session:
                return run_batches(classifier, network.images, "frozen graph"), path
    with tempfile.TemporaryDirectory() as folder:
        temporary = os.path.join(folder, "frozen.pb")
        freeze(network.classifier, temporary, network.images[:2], {})
        classifier = load(temporary, fold=False)
    with classifier.session:
        return run_batches(classifier, network.images, "frozen graph"), "frozen for the comparison"


def _same_weights(first, second):
    return all(np.array_equal(first[name], second[name]) for name in second)


def _row(key, engine, path, probabilities, reference):
    differences = np.abs(probabilities - reference)
    return {"engine": engine, "from": path, "bound": BOUNDS[key],
            "largest_difference": float(differences.max()),
            "same_class": int((probabilities.argmax(1) == reference.argmax(1)).sum())}


def format_table(rows, count):
    """The rows of :func:`compare` as text."""
    width = max(len(row["engine"]) for row in rows)
    lines = ["{:<{width}}   largest difference     bound   same class".format(
        "{} pictures".format(count), width=width)]
    for row in rows:
        lines.append("{engine:<{width}}   {largest_difference:18.1e}   {bound:7.0e}   "
                     "{same_class} of {count}".format(width=width, count=count, **row))
    return "\n".join(lines)


EXPORTS = {"yolov2": export_yolov2, "darknet": export_darknet, "onnx": export_onnx,
           "savedmodel": export_savedmodel}


def export_all(network, args):
    """Everything, then the table."""
    for export in EXPORTS.values():
        export(network, args)
    compare(network, args)


def _parser():
    common = argparse.ArgumentParser(add_help=False)
    add_data_arguments(common)
    common.add_argument("--model-dir", default="saved_models",
                        help="folder with your own weights or frozen graph")
    common.add_argument("--from", dest="source", metavar="FILE",
                        help="weights: an .npz, a frozen .pb, a checkpoint or its folder, a "
                             "SavedModel's folder or darknet .weights (default: your own, else "
                             "the released ones)")
    common.add_argument("--cfg", metavar="FILE",
                        help="darknet's description of .weights (default: the .cfg of the same "
                             "name beside them, else Darknet-19's own)")
    common.add_argument("--out", default="exports", metavar="DIR", help="folder for the exports")
    common.add_argument("--image-size", type=number_type(int, darknet19.STRIDE),
                        help="height and width of the input (default: what the frozen graph, the "
                             ".cfg or the .json beside FILE says, else darknet19_frozen.json in "
                             "the model directory, else 224)")
    common.add_argument("--images", type=number_type(int, 1), default=100,
                        help="pictures of the test lists to compare on, half of them faces")
    table = argparse.ArgumentParser(add_help=False)
    table.add_argument("--json", metavar="FILE",
                       help="where the table goes (default: compare.json in --out)")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    for name, run, parents, text in (
            ("yolov2", export_yolov2, [], "the two pickles of the YOLOv2 face detector"),
            ("darknet", export_darknet, [], "darknet's .cfg, .weights and .names"),
            ("onnx", export_onnx, [], "an ONNX model of any batch and size"),
            ("savedmodel", export_savedmodel, [], "a SavedModel for TensorFlow Serving"),
            ("all", export_all, [table], "all of these, then the table"),
            ("compare", compare, [table], "all engines side by side on the same pictures")):
        command = commands.add_parser(
            name, parents=[common] + parents, help=text, formatter_class=HelpFormatter,
            description=text[0].upper() + text[1:] + ".")
        command.set_defaults(run=run)
    return parser


@cli
def main():
    parser = _parser()
    args = parser.parse_args()
    if args.image_size and args.image_size % darknet19.STRIDE:
        parser.error("--image-size is a multiple of {}".format(darknet19.STRIDE))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and tidy up
    args.run(Network(args), args)


if __name__ == "__main__":
    main()
