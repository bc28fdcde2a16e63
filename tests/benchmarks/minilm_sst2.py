"""The main table on a real model, measured several times: speed-ups with intervals, and how well they repeat.

    python tests/benchmarks/minilm_sst2.py [--times 2] [--out runs/minilm]

MiniLM-L6 on SST-2, sequence 128, batch 1, 2 threads, every default of bf16, dynamic_int8 and static_int8 on all four
runtimes, and BF16 on OpenVINO with its shape fixed, which is how that runtime is at its best at one length. Wants a
quiet machine and WORKBENCH_ASSETS; it times, so it is no unit test.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
from pathlib import Path

from scipy.stats import kendalltau

from workbench.console import show_front
from workbench.study import Study
from workbench.sweep import BACKENDS, sweep

HERE = Path(__file__).resolve().parent
ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))


def measure(folder: Path) -> Study:
    """One study from scratch; nothing of an earlier one is used again."""
    shutil.rmtree(folder, ignore_errors=True)
    for techniques, backends in (
        (("bf16", "dynamic_int8", "static_int8"), BACKENDS),
        (("bf16",), ("openvino:shapes=fixed",)),
    ):
        study = sweep(
            ASSETS / "models" / "minilm-l6-sst2",
            ASSETS / "data" / "sst2",
            study=folder,
            budget="30",
            strategy="grid",
            techniques=techniques,
            backends=backends,
            workload={"batch": 1, "sequence": 128, "threads": 2},
            timing_seconds=10.0,
        )
    return study


def speedups(study: Study) -> dict[str, float]:
    """Speed-up by recipe, the baseline's A/A run left out."""
    return {t.recipe.title: t.measurement.speedup.value for t in study.trials[1:] if t.measurement}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/minilm"))
    options = parser.parse_args()
    studies = [measure(options.out.with_name(f"{options.out.name}-{i + 1}")) for i in range(options.times)]
    for study in studies:
        print(f"\n{study.folder}")
        show_front(study, everything=True, as_json=False)
        same = study.trials[0].measurement
        print(f"baseline: {same.correct} of {same.outcomes and len(same.outcomes)} right; A/A {same.speedup}")
    for first, second in itertools.combinations(studies, 2):
        one, two = speedups(first), speedups(second)
        names = sorted(one.keys() & two.keys())
        gaps = {name: two[name] / one[name] - 1 for name in names}
        tau = kendalltau([one[n] for n in names], [two[n] for n in names]).statistic
        worst = max(gaps, key=lambda name: abs(gaps[name]))
        print(f"\n{first.name} against {second.name}: largest gap {gaps[worst]:+.1%} ({worst}), Kendall tau {tau:.3f}")
        for name in names:
            print(f"  {name:32} {one[name]:6.2f}× {two[name]:6.2f}× {gaps[name]:+6.1%}")


if __name__ == "__main__":
    main()
