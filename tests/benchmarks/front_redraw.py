"""How long the front takes to redraw on a change, with 2,000 trials: from the change of a trait to the new figure.

    python tests/benchmarks/front_redraw.py [--trials 2000] [--repeat 20]

Made-up trials of four runtimes and thirty sets of techniques. Each change is made as a hand on the page makes it, and
ends when the figure's JSON stands in the trait that is sent; the median and the slowest of `--repeat` are printed, with
the bytes. A new trial of a running study (a whole new frame) is timed apart. Sending and drawing are the browser's.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fake_study import fake_frame

from workbench.tuning.goal import Goal
from workbench.widgets.pareto_explorer import ParetoExplorer

SETS = [(), *itertools.combinations(("bf16", "drop_layers", "prune", "prune_tokens", "static_int8", "weight_rtn"), 2)]
SETS += list(itertools.combinations(("bf16", "drop_layers", "prune", "prune_tokens", "static_int8", "weight_rtn"), 3))


def frame(count: int) -> pd.DataFrame:
    """A study of so many measured trials, the same at every call."""
    rng = random.Random(0)
    rows = fake_frame(9).to_dict("records")
    found = [rows[0]]
    for number in range(1, count):
        row = dict(rows[1 + number % 8])
        lost, speed = rng.gauss(0.01, 0.02), rng.uniform(0.8, 6.0)
        row |= {"number": number, "recipe_id": f"{number:012x}", "techniques": rng.choice(SETS)}
        row |= {"accuracy": 0.8991 - lost, "drop": lost, "drop_low": lost - 0.008, "drop_high": lost + 0.008}
        row |= {"speedup": speed, "speedup_low": 0.98 * speed, "speedup_high": 1.02 * speed, "latency_ms": 40.9 / speed}
        row |= {"size_mb": rng.uniform(10, 91), "recipe": {"techniques": [], "backend": {"name": row["backend"]}}}
        found.append(row)
    return pd.DataFrame(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    made, whole = ParetoExplorer(), frame(options.trials)
    made.goal = Goal(max_drop=0.01)
    began = time.perf_counter()
    made.frame = whole
    print(f"{len(whole):,} trials; first reading {1000 * (time.perf_counter() - began):.0f} ms")
    shorter = whole.iloc[:-1]

    def click(i: int) -> None:
        made.figure.clicked = {"trial": 1 + i, "at": i}

    runtimes = list(made.runtimes)
    changes: dict[str, Callable[[int], None]] = {
        "axis across": lambda i: made.axis.set_trait("value", ("latency_ms", "size_mb")[i % 2]),
        "height": lambda i: made.height.set_trait("value", ("drop", "accuracy")[i % 2]),
        "limit of the drop": lambda i: made.allow.set_trait("value", 0.5 + 0.05 * i),
        "click on a point": click,
        "pin": lambda i: made.set_trait("pinned", (1 + i, 2 + i)),
        "theme": lambda i: made.set_trait("theme", ("dark", "light")[i % 2]),
        "filter by runtime": lambda i: made.runtimes[runtimes[0]].set_trait("value", bool(i % 2)),
        "lasso of 300": lambda i: made.figure.set_trait("chosen", {"trials": list(range(i, i + 300)), "at": i}),
        "one more trial": lambda i: made.set_trait("frame", (shorter, whole)[i % 2].copy()),
    }
    for name, change in changes.items():
        spent = []
        for i in range(options.repeat):
            began = time.perf_counter()
            change(i)
            spent.append(1000 * (time.perf_counter() - began))
        size = len(made.figure.figure) / 1024
        print(f"{name:20} median {median(spent):6.1f} ms, slowest {max(spent):6.1f} ms, figure {size:,.0f} kB")


if __name__ == "__main__":
    main()
