"""The checks that an image passes before it is a negative sample."""

import concurrent.futures
import threading
import time

import numpy as np
from negatives_server import encode, texture
from PIL import Image
from skimage import data as photographs

from darknet_face.images import decode, near_duplicates
from darknet_face.images.file_lists import save_list
from darknet_face.negatives import checks


def test_pictures_one_bit_beyond_the_threshold_are_different():
    bits = np.zeros(256, bool)
    bits[128:] = True
    far = bits.copy()
    far[:near_duplicates.NEAR_BITS + 1] ^= True
    assert len(set(near_duplicates.near_duplicate_groups(np.array([bits, far])))) == 2
    seen = checks.SeenImages()
    seen.add("a", bits)
    assert seen.find("b", far) is None
    far[0] ^= True
    assert len(set(near_duplicates.near_duplicate_groups(np.array([bits, far])))) == 1
    assert seen.find("b", far) == ("near duplicate", "a")


def test_seen_pictures_grow_beyond_their_first_room():
    random = np.random.RandomState(0)
    hashes = random.rand(600, 256) < 0.5
    seen = checks.SeenImages()
    for number, bits in enumerate(hashes):
        assert seen.find(str(number), bits) is None
        seen.add(str(number), bits)
    for number, bits in enumerate(hashes):
        assert seen.find("new", bits) == ("near duplicate", str(number))


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch):
    """50 megapixels of 16-bit grey take 1.7 GB in between: one is enough."""
    lock, under_way, most = threading.Lock(), [], []

    def read_image(*_):
        with lock:
            under_way.append(1)
            most.append(len(under_way))
        time.sleep(0.02)
        with lock:
            under_way.pop()

    monkeypatch.setattr(decode, "read_image", read_image)
    for side, expected in [(2100, 1), (100, 4)]:
        most.clear()
        body = encode(np.zeros((side, side, 3), np.uint8), "PNG")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(checks.decode_download, [body] * 8, [5000000] * 8, [1] * 8))
        assert max(most) == expected


def test_perceptual_hash_survives_scaling_and_compression():
    for number in range(20):
        picture = Image.fromarray(texture(number, 120, 160))
        small = picture.resize((80, 60), Image.LANCZOS)
        squeezed = decode.read_image(encode(np.asarray(small), quality=40))
        first, second, other = (near_duplicates.perceptual_hash(image) for image in (
            np.asarray(picture), squeezed, texture(number + 100, 120, 160)))
        assert np.count_nonzero(first != second) <= near_duplicates.NEAR_BITS
        assert np.count_nonzero(first != other) > 2 * near_duplicates.NEAR_BITS


def test_face_check_on_pictures_lists_and_folders(run_script, tmp_path):
    names = ["astronaut.png", "chelsea.png", "coffee.png"]
    for name in names:
        picture = getattr(photographs, name.split(".")[0])()
        Image.fromarray(picture).save(str(tmp_path / name))
    (tmp_path / "spoiled.jpg").write_bytes(b"x")
    save_list(str(tmp_path / "list.pickle"), names[:2])
    code, out, err = run_script(checks, tmp_path)
    assert code == 0 and "spoiled.jpg: " in err
    assert out.splitlines() == [
        str(tmp_path / "astronaut.png"), "faces found in 1 of 3 images (33.33 %)"]
    code, out, err = run_script(checks, tmp_path / "list.pickle", tmp_path / "coffee.png",
                                "--data-dir", tmp_path)
    assert (code, err) == (0, "") and "faces found in 1 of 3 images" in out
    for missing in ("missing.jpg", "missing.pickle", "spoiled.jpg"):
        code, _, err = run_script(checks, tmp_path / missing)
        assert code == 2 and missing in err.splitlines()[-1]


def test_face_check_prints_names_on_one_line(run_script, tmp_path):
    """A file's name cannot recolour the terminal, or look like two files."""
    name = "a\x1b[31m\nb.png"
    Image.fromarray(photographs.astronaut()).save(str(tmp_path / name))
    code, out, _ = run_script(checks, tmp_path)
    assert code == 0
    assert out.splitlines()[0] == str(tmp_path / "a\\x1b[31m\\nb.png")


def test_a_download_with_bad_remarks_is_read():
    """A PNG whose remark has a wrong checksum: its pixels are whole."""
    image = texture(0)
    body = encode(image, "PNG")
    remark = b"\0\0\0\4tEXta\0bc" + b"\0\0\0\0"
    damaged = body[:33] + remark + body[33:]
    assert np.array_equal(checks.decode_download(damaged, 10 ** 7, 1),
                          checks.decode_download(body, 10 ** 7, 1))
