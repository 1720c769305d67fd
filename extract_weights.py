"""Extract the network's weights from any file that holds them.

    python extract_weights.py                              # from saved_models/darknet19_frozen.pb
    python extract_weights.py --from saved_models/best     # from a checkpoint
    python extract_weights.py --from exports/darknet19_face_savedmodel
    python extract_weights.py --from exports/darknet19_face.weights --cfg exports/darknet19_face.cfg

Writes ``saved_models/darknet19_weights.npz`` (``conv_0/kernel`` HWIO, ``conv_0/gamma``, ``beta``,
``mean``, ``variance``, .. ``conv_18/kernel``, ``conv_18/bias``; and ``metadata``, with the input
size) and the two pickles from which the YOLOv2 face detector builds its backbone:
``data/conv_weights.pickle`` and ``data/bn_weights.pickle``.
"""

import argparse
import os

import numpy as np

from model import handoff
from model.metadata import read_metadata
from model.npz import write_npz
from model.weight_files import read_weights
from pictures.lists import add_data_arguments
from runtime.session import explain_memory_errors
from utils import HelpFormatter, UserError, cli


def _parser():
    parser = argparse.ArgumentParser(
        description="Extract the network's weights from a frozen graph, a checkpoint, a SavedModel "
                    "or a darknet file into an .npz and the two pickles of the YOLOv2 hand-off.",
        formatter_class=HelpFormatter)
    add_data_arguments(parser)
    parser.add_argument("--model-dir", default="saved_models",
                        help="folder with the frozen graph, and for the .npz")
    parser.add_argument("--from", dest="source", metavar="FILE",
                        help="a frozen .pb, an .npz, a checkpoint or its folder, a SavedModel's "
                             "folder or darknet .weights (default: darknet19_frozen.pb in the "
                             "model directory)")
    parser.add_argument("--cfg", metavar="FILE",
                        help="darknet's description of .weights (default: the .cfg of the same "
                             "name beside them, or Darknet-19's own)")
    parser.add_argument("--float16", action="store_true",
                        help="store the .npz in half precision, at half the size")
    return parser


@cli
@explain_memory_errors("close other programs")
def main():
    args = _parser().parse_args()
    source = args.source or os.path.join(args.model_dir, "darknet19_frozen.pb")
    if not args.source and not os.path.exists(source):
        raise UserError("{}: no such file; run train.py, or name weights by --from, such as "
                        "saved_models/darknet19_face.npz".format(source))
    weights = read_weights(source, cfg=args.cfg)
    npz = os.path.join(args.model_dir, "darknet19_weights.npz")
    pickles = [os.path.join(args.data_dir, name) for name in handoff.FILES]
    write_npz(npz, weights, np.float16 if args.float16 else np.float32,
              read_metadata(source, args.cfg))
    handoff.write_handoff(weights, *pickles)
    print("{}: {} arrays, {:,} numbers, to {}, {} and {}".format(
        source, len(weights), sum(array.size for array in weights.values()), npz, *pickles))


if __name__ == "__main__":
    main()
