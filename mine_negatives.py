"""Mine hard negatives: face-free windows that a trained model takes for a face.

    python mine_negatives.py                            # in data/neg_samples{,_val}.pickle
    python mine_negatives.py --wider-dir ~/wider_face   # and in WIDER FACE's images
    python mine_negatives.py --detector released        # what it is asked to confirm

The model scores the windows of each image, or the boxes of a detector with their margin, as
inference.py does. Those that it takes for a face and that touch none become JPEGs in
``data/NAME/`` and the lists ``data/NAME_others_{train,val}.pickle``: one more dataset for
``train.py --sources``. Test images are never used. A run that is interrupted changes nothing that
earlier lists name.
"""

import argparse
import os
import re

from darknet_face.classes import NON_FACE
from darknet_face.classify.sliding_window import add_sliding_window_arguments, open_sliding_window
from darknet_face.detection import RELEASED_DETECTOR
from darknet_face.detection.calibration import MARGIN
from darknet_face.detection.detector import LEAST_SCORE, OnePassDetector
from darknet_face.detection.model_file import read_spec
from darknet_face.images.contact_sheets import save_image
from darknet_face.images.crops import STORED_SIDE
from darknet_face.images.decode import BadImage, pixel_digest, read_image
from darknet_face.images.file_lists import (
    load_source,
    new_source_name,
    save_source_list,
)
from darknet_face.images.resize import resize
from darknet_face.images.wider_face import find_labelled_images
from darknet_face.negatives.mining import hard_boxes, hard_windows
from darknet_face.options import (
    add_data_argument,
    add_sources_argument,
)
from darknet_face.runtime.session import explain_memory_errors
from utils import HelpFormatter, UserError, cli, number_type, progress, warn

SPLITS = ("train", "val")
# Names of crops: the second is that of earlier versions.
CROP_NAME = re.compile(r"^([0-9a-f]{32}|[0-9]{6}-[0-9]+)\.jpg\Z")


def find_images(options):
    """Yield the split, path and faces of every image to mine."""
    for split in SPLITS:
        for name in options.sources:
            for path in load_source(options.data_dir, name, split)[NON_FACE]:
                yield split, path, ()
    if options.wider_dir:
        for image in find_labelled_images(options.wider_dir, options.val_size):
            if image.split in SPLITS:
                yield image.split, image.path, image.boxes


def open_finder(options):
    """A function that turns an image and its faces into the crops that the model is wrong about."""
    window = open_sliding_window(options)
    if not options.detector:
        return lambda image, faces: _windows(window, image, faces, options)
    path = RELEASED_DETECTOR if options.detector == "released" else options.detector
    detector = OnePassDetector.load(path, min_score=LEAST_SCORE)
    calibration = read_spec(path).calibration
    margin = calibration.margin if calibration else MARGIN
    return lambda image, faces: [seen for _, seen in hard_boxes(
        detector, window.engine, margin, image, faces, options.least_log_odds, options.most)]


def _windows(window, image, faces, options):
    crops = []
    for _, (left, top, side) in hard_windows(
            window, image, faces, options.least_log_odds, options.most):
        small = min(side, STORED_SIDE)
        crops.append(resize(image[top:top + side, left:left + side], small, small))
    return crops


def mine(find, images, folder, options):
    """Write the hard crops of all images.

    Parameters
    ----------
    find : callable
        See :func:`open_finder`.
    images : list of (str, str, tuple)
        See :func:`find_images`.
    folder : str
    options : argparse.Namespace

    Returns
    -------
    dict of str to list of str
        The written crops by split.

    Raises
    ------
    UserError
        When none of the images decodes.
    """
    crops = {split: [] for split in SPLITS}
    bad = 0
    for split, path, faces in progress(images, desc="mining", unit="image"):
        try:
            image = read_image(path)
        except BadImage as error:
            warn("{}: {}; skipped".format(path, error))
            bad += 1
            continue
        for crop in find(image, faces):
            target = save_crop(os.path.join(folder, split), crop)
            if target not in crops[split]:
                crops[split].append(target)
    if bad == len(images):
        raise UserError("none of the {:,} images decodes; the lists were left as they were: "
                        "check the disk or make the lists again".format(bad))
    return crops


def save_crop(folder, crop):
    """Write a crop under a name made of its pixels, so that no file ever changes its content."""
    path = os.path.join(folder, pixel_digest(crop)[:32] + ".jpg")
    if not os.path.exists(path):
        save_image(path, crop)
    return path


def remove_unlisted(folder, listed):
    """Remove the crops of earlier runs that no list names any more."""
    keep = {os.path.basename(path) for path in listed}
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if CROP_NAME.match(name) and name not in keep:
            os.remove(os.path.join(folder, name))


def _parser():
    parser = argparse.ArgumentParser(
        description="Mine hard negatives: face-free windows that a trained model takes for a face.",
        formatter_class=HelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--name", default="mined", type=new_source_name,
                        help="name of the dataset to make")
    add_sources_argument(parser, "mine the non-faces of these datasets", nargs="*")
    parser.add_argument("--wider-dir", metavar="DIR",
                        help="mine WIDER FACE's training images too")
    parser.add_argument("--val-size", type=number_type(float, 0, 0.9), default=0.12,
                        help="the same as for preprocess_wider.py")
    parser.add_argument("--least-log-odds", type=number_type(float, -1e4, 1e4),
                        default=-1.0, metavar="X",
                        help="a window or box is hard if its log-odds of FACE are at least this")
    parser.add_argument("--most", type=number_type(int, 1, 1000), default=3,
                        help="most windows or boxes of one image, the hardest first")
    parser.add_argument("--detector", metavar="PATH",
                        help="mine the boxes of this detector instead of windows: a file of "
                             "train_detector.py, or the word released")
    add_sliding_window_arguments(parser)
    return parser


@cli
@explain_memory_errors("use smaller --scales or a smaller --image-size")
def main():
    parser = _parser()
    options = parser.parse_args()
    if options.name in options.sources:
        parser.error("--name {}: is among --sources, whose lists would be replaced".format(
            options.name))
    find = open_finder(options)
    images = list(find_images(options))
    if not images:
        raise UserError("no images to mine; name --sources or --wider-dir")
    folder = os.path.join(options.data_dir, options.name)
    crops = mine(find, images, folder, options)
    for split, paths in crops.items():
        save_source_list(paths, options.data_dir, options.name, NON_FACE, split)
        remove_unlisted(os.path.join(folder, split), paths)
        print("{}: {:,} hard windows".format(split, len(paths)))


if __name__ == "__main__":
    main()
