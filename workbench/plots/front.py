"""What a Pareto figure shows, as plain data: points with intervals, the front, the goal, the A/A band.

A trial is on the front when no other is at least as good on both axes and better on one. The vertical interval is
the *paired* one of the drop against the baseline, because a trial's own interval would hide differences that the
same examples show plainly. A live figure of thousands of trials keeps its rows and its hover texts and calls
`data_of` at every change. Left out: more than two axes, hypervolume.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
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
    factor: float = 1.0


AXES = {
    "speedup": Axis("Speed-up over the uncompressed model", "×", more_is_better=True),
    "latency_ms": Axis("Latency p50", "ms"),
    "latency_ms_p90": Axis("Latency p90", "ms"),
    "latency_ms_p99": Axis("Latency p99", "ms"),
    "throughput": Axis("Throughput", "examples/s", more_is_better=True),
    "size_mb": Axis("Size on disk", "MB"),
    "compressed_mb": Axis("Size compressed", "MB"),
    "peak_mb": Axis("Peak memory", "MB"),
    "macs": Axis("Multiply-accumulates", "G", factor=1e-9),
}
#: What the height can be, and its words; the score's own are those of the metric.
HEIGHTS = {
    "accuracy": "Score",
    "drop": "Drop against the uncompressed model",
    "flips": "Answers that changed, lost and gained",
}


def short(title: str) -> str:
    """An axis's title for a list to choose from, where the model need not be named."""
    return re.split(r" over | against |,", title)[0]


@dataclass(frozen=True)
class Point:
    """One measured trial. `x` in the axis's unit, `y` in percent for a share; intervals are NaN where unknown. `drop`
    is what was lost, in points of the metric (NaN where unknown)."""

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
    drop: float = math.nan


@dataclass(frozen=True)
class ParetoData:
    """What the figure shows: points in the order of trials, the front's numbers from cheap to dear, the line of the
    goal in the unit of `y` (None without a goal), and the A/A band in the unit of `x` (None where it does not apply).
    `more_is_better` is of `y`, `more_x` of `x`; `allowed` is the drop that the goal allows, in the unit of `drop`.
    """

    points: tuple[Point, ...]
    front: tuple[int, ...]
    goal: float | None
    band: tuple[float, float] | None
    x_title: str
    y_title: str
    failed: int
    more_is_better: bool = True
    more_x: bool = True
    allowed: float | None = None


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


def pareto_data(frame: pd.DataFrame, goal: Goal | None = None, x: str = "speedup", y: str = "accuracy") -> ParetoData:
    """Plain data for the columns of `Study.frame()`; `x` is a key of `AXES`, `y` of `HEIGHTS`.

    Raises `UnknownName` for another one, and `DataError` where the trials have different metrics.
    """
    return data_of(table.rows(frame), goal, x, y)


def data_of(
    rows: Sequence[Mapping[str, Any]],
    goal: Goal | None = None,
    x: str = "speedup",
    y: str = "accuracy",
    *,
    allowed: float | None = None,
    text: Callable[[Mapping[str, Any]], str] | None = None,
) -> ParetoData:
    """`pareto_data` of rows. `allowed`, in points of the metric (of a percentage for a share), stands for what the goal
    allows; `text` gives the hover of a row (`hover` unless it is given)."""
    for kind, name, known in (("axis", x, AXES), ("height", y, HEIGHTS)):
        if name not in known:
            raise unknown(kind, name, known)
    axis = AXES[x]
    done = [_reference(row) for row in rows if row["state"] == "complete"]
    done = [row for row in done if math.isfinite(table.number(row.get(x))) and math.isfinite(_height(row, y))]
    metrics = sorted({str(row["metric"]) for row in done})
    if len(metrics) > 1:
        raise DataError(f"These trials have different metrics: {', '.join(metrics)}.", do="show them one at a time")
    higher = not metrics or table.higher_is_better(metrics[0])
    better = (1 if higher else -1) if y == "accuracy" else -1
    sign = 1 if axis.more_is_better else -1
    flags = front_of([(sign * table.number(row[x]), better * _height(row, y)) for row in done])
    baseline = next((row for row in done if row["number"] == 0), None)
    share = table.is_fraction(metrics[0]) if metrics else True
    factor = 100 if share else 1
    points = tuple(
        _point(row, x, y, flag, baseline, factor, text or hover) for row, flag in zip(done, flags, strict=True)
    )
    if allowed is None and goal is not None and baseline is not None:
        allowed = factor * goal.allowed_drop(table.number(baseline["accuracy"]))
    line = allowed if y == "drop" else None
    if y == "accuracy" and allowed is not None and baseline is not None:
        line = factor * table.number(baseline["accuracy"]) - better * allowed
    return ParetoData(
        points=points,
        front=tuple(p.number for p in sorted((p for p in points if p.front), key=lambda p: p.x)),
        goal=line,
        band=_band(done) if x == "speedup" else None,
        x_title=f"{axis.title} ({axis.unit})",
        y_title=_title(y, metrics, share),
        failed=sum(row["state"] in table.FAILED for row in rows),
        more_is_better=better == 1,
        more_x=axis.more_is_better,
        allowed=allowed,
    )


