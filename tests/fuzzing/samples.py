"""Small valid files of every kind that the project reads.

:func:`make_samples` fills a folder: ``<kind>/<number>/`` holds one sample, with what belongs beside
it. It needs the slim network of ``fuzz.py``, so it runs in a child process.
"""

import collections
import io
import json
import os
import pickle
import shutil
import struct

import cv2
import numpy as np
from PIL import Image

import darknet19
from darknet_face.detection.yolov2 import detector
from darknet_face.detection.yolov2 import history as detector_history
from darknet_face.engines.tensorflow_classifier import classifier_from_weights
from darknet_face.exporters.onnx import to_onnx
from darknet_face.exporters.savedmodel import write_saved_model
from darknet_face.images.file_lists import Split
from darknet_face.images.formats import HAS_OLD_DECODERS
from darknet_face.negatives.records import KEPT, Failure, Fetched, Records, Verdict
from darknet_face.negatives.services import Candidate, ResultPage
from darknet_face.runtime.atomic_files import write_json
from darknet_face.runtime.session import tf
from darknet_face.training.history import HISTORY
from darknet_face.training.resume import plan_run
from darknet_face.training.settings import Settings
from darknet_face.weights import darknet_weights, frozen_graph
from darknet_face.weights.arrays import assign, weight_shapes
from darknet_face.weights.handoff import FILES, write_handoff
from darknet_face.weights.npz import write_npz

SIZE = 32
STEP = 3
NAMES = ["a.jpg", "b/\u00fc 1.png", "celeba/000001.jpg", "x" * 80 + ".png"]
METADATA = {"image_size": SIZE, "class_names": ["FACE", "NON_FACE"], "step": STEP,
            "threshold": 0.25, "search_bias": 1.5}
SPLITS = {"train": Split(("a.jpg", "b.jpg"), ("c.jpg",)), "val": Split(("d.jpg",), ("e.jpg",))}
COMMON_SETTINGS = {"batch_size": 2, "image_size": SIZE}

ANCHORS = [(0.1, 0.1), (0.2, 0.3)]

VOC = """<?xml version="1.0"?>
<annotation><filename>c.jpg</filename><size><width>56</width><height>40</height></size>
<object><name>with_mask</name><difficult>0</difficult>
<bndbox><xmin>8</xmin><ymin>5</ymin><xmax>30.5</xmax><ymax>38</ymax></bndbox></object>
<object><name>a</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>9</ymax></bndbox></object></annotation>
"""

# An official WIDER FACE file: names, counts, boxes.
BOXES = """0--Parade/a.jpg
1
449 330 122 149 0 0 0 0 0 0
0--Parade/b.jpg
0
0 0 0 0 0 0 0 0 0 0
c.jpg
3
8 21 17 18 2 0 0 0 0 0
78 38 14 17 2 0 0 1 0 0
13 12 40 45 2 0 0 0 0 0
"""


def make_samples(folder):
    """Write the samples of all kinds."""
    weights = plausible_weights()
    _make_pictures(folder)
    _make_weights(folder, weights)
    _make_checkpoints(folder, weights)
    _make_lists(folder)
    _make_records(folder, weights)
    _make_tables(folder)
    _make_videos(folder)
    _make_detectors(folder)


def plausible_weights():
    """Weights of the slim network, named as in the ``.npz``."""
    rng = np.random.RandomState(0)
    weights = collections.OrderedDict()
    for name, shape in weight_shapes().items():
        part = name.split("/")[1]
        array = (rng.uniform(0.7, 1.3, shape) if part in ("gamma", "variance")
                 else rng.randn(*shape) * (2.0 / np.prod(shape[:-1] or (10,))) ** 0.5)
        weights[name] = array.astype(np.float32)
    return weights


def _new(folder, kind, name):
    """The path of a sample in a new folder."""
    parent = os.path.join(folder, kind)
    number = len(os.listdir(parent)) if os.path.isdir(parent) else 0
    path = os.path.join(parent, str(number), name)
    os.makedirs(os.path.dirname(path))
    return path


