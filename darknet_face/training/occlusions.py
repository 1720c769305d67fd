"""What the augmentation draws over faces: cloth, hair, glasses, hands and objects.

Faces of which a part is hidden are rare in the aligned datasets and common in everyday images.
Non-faces get the same shapes anywhere, so that a shape alone does not tell the class.
"""

from __future__ import annotations

import typing

import cv2
import numpy as np

# Where things sit on an aligned face (see ALIGNED_FACE_BOX in augment.py), as shares of the image.
# Outlines are counter-clockwise. A mask sits from the bridge of the nose down the cheeks to the
# chin, a cap on the hair with its brim over the brows.
MASK = ((0.27, 0.57), (0.5, 0.545), (0.73, 0.57), (0.72, 0.74), (0.61, 0.86), (0.5, 0.89),
        (0.39, 0.86), (0.28, 0.74))
CAP = ((0.16, 0.39), (0.35, 0.42), (0.5, 0.43), (0.65, 0.42), (0.84, 0.39), (0.78, 0.2),
       (0.65, 0.08), (0.5, 0.04), (0.35, 0.08), (0.22, 0.2))
STRAPS = (0, 2, 3, 7)  # the corners of a mask that are tied to the ears
EYES = ((0.388, 0.51), (0.607, 0.51))
CHEEKS = (0.3, 0.56, 0.7, 0.7)  # left, top, right, bottom: mostly skin
HAIR = (0.35, 0.06, 0.65, 0.2)

# By the kind of the augmentation: share of the aligned faces that wear each thing; of those with a
# mask; and of the non-faces.
Shares = typing.Mapping[str, typing.Tuple[float, float, float]]
SHARES: dict[str, Shares] = {
    "all": {"mask": (0.2, 1.0, 0.12), "cap": (0.15, 0.15, 0.09)},
    "hard": {
        "mask": (0.22, 1.0, 0.13),
        "hood": (0.05, 0.15, 0.03),
        "fringe": (0.08, 0.25, 0.05),
        "glasses": (0.12, 0.3, 0.08),
        "cap": (0.13, 0.3, 0.08),
        "thing": (0.15, 0.1, 0.12)}}


def cover(square: np.ndarray, is_face: bool, rng: typing.Any,
          textures: typing.Sequence[np.ndarray] = (), shares: Shares = SHARES["all"]
          ) -> np.ndarray:
    """Hide a part of an image, or not.

    Parameters
    ----------
    square
        uint8, [size, size, 3].
    is_face
        True for an aligned face, which wears things where people do; on another image they lie
        anywhere.
    rng
    textures
        What objects are made of: images without a face, uint8, [size, size, 3].
    shares
        How often: see :data:`SHARES`.

    Returns
    -------
    numpy.ndarray
        uint8, [size, size, 3]; ``square`` itself for many images.
    """
    masked = rng.rand() < shares["mask"][0 if is_face else 2]
    column = (1 if masked else 0) if is_face else 2
    worn = square
    for name, draw in _DRAWN.items():
        if name not in shares:
            continue
        if masked if name == "mask" else rng.rand() < shares[name][column]:
            worn = draw(worn, square, _Place(is_face, rng), rng, textures)
    return worn


