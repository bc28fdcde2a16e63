"""Every technique in its variants on a real model, one line each: accuracy, flips, speed-up, size, minutes spent.

    python tests/benchmarks/techniques.py [--only calibration distillation …] [--out runs/techniques]

MiniLM-L6 on SST-2, sequence 128, batch 1, 2 threads, all 872 examples, each against PyTorch FP32 eager of the same
minutes. Calibration, SmoothQuant and QAT run on ONNX Runtime, where the default loses most; pruned and distilled models
in FP32, so that the speed-up is that of the structure alone. A study that was begun goes on, and what was trained once
is taken from the cache (the minutes are those of the training then too). All groups together train for about two and a
half hours; `--prepare` only trains. Wants a quiet machine and WORKBENCH_ASSETS.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from workbench.compress import draft
from workbench.errors import WorkbenchError
from workbench.parsing import recipe_from_code
from workbench.recipe import Recipe
from workbench.study import Study
from workbench.tasks.base import Task, make_task
from workbench.trial import Trial

HERE = Path(__file__).resolve().parent
ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))
WORKLOAD = "threads=2, batch=1, sequence=128"
ORT, VINO = f"OnnxRuntime({WORKLOAD})", f"OpenVINO({WORKLOAD})"
INDUCTOR, FIXED = f"Compiled({WORKLOAD})", f"OpenVINO({WORKLOAD}, shapes='fixed')"
CALIBRATORS = ("runtime", "minmax", "moving_average", "percentile", "entropy", "mse")
PLAIN = "mix=0.0, hidden=0.0, learning_rate=3e-5"

#: Group -> (steps, runtime) of each line.
GROUPS: dict[str, list[tuple[str, str]]] = {
    "runtimes": [("", backend) for backend in (INDUCTOR, ORT, VINO, FIXED)],
    "calibration": [
        *((f"StaticInt8(calibration={name!r})", ORT) for name in CALIBRATORS),
        ("StaticInt8(calibration='mse', symmetric=True)", ORT),
        ("StaticInt8(calibration='mse', per_channel=False)", ORT),
        ("StaticInt8(calibration='mse', bias_correction=True)", ORT),
        ("DynamicInt8()", ORT),
    ],
    "smooth": [
        ("SmoothQuant(search=False, alpha=0.5), StaticInt8(calibration='mse')", ORT),
        ("SmoothQuant(), StaticInt8(calibration='mse')", ORT),
        ("SmoothQuant(), StaticInt8(calibration='mse', bias_correction=True)", ORT),
        ("SmoothQuant(), StaticInt8(calibration='percentile')", ORT),
        ("SmoothQuant(), StaticInt8()", VINO),
    ],
    "qat": [
        ("Qat(minutes=5.0)", ORT),
        ("Distil(minutes=5.0, learning_rate=2e-5), Qat(minutes=5.0)", ORT),
        ("Distil(minutes=5.0, learning_rate=2e-5), Qat(minutes=5.0)", VINO),
    ],
    "mixed precision": [
        ("Bf16()", VINO),
        ("Bf16()", INDUCTOR),
        ("MixedPrecision()", VINO),
        ("MixedPrecision(int8_limit=0.003)", VINO),
        ("MixedPrecision()", INDUCTOR),
    ],
    "masks": [
        *((f"Prune(score={score!r})", ORT) for score in ("magnitude", "snip_momentum", "wanda", "gradient")),
        ("Prune(scope='global')", ORT),
        ("Prune(pattern='2:4')", ORT),
        ("Prune(score='wanda', pattern='2:4')", ORT),
        ("Prune(pattern='4x1')", f"{ORT}, keep=('classifier',)"),
        ("PruneGradual(sparsity=0.7, minutes=5.0), Distil(minutes=5.0)", ORT),
        ("PruneGradual(sparsity=0.7, score='movement', minutes=5.0), Distil(minutes=5.0)", ORT),
        ("Prune(score='wanda'), LockMasks(), Distil(minutes=3.0, learning_rate=2e-5)", ORT),
    ],
    "structured": [
        *((f"PruneStructured(select={select!r})", ORT) for select in ("fisher", "magnitude", "random")),
        ("PruneStructured(parts='neurons')", ORT),
        ("PruneStructured(parts='heads', budget=0.9)", ORT),
        ("PruneStructured(repair='masks')", ORT),
        ("PruneStructured(cost='latency')", ORT),
        ("PruneStructured(budget=0.5, samples=2048)", ORT),
        ("LowRank(budget=0.75)", ORT),
        ("LowRank(budget=0.75, method='svd')", ORT),
        ("DropLayers(count=1)", ORT),
        ("DropLayers(count=2)", ORT),
        ("DropLayers(count=3)", ORT),
    ],
    "tokens": [
        *((f"PruneTokens(share={share})", FIXED) for share in (1.0, 0.6, 0.4)),
        ("PruneTokens(share=0.6)", ORT),
        ("PruneTokens(share=0.6), StaticInt8()", FIXED),
    ],
    "distillation": [
        ("DropLayers(count=2), Distil(minutes=15.0, learning_rate=5e-4)", ORT),
        (f"DropLayers(count=2), Distil(minutes=15.0, {PLAIN})", ORT),
        ("DropLayers(count=3), Distil(minutes=30.0, learning_rate=3e-4)", ORT),
        (f"DropLayers(count=3), Distil(minutes=30.0, {PLAIN})", ORT),
        ("PruneStructured(budget=0.5, samples=2048), Distil(minutes=10.0, learning_rate=3e-4)", ORT),
    ],
    "weight-only": [
        *((f"{name}(bits=4, group_size=32)", ORT) for name in ("WeightRtn", "WeightHqq", "WeightAwq", "WeightGptq")),
        ("WeightRtn(bits=8)", ORT),
        ("WeightGptq(bits=4, group_size=32)", VINO),
    ],
}


def recipes(groups: list[str]) -> list[tuple[str, Recipe]]:
    """Each line's group and recipe."""
    lines = [(group, steps, backend) for group in groups for steps, backend in GROUPS[group]]
    return [(g, recipe_from_code(f"Recipe({steps}{', ' if steps else ''}backend={b})")) for g, steps, b in lines]


