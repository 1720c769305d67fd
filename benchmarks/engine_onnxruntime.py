"""ONNX Runtime on what ``export.py onnx`` wrote: run by run.py.

With ``--precision int8`` the network is quantised first, as ONNX Runtime's guide advises for
processors with VNNI: activations as unsigned bytes, weights as signed bytes, one scale per channel.
The ranges come from real images, none of which accuracy is measured on.
"""

import os

import numpy as np
import onnxruntime
import worker

# Not the softmax: its results would be multiples of 1/256.
QUANTISED = ["Conv", "LeakyRelu", "MaxPool"]


def quantised(args, model):
    """Write the network in int8 beside ``model``; return its path."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):
        """Images one by one, as the calibration asks for them."""

        def __init__(self):
            self.pictures = iter(np.load(os.path.join(args.folder, "calibration.npy")))

        def get_next(self):
            picture = next(self.pictures, None)
            if picture is None:
                return None
            return {"input": picture[np.newaxis] / np.float32(255)}

    target = os.path.join(args.folder, "int8.onnx")
    ready = os.path.join(args.folder, "before-int8.onnx")
    quant_pre_process(model, ready)
    quantize_static(ready, target, Pictures(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    op_types_to_quantize=QUANTISED)
    return target


def main():
    args = worker.arguments()
    model = os.path.join(args.folder, "exports", "darknet19_face.onnx")
    if args.precision == "int8":
        model = quantised(args, model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def predict(images):
        return session.run(["probabilities"], {"input": images / np.float32(255)})[0]

    worker.serve("ONNX Runtime {}".format(onnxruntime.__version__),
                 worker.inference_tasks(predict, args))


if __name__ == "__main__":
    main()
