"""The fastest stack that keeps 99 % of the accuracy, against the best defaults: what each of its steps bought.

    python tests/benchmarks/headline.py [--out runs/headline]

MiniLM-L6 on SST-2, sequence 128, batch 1, 2 threads, all 872 examples. The stack is built from the fine-tuned model and
its training data on this machine; its prefixes are measured too, so that the table shows what each step bought. Wants
a quiet machine and WORKBENCH_ASSETS; a study that was begun goes on; building takes up to an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from workbench.console import show_front
from workbench.parsing import recipe_from_code
from workbench.recipe import Recipe
from workbench.study import Study
from workbench.tasks.base import make_task

HERE = Path(__file__).resolve().parent
ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))
WORKLOAD = "threads=2, batch=1, sequence=128"
FIXED = f"OpenVINO({WORKLOAD}, shapes='fixed')"

DROP = "DropLayers(count=2)"
NARROW = "PruneStructured(budget=0.45, samples=2048)"
TEACH = "Distil(minutes=48.0, learning_rate=3e-4)"
INT8 = "StaticInt8()"

#: Every default that people would reach for first, then the stack step by step.
PEERS = [
    f"Recipe(Bf16(), backend=Compiled({WORKLOAD}))",
    f"Recipe(StaticInt8(), backend=Compiled({WORKLOAD}))",
    f"Recipe(DynamicInt8(), backend=OnnxRuntime({WORKLOAD}))",
    f"Recipe(Bf16(), backend=OpenVINO({WORKLOAD}))",
    f"Recipe(StaticInt8(), backend=OpenVINO({WORKLOAD}))",
]
STACK = [
    f"Recipe(backend={FIXED})",
    f"Recipe({INT8}, backend={FIXED})",
    f"Recipe({DROP}, {INT8}, backend={FIXED})",
    f"Recipe({DROP}, {NARROW}, {INT8}, backend={FIXED})",
    f"Recipe({DROP}, {NARROW}, {TEACH}, {INT8}, backend={FIXED})",
    f"Recipe({DROP}, {NARROW}, {TEACH}, SmoothQuant(), {INT8}, backend={FIXED})",
    f"Recipe({DROP}, {NARROW}, {TEACH}, {INT8}, backend=OpenVINO({WORKLOAD}))",
]


def recipes() -> list[Recipe]:
    """The peers' defaults and the stack's prefixes."""
    return [recipe_from_code(code) for code in (*PEERS, *STACK)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/headline"))
    options = parser.parse_args()
    study = Study(options.out, make_task(ASSETS / "models" / "minilm-l6-sst2", ASSETS / "data" / "sst2"))
    began = time.perf_counter()
    for recipe in recipes():
        trial = study.run(recipe)
        print(trial.number, trial.recipe.title, trial.error or f"{trial.seconds:.0f} s", flush=True)
    show_front(study, everything=True, as_json=False)
    for trial in study.trials:
        if trial.measurement:
            m = trial.measurement
            print(f"{trial.recipe.title}\n    {m.correct} right, {m.speedup}; over own lengths {m.speedup_real}")
    print(f"all of it took {(time.perf_counter() - began) / 60:.1f} min")


if __name__ == "__main__":
    main()
