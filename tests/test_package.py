"""The wheel: what it carries, and that it answers beside modules of a user's own."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

from darknet_face.runtime.safe_files import sha256

pytest.importorskip("hatchling", reason="hatchling is not installed")

BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
# Runs in a folder that has the user's modules; the wheel is on the path.
PROGRAM = """
import json, pkgutil, sys
import darknet_face, model, test, utils
from darknet_face import load
modules = [each.name for each in pkgutil.walk_packages(darknet_face.__path__, "darknet_face.")]
failed = {}
for name in modules + ["darknet19"]:
    try:
        __import__(name)
    except ImportError as error:
        failed[name] = str(error)
has_tensorflow = "tensorflow" in sys.modules
answer = load()(sys.argv[1])
print(json.dumps({
    "package": darknet_face.__file__, "own": [model.OWN, test.OWN, utils.OWN],
    "tensorflow": has_tensorflow, "modules": modules, "failed": failed,
    "probability": answer.probability}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the wheel's files, as pip would lay them."""
    folder = tmp_path_factory.mktemp("wheel")
    name = subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, check=True,
                          stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    with zipfile.ZipFile(str(folder / name)) as wheel:
        wheel.extractall(str(folder / "site"))
    return folder / "site"


@pytest.fixture(scope="module")
def answered(site, tmp_path_factory):
    """What a program of the user's finds, beside modules with names that this project has too."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("utils", "model", "test"):
        (folder / (name + ".py")).write_text("OWN = True\n")
    (folder / "program.py").write_text(PROGRAM)
    from darknet_face.images.samples import sample_images
    image, = [path for path in sample_images() if path.endswith("astronaut.png")]
    ended = subprocess.run(
        [sys.executable, "program.py", image], cwd=str(folder), stdout=subprocess.PIPE, text=True,
        check=True, env=dict(os.environ, PYTHONPATH=str(site)))
    return json.loads(ended.stdout.splitlines()[-1])


def test_the_wheel_has_the_package_and_the_network_only(site):
    assert {name for name in os.listdir(str(site)) if not name.endswith(".dist-info")} == {
        "darknet_face", "darknet19.py"}


def test_the_wheel_has_the_released_weights_and_the_files_beside_modules(site):
    for name in ("py.typed", "serving/page.html", "serving/samples/astronaut.jpg",
                 "evaluation/report.html.j2"):
        assert (site / "darknet_face" / name).exists()
    for name in ("darknet19_face.npz", "darknet19_face_int8.json", "darknet19_detector.npz"):
        carried = site / "darknet_face" / "weights" / name
        assert carried.stat().st_size == os.path.getsize(os.path.join(ROOT, "saved_models", name))


def test_the_wheel_names_the_command(site):
    entry_points, = site.glob("*.dist-info/entry_points.txt")
    assert "darknet-face = darknet_face.command:main" in entry_points.read_text()


def test_it_answers_beside_modules_of_the_users_own(answered, site):
    assert answered["package"].startswith(str(site)) and answered["own"] == [True] * 3
    assert answered["probability"] > 0.99


def test_no_module_imports_tensorflow_when_it_is_imported(answered):
    assert len(answered["modules"]) > 80 and not answered["tensorflow"]


def test_every_module_imports_without_the_chapters_of_the_clone(answered):
    assert answered["failed"] == {}


def test_the_version_has_one_home(site):
    import darknet_face
    assert [path.name for path in site.glob("*.dist-info")] == [
        "darknet_face-{}.dist-info".format(darknet_face.__version__)]


def darknet_face(*arguments):
    return subprocess.run([sys.executable, "-m", "darknet_face.command"] + list(arguments),
                          cwd=ROOT, capture_output=True, text=True)


def test_the_command_tells_its_version():
    ended = darknet_face("--version")
    assert (ended.returncode, ended.stderr) == (0, "") and ended.stdout.startswith("darknet-face ")


@pytest.mark.parametrize("name", ["serve", "export", "info"])
def test_the_command_starts_the_program_that_is_named(name):
    ended = darknet_face(name, "--help")
    assert ended.returncode == 0 and "usage: darknet-face {} ".format(name) in ended.stdout


def test_info_names_model_engine_and_versions(tiny_model):
    ended = darknet_face("info", "--json", "--weights", tiny_model.npz)
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert found["model"]["path"] == tiny_model.npz and found["model"]["image_size"] == 32
    assert found["model"]["sha256"] == sha256(tiny_model.npz) and not found["model"]["released"]
    assert found["engine"]["name"] == "onnxruntime" and found["engine"]["version"]
    assert found["detector"] is None, "none is calibrated for this model"
    assert found["threads"] >= 1 and set(found["libraries"]) == {"numpy", "cv2", "PIL"}
    told = darknet_face("info", "--weights", "released").stdout
    assert "(the released one), input 224 x 224" in told
    assert "darknet19_detector.npz" in told and "engine: onnxruntime " in told
    ended = darknet_face("info", "--weights", "/nowhere.npz")
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1


def test_a_missing_extra_is_one_line(tmp_path):
    (tmp_path / "waitress.py").write_text("raise ModuleNotFoundError(name='waitress')\n")
    ended = subprocess.run([sys.executable, "-m", "darknet_face.command", "serve"], cwd=ROOT,
                           capture_output=True, text=True,
                           env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: waitress is not installed: pip install 'darknet-face[serve]'\n"
