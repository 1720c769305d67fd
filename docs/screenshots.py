"""Make the screenshots of serve.py's page: docs/page.jpg, and docs/page-phone.jpg as on a phone.

    python docs/screenshots.py

It starts serve.py with the newest model, or the released one, and opens the page in a headless
Chromium (``apt-get install chromium chromium-driver``) with six of scikit-image's images.
"""

import argparse
import io
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from darknet_face.console import UserError, cli
from darknet_face.images.samples import sample_images
from darknet_face.runtime.atomic_files import write_atomically

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHOTS = {"page.jpg": (1180, 6), "page-phone.jpg": (390, 3)}  # width in pixels, images
QUALITY = 85
LONGEST = 300  # seconds for all answers


def open_browser():
    """A headless Chromium."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        raise UserError("no chromium and chromedriver on the path; install them")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for each in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(each)
    return webdriver.Chrome(service=Service(driver), options=options)


def shoot(browser, url, width, images):
    """Show images on the page, with boxes and heat maps; return all of it as a Pillow image."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False})
    browser.get(url)
    browser.find_element(By.ID, "maps").click()
    browser.find_element(By.ID, "files").send_keys("\n".join(images))
    WebDriverWait(browser, LONGEST).until(lambda _: len(browser.find_elements(
        By.CSS_SELECTOR, ".map:not([hidden])")) == len(images))
    height = browser.execute_script("return document.documentElement.scrollHeight")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


@cli
def main():
    parser = argparse.ArgumentParser(description="Make the screenshots of serve.py's page.")
    parser.add_argument("--output-dir", default=os.path.dirname(os.path.abspath(__file__)),
                        help="where the images go (default: docs)")
    args = parser.parse_args()
    browser = open_browser()
    server = subprocess.Popen([sys.executable, os.path.join(ROOT, "serve.py"), "--port", "0"],
                              stdout=subprocess.PIPE, universal_newlines=True)
    try:
        found = re.search(r"open (http://\S+) ", "".join(iter_until(server.stdout, "open ")))
        if not found:
            raise UserError("serve.py did not start; see above", exit_code=1)
        for name, (width, count) in SHOTS.items():
            path = os.path.join(args.output_dir, name)
            image = shoot(browser, found.group(1), width, sample_images()[:count])
            with write_atomically(path) as stream:
                image.save(stream, "JPEG", quality=QUALITY, optimize=True)
            print("wrote {}: {} x {}".format(path, *image.size))
    finally:
        server.terminate()
        server.communicate()
        browser.quit()


def iter_until(lines, start):
    """Yield lines up to one that begins with ``start``."""
    for line in lines:
        yield line
        if line.startswith(start):
            return


if __name__ == "__main__":
    main()
