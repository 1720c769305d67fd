"""Which candidates are downloaded, which images are kept, and when a query ends."""

import io
import os
import struct
import zipfile
import zlib

import negatives_runs
import numpy as np
from conftest import chunk
from negatives_program import HURRIED
from negatives_runs import causes, fill, kept, lists
from negatives_server import encode, texture
from PIL import Image
from skimage import data as photographs

from darknet_face.images import decode

# pytest finds fixtures under these names.
server, run = negatives_runs.server, negatives_runs.run


def test_duplicates_within_and_across_queries_are_kept_once(server, run, tmp_path):
    fill(server, "dog", range(10))
    for number in range(5):
        server.add("dog", "copy{}.jpg".format(number), encode(texture(number)))
        small = Image.fromarray(texture(number)).resize((80, 80), Image.BICUBIC)
        server.add("cat", "small{}.png".format(number), encode(np.asarray(small), "PNG"))
        server.add("cat", "{}.jpg".format(number), encode(texture(number)))  # the same address
    fill(server, "cat", range(20, 25))
    code, _, _ = run("--queries", "dog", "cat")
    assert code == 0
    found = kept(tmp_path)
    assert len([name for name in found if name.startswith("dog")]) == 10
    assert len([name for name in found if name.startswith("cat")]) == 5
    expected = {"copy{}.jpg".format(number): "duplicate" for number in range(5)}
    expected.update(("small{}.png".format(number), "near duplicate") for number in range(5))
    expected.update(("{}.jpg".format(number), "duplicate") for number in range(5))
    assert causes(tmp_path) == expected
    assert all(server.hits["{}.jpg".format(number)] == 1 for number in range(5))


def test_no_more_is_fetched_than_asked_for(server, run, tmp_path):
    fill(server, "dog", range(100))
    run("--queries", "dog", "--per-query", "10")
    assert len(kept(tmp_path)) == 10
    assert set(server.hits) == {"search"} | {"{}.jpg".format(number) for number in range(10)}
    before = set(kept(tmp_path))
    trained, _, _ = lists(tmp_path)
    run("--queries", "dog", "--per-query", "70")
    assert before < set(kept(tmp_path)) and len(kept(tmp_path)) == 70
    assert not set(trained) & set(lists(tmp_path)[2])


def test_only_passing_failures_are_tried_again(server, run, tmp_path):
    fill(server, "dog", range(5))
    faults = ["503", "reset", "stall", "429", "403", "407", "424", "404", "html", "noai"]
    for number, fault in enumerate(faults, 10):
        fill(server, "dog", [number], fault)
    run("--queries", "dog", **HURRIED)
    assert len(kept(tmp_path)) == 5
    server.faults.clear()
    server.hits.clear()
    run("--queries", "dog")
    assert server.hits == {"{}.jpg".format(number): 1 for number in range(10, 17)}
    assert len(kept(tmp_path)) == 12
    assert causes(tmp_path) == {"17.jpg": "HTTP 404", "18.jpg": "not an image", "19.jpg": "noai"}


def test_an_outage_ends_a_query_but_not_the_run(server, run, tmp_path):
    """Without an image server no more result pages are fetched; a later run continues."""
    fill(server, "dog", range(4))
    fill(server, "dog", range(4, 200), "503")
    fill(server, "cat", range(200, 204))
    code, _, err = run("--queries", "dog", "cat", retries=0)
    assert code == 0
    assert "dog: 4 images of 500: 50 images in a row could not be fetched" in err
    assert len(kept(tmp_path)) == 8
    assert server.hits["search"] == 3  # two of dog's four pages, one of cat's
    server.faults.clear()
    run("--queries", "dog", "cat")
    assert len(kept(tmp_path)) == 204


def test_search_results_are_looked_at_up_to_a_number(server, run, tmp_path):
    server.results["dog"] = ["{}.jpg".format(number) for number in range(1000)]  # all 404
    fill(server, "cat", range(2000, 2004))
    code, _, err = run("--queries", "dog", "cat", "--per-query", "4")
    assert code == 0
    assert "dog: 0 images of 4: stopped after 140 search results" in err
    assert server.hits["search"] == 3 + 1
    assert sum(server.hits.values()) == 4 + 140 + 4


def test_a_continuation_that_repeats_ends(server, run, tmp_path):
    server.repeats = True
    fill(server, "dog", range(4))
    code, _, err = run("--queries", "dog")
    assert code == 0
    assert len(kept(tmp_path)) == 4
    assert "the service repeats its result pages" in err
    assert server.hits["search"] == 2


