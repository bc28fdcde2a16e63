"""A comparison as people read it: numbers with paired intervals, matrices, and texts whose answer changed.

Plain frames of text first, then HTML, in which everything from models and data is escaped. Left out: paging.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from workbench.comparison import Comparison, Pair
from workbench.measure.estimate import scaled
from workbench.plots import table as tables
from workbench.plots.markup import Markup, join, table, tag, wide
from workbench.table import frame_of, row_of

#: Words for what a flip did.
CHANGES = {"lost": "was right, is wrong", "gained": "was wrong, is right", "changed": "another answer"}


def numbers_table(comparison: Comparison) -> pd.DataFrame:
    """One row per number, one column of text per trial; differences are to the first trial, the reference."""
    flat = {trial.number: _row(trial) for trial in comparison.trials}
    pairs = {trial.number: comparison.pair(trial.number) for trial in comparison.others}
    first = comparison.reference
    reference = f"#{first.number}"
    lines: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("Recipe", lambda row: row["title"]),
        ("Score", tables.score_text),
        (f"Change against {reference}", lambda row: _change(row, pairs.get(row["number"]))),
        (f"Flips against {reference}", lambda row: _flips(pairs.get(row["number"]))),
        ("Latency p50", lambda row: tables.amount(row.get("latency_ms"), "ms")),
        ("Speed-up over the uncompressed model", tables.speedup_text),
        # Against the uncompressed model it is the speed-up, and stands there.
        (f"Speed against {reference}", lambda row: _speed(pairs.get(row["number"])) if first.number else ""),
        ("Throughput", lambda row: tables.amount(row.get("throughput"), "examples/s")),
        ("Size on disk", lambda row: tables.amount(row.get("size_mb"), "MB")),
        ("Peak memory", lambda row: tables.amount(row.get("peak_mb"), "MB")),
        ("Parameters", lambda row: tables.amount(tables.number(row.get("parameters")) / 1e6, "M")),
        ("MACs", lambda row: tables.amount(tables.number(row.get("macs")) / 1e9, "G")),
        ("In effect", lambda row: tables.effect_text(row.get("in_effect"))),
    ]
    rows = [(name, *(text(flat[trial.number]) for trial in comparison.trials)) for name, text in lines]
    shown = [row for row in rows if any(row[1:])]
    titles = [f"#{trial.number}" for trial in comparison.trials]
    titles[0] += " (reference)"
    return pd.DataFrame(shown, columns=["", *titles])


def flips_table(flips: pd.DataFrame) -> pd.DataFrame:
    """A flip list (`Comparison.flips`) as text, in its order; of a language model its windows."""
    if "tokens" in flips.columns:
        numbers = {name: flips[key].map(lambda v: f"{v:.3f}") for name, key in (("Was", "was"), ("Is", "now"))}
        moved = flips["shift"].map(lambda v: f"{v:+.3f} nats".replace("-", "−"))
        return pd.DataFrame(
            {"Window": flips["example"], "Loss per token moved": moved, **numbers, "Text": flips["text"]}
        )
    shown = pd.DataFrame(
        {
            "Text": flips["text"],
            "Label": flips["label"],
            "Was": _sure(flips, "was"),
            "Is": _sure(flips, "now"),
            "Shift": flips["shift"].map(lambda v: "" if math.isnan(v) else f"{100 * v:.1f} pt"),
            "Change": flips["change"].map(CHANGES),
            "Example": flips["example"],
        }
    )
    return shown if flips["label"].any() else shown.drop(columns=["Label", "Change"])


def flips_html(flips: pd.DataFrame, most: int) -> Markup:
    """The first `most` rows of a flip list, with a mark beside the words for what each flip did."""
    shown = flips_table(flips.head(most))
    if "Change" in shown:
        marks = {"lost": "▼ ", "gained": "▲ "}
        kinds = flips["change"].head(most)
        told = [
            tag("span", f"{marks.get(kind, '')}{words}", class_=f"wb-{kind}")
            for kind, words in zip(kinds, shown["Change"], strict=True)
        ]
        # As objects: a column of strings would forget that they are markup.
        shown["Change"] = pd.Series(told, dtype=object)
    return wide(table(shown, css="wb-table wb-flips"), "Changed answers")


def confusion_html(counts: pd.DataFrame, rows: str, columns: str) -> Markup:
    """A matrix of counts, each cell shaded by its share of its row; the diagonal is set off by its weight."""
    totals = counts.sum(axis=1)
    head = tag("tr", tag("th", f"{rows} ↓  {columns} →", scope="col"), *(tag("th", c, scope="col") for c in counts))
    body = []
    for i, (name, line) in enumerate(zip(counts.index, counts.to_numpy().tolist(), strict=True)):
        total = int(totals.iloc[i])
        cells = [
            tag(
                "td",
                f"{count:,}",
                class_="wb-agree" if i == j else None,
                style=f"--wb-share: {count / total if total else 0:.3f}",
            )
            for j, count in enumerate(line)
        ]
        body.append(tag("tr", tag("th", name, scope="row"), *cells))
    return tag("table", tag("thead", head), tag("tbody", join(body)), class_="wb-table wb-matrix")


def summary(comparison: Comparison, number: int) -> str:
    """What flipped, in one sentence."""
    flips = comparison.flips(number)
    if "tokens" in flips.columns:
        worse = int((flips["shift"] > 0).sum())
        return f"{worse} of {len(flips)} windows have a higher loss than in trial {comparison.reference.number}."
    total = len(comparison.answered[number].predictions)
    said = f"{len(flips)} of {total} answers differ from those of trial {comparison.reference.number}"
    kinds = flips["change"].value_counts()
    if not comparison.labelled:
        return f"{said}; there are no labels to say which is right."
    lost, gained = int(kinds.get("lost", 0)), int(kinds.get("gained", 0))
    rest = len(flips) - lost - gained
    return f"{said}: {lost} right answers lost, {gained} gained{f', {rest} wrong either way' if rest else ''}."


def _row(trial: Any) -> dict[str, Any]:
    """A trial as the columns of `Study.frame()` have it."""
    return tables.rows(frame_of([row_of(trial, "")]))[0]


def _change(row: Mapping[str, Any], pair: Pair | None) -> str:
    if pair is None or pair.drop is None:
        return "" if pair is None else "not paired"
    share, sign = tables.is_fraction(row.get("metric")), -1 if tables.higher_is_better(row.get("metric")) else 1
    return str(scaled(pair.drop, sign * (100 if share else 1), "pt" if share else ""))


def _flips(pair: Pair | None) -> str:
    if pair is None or pair.lost is None or pair.gained is None:
        return ""
    chance = f" (p = {pair.p:.2g})" if pair.p is not None else ""
    return tables.flips_text({"flips_lost": pair.lost, "flips_gained": pair.gained}) + chance


def _speed(pair: Pair | None) -> str:
    return str(pair.speed) if pair and pair.speed else ""


def _sure(flips: pd.DataFrame, name: str) -> list[str]:
    """`positive 93 %`"""
    pairs = zip(flips[name], flips[f"{name}_sure"], strict=True)
    return [answer if math.isnan(sure) else f"{answer} {100 * sure:.1f} %" for answer, sure in pairs]
