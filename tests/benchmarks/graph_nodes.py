"""Attention as one node on ONNX Runtime: the graph's nodes before and after, and what that saves.

    python tests/benchmarks/graph_nodes.py

MiniLM-L6 (BERT) on SST-2 and DistilBERT's shapes with random weights, in FP32 and static INT8, sequence 128, batch 1,
2 threads. Nodes are of the graph as ONNX Runtime optimized it at its highest level; the ratio is paired, plain over
fused. Wants a quiet machine and WORKBENCH_ASSETS.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from distilbert_shapes import random_distilbert

from workbench.backends.base import Runner
from workbench.compress import compress
from workbench.measure.timing import Schedule, paired
from workbench.parsing import recipe_from_code
from workbench.tasks.base import Task, make_task

HERE = Path(__file__).resolve().parent
ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))
STEPS = {"FP32": "", "static INT8": "StaticInt8(samples=100), "}


def build(task: Task, steps: str, attention: str, folder: Path) -> Runner:
    """The lowered model, ready to run."""
    backend = f"OnnxRuntime(threads=2, batch=1, sequence=128, attention={attention!r})"
    return compress(task, recipe_from_code(f"Recipe({steps}backend={backend})"), folder).load()


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        models = {
            "MiniLM-L6": ASSETS / "models" / "minilm-l6-sst2",
            "DistilBERT": random_distilbert(place / "distilbert"),
        }
        for model, source in models.items():
            task = make_task(source, ASSETS / "data" / "sst2", limit=64)
            batch = {name: np.full((1, 128), int("type" not in name), dtype=np.int64) for name in task.draft().inputs}
            for precision, steps in STEPS.items():
                plain, fused = (
                    build(task, steps, kind, place / f"{model}-{precision}-{kind}") for kind in ("plain", "fused")
                )
                before, after = plain.effect().nodes, fused.effect().nodes
                print(f"\n{model}, {precision}: {sum(before.values())} nodes become {sum(after.values())}")
                changed = {n: (before.get(n, 0), after.get(n, 0)) for n in sorted(before | after)}
                print("  ", ", ".join(f"{n} {a} → {b}" for n, (a, b) in changed.items() if a != b))
                timing = paired(fused, plain, [batch], schedule=Schedule(seconds=10.0))
                saved = timing.baseline_latency_ms["p50"] - timing.latency_ms["p50"]
                print(
                    f"   {timing.speedup} as fast; {saved:+.2f} ms of {timing.baseline_latency_ms['p50']:.2f} ms",
                    flush=True,
                )
                plain.close()
                fused.close()


if __name__ == "__main__":
    main()
