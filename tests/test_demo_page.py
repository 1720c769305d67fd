"""The page of docs/demo: the detector in a headless Chromium finds what it finds in Python.

Skipped where Chromium, npm or its registry is missing.
"""

import dataclasses
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse

import cv2
import numpy as np
import pytest
from PIL import Image
from test_page import BROWSER, DRIVER, HOSTILE, By, cards, labels, open_browser, wait

from darknet_face.detection.calibration import Calibration, log_odds
from darknet_face.detection.detector import LEAST_SCORE, OnePassDetector
from darknet_face.detection.model_file import Spec, read_detector, write_detector
from darknet_face.detection.pyramid import variable_shapes
from darknet_face.images.decode import read_image
from darknet_face.images.samples import sample_images

BUILD = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                     "docs", "demo", "build.py")
SPEC = Spec(width=0.02, channels=4, image_size=192, threshold=0.6225, calibration=Calibration(
    alone=(-0.4, 0.8), together=(-1.0, 0.5, 0.25), margin=1.8, most_boxes=2, hopeless=-3.0,
    certain=4.0, whole=(0.0, 1.0, 0.0), unlikely=-1.0, likely=1.0, others=0.0, classifier=""))
# Where areas are averaged, a pixel may be rounded to the next level of 255.
PROBABILITY_BOUND, BOX_BOUND = 2e-3, 5e-3  # boxes: shares of the sides


def build(*options, **environment):
    return subprocess.run([sys.executable, BUILD, *map(str, options)], capture_output=True,
                          text=True, env=dict(os.environ, **environment), timeout=600)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """The path of a small detector with random weights, so large that each image has its answer."""
    rng = np.random.RandomState(0)
    weights = {name: rng.randn(*shape) * 1.8 / np.sqrt(np.prod(shape[:3])) if len(shape) == 4
               else np.full(shape, float(name.endswith(("gamma", "variance"))))
               for name, shape in variable_shapes(SPEC.width, SPEC.channels).items()}
    path = str(tmp_path_factory.mktemp("detector") / "detector.npz")
    write_detector(path, weights, SPEC)
    return path


