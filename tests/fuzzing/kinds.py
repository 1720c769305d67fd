"""The kinds of files that the project reads: which file is mutated, how, and who reads it.

A reader returns an answer, or raises what one clean refusal is:
:class:`darknet_face.console.UserError` with exit code 2, ``BadImage``, or an OSError, which
:func:`darknet_face.console.cli` turns into one line.
"""

import argparse
import collections
import contextlib
import io
import os
import struct
import zipfile
import zlib

import numpy as np
from test_checkpoint_index import table

import darknet19
import preprocess_celeba
from darknet_face.classify.tables import keep_whole_rows
from darknet_face.classify.videos import video_frames
from darknet_face.detection.datasets import read_photographs
from darknet_face.detection.yolov2 import history as detector_history
from darknet_face.detection.yolov2.detector import Detector, is_detector
from darknet_face.evaluation.provenance import find_provenance
from darknet_face.exporters import onnx as onnx_export
from darknet_face.exporters.savedmodel import check_own
from darknet_face.images.crops import face_crops, face_free_windows
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.file_lists import load_list, read_names
from darknet_face.images.formats import HAS_OLD_DECODERS
from darknet_face.images.wider_face import BoxFiles, find_labelled_images
from darknet_face.negatives.checks import Unfit, decode_download
from darknet_face.negatives.records import Records
from darknet_face.negatives.store import Inventory
from darknet_face.runtime.session import tf
from darknet_face.training import resume
from darknet_face.training.curves import plot_history
from darknet_face.training.history import read_history
from darknet_face.training.settings import Settings
from darknet_face.training.validation import read_best
from darknet_face.weights import checkpoint_index, frozen_graph
from darknet_face.weights.handoff import FILES, read_handoff
from darknet_face.weights.metadata import metadata_beside, metadata_of_checkpoint
from darknet_face.weights.model_file import read_model
from fuzzing.mutations import mutate_bytes, mutate_json, mutate_message, mutate_text
from fuzzing.samples import COMMON_SETTINGS, SIZE, SPLITS

FRAMES = 40  # of a video are read
LARGEST_DOWNLOAD = 1000 * 1000  # pixels

Kind = collections.namedtuple("Kind", "target mutate read structured")
Kind.__doc__ = """How files of one kind are attacked.

Parameters
----------
target : str
    The file to mutate, relative to the sample's folder.
mutate : callable
    See :mod:`fuzzing.mutations`.
read : callable
    Takes the path of the target.
structured : callable or None
    Another mutation, which keeps checksums right; it takes half of the turns.
"""


def read_picture(path):
    pixels = read_image(path)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    read_image(path, least_size=SIZE)
    with open(path, "rb") as stream, contextlib.suppress(Unfit):
        decode_download(stream.read(), LARGEST_DOWNLOAD, 1)


def read_cfg(path):
    return read_model(path[:-len("cfg")] + "weights")


def read_frozen(path):
    frozen_graph.load(read_model(path)).session.close()


def read_checkpoint(path):
    """As inference.py and then as a resumed training reads it."""
    folder = os.path.dirname(path)
    read_model(folder)
    with tf.Graph().as_default(), tf.Session() as session:
        darknet19.build(tf.placeholder(tf.float32, [None, SIZE, SIZE, 3]))
        tf.train.get_or_create_global_step()
        resume._restore(session, tf.train.Saver(), os.path.join(folder, "model-3"))


def read_saved_model(path):
    folder = os.path.dirname(path)
    read_model(folder)
    check_own(folder)


def read_saved_variables(path):
    return read_model(os.path.dirname(os.path.dirname(path)))


def read_pickles(path):
    return read_handoff(*[os.path.join(os.path.dirname(path), name) for name in FILES])


def read_onnx(path):
    reference = argparse.Namespace(images=np.zeros((2, SIZE, SIZE, 3), np.uint8), weights={})
    answers = onnx_export.run_onnx(os.path.dirname(path), reference)
    if answers.shape != (2, 2):
        raise AssertionError("answers of the shape {}".format(answers.shape))


def read_text(path):
    with open(path, "rb") as stream:
        return list(read_names(stream))


