"""Decoding: every kind of image to the pixels it shows, everything else to one clear cause."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from conftest import chunk
from PIL import Image

from darknet_face.images.contact_sheets import encode
from darknet_face.images.decode import (
    MAX_PIXELS,
    BadImage,
    check_header,
    read_image,
    read_pillow,
    upright_size,
)
from darknet_face.images.find_images import Skipped, find_images
from darknet_face.images.formats import EXTENSIONS, VIDEO_EXTENSIONS
from darknet_face.images.resize import resize

# Four blocks of colour, so that a turn, a flip or a swap of channels shows.
RED, GREEN, BLUE, WHITE = (200, 30, 30), (30, 180, 40), (40, 50, 190), (255, 255, 255)


@pytest.fixture
def picture():
    """uint8 [32, 48, 3]: red and green above blue and white, in blocks of 16 x 24 pixels."""
    corners = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
    return corners.repeat(16, axis=0).repeat(24, axis=1)


def close(decoded, expected, tolerance):
    """Equal away from the blocks' edges, where lossy formats ring."""
    assert decoded.shape == expected.shape and decoded.dtype == np.uint8
    height, width = expected.shape[:2]
    rows = [height // 4, 3 * height // 4]
    columns = [width // 4, 3 * width // 4]
    difference = decoded.astype(int)[rows][:, columns] - expected.astype(int)[rows][:, columns]
    assert np.abs(difference).max() <= tolerance


@pytest.mark.parametrize("kind, options, tolerance", [
    ("PNG", {}, 0), ("BMP", {}, 0), ("TIFF", {}, 0), ("PPM", {}, 0),
    ("WEBP", {"lossless": True}, 0), ("JPEG", {"quality": 95}, 6), ("WEBP", {"quality": 90}, 12),
])
def test_formats(picture, kind, options, tolerance):
    close(read_image(encode(Image.fromarray(picture), kind, **options)), picture, tolerance)


def test_grey(picture):
    grey = picture[..., 0]
    expected = np.repeat(grey[..., np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(grey), "PNG")), expected)


def test_one_bit():
    pattern = np.indices((16, 16)).sum(axis=0) % 2 == 0
    decoded = read_image(encode(Image.fromarray(pattern), "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat(pattern[..., None] * np.uint8(255), 3, 2))


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (16, 16), 0)
    image.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
    image.paste(1, (8, 0, 16, 16))
    decoded = read_image(encode(image, "PNG", transparency=0))
    assert tuple(decoded[4, 4]) == WHITE, "what is transparent shows white paper"
    assert tuple(decoded[4, 12]) == (200, 100, 50)


def test_rgba_is_laid_over_white(picture):
    alpha = np.zeros(picture.shape[:2] + (1,), np.uint8)
    alpha[:16], alpha[16:, :24] = 255, 128
    decoded = read_image(encode(Image.fromarray(np.dstack([picture, alpha])), "PNG"))
    np.testing.assert_array_equal(decoded[:16], picture[:16])
    half = np.rint(np.array(BLUE) * 128 / 255 + 255 * 127 / 255)
    np.testing.assert_allclose(decoded[24, 12], half, atol=1)
    assert tuple(decoded[24, 36]) == WHITE


def test_grey_with_alpha():
    decoded = read_image(encode(Image.new("LA", (8, 8), (0, 0)), "PNG"))
    assert (decoded == 255).all()


@pytest.mark.parametrize("kind, tolerance", [("TIFF", 0), ("JPEG", 8)])
def test_cmyk(kind, tolerance):
    """Cyan and yellow ink, no magenta, 20 % black: a green that naive RGB reading turns red."""
    image = Image.new("CMYK", (32, 32), (255, 0, 255, 51))
    decoded = read_image(encode(image, kind))
    np.testing.assert_allclose(decoded[16, 16], (0, 204, 0), atol=tolerance)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_range(kind):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    decoded = read_image(encode(Image.fromarray(ramp), kind))
    np.testing.assert_allclose(decoded[..., 0].ravel(), np.arange(256), atol=1)
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_sixteen_bit_rgb():
    """Written by hand: Pillow does not write such PNGs."""
    deep = np.zeros((4, 4, 3), ">u2")
    deep[..., 0], deep[..., 1] = 0xC8C8, 0x1E1E

    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    header = (4).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    content = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
               + chunk(b"IEND", b""))
    np.testing.assert_allclose(read_image(content)[2, 2], (0xC8, 0x1E, 0), atol=1)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("kind", [".png", ".tif"])
@pytest.mark.parametrize("colour", [False, True])
def test_fewer_bits_in_a_file_of_16(bits, kind, colour):
    """Cameras and scanners store 10 or 12 bits a sample so."""
    deep = np.full((8, 6), 2 ** bits - 1, np.uint16)
    deep[:, :3] //= 2
    if colour:
        deep = np.dstack([deep // 4, deep, deep])  # blue is OpenCV's first
    decoded = read_image(cv2.imencode(kind, deep)[1].tobytes())
    assert decoded.shape == (8, 6, 3)
    np.testing.assert_allclose(decoded[0, (0, 5), 0], (127, 255), atol=1)
    np.testing.assert_allclose(decoded[0, 5], (255, 255, 63 if colour else 255), atol=1)


@pytest.mark.parametrize("alpha, shown", [(0, (40, 50, 190)), (128, (147, 152, 222))])
def test_a_bmp_whose_alpha_is_unset_is_no_white_image(alpha, shown):
    pixels = bytes((190, 50, 40, alpha)) * 64
    header = struct.pack("<IiiHHIIiiII4I", 108, 8, 8, 1, 32, 3, len(pixels), 2835, 2835, 0, 0,
                         0xff0000, 0xff00, 0xff, 0xff000000).ljust(108, b"\0")
    content = b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + header + pixels
    np.testing.assert_allclose(read_image(content)[3, 3], shown, atol=1)


def test_a_closed_pillow_image(picture):
    content = io.BytesIO(encode(Image.fromarray(picture), "PNG"))
    with Image.open(content) as within:
        pass
    loaded, fresh, new = Image.open(content), Image.open(content), Image.fromarray(picture)
    np.testing.assert_array_equal(read_pillow(loaded), picture)
    np.testing.assert_array_equal(read_pillow(loaded), picture)
    np.testing.assert_array_equal(read_pillow(new), picture)
    for image in (loaded, fresh, new):
        image.close()
    for image in (within, loaded, fresh, new):
        with pytest.raises(BadImage, match="was closed"):
            read_pillow(image)


def test_floating_point_grey_from_0_to_1():
    decoded = read_image(encode(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"))
    np.testing.assert_allclose(decoded, 127.5, atol=1)


# EXIF orientation -> what turns the stored pixels upright, as the EXIF standard defines it.
ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_exif_orientation(picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(picture), "JPEG", quality=95, exif=exif)
    close(read_image(content), ORIENTATIONS[orientation](picture), 6)


def test_damaged_exif_costs_no_picture(picture):
    """A directory of entries that is cut off in the middle."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0"
    content = encode(Image.fromarray(picture), "JPEG", quality=95, exif=exif)
    close(read_image(content), picture, 6)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, GREEN, BLUE)]
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    decoded = read_image(content)
    assert decoded.shape == (10, 20, 3)
    np.testing.assert_allclose(decoded[5, 10], RED, atol=12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files(kind, share):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    content = encode(Image.fromarray(noise), kind)
    with pytest.raises(BadImage):
        read_image(content[:int(len(content) * share)])


def test_what_is_no_image(tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    page = tmp_path / "page.jpg"
    page.write_bytes(b"<html><body>404</body></html>")
    with pytest.raises(BadImage, match="^empty file$"):
        read_image(str(empty))
    with pytest.raises(BadImage, match="^not an image in a known format$"):
        read_image(str(page))
    with pytest.raises(BadImage, match="^no such file$"):
        read_image(str(tmp_path / "missing.jpg"))
    with pytest.raises(BadImage, match="^Is a directory$"):
        read_image(str(tmp_path))
    fifo = str(tmp_path / "pipe.jpg")
    os.mkfifo(fifo)
    with pytest.raises(BadImage):
        read_image(fifo)  # must not wait for a writer


def test_postscript_is_no_image():
    """Pillow would have Ghostscript, a program of another kind, run what is in the file."""
    drawing = encode(Image.new("RGB", (64, 64), RED), "EPS")
    assert Image.open(io.BytesIO(drawing)).format == "EPS"
    with pytest.raises(BadImage, match="^not an image in a known format$"):
        read_image(drawing)


def test_oversized_images_are_not_decoded():
    """A PNG header that claims 60,000 x 60,000 pixels, and a limit given by the caller."""
    header = (60000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    with pytest.raises(BadImage, match="more than"):
        read_image(bomb)
    with pytest.raises(BadImage, match="20 x 10 pixels, more than 100"):
        read_image(encode(Image.new("RGB", (20, 10)), "PNG"), max_pixels=100)


def test_large_jpegs_are_decoded_at_reduced_scale():
    """To nearly the same image, never below the size asked for, and whole or not at all."""
    waves = np.sin(np.linspace(0, 12, 640))[:, np.newaxis] + np.cos(np.linspace(0, 9, 960))
    image = Image.fromarray(np.uint8(255 * (waves - waves.min()) / np.ptp(waves))).convert("RGB")
    content = encode(image, "JPEG", quality=95)
    for least_size, shape in ((64, (80, 120, 3)), (128, (160, 240, 3)), (320, (320, 480, 3)),
                              (321, (640, 960, 3)), (None, (640, 960, 3))):
        assert read_image(content, least_size=least_size).shape == shape
    close(resize(read_image(content, least_size=128), 64, 64), resize(np.asarray(image), 64, 64), 3)
    assert read_image(encode(image, "PNG"), least_size=64).shape == (640, 960, 3)
    with pytest.raises(BadImage):
        read_image(content[:-200], least_size=64)
    with pytest.raises(BadImage, match="more than 4,000"):
        read_image(content, max_pixels=1000, least_size=64)


def test_a_jpeg_of_more_pixels_than_are_decoded():
    """At 1/2 of its size up to four times as many; other kinds are refused."""
    image = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1)))
    content = encode(image, "JPEG", quality=95)
    assert read_image(content, max_pixels=20000).shape == (100, 200, 3)
    for least, allowed, shape in ((None, 19999, (50, 100)), (None, 5000, (50, 100)),
                                  (80, 5000, (50, 100)), (20, 5000, (25, 50))):
        check_header(content, allowed)
        small = read_image(content, allowed, least)
        assert small.shape == shape + (3,)
    close(small, resize(np.asarray(image.convert("RGB")), 25, 50), 3)
    assert upright_size(content) == (200, 100)
    progressive = encode(image, "JPEG", progressive=True)
    assert read_image(progressive, 14000).shape == (50, 100, 3)
    for refused, allowed in ((content, 4999), (progressive, 13000), (encode(image, "PNG"), 19999)):
        with pytest.raises(BadImage, match="200 x 100 pixels, more than"):
            check_header(refused, allowed)
        with pytest.raises(BadImage, match="200 x 100 pixels, more than"):
            read_image(refused, allowed)


def test_the_jpegs_of_current_phones():
    """108 and 200 megapixels; Pillow itself would refuse the second as a decompression bomb."""
    assert read_image(encode(Image.new("L", (12000, 9000), 90), "JPEG")).shape == (4500, 6000, 3)
    content = encode(Image.new("L", (16320, 12240), 90), "JPEG")
    check_header(content, MAX_PIXELS // 2)
    assert upright_size(content) == (16320, 12240)
    assert read_image(content, least_size=900).shape == (1530, 2040, 3)


def test_resize_averages_when_it_shrinks():
    stripes = np.tile(np.array([0, 255], np.uint8), (8, 4))[..., None].repeat(3, axis=2)
    assert set(resize(stripes, 4, 4).ravel()) <= {127, 128}
    assert resize(stripes, 8, 8) is stripes


def test_find_images(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.webp", ".git/d.jpg",
                 "results/face/e.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = [os.path.relpath(path, str(tmp_path)) for path in find_images(
        str(tmp_path), exclude={os.path.realpath(str(tmp_path / "results"))})]
    assert found == ["a.PNG", "b.jpg", "sub/c.webp"]


@pytest.mark.parametrize("compression", [
    None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_a_tiff_is_turned_once(picture, tmp_path, orientation, compression):
    """Pillow turns a TIFF while it loads it, from a file as well as from memory."""
    options = {"compression": compression} if compression else {}
    content = encode(Image.fromarray(picture), "TIFF", tiffinfo={0x0112: orientation}, **options)
    path = tmp_path / "picture.tif"
    path.write_bytes(content)
    expected = ORIENTATIONS[orientation](picture)
    close(read_image(content), expected, 8)
    close(read_image(str(path)), expected, 8)


@pytest.mark.parametrize("kind, tolerance", [("PNG", 0), ("WEBP", 12), ("MPO", 6)])
@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_orientation_in_other_formats(picture, kind, tolerance, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(picture), kind, exif=exif, quality=95)
    close(read_image(content), ORIENTATIONS[orientation](picture), tolerance)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "TIFF", "GIF"])
@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_the_upright_size_is_that_of_the_decoded_picture(picture, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(picture), kind, **({} if kind == "GIF" else {"exif": exif}))
    assert upright_size(content) == read_image(content).shape[1::-1]


def test_no_upright_size(tmp_path):
    os.mkfifo(str(tmp_path / "pipe.jpg"))
    for source, cause in ((str(tmp_path / "pipe.jpg"), "not a regular file"), (b"", "empty file"),
                          (b"text", "not an image"), (b"%!PS-Adobe-3.0\n%%BoundingBox: 0 0 9 9\n",
                                                     "not an image in a known format")):
        with pytest.raises(BadImage, match=cause):
            upright_size(source)


def test_every_extension_of_the_formats_is_listed():
    assert {".bmp", ".gif", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".pbm",
            ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp"} <= set(EXTENSIONS)
    assert not set(EXTENSIONS) & set(VIDEO_EXTENSIONS + (".eps", ".pdf", ".ps"))


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found_under(folder, **options):
    return [os.path.relpath(path, str(folder)) for path in find_images(str(folder), **options)]


def test_links_to_folders_are_followed_once(tmp_path):
    """Loops, two links to one folder, a link to itself and a dangling one."""
    fill(tmp_path, "store/dogs/1.jpg", "neg/cats/2.jpg")
    for place, target in (("neg/dogs", "../store/dogs"), ("neg/dogs2", "../store/dogs"),
                          ("neg/cats/up", ".."), ("neg/cats/here", "."), ("neg/self", "self"),
                          ("neg/gone", "nowhere"), ("neg/one.jpg", "../store/dogs/1.jpg")):
        os.symlink(target, str(tmp_path / place))
    skipped = Skipped()
    assert found_under(tmp_path / "neg", report=skipped.add) == [
        "one.jpg", "cats/2.jpg", "dogs/1.jpg"]
    assert skipped.counts == {"unknown extension": 2}


def test_what_is_skipped_is_reported(tmp_path, monkeypatch):
    fill(tmp_path, "a.jpg", "film.mp4", "b/film.MOV", "notes.txt", "no_extension", "c.heic",
         ".hidden.jpg", ".git/x.jpg", "locked/y.jpg", "out/z.txt")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    skipped = Skipped()
    assert not skipped
    exclude = {os.path.realpath(str(tmp_path / "out"))}
    assert found_under(tmp_path, report=skipped.add, exclude=exclude) == [
        "a.jpg", "c.heic"]
    assert skipped.counts == {"video": 2, "unknown extension": 2, "hidden": 2,
                              "unreadable folder: Permission denied": 1}
    assert len(skipped) == 7
    assert "2 video ({}, {})".format(
        tmp_path / "film.mp4", tmp_path / "b" / "film.MOV") in str(skipped)


def test_skipped_is_one_line_with_few_examples():
    skipped = Skipped()
    for number in range(2000):
        skipped.add("odd\n{}.txt".format(number), "unknown extension")
    assert str(skipped) == (
        "2,000 unknown extension (odd\\n0.txt, odd\\n1.txt, odd\\n2.txt, ...)")


def test_a_search_is_lazy_and_survives_deep_folders(tmp_path):
    fill(tmp_path, "a.jpg", "/".join(["deep"] * 200) + "/b.jpg")
    paths = find_images(str(tmp_path))
    assert next(paths).endswith("a.jpg")
    assert next(paths).endswith("b.jpg")
    assert list(paths) == []


def test_a_folder_that_is_not_there():
    skipped = Skipped()
    assert list(find_images("no/such/folder", report=skipped.add)) == []
    assert "No such file" in str(skipped)