@pytest.fixture(scope="module")
def site(detector, tmp_path_factory):
    if not (BROWSER and DRIVER):
        pytest.skip("no chromium and chromedriver on the path")
    if not shutil.which("npm"):
        pytest.skip("no npm on the path")
    folder = str(tmp_path_factory.mktemp("demo") / "site")
    outcome = build("--detector", detector, "--out", folder)
    if "npm can't fetch" in outcome.stderr:
        pytest.skip("npm's registry is out of reach: " + outcome.stderr.strip()[:200])
    assert outcome.returncode == 0, outcome.stderr
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url(site):
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield "http://127.0.0.1:{}/".format(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(url):
    browser = open_browser()
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images that keep their size, are scaled down little or much, are turned, are transparent."""
    folder = tmp_path_factory.mktemp("pictures")
    samples = {os.path.basename(path): path for path in sample_images()}
    paths = [samples[name] for name in ("astronaut.png", "chelsea.png", "hubble_deep_field.jpg")]
    astronaut = Image.open(samples["astronaut.png"]).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    astronaut.crop((60, 0, 460, 300)).rotate(90, expand=True).save(
        str(folder / "turned.jpg"), exif=exif, quality=95)
    astronaut.crop((150, 0, 330, 100)).save(str(folder / HOSTILE))
    clear = astronaut.resize((384, 384))
    clear.putalpha(Image.linear_gradient("L").resize((384, 384)))
    clear.save(str(folder / "clear.png"))
    return paths + [str(folder / name) for name in ("turned.jpg", HOSTILE, "clear.png")]


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name, content in (("text.png", b"no image"), ("empty.jpg", b""), ("film.mp4", b"film")):
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in ("text.png", "empty.jpg", "film.mp4")]


@pytest.fixture(scope="module")
def page(url, browser, images, bad_files):
    """The page with all files chosen and answered."""
    browser.get(url)
    wait(browser, lambda: "ready" in browser.find_element(By.ID, "model").text)
    browser.find_element(By.ID, "files").send_keys("\n".join(images + bad_files))
    wait(browser, lambda: len(labels(browser)) == len(images + bad_files)
         and "waiting" not in labels(browser))
    return browser


@pytest.fixture(scope="module")
def expected(detector, images):
    """Boxes and probabilities of Python's detector alone, of each image."""
    factor = SPEC.calibration.alone[1]
    bias = -factor * log_odds(SPEC.threshold)  # 0.5 is the threshold of the detector alone
    answers = []
    with OnePassDetector(*read_detector(detector), min_score=LEAST_SCORE) as detect:
        for path in images:
            boxes, scores = detect(read_image(path))
            answers.append((boxes, 1 / (1 + np.exp(-bias - factor * log_odds(scores)))))
    return answers


def shown_boxes(card):
    return np.array([[float(part.split(":")[1].strip(" %;")) / 100
                      for part in box.get_attribute("style").split("; ")]
                     for box in card.find_elements(By.CSS_SELECTOR, ".box")]).reshape(-1, 4)


def test_boxes_and_probabilities_are_those_of_python(page, images, expected):
    best = {round(probabilities[0], 2) for _, probabilities in expected}
    assert len(best) == len(images) and max(best) < 0.99, "each image has an answer of its own"
    assert any((probabilities >= 0.5).sum() > 1 for _, probabilities in expected)
    for card, path, (boxes, probabilities) in zip(cards(page), images, expected):
        shown = float(card.find_element(By.CSS_SELECTOR, ".probability").text)
        assert shown == pytest.approx(probabilities.max(), abs=PROBABILITY_BOUND), path
        found, sure = shown_boxes(card), probabilities >= 0.5 + PROBABILITY_BOUND
        found[:, 2:] += found[:, :2]
        distances = np.abs(boxes[sure][:, None] - found).max(2)
        assert distances.min(1).max(initial=0) <= BOX_BOUND, path
        assert sure.sum() <= len(found) <= (probabilities >= 0.5 - PROBABILITY_BOUND).sum(), path
        label = card.find_element(By.CSS_SELECTOR, ".label").text
        assert label == {0: "No face", 1: "1 face"}.get(len(found), "{} faces".format(len(found)))
    assert page.title == "Faces in your images", "the hostile name did not run"


def test_pixels_are_averaged_as_in_python(page, images):
    for path in images:
        content = np.fromfile(path, np.uint8)
        found = page.execute_async_script("""
            const [content, done] = arguments;
            import("./detector.js").then(async ({scaledPixels}) => {
              const result = await scaledPixels(new Blob([new Uint8Array(content)]), 192);
              done([result.rows, result.columns, [...result.pixels]]);
            });""", content.tolist())
        rows, columns, pixels = found
        wanted = cv2.resize(read_image(path), (columns, rows), interpolation=cv2.INTER_AREA)
        levels = np.abs(np.reshape(pixels, (rows, columns, 3)) - wanted.astype(int))
        assert levels.max() <= 1 and (levels > 0).mean() < 0.02, path


def test_bad_files_have_a_line_each(page, images):
    assert labels(page)[len(images):] == ["not an image that this browser can read"] * 2 + [
        "a video; this page takes images"]
    assert page.find_element(By.ID, "summary").text.endswith(", 3 unreadable")


def test_nothing_leaves_this_computer(page, url):
    requested = page.execute_script(
        "return performance.getEntriesByType('resource').map((each) => each.name)")
    assert url + "onnxruntime.wasm" in requested
    assert all(each.startswith((url, "blob:" + url, "data:")) for each in requested)
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            request = message["params"]["request"]
            host = urllib.parse.urlsplit(request["url"].replace("blob:", "")).hostname
            assert request["method"] == "GET" and host in ("127.0.0.1", None), request["url"]
    assert [each for each in page.get_log("browser") if "favicon" not in each["message"]] == []
    outcome = page.execute_async_script("""
        const done = arguments[0];
        document.addEventListener("securitypolicyviolation",
                                  (event) => done(event.effectiveDirective));
        fetch("http://localhost:9/", {method: "POST", body: "x", mode: "no-cors"}).catch(() => 0);
        setTimeout(() => done("not refused"), 20000);""")
    assert outcome == "connect-src"


def test_samples_and_dropped_and_pasted_files_are_taken(page):
    page.find_element(By.ID, "clear").click()
    assert cards(page) == []
    page.find_element(By.CSS_SELECTOR, "#samples button").click()
    wait(page, lambda: labels(page) and "face" in labels(page)[0].lower())
    page.execute_script("""
        const transfer = new DataTransfer();
        transfer.items.add(new File(["x"], "dropped.png", {type: "image/png"}));
        document.dispatchEvent(new DragEvent("drop", {bubbles: true, dataTransfer: transfer}));
        const paste = new ClipboardEvent("paste", {clipboardData: transfer});
        document.dispatchEvent(paste);""")
    wait(page, lambda: len(cards(page)) == 3 and "waiting" not in labels(page))
    assert labels(page)[1:] == ["not an image that this browser can read"] * 2


def test_another_model_file_is_refused(page, url, site):
    path = os.path.join(site, "model.json")
    with open(path) as stream:
        settings = stream.read()
    with open(path, "w") as stream:
        stream.write(settings.replace(json.loads(settings)["sha256"], "0" * 64))
    try:
        page.refresh()
        wait(page, lambda: "Loading" not in page.find_element(By.ID, "model").text)
        assert "is not the file that model.json" in page.find_element(By.ID, "model").text
    finally:
        with open(path, "w") as stream:
            stream.write(settings)


def test_bad_input_is_one_line(detector, tmp_path):
    plain, out = str(tmp_path / "plain.npz"), tmp_path / "site"
    write_detector(plain, read_detector(detector)[0], dataclasses.replace(SPEC, calibration=None))
    (tmp_path / "other.tgz").write_bytes(b"other")
    (tmp_path / "npm").write_text("#!/bin/sh\necho 'npm error network' >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    for options, environment, line in (
            ((tmp_path / "none.npz",), {}, "none.npz: "),
            ((plain,), {}, "plain.npz: it has no calibration; run python -m darknet_face"),
            ((detector,), {"PATH": str(out)}, "no npm on the path"),
            ((detector,), {"PATH": "{}:{}".format(tmp_path, os.environ["PATH"])},
             "npm can't fetch onnxruntime-web@1.30.0 (npm error network); check the network"),
            ((detector, "--runtime", tmp_path / "other.tgz"), {}, "other.tgz: not the archive of")):
        outcome = build("--out", out, "--detector", *options, **environment)
        assert outcome.returncode == 2 and line in outcome.stderr, outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1, outcome.stderr
        assert not out.exists()