def prepare(task: Task, recipe: Recipe) -> str:
    """Build what comes before the lowering, which fills the cache."""
    began = time.perf_counter()
    try:
        notes = draft(task, recipe).notes
    except WorkbenchError as error:
        return str(error)
    return f"{time.perf_counter() - began:.0f} s; {'; '.join(notes)}"


def line(group: str, trial: Trial) -> str:
    """One line of the table."""
    m = trial.measurement
    assert m is not None  # `Study.run` gives measured trials only
    assert m.drop is not None
    drop = f"{100 * m.drop.value:+.2f} [{100 * m.drop.low:+.2f}, {100 * m.drop.high:+.2f}]"
    size = f"{m.size_mb:.1f} ({m.compressed_mb:.1f})"
    spent = max(trial.recipe.minutes(), m.seconds.get("compress", 0) / 60)  # training may come from the cache
    cells = (group, trial.recipe.title, m.correct, f"-{m.flips_lost} +{m.flips_gained}", drop, m.speedup, size)
    return f"| {' | '.join(map(str, cells))} | {spent:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--prepare", action="store_true", help="train and prune only; nothing is measured")
    parser.add_argument("--out", type=Path, default=Path("runs/techniques"))
    options = parser.parse_args()
    task = make_task(ASSETS / "models" / "minilm-l6-sst2", ASSETS / "data" / "sst2")
    if options.prepare:
        for _, recipe in recipes(options.only):
            print(recipe.title, prepare(task, recipe), flush=True)
        return
    study = Study(options.out, task)
    print("| group | recipe | right | flips | drop, points | speed-up | MB (compressed) | minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for group, recipe in recipes(options.only):
        try:
            print(line(group, study.run(recipe)), flush=True)
        except WorkbenchError as error:
            print(f"| {group} | {recipe.title} | {error.what} |", flush=True)


if __name__ == "__main__":
    main()
