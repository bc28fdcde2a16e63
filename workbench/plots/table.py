"""Trials as people read them: sensible digits, units, intervals; and those that came to nothing, with reasons.

Numbers are written by `Estimate`, so a table, a hover and a page never disagree on the digits.
Left out: sorting and paging, which belong to whatever shows the frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import pandas as pd

from workbench.measure.accuracy import METRICS
from workbench.measure.estimate import Estimate

#: States of a trial that gave no measurement, and the word for each.
FAILED = ("failed", "stopped", "refused")


def trials_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row of text per trial, in order, from the columns of `Study.frame()`; missing numbers are empty."""
    return pd.DataFrame([display_row(row) for row in rows(frame)], columns=COLUMNS)


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """The trials that failed, were stopped or refused: number, recipe, state, reason, Python line."""
    found = [
        {
            "#": row["number"],
            "Recipe": row["title"],
            "State": row["state"],
            "Reason": reason(row),
            "Python": row["code"],
        }
        for row in rows(frame)
        if row["state"] in FAILED
    ]
    return pd.DataFrame(found, columns=["#", "Recipe", "State", "Reason", "Python"])


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows as dictionaries, whatever columns it has."""
    return frame.to_dict("records")  # type: ignore[return-value]


def judgement(row: Mapping[str, Any]) -> dict[str, str]:
    """What is said of a trial beside its numbers, where there is something to say: the goal, the report split, where it
    comes from."""
    said = {"Goal": row.get("goal_text"), "Does not hold": row.get("holds_not")}
    found = {key: value for key, value in said.items() if isinstance(value, str) and value}
    parent = number(row.get("parent"))
    return found | ({"Edited from": f"trial {parent:.0f}"} if math.isfinite(parent) else {})


def display_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One trial as text by column of `COLUMNS`."""
    return {
        "#": row["number"],
        "Recipe": row["title"],
        "State": row["state"],
        "Score": score_text(row),
        "Change": change_text(row),
        "Flips": flips_text(row),
        "Latency p50": amount(row.get("latency_ms"), "ms"),
        "Speed-up": speedup_text(row),
        "Size": amount(row.get("size_mb"), "MB"),
        "Peak memory": amount(row.get("peak_mb"), "MB"),
        "In effect": effect_text(row.get("in_effect")),
        "Took": amount(row.get("seconds"), "s"),
    }


COLUMNS = [
    "#",
    "Recipe",
    "State",
    "Score",
    "Change",
    "Flips",
    "Latency p50",
    "Speed-up",
    "Size",
    "Peak memory",
    "In effect",
    "Took",
]


def estimate(row: Mapping[str, Any], name: str, unit: str = "", factor: float = 1.0) -> Estimate:
    """The estimate in the columns `name`, `name_low`, `name_high`; NaN where they are empty."""
    value, low, high = (number(row.get(key)) * factor for key in (name, f"{name}_low", f"{name}_high"))
    return Estimate(value, min(low, high), max(low, high), 0, unit)


def number(value: Any) -> float:
    """`value` as a float; NaN for what is no number."""
    if type(value) is float:  # Nearly always, and asked for thousands of times at each redraw of a front.
        return value
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan


def is_fraction(metric: Any) -> bool:
    """Whether a metric is a share, shown in percent and its differences in percentage points."""
    return metric in METRICS and METRICS[metric].unit == "fraction"


def higher_is_better(metric: Any) -> bool:
    """Whether a larger score is the better one, as of all but losses and perplexity."""
    return metric not in METRICS or METRICS[metric].higher_is_better


def score_text(row: Mapping[str, Any], name: str = "accuracy") -> str:
    """`89.91 % [87.7, 91.7]`, or the plain number for a metric that is no share."""
    if not is_fraction(row.get("metric")):
        return known(estimate(row, name))
    found = estimate(row, name, "%", 100)
    # Two decimals whatever the interval's width: on the same examples they tell trials apart.
    inside = f" [{found.low:.1f}, {found.high:.1f}]" if math.isfinite(found.low + found.high) else ""
    return "" if math.isnan(found.value) else f"{found.value:.2f} %{inside}"


def change_text(row: Mapping[str, Any]) -> str:
    """What happened to the score: `−0.46 pt [−1.14, 0.23]`; a drop of a score that should be high is negative here."""
    share, sign = is_fraction(row.get("metric")), -1 if higher_is_better(row.get("metric")) else 1
    return known(estimate(row, "drop", "pt" if share else "", sign * (100 if share else 1)))


def speedup_text(row: Mapping[str, Any], name: str = "speedup") -> str:
    """`2.93× [2.88, 2.99]`, marked where it is not told apart from the A/A run; `1× (A/A 0.99× [0.98, 1.01])`."""
    found = estimate(row, name, "×")
    if row["number"] == 0:
        # The baseline against itself: the measure of the noise, not of a gain.
        return f"1× (A/A {found})" if known(found) else "1×"
    return f"{found} (no difference)" if within_noise(row, found) else known(found)


def within_noise(row: Mapping[str, Any], speedup: Estimate) -> bool:
    """Whether a speed-up lies inside the band of the A/A run (the baseline timed against itself)."""
    low, high = number(row.get("noise_low")), number(row.get("noise_high"))
    return low <= speedup.value <= high


def flips_text(row: Mapping[str, Any]) -> str:
    """`−7 / +3`: right answers lost and gained."""
    lost, gained = number(row.get("flips_lost")), number(row.get("flips_gained"))
    if math.isnan(lost) or math.isnan(gained):
        return ""
    return f"{'−' * (lost > 0)}{lost:.0f} / {'+' * (gained > 0)}{gained:.0f}"


def effect_text(effect: Any) -> str:
    """The share of the linear layers' work by precision: `97 % int8, 3 % fp32`."""
    shares = effect.get("precision", {}) if isinstance(effect, Mapping) else {}
    told = sorted(((number(share), kind) for kind, share in shares.items()), reverse=True)
    return ", ".join(f"{100 * share:.3g} % {kind}" for share, kind in told if share > 0)


def reason(row: Mapping[str, Any]) -> str:
    """Why a trial gave no measurement."""
    error = row.get("error")
    return error if isinstance(error, str) and error else f"{row['state']}, and no reason was kept"


def amount(value: Any, unit: str) -> str:
    """A plain number with its unit and three digits."""
    return known(Estimate(number(value), number(value), number(value), 0, unit))


def known(found: Estimate) -> str:
    """The estimate as text, empty where there is none."""
    return "" if math.isnan(found.value) else str(found)
