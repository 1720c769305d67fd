"""The page of serve.py in a real headless browser. Skipped where there is no Chromium.

On Debian and Ubuntu ``apt-get install chromium chromium-driver`` brings what this needs.
"""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from conftest import make_odd_files
from PIL import Image
from serving_process import served

from darknet_face import load
from darknet_face.images.samples import sample_images

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium and chromedriver on the path")
HOSTILE = "<img src=x onerror=document.title=1>.png"


def open_browser(*arguments):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for each in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                 "--window-size=1200,900") + arguments:
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(service=Service(DRIVER), options=options)


@pytest.fixture(scope="module")
def server(tiny_model, tmp_path_factory):
    errors = str(tmp_path_factory.mktemp("page") / "errors")
    with served(tiny_model.folder, errors, "--search", 2, "--queue", 4) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    browser = open_browser()
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Eight images, one of them with a hostile name, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number in range(8):
        source = Image.open(sample_images()[number % 4]).convert("RGB")
        path = str(folder / (HOSTILE if number == 3 else "{}.png".format(number)))
        source.crop((10 * number, 0, 10 * number + 200, 150)).save(path)
        paths.append(path)
    make_odd_files(folder / "odd")
    return paths + [str(folder / "odd" / "page.jpg")]


def cards(browser):
    return browser.find_elements(By.CSS_SELECTOR, ".card")


def labels(browser):
    return [each.text for each in browser.find_elements(By.CSS_SELECTOR, ".card .label")]


def wait(browser, condition):
    return WebDriverWait(browser, 120).until(lambda _: condition())


def set_threshold(browser, value):
    browser.execute_script(
        "const slider = document.getElementById('threshold'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input'));", value)


@pytest.fixture
def page(server, browser, files):
    """The page with all files chosen and answered."""
    browser.get(server.url)
    wait(browser, lambda: browser.find_element(By.ID, "model").text)
    browser.find_element(By.ID, "files").send_keys("\n".join(files))
    wait(browser, lambda: len(cards(browser)) == len(files) and "waiting" not in labels(browser))
    return browser


@pytest.fixture(scope="module")
def results(tiny_model, files):
    with load(tiny_model.npz, search=2, tight_boxes=True) as model:
        return model(files)


def test_the_answers_are_those_of_the_api(page, files, results):
    assert [each.text for each in page.find_elements(By.CSS_SELECTOR, ".name")] == [
        os.path.basename(path) for path in files]
    assert page.title == "Face or not?", "the hostile name did not run"
    assert labels(page) == ["Face" if result.is_face else "No face" for result in results[:-1]] + [
        "page.jpg: " + results[-1].error]
    shown = [each.text for each in page.find_elements(By.CSS_SELECTOR, ".probability")]
    assert shown == ["{:.4f}".format(result.probability) for result in results[:-1]] + [""]
    faces = sum(result.is_face for result in results[:-1])
    assert page.find_element(By.ID, "summary").text == (
        "{} with a face, {} without, 1 unreadable".format(faces, 8 - faces))


def test_the_slider_changes_the_answers_at_once(page, results):
    probabilities = [result.probability for result in results[:-1]]
    for threshold in (0, 0.3, 0.8, 1):
        set_threshold(page, threshold)
        assert labels(page)[:-1] == [
            "Face" if probability >= threshold else "No face" for probability in probabilities]
        assert page.find_element(By.ID, "shown").text == "{:.2f}".format(threshold)
    set_threshold(page, 0.5)


def test_the_box_is_where_the_api_says(page, results):
    set_threshold(page, 0)
    for card, result in zip(cards(page), results[:-1]):
        photo, box = (card.find_element(By.CSS_SELECTOR, name).rect for name in (".photo", ".box"))
        scale = photo["width"] / 200
        expected = [photo["x"] + result.box.x * scale, photo["y"] + result.box.y * scale,
                    result.box.width * scale, result.box.height * scale]
        np.testing.assert_allclose(
            [box["x"], box["y"], box["width"], box["height"]], expected, atol=2)
    page.find_element(By.ID, "boxes").click()
    assert not any(each.is_displayed() for each in page.find_elements(By.CSS_SELECTOR, ".box"))
    page.find_element(By.ID, "boxes").click()
    set_threshold(page, 0.5)


