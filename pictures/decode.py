"""Reading pictures: a file of a common format -> RGB array, upright -> the network's size.

The one place where the project decodes image files, so that training, testing and inference see
the same pixels. A file that does not decode raises :class:`BadImage`, which callers report, count
and skip.
"""

import hashlib
import io
import os
import warnings

import cv2
import numpy as np
from PIL import Image

# Above this an image is refused before it is decoded: 100 megapixels take 300 MB as RGB.
MAX_PIXELS = 100 * 1000 * 1000

# How many times the network's size a large JPEG keeps at least when it is decoded at reduced scale:
# resize() then still does the averaging, as for small pictures. With 2 probabilities near one half
# moved by up to 0.022, with 4 by up to 0.006.
OVERSAMPLING = 4

# What turns stored pixels upright, by the value of EXIF's orientation tag.
ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE,
    6: Image.ROTATE_270, 7: Image.TRANSVERSE, 8: Image.ROTATE_90,
}  # fmt: skip

# Pillow's own decoders alone: left to guess, it would also hand PostScript to a Ghostscript that
# happens to be installed, and a stranger's picture would be a program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class BadImage(ValueError):
    """A file that is not a whole image of a sane size; the message is the cause alone."""


def read_image(source, max_pixels=MAX_PIXELS, least_size=None):
    """Decode an image file whole, in any mode, and turn it upright by its EXIF orientation.

    Parameters
    ----------
    source : str or bytes
        A path, or the encoded image itself.
    max_pixels : int
        Larger images are refused before their pixels are decoded (decompression bombs).
    least_size : int, optional
        A JPEG whose sides are several times this is decoded at 1/2, 1/4 or 1/8 of its size, which
        takes a fraction of the time, as long as both sides stay at least this.

    Returns
    -------
    numpy.ndarray
        uint8, [height, width, 3], RGB. Transparency is laid over white, 16-bit greys are scaled
        to 8 bits, and of an animation the first frame is taken.

    Raises
    ------
    BadImage
        Missing, empty, truncated, oversized or not an image.
    """
    try:
        if isinstance(source, str) and os.path.getsize(source) == 0:
            raise BadImage("empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # harmless oddities in metadata; size is checked here
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(stream, formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise BadImage("{} x {} pixels, more than {:,}".format(
                        image.width, image.height, max_pixels))
                if least_size:
                    image.draft(None, (least_size, least_size))
                image.load()
                return _to_rgb(_upright(image))
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage("no such file")
    except Image.DecompressionBombError:
        raise BadImage("more than {:,} pixels".format(max_pixels))
    except Image.UnidentifiedImageError:
        raise BadImage("not an image in a known format")
    except OSError as error:  # strerror leaves out the path, which the caller names
        raise BadImage(error.strerror or str(error))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise BadImage(str(error).strip() or type(error).__name__)


def _upright(image):
    """A loaded Pillow image turned as its EXIF orientation says.

    Pillow's own ``exif_transpose`` also writes the metadata anew, which fails on odd tags.
    """
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except Exception:  # damaged metadata around pixels that are whole: taken as they lie
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _to_rgb(image):
    """A loaded Pillow image of any mode as a uint8 [height, width, 3] array."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _grey_to_rgb(np.array(image, np.float32))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"))


def _grey_to_rgb(grey):
    """A high-depth grey image as uint8, its range told by its maximum: 1.0, 255 or 65535.

    The float32 array is overwritten: large pictures would take several times their size else.
    """
    np.nan_to_num(grey, copy=False)
    if grey.max() > 255:
        grey /= 257
    elif grey.max() <= 1 and (grey % 1).any():
        grey *= 255
    np.clip(np.rint(grey, out=grey), 0, 255, out=grey)
    return np.repeat(grey.astype(np.uint8)[:, :, np.newaxis], 3, axis=2)


def resize(image, height, width):
    """Stretch an image to ``height`` x ``width``, the aspect ratio left to its fate.

    Pixel areas are averaged when the image shrinks along both axes, else it is interpolated
    linearly.

    Parameters
    ----------
    image : numpy.ndarray
        uint8, [any height, any width, 3].

    Returns
    -------
    numpy.ndarray
        uint8, [height, width, 3].
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def pixel_digest(image):
    """SHA-256 of an image's size and pixels: equal for the same picture under two file names."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def find_images(folder, exclude=(), report=None):
    """Yield the paths under ``folder``, in sorted order, whose names end like image files.

    One folder's names are held at a time. Hidden files and folders are left out.

    Parameters
    ----------
    folder : str
    exclude : collection of str
        Real paths of files and folders to leave out.
    report : callable of OSError, optional
        Called for a folder that can't be listed; it is skipped either way.
    """
    for parent, folders, names in os.walk(folder, onerror=report):
        folders.sort()
        folders[:] = [name for name in folders if not name.startswith(".")
                      and not _is_excluded(os.path.join(parent, name), exclude)]
        for name in sorted(names):
            path = os.path.join(parent, name)
            if (name.lower().endswith(EXTENSIONS) and not name.startswith(".")
                    and not _is_excluded(path, exclude)):
                yield path


def _is_excluded(path, exclude):
    return bool(exclude) and os.path.realpath(path) in exclude
