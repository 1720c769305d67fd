"""Export the network to the engines that others use, each export checked before it is in place.

    python export.py all           # everything below, then the table
    python export.py darknet       # exports/darknet19_face.cfg, .weights and .names
    python export.py onnx          # exports/darknet19_face.onnx; --int8 also a small, fast one
    python export.py onnx-nchw     # exports/darknet19_face_nchw.onnx, for OpenCV's blobFromImage
    python export.py savedmodel    # exports/darknet19_face_savedmodel/1, for TensorFlow Serving
    python export.py compare       # all engines side by side on the same images

The weights are your newest ones in the model directory or, if there are none, the released ones.
What they say of themselves (classes, threshold, training step) goes into the exports.

Each file is written under a temporary name and run, on real images, by the engine it is for. It
is renamed into place if the answers are those of the network built from the weights. Otherwise the
exit code is 1. Each SavedModel is a version of its own, and the newest two are kept.
"""

from darknet_face.exporters.command import main

if __name__ == "__main__":
    main()