def test_pages_without_anything_new_end(server, run, tmp_path):
    """The service offers the same four images on every page."""
    fill(server, "dog", range(4))
    for number in range(100):
        server.search_faults["dog", number] = lambda handler, number=number: handler.send_json(dict(
            handler._wikimedia(list(enumerate(server.results["dog"])), 0, False),
            **{"continue": {"gsroffset": (number + 1) * 50}}))
    code, _, err = run("--queries", "dog")
    assert code == 0
    assert len(kept(tmp_path)) == 4
    assert "5 result pages in a row held nothing new" in err
    assert server.hits["search"] == 6


def test_a_search_is_tried_again_and_goes_on_where_it_failed(server, run, tmp_path):
    fill(server, "dog", range(120))
    answers = iter([b"{", b"{\"error\": {\"code\": \"maxlag\"}}"])

    def stumble(handler):
        answer = next(answers, None)
        if answer is None:
            del server.search_faults["dog", 1]
            handler._search("dog", 1, handler._wikimedia)
        else:
            handler.send_body(answer)

    server.search_faults["dog", 1] = stumble
    server.search_faults["dog", 2] = lambda handler: handler.send_body(b"no", status=503)
    run("--queries", "dog")
    assert len(kept(tmp_path)) == 100
    server.search_faults.clear()
    server.hits.clear()
    run("--queries", "dog")
    assert len(kept(tmp_path)) == 120
    assert server.hits == {"search": 1, **{"{}.jpg".format(n): 1 for n in range(100, 120)}}


def test_faces_are_left_out(server, run, tmp_path):
    face = photographs.astronaut()[:256, 100:356]
    for name, image in [("face", face), ("cat", photographs.chelsea()),
                        ("cup", photographs.coffee()), ("rocket", photographs.rocket())]:
        server.add("things", name + ".png", encode(image, "PNG"))
    code, _, _ = run("--queries", "things", faces=())
    assert code == 0
    assert causes(tmp_path) == {"face.png": "human face"}
    assert len(kept(tmp_path)) == 3
    run("--queries", "things", "--data-dir", tmp_path / "faces")
    assert len(kept(tmp_path / "faces")) == 4


def bomb(width, height):
    """A PNG of a few bytes that claims to be enormous."""
    return (b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def test_pictures_of_unsuitable_size_or_format_are_left_out(server, run, tmp_path):
    fill(server, "dog", range(3))
    server.add("dog", "bomb.png", bomb(60000, 60000))
    server.add("dog", "large.png", bomb(9000, 9000))
    server.add("dog", "narrow.png", encode(texture(10, 63, 500), "PNG"))
    server.add("dog", "strip.png", encode(texture(11, 64, 4000), "PNG"))  # 8 x 512 once shrunk
    server.add("dog", "script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n")
    run("--queries", "dog")
    assert causes(tmp_path) == {"bomb.png": "too many pixels", "large.png": "too many pixels",
                                "narrow.png": "too small", "strip.png": "too small",
                                "script.jpg": "not an image"}
    assert len(kept(tmp_path)) == 3


def test_stored_pictures_are_small_and_carry_nothing_else(server, run, tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("secret.txt", "SECRET")
    marked = Image.Exif()
    marked[0x010E] = "SECRET"
    body = encode(texture(1, 600, 1200), exif=marked.tobytes(), comment=b"SECRET")
    assert b"SECRET" in body
    server.add("dog", "1.jpg", body + archive.getvalue())
    fill(server, "dog", range(2, 5))
    run("--queries", "dog")
    shapes = []
    for name in kept(tmp_path):
        path = str(tmp_path / "neg_samples" / name)
        with open(path, "rb") as stream:
            content = stream.read()
        assert b"SECRET" not in content and b"secret.txt" not in content
        image = decode.read_image(path)
        shapes.append(image.shape[:2])
        assert os.path.basename(name) == decode.pixel_digest(image) + ".jpg"
    assert sorted(shapes) == [(96, 96)] * 3 + [(256, 512)]


def test_the_progress_bar_counts_kept_and_rejected(server, run, tmp_path, monkeypatch):
    fill(server, "dog", range(8))
    fill(server, "dog", range(8, 10), "404")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    _, _, err = run("--queries", "dog", "--per-query", "20")
    assert "dog:" in err and "8/20" in err and "rejected=2" in err and "image/s" in err
