"""Data as cards: splits, label balance, lengths, the first rows as they lie there and as the model sees them.

Pure functions from the summaries to text. Left out: reading; the picker has that done in another process.
"""

from __future__ import annotations

import pandas as pd

from workbench.plots.bars import bars_html, counts_frame, csv_link, histogram
from workbench.plots.markup import Markup, join, table, tag, wide
from workbench.summary import DataSummary, TableSummary

#: What the splits are for, in words.
_PURPOSE = {"select": "measuring", "calibration": "calibration", "report": "the report"}
#: Tokens of one example that are shown.
_TOKENS = 60


def splits_html(found: TableSummary | None, seen: DataSummary | None) -> Markup:
    """The splits as they lie there, and what each serves once the model's view is known."""
    parts: list[object] = []
    if found is not None:
        rows = [{"Split": name, "Rows": f"{count:,}"} for name, count in found.splits.items()]
        parts.append(table(pd.DataFrame(rows, columns=["Split", "Rows"])))
    if seen is not None:
        rows = [
            {
                "For": purpose,
                "Examples": f"{seen.sizes.get(key, 0):,}",
                "From": seen.origin.get(key, "" if key == "calibration" else "what is measured"),
            }
            for key, purpose in _PURPOSE.items()
        ]
        parts.append(table(pd.DataFrame(rows)))
        parts.append(tag("p", f"{seen.one_percent[:1].upper()}{seen.one_percent[1:]}.", class_="wb-said"))
    return join(parts)


def labels_html(found: TableSummary | None, seen: DataSummary | None) -> Markup:
    """How the labels are spread: as the model names them where that is known, else as the file has them."""
    if seen is not None and seen.counts:
        counts, what = seen.counts, "Label"
    elif found is not None and found.counts:
        split = found.shown if found.shown in found.counts else next(iter(found.counts))
        counts, what = found.counts[split], f"{found.label} in {split}"
    else:
        return tag("p", "No labels are known yet.", class_="wb-note")
    return join([bars_html(counts, what), csv_link(counts_frame(counts, "label"), "labels")])


def lengths_html(seen: DataSummary | None) -> Markup:
    """Tokens per example, as a histogram, and how many are cut."""
    if seen is None or not seen.lengths:
        return tag("p", "Lengths are known once the data were tokenized.", class_="wb-note")
    counts, cut = histogram(seen.lengths), sum(length >= seen.sequence for length in seen.lengths)
    mean = sum(seen.lengths) / len(seen.lengths)
    said = f"{mean:.0f} tokens on average, {max(seen.lengths)} at most, of {len(seen.lengths):,} looked at; "
    said += f"{cut:,} fill all {seen.sequence} and may be cut." if cut else f"none reaches {seen.sequence}."
    return join(
        [
            bars_html(counts, "Tokens"),
            tag("p", said, class_="wb-note"),
            csv_link(counts_frame(counts, "tokens"), "lengths"),
        ]
    )


def rows_html(found: TableSummary | None) -> Markup:
    """The first rows as they lie there; the columns that are taken are marked in words."""
    if found is None or not found.rows:
        return Markup("")
    taken = {**dict.fromkeys(found.text, "text"), **({found.label: "label"} if found.label else {})}
    frame = pd.DataFrame(found.rows, columns=list(found.columns))
    frame.columns = [f"{name} ({taken[name]})" if name in taken else str(name) for name in found.columns]
    return wide(table(frame, css="wb-table wb-raw"), "First rows")


def tokens_html(seen: DataSummary | None) -> Markup:
    """The first examples as the model sees them: label, length, tokens one by one."""
    if seen is None or not any(row["tokens"] for row in seen.rows):
        return tag("p", "Tokens are shown once the model's tokenizer has read the data.", class_="wb-note")
    return tag("ol", *(_example(row) for row in seen.rows), class_="wb-tokens")


def _example(row: dict) -> Markup:
    tokens = [join([tag("code", token), " "]) for token in row["tokens"][:_TOKENS]]
    more = len(row["tokens"]) - _TOKENS
    label = tag("b", row["label"], ": ") if row["label"] else ""
    rest = tag("span", f"… {more} more", class_="wb-share") if more > 0 else ""
    return tag("li", label, tag("span", f"{row['length']} tokens", class_="wb-share"), " ", *tokens, rest)


def notes_html(found: TableSummary | None, seen: DataSummary | None) -> Markup:
    """What to know about the data, each note once."""
    notes = dict.fromkeys([*(found.notes if found else ()), *(seen.notes if seen else ())])
    return tag("ul", *(tag("li", note) for note in notes), class_="wb-list") if notes else Markup("")
