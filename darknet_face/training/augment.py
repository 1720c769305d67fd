"""Augmentation of training batches, the same for faces and non-faces.

Two shortcuts would let a network score well here and fail elsewhere: aligned faces all have one
position and one size, and they come from one camera pipeline, smaller and softer than the
non-faces. So every image, of either class, is at random moved, scaled, put on the background of
another image, shrunk and enlarged, blurred or sharpened, recoloured, made noisy and recompressed.
"""

from __future__ import annotations

import importlib
import typing

import cv2
import numpy as np

from darknet_face.classes import FACE, NON_FACE
from darknet_face.images.resize import resize
from darknet_face.training.light import LAMPS, light
from darknet_face.training.occlusions import SHARES, cover, lay_over

# NumPy 2 has dropped the first, which imgaug 0.4.0 reads when it is imported.
if not hasattr(np, "sctypes"):
    setattr(np, "sctypes", {  # noqa: B010 (mypy)
        "float": [np.float16, np.float32, np.float64, np.longdouble],
        "int": [np.int8, np.int16, np.int32, np.int64],
        "uint": [np.uint8, np.uint16, np.uint32, np.uint64]})
if not hasattr(np, "bool"):  # gone from NumPy 1.24 to 1.26
    setattr(np, "bool", np.bool_)  # noqa: B010 (mypy)


class _Imgaug:
    """``imgaug.augmenters``, imported when the first of its names is asked for: takes a second."""

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(importlib.import_module("imgaug.augmenters"), name)


iaa: typing.Any = _Imgaug()

# What an Augmenter can do. "hard" is for a network that knows faces: it hides more of them, turns
# them until they lie, cuts them off and lights them hard. The parts are for ablations.
KINDS = ("all", "hard", "framing", "distortion", "none")

# Where an aligned CelebA image shows the face with its hair line and chin, as shares of the
# image: left, top, right, bottom. Covering this box hides the face.
ALIGNED_FACE_BOX = (0.2, 0.22, 0.8, 0.95)
# Turned up to lying on one side.
LYING = {"rotate": (-95, 95), "mode": "constant", "cval": 0}


class Augmenter:
    """Augments whole batches; the outcome depends on the images and the seed alone.

    Parameters
    ----------
    image_size
        Height and width of the result.
    kind
        One of KINDS: ``framing`` moves, scales and replaces backgrounds, ``distortion`` does the
        rest except for the light, ``none`` only resizes.
    hidden_face_share
        Share of the non-faces that are laid over the face of one of the batch's portraits: hair,
        shoulders and the portraits' backgrounds must not be clues for FACE by themselves. A part of
        framing.
    """

    def __init__(self, image_size: int, kind: str = "all", hidden_face_share: float = 0.08) -> None:
        self.image_size = image_size
        self.kind = kind
        self.hidden_face_share = hidden_face_share
        self._frame = _framing(kind == "hard")
        self._nudge = _mild_framing(kind == "hard")
        self._distort = _distortion(image_size)

    def __reduce__(self) -> typing.Any:
        # Built again in a worker process: imgaug keeps its hue tables on the class, unpickled.
        return type(self), (self.image_size, self.kind, self.hidden_face_share)

    def __call__(self, images: list[np.ndarray], labels: typing.Any, seed: int,
                 aligned: typing.Sequence[bool] | None = None) -> np.ndarray:
        """Augment a batch.

        Parameters
        ----------
        images
            uint8, [any height, any width, 3], RGB.
        labels
            0 for FACE, 1 for NON_FACE. Backgrounds are taken from the batch's non-faces.
        seed
            0 .. 2^31 - 1.
        aligned
            Whether a face sits where :data:`ALIGNED_FACE_BOX` says; all do if absent. Other
            faces are framed at random already, and are moved and scaled only a little.

        Returns
        -------
        numpy.ndarray
            uint8, [batch, image_size, image_size, 3].
        """
        size = self.image_size
        if self.kind == "none":
            return np.stack([resize(image, size, size) for image in images])
        rng = np.random.RandomState(seed)
        batch = [_stretch(image, size, rng) for image in images]
        if self.kind != "distortion":
            self._frame.seed_(seed)
            self._nudge.seed_(seed + 2)
            aligned = [True] * len(images) if aligned is None else aligned
            textures = [square for square, label in zip(batch, labels) if label == NON_FACE]
            shares = SHARES["hard" if self.kind == "hard" else "all"]
            batch = [cover(square, label == FACE, rng, textures, shares)
                     if label == NON_FACE or known else square
                     for square, label, known in zip(batch, labels, aligned)]
            batch = self._reframe(batch, labels, aligned, rng)
        if self.kind != "framing":
            self._distort.seed_(seed + 1)
            batch = self._distort(images=batch)
        if self.kind in LAMPS:
            batch = [light(square, rng, self.kind) for square in batch]
        return np.stack(batch)

    def _reframe(self, squares, labels, aligned, rng):
        """Move and scale images over backgrounds; hide some portraits' faces behind non-faces."""
        backdrops = [square for square, label in zip(squares, labels) if label == NON_FACE]
        portraits = [square for square, label, known in zip(squares, labels, aligned)
                     if label == FACE and known]
        batch = []
        for label, framed in zip(labels, self._move(squares, labels, aligned, rng)):
            if label == NON_FACE and portraits and rng.rand() < self.hidden_face_share:
                batch.append(_hide_face(_pick(portraits, rng), framed[..., :3], rng))
            else:
                batch.append(lay_over(framed, _background(backdrops, self.image_size, rng)))
        return batch

    def _move(self, squares, labels, aligned, rng):
        """Images with their opacity, moved and scaled: uint8, [batch, size, size, 4]."""
        size = self.image_size
        strong = np.array(
            [bool(known) or label == NON_FACE for label, known in zip(labels, aligned)])
        opaque = np.full((size, size, 1), 255, np.uint8)
        # An oval or a box would cut into a face that is not where an aligned one is.
        cutouts = np.stack([np.dstack([square, _mask(size, rng) if moves else opaque])
                            for square, moves in zip(squares, strong)])
        framed = np.empty_like(cutouts)
        for chosen, frame in ((strong, self._frame), (~strong, self._nudge)):
            if chosen.any():
                framed[chosen] = frame(images=cutouts[chosen])
        return framed


