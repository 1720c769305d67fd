"""The environments that the engines run in: made once, in ``.venv-NAME`` beside this file.

make_environment.sh finds the Python for each TensorFlow. The other engines need a current Python:
the one that the variable PEER_PYTHON names, or ``python3``.
"""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
COMMON = os.path.join(ROOT, "requirements-tf1-common.txt")
RUNTIMES = {"stock": "tf1", "mkl": "tf1", "tf2": "tf2"}
# What pip is given, then what that reads.
REQUIREMENTS = {
    "stock": (os.path.join(ROOT, "requirements.txt"), COMMON),
    "mkl": (os.path.join(ROOT, "requirements-mkl.txt"), COMMON),
    "tf2": (os.path.join(ROOT, "requirements-tf2.txt"),),
    "pytorch": (os.path.join(HERE, "requirements-pytorch.txt"),),
    "onnxruntime": (os.path.join(HERE, "requirements-onnxruntime.txt"),),
    "opencv": (os.path.join(HERE, "requirements-opencv.txt"),),
    "peers": (os.path.join(HERE, "requirements-peers.txt"),),
}


def python_of(name):
    """The interpreter of an environment, which is made if it is not there or not up to date.

    Raises
    ------
    subprocess.CalledProcessError
        When it can't be made; pip has said why on stderr.
    """
    folder = os.path.join(HERE, ".venv-" + name)
    python = os.path.join(folder, "bin", "python")
    stamp = os.path.join(folder, "installed")
    requirements = "".join(map(_contents, REQUIREMENTS[name]))
    if os.path.exists(stamp) and _contents(stamp) == requirements:
        return python
    print("making the environment {}".format(name), file=sys.stderr, flush=True)
    if name in RUNTIMES:
        subprocess.run([os.path.join(ROOT, "make_environment.sh"), RUNTIMES[name], folder],
                       check=True)
        if RUNTIMES[name] == "tf1":
            # Newer ones do not build the old source packages among the requirements.
            _pip(python, "pip<24.1", "setuptools<68", "wheel")
    else:
        interpreter = os.environ.get("PEER_PYTHON", "python3")
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
    _pip(python, "-r", REQUIREMENTS[name][0])
    with open(stamp, "w") as stream:
        stream.write(requirements)
    return python


def _pip(python, *arguments):
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade"] + list(arguments),
                   check=True, stdout=sys.stderr)


def _contents(path):
    with open(path) as stream:
        return stream.read()