def read_partition(path):
    folder = os.path.dirname(path)
    return preprocess_celeba.read_partition(folder, os.path.join(folder, "img_align_celeba"))


def read_boxes(path):
    folder, rng = os.path.dirname(path), np.random.RandomState(0)
    for each in find_labelled_images("", files=BoxFiles(folder, path, folder, path)):
        faces = [face for face in each.boxes if face.is_valid]
        face_crops((60, 90, 3), faces, rng)
        face_free_windows((60, 90, 3), each.boxes, rng)


def read_settings(path):
    metadata_of_checkpoint(os.path.join(os.path.dirname(path), "model-3"))
    folder = os.path.dirname(os.path.dirname(path))
    settings = Settings(model_dir=folder, data_dir=folder, **COMMON_SETTINGS)
    plan = resume.plan_run(settings, SPLITS)
    plan.schedule.place(plan.schedule.first_step(3))


def read_model_json(path):
    metadata_beside(path[:-len("json")] + "pb")
    find_provenance(path[:-len("json")] + "pb", os.path.dirname(path), os.path.dirname(path))


def read_curves(path):
    rows = read_history(path)
    if rows:
        plot_history(path + ".png", rows)


def read_detector(path):
    is_detector(path)
    with Detector(path, SIZE, min_score=0.0) as detect:
        detect(np.full((40, 50, 3), 90, np.uint8))


def read_detector_curves(path):
    rows = detector_history.HISTORY.read(path)
    if rows:
        detector_history.plot_precision(path + ".png", rows)


def read_voc(path):
    for keep in ("all", "large"):
        read_photographs(os.path.dirname(path), os.path.dirname(path), keep)


def read_records(path):
    records = Records(path)
    try:
        records.settings(), records.pages("commons", "dogs")
        inventory = Inventory(os.path.dirname(path), records)
        inventory.counts(), inventory.rejections(), inventory.attribution(), inventory.samples()
    finally:
        records.close()


def read_video(path):
    for number, frame in enumerate(video_frames(path, 10)):
        with contextlib.suppress(BadImage):
            frame.read()
        if number == FRAMES:
            return


def mutate_png(content, rng, others):
    """Change a chunk under its right length and checksum, or drop, repeat or move it."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        length, name = struct.unpack(">I4s", content[place:place + 8])
        chunks.append((name, content[place + 8:place + 8 + length]))
        place += 12 + length
    choice, position = rng.randrange(6), rng.randrange(len(chunks))
    name, data = chunks[position]
    if choice < 4:
        chunks[position] = name, mutate_bytes(data, rng)
    elif choice == 4:
        chunks.insert(rng.randrange(len(chunks)), chunks.pop(position))
    else:
        chunks.insert(position, (rng.choice((b"iCCP", b"zTXt", b"iTXt", b"tRNS", b"eXIf", b"acTL",
                                             b"PLTE", b"gAMA", b"IHDR")), mutate_bytes(data, rng)))
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks)


def mutate_zip(content, rng, others):
    """Change a member of an archive under its right checksum, or its name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    metadata = [number for number, (name, _) in enumerate(members) if name == "metadata.npy"]
    position = rng.choice(metadata * 40 + list(range(len(members))))
    name, data = members[position]
    start = rng.choice((128, 0))  # after an array's header, or from the begin
    if metadata == [position] and start:
        data = data[:start] + mutate_json(data[start:], rng)
        if rng.random() < 0.7:  # with the length that the header tells
            stream = io.BytesIO()
            np.save(stream, np.frombuffer(data[start:], np.uint8))
            data = stream.getvalue()
    else:
        data = data[:start] + mutate_bytes(data[start:], rng)
    members[position] = rng.choice((name, name, name, name, "../x.npy", "conv_0/x.npy")), data
    stream = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def mutate_index(content, rng, others):
    """Change an entry of a checkpoint's index under right checksums."""
    entries = checkpoint_index._read_table(content)
    position = rng.randrange(len(entries))
    key, value = entries[position]
    if rng.random() < 0.8:
        entries[position] = key, mutate_bytes(value, rng)
    else:
        entries[position] = mutate_bytes(key, rng), value
    return table(entries)


