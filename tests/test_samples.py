"""The embedded data set and the photographs."""

import os

import numpy as np
from skimage.data import lfw_subset

from darknet_face.images.decode import read_image
from darknet_face.images.file_lists import LISTS, load_list, resolve
from darknet_face.images.samples import sample_images


def test_the_sample_is_the_200_real_pictures(sample_dir):
    counts = {"train": 70, "val": 10, "test": 20}
    originals = (lfw_subset() * 255).round().astype(np.uint8)
    found = []
    for class_index in (0, 1):
        for split in ("train", "val", "test"):
            names = load_list(os.path.join(sample_dir, LISTS[split][class_index]))
            assert len(names) == counts[split]
            found += [read_image(resolve(name, sample_dir)) for name in names]
    assert len(found) == 200
    for picture, original in zip(found, originals):
        assert picture.shape == (25, 25, 3)
        assert np.abs(picture.astype(int) - original[..., np.newaxis]).max() <= 1


def test_the_photographs_are_there():
    assert all(min(read_image(path).shape[:2]) >= 128 for path in sample_images())
