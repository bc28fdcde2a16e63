"""Does the default search, in fifteen minutes, find something at least as good as every tool's defaults?

    python tests/benchmarks/live_search.py [--out runs/live] [--minutes 15] [--strategy frontier] [--look]

MiniLM-L6 on SST-2, sequence 128, batch 1, 2 threads, all 872 examples; post-training techniques only, all runtimes, at
most 1 % of the accuracy lost. First the search, for so many minutes, with nothing known; then the defaults of the
tools, in the same study. A default counts as good where it meets the goal itself; it is beaten where the search's best
is no slower. `--look` then scans the layers, so that the dashboard (`workbench dashboard runs`, `screenshots.py`) has
all there is to see of a study. Wants a quiet machine and WORKBENCH_ASSETS.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from workbench.parsing import recipe_from_code
from workbench.recipe import Choice, Open, Recipe, Space
from workbench.running.status import Status
from workbench.study import Study
from workbench.tasks.base import make_task
from workbench.techniques.static_int8 import StaticInt8
from workbench.trial import Trial
from workbench.tuning.goal import Goal

HERE = Path(__file__).resolve().parent
ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))
WORKLOAD = {"threads": 2, "batch": 1, "sequence": 128}
_WORDS = ", ".join(f"{k}={v}" for k, v in WORKLOAD.items())
#: What people reach for first.
PEERS = {
    "PyTorch FP32 eager": f"Recipe(backend=Eager({_WORDS}))",
    "PyTorch BF16 eager": f"Recipe(Bf16(), backend=Eager({_WORDS}))",
    "inductor BF16": f"Recipe(Bf16(), backend=Compiled({_WORDS}))",
    "inductor PT2E static INT8": f"Recipe(StaticInt8(), backend=Compiled({_WORDS}))",
    "ONNX Runtime FP32": f"Recipe(backend=OnnxRuntime({_WORDS}))",
    "ONNX Runtime dynamic INT8": f"Recipe(DynamicInt8(), backend=OnnxRuntime({_WORDS}))",
    "ONNX Runtime static INT8": f"Recipe(StaticInt8(), backend=OnnxRuntime({_WORDS}))",
    "OpenVINO FP32": f"Recipe(backend=OpenVINO({_WORDS}))",
    "OpenVINO BF16": f"Recipe(Bf16(), backend=OpenVINO({_WORDS}))",
    "OpenVINO + NNCF INT8": f"Recipe(StaticInt8(), backend=OpenVINO({_WORDS}))",
}


def space() -> Space:
    """Post-training techniques on every runtime: layers dropped, widths, tokens, ranges smoothed, precision."""
    return Space(
        Open("drop_layers", optional=True, count=1),
        Open("prune_structured", optional=True, budget=Choice(0.9, 0.8, 0.7), samples=512),
        Open("prune_tokens", optional=True, share=Choice(0.8, 0.6)),
        Open("smooth_quant", optional=True),
        "bf16",
        "dynamic_int8",
        "static_int8",
        backends=[
            Open("openvino", shapes=Choice("fixed", "dynamic"), **WORKLOAD),
            *(Open(name, **WORKLOAD) for name in ("onnxruntime", "compiled", "eager")),
        ],
    )


def line(name: str, trial: Trial) -> str:
    """A row of the table."""
    m = trial.measurement
    if m is None:
        return f"| {name} | {trial.recipe.title} | {trial.state}: {trial.error.splitlines()[0][:80]} | | |"
    return f"| {name} | {trial.recipe.title} | {m.correct} | −{m.flips_lost} +{m.flips_gained} | {m.speedup} |"


def looked(study: Study, best: Trial) -> None:
    """What the layers of INT8 do to the answers, and what they cost on the best trial's runtime."""
    study.scan("static_int8", "kl")
    for steps in ((), (StaticInt8(),)):
        study.costs(Recipe(*steps, backend=best.recipe.backend))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/live"))
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--strategy", default="frontier")
    parser.add_argument("--look", action="store_true")
    options = parser.parse_args()
    study = Study(options.out, make_task(ASSETS / "models" / "minilm-l6-sst2", ASSETS / "data" / "sst2"))
    goal = Goal(max_drop=0.01, trials=None, minutes=options.minutes)

    def tick(status: Status) -> None:
        print(f"\r{status.done} trials, {status.seconds / 60:4.1f} min: {status.title[:90]:90}", end="", flush=True)

    study.start(space(), options.strategy, goal, timing_seconds=4.0)
    study.wait(tick=tick)
    found = [trial for trial in study.trials if trial.finished]
    best = study.best()
    print(
        f"\n\n{len(found)} trials of the search\n\n| who | recipe | right | flips | speed-up |\n|---|---|---|---|---|"
    )
    for trial in found:
        print(line("the best found" if trial.number == best.number else "", trial))
    peers = {name: study.run(recipe_from_code(code)) for name, code in PEERS.items()}
    for name, trial in peers.items():
        print(line(name, trial))

    baseline = study.trials[0].measurement
    chosen = best.measurement
    assert baseline is not None  # the sweep would have failed
    assert chosen is not None
    assert chosen.speedup is not None
    good = {
        name: trial.measurement.speedup.value
        for name, trial in peers.items()
        if trial.measurement and trial.measurement.speedup and goal.met(trial.measurement, baseline.accuracy.value)
    }
    name, speed = max(good.items(), key=lambda item: item[1])
    beaten = sum(chosen.speedup.value >= one for one in good.values())
    print(
        f"\nFound: {best.recipe.title}, {chosen.correct} right, {chosen.speedup}. {len(good)} of {len(peers)} defaults "
        f"meet the goal, {beaten} of those are no faster; the best of them is {name} with {speed:.2f}×: "
        f"{chosen.speedup.value / speed:.2f} times that."
    )
    if options.look:
        looked(study, best)


if __name__ == "__main__":
    main()
