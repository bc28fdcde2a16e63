"""What a model is, as a card: architecture, parameters, MACs, layers, size, license; or why it cannot be used.

Pure functions from a `ModelSummary` to text. Left out: fetching; the picker does that.
"""

from __future__ import annotations

import re
from pathlib import Path

from workbench.loading.model_summary import ModelSummary
from workbench.plots.markup import Markup, join, tag


def card_html(found: ModelSummary | None, *, complete: bool = True) -> Markup:
    """The card; while it is not `complete`, what is still being counted says so."""
    if found is None:
        return Markup("")
    waiting = "" if complete or found.problem else "…"
    facts = {
        "Architecture": found.architecture and breakable(found.architecture),
        "Labels": ", ".join(found.labels[:8]) + (" …" if len(found.labels) > 8 else ""),
        "Parameters": number(found.parameters) or waiting,
        "MACs": f"{number(found.macs)} at {found.sequence} tokens" if found.macs else waiting,
        "Layers": "" if found.layers is None else f"{found.layers} transformer blocks",
        "Size": "" if found.size_mb is None else f"{found.size_mb:.1f} MB on disk",
        "License": found.license or "not stated",
    }
    listed = [item for key, value in facts.items() if value for item in (tag("dt", key), tag("dd", value))]
    wrong = [tag("p", found.problem, class_="wb-what")] if found.problem else []
    wrong += [tag("p", tag("b", "What to do: "), found.do)] if found.problem and found.do else []
    panel = tag("div", *wrong, class_="wb-error", role="alert") if wrong else ""
    known = bool(found.architecture or found.parameters)
    return tag("div", panel, tag("dl", *listed) if known else "", class_="wb-facts")


def row_html(found: ModelSummary) -> Markup:
    """One line under a model's name: what it is, or why it cannot be used."""
    if found.problem:
        # Its name stands beside it, and paths are long.
        reason = found.problem.replace(found.model, "it") if len(found.model) > 1 else found.problem
        return tag("span", tag("b", "cannot be used: "), reason)
    size = "" if found.size_mb is None else f"{found.size_mb:.1f} MB"
    count = "" if found.parameters is None else f"{number(found.parameters)} parameters"
    return join([part for part in (breakable(found.architecture), count, size) if part], " · ")


def breakable(name: str) -> Markup:
    """A name such as BertForSequenceClassification, which a narrow column may break between its words."""
    return join(re.split(r"(?<=[a-z0-9])(?=[A-Z])", name), Markup("<wbr>"))


def short_name(found: ModelSummary, root: Path) -> str:
    """The model's path from the folder that was searched."""
    path = Path(found.model)
    try:
        return str(path.relative_to(root)) if path != root else path.name
    except ValueError:
        return found.model


def number(value: int | None) -> str:
    """`22.7 M`, `1.45 G`, `260 K`; empty for None."""
    if value is None:
        return ""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return str(value)
