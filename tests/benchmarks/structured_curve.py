"""Structured pruning without training: right answers against the share of the layers' cost that is kept.

    python tests/benchmarks/structured_curve.py [--budgets 0.9 0.75 0.6 0.5 0.4] [--cost macs]

MiniLM-L6 on SST-2, all 872 examples, in FP32: the Fisher search against magnitude and chance, each with the same
repair, and the Fisher search with the paper's repair and with none. Nothing is timed but the building itself.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

from workbench.compress import draft
from workbench.measure.accuracy import drop, flips
from workbench.measure.outcomes import Outcomes
from workbench.parsing import recipe_from_code
from workbench.tasks.base import Task, make_task

HERE = Path(__file__).resolve().parent
ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))
VARIANTS = {
    "fisher": "select='fisher'",
    "magnitude": "select='magnitude'",
    "random": "select='random'",
    "fisher, masks repaired": "select='fisher', repair='masks'",
    "fisher, not repaired": "select='fisher', repair='none'",
}


def outcomes(task: Task, module: object) -> Outcomes:
    """The module's answers to all examples of the select split, in batches of like length."""
    import torch

    examples, targets, pad = task.encoded("select"), task.targets("select"), task.pad()
    lengths = [len(next(iter(one.values()))) for one in examples]
    order = sorted(range(len(examples)), key=lengths.__getitem__)
    logits = np.zeros((len(examples), len(task.labels)), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            longest = lengths[rows[-1]]
            batch = {
                name: torch.tensor([[*examples[r][name], *[pad.get(name, 0)] * (longest - lengths[r])] for r in rows])
                for name in examples[0]
            }
            logits[rows] = module(**batch).logits.numpy()  # type: ignore[operator]
    predictions, confidences = task.predictions(logits)
    return Outcomes(predictions, targets, confidences, classes=len(task.labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.9, 0.75, 0.6, 0.5, 0.4])
    parser.add_argument("--cost", default="macs", choices=("macs", "latency"))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--backend", default="Eager(threads=2)", help="what a latency budget is measured on")
    options = parser.parse_args()
    task = make_task(ASSETS / "models" / "minilm-l6-sst2", ASSETS / "data" / "sst2")
    whole = outcomes(task, task.draft().module)
    print(f"uncompressed: {whole.correct} of {len(whole)} right")
    for variant in options.variants:
        for budget in options.budgets:
            code = f"PruneStructured(budget={budget}, cost={options.cost!r}, {VARIANTS[variant]})"
            began = time.perf_counter()
            made = draft(task, recipe_from_code(f"Recipe({code}, backend={options.backend})"))
            spent = time.perf_counter() - began
            found = outcomes(task, made.module)
            lost, gained = flips(whole, found)
            worse = drop(whole, found, "accuracy")
            told = f"{found.correct} right, -{lost} +{gained}, {100 * worse.value:.2f} pt"
            told += f" [{100 * worse.low:.2f}, {100 * worse.high:.2f}]"
            print(f"{variant:24} {budget:.2f}  {told:44} {spent:5.0f} s  {made.notes[-1]}", flush=True)


if __name__ == "__main__":
    main()
