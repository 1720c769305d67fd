"""Training scenes: photographs at random scales, crops of faces on other images, or no face.

Worker processes make them (:class:`darknet_face.training.workers.BatchLoader`), so this imports no
TensorFlow. A batch depends on the seed and the step alone, whichever process makes it.

What must not be a clue is as frequent without faces: a rectangle pasted on a background, a soft
edge, a blurred or enlarged or grey part.
"""

from __future__ import annotations

import typing

import cv2
import numpy as np

from darknet_face.console import UserError
from darknet_face.detection.material import Material
from darknet_face.detection.targets import area, encode
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.resize import shrink
from darknet_face.training.occlusions import cover

cv2.setNumThreads(1)  # several processes make batches at a time

CACHE_BYTES = 3 << 30  # of decoded images, in each process
LONGEST = 640  # pixels: larger images are scaled down before they are kept
LEAST_SIDE = 8  # pixels of a scene: a smaller face is ignored
VISIBLE, GONE = 0.4, 0.02  # a face of which less is in the scene is ignored, or as good as absent
MOST_ENLARGED = 3.5
LEAST_FILLED = 0.6  # share of the scene's side that a photograph's longer side has at least
CLOTH = 0.2  # share of the aligned faces that wear a drawn mask or cap
KINDS = (("photograph", 0.54), ("paste", 0.20), ("close", 0.10), ("negative", 0.16))


class ImageCache:
    """Decoded images by their paths, up to :data:`CACHE_BYTES`; each process has its own."""

    def __init__(self) -> None:
        self._images: dict[str, np.ndarray] = {}
        self._bytes = 0

    def __reduce__(self):  # what it holds stays in its process
        return ImageCache, ()

    def read(self, path: str) -> np.ndarray:
        """An image, uint8, [height, width, 3], sides at most :data:`LONGEST`; raises _Bad."""
        image = self._images.get(path)
        if image is None:
            try:
                image = shrink(read_image(path, least_size=LONGEST), LONGEST)
            except BadImage as error:
                raise _Bad(path, str(error))
            if self._bytes + image.nbytes <= CACHE_BYTES:
                self._images[path] = image
                self._bytes += image.nbytes
        return image


class MixedBatches:
    """Batches of scenes of several sizes, one size a batch, drawn at random.

    A batch of larger scenes holds fewer of them, so that all batches have about as many pixels.

    Parameters
    ----------
    material
    batch_size
        Of the smallest scenes.
    sizes
        Of the scenes, multiples of 32.
    seed
    """

    def __init__(self, material: Material, batch_size: int, sizes: typing.Sequence[int],
                 seed: int = 0):
        cache, smallest = ImageCache(), min(sizes)
        self.seed = seed
        self._batches = [
            SceneBatches(material, max(1, round(batch_size * (smallest / size) ** 2)), size,
                         seed + number, cache)
            for number, size in enumerate(sizes)]

    def batch(self, step: int) -> tuple:
        """The batch of a step; see :meth:`SceneBatches.batch`."""
        choice = np.random.RandomState([self.seed, step]).randint(len(self._batches))
        return self._batches[choice].batch(step)


