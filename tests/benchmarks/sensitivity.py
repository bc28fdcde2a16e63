"""Which probe is worth its time: every probe in both directions on a real model, against the flips of a real runtime.

    python tests/benchmarks/sensitivity.py [--probes kl sqnr …] [--layers classifier '*.layer.0.*'] [--out runs/probes]

MiniLM-L6 on SST-2, static INT8 with the workbench's own ranges. The truth of a layer is the share of answers that
change when this layer alone is lowered to INT8 for OpenVINO and run on the examples of the development set (`--truth-
samples` of `--truth-split`). Prints the table (Spearman's rho with a bootstrap interval over layers, seconds) and
writes the scores, the two figures (rho by probe, layers by probe) and the value map into `--out`. Everything found is
kept in the cache, so a second call goes on where the first one was stopped. Wants WORKBENCH_ASSETS, and a quiet
machine for the seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from workbench.backends.openvino import OpenVINO
from workbench.plots.sensitivity import bars, heat, trusted, value
from workbench.recipe import Recipe
from workbench.registry import members
from workbench.sensitivity.cost import cost, value_map
from workbench.sensitivity.scan import scan
from workbench.sensitivity.trust import trust
from workbench.tasks.base import Task, make_task
from workbench.techniques.static_int8 import StaticInt8

HERE = Path(__file__).resolve().parent
ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))
DIRECTIONS = ("only", "all_but")


def progress(share: float, words: str) -> None:
    print(f"\r{share:6.1%} {words[:90]:90}", end="", file=sys.stderr, flush=True)


def values(task: Task, technique: StaticInt8, layers: list[str]) -> object:
    """What each layer's compression saves on OpenVINO against its output KL."""
    runtime = OpenVINO(threads=2)
    plain, small = (cost(task, recipe) for recipe in (Recipe(backend=runtime), Recipe(technique, backend=runtime)))
    return value_map(scan(task, technique, "kl", layers=layers), plain, small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", nargs="+", default=list(members("probes")))
    parser.add_argument("--layers", nargs="+", default=[])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--truth", default="flips", help="flips, or kl, which tells layers apart that flip nothing")
    parser.add_argument("--truth-samples", type=int, default=10_000)
    parser.add_argument("--truth-split", choices=("select", "calibration"), default="select")
    parser.add_argument("--out", type=Path, default=Path("runs/probes"))
    chosen = parser.parse_args()
    task = make_task(ASSETS / "models" / "minilm-l6-sst2", ASSETS / "data" / "sst2", text="sentence")
    technique = StaticInt8(calibration="minmax", samples=128)
    began = time.perf_counter()
    found = trust(
        task, technique, OpenVINO(threads=2, batch=16), chosen.probes, DIRECTIONS,
        truth=chosen.truth, truth_samples=chosen.truth_samples, truth_split=chosen.truth_split,
        layers=chosen.layers, samples=chosen.samples, tell=progress,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    print(f"\n\n{found.truth.attrs['title']}: {(found.truth.score > 0).sum()} of {len(found.truth)} layers are above 0")
    print("| probe | direction | rho | seconds | evaluations | first three layers |")
    print("|---|---|---|---|---|---|")
    for row in found.table.to_dict("records"):
        name = f"{row['probe']} {row['direction']}"
        if name not in found.scores:
            print(f"| {row['probe']} | {row['direction']} | {row['note']} | | | |")
            continue
        first = found.scores.sort_values(name, ascending=False, na_position="first").layer[:3]
        rho = f"{row['rho']:.2f} [{row['rho_low']:.2f}, {row['rho_high']:.2f}]"
        counts = f"{row['seconds']:.1f} | {row['evaluations']:.1f}"
        print(f"| {row['probe']} | {row['direction']} | {rho} | {counts} | {', '.join(first)} |")
    print(f"{seconds:.0f} s in all")
    chosen.out.mkdir(parents=True, exist_ok=True)
    found.scores.to_csv(chosen.out / "scores.csv", index=False)
    found.table.to_csv(chosen.out / "table.csv", index=False)
    scans = {}
    for row in found.table.to_dict("records"):
        if f"{row['probe']} {row['direction']}" in found.scores:
            given = {"layers": chosen.layers, "samples": chosen.samples}
            scans[f"{row['probe']} {row['direction']}"] = scan(task, technique, row["probe"], row["direction"], **given)
    figures = {"rho": trusted(found.table), "layers": heat({"truth": found.truth, **scans}), "truth": bars(found.truth)}
    figures["value"] = value(values(task, technique, chosen.layers))
    for name, figure in figures.items():
        figure.write_html(chosen.out / f"{name}.html", include_plotlyjs=True)
    print(f"figures and tables are in {chosen.out}")


if __name__ == "__main__":
    main()
