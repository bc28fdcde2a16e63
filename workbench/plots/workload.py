"""What batch and threads do: throughput, or the latency of a call, by examples in a call."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd

from workbench.errors import UserError
from workbench.plots import table
from workbench.plots.theme import runtime_colours, template
from workbench.plots.theme import theme as find_theme

#: What may be shown, and its title.
AXES = {"throughput": "Examples a second", "latency_ms": "Milliseconds of a call (p50)"}
_DASHES = ("solid", "dash", "dot", "dashdot")


def workload_data(frame: pd.DataFrame, y: str = "throughput") -> dict[tuple[str, int], list[tuple[int, float]]]:
    """(runtime, threads) -> (batch, value), by batch, from the columns of `Study.frame()`; the best of equal ones.

    The baseline is left out. Raises `UserError` for another `y`.
    """
    if y not in AXES:
        raise UserError(f"y = {y!r} is not possible.", allowed=" | ".join(AXES))
    best = max if y == "throughput" else min
    found: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    for row in table.rows(frame):
        value = table.number(row[y])
        if row["state"] != "complete" or row["number"] == 0 or not value > 0:
            continue
        line, batch = found[row["backend"], row["conditions"]["threads"]], row["conditions"]["batch"]
        line[batch] = best(value, line.get(batch, value))
    return {key: sorted(line.items()) for key, line in sorted(found.items())}


def workload_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The numbers behind the figure: one row of text per trial but the baseline, by runtime, threads and batch."""
    found = [row for row in table.rows(frame) if row["state"] == "complete" and row["number"]]
    by = [(row["backend"], row["conditions"]["threads"], row["conditions"]["batch"]) for row in found]
    rows = [
        {
            "Recipe": row["title"],
            "Threads": threads or "every core",
            "Batch": batch,
            "Throughput": table.amount(row["throughput"], "examples/s"),
            "Latency p50": table.amount(row["latency_ms"], "ms"),
            "Latency p99": table.amount(row["latency_ms_p99"], "ms"),
            "Speed-up": table.speedup_text(row),
        }
        for (_, threads, batch), _, row in sorted(zip(by, range(len(by)), found, strict=True))
    ]
    return pd.DataFrame(rows)


def workload(frame: pd.DataFrame, y: str = "throughput", theme: str = "light") -> Any:
    """The figure of `workload_data`: a line for each runtime and number of threads."""
    import plotly.graph_objects as go

    data, look = workload_data(frame, y), find_theme(theme)
    colours = runtime_colours((runtime for runtime, _ in data), look)
    counts = sorted({threads for _, threads in data})
    figure = go.Figure(layout={"template": template(theme), "height": 380})
    for (runtime, threads), line in data.items():
        words = f"{threads} thread{'s' * (threads != 1)}" if threads else "every core"
        dash = _DASHES[counts.index(threads) % len(_DASHES)]
        figure.add_scatter(
            x=[batch for batch, _ in line], y=[value for _, value in line], name=f"{runtime}, {words}",
            mode="lines+markers", line={"color": colours[runtime], "dash": dash},
        )  # fmt: skip
    figure.update_xaxes(title={"text": "Examples in a call (batch)"}, type="log", dtick=0.30103)
    figure.update_yaxes(title={"text": AXES[y]}, rangemode="tozero")
    return figure
