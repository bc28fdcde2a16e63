"""Load the AOTInductor package in a folder: machine code for the kind of processor that it was compiled on."""

import torch
import torch._inductor


def load(folder, model, threads):
    """A function from inputs (name -> int64 array) to logits."""
    if threads:
        torch.set_num_threads(threads)
    package = torch._inductor.aoti_load_package(str(folder / "model.pt2"))
    return lambda batch: package.loader.boxed_run([torch.from_numpy(batch[name]) for name in model["inputs"]])[
        0
    ].numpy()
