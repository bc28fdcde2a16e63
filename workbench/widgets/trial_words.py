"""What is said of trials beside a figure: one in full, several side by side, all of them page by page.

Plain functions of rows of `Study.frame()`; every text is escaped. Left out: confusion matrices and flips, which are the
comparison's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.plots import table as tables
from workbench.plots.front import pareto_data
from workbench.plots.markup import Markup, join, table, tag, wide
from workbench.widgets.base import code_html

Row = Mapping[str, Any]

#: Columns of the table beside the figure; a click shows all of them.
BESIDE = ["#", "Recipe", "State", "Score", "Change", "Speed-up", "Latency p50", "Size", "In effect"]
#: Rows of one page of the table.
PAGE = 25
#: What the table can be sorted by: words -> (column, whether the largest comes first).
SORTS = {
    "number": ("number", False),
    "newest": ("number", True),
    "score": ("accuracy", True),
    "speed-up": ("speedup", True),
    "latency": ("latency_ms", False),
    "size": ("size_mb", False),
}


def facts_of(row: Row) -> dict[str, str]:
    """Every number of a trial with its interval, by its name; empty ones are left out."""
    shown = {k: v for k, v in tables.display_row(row).items() if k not in ("#", "Recipe") and v != ""}
    tails = (tables.amount(row.get(f"latency_ms_{p}"), "ms") for p in ("p90", "p99"))
    more = {
        "p90, p99": " / ".join(filter(None, tails)),
        "Speed-up at real lengths": tables.speedup_text(row, "speedup_real"),
        "Throughput": tables.amount(row.get("throughput"), "examples/s"),
        "Compressed": tables.amount(row.get("compressed_mb"), "MB"),
        "Score on the report split": tables.score_text(row, "report_accuracy"),
        **tables.judgement(row),
    }
    return {k: str(v) for k, v in {**shown, **more}.items() if v}


def lineage(rows: Sequence[Row], number: int) -> tuple[list[int], list[int]]:
    """(the trials that this one was edited from, the nearest first; the trials that were edited from it)."""
    parents = {int(r["number"]): tables.number(r.get("parent")) for r in rows}
    line: list[int] = []
    at = parents.get(number, float("nan"))
    while at == at and int(at) not in line and int(at) != number:
        line.append(int(at))
        at = parents.get(int(at), float("nan"))
    return line, [n for n, parent in parents.items() if parent == number]


def detail_html(frame: pd.DataFrame | Sequence[Row], number: int | None) -> Markup:
    """One trial in full: every number with its interval, what took effect, where it comes from, why it failed."""
    rows = tables.rows(frame) if isinstance(frame, pd.DataFrame) else frame
    row = next((r for r in rows if r["number"] == number), None)
    if row is None:
        return tag("p", "Click a point, or choose a trial, to see its recipe and its numbers.", class_="wb-note")
    facts = facts_of(row)
    line, children = lineage(rows, int(row["number"]))
    if line:
        facts["Edited from"] = " ← ".join(f"trial {n}" for n in line)
    if children:
        facts["Edited into"] = ", ".join(f"trial {n}" for n in children)
    listed = tag("dl", *(item for key, value in facts.items() for item in (tag("dt", key), tag("dd", value))))
    failed = tag("p", tables.reason(row), class_="wb-what") if row["state"] in tables.FAILED else ""
    title = tag("h3", f"Trial {row['number']}: {row['title']}")
    return tag("div", title, failed, listed, nodes_html(row), code_html(row["code"]))


def nodes_html(row: Row) -> Markup:
    """How many nodes of which type the lowered model has, the most frequent first."""
    effect = row.get("in_effect")
    nodes = effect.get("nodes") if isinstance(effect, Mapping) else None
    if not nodes:
        return Markup("")
    ordered = sorted(nodes.items(), key=lambda pair: -pair[1])
    told = ", ".join(f"{count} {kind}" for kind, count in ordered[:12])
    more = f" and {len(ordered) - 12} other types" if len(ordered) > 12 else ""
    said = tag("summary", f"{sum(nodes.values()):,} nodes in the lowered model")
    return tag("details", said, tag("p", told + more), class_="wb-note")


def pins_html(rows: Sequence[Row], pinned: Sequence[int]) -> Markup:
    """The pinned trials side by side, a line for each number."""
    found = [row for number in pinned for row in rows if row["number"] == number]
    if not found:
        return Markup("")
    facts = [facts_of(row) for row in found]
    names = [name for name in dict.fromkeys(name for each in facts for name in each) if name != "State"]
    lines = [
        {"": name, **{f"#{r['number']}": f.get(name, "") for r, f in zip(found, facts, strict=True)}} for name in names
    ]
    titles = {"": "Recipe", **{f"#{row['number']}": row["title"] for row in found}}
    shown = table(pd.DataFrame([titles, *lines]), css="wb-table wb-pins")
    return join([tag("h4", "□ Pinned"), wide(shown, "Pinned trials")])


def best_text(rows: Sequence[Row], number: int | None, limited: bool) -> Markup:
    """The best trial within the limits and its numbers; that there is none, where something is limited."""
    row = next((r for r in rows if r["number"] == number), None)
    if row is None:
        return tag("span", "No trial keeps to these limits.") if limited else Markup("")
    shown = tables.display_row(row)
    numbers = ", ".join(shown[key] for key in ("Speed-up", "Change", "Size") if shown[key])
    return join([tag("b", "◇ Best within the limits: "), f"#{number} {row['title']}: {numbers}"])


def page_of(rows: Sequence[Row], by: str, page: int, size: int = PAGE) -> tuple[list[Row], int]:
    """(the rows of one page in the order `by`, how many pages there are); unknown numbers stand last."""
    column, largest = SORTS[by]

    def place(row: Row) -> tuple[bool, float]:
        value = tables.number(row.get(column))
        return value != value, (-value if largest else value) if value == value else 0.0

    ordered = sorted(rows, key=place)
    return ordered[page * size : (page + 1) * size], max(1, -(-len(rows) // size))


def rows_html(rows: Sequence[Row], front: Collection[int]) -> Markup:
    """A table of these trials, those of the front set off."""
    shown = pd.DataFrame([tables.display_row(row) for row in rows], columns=tables.COLUMNS)[BESIDE]
    if (shown["State"] == "complete").all():
        shown = shown.drop(columns=["State"])
    marked = [i for i, number in enumerate(shown["#"]) if number in front]
    return wide(table(shown, marked=marked), "Trials")


def lost_html(rows: Sequence[Row], most: int = 50) -> Markup:
    """Trials that came to nothing, with reasons."""
    lost = [row for row in rows if row["state"] in tables.FAILED]
    if not lost:
        return Markup("")
    shown = [
        {"#": row["number"], "Recipe": row["title"], "State": row["state"], "Reason": tables.reason(row)}
        for row in lost[-most:]
    ]
    more = tag("p", f"The last {most} of {len(lost)}.", class_="wb-note") if len(lost) > most else ""
    parts = [tag("h3", "Without a measurement"), wide(table(pd.DataFrame(shown)), "Trials without a measurement"), more]
    return join(parts)


def trials_html(frame: pd.DataFrame) -> Markup:
    """Every trial, those of the front set off; then those that came to nothing, with reasons."""
    if frame.empty:
        return tag("p", "No trial yet.", class_="wb-note")
    rows = tables.rows(frame)
    return join([rows_html(rows, pareto_data(frame).front), lost_html(rows)])


def refused_html(refused: list[dict[str, Any]]) -> Markup:
    """What was refused before any work, with reasons."""
    if not refused:
        return Markup("")
    items = [tag("li", tag("b", row["title"]), f": {row['reason']}") for row in refused]
    return tag("details", tag("summary", f"{len(refused)} recipes refused before the start"), tag("ul", *items))