def lay_over(cutout: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Blend an RGB-and-opacity image [size, size, 4] over a background [size, size, 3]."""
    opacity = cutout[..., 3:].astype(np.uint16)
    if opacity.min() == 255:
        return cutout[..., :3]
    mixed = cutout[..., :3] * opacity + background * (255 - opacity)
    return ((mixed + 127) // 255).astype(np.uint8)


class _Place:
    """Moves outlines: a little on a face, anywhere on another image."""

    def __init__(self, is_face, rng):
        self.jitter = rng.uniform(-0.02, 0.02, 2)
        self.scale = rng.uniform(0.9, 1.08) if is_face else rng.uniform(0.4, 1.6)
        self.target = None if is_face else rng.uniform(0.2, 0.8, 2)

    def __call__(self, points):
        """Shares of the image, [n, 2], float32."""
        points = np.asarray(points, np.float32)
        middle = points.mean(0)
        around = middle + self.jitter if self.target is None else self.target
        return ((points - middle) * self.scale + around).astype(np.float32)


def _draw_mask(worn, _, place, rng, __):
    points = place(_wobbly(MASK, rng))
    return _draw_cloth(worn, points, STRAPS if rng.rand() < 0.6 else (), rng)


def _draw_cap(worn, _, place, rng, __):
    return _draw_cloth(worn, place(_wobbly(CAP, rng)), (), rng)


def _draw_hood(worn, _, place, rng, __):
    """Cloth around the face: a hood, a scarf, a habit."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radii = rng.uniform(0.22, 0.29), rng.uniform(0.25, 0.36)
    opening = np.stack([0.5 + radii[0] * np.cos(angles), 0.62 + radii[1] * np.sin(angles)], 1)
    return _draw_cloth(worn, place(opening), (), rng, outside=rng.uniform(0.1, 0.35))


def _draw_fringe(worn, square, place, rng, _):
    """Hair down to the brows or over the eyes, in strands."""
    strands = rng.randint(5, 14)
    tips = [(x, rng.uniform(0.36, 0.54)) for x in np.linspace(0.78, 0.22, strands)]
    outline = [(0.2, 0.3), *[point for tip in reversed(tips)
                             for point in (tip, (tip[0] + 0.02, tip[1] - rng.uniform(0, 0.12)))],
               (0.8, 0.3), (0.65, 0.12), (0.5, 0.08), (0.35, 0.12)]
    colour = _mean_colour(square, HAIR) if rng.rand() < 0.7 else rng.uniform(0, 130) * np.ones(3)
    size = square.shape[0]
    hair = colour * (1 + 0.25 * cv2.GaussianBlur(
        rng.randn(1, size).astype(np.float32), (0, 0), max(0.5, size / 200.0)))[..., np.newaxis]
    return _paste(worn, np.broadcast_to(hair, square.shape), _filled(size, place(outline)))


def _draw_glasses(worn, _, place, rng, __):
    """Spectacles, sunglasses, or goggles over both eyes; their glass is dark, tinted or clear."""
    size = worn.shape[0]
    colour = _cloth_colour(rng) if rng.rand() < 0.4 else rng.uniform(0, 60) * np.ones(3)
    lenses = _goggles(rng) if rng.rand() < 0.3 else _two_lenses(rng)
    placed = place(lenses.reshape(-1, 2)).reshape(lenses.shape)
    width = max(1, int(size * rng.uniform(0.006, 0.02)))
    frame = np.max([_outline(size, lens, width) for lens in placed], 0)
    if len(placed) == 2:
        height = placed.mean((0, 1))[1]
        bridge = (placed[0].max(0)[0], height), (placed[1].min(0)[0], height)
        frame = np.maximum(frame, _line(size, np.array(bridge), width / size))
    opacity = rng.uniform(0.75, 1.0) if rng.rand() < 0.6 else rng.uniform(0.0, 0.5)
    y = np.linspace(-1, 1, size, dtype=np.float32)[:, np.newaxis, np.newaxis]
    glass = np.broadcast_to(colour * (1 + rng.uniform(-0.5, 0.5) * y), worn.shape)
    inside = np.max([_filled(size, lens) for lens in placed], 0)
    worn = _paste(worn, glass, inside * np.float32(opacity))
    return _paste(worn, np.broadcast_to(colour * 0.7, worn.shape), frame)


def _two_lenses(rng):
    """The outlines of two lenses, float32, [2, points, 2]."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    around = np.stack([rng.uniform(0.07, 0.11) * np.cos(angles),
                       rng.uniform(0.045, 0.08) * np.sin(angles)], 1)
    return np.array([around + eye for eye in EYES], np.float32)


def _goggles(rng):
    """One outline over both eyes, float32, [1, points, 2]."""
    height, middle = rng.uniform(0.06, 0.13), EYES[0][1]
    corners = ((0.26, -0.7), (0.26, 0.7), (0.4, 1), (0.6, 1), (0.74, 0.7), (0.74, -0.7), (0.6, -1),
               (0.4, -1))
    return np.array([[(x, middle + height * side) for x, side in corners]], np.float32)


def _draw_thing(worn, square, place, rng, textures):
    """A hand, an object or a stick before the lower, the upper or one half of the face."""
    middle = np.array([(0.5, 0.76), (0.5, 0.48), (0.33, 0.6), (0.67, 0.6)][
        rng.choice(4, p=(0.45, 0.25, 0.15, 0.15))]) + rng.uniform(-0.06, 0.06, 2)
    size, kind = worn.shape[0], rng.rand()
    if kind < 0.35:
        colour = _mean_colour(square, CHEEKS) * rng.uniform(0.7, 1.15)
        shape = _fingers(size, place, middle, rng)
    elif kind < 0.6:
        colour = _cloth_colour(rng)
        shape = _stick(size, place, middle, rng)
    else:
        angles = np.linspace(0, 2 * np.pi, 9, endpoint=False)
        radii = rng.uniform(0.08, 0.22, (9, 1))
        blob = middle + radii * np.stack([np.cos(angles), np.sin(angles)], 1)
        shape = _filled(size, place(blob))
        colour = _cloth_colour(rng)
        if len(textures):
            return _paste(worn, textures[rng.randint(len(textures))], shape)
    shade = 1 + 1.6 * cv2.GaussianBlur(
        rng.randn(size, size).astype(np.float32), (0, 0), size / 20.0)[..., np.newaxis]
    return _paste(worn, colour * shade, shape)


def _fingers(size, place, middle, rng):
    """Two to four fingers side by side, reaching in from one side: opacity [size, size]."""
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    thick = rng.uniform(0.045, 0.07)
    count, reach = rng.randint(2, 5), rng.uniform(0.15, 0.3)
    starts = [middle + across * thick * (number - count / 2.0) for number in range(count)]
    ends = place([end for start in starts for end in (
        start - along * rng.uniform(0.6, 1.0) * reach, start + along * 0.6)])
    return np.max([_line(size, pair, thick * place.scale * 0.95)
                   for pair in ends.reshape(count, 2, 2)], 0)


def _stick(size, place, middle, rng):
    """A microphone, a racket's grip, a pole: opacity [size, size]."""
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    ends = place([middle, middle + along * rng.uniform(0.3, 0.8)])
    shape = _line(size, ends, rng.uniform(0.02, 0.08) * place.scale)
    head = rng.uniform(0.0, 0.12) * place.scale
    cv2.circle(shape, tuple(int(each) for each in ends[0] * size), int(head * size), 1.0, -1)
    return shape


def _outline(size, outline, width):
    """A closed line of so many pixels: opacity, float32, [size, size]."""
    drawn: typing.Any = np.zeros((size, size), np.float32)
    cv2.polylines(drawn, [(outline * size).astype(np.int32)], True, [1.0], width, cv2.LINE_AA)
    return drawn


def _line(size, ends, thickness):
    """A line, its ends and thickness in shares: opacity, float32, [size, size]."""
    drawn: typing.Any = np.zeros((size, size), np.float32)
    start, end = ([int(each) for each in point * size] for point in ends)
    cv2.line(drawn, start, end, [1.0], max(1, int(thickness * size)), cv2.LINE_AA)
    return drawn


def _wobbly(outline, rng):
    return np.array(outline, np.float32) + rng.uniform(-0.02, 0.02, (len(outline), 2))


def _filled(size, outline):
    """The inside of an outline (shares, [n, 2]): opacity 0..1, float32, [size, size]."""
    shape = np.zeros((size, size), np.uint8)
    cv2.fillPoly(shape, [(outline * size * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(shape, (0, 0), size / 200.0).astype(np.float32) / 255


def _paste(worn, colours, opacity):
    """Lay colours, 0..255, over an image with an opacity 0..1, [size, size]."""
    colours = np.clip(colours, 0, 255).astype(np.uint8)
    return lay_over(np.dstack([colours, (opacity * 255).astype(np.uint8)]), worn)


def _draw_cloth(square, outline, straps, rng, outside=0.0):
    """Lay cloth of some colour, with folds, over the inside of an outline (shares, [n, 2]).

    With ``outside``, over a ring of this width around it instead.
    """
    size = square.shape[0]
    y = np.arange(size, dtype=np.float32)[:, np.newaxis, np.newaxis] / size
    folds = 1 + rng.uniform(0, 0.15) * np.sin(y * rng.uniform(60, 150))
    shade = folds * (1 + rng.uniform(-0.5, 0.3) * (y - 0.7))
    # The light on the face falls on the cloth as well.
    light = cv2.GaussianBlur(square, (0, 0), size / 16).astype(np.float32).mean(2, keepdims=True)
    light = light / max(1.0, light.max())
    cloth = _cloth(size, rng) * shade * (0.4 + 0.6 * light)
    worn = square.copy()
    for inner in outline[list(straps)]:
        outer = inner + (np.sign(inner[0] - outline[1, 0]) * rng.uniform(0.03, 0.1),
                         rng.uniform(-0.08, 0.0))
        ends: typing.Any = [
            tuple(int(each) for each in point * size) for point in (inner, outer)]
        colour = tuple(int(min(255, each)) for each in cloth[size // 2, size // 2])
        cv2.line(worn, ends[0], ends[1], colour, max(1, size // 80), cv2.LINE_AA)
    opacity = _filled(size, outline)
    if outside:
        middle = outline.mean(0)
        opacity = _filled(size, middle + (outline - middle) * (1 + 3 * outside)) * (1 - opacity)
    return _paste(worn, cloth, opacity)


def _cloth(size, rng):
    """Plain, striped, checked or printed cloth: float32, [size, size, 3]."""
    plain = np.broadcast_to(_cloth_colour(rng), (size, size, 3)).astype(np.float32)
    kind = rng.rand()
    if kind < 0.65:
        return plain
    other = _cloth_colour(rng)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    if kind < 0.82:  # stripes, or both ways checks
        waves = [np.sin(axis * rng.uniform(40, 160)) for axis in (x, y)]
        pattern = np.maximum(*waves) if rng.rand() < 0.5 else waves[rng.randint(2)]
    else:
        dots = rng.randn(*[rng.randint(8, 40)] * 2).astype(np.float32)
        pattern = cv2.resize(dots, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.where(pattern[..., np.newaxis] > rng.uniform(0, 0.8), other, plain)


def _cloth_colour(rng):
    """White, the blue of surgical masks, black, or any colour: float32, [3]."""
    kind = rng.rand()
    if kind < 0.25:
        return np.float32(rng.uniform(200, 255) + rng.uniform(-8, 8, 3))
    if kind < 0.45:
        return np.float32([140, 190, 220] + rng.uniform(-35, 35, 3))
    if kind < 0.7:
        return np.float32(rng.uniform(5, 60) + rng.uniform(-5, 8, 3))
    return np.float32(rng.uniform(0, 255, 3))


def _mean_colour(square, box):
    """The mean colour of a box (shares: left, top, right, bottom): float64, [3]."""
    left, top, right, bottom = (int(each * square.shape[0]) for each in box)
    return square[top:bottom, left:right].reshape(-1, 3).mean(0)


# In the order in which they lie over each other.
_DRAWN = {"mask": _draw_mask, "glasses": _draw_glasses, "fringe": _draw_fringe,
          "hood": _draw_hood, "cap": _draw_cap, "thing": _draw_thing}
