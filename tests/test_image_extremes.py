"""Images that are extreme, damaged beside their pixels, or not even files."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import ROOT, chunk
from PIL import Image, PngImagePlugin

from darknet_face.images import decode, to_rgb
from darknet_face.images.contact_sheets import encode
from darknet_face.images.decode import BadImage, read_image
from darknet_face.images.jpeg import count_scans
from darknet_face.images.resize import resize

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks(content):
    """The chunks of a PNG as (name, content)."""
    place = len(SIGNATURE)
    while place < len(content):
        length, name = struct.unpack(">I4s", content[place:place + 8])
        yield name, content[place + 8:place + 8 + length]
        place += length + 12


@pytest.fixture
def picture():
    return np.random.RandomState(0).randint(0, 256, (24, 40, 3)).astype(np.uint8)


def insert(content, after, extra):
    """A PNG with bytes put in after its first chunk of a name."""
    parts = [SIGNATURE]
    for name, body in chunks(content):
        parts.append(chunk(name, body))
        if name == after:
            parts.append(extra)
            after = None
    return b"".join(parts)


LONG = zlib.compress(b"\0" * 3000000)
REMARKS = {
    "large profile": chunk(b"iCCP", b"icc\0\0" + LONG),
    "large text": chunk(b"zTXt", b"Comment\0\0" + LONG),
    "large international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG),
    "broken profile": chunk(b"iCCP", b"icc\0\0" + LONG[:50]),
    "checksum of a text": chunk(b"tEXt", b"Comment\0hello", damage=1),
    "checksum of an unknown one": chunk(b"abCd", b"hello", damage=1),
    "checksum of a gamma": chunk(b"gAMA", b"\0\0\xb1\x8f", damage=1),
    "checksum of a transparent colour": chunk(b"tRNS", b"\0\1\0\1\0\1", damage=1),
    "short transparent colour": chunk(b"tRNS", b"\0"),
    "short physical size": chunk(b"pHYs", b"\0"),
}


@pytest.mark.parametrize("remark", sorted(REMARKS))
@pytest.mark.parametrize("after", [b"IHDR", b"IDAT"])
def test_whole_pixels_beside_bad_remarks(picture, remark, after, tmp_path):
    content = insert(encode(Image.fromarray(picture), "PNG"), after, REMARKS[remark])
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_image(content), picture)
    np.testing.assert_array_equal(read_image(str(path)), picture)


def test_what_matters_survives_bad_remarks(picture):
    """The orientation and the transparent colour."""
    exif = Image.Exif()
    exif[decode.ORIENTATION_TAG] = 6
    content = encode(Image.fromarray(picture), "PNG", exif=exif, transparency=tuple(
        int(value) for value in picture[0, 0]))
    expected = read_image(content)
    assert expected.shape == (40, 24, 3) and tuple(expected[0, -1]) == (255, 255, 255)
    for remark in REMARKS.values():
        np.testing.assert_array_equal(read_image(insert(content, b"IHDR", remark)), expected)


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE"])
def test_critical_chunks_are_still_checked(name):
    whole = encode(Image.new("P", (16, 16), 3), "PNG")
    read_image(whole)
    for remark in (b"", REMARKS["large text"]):
        damaged = SIGNATURE + b"".join(
            chunk(each, body, damage=int(each == name)) + (remark if each == b"IHDR" else b"")
            for each, body in chunks(whole))
        with pytest.raises(BadImage):
            read_image(damaged)


def test_truncated_with_a_bad_remark(picture):
    content = insert(encode(Image.fromarray(picture), "PNG"), b"IHDR", REMARKS["large text"])
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(BadImage):
            read_image(content[:int(len(content) * share)])


def header_only_png(width, height, colour=2):
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header)


@pytest.mark.parametrize("width, height", [(99999999, 1), (1, 99999999), (65536, 2)])
def test_long_sides_are_refused(width, height):
    rows = zlib.compress(b"\0" * 1000)
    content = header_only_png(width, height) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(BadImage, match="a side must have 1 to 65,535"):
        read_image(content)


@pytest.mark.parametrize("size", [(65535, 1), (1, 65535), (65535, 3)])
def test_thin_pictures_come_back_whole(size):
    image = Image.new("RGB", size, (1, 2, 3))
    for kind in ("PNG", "BMP", "TIFF"):
        decoded = read_image(encode(image, kind))
        assert decoded.dtype == np.uint8 and decoded.shape == size[::-1] + (3,)
        assert (decoded == (1, 2, 3)).all()
        assert resize(decoded, 32, 32).shape == (32, 32, 3)


@pytest.mark.parametrize("content", [
    b"P6 0 5 255\n", b"P5 5 0 255\n", b"P6 -1 5 255\n" + b"\0" * 15,
    header_only_png(0, 5), header_only_png(5, 0)])
def test_no_pixels(content):
    with pytest.raises(BadImage):
        read_image(content)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "L", "P", "CMYK", "1", "I;16", "F"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_strips_give_the_same_pixels(monkeypatch, mode, orientation):
    exif = Image.Exif()
    exif[decode.ORIENTATION_TAG] = orientation
    rng = np.random.RandomState(1)
    if mode == "I;16":
        image = Image.fromarray(rng.randint(0, 65536, (50, 30)).astype(np.uint16))
    elif mode == "F":
        image = Image.fromarray(rng.rand(50, 30).astype(np.float32))
    else:
        noise = Image.fromarray(rng.randint(0, 256, (50, 30, 4)).astype(np.uint8), "RGBA")
        image = noise if mode == "RGBA" else noise.convert("RGB").convert(mode)
        if mode == "LA":
            image.putalpha(noise.getchannel("A"))
    options = {"transparency": 5} if mode == "P" else {}
    content = encode(image, "TIFF" if mode in ("CMYK", "F") else "PNG", exif=exif, **options)
    whole = read_image(content)
    assert whole.shape == ((50, 30, 3) if orientation == 1 else (30, 50, 3))
    monkeypatch.setattr(to_rgb, "_STRIP_PIXELS", 200)
    np.testing.assert_array_equal(read_image(content), whole)


def test_a_small_file_costs_little_time_in_a_slow_decoder():
    """Run-length encoded BMP, whose decoder is a loop in Python: each row ends after one pixel."""
    side = 2001
    rows = b"\1\1\0\0" * side
    content = (b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024)
               + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(rows), 0, 0, 256, 256)
               + bytes(range(256)) * 4 + rows)
    with pytest.raises(BadImage, match="slow to decode"):
        read_image(content)


def test_memory_is_bounded(tmp_path):
    """A large image with transparency: 4 bytes per pixel in Pillow, 3 as the answer, and strips.

    In a process of its own, since the peak is that of a process.
    """
    path = str(tmp_path / "large.png")
    Image.new("RGBA", (3000, 3000), (1, 2, 3, 4)).save(path, compress_level=1)
    program = ("import resource, sys; from darknet_face.images.decode import read_image\n"
               "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
               "before = peak(); read_image(sys.argv[1]); print(peak() - before)")
    ended = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, text=True,
                           capture_output=True, check=True)
    assert int(ended.stdout) * 1024 < 12 * 3000 * 3000


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_only_regular_files_are_read(tmp_path, kind):
    path = str(tmp_path / "picture.jpg")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        os.symlink("/dev/zero", path)
    with pytest.raises(BadImage, match="^not a regular file$"):
        read_image(path)


def test_large_remarks_do_not_stop_the_text_limit(picture):
    """Pillow's own limits stay as they are: they are global, and others may rely on them."""
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    read_image(insert(encode(Image.fromarray(picture), "PNG"), b"IHDR", REMARKS["large text"]))
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


