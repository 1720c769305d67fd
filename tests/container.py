"""Run the steps of the Dockerfile without a container builder, on a machine that may be changed.

    tests/bare_root.sh tf2 python3 tests/container.py

It copies, installs, adds the user, starts the server as that user, waits for the health check and
asks for an answer. A virtual environment stands for the base image's Python.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = "/opt/base"
PATIENCE = 120  # seconds until the server is healthy


def instructions():
    """The instructions of the Dockerfile: pairs of a name and its text on one line."""
    with open(os.path.join(ROOT, "Dockerfile")) as stream:
        text = re.sub(r"^#.*\n", "", stream.read(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def copies(found):
    """The sources and the target of each COPY, and the stage that they come from or None."""
    for name, text in found:
        if name == "COPY":
            *options, last = text.split()
            stage = options.pop(0)[len("--from="):] if options[0].startswith("--from=") else None
            yield options, last, stage


def command(found, name):
    """The words of the last ENTRYPOINT, CMD or HEALTHCHECK."""
    text = [text for each, text in found if each == name][-1]
    return json.loads(text[text.index("["):])


def run_step(name, text, folder):
    """Do what an instruction says, as root; return the folder for the next."""
    if name == "WORKDIR":
        os.makedirs(text, exist_ok=True)
        return text
    if name == "RUN":
        subprocess.run(["sh", "-ec", text], cwd=folder, check=True)
    if name == "ENV":
        os.environ.update([text.split("=", 1)])
    if name == "COPY":
        (sources, target, stage), = copies([(name, text)])
        for source in () if stage else sources:  # both stages are one machine here
            source, place = os.path.join(ROOT, source), os.path.join(folder, target)
            if os.path.isdir(source):
                shutil.copytree(source, place)
            else:
                os.makedirs(place, exist_ok=True)
                shutil.copy(source, place)
    return folder


def main():
    if os.path.exists(PYTHON) or os.listdir("/home"):
        sys.exit("error: this is no bare machine; run tests/bare_root.sh tf2 python3 " + __file__)
    subprocess.run([sys.executable, "-m", "venv", PYTHON], check=True)
    os.environ["PATH"] = PYTHON + "/bin:" + os.environ["PATH"]
    found, folder = instructions(), "/"
    for name, text in found:
        print(name, text, flush=True)
        folder = run_step(name, text, folder)
    user = dict(found)["USER"]
    words = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "env", "-C", folder]
    server = subprocess.Popen(words + command(found, "ENTRYPOINT") + command(found, "CMD"))
    try:
        health, started = words + command(found, "HEALTHCHECK"), time.monotonic()
        while subprocess.run(health, stderr=subprocess.DEVNULL).returncode:
            if server.poll() is not None or time.monotonic() - started > PATIENCE:
                sys.exit("error: the server is not healthy")
            time.sleep(1)
        print("healthy after {:.0f} s".format(time.monotonic() - started))
        with open(os.path.join(ROOT, "docs", "photographs.jpg"), "rb") as stream:
            with urllib.request.urlopen("http://127.0.0.1:8000/classify", stream.read()) as answer:
                print(answer.read().decode())
    finally:
        server.terminate()
        print("ended with", server.wait())


if __name__ == "__main__":
    main()