def _stretch(image, size, rng):
    """Stretch to a square; random interpolation, since its traces must not tell datasets apart."""
    shrinks = min(image.shape[:2]) >= size
    choices = (cv2.INTER_AREA, cv2.INTER_LINEAR) if shrinks else (cv2.INTER_LINEAR, cv2.INTER_CUBIC)
    return cv2.resize(image, (size, size), interpolation=choices[rng.randint(2)])


def _mask(size, rng):
    """Opacity of an image, uint8 [size, size, 1]: all of it, or an oval or box with soft edges."""
    kind = rng.rand()
    if kind < 0.6:
        return np.full((size, size, 1), 255, np.uint8)
    mask = np.zeros((size, size), np.uint8)
    half_width, half_height = (size * rng.uniform(0.32, 0.48, 2)).astype(int)
    center = size // 2, int(size * rng.uniform(0.5, 0.56))
    if kind < 0.85:
        cv2.ellipse(mask, center, (half_width, half_height), 0, 0, 360, 255, -1)
    else:
        corner = center[0] - half_width, center[1] - half_height
        opposite = center[0] + half_width, center[1] + half_height
        cv2.rectangle(mask, corner, opposite, 255, -1)
    softness = size * rng.uniform(0.003, 0.05)
    return cv2.GaussianBlur(mask, (0, 0), softness)[..., np.newaxis]


def _framing(hard):
    """imgaug's part of the geometry, on RGB and opacity together: flips, scales, shifts, turns."""
    turn = dict(rotate=(-25, 25), shear=(-8, 8), mode="constant", cval=0)
    aspect = (0.82, 1.22)
    # The middle of an aligned face lies below the middle of its image, hence mostly upwards: so
    # at scale 2 the inner face alone remains, as in tightly framed datasets.
    zoom_in = iaa.Sequential([
        iaa.Affine(scale=(1.0, 2.1), translate_percent={"x": (-0.1, 0.1), "y": (-0.24, 0.04)},
                   **turn),
        _sometimes(0.5, iaa.Affine(scale={"x": aspect}, mode="constant", cval=0))])
    zoom_out = iaa.Sequential([
        iaa.Affine(scale=(0.4, 1.0), translate_percent=(-0.2, 0.2), **turn),
        _sometimes(0.5, iaa.Affine(scale={"x": aspect}, mode="constant", cval=0))])
    nudge = iaa.Affine(scale=(0.9, 1.1), translate_percent=(-0.05, 0.05), mode="edge")
    choices = [zoom_in, zoom_out, nudge]
    if hard:
        # A face of which the frame cuts off up to a third on each axis.
        cut = iaa.Affine(scale=(1.6, 2.4), **turn,
                         translate_percent={"x": (-0.32, 0.32), "y": (-0.5, 0.1)})
        turned = iaa.Affine(scale=(0.5, 1.3), translate_percent=(-0.12, 0.12), **LYING)
        # Those that come twice are twice as frequent.
        choices = [zoom_in, zoom_in, zoom_out, zoom_out, nudge, cut, turned]
    return iaa.Sequential([iaa.Fliplr(0.5), iaa.OneOf(choices)])