class SceneBatches:
    """Makes batches for the steps of a training.

    Parameters
    ----------
    material
    batch_size
    size
        Of the scenes, a multiple of 32.
    seed
    cache
        Shared with other batches of the same material.
    """

    def __init__(self, material: Material, batch_size: int, size: int, seed: int = 0,
                 cache: ImageCache | None = None):
        self.material = material
        self._cache = cache or ImageCache()
        self.batch_size = batch_size
        self.size = size
        self.seed = seed
        has_crops = bool(material.crops and material.negatives)
        available = {"photograph": bool(material.photographs), "paste": has_crops,
                     "close": has_crops, "negative": bool(material.negatives)}
        weights = np.array([weight * available[kind] for kind, weight in KINDS], np.float64)
        self._kind_edges = np.cumsum(weights) / weights.sum()
        shares = np.array([share for _, share in material.photographs] or [1], np.float64)
        self._photograph_edges = np.cumsum(shares) / shares.sum()

    def batch(self, step: int) -> tuple:
        """The batch of a step.

        Returns
        -------
        images : numpy.ndarray
            uint8, [batch, size, size, 3], RGB.
        targets : numpy.ndarray
            float32, [batch, cells, 5]: see :func:`darknet_face.detection.targets.encode`.
        bad : list of (str, str)
            Images that do not decode, each with the cause. Other scenes took their places.
        """
        images, targets = [], []
        bad: list[tuple[str, str]] = []
        for index in range(step * self.batch_size, (step + 1) * self.batch_size):
            image, faces, ignored = self.scene(index, bad)
            images.append(image)
            targets.append(encode(faces, ignored, self.size))
        return np.stack(images), np.stack(targets), bad

    def scene(self, index: int, bad: list) -> tuple:
        """One scene.

        Returns
        -------
        image : numpy.ndarray
            uint8, [size, size, 3], RGB.
        faces, ignored : numpy.ndarray
            float32, [n, 4] and [m, 4], left, top, right, bottom in pixels, within the scene.
        """
        makers = {"photograph": self._photograph, "paste": self._paste, "close": self._close,
                  "negative": self._negative}
        for attempt in range(100):
            rng = np.random.RandomState([self.seed, index, attempt])
            kind = KINDS[np.searchsorted(self._kind_edges, rng.rand(), side="right")][0]
            try:
                canvas = makers[kind](rng)
            except _Bad as error:
                bad.append(error.args)
                continue
            faces, ignored = canvas.boxes()
            return photometric(canvas.image, rng), faces, ignored
        raise UserError("{}: {}; 100 images in a row do not decode: check the disk".format(
            *bad[-1]))

    def _photograph(self, rng):
        """A photograph, at a scale that gives one of its faces a size drawn at random."""
        group = self.material.photographs[
            np.searchsorted(self._photograph_edges, rng.rand(), side="right")][0]
        photograph = group[rng.randint(len(group))]
        image = self._cache.read(photograph.path)
        sides = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
        faces, ignored = photograph.boxes * sides, photograph.ignored * sides
        canvas = Canvas(self.size, rng)
        if len(faces) and rng.rand() < 0.8:
            large = faces[np.argsort(-(faces[:, 3] - faces[:, 1]))]
            box = large[0 if rng.rand() < 0.4 else rng.randint(len(large))]
            scale, center, place = _scale_and_center(
                box, _log_uniform(rng, LEAST_SIDE + 1, 1.05 * self.size), self.size, rng)
            scale = max(scale, LEAST_FILLED * self.size / max(image.shape[:2]))
            canvas.lay(image, faces, ignored, scale, center, place)
        else:
            scale = self.size / max(image.shape[:2]) * _log_uniform(rng, 0.5, 1.3)
            canvas.lay(image, faces, ignored, scale, sides[:2] / 2,
                       self.size * rng.uniform(0.35, 0.65, 2))
        return canvas

    def _negative(self, rng):
        """One image without a face, and parts of others pasted on it."""
        canvas = Canvas(self.size, rng)
        image = self._cache.read(_any_of(self.material.negatives, rng))
        fill = self.size / (min if rng.rand() < 0.7 else max)(image.shape[:2])
        canvas.lay(image, NONE, NONE, fill * _log_uniform(rng, 0.5, 2.5),
                   rng.uniform(0.35, 0.65, 2) * image.shape[1::-1], np.full(2, self.size / 2))
        for _ in range(rng.choice(4, p=(0.35, 0.35, 0.2, 0.1))):
            self._paste_negative(canvas, rng)
        return canvas

    def _paste_negative(self, canvas, rng):
        image = self._cache.read(_any_of(self.material.negatives, rng))
        height, width = image.shape[:2]
        middle, half = rng.uniform(0.35, 0.65, 2), rng.uniform(0.15, 0.5, 2)
        box = np.concatenate([middle - half, middle + half]) * [width, height, width, height]
        scale, _, place = _scale_and_center(
            box, _log_uniform(rng, LEAST_SIDE, 0.9 * self.size), self.size, rng)
        canvas.paste(image, box, NONE, scale, place)

    def _paste(self, rng):
        """Crops of faces on an image without any."""
        canvas = self._negative(rng)
        for _ in range(1 + rng.choice(4, p=(0.5, 0.25, 0.15, 0.1))):
            image, box = self._crop(rng)
            side = _log_uniform(rng, LEAST_SIDE + 1, 0.9 * self.size)
            scale, _, place = _scale_and_center(box, side, self.size, rng)
            if canvas.is_free(box, scale, place):
                canvas.paste(image, box if rng.rand() < 0.4 else None, box[None], scale, place)
        return canvas

    def _close(self, rng):
        """A face that fills the scene or more than that."""
        canvas = self._negative(rng)
        image, box = self._crop(rng)
        scale = self.size * rng.uniform(0.4, 1.5) / max(box[2:] - box[:2])
        place = self.size * np.clip(0.5 + 0.14 * rng.randn(2), 0.1, 0.9)
        if rng.rand() < 0.5:
            canvas = Canvas(self.size, rng)
            canvas.lay(image, box[None], NONE, scale, (box[:2] + box[2:]) / 2, place)
        else:
            canvas.clear()
            canvas.paste(image, None, box[None], scale, place)
        return canvas

    def _crop(self, rng):
        """The pixels of a crop, and the face's box in it."""
        crops = self.material.crops[rng.randint(len(self.material.crops))]
        image = self._cache.read(_any_of(crops.paths, rng))
        if crops.aligned and rng.rand() < CLOTH:
            height, width = image.shape[:2]
            square = cover(cv2.resize(image, (height, height)), True, rng)
            image = cv2.resize(square, (width, height))
        height, width = image.shape[:2]
        return image, np.array(crops.box, np.float32) * [width, height, width, height]


