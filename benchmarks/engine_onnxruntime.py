"""ONNX Runtime on what ``export.py onnx --int8`` wrote: run by run.py."""

import os

import numpy as np
import onnxruntime
import worker


def main():
    args = worker.arguments()
    name = "darknet19_face_int8.onnx" if args.precision == "int8" else "darknet19_face.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(
        os.path.join(args.folder, "exports", name), options, providers=["CPUExecutionProvider"])

    def predict(images):
        return session.run(["probabilities"], {"input": images / np.float32(255)})[0]

    worker.serve("ONNX Runtime {}".format(onnxruntime.__version__),
                 worker.inference_tasks(predict, args))


if __name__ == "__main__":
    main()
