"""What each layer costs in time, from the runtime's own profiler, and what its compression saves for what it loses.

    cost(task, Recipe(backend=OpenVINO()))                            milliseconds and share by layer, then by operator
    value_map(scan(task), cost(task, fp32), cost(task, int8))         milliseconds saved against the score

A profiler costs time itself and cannot see what overlaps, so a sum of milliseconds is no latency; `attrs` has what a
call takes without the profiler. Left out: memory, and time that a runtime spends between its nodes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.backends.base import NodeTime, Runner, collate
from workbench.compress import compress
from workbench.draft import Batch
from workbench.errors import DataError, Refused
from workbench.measure.estimate import bootstrap
from workbench.recipe import Recipe
from workbench.tasks.base import Task

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("layer", "kind", "precision", "ms", "ms_low", "ms_high", "share")
_WARM_UP = 3


def cost(task: Task, recipe: Recipe, *, calls: int = 30) -> pd.DataFrame:
    """One row per layer in the model's order, then one per operator type for all that is no layer (`layer` is '').

    `ms` is the median over `calls` at the recipe's batch and sequence, with its bootstrap interval; `share` is of the
    sum of all rows; `precision` as it took effect. `attrs`: the recipe, `total_ms` and `wall_ms`, the median of a call
    without the profiler. Raises `Refused` where the runtime does not tell, and what `compress` raises.
    """
    runner = compress(task, recipe).load()
    try:
        return frame(cost_rows(runner, example_batch(task, recipe), calls), recipe)
    finally:
        runner.close()


def example_batch(task: Task, recipe: Recipe) -> Batch:
    """The first examples of the select split as one batch of the recipe's full length."""
    backend = recipe.backend
    examples = task.encoded("select", backend.batch)
    if not examples:
        raise DataError("This task has no examples to run.", do="give data with the task")
    examples = [examples[i % len(examples)] for i in range(backend.batch)]
    return collate(examples, backend.sequence, task.pad())


def cost_rows(runner: Runner, batch: Batch, calls: int, *, whole: bool = False) -> list[dict[str, Any]]:
    """The rows of `cost` as plain data; each has the median of a call without the profiler as `wall_ms`.

    A runtime that does not tell raises `Refused`, or, where the `whole` is good enough, gives one row for it.
    """
    for _ in range(_WARM_UP):
        runner(batch)
    walls = []
    for _ in range(calls):
        began = time.perf_counter()
        runner(batch)
        walls.append((time.perf_counter() - began) * 1e3)
    precision, wall = runner.effect().layers, float(np.median(walls))
    try:
        grouped = by_layer(runner.profile(batch, calls), list(precision))
    except Refused:
        if not whole:
            raise
        middle = bootstrap(np.array(walls), lambda a: np.median(a, axis=-1), unit="ms")
        numbers = {"ms": middle.value, "ms_low": middle.low, "ms_high": middle.high}
        return [{"layer": "", "kind": "all", "precision": "", **numbers, "wall_ms": wall}]
    found = []
    for (layer, kind), ms in grouped.items():
        middle = bootstrap(ms, lambda a: np.median(a, axis=-1), unit="ms")
        row = {"layer": layer, "kind": kind, "precision": precision.get(layer, "")}
        found.append({**row, "ms": middle.value, "ms_low": middle.low, "ms_high": middle.high, "wall_ms": wall})
    return found


def by_layer(nodes: list[NodeTime], order: list[str]) -> dict[tuple[str, str], np.ndarray]:
    """Milliseconds of every call by (layer, type): the layers in `order`, then what is no layer by type, the dearest
    first. A layer of several nodes has the type of the dearest."""
    layers: dict[str, list[NodeTime]] = {name: [] for name in order}
    rest: dict[str, list[NodeTime]] = {}
    for node in nodes:
        if node.layer in layers:
            layers[node.layer].append(node)
        else:
            rest.setdefault(node.kind, []).append(node)
    found = {}
    for name, own in layers.items():
        if own:
            kind = max(own, key=lambda node: sum(node.ms)).kind
            found[name, kind] = np.sum([node.ms for node in own], axis=0)
    others = {kind: np.sum([node.ms for node in own], axis=0) for kind, own in rest.items()}
    for kind in sorted(others, key=lambda kind: -float(np.median(others[kind]))):
        found["", kind] = others[kind]
    return found


def frame(rows: list[dict[str, Any]], recipe: Recipe) -> pd.DataFrame:
    """Rows of `cost_rows` as a table with shares."""
    import pandas as pd

    table = pd.DataFrame(rows)
    total = float(table["ms"].sum())
    table["share"] = table["ms"] / total if total else 0.0
    wall = float(table["wall_ms"].iloc[0])
    table = table[list(COLUMNS)]
    table.attrs = {"recipe": recipe.to_json(), "title": recipe.title, "total_ms": total, "wall_ms": wall}
    return table


def value_map(scores: pd.DataFrame, plain: pd.DataFrame, compressed: pd.DataFrame) -> pd.DataFrame:
    """What each layer's compression saves against what it costs: `saved_ms` (milliseconds of `plain` less those of
    `compressed`, both from `cost`), `saved_share` of the whole uncompressed model, and the columns of the scan.

    `per_score` is milliseconds saved for each unit of score: the larger, the sooner a layer should be compressed.
    Raises `DataError` where the tables are of different layers, or the scan has several rows for a layer.
    """
    before = plain[plain.layer != ""].set_index("layer")["ms"]
    after = compressed[compressed.layer != ""].set_index("layer")["ms"]
    if scores.layer.duplicated().any():
        raise DataError("This scan has several rows for a layer.", do="take the rows of one value of the knob")
    lost = [name for name in scores.layer if name not in before.index or name not in after.index]
    if lost:
        raise DataError(
            f"{len(lost)} layers of the scan are in no table of costs, such as {lost[0]!r}.",
            do="take scan and costs of one model",
        )
    found = scores[["layer", "macs", "score", "score_low", "score_high", "rank"]].copy()
    found["ms"] = before.reindex(found.layer).to_numpy()
    found["saved_ms"] = found.ms - after.reindex(found.layer).to_numpy()
    found["saved_share"] = found.saved_ms / plain.ms.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        found["per_score"] = found.saved_ms / found.score.clip(lower=0)
    found.attrs = dict(scores.attrs)
    return found
