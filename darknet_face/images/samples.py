"""Images in the scikit-image package: a small dataset, and some of people and other things.

They need no download, so that tests, the demo and benchmarks run anywhere.
"""

from __future__ import annotations

import collections
import importlib.util
import itertools
import os

from darknet_face.images.contact_sheets import save_image
from darknet_face.images.file_lists import save_lists

# How many images of each class the embedded dataset gives to each split.
SAMPLE_COUNTS = collections.OrderedDict([("train", 70), ("val", 10), ("test", 20)])

SAMPLE_IMAGES = (
    "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png",
    "clock_motion.png", "coins.png", "horse.png", "hubble_deep_field.jpg", "moon.png", "grass.png",
)  # fmt: skip


def build_sample(sample_dir: str) -> None:
    """Write the embedded dataset: 100 faces and 100 non-faces, with their lists.

    They are grey images of 25 x 25 pixels from Labelled Faces in the Wild
    (``skimage.data.lfw_subset``): the first 100 show faces, the last 100 do not.

    Parameters
    ----------
    sample_dir
        Where the PNGs and the six lists go.
    """
    from skimage.data import lfw_subset
    from skimage.util import img_as_ubyte

    images = img_as_ubyte(lfw_subset())
    halves = (("faces", images[:100]), ("non_faces", images[100:]))
    for class_index, (class_name, half) in enumerate(halves):
        numbers = iter(range(len(half)))
        kept: dict[str, list[str]] = {}
        for split, count in SAMPLE_COUNTS.items():
            kept[split] = []
            for number in itertools.islice(numbers, count):
                path = os.path.join(sample_dir, class_name, "{:03d}.png".format(number))
                save_image(path, half[number])
                kept[split].append(path)
        save_lists(kept, sample_dir, class_index)


def sample_images() -> list[str]:
    """The paths of :data:`SAMPLE_IMAGES`."""
    spec = importlib.util.find_spec("skimage")
    if not spec or not spec.origin:
        raise ModuleNotFoundError(name="skimage")
    folder = os.path.join(os.path.dirname(spec.origin), "data")
    return [os.path.join(folder, name) for name in SAMPLE_IMAGES]