def _mutate_proto(import_message):
    def mutate(content, rng, others):
        message = import_message().FromString(content)
        mutate_message(message, rng)
        return message.SerializeToString()
    return mutate


def _saved_model():
    from tensorflow.core.protobuf import saved_model_pb2
    return saved_model_pb2.SavedModel


def _onnx_model():
    import onnx
    return onnx.ModelProto


def _picture(extension, structured=None):
    return Kind("picture." + extension, mutate_bytes, read_picture, structured)


KINDS = collections.OrderedDict([
    ("jpeg", _picture("jpg")), ("png", _picture("png", mutate_png)), ("bmp", _picture("bmp")),
    ("gif", _picture("gif")), ("webp", _picture("webp")), ("tiff", _picture("tif")),
    ("ppm", _picture("ppm", mutate_text)), ("heic", _picture("heic")),
    ("npz", Kind("w.npz", mutate_bytes, read_model, mutate_zip)),
    ("weights", Kind("w.weights", mutate_bytes, read_model, None)),
    ("cfg", Kind("w.cfg", mutate_text, read_cfg, None)),
    ("frozen", Kind("w.pb", mutate_bytes, read_frozen, _mutate_proto(lambda: tf.GraphDef))),
    ("model-json", Kind("w.json", mutate_json, read_model_json, None)),
    ("conv-pickle", Kind(FILES[0], mutate_bytes, read_pickles, None)),
    ("bn-pickle", Kind(FILES[1], mutate_bytes, read_pickles, None)),
    ("onnx", Kind("darknet19_face.onnx", mutate_bytes, read_onnx, _mutate_proto(_onnx_model))),
    ("checkpoint-index", Kind("checkpoints/model-3.index", mutate_bytes, read_checkpoint,
                              mutate_index)),
    ("checkpoint-data", Kind("checkpoints/model-3.data-00000-of-00001", mutate_bytes,
                             read_checkpoint, None)),
    ("checkpoint-state", Kind("checkpoints/checkpoint", mutate_text, read_checkpoint, None)),
    ("savedmodel-pb", Kind("model/saved_model.pb", mutate_bytes, read_saved_model,
                           _mutate_proto(_saved_model))),
    ("savedmodel-index", Kind("model/variables/variables.index", mutate_bytes,
                              read_saved_variables, mutate_index)),
    ("savedmodel-json", Kind("model/assets.extra/metadata.json", mutate_json,
                             read_saved_variables, None)),
    ("list-pickle", Kind("list.pickle", mutate_bytes, load_list, None)),
    ("names", Kind("names.txt", mutate_text, read_text, None)),
    ("partition-txt", Kind("list_eval_partition.txt", mutate_text, read_partition, None)),
    ("partition-csv", Kind("list_eval_partition.csv", mutate_text, read_partition, None)),
    ("boxes", Kind("boxes.txt", mutate_text, read_boxes, None)),
    ("settings-json", Kind("checkpoints/settings.json", mutate_json, read_settings, None)),
    ("best-json", Kind("best.json", mutate_json,
                       lambda path: read_best(os.path.dirname(path), "val_loss"), None)),
    ("history", Kind("history.csv", mutate_text, read_curves, None)),
    ("records", Kind("records.sqlite", mutate_bytes, read_records, None)),
    ("table-csv", Kind("t.csv", mutate_text, lambda path: keep_whole_rows(path, "csv"), None)),
    ("table-json", Kind("t.json", mutate_text, lambda path: keep_whole_rows(path, "json"), None)),
    ("detector", Kind("d.pb", mutate_bytes, read_detector, _mutate_proto(lambda: tf.GraphDef))),
    ("detector-history", Kind("history.csv", mutate_text, read_detector_curves, None)),
    ("voc", Kind("a.xml", mutate_text, read_voc, None)),
    ("video", Kind("film.avi", mutate_bytes, read_video, None)),
])
if HAS_OLD_DECODERS:
    del KINDS["heic"]  # refused unread: see darknet_face/images/formats.py
