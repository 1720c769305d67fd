"""Extract the network's weights from any file that holds them.

    python extract_weights.py                              # from saved_models/darknet19_frozen.pb
    python extract_weights.py --at-fpr 0.01                # also choose and store the threshold
    python extract_weights.py --weights saved_models/best  # from a checkpoint
    python extract_weights.py --weights exports/darknet19_face_savedmodel
    python extract_weights.py --weights face.weights --cfg face.cfg

Writes ``saved_models/darknet19_weights.npz`` (``conv_0/kernel`` HWIO, ``conv_0/gamma``, ``beta``,
``mean``, ``variance``, .. ``conv_18/kernel``, ``conv_18/bias``) and the two pickles from which the
YOLOv2 face detector builds its backbone: ``data/conv_weights.pickle`` and
``data/bn_weights.pickle``. The ``.npz`` also has ``metadata``: the input size, the class names, the
training step and the threshold, as far as the source says them.
"""

import argparse
import os

from utils import HelpFormatter, UserError, cli

# What is missing outside the environment is said by then.
# isort: split
import numpy as np

from darknet_face.evaluation.by_source import union
from darknet_face.evaluation.operating_point import choose_operating_point
from darknet_face.images.file_lists import (
    add_rate_argument,
    load_sources,
)
from darknet_face.options import (
    add_data_argument,
    add_sources_argument,
    add_weights_argument,
)
from darknet_face.runtime.atomic_files import staged
from darknet_face.runtime.session import explain_memory_errors
from darknet_face.weights import handoff
from darknet_face.weights.model_file import read_model
from darknet_face.weights.npz import write_npz


def _parser():
    parser = argparse.ArgumentParser(
        description="Extract the network's weights from a frozen graph, a checkpoint, a SavedModel "
                    "or a darknet file into an .npz and the two pickles of the YOLOv2 hand-off.",
        formatter_class=HelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--model-dir", default="saved_models",
                        help="folder with the frozen graph, and for the .npz")
    add_weights_argument(parser, "darknet19_frozen.pb in the model directory", "--from")
    parser.add_argument("--cfg", metavar="FILE",
                        help="darknet's description of .weights (default: the .cfg of the same "
                             "name beside them, or Darknet-19's own)")
    parser.add_argument("--float16", action="store_true",
                        help="store the .npz in half precision, at half the size")
    add_rate_argument(parser)
    add_sources_argument(parser, "choose the threshold on the validation lists of these sources")
    return parser


@cli
@explain_memory_errors("close other programs")
def main():
    args = _parser().parse_args()
    source = args.weights or os.path.join(args.model_dir, "darknet19_frozen.pb")
    if not args.weights and not os.path.exists(source):
        raise UserError("{}: no such file; run train.py, or name weights by --weights, such as "
                        "--weights released".format(source))
    model = read_model(source, cfg=args.cfg)
    weights, metadata = model.weights, dict(model.metadata)
    if args.at_fpr is not None:
        metadata.update(choose_operating_point(
            weights, model.image_size,
            union(load_sources(args.data_dir, args.sources, "val")), args.at_fpr))
    name = "darknet19_weights.npz"
    # Nothing is replaced until all is written: the pickles must not be of other weights.
    with staged(args.model_dir) as models, staged(args.data_dir) as data:
        write_npz(os.path.join(models, name), weights,
                  np.float16 if args.float16 else np.float32, metadata)
        handoff.write_handoff(weights, *[os.path.join(data, each) for each in handoff.FILES])
    paths = [os.path.join(args.model_dir, name)] + [
        os.path.join(args.data_dir, each) for each in handoff.FILES]
    print("{}: {} arrays, {:,} numbers, to {}, {} and {}".format(
        model.path, len(weights), sum(array.size for array in weights.values()), *paths))


if __name__ == "__main__":
    main()
