"""Which decoder opens a file: HEIC, and what an old Pillow must not decode."""

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image, WebPImagePlugin

from darknet_face.images import formats
from darknet_face.images.contact_sheets import encode
from darknet_face.images.decode import (
    BadImage,
    check_header,
    read_image,
    read_pillow,
    read_size,
    upright_size,
)

RNG = np.random.RandomState(0)
COLOURS = np.kron(RNG.randint(0, 256, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def webp(kind):
    image, turned = Image.fromarray(COLOURS), Image.Exif()
    turned[0x0112] = 6
    if kind == "alpha":
        image.putalpha(Image.fromarray(np.tile(np.arange(48, dtype=np.uint8) * 5, (32, 1))))
    options = {"lossy": {}, "turned": {"exif": turned, "lossless": True},
               "animated": {"save_all": True, "append_images": [image.rotate(180)]}}
    return encode(image, "WEBP", **options.get(kind, {"lossless": True}))


@pytest.fixture
def old_decoders(monkeypatch):
    """Pillow as it is for Python 3.7; its own decoder of WebP must not be reached."""
    def refuse(*_):
        raise AssertionError("Pillow decodes WebP")

    monkeypatch.setattr(formats, "HAS_OLD_DECODERS", True)
    monkeypatch.setattr(WebPImagePlugin.WebPImageFile, "_open", refuse)


# Symbols by the length of their codes, 1 to 15: the complete codes of 280 and of 256 symbols with
# the largest tables, and an incomplete one of 40 symbols, whose table is larger than any complete
# one's.
GREEN = (1, 1, 0, 0, 0, 0, 0, 0, 75, 53, 81, 33, 33, 1, 2)
OTHERS = (1, 1, 0, 0, 0, 0, 0, 0, 83, 45, 73, 17, 33, 1, 2)
DISTANCE = (0, 0, 0, 0, 0, 0, 0, 1, 7, 17, 9, 1, 1, 1, 3)


def overflowing_webp():
    """A lossless WebP that ends a process with libwebp before 1.3.2 (CVE-2023-4863)."""
    order = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    bits = [(0x2f, 8), (15, 14), (15, 14), (0, 1), (0, 3), (0, 1), (0, 1), (0, 1)]
    for counts in (GREEN, OTHERS, OTHERS, OTHERS, DISTANCE):
        bits += [(0, 1), (15, 4)] + [(4 if symbol < 16 else 0, 3) for symbol in order] + [(0, 1)]
        for length, count in enumerate(counts, 1):
            bits += [(int("{:04b}".format(length)[::-1], 2), 4)] * count
    text = "".join("{:0{}b}".format(value, width)[::-1] for value, width in bits) + "0" * 800
    content = int(text[::-1], 2).to_bytes(len(text) // 16 * 2 + 2, "little")
    chunk = b"VP8L" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def test_a_webp_that_overflows_old_decoders():
    for _ in range(3):
        with pytest.raises(BadImage):
            read_image(overflowing_webp())
    assert read_size(overflowing_webp()) == (16, 16)


def test_the_pinned_pillow_of_python_37_is_old():
    assert (sys.version_info < (3, 8)) == formats.HAS_OLD_DECODERS


@pytest.mark.parametrize("kind", ["lossless", "lossy", "alpha", "turned", "animated"])
def test_opencv_decodes_webp_as_pillow_does(kind, request, tmp_path):
    content = webp(kind)
    with Image.open(io.BytesIO(content)) as image:
        expected = image.convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", expected.size, "white"), expected)
    expected = np.asarray(expected.convert("RGB"))
    if kind == "turned":
        expected = np.rot90(expected, -1)
    request.getfixturevalue("old_decoders")
    path = tmp_path / "image.png"  # whatever its name says
    path.write_bytes(content)
    for source in (content, str(path)):
        np.testing.assert_array_equal(read_image(source), expected)
        assert read_size(source) == (48, 32)
        assert upright_size(source) == expected.shape[1::-1]
    with pytest.raises(BadImage, match="48 x 32 pixels, more than 1,000"):
        check_header(content, 1000)
    with pytest.raises(BadImage, match="48 x 32 pixels, more than 1,000"):
        read_image(content, 1000)


def test_a_webp_opened_by_an_old_pillow(monkeypatch):
    image = Image.open(io.BytesIO(webp("lossy")))
    monkeypatch.setattr(formats, "HAS_OLD_DECODERS", True)
    with pytest.raises(BadImage, match="give its path or its bytes"):
        read_pillow(image)
    assert read_pillow(image.convert("RGB")).shape == (32, 48, 3)


@pytest.mark.parametrize("damage", [
    lambda content: content[:30], lambda content: content[:-200], lambda content: content[:12],
    lambda content: content[:21] + b"\xff" * 100 + content[121:],
    lambda content: content.replace(b"VP8L", b"VP9L")])
def test_damaged_webp(old_decoders, damage):
    with pytest.raises(BadImage):
        read_image(damage(webp("lossless")))


@pytest.mark.parametrize("options, is_read", [
    ({}, True), ({"compression": "tiff_lzw"}, True), ({"compression": "jpeg"}, True),
    ({"compression": "tiff_adobe_deflate"}, True), ({"compression": "packbits"}, True),
    ({"compression": "lzma"}, False)])
def test_tiff_with_an_old_libtiff(old_decoders, options, is_read):
    """Rare compressions are refused, whose decoders nobody has looked at for these versions."""
    try:
        content = encode(Image.fromarray(COLOURS), "TIFF", **options)
    except OSError:
        pytest.skip("this Pillow does not write it")
    if is_read:
        assert read_image(content).shape == (32, 48, 3)
        return
    with pytest.raises(BadImage, match=r"a kind of TIFF .* RUNTIME=tf2"):
        read_image(content)


def test_a_tiff_in_ycbcr_without_jpeg(old_decoders):
    content = encode(Image.fromarray(COLOURS).convert("YCbCr"), "TIFF")
    with pytest.raises(BadImage, match="a kind of TIFF"):
        read_image(content)


@pytest.fixture
def heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    turned, stream = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6
    image = pillow_heif.from_pillow(Image.fromarray(COLOURS))
    image.save(stream, quality=95, exif=turned.tobytes())
    return stream.getvalue()


def test_heic(heic, tmp_path):
    """What iPhones write. The decoder turns it, and it is not turned again."""
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(heic)
    upright = np.rot90(COLOURS, -1)
    for source in (heic, str(path)):
        image = read_image(source)
        assert image.shape == upright.shape and upright_size(source) == (32, 48)
        assert np.abs(image.astype(int) - upright).mean() < 6
    with pytest.raises(BadImage, match="32 x 48 pixels, more than 1,000"):
        read_image(heic, 1000)
    for damaged in (heic[:-100], heic[:100]):
        with pytest.raises(BadImage):
            read_image(damaged)


def test_heic_that_is_not_read(monkeypatch):
    content = b"\0\0\0\x1cftypheic" + bytes(100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(formats, "HAS_OLD_DECODERS", False)
    with pytest.raises(BadImage, match="pip install pillow-heif"):
        read_image(content)
    monkeypatch.setattr(formats, "HAS_OLD_DECODERS", True)
    with pytest.raises(BadImage, match="RUNTIME=tf2"):
        read_image(content)
