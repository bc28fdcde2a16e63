"""Load the OpenVINO model in a folder."""

import openvino


def load(folder, model, threads):
    """A function from inputs (name -> int64 array) to logits."""
    network = openvino.Core().read_model(str(folder / "model.xml"))
    if model["fixed"]:
        network.reshape({port: [model["batch"], model["sequence"]] for port in network.inputs})
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[model["base"]],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32" if model["dynamic_int8"] else "0",
    }
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    request = openvino.Core().compile_model(network, "CPU", options).create_infer_request()
    return lambda batch: request.infer([batch[name] for name in model["inputs"]])[0]
