"""Studies as people read them: a list with sizes and dates, and two of them recipe by recipe.

Numbers are written by `plots.table`, so a comparison and a front never disagree on the digits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.plots import table
from workbench.studies import Comparison, StudyRow

_STUDIES = ["Study", "State", "Trials", "Best", "Model", "Size", "Changed"]


def studies_table(rows: Sequence[StudyRow]) -> pd.DataFrame:
    """One row of text per study; what cannot be read says why where its best recipe would stand."""
    return pd.DataFrame([_study(row) for row in rows], columns=_STUDIES)


def _study(row: StudyRow) -> dict[str, str]:
    failed = f", {row.failed} failed" if row.failed else ""
    return {
        "Study": row.name,
        "State": "unreadable" if row.problem else row.state,
        "Trials": "" if row.problem else f"{row.trials}{failed}",
        "Best": row.problem or row.best or "none yet",
        "Model": row.model.rstrip("/").split("/")[-1],
        "Size": table.amount(row.size_mb, "MB"),
        "Changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(row.changed)),
    }


def comparison_table(found: Comparison) -> pd.DataFrame:
    """One row of text per recipe: score and speed-up in both studies, the paired change, and what it comes to."""
    one, two = found.first, found.second
    columns = ["Recipe", f"Score, {one}", f"Score, {two}", "Change", f"Speed-up, {one}", f"Speed-up, {two}", "Speed"]
    rows = [_recipe(row) for row in table.rows(found.frame)]
    return pd.DataFrame(rows, columns=range(len(columns))).set_axis(columns, axis=1)


def _recipe(row: dict[str, Any]) -> list[str]:
    sides = [_side(row, side) for side in (1, 2)]
    scores = [table.score_text(side) for side in sides]
    speeds = [_speed(side) for side in sides]
    both = not any(math.isnan(table.number(row[f"number_{side}"])) for side in (1, 2))
    change = table.change_text(row) or ("other examples" if both else "")
    return [str(row["title"]), *scores, change, *speeds, str(row["verdict"] or "")]


def _side(row: dict[str, Any], side: int) -> dict[str, Any]:
    """The row of one of the two, with the names that a trial's row has."""
    ends = [f"{what}{end}" for what in ("accuracy", "speedup") for end in ("", "_low", "_high")]
    known = {name: row[f"{name.split('_')[0]}_{side}{name.removeprefix(name.split('_')[0])}"] for name in ends}
    return {**known, "metric": row["metric"], "number": row[f"number_{side}"]}


def _speed(side: dict[str, Any]) -> str:
    if math.isnan(table.number(side["number"])):
        return ""
    return "1×" if side["number"] == 0 else table.known(table.estimate(side, "speedup", "×"))