def best_within(data: ParetoData, allowed: float | None, bound: float | None = None) -> Point | None:
    """The point that is best across among those that lose at most `allowed` points and keep to `bound` (at least or at
    most, as the axis has it); None where no other than the uncompressed model does."""
    sign = 1 if data.more_x else -1
    feasible = [
        p
        for p in data.points
        if not p.baseline
        and (allowed is None or p.drop <= allowed + 1e-9)
        and (bound is None or sign * p.x >= sign * bound - 1e-9)
    ]
    height = 1 if data.more_is_better else -1
    return max(feasible, key=lambda p: (sign * p.x, height * p.y), default=None)


def filtered(
    rows: Sequence[Mapping[str, Any]], runtimes: Collection[str] | None = None, techniques: Collection[str] = ()
) -> list[Mapping[str, Any]]:
    """Rows of these runtimes (None for all) with every one of these techniques; the uncompressed model stays."""
    wanted = set(techniques)
    return [
        row
        for row in rows
        if row["number"] == 0
        or ((runtimes is None or row["backend"] in runtimes) and wanted.issubset(row["techniques"]))
    ]


def _title(y: str, metrics: Sequence[str], share: bool) -> str:
    if y == "accuracy":
        return f"{(metrics[0] if metrics else 'score').replace('_', ' ').capitalize()}{' (%)' if share else ''}"
    return HEIGHTS[y] + (" (points)" if y == "drop" and share else "")


def _height(row: Mapping[str, Any], y: str) -> float:
    """The height of a row, shares as they are."""
    if y == "accuracy":
        return table.number(row["accuracy"])
    if row["number"] == 0:
        return 0.0
    if y == "drop":
        return table.number(row.get("drop"))
    return table.number(row.get("flips_lost")) + table.number(row.get("flips_gained"))


def _reference(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The baseline is one time itself by definition; what was measured of it is the A/A run, which the band shows."""
    return {**row, "speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0} if row["number"] == 0 else row


def _point(
    row: Mapping[str, Any],
    x: str,
    y: str,
    front: bool,
    baseline: Mapping[str, Any] | None,
    factor: int,
    text: Callable[[Mapping[str, Any]], str],
) -> Point:
    low = high = math.nan
    if y == "drop" and row is not baseline:
        low, high = (factor * table.number(row.get(key)) for key in ("drop_low", "drop_high"))
    elif y == "accuracy" and baseline is not None and row is not baseline:
        score = table.number(baseline["accuracy"])
        better = 1 if table.higher_is_better(row["metric"]) else -1
        ends = (factor * (score - better * table.number(row.get(key))) for key in ("drop_high", "drop_low"))
        low, high = sorted(ends)
        # The interval of a difference may reach beyond what a share can be.
        low, high = (max(low, 0.0), min(high, 100.0)) if factor == 100 else (low, high)
    across = AXES[x].factor
    return Point(
        number=int(row["number"]),
        x=across * table.number(row[x]),
        x_low=across * table.number(row.get(f"{x}_low")),
        x_high=across * table.number(row.get(f"{x}_high")),
        y=(factor if y != "flips" else 1) * _height(row, y),
        y_low=low,
        y_high=high,
        front=front,
        baseline=row["number"] == 0,
        runtime=str(row["backend"]),
        techniques=tuple(row["techniques"]),
        hover=text(row),
        drop=0.0 if row["number"] == 0 else factor * table.number(row.get("drop")),
    )


def hover(row: Mapping[str, Any]) -> str:
    """The whole recipe and its numbers as plotly's HTML; everything that comes from a model or a file is escaped."""
    shown = table.display_row(row)
    numbers = {k: v for k, v in shown.items() if k not in ("#", "Recipe", "State", "Took") and v}
    again = table.score_text(row, "report_accuracy")
    if again:
        numbers["On the report split"] = again
    numbers |= table.judgement(row)
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
