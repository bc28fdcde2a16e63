"""What a temperature does to a teacher's answers: how sure it seems, example by example.

Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from workbench.plots.theme import template
from workbench.plots.theme import theme as find_theme

#: The smallest probability that is told from none; smaller ones were rounded away when they were written.
_LEAST = 1e-7


def softened(probabilities: Any, temperature: float) -> np.ndarray:
    """Probabilities (examples, classes) at `temperature`: softmax(z / T), z the logits, which p^(1/T) gives as well."""
    powers = np.clip(np.asarray(probabilities, dtype=float), _LEAST, None) ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def temperatures(
    probabilities: Sequence[Sequence[float]], values: Iterable[float] = (1, 2, 4), theme: str = "light"
) -> Any:
    """A line for each temperature: the probability of the likeliest answer, the examples from least sure to surest."""
    import plotly.graph_objects as go

    look, odds = find_theme(theme), np.asarray(probabilities, dtype=float)
    order = np.argsort(odds.max(axis=1), kind="stable")
    share = (np.arange(len(order)) + 0.5) / len(order)
    figure = go.Figure(layout={"template": template(theme), "height": 380, "hovermode": "x unified"})
    for i, value in enumerate(values):
        dash = ("solid", "dash", "dot", "dashdot")[i % 4]
        line = {"color": look.runtimes[i % len(look.runtimes)], "dash": dash, "width": 2}
        figure.add_scatter(x=share, y=softened(odds, value).max(axis=1)[order], name=f"T = {value:g}", line=line)
    figure.update_xaxes(title={"text": "Examples, from the least sure to the surest"}, tickformat=".0%")
    figure.update_yaxes(title={"text": "Probability of the likeliest answer"}, tickformat=".2")
    return figure