def test_a_progressive_jpeg_with_endless_scans_is_refused(picture):
    """Each scan of some 50 bytes costs a pass over all pixels."""
    whole = encode(Image.fromarray(picture), "JPEG", progressive=True, quality=90)
    scans = count_scans(whole)
    assert scans == whole.count(b"\xff\xda") > 5
    assert count_scans(encode(Image.fromarray(picture), "JPEG")) == 1
    assert count_scans(whole + b"\xff\xda\0\2" * 1000) == scans, "after the end of the image"
    last, end = whole.rindex(b"\xff\xda"), whole.rindex(b"\xff\xd9")
    bomb = whole[:end] + whole[last:end] * 500 + whole[end:]
    assert count_scans(bomb) == scans + 500
    with pytest.raises(BadImage, match="scans, more than 64"):
        read_image(bomb)
    thumbnail = b"Exif\0\0" + b"\xff\xda" * 1000  # a segment's content is not looked at
    inside = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + whole[2:]
    np.testing.assert_array_equal(read_image(inside), read_image(whole))
    np.testing.assert_array_equal(read_image(whole, least_size=2), read_image(inside, least_size=2))


@pytest.mark.parametrize("content", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xda", b"\xff" * 99,
                                     b"\xff\xd8\xff\xe0\0\0\xff\xda\xff\xff\xff\xd9"])
def test_scans_of_damaged_files(content):
    assert 0 <= count_scans(content) <= 1
