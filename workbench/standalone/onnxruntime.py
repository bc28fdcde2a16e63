"""Load the ONNX model in a folder."""

import onnxruntime


def load(folder, model, threads):
    """A function from inputs (name -> int64 array) to logits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, batch)[0]
