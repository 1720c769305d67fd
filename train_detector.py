"""Train a face detector, and keep the best one as a file.

    python train_detector.py --wider-dir wider --celeba-dir celeba --negatives negatives
    python train_detector.py --wider-dir wider --preview scenes.png     # what the network would see
    python train_detector.py --also images labels --validation images/val labels/val --wider-dir ""
    python train_detector.py --head yolov2 --wider-dir wider            # the full trunk
    python train_detector.py --head yolov2 --help                       # its own options
    python -m darknet_face.detection.evaluate --wider-dir wider         # how good it is
    python -m darknet_face.detection.detect photo.jpg                   # find faces

Two heads: "pyramid" trains a narrow Darknet-19 and a small head at three strides from nothing, on
scenes made of photographs, crops of faces and images without a face; "yolov2" trains YOLOv2's head
on the classifier's weights. Interrupt a training at any moment: the same command resumes at the
newest checkpoint. --steps may be changed then: the learning rate rises, stays at --max-lr and falls
in the last quarter of the steps.
"""

import argparse
import dataclasses

from utils import HelpFormatter, cli, number_type

# What is missing outside the environment is said by then.
# isort: split
import numpy as np

from clr import cyclical_learning_rate
from darknet_face.detection import trainer
from darknet_face.detection.material import gather
from darknet_face.detection.scenes import SceneBatches, draw_boxes
from darknet_face.detection.yolov2 import train as yolov2
from darknet_face.images.contact_sheets import check_drawing, contact_sheet, image_name, save_image
from darknet_face.runtime.session import PRECISIONS, explain_memory_errors, tf

HEADS = ("pyramid", "yolov2")
STEEPNESS = 2.0  # the cycle's height in --max-lr, where it is cut off: a quarter of the steps rise
WARM_UP = 0.04  # of the YOLOv2 head: the cycle's lowest learning rate, as a share of the highest


def learning_rate(base_lr, max_lr, steps, steepness=1.0, rise=0.25):
    """One cycle over a training, cut off at ``max_lr``; a function of the global step.

    ``rise`` is the share of the steps after which it is cut off, if ``steepness`` is 2.
    """

    def rate(step):
        step, half = tf.cast(step, tf.float64), steps / 2  # as clr.py counts
        step = tf.minimum(step * (0.25 / rise), tf.maximum(step, half))
        return tf.minimum(cyclical_learning_rate(
            step, base_lr, max(base_lr, steepness * max_lr), max(1.0, half)), max_lr)

    return rate


def add_options(parser):
    """Add the options of the pyramid head."""
    material = parser.add_argument_group("images")
    material.add_argument("--wider-dir", default="wider", help="WIDER FACE as distributed; \"\" "
                          "does without")
    material.add_argument("--also", nargs=2, action="append", default=[],
                          metavar=("IMAGES", "BOXES"),
                          help="more images: their folder, and their boxes in WIDER FACE's format, "
                               "Pascal VOC's, YOLO's or COCO's")
    material.add_argument("--celeba-dir", help="CelebA as distributed: its training images")
    material.add_argument("--crops", nargs=5, action="append", default=[],
                          metavar=("DIR", "LEFT", "TOP", "RIGHT", "BOTTOM"),
                          help="a folder of crops of faces, and where in them the face is, as "
                               "shares of the sides")
    material.add_argument("--negatives", nargs="+", default=[], metavar="DIR",
                          help="folders of images without a face; a part of them is for validation")
    material.add_argument("--validation", nargs=2, metavar=("IMAGES", "BOXES"),
                          help="images to validate on (default: WIDER FACE's validation part)")
    parser.add_argument("--preview", type=image_name, metavar="FILE",
                        help="only draw the first scenes of the first size, and their boxes: faces "
                             "green, ignored red")
    default = trainer.Settings()
    parser.add_argument("--sizes", type=number_type(int, 64, 1024), nargs="+", metavar="SIZE",
                        default=default.sizes,
                        help="height and width of the scenes, multiples of 32; of several, each "
                             "batch has one, drawn at random, and as many scenes as have the "
                             "pixels of --batch-size of the smallest")
    parser.add_argument("--rise", type=number_type(float, 0.001, 0.25), default=0.25,
                        help="share of the steps in which the learning rate rises to --max-lr")
    parser.add_argument("--init-from", metavar="FILE",
                        help="begin with the weights of this detector, which may have fewer "
                             "channels and a smaller width (default: random weights)")
    parser.add_argument("--restart", action="store_true", help="do not resume: begin again")
    for name, convert, text in (
            ("run_dir", str, "folder for checkpoints, history and events"),
            ("model", str, "the file to write: an .npz, or a frozen graph (.pb)"),
            ("width", number_type(float, 0.02, 2), "share of every layer's filters"),
            ("channels", number_type(int, 4, 512), "channels of the head"),
            ("steps", number_type(int, 1), "updates"),
            ("batch_size", number_type(int, 1, 1024), "scenes per update"),
            ("base_lr", number_type(float, 0), "the learning rate that the training starts and "
                                               "ends with"),
            ("max_lr", number_type(float, 0), "the learning rate in between"),
            ("average_decay", number_type(float, 0, 0.99999),
             "of the weights' moving averages, which are validated and kept"),
            ("image_size", number_type(int, 64, 2048),
             "longer side of validation images, a multiple of 32; the detector keeps it"),
            ("seed", number_type(int, 0, 2 ** 31 - 1), "of the weights and the scenes"),
            ("checkpoint_minutes", number_type(float, 0), "time between checkpoints"),
            ("validate_minutes", number_type(float, 0), "time between validations"),
            ("workers", number_type(int, 0, 64), "processes that make scenes"),
            ("threads", number_type(int, 0, 1024), "of the session; 0 is all cores, 1 gives the "
                                                   "same bits in every run")):
        parser.add_argument("--" + name.replace("_", "-"), type=convert, help=text,
                            default=getattr(default, name))
    parser.add_argument("--precision", choices=PRECISIONS, default=default.precision,
                        help="bfloat16 is faster on processors that have it")


