"""Mine hard negatives: face-free windows in which a trained model sees a face all the same.

    python mine_negatives.py                            # in data/neg_samples{,_val}.pickle
    python mine_negatives.py --wider-dir ~/wider_face   # and in WIDER FACE's photographs

The model looks through the windows of pictures, as inference.py does. Windows that it takes for a
face and that touch none become JPEGs in ``data/NAME/`` and the lists
``data/NAME_others_{train,val}.pickle``: one more source for ``train.py --sources``. Pictures for
the tests are never looked at.
"""

import argparse
import os

from darknet_face.classes import NON_FACE
from darknet_face.classify.sliding_window import add_sliding_window_arguments, open_sliding_window
from darknet_face.images.contact_sheets import save_image
from darknet_face.images.crops import STORED_SIDE
from darknet_face.images.decode import BadImage, read_image, resize
from darknet_face.images.file_lists import (
    CELEBA,
    load_source,
    new_source_name,
    save_source_list,
    source_name,
)
from darknet_face.images.wider_face import find_labelled_images
from darknet_face.negatives.mining import hard_windows
from darknet_face.runtime.session import explain_memory_errors
from utils import HelpFormatter, UserError, cli, number_type, progress, warn

SPLITS = ("train", "val")


def find_pictures(options):
    """Yield the split, path and faces of every picture to look at."""
    for split in SPLITS:
        for name in options.sources:
            for path in load_source(options.data_dir, name, split)[NON_FACE]:
                yield split, path, ()
    if options.wider_dir:
        for photograph in find_labelled_images(options.wider_dir, options.val_size):
            if photograph.split in SPLITS:
                yield photograph.split, photograph.path, photograph.boxes


def mine(search, pictures, folder, options):
    """Look through pictures and write their hard windows.

    Returns
    -------
    dict of str to list of str
        The written crops by split.

    Raises
    ------
    UserError
        When none of the pictures decodes.
    """
    crops = {split: [] for split in SPLITS}
    bad = 0
    for number, (split, path, faces) in enumerate(
            progress(pictures, desc="mining", unit="image")):
        try:
            image = read_image(path)
        except BadImage as error:
            warn("{}: {}; left out".format(path, error))
            bad += 1
            continue
        for rank, (_, (left, top, side)) in enumerate(hard_windows(
                search, image, faces, options.least_log_odds, options.most)):
            small = min(side, STORED_SIDE)
            crop = resize(image[top:top + side, left:left + side], small, small)
            target = os.path.join(folder, split, "{:06d}-{}.jpg".format(number, rank))
            save_image(target, crop)
            crops[split].append(target)
    if bad == len(pictures):
        raise UserError("none of the {:,} pictures decodes; the lists were left as they were: "
                        "check the disk or make the lists again".format(bad))
    return crops


def _parser():
    parser = argparse.ArgumentParser(
        description="Mine hard negatives: face-free windows that a trained model takes for a face.",
        formatter_class=HelpFormatter)
    parser.add_argument("--data-dir", default="data", help="folder with the file lists")
    parser.add_argument("--name", default="mined", type=new_source_name,
                        help="of the source that is made")
    parser.add_argument("--sources", nargs="*", default=[CELEBA], metavar="NAME",
                        type=source_name,
                        help="look through the non-faces of these sources")
    parser.add_argument("--wider-dir", metavar="DIR",
                        help="and through WIDER FACE's training photographs")
    parser.add_argument("--val-size", type=number_type(float, 0, 0.9), default=0.12,
                        help="as preprocess_wider.py was told")
    parser.add_argument("--least-log-odds", type=number_type(float, -1e4, 1e4),
                        default=-1.0, metavar="X",
                        help="log-odds of FACE from which on a window is hard")
    parser.add_argument("--most", type=number_type(int, 1, 1000), default=3,
                        help="windows from one picture, the hardest first")
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
    search = open_sliding_window(options)
    pictures = list(find_pictures(options))
    if not pictures:
        raise UserError("nothing to look through; name --sources or --wider-dir")
    crops = mine(search, pictures, os.path.join(options.data_dir, options.name), options)
    for split, paths in crops.items():
        save_source_list(paths, options.data_dir, options.name, NON_FACE, split)
        print("{}: {:,} hard windows".format(split, len(paths)))


if __name__ == "__main__":
    main()
