"""Decoding and resizing encoded pictures in a TensorFlow graph, as darknet_face/images/decode.py
does.

A model server gets the bytes of a JPEG or PNG and has neither Pillow nor OpenCV. The graph built
here decodes them, turns them upright by their EXIF orientation, lays transparency over white and
resizes, so that the network sees the pixels that inference.py sees, within one level of 255.
``savedmodel.py`` puts it in front of the network.
"""

from __future__ import annotations

import numpy as np

from darknet_face.images.decode import MAX_PIXELS, ORIENTATION_TAG, OVERSAMPLING
from darknet_face.runtime.session import tf

EXIF_SEARCH = 1 << 18  # bytes at the beginning of a file in which EXIF data is looked for
# How EXIF data begin in a JPEG's segment and in a PNG's chunk; None stands for any byte.
JPEG_EXIF = (0xFF, 0xE1, None, None) + tuple(b"Exif\0\0")
PNG_EXIF = (None, None, None, None) + tuple(b"eXIf")

COEFFICIENT_BITS = 11  # of OpenCV's fixed-point linear interpolation


def decode_batch(contents, image_size):
    """Decode and resize a batch of encoded pictures.

    Parameters
    ----------
    contents : tf.Tensor
        string, [batch], each a whole JPEG or PNG file of at most :data:`MAX_PIXELS`.
        Anything else makes the batch fail.
    image_size : int
        Height and width that every picture is stretched to.

    Returns
    -------
    tf.Tensor
        uint8, [batch, image_size, image_size, 3], RGB.
    """
    pictures = tf.map_fn(
        lambda content: resize(decode(content, OVERSAMPLING * image_size), image_size, image_size),
        contents, dtype=tf.uint8, back_prop=False, name="pictures")
    pictures.set_shape([None, image_size, image_size, 3])
    return pictures


def decode(content, least_size=None):
    """Decode a picture as :func:`darknet_face.images.decode.read_image` does.

    A sixteen-bit PNG can differ by one level of 255: its lower bytes are dropped, not rounded.

    Parameters
    ----------
    content : tf.Tensor
        string, a scalar: a JPEG or PNG file.
    least_size : int, optional
        Decode large JPEGs at reduced scale, both sides staying at least this.

    Returns
    -------
    tf.Tensor
        uint8, [height, width, 3], RGB, upright.
    """
    return tf.cond(tf.image.is_jpeg(content),
                   lambda: _upright(_decode_jpeg(content, least_size),
                                    _orientation(content, JPEG_EXIF)),
                   lambda: _upright(_decode_png(content), _orientation(content, PNG_EXIF)))