def gather_images(args, parser):
    """The material and the validation images that the command line names."""
    try:
        crops = [(folder, tuple(number_type(float, 0, 1)(text) for text in box))
                 for folder, *box in args["crops"]]
    except (ValueError, argparse.ArgumentTypeError) as error:
        parser.error("--crops: {}".format(error))
    if any(not (box[0] < box[2] and box[1] < box[3]) for _, box in crops):
        parser.error("--crops: a box is LEFT TOP RIGHT BOTTOM, each of 0 to 1")
    return gather(args["wider_dir"] or None, args["also"], args["celeba_dir"], crops,
                  args["negatives"], args["validation"])


def preview(path, settings, material):
    """Draw the first scenes with their boxes into a file."""
    check_drawing(path)
    size = settings.sizes[0]
    batches = SceneBatches(material, settings.batch_size, size, settings.seed)
    scenes = [draw_boxes(*batches.scene(index, [])) for index in range(24)]
    save_image(path, contact_sheet(
        np.stack(scenes), title="Training scenes as the network sees them", tile=size))
    print("wrote {}".format(path))


def train_pyramid(args, parser):
    settings = trainer.Settings(**{
        each.name: args[each.name] for each in dataclasses.fields(trainer.Settings)})
    settings = dataclasses.replace(settings, sizes=tuple(settings.sizes))
    if any(each % 32 for each in (*settings.sizes, settings.image_size)):
        parser.error("--sizes and --image-size are multiples of 32")
    material, validation = gather_images(args, parser)
    print("{}; validation: {:,} images, {:,} negatives".format(
        material.describe(), len(validation.photographs), len(validation.negatives)), flush=True)
    if args["preview"]:
        preview(args["preview"], settings, material)
        return
    rows = trainer.train(settings, material, validation, learning_rate(
        settings.base_lr, settings.max_lr, settings.steps, STEEPNESS, args["rise"]))
    report_best(rows, settings.model)


def train_yolov2(args, parser):
    options, photographs = yolov2.read_options(args, parser)
    rows = yolov2.train(options, photographs, learning_rate(
        WARM_UP * options.max_lr, options.max_lr, options.steps))
    report_best(rows, options.model)


def report_best(rows, model):
    if rows:
        best = max(rows, key=lambda row: row["ap50"])
        print("best: step {:,.0f}, AP50 {:.3f}; the detector is {}".format(
            best["step"], best["ap50"], model))


@cli
@explain_memory_errors("use a smaller --batch-size, or smaller images")
def main():
    head = argparse.ArgumentParser(add_help=False)
    head.add_argument("--head", choices=HEADS, default=HEADS[0],
                      help="each has options of its own: --head yolov2 --help")
    chosen = head.parse_known_args()[0].head
    parser = argparse.ArgumentParser(
        description="Train a face detector: a narrow Darknet-19 with a head at three strides, or "
                    "YOLOv2's head on the classifier's weights.",
        parents=[head], formatter_class=HelpFormatter)
    (add_options if chosen == "pyramid" else yolov2.add_options)(parser)
    args = vars(parser.parse_args())
    (train_pyramid if chosen == "pyramid" else train_yolov2)(args, parser)


if __name__ == "__main__":
    main()
