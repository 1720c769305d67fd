"""Say which model, engine and versions answer here: for a report of a fault, or a deployment.

    darknet-face info            # lines for people
    darknet-face info --json     # one JSON object for programs
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import typing
from typing import Sequence

from darknet_face import __version__
from darknet_face.console import HelpFormatter, cli
from darknet_face.detection.confirm import calibrated_detector
from darknet_face.engines.engine import add_engine_argument, choose_engine
from darknet_face.options import add_weights_argument
from darknet_face.runtime.safe_files import relative_to_here, sha256
from darknet_face.weights.model_file import ModelFile, choose_model

LIBRARIES = ("numpy", "cv2", "PIL")  # by the names that are imported


def _threads() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # in Linux; a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return str(importlib.import_module(name).__version__)
    except ModuleNotFoundError:
        return None


def _file(path: str) -> dict[str, typing.Any]:
    return {"path": os.path.abspath(path),
            "sha256": sha256(path) if os.path.isfile(path) else None}


def describe(model: ModelFile, engine: str, detector: str | None) -> dict[str, typing.Any]:
    """What ``--json`` prints."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": "{} {}".format(platform.system(), platform.machine()),
        "model": dict(_file(model.path), released=model.is_released,
                      image_size=model.image_size, threshold=model.threshold),
        "detector": _file(detector) if detector else None,
        "engine": {"name": engine, "version": _version(engine)},
        "threads": _threads(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def _print(found: dict[str, typing.Any], model: ModelFile) -> None:
    print("darknet-face {version}, Python {python}, {platform}".format(**found))
    print(model)
    print("detector: {}".format(relative_to_here(found["detector"]["path"])
                                if found["detector"] else "none; answers by sliding window"))
    print("engine: {name} {version}".format(**found["engine"]))
    print("processors: {}".format(found["threads"]))
    print("libraries: " + ", ".join("{} {}".format(name, version or "not installed")
                                    for name, version in found["libraries"].items()))
    print("package: " + relative_to_here(os.path.dirname(os.path.dirname(__file__))))


@cli
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Print it; ``arguments`` and ``prog`` are the program's own if absent."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Say which model, engine and versions answer here.",
        formatter_class=HelpFormatter)
    parser.add_argument("--model-dir", default="saved_models", help="folder with your own model")
    add_weights_argument(parser)
    add_engine_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    model = choose_model(args.model_dir, args.weights)
    found = describe(model, choose_engine(args.engine),
                     calibrated_detector(model.weights, args.model_dir))
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found, model)


if __name__ == "__main__":
    main()