def _write(folder, kind, name, content):
    path = _new(folder, kind, name)
    with open(path, "wb") as stream:
        stream.write(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def _make_pictures(folder):
    rng = np.random.RandomState(0)
    ramp = np.linspace(0, 255, 40 * 56 * 3).reshape(40, 56, 3)
    image = Image.fromarray((ramp * 0.8 + rng.uniform(0, 40, ramp.shape)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = image.quantize(16)
    deep = Image.fromarray((ramp[..., 0] * 257).astype(np.uint16))
    for kind, extension, samples in (
            ("jpeg", "jpg", [(image, {"exif": exif}), (image, {"progressive": True}),
                             (image.convert("CMYK"), {})]),
            ("png", "png", [(image, {}), (palette, {"transparency": 3}), (deep, {}),
                            (image.convert("RGBA"), {"exif": exif})]),
            ("bmp", "bmp", [(image, {}), (palette, {}), (image.convert("1"), {})]),
            ("gif", "gif", [(palette, {}), (palette, {
                "save_all": True, "append_images": [image.rotate(90).quantize(8)]})]),
            ("webp", "webp", [(image, {}), (image.convert("RGBA"), {"lossless": True}),
                              (image, {"save_all": True, "append_images": [image.rotate(90)]})]),
            ("tiff", "tif", [(image, {}), (image, {"compression": "tiff_lzw"}),
                             (image, {"compression": "jpeg"}), (deep, {"tiffinfo": {274: 6}}),
                             (image.convert("1"), {"compression": "group4"})]),
            ("ppm", "ppm", [(image, {}), (image.convert("L"), {}), (image.convert("1"), {})])):
        for picture, options in samples:
            picture.save(_new(folder, kind, "picture." + extension), **options)
    _write(folder, "ppm", "picture.ppm", "P3 3 2 255\n# c\n" + "1 2 3\n" * 6)
    _write(folder, "bmp", "picture.bmp", _run_length_bmp())
    if not HAS_OLD_DECODERS:
        _write(folder, "heic", "picture.heic", _heic(image))


def _heic(image):
    import pillow_heif
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=80)
    return stream.getvalue()


def _run_length_bmp():
    """An 8-bit BMP of 4 x 2 pixels with run-length encoding."""
    pixels = b"\x04\x01\x00\x00\x02\x02\x02\x03\x00\x01"
    head = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(pixels), 0, 0, 4, 0)
    palette = bytes(range(16))
    start = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + head + palette + pixels


def _make_weights(folder, weights):
    write_npz(_new(folder, "npz", "w.npz"), weights, metadata=METADATA)
    write_npz(_new(folder, "npz", "w.npz"), weights, np.float16)
    for kind in ("weights", "cfg"):
        path = _new(folder, kind, "w.weights")
        darknet_weights.write_network(path[:-7] + "cfg", path, weights, SIZE)
    darknet_weights.write_weights(_new(folder, "weights", "w.weights"), weights)
    pb = _new(folder, "frozen", "w.pb")
    pictures = np.random.RandomState(0).randint(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    classifier = classifier_from_weights(weights, SIZE)
    with classifier.session:
        frozen_graph.freeze(classifier, pb, pictures, METADATA)
    path = _new(folder, "model-json", "w.pb")
    for extension in ("pb", "json"):
        shutil.copy(pb[:-2] + extension, path[:-2] + extension)
    os.remove(pb[:-2] + "json")  # its digest would refuse every change
    for kind in ("conv-pickle", "bn-pickle"):
        path = os.path.dirname(_new(folder, kind, "none"))
        write_handoff(weights, *[os.path.join(path, name) for name in FILES])
    _write(folder, "onnx", "darknet19_face.onnx", to_onnx(weights, SIZE))


def _make_checkpoints(folder, weights):
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, [None, SIZE, SIZE, 3])
        darknet19.build(images)
        step = tf.train.get_or_create_global_step()
        session.run(tf.global_variables_initializer())
        session.run(step.assign(STEP))
        assign(session, weights)
        saver = tf.train.Saver()
        for kind in ("checkpoint-index", "checkpoint-data", "checkpoint-state", "settings-json"):
            path = _new(folder, kind, "model")
            os.makedirs(os.path.join(os.path.dirname(path), "checkpoints"))
            saver.save(session, os.path.join(os.path.dirname(path), "checkpoints", "model"), STEP,
                       write_meta_graph=False)
    for kind in ("savedmodel-pb", "savedmodel-index", "savedmodel-json"):
        write_saved_model(weights, SIZE, _new(folder, kind, "model"))


def _make_lists(folder):
    for protocol in range(min(pickle.HIGHEST_PROTOCOL, 5) + 1):
        _write(folder, "list-pickle", "list.pickle", pickle.dumps(NAMES * 3, protocol))
    _write(folder, "list-pickle", "list.pickle",  # of Python 2
           b"\x80\x02]q\x01(U\x05a.jpgq\x02U\x06\xc3\xbc.jpgq\x03h\x02e.")
    _write(folder, "names", "names.txt", "\n".join(NAMES) + "\n")
    _write(folder, "names", "names.txt", "\ufeff" + "\r\n".join(NAMES))
    names = ["{:06d}.jpg".format(number) for number in range(1, 7)]
    for path, text in (("list_eval_partition.txt", "{} {}\n"),
                       ("list_eval_partition.csv", "{},{}\r\n")):
        header = "image_id,partition\r\n" if path.endswith("csv") else ""
        made = _write(folder, "partition-" + path[-3:], path, header + "".join(
            text.format(name, number % 3) for number, name in enumerate(names)))
        pictures = os.path.join(os.path.dirname(made), "img_align_celeba")
        os.makedirs(pictures)
        for name in names:
            open(os.path.join(pictures, name), "w").close()
    labelled = BOXES.replace("149 0 0 0 0 0 0", "149 with_mask").replace("\n", "\r\n")
    for text in (BOXES, "\ufeff" + labelled):
        made = _write(folder, "boxes", "boxes.txt", text)
        open(os.path.join(os.path.dirname(made), "c.jpg"), "w").close()


def _make_records(folder, weights):
    path = os.path.join(folder, "settings-json", "0")
    settings = Settings(model_dir=path, data_dir=path, **COMMON_SETTINGS)
    record = plan_run(settings._replace(restart=True), SPLITS).record
    write_json(os.path.join(path, "checkpoints", "settings.json"), record)
    row = dict.fromkeys(HISTORY.columns, 0.5)
    row.update(epoch=1, step=STEP)
    write_json(_new(folder, "best-json", "best.json"), dict(row, checkpoint="model-3"))
    HISTORY.write(_new(folder, "history", "history.csv"),
                  [row, dict(row, epoch=2, step=6), dict(row, epoch=3, step=9)])
    records = Records(_new(folder, "records", "records.sqlite"))
    candidate = Candidate("http://a.example/1.jpg", "http://a.example/1", "Ann", "CC0")
    records.add_settings({"min_side": 100})
    records.add_page("commons", "dogs", ResultPage([candidate], {"offset": "50"}))
    records.add_fetched(
        Fetched(candidate, "a" * 64, np.arange(256) % 3 == 0, "2020-01-01T00:00:00+00:00"))
    records.add_failure(Failure("http://a.example/2.jpg", "dogs", "too small", "9 x 9", True))
    records.add_verdict(Verdict("dogs", candidate.url, KEPT, ""))
    records.close()


def _make_tables(folder):
    header = "file,class,probability,face_probability,x,y,width,height\n"
    _write(folder, "table-csv", "t.csv", header + "".join(
        '"{}",FACE,0.9,0.9,1,2,3,4\n'.format(name) for name in NAMES))
    _write(folder, "table-json", "t.json", "".join(json.dumps(collections.OrderedDict(
        [("file", name), ("class", "FACE"), ("probability", 0.9), ("face_probability", 0.9),
         ("x", 1), ("y", 2), ("width", 3), ("height", 4)])) + "\n" for name in NAMES))


def _make_videos(folder):
    for extension, codec in (("avi", "MJPG"), ("mp4", "mp4v")):
        path = _new(folder, "video", "film.avi")  # FFmpeg goes by the content
        made = os.path.join(os.path.dirname(path), "made." + extension)
        writer = cv2.VideoWriter(made, cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
        for number in range(12):
            writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
        writer.release()
        os.replace(made, path)


def _make_detectors(folder):
    path = _new(folder, "detector", "d.pb")
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        detector.build_detector(ANCHORS)
        session.run(tf.global_variables_initializer())
        prefix = tf.train.Saver(detector.saved_variables()).save(
            session, os.path.join(folder, "detector-model"), write_meta_graph=False)
    detector.freeze(prefix, ANCHORS, path)
    row = dict.fromkeys(detector_history.HISTORY.columns, 0.5)
    detector_history.HISTORY.write(
        _new(folder, "detector-history", "history.csv"),
        [dict(row, step=step) for step in (100, 200, 300)])
    for text in (VOC.encode(), VOC.replace('?xml version="1.0"', '?xml version="1.0" '
                                           'encoding="utf-16"').encode("utf-16")):
        path = _write(folder, "voc", "a.xml", text)
        Image.new("RGB", (56, 40)).save(os.path.join(os.path.dirname(path), "c.jpg"))