class _Bad(Exception):
    """An image that does not decode: its path and the cause."""


NONE = np.zeros((0, 4), np.float32)


class Canvas:
    """A scene while it is made: pixels and boxes.

    Parameters
    ----------
    size : int
    rng : numpy.random.RandomState
    """

    def __init__(self, size: int, rng: np.random.RandomState):
        self.size, self.rng = size, rng
        self.image: np.ndarray = np.empty((size, size, 3), np.uint8)
        self.image[:] = rng.randint(0, 256, 3) if rng.rand() < 0.6 else 0
        self._faces: list[np.ndarray] = []
        self._ignored: list[np.ndarray] = []

    def lay(self, image: np.ndarray, faces: np.ndarray, ignored: np.ndarray, scale: float,
            center: np.ndarray, place: np.ndarray) -> None:
        """Cover the whole scene by an image, so that ``center`` (of it) comes to ``place``."""
        image, faces, ignored, center, scale = _shrunk(image, faces, ignored, center, scale)
        matrix = self._matrix(scale, center, place)
        border = cv2.BORDER_CONSTANT if self.rng.rand() < 0.7 else cv2.BORDER_REPLICATE
        self.image = cv2.warpAffine(
            image, _of_pixels(matrix), (self.size, self.size), flags=self._interpolation(),
            borderMode=border, borderValue=self.image[0, 0].tolist())
        self._faces = list(_moved(faces, matrix))
        self._ignored = list(_moved(ignored, matrix))

    def paste(self, image: np.ndarray, soft: np.ndarray | None, faces: np.ndarray, scale: float,
              place: np.ndarray) -> None:
        """Paste an image, or what of it lies in an ellipse around the box ``soft``."""
        box = typing.cast(np.ndarray, faces[0] if len(faces) else soft)
        center = (box[:2] + box[2:]) / 2
        if not len(faces) and self.rng.rand() < 0.6:  # a rectangle of a negative
            left, top, right, bottom = np.array(np.round(box), np.int32)
            image = image[max(0, top):bottom + 1, max(0, left):right + 1]
            center, soft = np.array(image.shape[1::-1], np.float32) / 2, None
        boxes = faces if soft is None else np.concatenate([faces, soft[None]])
        image, boxes, _, center, scale = _shrunk(image, boxes, NONE, center, scale)
        matrix = self._matrix(scale, center, place)
        height, width = image.shape[:2]
        mask = np.full((height, width), 255, np.uint8)
        if soft is not None:
            middle, half = (boxes[-1][:2] + boxes[-1][2:]) / 2, (boxes[-1][2:] - boxes[-1][:2]) / 2
            mask[:] = 0
            cv2.ellipse(mask, (tuple(map(float, middle)), tuple(map(float, 2.1 * half)), 0.0), 255,
                        -1)
            blur = float(max(1.0, self.rng.uniform(0.05, 0.25) * half.min()))
            mask = cv2.GaussianBlur(mask, (0, 0), blur)
        moved = _of_pixels(matrix)
        mask = cv2.warpAffine(mask, moved, (self.size, self.size), flags=cv2.INTER_LINEAR)
        left, top, width, height = cv2.boundingRect(mask)
        if width and height:
            part = np.s_[top:top + height, left:left + width]
            laid = cv2.warpAffine(
                image, moved - [[0, 0, left], [0, 0, top]], (width, height),
                flags=self._interpolation(), borderMode=cv2.BORDER_REPLICATE)
            opacity = mask[part][..., None].astype(np.uint16)
            self.image[part] = (laid * opacity + self.image[part] * (255 - opacity)) // 255
        self._faces += list(_moved(boxes[:len(faces)], matrix))

    def is_free(self, box: np.ndarray, scale: float, place: np.ndarray) -> bool:
        """Whether a face put there covers no other by much."""
        half = (box[2:] - box[:2]) * scale * 0.75
        return not any(((each[:2] < place + half) & (each[2:] > place - half)).all()
                       for each in self._faces)

    def clear(self) -> None:
        """Forget the faces so far."""
        self._faces, self._ignored = [], []

    def boxes(self) -> tuple:
        """The faces, and those that are ignored: small ones, and ones that leave the scene."""
        whole = np.array(self._faces, np.float32).reshape(-1, 4)
        clipped = np.clip(whole, 0, self.size)
        visible = area(clipped) / np.maximum(area(whole), 1e-3)
        good = (visible >= VISIBLE) & ((clipped[:, 2:] - clipped[:, :2]).max(1) >= LEAST_SIDE)
        more = np.clip(np.array(self._ignored, np.float32).reshape(-1, 4), 0, self.size)
        return clipped[good], np.concatenate([clipped[~good & (visible > GONE)], more])

    def _matrix(self, scale, center, place):
        """The affine map from an image to the scene: scaled, turned, stretched, perhaps flipped.

        It maps places: the first pixel's middle is at 0.5.
        """
        rng = self.rng
        angle = np.radians(np.clip(rng.randn() * (6 if rng.rand() < 0.85 else 20), -40, 40))
        stretch = np.exp(rng.uniform(-0.1, 0.1))
        flip = -1 if rng.rand() < 0.5 else 1
        cosine, sine = np.cos(angle), np.sin(angle)
        linear = scale * np.array([[cosine, -sine], [sine, cosine]]) @ np.diag(
            [flip * stretch, 1 / stretch])
        return np.concatenate(
            [linear, (place - linear @ np.asarray(center))[:, None]], 1)

    def _interpolation(self):
        return (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[
            self.rng.choice(3, p=(0.75, 0.2, 0.05))]


def _any_of(paths, rng):
    return paths[rng.randint(len(paths))]


def _log_uniform(rng, low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _scale_and_center(box, side, size, rng):
    """The scale that gives a box a longer side, the box's centre, and a place for that."""
    scale = min(side / max(box[2:] - box[:2]), MOST_ENLARGED)
    half = np.minimum((box[2:] - box[:2]) * scale * 0.4, size / 2)
    return scale, (box[:2] + box[2:]) / 2, rng.uniform(half, size - half)


def _shrunk(image, faces, ignored, center, scale):
    """Halve an image until it is to be scaled by more than 0.6, so that it does not alias."""
    while scale < 0.6 and min(image.shape[:2]) > 8:
        height, width = image.shape[:2]
        image = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        factor = np.array([(width // 2) / width, (height // 2) / height], np.float32)
        faces, ignored = faces * np.tile(factor, 2), ignored * np.tile(factor, 2)
        center, scale = np.asarray(center) * factor, scale * 2
    return image, faces, ignored, center, scale


def _of_pixels(matrix):
    """The same map for OpenCV, which has the first pixel's middle at 0."""
    return matrix + [[0, 0, each] for each in matrix[:, :2].sum(1) / 2 - 0.5]


def _moved(boxes, matrix):
    """Upright boxes around the new centres, with the new sizes; the turn changes no size."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    halves = (boxes[:, 2:] - boxes[:, :2]) / 2 * np.linalg.norm(matrix[:, :2], axis=0)
    return np.concatenate([centers - halves, centers + halves], 1).astype(np.float32)


def photometric(image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Change colours, sharpness and noise of a whole scene, as cameras and files do."""
    size = image.shape[0]
    if rng.rand() < 0.8:
        image = _recoloured(image, rng)
    grey = rng.rand()
    if grey < 0.3:
        mono = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        share = 1.0 if grey < 0.15 else rng.uniform(-0.5, 1)
        image = cv2.addWeighted(mono, share, image, 1 - share, 0)
    if rng.rand() < 0.25:
        small = max(16, int(size * _log_uniform(rng, 0.25, 0.9)))
        down, up = (int(each) for each in rng.choice(
            [cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC], 2))
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=down), (size, size),
                           interpolation=up)
    blur = rng.rand()
    if blur < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.8))
    elif blur < 0.2:
        image = _motion_blurred(image, rng)
    elif blur < 0.3:
        image = cv2.addWeighted(image, 2.0, cv2.GaussianBlur(image, (0, 0), 1.2), -1.0, 0)
    if rng.rand() < 0.2:
        noise = rng.randn(*image.shape[:2 + (rng.rand() < 0.7)]).astype(np.float32)
        noise = noise.reshape(size, size, -1) * rng.uniform(2, 18)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.rand() < 0.35:
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.randint(12, 90))])
        image = typing.cast(np.ndarray, cv2.imdecode(encoded[1], cv2.IMREAD_COLOR))
    return image


def _recoloured(image, rng):
    """Brightness, contrast, gamma and a tint, by one table for each channel."""
    values = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.uniform(-0.5, 0.5))
    values = (values - 0.5) * rng.uniform(0.5, 1.4) + 0.5 + rng.uniform(-0.18, 0.18)
    values = values * (1 + rng.uniform(-0.15, 0.15, 3))
    table = np.clip(values * 255, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def _motion_blurred(image, rng):
    length = int(rng.randint(3, 10))
    kernel = np.zeros((length, length), np.float32)
    ends = rng.randint(0, length, (2, 2))
    cv2.line(kernel, tuple(map(int, ends[0])), tuple(map(int, ends[1])), 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def draw_boxes(image: np.ndarray, faces: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """A copy of a scene with its faces in green and what is ignored in red."""
    drawn = image.copy()
    for boxes, colour in ((ignored, (230, 60, 60)), (faces, (60, 220, 60))):
        for left, top, right, bottom in np.round(boxes).astype(int).tolist():
            cv2.rectangle(drawn, (left, top), (right, bottom), colour, 1)
    return drawn
