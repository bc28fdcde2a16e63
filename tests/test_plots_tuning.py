"""Figures of a search: hypervolume history, parallel coordinates, importance of knobs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from workbench.errors import DataError, UserError
from workbench.plots.history import history_data, hypervolume_history
from workbench.plots.importance import importance, importance_data
from workbench.plots.parallel import ABSENT, parallel_coordinates, parallel_data
from workbench.tuning.front import Step

EVIL = '<img src=x onerror="alert(1)">'
STEPS = [Step(1, 1, 0.5, 0.02), Step(3, 2, 1.5, 0.05)]


def frame(count: int = 24) -> pd.DataFrame:
    """Trials whose drop depends on one knob alone, and whose speed depends on another."""
    rows = []
    for i in range(count):
        samples, layers = (10, 100)[i % 2], i // 2 % 3
        steps = [{"name": "static_int8", "samples": samples}]
        steps += [{"name": "drop_layers", "count": layers, "which": "spread" + EVIL}] if layers else []
        rows.append(
            {
                "number": i,
                "state": "complete",
                "recipe": {"techniques": steps, "backend": {"name": ("openvino", "eager")[i // 6 % 2]}, "keep": []},
                "drop": 0.1 * layers,
                "speedup": 2.0 + samples / 100,
                "size_mb": math.nan,
            }
        )
    rows.append({**rows[0], "number": count, "state": "failed", "drop": math.nan, "speedup": math.nan})
    return pd.DataFrame(rows)


def test_a_history_begins_at_nothing_and_is_a_staircase() -> None:
    (line,) = history_data({"frontier": STEPS})
    assert (line.x, line.y, line.numbers) == ((0.0, 1.0, 2.0), (0.0, 0.02, 0.05), (0, 1, 3))
    (line,) = history_data({"frontier": STEPS}, "minutes")
    assert line.x == (0.0, 0.5, 1.5)
    with pytest.raises(UserError, match="hours"):
        history_data({}, "hours")
    figure = hypervolume_history({"a" + EVIL: STEPS, "b": STEPS}, "dark", "minutes")
    assert [trace.line.shape for trace in figure.data] == ["hv", "hv"]
    assert figure.layout.showlegend
    assert "<img" not in figure.to_json().replace("\\u003c", "<")
    assert not hypervolume_history(STEPS).layout.showlegend
    assert len(hypervolume_history([]).data) == 1


def test_parallel_axes_are_what_differs_and_the_numbers_that_are_known() -> None:
    data = parallel_data(frame())
    assert [axis.name for axis in data.axes] == [
        "runtime",
        "static_int8.samples",
        "drop_layers",
        "drop_layers.count",
        "drop_layers.which",
        "drop",
        "speed-up",
    ]
    assert data.numbers == tuple(range(24))
    axes = {axis.name: axis for axis in data.axes}
    assert axes["runtime"].ticks == ("eager", "openvino")
    assert axes["static_int8.samples"].values[:2] == (10.0, 100.0)
    assert axes["drop_layers.count"].ticks == (ABSENT, "1", "2")
    assert axes["drop_layers.count"].values[:6] == (0.0, 0.0, 1.0, 1.0, 2.0, 2.0)


def test_parallel_coordinates_are_drawn_and_escaped() -> None:
    for theme in ("light", "dark"):
        figure = parallel_coordinates(frame(), theme)
        (trace,) = figure.data
        assert list(trace.line.color) == list(parallel_data(frame()).drops)
        assert "<img" not in figure.to_json().replace("\\u003c", "<")
    assert not parallel_coordinates(frame().iloc[-1:]).data


def test_importance_finds_the_knob_that_decides() -> None:
    drop = importance_data(frame(), "drop")
    assert next(iter(drop)).startswith("drop_layers")
    assert drop["static_int8.samples"] < 0.05
    speed = importance_data(frame(), "speedup")
    assert next(iter(speed)) == "static_int8.samples"
    assert sum(speed.values()) == pytest.approx(1.0)
    assert importance_data(frame(), "speedup") == speed


def test_importance_says_when_there_is_nothing_to_tell() -> None:
    with pytest.raises(DataError, match="4 measured trials"):
        importance_data(frame(4))
    same = frame()
    same["drop"] = np.where(same["drop"].isna(), np.nan, 0.0)
    with pytest.raises(DataError, match="alike"):
        importance_data(same)
    with pytest.raises(UserError, match="colour"):
        importance_data(frame(), "colour")


def test_importance_is_drawn_and_escaped() -> None:
    figure = importance(frame(), "dark", most=3)
    assert len(figure.data[0].y) == 3
    assert figure.data[0].x[-1] == max(figure.data[0].x)
    assert "<img" not in figure.to_json().replace("\\u003c", "<")


def test_what_is_said_of_a_trial_is_in_its_hover_and_its_details() -> None:
    from fake_study import fake_frame

    from workbench.plots.front import hover
    from workbench.plots.table import judgement
    from workbench.widgets.pareto_explorer import detail_html

    told = fake_frame()
    told["goal_text"], told["holds_not"], told["parent"] = None, None, math.nan
    told.loc[8, "goal_text"] = "too few examples to tell: needs about 3,500" + EVIL
    told.loc[8, "holds_not"] = "trial 5 is better"
    told.loc[8, "parent"] = 3
    row = told.to_dict("records")[8]
    assert list(judgement(row)) == ["Goal", "Does not hold", "Edited from"]
    assert judgement(told.to_dict("records")[5]) == judgement(fake_frame().to_dict("records")[5]) == {}
    for text in (hover(row), detail_html(told, 8)):
        assert "needs about 3,500" in text
        assert "trial 5 is better" in text
        assert "<img" not in text
