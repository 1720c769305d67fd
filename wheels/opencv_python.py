"""Write the empty wheel ``opencv-python`` that stands for ``opencv-python-headless``.

    python wheels/opencv_python.py

imgaug asks for opencv-python, which needs X libraries that servers lack. opencv-python-headless is
the same ``cv2`` without windows. If both are installed, the files of one overwrite those of the
other. So the requirements files take this wheel for opencv-python: it has no files, and requires
the other.
"""

import os
import zipfile

VERSION = "4.14.0.94"  # of opencv-python-headless; the requirements files name it too
NAME = "opencv_python-{}+headless".format(VERSION)
WHEEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), NAME + "-py3-none-any.whl")
METADATA = """Metadata-Version: 2.1
Name: opencv-python
Version: {0}+headless
Summary: Stands for opencv-python-headless, and has no files of its own
Requires-Dist: opencv-python-headless=={0}
""".format(VERSION)
TAGS = """Wheel-Version: 1.0
Generator: opencv_python.py
Root-Is-Purelib: true
Tag: py3-none-any
"""
FILES = {"METADATA": METADATA, "WHEEL": TAGS}


def write(path: str) -> None:
    folder = NAME + ".dist-info/"
    record = "".join("{}{},,\n".format(folder, name) for name in list(FILES) + ["RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in dict(FILES, RECORD=record).items():
            wheel.writestr(zipfile.ZipInfo(folder + name), text)


if __name__ == "__main__":
    write(WHEEL)
