"""What models answer to texts, as a person reads it: bars of probability, milliseconds, and who disagrees.

Texts and labels come from people and models: everything is escaped. Left out: which words made the answer.
"""

from __future__ import annotations

import pandas as pd

from workbench.plots.markup import Markup, tag
from workbench.plots.table import amount

#: Classes shown of a model with many.
MOST_CLASSES = 5


def probabilities_html(answers: pd.DataFrame, reference: int) -> Markup:
    """One text's answers (`workbench.reading.answers`): a row per trial with a bar per class and its milliseconds.

    An answer that differs from that of trial `reference` says so in words.
    """
    known = answers.set_index("trial")["answer"].to_dict()
    head = tag("tr", *(tag("th", name, scope="col") for name in ("Trial", "Answer", "Probabilities", "This text took")))
    rows = []
    for row in answers.to_dict("records"):
        other = reference in known and row["answer"] != known[reference]
        note = tag("div", f"▲ not the answer of #{reference}", class_="wb-differs") if other else ""
        ranked = sorted(row["probabilities"].items(), key=lambda item: -item[1])[:MOST_CLASSES]
        # With few classes the order stays, so that bars can be compared from row to row.
        shown = ranked if len(row["probabilities"]) > MOST_CLASSES else row["probabilities"].items()
        bars = [_bar(str(label), share, label == row["answer"]) for label, share in shown]
        cells = [
            tag("th", f"#{row['trial']}", tag("div", row["title"], class_="wb-note"), scope="row"),
            tag("td", tag("b", row["answer"]), note),
            tag("td", *bars),
            tag("td", amount(row["ms"], "ms")),
        ]
        rows.append(tag("tr", *cells))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="wb-table wb-answers")


def batch_table(answers: pd.DataFrame, reference: int) -> pd.DataFrame:
    """Many texts: one row of text each with every trial's answer, and whether one differs from trial `reference`."""
    rows = []
    for _, same in answers.groupby("example", sort=False):
        by_trial = {row["trial"]: row for row in same.to_dict("records")}
        first = by_trial.get(reference, {}).get("answer")
        differs = any(row["answer"] != first for row in by_trial.values()) if first is not None else False
        told = {f"#{n}": f"{row['answer']} {100 * row['probability']:.1f} %" for n, row in by_trial.items()}
        rows.append({"Text": same["text"].iloc[0], **told, "Agreement": "▲ differs" if differs else "same"})
    return pd.DataFrame(rows)


def batch_summary(answers: pd.DataFrame, reference: int) -> str:
    """How many texts have an answer that differs, and the median milliseconds of each trial."""
    table = batch_table(answers, reference)
    differing = int((table["Agreement"] != "same").sum()) if len(table) else 0
    times = ", ".join(
        f"#{n}: {amount(ms, 'ms')}" for n, ms in answers.groupby("trial", sort=False)["ms"].median().items()
    )
    return f"{differing} of {len(table)} texts have an answer that differs from #{reference}. Median per text: {times}."


def _bar(label: str, share: float, chosen: bool) -> Markup:
    words = tag("span", f"{label} ", tag("b", f"{100 * share:.1f} %") if chosen else f"{100 * share:.1f} %")
    fill = tag("span", class_="wb-fill" + (" wb-chosen" if chosen else ""), style=f"width: {100 * share:.1f}%")
    return tag("div", words, tag("span", fill, class_="wb-track", aria_hidden="true"), class_="wb-odds")
