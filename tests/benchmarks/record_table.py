"""Record a table of really measured configurations, on which search strategies can be compared again and again.

    python tests/benchmarks/record_table.py [--out runs/table] [--table tests/benchmarks/minilm_table.json] [--limit 6]

MiniLM-L6 on SST-2, sequence 128, batch 1, 2 threads: runtime x precision x layers kept x width x layers dropped, 324
points that a runtime can realise, measured on all 872 examples, with short timing. Wants a quiet machine and
WORKBENCH_ASSETS, and an hour or two; begun again, it goes on. The models are deleted as soon as they are
measured. `search_efficiency.py` replays strategies on what is written here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from recorded import LOOKS, Table  # noqa: E402

from workbench.errors import RecipeError, UserError, WorkbenchError  # noqa: E402
from workbench.recipe import Choice, Open, Recipe, Space, plugin  # noqa: E402
from workbench.running.status import Status  # noqa: E402
from workbench.study import Study  # noqa: E402
from workbench.tasks.base import Task, make_task  # noqa: E402
from workbench.techniques.drop_layers import dropped, place  # noqa: E402
from workbench.trial import Trial  # noqa: E402
from workbench.tuning.goal import Goal  # noqa: E402

ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))
WORKLOAD = {"threads": 2, "batch": 1, "sequence": 128}
COUNTS, WIDTHS, KEPT = (1, 2, 3), (0.75, 0.5), (1, 2, 4, 8)
#: Probes that the strategies ask for.
PROBES = ("kl", "mse", "nmse", "hessian_trace")


def scans(task: Task, samples: int) -> dict[str, dict[str, float]]:
    """The score of every layer by each probe; what cannot be scanned is left out, with a word."""
    from workbench.sensitivity.scan import scan

    found = {}
    for probe in PROBES:
        try:
            rows = scan(task, int8(), probe, samples=samples)
        except WorkbenchError as error:
            print(f"no scan by {probe}: {error}", flush=True)
            continue
        scores = zip(rows["layer"], rows["score"], strict=True)
        # JSON knows no NaN: a layer without a number is left out, and taken for the worst by who asks.
        found[f"static_int8 {probe}"] = {layer: float(score) for layer, score in scores if math.isfinite(score)}
    return found


def int8() -> Any:
    """The static INT8 of the table."""
    return plugin("techniques", "static_int8", samples=64)


def space_of(task: Task, scores: dict[str, float]) -> Space:
    """The space: layers kept are the most sensitive ones, of those that lie in no dropped layer."""
    facts = task.facts()
    gone = {i for count in COUNTS for i in dropped(facts.blocks, count, "spread")}
    stay = [name for name in facts.layers if place(name, facts.block_path) not in gone]
    order = sorted(stay, key=lambda name: -scores.get(name, 0.0))
    return Space(
        Open("drop_layers", optional=True, count=Choice(*COUNTS)),
        Open("prune_structured", optional=True, budget=Choice(*WIDTHS), samples=256),
        "bf16",
        "dynamic_int8",
        Open("static_int8", optional=True, samples=64),
        backends=[Open("openvino", shapes="fixed", **WORKLOAD), Open("onnxruntime", **WORKLOAD)],
        keep=Choice((), *(tuple(order[:count]) for count in KEPT)),
    )


def measure(study: Study, space: Space, limit: int | None, timing: float) -> None:
    """Every recipe of the space, from the start or from where it was cut short."""

    cleaned = 0

    def clean(status: Status) -> None:
        nonlocal cleaned
        # Reading hundreds of trials takes time that what is being measured would miss.
        if status.done > cleaned:
            cleaned = status.done
            for trial in study.trials[1:]:
                if trial.finished:
                    shutil.rmtree(study.folder / "artifacts" / trial.recipe.id, ignore_errors=True)
        if status.trial is not None:
            print(f"\r{status.done} done, {status.seconds / 60:.0f} min: {status.title[:80]:80}", end="", flush=True)

    study.start(space, "grid", Goal(trials=limit, max_drop=1.0), timing_seconds=timing)
    study.wait(tick=clean)
    print()


def row_of(trial: Trial, first: Trial) -> dict[str, Any]:
    """What the table holds of one trial; answers lost and gained also at every prefix that a look may take."""
    measured, baseline = trial.measurement, first.measurement
    if measured is None or baseline is None or measured.outcomes is None or baseline.outcomes is None:
        return {"error": trial.error.splitlines()[0][:200], "seconds": round(trial.seconds, 1)}
    before, after = baseline.outcomes.right, measured.outcomes.right
    lost, gained = before & ~after, ~before & after
    speedup, real = measured.speedup, measured.speedup_real
    assert speedup is not None  # every complete trial was timed
    return {
        "lost": int(lost.sum()),
        "gained": int(gained.sum()),
        "looks": [[int(lost[:n].sum()), int(gained[:n].sum())] for n in LOOKS],
        "speedup": round(speedup.value, 4),
        "low": round(speedup.low, 4),
        "high": round(speedup.high, 4),
        "speedup_real": real and round(real.value, 4),
        "size": measured.size_mb and round(measured.size_mb, 2),
        "seconds": round(trial.seconds, 1),
    }


def profiles(task: Task, space: Space) -> dict[str, list[dict[str, Any]]]:
    """Milliseconds by layer of each runtime and precision; what cannot be profiled is left out, with a word."""
    from workbench.sensitivity.cost import cost

    found: dict[str, list[dict[str, Any]]] = {}
    for recipe in space.recipes():
        if recipe.keep or any(not step.precisions for step in recipe.steps) or recipe.refusal(task.facts()):
            continue
        try:
            rows = cost(task, recipe)
        except WorkbenchError as error:
            print(f"no profile of {recipe.title}: {error}", flush=True)
            continue
        found[recipe.id] = [
            {"layer": str(layer), "ms": round(float(ms), 5)}
            for layer, ms in zip(rows["layer"], rows["ms"], strict=True)
        ]
    return found


def table_of(study: Study, space: Space) -> Table:
    """The table of all that the study has measured of the space."""
    trials = {t.recipe.id: t for t in study.trials if t.finished}
    first = study.trials[0]
    assert first.measurement is not None  # the sweep would have failed
    assert first.measurement.outcomes is not None
    table = Table(space, study.task.facts(), first.measurement.correct or 0, len(first.measurement.outcomes))
    for point in space.points():
        try:
            recipe: Recipe = space.build(point)
        except RecipeError:
            continue
        if recipe.id in trials and recipe.id not in table.rows:
            table.add(point, row_of(trials[recipe.id], first))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/table"))
    parser.add_argument("--table", type=Path, default=HERE / "minilm_table.json")
    parser.add_argument("--limit", type=int, default=None, help="measure this many configurations only")
    parser.add_argument("--timing", type=float, default=2.0, help="seconds of timing for each")
    parser.add_argument("--samples", type=int, default=128, help="examples of the scans")
    parser.add_argument("--bare", action="store_true", help="without scans and profiles, to try the command")
    options = parser.parse_args()
    task = make_task(ASSETS / "models" / "minilm-l6-sst2", ASSETS / "data" / "sst2")
    study = Study(options.out, task)
    kept = options.out / "scans.json"
    if kept.is_file():
        found = json.loads(kept.read_text(encoding="utf-8"))
    else:
        found = {} if options.bare else scans(task, options.samples)
        kept.write_text(json.dumps(found), encoding="utf-8")
    space = space_of(task, found.get("static_int8 kl", {}))
    try:
        measure(study, space, options.limit, options.timing)
    except KeyboardInterrupt:
        study.stop()
        raise
    table = table_of(study, space)
    table.scans = found
    table.costs = {} if options.bare else profiles(task, space)
    table.save(options.table)
    failed = sum("error" in row for row in table.rows.values())
    print(f"{len(table.rows) - failed} configurations measured, {failed} failed: {options.table}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error}")
