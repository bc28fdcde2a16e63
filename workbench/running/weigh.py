"""What one artifact takes in memory: loaded in a process of its own, with nothing else in it.

python -m workbench.running.weigh ARTIFACT      -> {"peak_mb": …, "load_seconds": …}
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

from workbench.compress import Artifact
from workbench.measure.footprint import peak_mb
from workbench.running.child import die_with_parent

#: Calls at full length, after which a runtime's buffers have been allocated.
_CALLS = 3


def main() -> None:
    """Load, answer a few batches of the full length, print the peak resident memory."""
    die_with_parent()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    artifact = Artifact.open(sys.argv[1])
    began = time.perf_counter()
    runner = artifact.load()
    seconds = time.perf_counter() - began
    shape = (artifact.backend.batch, artifact.backend.sequence)
    fill = {"attention_mask": 1}
    batch = {name: np.full(shape, fill.get(name, 0), dtype=np.int64) for name in artifact.manifest["inputs"]}
    for _ in range(_CALLS):
        runner(batch)
    print(json.dumps({"peak_mb": peak_mb(), "load_seconds": seconds}), file=answer, flush=True)
    # Runtimes differ in how cleanly they shut down; the answer is out.
    os._exit(0)


if __name__ == "__main__":
    main()
