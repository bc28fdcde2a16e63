"""Which knobs matter: how much of the spread of drop, or of speed, each of them explains.

The numbers are Optuna's (F. Hutter et al., "An efficient approach for assessing hyperparameter importance", ICML 2014,
where it is installed with scikit-learn; else PED-ANOVA, S. Watanabe et al., IJCAI 2023). Left out: interactions.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import pandas as pd

from workbench.errors import DataError, UserError
from workbench.plots import table
from workbench.plots.markup import escape
from workbench.plots.parallel import ABSENT, knobs_of
from workbench.plots.theme import template
from workbench.plots.theme import theme as find_theme

#: Fewer measured trials than this say nothing of importance.
LEAST = 8
#: What may be explained, and its title.
TARGETS = {"drop": "drop", "speedup": "speed-up", "size_mb": "size"}


def importance_data(frame: pd.DataFrame, target: str = "drop", seed: int = 0) -> dict[str, float]:
    """The share of the spread of `target` that each open knob explains, the largest first; they add up to 1.

    Raises `UserError` for another target, and `DataError` for fewer than 8 measured trials or where nothing differs.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution

    if target not in TARGETS:
        raise UserError(f"target = {target!r} is not possible.", allowed=" | ".join(TARGETS))
    rows = [row for row in table.rows(frame) if row["state"] == "complete" and math.isfinite(table.number(row[target]))]
    if len(rows) < LEAST:
        raise DataError(f"{len(rows)} measured trials say nothing of importance.", allowed=f"{LEAST} or more")
    knobs = [{name: str(value) for name, value in knobs_of(row["recipe"]).items()} for row in rows]
    names = dict.fromkeys(name for one in knobs for name in one)
    choices = {name: sorted({one.get(name, ABSENT) for one in knobs}) for name in names}
    open_ = {name: CategoricalDistribution(values) for name, values in choices.items() if len(values) > 1}
    values = [table.number(row[target]) for row in rows]
    if not open_ or min(values) == max(values):
        raise DataError("All measured trials are alike, so no knob explains anything.", do="measure other recipes")
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        for one, value in zip(knobs, values, strict=True):
            params = {name: one.get(name, ABSENT) for name in open_}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=open_, value=value))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(study, evaluator=_evaluator(seed))
    finally:
        optuna.logging.set_verbosity(verbosity)
    total = sum(found.values()) or 1.0
    return {name: value / total for name, value in sorted(found.items(), key=lambda item: -item[1])}


def importance(frame: pd.DataFrame, theme: str = "light", target: str = "drop", most: int = 12) -> Any:
    """The figure: a bar for each of the `most` important knobs."""
    import plotly.graph_objects as go

    found, look = importance_data(frame, target), find_theme(theme)
    shown = list(found.items())[:most][::-1]
    return go.Figure(
        go.Bar(
            x=[share for _, share in shown],
            y=[escape(name) for name, _ in shown],
            orientation="h",
            marker={"color": look.runtimes[0]},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        ),
        layout={
            "template": template(theme),
            "height": 120 + 24 * len(shown),
            "xaxis": {"title": {"text": f"share of the spread of {TARGETS[target]}"}, "tickformat": ".0%"},
        },
    )


def _evaluator(seed: int) -> Any:
    import importlib.util

    import optuna

    if importlib.util.find_spec("sklearn"):
        return optuna.importance.FanovaImportanceEvaluator(seed=seed)
    return optuna.importance.PedAnovaImportanceEvaluator()
