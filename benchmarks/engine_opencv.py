"""OpenCV's DNN module on what ``export.py darknet`` wrote: run by run.py."""

import os

import cv2
import worker


def main():
    args = worker.arguments()
    cv2.setNumThreads(args.threads)
    stem = os.path.join(args.folder, "exports", "darknet19_face")
    net = cv2.dnn.readNetFromDarknet(stem + ".cfg", stem + ".weights")
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)

    def predict(images):
        net.setInput(cv2.dnn.blobFromImages(images, 1 / 255.0))
        return net.forward().reshape(len(images), 2)

    worker.serve("OpenCV {}".format(cv2.__version__),
                 worker.inference_tasks(predict, args))


if __name__ == "__main__":
    main()
