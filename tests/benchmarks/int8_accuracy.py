"""Accuracy of static INT8 on a real model by calibration, with and without what makes it better; nothing is timed.

    python tests/benchmarks/int8_accuracy.py [--backend onnxruntime] [--examples 872] [--qat-minutes 0]

MiniLM-L6 on SST-2's validation split, padded to its own length. Prints, for each recipe, how many are right, the flips
against FP32 in both directions, and the mean squared difference of the logits. Wants WORKBENCH_ASSETS.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from workbench import compress, make_task
from workbench.recipe import Recipe, plugin
from workbench.registry import find
from workbench.techniques.smooth_quant import SmoothQuant
from workbench.techniques.static_int8 import StaticInt8

HERE = Path(__file__).resolve().parent
ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))


def recipes(minutes: float) -> list[tuple[Any, ...]]:
    """Steps of every row of the table."""
    smooth, fixed = SmoothQuant(), SmoothQuant(search=False)
    ours = [StaticInt8(calibration=c) for c in StaticInt8.knobs()["calibration"].choices]
    rows: list[tuple[Any, ...]] = [(step,) for step in ours]
    corrected = StaticInt8(calibration="mse", bias_correction=True)
    rows += [(corrected,), (StaticInt8(calibration="minmax", symmetric=True),)]
    rows += [(smooth, step) for step in (*ours, corrected)] + [(fixed, StaticInt8(calibration="minmax"))]
    if minutes:
        distil, qat = (plugin("techniques", name, minutes=minutes) for name in ("distil", "qat"))
        rows += [(qat,), (distil, qat), (distil.replace(learning_rate=2e-5), qat)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--examples", type=int, default=872)
    parser.add_argument("--qat-minutes", type=float, default=0.0)
    parser.add_argument("--only", default="", help="rows whose title holds this text")
    options = parser.parse_args()
    task = make_task(ASSETS / "models" / "minilm-l6-sst2", ASSETS / "data" / "sst2")
    targets = task.targets("select", options.examples)
    examples = task.encoded("select", options.examples)

    def answers(*steps: Any, backend: Any) -> tuple[np.ndarray, Any]:
        folder = Path(tempfile.mkdtemp())
        try:
            artifact = compress.compress(task, Recipe(*steps, backend=backend), folder / "artifact")
            runner = artifact.load()
            found = np.concatenate([runner(batch) for batch in backend.batches(examples, task.pad())])
            runner.close()
        finally:
            shutil.rmtree(folder)
        return found, artifact

    backend = find("backends", options.backend).make(sequence=128)
    plain, _ = answers(backend=find("backends", "eager").make(sequence=128))
    right = plain.argmax(1) == targets
    print(f"FP32: {right.sum()} of {len(targets)} right\n")
    print("| recipe | right | lost | gained | changed | mean squared difference | seconds |")
    print("|---|---|---|---|---|---|---|")
    for steps in recipes(options.qat_minutes):
        title = Recipe(*steps, backend=backend).title
        if options.only not in title:
            continue
        began = time.perf_counter()
        given, artifact = answers(*steps, backend=backend)
        now = given.argmax(1) == targets
        print(
            f"| {title} | {now.sum()} | {(right & ~now).sum()} | {(now & ~right).sum()} | "
            f"{(given.argmax(1) != plain.argmax(1)).sum()} | {((given - plain) ** 2).mean():.4f} | "
            f"{time.perf_counter() - began:.0f} |",
            flush=True,
        )
        for note in artifact.manifest["notes"]:
            print(f"<!-- {note} -->", flush=True)


if __name__ == "__main__":
    main()