def _mild_framing(hard):
    """The geometry for faces that are framed at random already: none of them may be cut off."""
    slight = iaa.Affine(scale={"x": (0.75, 1.08), "y": (0.75, 1.08)},
                        translate_percent=(-0.04, 0.04), rotate=(-20, 20), shear=(-6, 6),
                        mode="constant", cval=0)
    if not hard:
        return iaa.Sequential([iaa.Fliplr(0.5), _sometimes(0.7, slight)])
    turned = iaa.Affine(scale=(0.7, 1.0), **LYING)
    return iaa.Sequential([
        iaa.Fliplr(0.5), _sometimes(0.8, iaa.OneOf([slight] * 5 + [turned]))])


def _distortion(size):
    """What cameras, editors and networks do to an image, in the order in which they do it."""
    # Down to 24 pixels, and strong and weak shrinking equally often: no degree of softness may be a
    # clue for FACE.
    shrink = iaa.KeepSizeByResize(
        [iaa.OneOf([iaa.Resize(share, interpolation=["area", "linear", "nearest"])
                    for share in ((24.0 / size, 64.0 / size), (0.3, 0.8))])],
        interpolation=["linear", "cubic", "linear", "nearest"])
    return iaa.Sequential([
        _sometimes(0.05, iaa.CoarseDropout((0.02, 0.1), size_percent=(0.04, 0.12))),
        _sometimes(0.55, iaa.SomeOf((1, 2), [
            iaa.Multiply((0.4, 1.5)),
            iaa.Multiply((0.75, 1.3), per_channel=True),
            iaa.LinearContrast((0.4, 1.7)),
            iaa.GammaContrast((0.45, 2.2)),
            iaa.AddToHueAndSaturation((-30, 30)),
        ])),
        _sometimes(0.3, iaa.Grayscale((0.7, 1.0))),
        _sometimes(0.4, iaa.OneOf([
            iaa.GaussianBlur((0.3, size / 32.0)),
            iaa.GaussianBlur((size / 100.0, size / 32.0)),
            iaa.AverageBlur((2, max(3, size // 28))),
            iaa.MotionBlur(k=(3, max(5, size // 14))),
        ])),
        _sometimes(0.15, iaa.Sharpen(alpha=(0.2, 1.0), lightness=(0.9, 1.1))),
        _sometimes(0.5, shrink),
        _sometimes(0.2, iaa.AdditiveGaussianNoise(scale=(2, 22), per_channel=0.5)),
        _sometimes(0.25, iaa.JpegCompression((30, 85))),
    ])


def _sometimes(share, augmenter):
    """Apply an augmenter to a share of the images.

    In a list, as in every choice here: imgaug takes a bare one for the list of children itself, and
    then seed_() passes it by, so that a batch would depend on what came before it.
    """
    return iaa.Sometimes(share, [augmenter])


def _background(backdrops, size, rng):
    """An image to stand behind: one of the non-faces, a plain colour, or noise."""
    kind = rng.rand()
    if backdrops and kind < 0.75:
        picture = _pick(backdrops, rng)
        side = int(size * rng.uniform(0.4, 1.0))
        top, left = rng.randint(0, size - side + 1, 2)
        crop = cv2.resize(picture[top:top + side, left:left + side], (size, size))
        return crop[:, ::-1] if rng.rand() < 0.5 else crop
    plain = np.full((size, size, 3), rng.randint(0, 256, 3), np.uint8)
    if kind < 0.9:
        return plain
    coarse = rng.randint(2, 17)
    noise = rng.randint(0, 256, (coarse, coarse, 3)).astype(np.uint8)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)


def _hide_face(portrait, over, rng):
    """Lay a non-face over an aligned portrait so that nothing of the face is left."""
    size = portrait.shape[0]
    slack = rng.uniform(0, 0.15, 4)
    left, top, right, bottom = (
        int(size * min(1, max(0, edge + sign * extra)))
        for edge, sign, extra in zip(ALIGNED_FACE_BOX, (-1, -1, 1, 1), slack))
    hidden = portrait.copy()
    hidden[top:bottom, left:right] = cv2.resize(
        np.ascontiguousarray(over), (right - left, bottom - top))
    return hidden


def _pick(items, rng):
    return items[rng.randint(len(items))]
