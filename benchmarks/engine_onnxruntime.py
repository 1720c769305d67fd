"""ONNX Runtime on what ``export.py onnx`` wrote: run by run.py."""

import os

import numpy as np
import onnxruntime
import worker


def main():
    args = worker.arguments()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(
        os.path.join(args.folder, "exports", "darknet19_face.onnx"), options,
        providers=["CPUExecutionProvider"])

    def predict(images):
        return session.run(["probabilities"], {"input": images / np.float32(255)})[0]

    worker.serve("ONNX Runtime {}".format(onnxruntime.__version__),
                 worker.inference_tasks(predict, worker.prepared_pictures(args)))


if __name__ == "__main__":
    main()