def test_heat_maps_come_when_asked_for(page):
    def maps():
        return [each for each in page.find_elements(By.CSS_SELECTOR, ".map") if each.is_displayed()]

    assert maps() == []
    page.find_element(By.ID, "maps").click()
    wait(page, lambda: len(maps()) == 8)
    wait(page, lambda: all(page.execute_script("return arguments[0].naturalWidth", each) == 200
                           for each in maps()))
    page.find_element(By.ID, "maps").click()
    assert maps() == []


def test_the_table_has_the_answers_of_the_page(page, files, results):
    rows = list(csv.DictReader(page.execute_script("return table()").splitlines()))
    assert page.find_element(By.ID, "table").is_enabled()
    assert [row["file"] for row in rows] == [os.path.basename(path) for path in files]
    for row, result in zip(rows[:-1], results):
        assert row["class"] == result.label and not row["error"]
        assert float(row["face_probability"]) == pytest.approx(result.probability, abs=1e-6)
        assert [int(row[name]) for name in ("x", "y", "width", "height")] == list(result.box)
    assert rows[-1]["class"] == "" and rows[-1]["error"]
    assert page.execute_script("return quoted('=1+1')") == "'=1+1"


def test_the_command_is_copied_and_runs(page, server):
    command = page.find_element(By.ID, "curl").text
    assert command == "curl --data-binary @photo.jpg '{}/classify'".format(server.url)
    page.find_element(By.ID, "copy").click()
    wait(page, lambda: page.find_element(By.ID, "copy").text == "Copied")


def test_a_sample_is_classified_by_the_keyboard_alone(page, server):
    page.get(server.url)
    wait(page, lambda: page.find_elements(By.CSS_SELECTOR, "#samples button"))
    ActionChains(page).send_keys(Keys.TAB).perform()
    assert page.switch_to.active_element.get_attribute("id") == "files"
    ActionChains(page).send_keys(Keys.TAB, Keys.ENTER).perform()
    wait(page, lambda: labels(page) and labels(page)[0] in ("Face", "No face"))
    assert not page.find_element(By.ID, "samples").is_displayed()
    wait(page, lambda: page.find_element(By.ID, "table").is_enabled())


def test_it_says_where_images_go(page):
    where = page.find_element(By.ID, "where")
    assert where.text == "They stay on this computer."
    page.execute_script("tellWhere(false)")
    assert "without encryption, and not stored there" in where.text
    page.execute_script("tellWhere(true)")


def test_a_video_is_told_where_to_go(page, files):
    page.execute_script("take([new File(['x'], 'film.mp4', {type: 'video/mp4'})])")
    assert labels(page)[-1].startswith("a video: darknet-face film.mp4 --annotate")


def test_dropped_images_are_taken_and_cleared(page, files):
    page.execute_script("""
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 64;
        canvas.toBlob((blob) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([blob], "dropped.png", {type: "image/png"}));
          document.getElementById("drop").dispatchEvent(
              new DragEvent("drop", {bubbles: true, dataTransfer: transfer}));
        });""")
    wait(page, lambda: len(cards(page)) == len(files) + 1)
    wait(page, lambda: labels(page)[-1] in ("Face", "No face"))
    page.find_element(By.ID, "clear").click()
    assert cards(page) == [] and page.find_element(By.ID, "summary").text == ""


def test_the_page_asks_this_server_alone_and_logs_no_error(page, server):
    page.get_log("performance")
    page.get_log("browser")
    page.refresh()
    wait(page, lambda: page.find_element(By.ID, "model").text)
    requested = []
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requested.append(message["params"]["request"]["url"])
    assert server.url + "/page.js" in requested
    assert all(url.startswith((server.url, "data:")) for url in requested)
    assert page.get_log("browser") == []


def test_a_page_from_elsewhere_cannot_use_it(browser, server, tmp_path):
    strange = tmp_path / "strange.html"
    strange.write_text("<title>strange</title>")
    browser.get("file://" + str(strange))
    outcome = browser.execute_async_script("""
        const done = arguments[arguments.length - 1];
        fetch(arguments[0] + "/classify", {method: "POST", body: "x", mode: "no-cors"})
          .then(() => fetch(arguments[0] + "/healthz")).then(() => done("read"), () => done("no"));
        """, server.url)
    assert outcome == "no"