def _decode_jpeg(content, least_size):
    # The accurate transform is Pillow's; TensorFlow's own choice is off by several levels.
    def at(ratio):
        return lambda: tf.image.decode_jpeg(
            content, 3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    size = tf.image.extract_jpeg_shape(content)[:2]
    content = _unless_huge(content, size)
    if not least_size:
        return at(1)()
    shrinks_by = tf.reduce_min(size) // least_size
    return tf.case([(shrinks_by >= ratio, at(ratio)) for ratio in (8, 4, 2)], default=at(1))


def _unless_huge(content, size):
    """The content; the batch fails if it would unpack to gigabytes."""
    check = tf.debugging.Assert(
        tf.reduce_prod(tf.cast(size, tf.int64)) <= MAX_PIXELS,
        ["no JPEG or PNG of at most {:,} pixels".format(MAX_PIXELS)])
    with tf.control_dependencies([check]):
        return tf.identity(content)


def _decode_png(content):
    """Decode a PNG over white, with the rounding of Pillow's ``alpha_composite``."""
    beginning = tf.decode_raw(tf.strings.substr(content, 0, 32), tf.uint8)
    beginning = tf.cast(tf.concat([beginning, tf.zeros([32], tf.uint8)], 0), tf.int64)
    content = _unless_huge(content, _number(beginning, [16, 20], 4))
    rgba = tf.cast(tf.image.decode_png(content, 4), tf.int32)
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    # In pictures of less than 8 bits without a palette of transparencies, TensorFlow makes opaque
    # pixels 2^bits - 1 instead of 255.
    alpha = tf.cond(beginning[24] < 8, lambda: _mend_alpha(content, alpha), lambda: alpha)
    mixed = 128 * (colour * alpha + 255 * (255 - alpha)) + 128 * 128
    return tf.cast((mixed // 256 + mixed) // 256 // 128, tf.uint8)


def _mend_alpha(content, alpha):
    channels = tf.shape(tf.image.decode_png(content))[2]
    opaque = tf.cast(alpha > 0, tf.int32) * 255
    return tf.cond(tf.equal(channels % 2, 1), lambda: opaque, lambda: alpha)


def _orientation(content, mark):
    """The orientation tag in a file's EXIF data, 1 (upright) where there is none.

    Parameters
    ----------
    content : tf.Tensor
        string, a scalar.
    mark : tuple
        JPEG_EXIF or PNG_EXIF.
    """
    tiff = _exif(content, mark)
    is_little = tf.equal(tiff[0], ord("I"))
    directory = _number(tiff, 4, 4, is_little)
    entries = directory + 2 + 12 * tf.range(_number(tiff, directory, 2, is_little))
    is_short = tf.equal(_number(tiff, entries + 2, 2, is_little), 3)
    values = tf.where(is_short, _number(tiff, entries + 8, 2, is_little),
                      _number(tiff, entries + 8, 4, is_little))
    tags = _number(tiff, entries, 2, is_little)
    return tf.concat([tf.boolean_mask(values, tf.equal(tags, ORIENTATION_TAG)), [1]], 0)[0]


def _exif(content, mark):
    """The bytes of a file's EXIF data, a TIFF structure, as int64 with zeros appended."""
    padding = tf.zeros([64], tf.int64)
    raw = tf.cast(tf.decode_raw(tf.strings.substr(content, 0, EXIF_SEARCH), tf.uint8), tf.int64)
    raw = tf.concat([raw, padding], 0)
    size = tf.shape(raw, out_type=tf.int64)[0]
    at_mark = tf.reduce_all([tf.equal(raw[k:size - 64 + k], byte) for k, byte in enumerate(mark)
                             if byte is not None], axis=0)
    begin = tf.concat([tf.where(at_mark)[:, 0], [size]], 0)[0]
    start = begin + len(mark)
    if mark == JPEG_EXIF:  # a segment's length counts from its own two bytes on
        end = begin + 2 + _number(raw, begin + 2, 2)
    else:
        end = start + _number(raw, begin, 4)
    return tf.concat([raw[start:end], padding], 0)


def _number(raw, offset, length, is_little=False):
    """Unsigned integers of ``length`` bytes at one offset or several; zero beyond the end."""
    places = tf.expand_dims(tf.cast(offset, tf.int64), -1) + tf.range(length, dtype=tf.int64)
    values = tf.gather(raw, tf.minimum(places, tf.shape(raw, out_type=tf.int64)[0] - 1))
    big = [256 ** k for k in reversed(range(length))]
    return tf.reduce_sum(values * tf.cond(
        tf.convert_to_tensor(is_little), lambda: tf.constant(big[::-1], tf.int64),
        lambda: tf.constant(big, tf.int64)), -1)


def _upright(image, orientation):
    """Turn a picture as its orientation tag says; an unknown number leaves it as it is."""
    def when(orientations, change, image):
        return tf.cond(tf.reduce_any(tf.equal(orientation, orientations)),
                       lambda: change(image), lambda: image)

    image = when([5, 6, 7, 8], lambda image: tf.transpose(image, [1, 0, 2]), image)
    image = when([2, 3, 6, 7], lambda image: tf.reverse(image, [1]), image)
    return when([3, 4, 7, 8], lambda image: tf.reverse(image, [0]), image)


def resize(image, height, width):
    """Resize a picture as :func:`darknet_face.images.decode.resize` does, within one level of 255.

    Pixel areas are averaged when the picture shrinks along both axes; otherwise it is interpolated
    linearly.

    Parameters
    ----------
    image : tf.Tensor
        uint8, [any height, any width, 3].
    height, width : int

    Returns
    -------
    tf.Tensor
        uint8, [height, width, 3].
    """
    shape = tf.shape(image)
    shrinks = tf.logical_and(shape[0] >= height, shape[1] >= width)
    resized = tf.cond(shrinks, lambda: _resize_area(image, height, width),
                      lambda: _resize_linear(image, height, width))
    resized.set_shape([height, width, 3])
    return resized


def _resize_area(image, height, width):
    """Average pixel areas, with OpenCV's rounding: halves go up when both sides are halved."""
    mean = tf.image.resize_area(tf.cast(image[None], tf.float32), [height, width])[0]
    halved = tf.reduce_all(tf.equal(tf.shape(image)[:2], [2 * height, 2 * width]))
    return tf.cast(tf.cond(halved, lambda: tf.floor(mean + 0.5), lambda: tf.round(mean)), tf.uint8)


def _resize_linear(image, height, width):
    """Interpolate linearly as OpenCV does for uint8: in integers, with the bits that it drops.

    ``tf.image.resize_bilinear`` is a tenth of a level brighter on average, which moved
    probabilities of pictures enlarged from 25 to 224 pixels by up to 0.008.
    """
    image = tf.cast(image, tf.int32)
    left, right, left_weight, right_weight = _linear_taps(tf.shape(image)[1], width)
    rows = (tf.gather(image, left, axis=1) * left_weight[:, None]
            + tf.gather(image, right, axis=1) * right_weight[:, None]) // 16
    upper, lower, upper_weight, lower_weight = _linear_taps(tf.shape(image)[0], height)
    blended = (tf.gather(rows, upper) * upper_weight[:, None, None] // 65536
               + tf.gather(rows, lower) * lower_weight[:, None, None] // 65536)
    return tf.cast((blended + 2) // 4, tf.uint8)


def _linear_taps(size, new_size):
    """The two neighbours of each new pixel along one axis, and their weights in 1/2048."""
    scale = tf.cast(size, tf.float64) / new_size
    place = tf.cast((np.arange(new_size) + 0.5) * scale - 0.5, tf.float32)
    first = tf.floor(place)
    share = place - first
    first = tf.cast(first, tf.int32)
    unit = float(1 << COEFFICIENT_BITS)
    weights = [tf.cast(tf.round(each * unit), tf.int32) for each in (1.0 - share, share)]
    return (tf.clip_by_value(first, 0, size - 1), tf.clip_by_value(first + 1, 0, size - 1),
            weights[0], weights[1])
