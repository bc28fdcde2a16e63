"""Which strategy finds the front in the fewest full evaluations, replayed on a table of measured configurations.

    python tests/benchmarks/search_efficiency.py [tests/benchmarks/minilm_table.json] [--synthetic 3] [--seeds 10]

Every strategy sees the same table (see `record_table.py`) with the same goal; scans, profiles and looks are answered
from the record and counted beside. Printed: full evaluations until 95 % of the table's hypervolume, the median over
seeds, and the hypervolume on the way. Nothing is timed, so it may run beside anything.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from recorded import Replay, Table, replay, synthetic  # noqa: E402

from workbench.recipe import plugin  # noqa: E402
from workbench.tuning.goal import Goal  # noqa: E402

STRATEGIES = ("frontier", "random", "tpe", "nsga2", "bayesian", "basic", "mse_v2")
AFTER = (5, 10, 15, 20, 40, 80)
SHARE = 0.95


def compare(table: Table, goal: Goal, seeds: int, limit: int) -> dict[str, list[Replay]]:
    """The replays of every strategy, one for each seed."""
    return {
        name: [replay(table, plugin("strategies", name, seed=seed), goal, limit) for seed in range(seeds)]
        for name in STRATEGIES
    }


def median_needed(replays: list[Replay], area: float, limit: int) -> float:
    """Median over seeds of the full evaluations until `area`; one that never got there counts as `limit` + 1."""
    return statistics.median(replay.needed(area) or limit + 1 for replay in replays)


def show(table: Table, found: dict[str, list[Replay]], goal: Goal, limit: int) -> None:
    """The table for a person."""
    best = table.best(goal)
    after = "".join(f"{f'after {n}':>10}" for n in AFTER)
    print(f"\n{len(table.rows)} configurations, hypervolume {best:.5f} at {table.reference(goal)}")
    print(f"{'strategy':10} {'to 95 %':>8} {'worst':>6}{after}   questions (median)")
    for name, replays in found.items():
        needed = [r.needed(SHARE * best) or limit + 1 for r in replays]
        shares = [statistics.median(r.areas[min(n, len(r.areas)) - 1] / best for r in replays) for n in AFTER]
        asked = {k: statistics.median(r.questions.get(k, 0) for r in replays) for k in ("scan", "costs", "peek")}
        told = ", ".join(f"{v:g} {k}" for k, v in asked.items() if v)
        row = "".join(f"{share:>9.1%} " for share in shares)
        print(f"{name:10} {_count(statistics.median(needed), limit):>8} {_count(max(needed), limit):>6}{row}   {told}")


def _count(number: float, limit: int) -> str:
    return f"> {limit}" if number > limit else f"{number:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="?", default=HERE / "minilm_table.json")
    parser.add_argument("--synthetic", type=int, default=0, help="made-up tables instead, this many")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--limit", type=int, default=100, help="full evaluations of each search")
    parser.add_argument("--max-drop", type=float, default=0.05, help="the worst drop that the front counts")
    options = parser.parse_args()
    goal = Goal(max_drop=options.max_drop, front=True, trials=None)
    tables = [synthetic(i) for i in range(options.synthetic)] or [Table.load(options.table)]
    for table in tables:
        show(table, compare(table, goal, options.seeds, options.limit), goal, options.limit)


if __name__ == "__main__":
    main()
