"""Put the page of this folder together: the detector in the browser, without a server.

    python docs/demo/build.py                   # your own calibrated detector, or the released one
    python -m http.server --directory site      # then open http://localhost:8000

It writes a folder of static files that any web server can publish: the page, the detector as an
ONNX model with its settings (model.json), and ONNX Runtime Web, which npm fetches.
"""

import argparse
import base64
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from darknet19 import STRIDE
from darknet_face.console import HelpFormatter, UserError, cli
from darknet_face.detection import default_detector
from darknet_face.detection import detector as rules
from darknet_face.detection.calibration import log_odds
from darknet_face.detection.model_file import read_spec
from darknet_face.exporters.detector import HALF, export_detector
from darknet_face.images.samples import sample_images
from darknet_face.runtime.atomic_files import staged, write_json

PACKAGE = "onnxruntime-web@1.30.0"
INTEGRITY = (  # SHA-512 of its archive, as npm tells it
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==")
RUNTIME = {  # by the name in the package; .js, since some servers don't know .mjs
    "ort.wasm.min.mjs": "onnxruntime.js",
    "ort-wasm-simd-threaded.mjs": "onnxruntime-wasm.js",
    "ort-wasm-simd-threaded.wasm": "onnxruntime.wasm"}
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PAGE = [os.path.join(HERE, name) for name in ("index.html", "demo.css", "demo.js", "detector.js")]
SERVING = os.path.join(ROOT, "darknet_face", "serving")  # has the style, and images to try
SAMPLES = os.path.join(SERVING, "samples")
THRESHOLD = 0.5
LONGEST = 600  # seconds that npm may take


def fetch_runtime(folder):
    """Let npm fetch its package into a folder; returns the path of the archive."""
    npm = shutil.which("npm")
    if not npm:
        raise UserError("no npm on the path, which fetches {}; install it, or name the package's "
                        "archive by --runtime".format(PACKAGE))
    try:
        outcome = subprocess.run(
            [npm, "pack", PACKAGE, "--prefer-offline", "--loglevel=error", "--fetch-retries=1"],
            cwd=folder, capture_output=True, timeout=LONGEST, text=True)
        failed, cause = outcome.returncode, outcome.stderr
    except subprocess.TimeoutExpired:
        failed, cause = True, "it took {} seconds".format(LONGEST)
    archives = [name for name in os.listdir(folder) if name.endswith(".tgz")]
    if failed or not archives:
        raise UserError("npm can't fetch {} ({}); check the network, or name the package's archive "
                        "by --runtime".format(PACKAGE, (cause.strip().split("\n")[0]) or failed))
    return os.path.join(folder, archives[0])


def unpack_runtime(archive, out):
    """Take the files of RUNTIME out of the package's archive."""
    with open(archive, "rb") as stream:
        digest = base64.b64encode(hashlib.sha512(stream.read()).digest()).decode()
    if digest != INTEGRITY:
        raise UserError("{}: not the archive of {}; let npm pack fetch it again".format(
            archive, PACKAGE))
    with tarfile.open(archive) as package:
        for name, target in RUNTIME.items():
            with package.extractfile("package/dist/" + name) as source, open(
                    os.path.join(out, target), "wb") as stream:
                shutil.copyfileobj(source, stream)


def write_settings(path, spec, model):
    """What the page has to know of the detector, and of the rules that Python goes by."""
    with open(model, "rb") as stream:
        digest = hashlib.sha256(stream.read()).hexdigest()
    slope = spec.calibration.alone[1]  # the page has no classifier: 0.5 is the detector's threshold
    write_json(path, {
        "model": HALF, "sha256": digest, "image_size": spec.image_size, "size_multiple": STRIDE,
        "calibration": (-slope * float(log_odds(spec.threshold)), slope), "threshold": THRESHOLD,
        "min_score": rules.LEAST_SCORE, "nms_iou": rules.NMS_IOU, "nested": rules.NESTED,
        "most_candidates": rules.MOST_CANDIDATES, "most_faces": rules.MOST_FACES,
        "samples": sorted(name for name in os.listdir(SAMPLES) if name.endswith(".jpg")),
        "runtime": PACKAGE})


@cli
def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=HelpFormatter)
    parser.add_argument("--out", default="site", metavar="DIR", help="folder for the site")
    parser.add_argument("--detector", default=default_detector(), metavar="FILE",
                        help="a calibrated file of train_detector.py")
    parser.add_argument("--runtime", metavar="FILE",
                        help="the archive that npm pack {} made (default: npm makes it)".format(
                            PACKAGE))
    args = parser.parse_args()
    spec = read_spec(args.detector)
    if not spec.calibration:
        raise UserError("{}: it has no calibration; run python -m darknet_face.detection.calibrate"
                        .format(args.detector))
    with tempfile.TemporaryDirectory() as fetched, staged(args.out) as folder:
        unpack_runtime(args.runtime or fetch_runtime(fetched), folder)
        with contextlib.redirect_stdout(None):  # it would tell the name of a temporary folder
            export_detector(args.detector, sample_images(), folder, [HALF])
        for path in [*PAGE, *(os.path.join(SERVING, name) for name in ("page.css", "samples.txt"))]:
            shutil.copy(path, folder)
        write_settings(os.path.join(folder, "model.json"), spec, os.path.join(folder, HALF))
        with staged(os.path.join(args.out, "samples")) as inner:
            for name in os.listdir(SAMPLES):
                shutil.copy(os.path.join(SAMPLES, name), inner)
        open(os.path.join(folder, ".nojekyll"), "w").close()  # GitHub: publish files as they are
        size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    print("wrote {}: {:.1f} MB; to try it: {} -m http.server --directory {}".format(
        args.out, size / 1e6, os.path.basename(sys.executable), args.out))


if __name__ == "__main__":
    main()
