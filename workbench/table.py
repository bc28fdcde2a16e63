"""Trials as rows: plain JSON for scripts, a DataFrame for people, with the same names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from workbench.measure.measurement import Measurement
from workbench.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

_ESTIMATES = ("accuracy", "drop", "speedup", "speedup_real", "noise")
_PLAIN = (
    "metric",
    "correct",
    "flips_lost",
    "flips_gained",
    "throughput",
    "size_mb",
    "compressed_mb",
    "peak_mb",
    "parameters",
    "nonzero_parameters",
    "macs",
    "in_effect",
    "split",
    "conditions",
)
_LATENCIES = ("latency_ms", "baseline_latency_ms", "latency_real_ms")


def row_of(trial: Trial, code: str, broken: str | None = None) -> dict[str, Any]:
    """One trial as plain data: estimates are `{"value", "low", "high", "n", "unit"}`, None where not measured.

    `broken` says why a front member does not hold on the report split, '' where it does; None where nothing is known.
    """
    measured = trial.measurement
    row: dict[str, Any] = {
        "number": trial.number,
        "state": trial.state,
        "recipe": trial.recipe.to_json(),
        "recipe_id": trial.recipe.id,
        "code": code,
        "title": trial.recipe.title,
        "backend": trial.recipe.backend.name,
        "techniques": [step.name for step in trial.recipe.steps],
    }
    for name in _ESTIMATES:
        value = getattr(measured, name) if measured else None
        row[name] = value.to_json() if value else None
    for name in (*_LATENCIES, *_PLAIN):
        row[name] = (
            (getattr(measured, name) or None) if measured and name in _LATENCIES else getattr(measured, name, None)
        )
    row["seconds"] = trial.seconds
    row["error"] = trial.error or None
    row["report"] = _report(trial.report)
    row["holds"] = None if broken is None else not broken
    row["holds_not"] = broken or None
    row["parent"] = trial.meta.get("parent")
    return row


def frame_of(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The rows of `row_of` as a table: an estimate `x` becomes the columns `x`, `x_low`, `x_high`, and a latency
    becomes its p50, with `_p90` and `_p99` beside it."""
    import pandas as pd

    flat = []
    for row in map(dict, rows):
        for name in _ESTIMATES:
            value = row.pop(name) or {}
            row |= {name: value.get("value"), f"{name}_low": value.get("low"), f"{name}_high": value.get("high")}
        for name in _LATENCIES:
            value = row.pop(name) or {}
            row |= {name: value.get("p50"), f"{name}_p90": value.get("p90"), f"{name}_p99": value.get("p99")}
        report = row.pop("report") or {}
        for name in ("accuracy", "drop"):
            row[f"report_{name}"] = (report.get(name) or {}).get("value")
        row["techniques"] = tuple(row["techniques"])
        flat.append(row)
    return pd.DataFrame(flat, columns=list(flat[0]) if flat else _empty_columns())


def _empty_columns() -> list[str]:
    columns = ["number", "state", "recipe", "recipe_id", "code", "title", "backend", "techniques", *_PLAIN]
    for name in _ESTIMATES:
        columns += [name, f"{name}_low", f"{name}_high"]
    for name in _LATENCIES:
        columns += [name, f"{name}_p90", f"{name}_p99"]
    return [
        *columns,
        "seconds",
        "error",
        "holds",
        "holds_not",
        "parent",
        "goal",
        "goal_text",
        "report_accuracy",
        "report_drop",
    ]


def _report(measured: Measurement | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    estimates = {n: getattr(measured, n) for n in ("accuracy", "drop", "speedup")}
    plain = {n: v.to_json() if v else None for n, v in estimates.items()}
    return {**plain, "correct": measured.correct, "split": measured.split}
