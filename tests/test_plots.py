"""Figures from their data: the front, intervals, what is said of noise, goals and failures, and nothing injected."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys

import pytest
from fake_study import fake_frame

from workbench.errors import DataError, UnknownName
from workbench.plots.front import front_of, pareto_data
from workbench.plots.markup import Markup, script_json, table, tag
from workbench.plots.pareto import pareto
from workbench.plots.table import failures, trials_table
from workbench.plots.theme import THEMES, runtime_colours, technique_symbols, template
from workbench.tuning.goal import Goal

EVIL = '<img src=x onerror="alert(1)">%{x}&amp;'


def brute_front(points):
    def dominates(a, b):
        return a[0] >= b[0] and a[1] >= b[1] and a != b

    return [not any(dominates(other, point) for other in points) for point in points]


def test_front_agrees_with_its_definition():
    rng = random.Random(0)
    for size in range(30):
        # Few distinct values, so that ties on one axis and on both occur.
        points = [(rng.randint(0, 6), rng.randint(0, 6)) for _ in range(size)]
        assert front_of(points) == brute_front(points)


def test_data_of_the_known_trials():
    data = pareto_data(fake_frame(), Goal(max_drop=0.01))
    assert data.front == (5, 8, 10)
    assert len(data.points) == 11
    assert data.failed == 1
    assert data.goal == pytest.approx(89.91 * 0.99)
    assert data.band == (0.98, 1.02)
    assert "(%)" in data.y_title
    point = next(p for p in data.points if p.number == 8)
    assert point.x_low < point.x < point.x_high
    assert point.y_low < point.y < point.y_high


def test_vertical_bars_are_the_paired_drop():
    frame = fake_frame()
    row = frame[frame.number == 8].iloc[0]
    point = next(p for p in pareto_data(frame).points if p.number == 8)
    assert point.y_low == pytest.approx(89.91 - 100 * row.drop_high)
    assert point.y_high == pytest.approx(89.91 - 100 * row.drop_low)


def test_an_interval_stays_within_what_a_share_can_be():
    frame = fake_frame(2)
    frame[["accuracy", "drop_low"]] = [0.999, -0.02]
    assert pareto_data(frame).points[1].y_high == 100


def test_lower_is_better_for_a_cost():
    by_speed, by_time = pareto_data(fake_frame()), pareto_data(fake_frame(), x="latency_ms")
    assert set(by_speed.front) == set(by_time.front)
    assert by_time.band is None


def test_the_baseline_is_one_and_its_measurement_is_noise():
    frame = fake_frame(2)
    assert pareto_data(frame).points[0].x == 1.0
    assert trials_table(frame).iloc[0]["Speed-up"] == "1× (A/A 0.995× [0.985, 1.005])"
    frame.loc[0, ["speedup", "speedup_low", "speedup_high"]] = float("nan")
    assert pareto_data(frame).points[0].x == 1.0
    assert trials_table(frame).iloc[0]["Speed-up"] == "1×"


def test_unknown_axis_and_mixed_metrics_are_refused():
    with pytest.raises(UnknownName, match="did you mean 'speedup'"):
        pareto_data(fake_frame(), x="speed")
    frame = fake_frame()
    frame.loc[1, "metric"] = "f1"
    with pytest.raises(DataError, match="different metrics"):
        pareto_data(frame)


@pytest.mark.parametrize("count", [0, 1, 2, 12])
@pytest.mark.parametrize("focus", [False, True])
def test_figure_of_any_number_of_trials(count, focus):
    frame = fake_frame().head(count)
    figure = pareto(frame, Goal(), focus=focus)
    clicks = [n for trace in figure.data if trace.customdata is not None for n in trace.customdata]
    assert sorted(clicks) == list(frame.number[frame.state == "complete"])


@pytest.mark.parametrize("theme", list(THEMES))
def test_figure_shows_what_it_must(theme):
    figure = pareto(fake_frame(), Goal(max_drop=0.01), theme, selected=8)
    words = " ".join(str(a.text) for a in figure.layout.annotations)
    assert "no difference" in words
    assert "goal" in words
    assert "1 trial gave no measurement" in words
    names = {trace.name for trace in figure.data}
    assert {"Pareto front", "openvino", "baseline (eager FP32)", "drop_layers + static_int8", "selected"} <= names
    cloud = [t for t in figure.data if t.customdata is not None and t.error_x.array is not None]
    assert cloud
    assert all(len(t.error_x.array) == len(t.error_y.array) == len(t.x) for t in cloud)
    assert {t.opacity for t in cloud} == {1.0, 0.45}


def test_one_wide_interval_does_not_squeeze_the_points():
    frame = fake_frame()
    frame.loc[frame.number == 8, "speedup_high"] = 500.0
    across = pareto(frame).layout.xaxis.autorangeoptions
    points = pareto_data(frame).points
    assert across.clipmax < 2 * max(p.x for p in points)
    assert across.clipmin < min(p.x for p in points)
    # One point spans nothing: its interval is all there is to see.
    assert pareto(frame[frame.number == 8]).layout.xaxis.autorangeoptions.clipmax is None


def test_focus_says_what_it_hides():
    figure = pareto(fake_frame(), Goal(max_drop=0.01), focus=True)
    assert figure.layout.yaxis.range[0] > 80
    assert any("more below" in str(a.text) for a in figure.layout.annotations)


def test_hover_has_the_recipe_and_escapes_it():
    figure = pareto(fake_frame(evil=EVIL))
    hovers = [text for trace in figure.data for text in trace.hovertext or ()]
    hover = next(text for text in hovers if "#8 " in text)
    for part in ("3.33×", "89.68 %", "−0.23 pt", "99 % int8", "12.3 ms", "Recipe(StaticInt8()"):
        assert part in hover
    assert not any(re.search(r"<(?!/?b>|br>)", text) for text in hovers)
    unknown = fake_frame(evil=EVIL)
    unknown["recipe"] = [{"techniques": [], "backend": {"name": "gone"}, "keep": []}] * len(unknown)
    texts = [text for trace in pareto(unknown).data for text in trace.hovertext or ()]
    assert any("Recipe(" in text for text in texts)
    assert not any("<img" in text for text in texts)
    # A template would put numbers in the place of %{x}.
    assert all(trace.hovertemplate is None for trace in figure.data)


def test_colours_and_symbols_tell_apart():
    for look in THEMES.values():
        colours = runtime_colours(["eager", "compiled", "onnxruntime", "openvino"], look)
        assert len(set(colours.values())) == len(colours)
        assert template(look.name) == f"workbench_{look.name}"

    sets = [c for n in (1, 2) for c in itertools.combinations(("bf16", "static_int8", "drop_layers"), n)]
    assert len(set(technique_symbols(sets).values())) == len(sets) + 1
    with pytest.raises(UnknownName):
        template("sepia")


def test_table_has_digits_units_and_intervals():
    shown = trials_table(fake_frame()).set_index("#")
    assert shown.loc[8, "Speed-up"] == "3.33× [3.28, 3.38]"
    assert shown.loc[8, "Change"].startswith("−0.23 pt [")
    assert shown.loc[8, "Flips"] == "−5 / +3"
    assert shown.loc[3, "Flips"] == "0 / 0"
    assert shown.loc[8, "Score"].startswith("89.68 % [")
    assert shown.loc[2, "Speed-up"].endswith("(no difference)")
    assert shown.loc[6, "In effect"] == "97 % int8, 3 % fp32"
    assert shown.loc[9, "Latency p50"] == ""
    assert len(shown) == 12


def test_a_metric_that_is_no_share_is_not_a_percentage():
    frame = fake_frame(2)
    frame["metric"] = "matthews_correlation"
    assert "%" not in trials_table(frame).iloc[1]["Score"]
    assert "pt" not in trials_table(frame).iloc[1]["Change"]
    assert "%" not in pareto_data(frame).y_title


def test_failures_come_with_reasons():
    lost = failures(fake_frame())
    assert lost.to_dict("records")[0]["Reason"] == "The compiler ran out of memory."
    assert list(lost["#"]) == [9]
    assert failures(fake_frame(3)).empty


def test_markup_escapes_everything_else():
    frame = failures(fake_frame(evil=EVIL))
    page = table(frame)
    assert isinstance(page, Markup)
    assert "<img" not in page
    assert "&lt;img" in page
    assert tag("p", "a < b", tag("b", "c"), class_="x", title='"') == '<p class="x" title="&quot;">a &lt; b<b>c</b></p>'
    assert "</script" not in script_json({"a": "</script>"})


def test_importing_plots_does_not_import_plotly():
    code = "import sys, workbench.plots.pareto, workbench.plots.table; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
