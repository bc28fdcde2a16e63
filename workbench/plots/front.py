"""What a Pareto figure shows, as plain data: points with intervals, the front, the goal, the A/A band.

A trial is on the front when no other is at least as good on both axes and better on one. The vertical interval is
the *paired* one of the drop against the baseline, because a trial's own interval would hide differences that the
same examples show plainly. Left out: more than two axes, hypervolume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.errors import DataError, UserError
from workbench.plots import table
from workbench.plots.markup import hover_lines
from workbench.recipe import Recipe
from workbench.registry import unknown
from workbench.tuning.goal import Goal


@dataclass(frozen=True)
class Axis:
    """A cost that can be drawn: its words and unit, and whether more of it is better."""

    title: str
    unit: str
    more_is_better: bool = False


AXES = {
    "speedup": Axis("Speed-up over the uncompressed model", "×", more_is_better=True),
    "latency_ms": Axis("Latency p50", "ms"),
    "latency_ms_p99": Axis("Latency p99", "ms"),
    "throughput": Axis("Throughput", "examples/s", more_is_better=True),
    "size_mb": Axis("Size on disk", "MB"),
    "compressed_mb": Axis("Size compressed", "MB"),
    "peak_mb": Axis("Peak memory", "MB"),
}


@dataclass(frozen=True)
class Point:
    """One measured trial. `x` in the axis's unit, `y` in percent for a share; intervals are NaN where unknown."""

    number: int
    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float
    front: bool
    baseline: bool
    runtime: str
    techniques: tuple[str, ...]
    hover: str


@dataclass(frozen=True)
class ParetoData:
    """What the figure shows: points in the order of trials, the front's numbers from cheap to dear, the line of the
    goal in the unit of `y` (None without a goal), and the A/A band in the unit of `x` (None where it does not apply).
    `more_is_better` is of `y`.
    """

    points: tuple[Point, ...]
    front: tuple[int, ...]
    goal: float | None
    band: tuple[float, float] | None
    x_title: str
    y_title: str
    failed: int
    more_is_better: bool = True


def front_of(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each of the points (x, y), both to be maximised, is dominated by no other. Equal points are together.

    One pass over the points from the largest x down: O(n log n).
    """
    flags, best, i = [False] * len(points), -math.inf, 0
    order = sorted(range(len(points)), key=lambda k: (-points[k][0], -points[k][1]))
    while i < len(order):
        x, top = points[order[i]]
        while i < len(order) and points[order[i]][0] == x:
            flags[order[i]] = points[order[i]][1] == top > best
            i += 1
        best = max(best, top)
    return flags


def pareto_data(frame: pd.DataFrame, goal: Goal | None = None, x: str = "speedup") -> ParetoData:
    """Plain data for the columns of `Study.frame()`; `x` is a key of `AXES`.

    Raises `UnknownName` for another `x`, and `DataError` where the trials have different metrics.
    """
    if x not in AXES:
        raise unknown("axis", x, AXES)
    rows = [_reference(row) for row in table.rows(frame) if row["state"] == "complete"]
    rows = [row for row in rows if math.isfinite(table.number(row[x])) and math.isfinite(table.number(row["accuracy"]))]
    metrics = sorted({str(row["metric"]) for row in rows})
    if len(metrics) > 1:
        raise DataError(f"These trials have different metrics: {', '.join(metrics)}.", do="show them one at a time")
    sign = 1 if AXES[x].more_is_better else -1
    better = 1 if not metrics or table.higher_is_better(metrics[0]) else -1
    flags = front_of([(sign * table.number(row[x]), better * table.number(row["accuracy"])) for row in rows])
    baseline = next((row for row in rows if row["number"] == 0), None)
    points = tuple(_point(row, x, flag, baseline) for row, flag in zip(rows, flags, strict=True))
    share = table.is_fraction(metrics[0]) if metrics else True
    line = None
    if goal is not None and baseline is not None:
        score = table.number(baseline["accuracy"])
        line = (score - better * goal.allowed_drop(score)) * (100 if share else 1)
    return ParetoData(
        points=points,
        front=tuple(p.number for p in sorted((p for p in points if p.front), key=lambda p: p.x)),
        goal=line,
        band=_band(rows) if x == "speedup" else None,
        x_title=f"{AXES[x].title} ({AXES[x].unit})",
        y_title=f"{(metrics[0] if metrics else 'score').replace('_', ' ').capitalize()}{' (%)' if share else ''}",
        failed=sum(row["state"] in table.FAILED for row in table.rows(frame)),
        more_is_better=better == 1,
    )


def _reference(row: dict[str, Any]) -> dict[str, Any]:
    """The baseline is one time itself by definition; what was measured of it is the A/A run, which the band shows."""
    return {**row, "speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0} if row["number"] == 0 else row


def _point(row: Mapping[str, Any], x: str, front: bool, baseline: Mapping[str, Any] | None) -> Point:
    factor = 100 if table.is_fraction(row["metric"]) else 1
    low = high = math.nan
    if baseline is not None and row is not baseline:
        score = table.number(baseline["accuracy"])
        better = 1 if table.higher_is_better(row["metric"]) else -1
        ends = (factor * (score - better * table.number(row.get(key))) for key in ("drop_high", "drop_low"))
        low, high = sorted(ends)
        # The interval of a difference may reach beyond what a share can be.
        low, high = (max(low, 0.0), min(high, 100.0)) if factor == 100 else (low, high)
    return Point(
        number=int(row["number"]),
        x=table.number(row[x]),
        x_low=table.number(row.get(f"{x}_low")),
        x_high=table.number(row.get(f"{x}_high")),
        y=factor * table.number(row["accuracy"]),
        y_low=low,
        y_high=high,
        front=front,
        baseline=row["number"] == 0,
        runtime=str(row["backend"]),
        techniques=tuple(row["techniques"]),
        hover=hover(row),
    )


def hover(row: Mapping[str, Any]) -> str:
    """The whole recipe and its numbers as plotly's HTML; everything that comes from a model or a file is escaped."""
    shown = table.display_row(row)
    numbers = {k: v for k, v in shown.items() if k not in ("#", "Recipe", "State", "Took") and v}
    again = table.score_text(row, "report_accuracy")
    if again:
        numbers["On the report split"] = again
    facts = [line for key, value in numbers.items() for line in hover_lines(f"{key}: {value}")]
    title = "<br>".join(hover_lines(f"#{row['number']}  {row['title']}"))
    code = "<br>".join(hover_lines(_recipe(row)))
    return f"<b>{title}</b><br>{'<br>'.join(facts)}<br><br>{code}"


def _recipe(row: Mapping[str, Any]) -> str:
    """The recipe alone, shorter than the trial's line of Python; that line where a plug-in is not installed here."""
    try:
        return repr(Recipe.from_json(row["recipe"]))
    except UserError:
        return str(row["code"])


def _band(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The widest A/A band among the trials: each run has its own noise."""
    lows = [low for row in rows if math.isfinite(low := table.number(row.get("noise_low")))]
    highs = [high for row in rows if math.isfinite(high := table.number(row.get("noise_high")))]
    return (min(lows), max(highs)) if lows and highs else None
