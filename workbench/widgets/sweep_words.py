"""What is said of a sweep: what a drop means in examples, what is happening, the best so far, what failed and why.

Plain functions of plain values; every text is escaped. Left out: the controls, which are `workbench.widgets.tuner`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from workbench.plots import table as tables
from workbench.plots.markup import Markup, join, tag
from workbench.running.bench import STAGES
from workbench.tuning.goal import Goal
from workbench.widgets.words import duration, roughly

#: What each stage of a trial is, for people.
STAGE_WORDS = {
    "compress": "compress",
    "lower": "build for the runtime",
    "load": "load",
    "evaluate": "score",
    "time": "time",
    "weigh": "weigh",
}


def allowance_html(goal: Goal, metric: str = "", score: float | None = None, examples: int = 0) -> Markup:
    """The allowed drop in the metric's own units and in examples, as far as the baseline's `score` and the number of
    `examples` are known."""
    if not tables.is_fraction(metric or "accuracy"):
        better = tables.higher_is_better(metric)
        if score is None:
            return tag("span", f"A change of the {metric.replace('_', ' ')} for the worse.")
        worst = score - goal.allowed_drop(score) if better else score + goal.allowed_drop(score)
        return tag("span", f"{metric.replace('_', ' ')} may go from {score:.4g} to {worst:.4g}")
    allowed = goal.allowed_drop(1.0 if score is None else score)
    parts = []
    if score is not None:
        parts.append(
            f"{100 * score:.2f} % may fall to {100 * max(score - allowed, 0.0):.2f} % ({100 * allowed:.2f} pt)"
        )
    if examples:
        most = "at most " if score is None else ""
        parts.append(f"{most}{math.floor(allowed * examples + 1e-9):,} of {examples:,} examples")
    return tag("span", " = ".join(parts) or "What this means in examples is known once the data are.")


def first_row(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The uncompressed model's row, once it has been measured."""
    return next((row for row in rows if row["number"] == 0 and row["state"] == "complete"), None)


def examples_of(row: Mapping[str, Any] | None) -> int:
    """How many examples a measured trial was scored on; 0 where its metric does not tell."""
    if row is None or row.get("metric") != "accuracy":
        return 0
    correct, score = tables.number(row.get("correct")), tables.number(row.get("accuracy"))
    return round(correct / score) if score > 0 and math.isfinite(correct) else 0


def status_html(status: Any, left: float | None = None) -> Markup:
    """One line on what is happening."""
    if status is None:
        return tag("span", "No study is open. Choose a model, techniques and runtimes, then Start.")
    parts = [tag("b", status.state, class_=f"wb-state wb-{status.state}")]
    if status.trial is not None:
        parts.append(tag("span", f"trial {status.trial}: {status.title}"))
    elif status.stage and not status.message:
        parts.append(tag("span", status.stage))
    if status.message and status.message != status.title:
        parts.append(tag("span", status.message))
    planned = f" of at most {status.planned}" if status.planned else ""
    parts.append(tag("span", f"{status.done}{planned} trials done"))
    if status.seconds:
        parts.append(tag("span", duration(status.seconds)))
    # A scan beside the sweep says itself how long it takes.
    if left is not None and status.state == "running" and status.stage != "scan":
        parts.append(tag("span", f"about {roughly(left)} left" if left else "the last trial"))
    return join(parts, " · ")


def stages_html(status: Any) -> Markup:
    """The stages of the running trial in their order: done, at work (with what it says of itself), to come."""
    if status is None or status.trial is None or status.state not in ("running", "stopping"):
        return Markup("")
    name, _, detail = status.stage.partition(": ")
    names = list(STAGES)
    now = names.index(name) if name in names else -1
    items = []
    for i, stage in enumerate(names):
        state = "done" if i < now else "now" if i == now else "next"
        mark = tag("span", {"done": "✓ ", "now": "▸ ", "next": ""}[state], aria_hidden="true")
        current = "step" if state == "now" else None
        items.append(tag("li", mark, STAGE_WORDS[stage], class_=f"wb-stage-{state}", aria_current=current))
    share = min(max(status.progress, 0.0), 1.0)
    said = f"{100 * share:.0f} % of the trial" + (f": {detail}" if detail else "")
    return join([tag("ol", *items, class_="wb-stages"), tag("span", said, class_="wb-note")])


def share_done(status: Any) -> float:
    """How much of the sweep is done, 0 … 1; with a budget of time only the running trial's own share is known."""
    if status is None or status.state not in ("running", "stopping"):
        return 0.0
    if not status.planned:
        return min(max(status.progress, 0.0), 1.0)
    running = status.progress if status.trial is not None else 0.0
    return min((status.done + running) / status.planned, 1.0)


def bar_html(status: Any) -> Markup:
    """The sweep's progress as the browser's own bar; nothing while nothing runs."""
    if status is None or status.state not in ("running", "stopping"):
        return Markup("")
    share = share_done(status)
    return tag(
        "progress", f"{100 * share:.0f} %", max=1, value=f"{share:.3f}", class_="wb-progress", aria_label="sweep"
    )


def best_html(rows: list[dict[str, Any]], number: int | None) -> Markup:
    """The best trial so far with its numbers."""
    row = next((r for r in rows if r["number"] == number and r["state"] == "complete"), None)
    if row is None:
        return Markup("")
    if number == 0:
        return tag("p", "Nothing yet meets the goal and beats the uncompressed model.", class_="wb-note")
    shown = tables.display_row(row)
    facts = [(key, shown[key]) for key in ("Speed-up", "Change", "Latency p50", "Size") if shown[key]]
    listed = tag("dl", *(item for key, value in facts for item in (tag("dt", key), tag("dd", value))))
    title = tag("p", tag("b", "Best so far: "), f"#{number} {row['title']}")
    unsure = tables.judgement(row).get("Goal", "")
    said = tag("p", unsure, class_="wb-note") if unsure else ""
    return tag("div", title, listed, said, class_="wb-facts")


def refused_html(refused: list[dict[str, Any]], shown: int = 20) -> Markup:
    """What was refused before any work, with reasons."""
    if not refused:
        return Markup("")
    items = [tag("li", tag("b", row["title"]), f": {row['reason']}") for row in refused[:shown]]
    more = [tag("li", f"and {len(refused) - shown} more")] if len(refused) > shown else []
    return join([tag("p", f"{len(refused)} refused before any work:"), tag("ul", *items, *more, class_="wb-list")])


def failed_html(row: Mapping[str, Any]) -> Markup:
    """One trial that gave no measurement, and why."""
    return tag("div", tag("b", f"#{row['number']} {row['title']}"), f" {row['state']}: {tables.reason(row)}")
