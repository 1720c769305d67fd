"""Decoding and resizing encoded images in a TensorFlow graph, as images/decode.py does.

A model server gets the bytes of a JPEG or PNG and has neither Pillow nor OpenCV. The graph built
here decodes them, turns them upright by their EXIF orientation, lays transparency over white and
resizes, so that the network sees the pixels that inference.py sees, within one level of 255.
``savedmodel.py`` puts it in front of the network.
"""

from __future__ import annotations

import typing

from darknet_face.images.decode import MAX_PIXELS, ORIENTATION_TAG, OVERSAMPLING
from darknet_face.runtime.session import tf

EXIF_SEARCH = 1 << 18  # bytes at the beginning of a file in which EXIF data is looked for
# How EXIF data begin in a JPEG's segment and in a PNG's chunk; None stands for any byte.
JPEG_EXIF = (0xFF, 0xE1, None, None) + tuple(b"Exif\0\0")
PNG_EXIF = (None, None, None, None) + tuple(b"eXIf")
Mark = typing.Tuple[typing.Optional[int], ...]


def decode_batch(contents: typing.Any, image_size: int) -> typing.Any:
    """Decode and resize a batch of encoded images.

    Parameters
    ----------
    contents : tf.Tensor
        string, [batch], each a whole JPEG or PNG file of at most :data:`MAX_PIXELS`.
        Anything else makes the batch fail.
    image_size : int
        Height and width that every image is stretched to.

    Returns
    -------
    tf.Tensor
        uint8, [batch, image_size, image_size, 3], RGB.
    """
    images = tf.map_fn(
        lambda content: resize(decode(content, OVERSAMPLING * image_size), image_size, image_size),
        contents, dtype=tf.uint8, back_prop=False, name="decoded")
    images.set_shape([None, image_size, image_size, 3])
    return images


def decode(content: typing.Any, least_size: int | None = None) -> typing.Any:
    """Decode an image as :func:`darknet_face.images.decode.read_image` does.

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


def _decode_jpeg(content: typing.Any, least_size: int | None) -> typing.Any:
    # The accurate transform is Pillow's; TensorFlow's own choice is off by several levels.
    def at(ratio: int) -> typing.Callable[[], typing.Any]:
        return lambda: tf.image.decode_jpeg(
            content, 3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    size = tf.image.extract_jpeg_shape(content)[:2]
    content = _unless_huge(content, size)
    if not least_size:
        return at(1)()
    shrinks_by = tf.reduce_min(size) // least_size
    return tf.case([(shrinks_by >= ratio, at(ratio)) for ratio in (8, 4, 2)], default=at(1))


def _unless_huge(content: typing.Any, size: typing.Any) -> typing.Any:
    """The content; the batch fails if it would unpack to gigabytes."""
    check = tf.debugging.Assert(
        tf.reduce_prod(tf.cast(size, tf.int64)) <= MAX_PIXELS,
        ["no JPEG or PNG of at most {:,} pixels".format(MAX_PIXELS)])
    with tf.control_dependencies([check]):
        return tf.identity(content)


def _decode_png(content: typing.Any) -> typing.Any:
    """Decode a PNG over white, with the rounding of Pillow's ``alpha_composite``."""
    beginning = tf.decode_raw(tf.strings.substr(content, 0, 32), tf.uint8)
    beginning = tf.cast(tf.concat([beginning, tf.zeros([32], tf.uint8)], 0), tf.int64)
    content = _unless_huge(content, _number(beginning, [16, 20], 4))
    rgba = tf.cast(tf.image.decode_png(content, 4), tf.int32)
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    # In images of less than 8 bits without a palette of transparencies, TensorFlow makes opaque
    # pixels 2^bits - 1 instead of 255.
    alpha = tf.cond(beginning[24] < 8, lambda: _mend_alpha(content, alpha), lambda: alpha)
    mixed = 128 * (colour * alpha + 255 * (255 - alpha)) + 128 * 128
    return tf.cast((mixed // 256 + mixed) // 256 // 128, tf.uint8)


def _mend_alpha(content: typing.Any, alpha: typing.Any) -> typing.Any:
    channels = tf.shape(tf.image.decode_png(content))[2]
    opaque = tf.cast(alpha > 0, tf.int32) * 255
    return tf.cond(tf.equal(channels % 2, 1), lambda: opaque, lambda: alpha)


def _orientation(content: typing.Any, mark: Mark) -> typing.Any:
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


def _exif(content: typing.Any, mark: Mark) -> typing.Any:
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


def _number(raw: typing.Any, offset: typing.Any, length: int,
            is_little: typing.Any = False) -> typing.Any:
    """Unsigned integers of ``length`` bytes at one offset or several; zero beyond the end."""
    places = tf.expand_dims(tf.cast(offset, tf.int64), -1) + tf.range(length, dtype=tf.int64)
    values = tf.gather(raw, tf.minimum(places, tf.shape(raw, out_type=tf.int64)[0] - 1))
    big = [256 ** k for k in reversed(range(length))]
    return tf.reduce_sum(values * tf.cond(
        tf.convert_to_tensor(is_little), lambda: tf.constant(big[::-1], tf.int64),
        lambda: tf.constant(big, tf.int64)), -1)


def _upright(image: typing.Any, orientation: typing.Any) -> typing.Any:
    """Turn an image as its orientation tag says; an unknown number leaves it as it is."""
    def when(orientations: list[int], change: typing.Callable[[typing.Any], typing.Any],
             image: typing.Any) -> typing.Any:
        return tf.cond(tf.reduce_any(tf.equal(orientation, orientations)),
                       lambda: change(image), lambda: image)

    image = when([5, 6, 7, 8], lambda image: tf.transpose(image, [1, 0, 2]), image)
    image = when([2, 3, 6, 7], lambda image: tf.reverse(image, [1]), image)
    return when([3, 4, 7, 8], lambda image: tf.reverse(image, [0]), image)


def resize(image: typing.Any, height: int, width: int) -> typing.Any:
    """Resize an image as :func:`darknet_face.images.resize.resize` does, within one level of 255.

    Pixel areas are averaged when the image shrinks along both axes; otherwise it is interpolated
    linearly.

    Parameters
    ----------
    image : tf.Tensor
        uint8, [any height, any width, 3].

    Returns
    -------
    tf.Tensor
        uint8, [height, width, 3].
    """
    shape = tf.shape(image)
    floats, size = tf.cast(image[None], tf.float32), [height, width]
    resized = tf.cond(
        tf.logical_and(shape[0] >= height, shape[1] >= width),
        lambda: tf.image.resize_area(floats, size),
        lambda: tf.image.resize_bilinear(floats, size, half_pixel_centers=True))
    return tf.cast(tf.round(resized[0]), tf.uint8)
