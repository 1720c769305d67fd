"""What the engines work on: scikit-image's images, and the released weights, exported.

Nothing is fetched: JPEGs of unequal sizes are cut from the photographs in the scikit-image package.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
from environments import ROOT
from PIL import Image
from skimage.data import lfw_subset
from skimage.util import img_as_ubyte

from darknet19 import LAYERS
from darknet_face.console import UserError, progress
from darknet_face.images.decode import read_image
from darknet_face.images.reader import read_batches
from darknet_face.images.resize import resize
from darknet_face.images.samples import sample_images

RELEASED = os.path.join(ROOT, "saved_models", "darknet19_face.npz")


def prepare(folder, count, image_size, batch_size, exports=True):
    """Put all that the engines read into a folder.

    Parameters
    ----------
    folder : str
    count : int
        How many JPEGs to make.
    image_size, batch_size : int
        Of the images that are kept in memory.
    exports : bool
        Write the weights for ONNX Runtime and OpenCV too.
    """
    pictures = os.path.join(folder, "pictures")
    os.mkdir(pictures)
    paths = make_pictures(pictures, count)
    _, images, _ = next(read_batches(paths, batch_size, image_size))
    np.save(os.path.join(folder, "pictures.npy"), images)
    faces_first = [resize(np.dstack([grey] * 3), image_size, image_size)
                   for grey in img_as_ubyte(lfw_subset())]
    np.savez(os.path.join(folder, "labelled.npz"), pictures=np.stack(faces_first),
             labels=np.repeat([0, 1], len(faces_first) // 2))
    with open(os.path.join(folder, "layers.json"), "w") as stream:
        json.dump(LAYERS, stream)
    shutil.copy(RELEASED, os.path.join(folder, "weights.npz"))
    for options in (["onnx", "--int8"], ["darknet"]) if exports else ():
        _export(options, os.path.join(folder, "exports"), image_size)


def make_pictures(folder, count):
    """Cut JPEGs out of photographs, sized like what is found on disks and in the web.

    Longer sides are spread from 180 to 640 pixels; one image in twenty is 2000 wide, as cameras
    make them.

    Returns
    -------
    list of str
        Their paths.
    """
    sources = [read_image(path) for path in sample_images()]
    rng = np.random.RandomState(0)
    paths = []
    for number in progress(range(count), desc="making images", unit="image", leave=False):
        source = sources[rng.randint(len(sources))]
        height, width = (int(side * rng.uniform(0.5, 1)) for side in source.shape[:2])
        top, left = (rng.randint(whole - part + 1)
                     for whole, part in zip(source.shape, (height, width)))
        longer = 2000 if number % 20 == 0 else 180 * (640 / 180.0) ** rng.rand()
        scale = longer / max(height, width)
        crop = Image.fromarray(source[top:top + height, left:left + width]).resize(
            (max(1, int(width * scale)), max(1, int(height * scale))), Image.BILINEAR)
        paths.append(os.path.join(folder, "{:05d}.jpg".format(number)))
        crop.save(paths[-1], quality=int(rng.randint(70, 95)))
    return paths


def _export(options, folder, image_size):
    command = [sys.executable, os.path.join(ROOT, "export.py"), *options, "--weights", RELEASED,
               "--image-size", str(image_size), "--images", "8", "--out", folder]
    outcome = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, cwd=ROOT)
    if outcome.returncode:
        raise UserError("export.py {}: {}".format(options[0], outcome.stdout), exit_code=1)
