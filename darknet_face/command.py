"""The console command ``darknet-face``: starts the program that its first word names.

    darknet-face photo.jpg photos/     # classify: darknet_face.classify.command
    darknet-face serve                 # a page and a JSON endpoint: darknet_face.serving.command
    darknet-face export onnx           # for other engines: darknet_face.exporters.command
    darknet-face info                  # model, engine, versions: darknet_face.classify.info
    darknet-face --version

A file of the name ``serve``, ``export`` or ``info`` is written ``./serve``.
"""

from __future__ import annotations

import importlib
import sys

from darknet_face import __version__
from darknet_face.console import UserError, cli

COMMANDS = {"serve": "darknet_face.serving.command", "export": "darknet_face.exporters.command",
            "info": "darknet_face.classify.info"}
# Of modules that not everybody needs: the extra of this package that brings them.
EXTRAS = {"tensorflow": "tensorflow", "tf_keras": "tensorflow", "flask": "serve",
          "waitress": "serve", "onnx": "export", "skimage": "export", "cv2": "video"}


@cli
def main() -> None:
    """Start the program; what follows its name are its arguments."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name == "--version":
        print("darknet-face " + __version__)
        return
    try:
        if name in COMMANDS:
            importlib.import_module(COMMANDS[name]).main(sys.argv[2:], "darknet-face " + name)
        else:
            importlib.import_module("darknet_face.classify.command").main()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        package = "'darknet-face[{}]'".format(EXTRAS[missing]) if missing in EXTRAS else missing
        raise UserError("{} is not installed: pip install {}".format(missing, package))


if __name__ == "__main__":
    main()
