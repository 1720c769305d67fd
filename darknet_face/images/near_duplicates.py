"""Near duplicates, such as two sizes of a photograph or neighbouring frames, by perceptual hash."""

from __future__ import annotations

import numpy as np
from PIL import Image

HASH_SIDE = 16  # bits along each side of the perceptual hash: 256 in all

# Two images are near duplicates if at most this many of the 256 bits differ. Re-encoding at
# JPEG quality 30 or halving an image flips at most 10. This was tuned on 6,541 negatives: all
# pairs up to 22 bits apart show the same image, a few of them in another colour. From 24 bits on
# there are pairs of similar things, such as motorbikes of one make.
NEAR_BITS = 22

_BLOCK = 512  # hashes compared at a time: 512 x 50,000 float32 distances take 100 MB


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """The DCT hash of an image ("pHash": the signs of its lowest frequencies about the median).

    Parameters
    ----------
    image
        uint8, [height, width, 3], RGB.

    Returns
    -------
    numpy.ndarray
        bool, [256]. From the ImageHash library's ``phash``, after Zauner, "Implementation and
        Benchmarking of Perceptual Image Hash Functions", 2010.
    """
    import imagehash  # imports SciPy

    return imagehash.phash(Image.fromarray(image), hash_size=HASH_SIDE).hash.ravel()


def near_duplicate_groups(hashes: np.ndarray) -> np.ndarray:
    """Group near duplicates: images that are linked directly or through others.

    Parameters
    ----------
    hashes
        bool, [images, bits].

    Returns
    -------
    numpy.ndarray
        int, [images]: the number of each image's group.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count, bits = hashes.shape
    signs = hashes.astype(np.float32) * 2 - 1
    rows, columns = [], []
    for start in range(0, count, _BLOCK):
        # The product of two vectors of +-1 is the number of equal bits minus the unequal ones.
        agreement = signs[start:start + _BLOCK] @ signs.T
        row, column = np.nonzero(agreement >= bits - 2 * NEAR_BITS)
        rows.append(row + start)
        columns.append(column)
    links = coo_matrix((np.ones(sum(map(len, rows)), bool),
                        (np.concatenate(rows), np.concatenate(columns))), shape=(count, count))
    return connected_components(links, directed=False)[1]
