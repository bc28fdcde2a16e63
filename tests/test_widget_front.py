"""The front without a browser: axes, limits, filters, lasso, pins, pages, downloads."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from fake_study import fake_frame

from workbench.errors import UnknownName
from workbench.plots import table as tables
from workbench.plots.front import AXES, HEIGHTS, best_within, data_of, filtered, pareto_data
from workbench.plots.pareto import drawn, pareto
from workbench.plots.theme import THEMES
from workbench.tuning.goal import Goal
from workbench.widgets.figure import Figure, library
from workbench.widgets.pareto_explorer import LISTED, ParetoExplorer
from workbench.widgets.trial_words import PAGE, SORTS, detail_html, lineage, page_of, pins_html

EVIL = "<img src=x onerror=alert(1)>"


def explorer(count=None, **frame):
    made = ParetoExplorer()
    made.goal = Goal(max_drop=0.01)
    made.frame = fake_frame(count, **frame)
    return made


def shown(made):
    """The figure as it was sent: (points by trial number, layout)."""
    figure = json.loads(made.figure.figure)
    points = {
        number: (x, y)
        for trace in figure["data"]
        for number, x, y in zip(trace.get("customdata", []), trace["x"], trace["y"], strict=False)
    }
    return points, figure["layout"]


def marked(made, name):
    (trace,) = [t for t in json.loads(made.figure.figure)["data"] if t["name"] == name]
    return list(zip(trace["x"], trace["y"], strict=True))


def many(count):
    rows = fake_frame(9).to_dict("records")
    more = [{**rows[i % 8 + 1], "number": i, "recipe_id": str(i)} for i in range(9, count)]
    return pd.DataFrame([*rows, *more])


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", AXES)
@pytest.mark.parametrize("y", HEIGHTS)
def test_every_axis_and_height_has_data(x, y):
    frame = fake_frame()
    data = pareto_data(frame, Goal(max_drop=0.01), x, y)
    assert len(data.points) == 11
    assert data.more_x == AXES[x].more_is_better
    point = next(p for p in data.points if p.number == 8)
    row = frame[frame.number == 8].iloc[0]
    assert point.x == pytest.approx(AXES[x].factor * row[x])
    assert point.y == pytest.approx({"accuracy": 89.68, "drop": 100 * row["drop"], "flips": 8}[y])
    assert point.drop == pytest.approx(100 * row["drop"])
    assert (data.goal is None) == (y == "flips")
    pareto(frame, Goal(), x=x, y=y).to_json()


def test_the_front_of_drops_is_that_of_scores():
    frame = fake_frame()
    assert pareto_data(frame, y="drop").front == pareto_data(frame).front
    assert not pareto_data(frame, y="drop").more_is_better
    with pytest.raises(UnknownName, match="height"):
        pareto_data(frame, y="score")


def test_the_best_within_limits():
    rows = tables.rows(fake_frame())
    fast, slow = data_of(rows), data_of(rows, x="latency_ms")
    assert best_within(fast, 0.9).number == 8
    assert best_within(slow, 0.9).number == 8
    assert best_within(fast, 0.1).number == 5
    assert best_within(fast, 100.0).number == 10
    assert best_within(fast, 0.9, bound=4.0) is None
    assert best_within(slow, None, bound=9.0).number == 10
    assert best_within(data_of(rows[:1]), 1.0) is None


def test_filters_keep_the_uncompressed_model():
    rows = tables.rows(fake_frame())
    assert [r["number"] for r in filtered(rows, {"compiled"})] == [0, 4, 9]
    assert [r["number"] for r in filtered(rows, None, ["static_int8", "drop_layers"])] == [0, 10]
    assert filtered(rows) == rows


def test_many_points_are_left_to_the_graphics_card_and_many_sets_to_the_hover():
    rows = many(40).to_dict("records")
    for i, row in enumerate(rows[1:]):
        row["techniques"] = tuple(f"t{j}" for j in range(i % 30))
    data = data_of(rows, text=lambda row: "")
    gpu = [trace for trace in drawn(data, THEMES["light"], many=20)["data"] if trace["type"] == "scattergl"]
    assert gpu
    assert not any("error_y" in trace for trace in gpu)
    figure = drawn(data, THEMES["light"])
    assert {trace["type"] for trace in figure["data"]} == {"scatter"}
    assert any("error_y" in trace for trace in figure["data"])
    explained = [trace["name"] for trace in figure["data"] if trace.get("legend") == "legend2"]
    assert 3 < len(explained) < 12
    assert explained[-1] == f"and {30 - len(explained) + 1} more sets"


# --- the figure on the page ------------------------------------------------------------------------------------------


def test_plotly_is_sent_when_it_is_asked_for():
    made, sent = Figure(), []
    made.send = sent.append
    made._asked(made, {"ask": "plotly"}, [])
    assert sent == [{"plotly": library()}]
    assert len(library()) > 1_000_000
    made._asked(made, {"ask": "csv"}, [])
    made._asked(made, "nonsense", [])
    assert len(sent) == 1
    assert not made.has_csv


def test_the_table_of_a_figure_is_saved_as_csv():
    made, sent = explorer(evil="=1+1"), []
    made.figure.send = sent.append
    assert made.figure.has_csv
    made.techniques["static_int8"].value = True
    made.figure._asked(made.figure, {"ask": "csv"}, [])
    lines = sent[0]["csv"].splitlines()
    assert sent[0]["name"] == "trials"
    assert lines[0].startswith("number,state,")
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "7", "8", "9", "10"]


def test_hovers_go_apart_and_only_when_they_change(monkeypatch):
    made = explorer(6, evil=EVIL)
    assert set(made.figure.texts) == {str(i) for i in range(6)}
    assert "&lt;img" in made.figure.texts["3"]
    assert EVIL not in made.figure.figure
    calls = []
    monkeypatch.setattr("workbench.widgets.pareto_explorer.hover", lambda row: calls.append(row["number"]) or "text")
    made.frame = fake_frame(8, evil=EVIL)
    assert calls == [6, 7]


# --- limits, filters, choice -----------------------------------------------------------------------------------------


def test_the_limit_follows_the_goal_until_it_is_moved():
    made = explorer()
    assert made.allow.value == pytest.approx(0.8991)
    assert "#8 static_int8" in made.best.value
    ((x, y),) = marked(made, "best within the limits")
    assert (x, y) == pytest.approx((3.33, 89.68))
    made.allow.value = 0.1
    assert "#5 bf16" in made.best.value
    made.frame = fake_frame(11)
    made.goal = Goal(max_drop=0.05)
    assert made.allow.value == 0.1
    made.allow.value = 0.0
    made.runtimes["openvino"].value = False
    assert "#4" in made.best.value


def test_the_limit_across_belongs_to_its_axis():
    made = explorer()
    assert (made.bound.label, made._bound()) == ("At least", None)
    made.bound.value = 4.0
    assert "No trial keeps" in made.best.value
    assert len(shown(made)[1]["shapes"]) == 3
    made.frame = fake_frame()
    assert made.bound.value == 4.0
    made.axis.value = "size_mb"
    assert (made.bound.label, made.bound.unit, made._bound()) == ("At most", "MB", None)
    made.bound.value = 30.0
    assert "#6 dynamic_int8" in made.best.value
    assert made.best.value.count("#") == 1


def test_filters_by_runtime_and_technique():
    made = explorer()
    assert made.filter.note == "all trials"
    made.filter.unfolded = True
    assert len(made._filters.children) == 2
    made.techniques["static_int8"].value = True
    assert set(shown(made)[0]) == {0, 7, 8, 10}
    made.runtimes["openvino"].value = False
    assert set(shown(made)[0]) == {0, 7}
    assert made.filter.note == "3 of 12 trials"
    assert "drop_layers" not in made.trials.value


def test_a_lasso_narrows_the_table():
    made = explorer()
    made.figure.chosen = {"trials": [5, 8], "at": 1}
    assert made.chosen == (5, 8)
    assert "1–2 of 2 trials inside the selection" in made.place.value
    assert "drop_layers" not in made.trials.value
    made.inside.click()
    assert made.pinned == (5, 8)
    made.figure.chosen = {"trials": [], "at": 2}
    assert "of 12 trials" in made.place.value


def test_pins_stand_side_by_side():
    made = explorer(evil=EVIL)
    assert made._pinned.layout.display == "none"
    for number in (5, 8):
        made.selected = number
        made.pin.click()
    assert (made.pinned, made.pin.description) == ((5, 8), "Unpin")
    assert len(marked(made, "pinned")) == 2
    for part in ("#5", "#8", "3.17×", "3.33×", "Change"):
        assert part in made.pins.value
    assert "<img" not in made.pins.value
    made.pin.click()
    assert made.pinned == (5,)
    made.frame = fake_frame(5)
    assert (made.pinned, made.pins.value) == ((), "")
    assert pins_html([], (1,)) == ""


def test_lineage_is_told():
    frame = fake_frame(6)
    frame["parent"] = [float("nan"), float("nan"), 1.0, 2.0, 2.0, float("nan")]
    rows = tables.rows(frame)
    assert lineage(rows, 3) == ([2, 1], [])
    assert lineage(rows, 2) == ([1], [3, 4])
    detail = detail_html(frame, 3)
    assert "trial 2 ← trial 1" in detail
    assert "trial 3, trial 4" in detail_html(rows, 2)


def test_nodes_that_took_effect_are_told():
    frame = fake_frame(2)
    frame.at[1, "in_effect"] = {"precision": {"fp32": 1.0}, "nodes": {"MatMul": 72, EVIL: 3}}
    detail = detail_html(frame, 1)
    assert "75 nodes in the lowered model" in detail
    assert "72 MatMul, 3 &lt;img" in detail


# --- many trials -----------------------------------------------------------------------------------------------------


def test_the_table_is_shown_page_by_page():
    made = ParetoExplorer()
    made.frame = many(60)
    assert f"1–{PAGE} of 60 trials" in made.place.value
    assert made.sooner.disabled
    made.later.click()
    made.later.click()
    assert "51–60 of 60 trials" in made.place.value
    assert made.later.disabled
    made.sort.value = "speed-up"
    assert "1–25 of 60" in made.place.value
    assert made.trials.value.index("static_int8 · openvino") < made.trials.value.index("<td>bf16 · compiled")


@pytest.mark.parametrize("by", SORTS)
def test_pages_are_sorted_with_unknown_numbers_last(by):
    rows = tables.rows(fake_frame())
    page, pages = page_of(rows, by, 0, size=5)
    assert (len(page), pages) == (5, 3)
    if by not in ("number", "newest"):
        assert page_of(rows, by, 2, size=5)[0][-1]["number"] == 9


def test_of_many_trials_the_newest_are_listed_and_the_selected_one():
    made = ParetoExplorer()
    made.frame = many(LISTED + 50)
    assert len(made.choose.options) == LISTED + 1
    made.figure.clicked = {"trial": 3, "at": 1}
    assert (made.selected, made.choose.value) == (3, 3)
    assert "Trial 3" in made.detail.value
    made.choose.value = LISTED + 40
    assert made.selected == LISTED + 40


def test_what_a_page_sends_of_trials_that_are_gone_is_left_alone():
    made = explorer(3)
    made.figure.clicked = {"trial": 99, "at": 1}
    made.figure.clicked = {"at": 2}
    made.figure.chosen = {"trials": [1, 77, "x"], "at": 1}
    assert (made.selected, made.chosen) == (None, (1,))
    made.selected = 55
    assert (made.choose.value, made.value) == (-1, None)


def test_an_empty_study_says_what_to_do():
    made = ParetoExplorer()
    assert "Start a sweep" in made.trials.value
    assert "Click a point" in made.detail.value
    assert made.best.value == ""
    json.loads(made.figure.figure)


def test_mixed_metrics_are_said_and_break_nothing():
    frame = fake_frame(4)
    frame.loc[2, "metric"] = "f1"
    made = ParetoExplorer()
    made.frame = frame
    assert "different metrics" in made.best.value
