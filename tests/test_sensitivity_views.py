"""What is made of scans: pruning curves, distributions, trust in probes, and their figures."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_folders import save_model, write_splits
from tiny_models import tiny_draft

from workbench.backends.onnxruntime import OnnxRuntime
from workbench.errors import DataError, UserError
from workbench.int8 import fake, scale_zero, weight_scales
from workbench.plots.curves import curve_heat, curve_lines, curve_table
from workbench.plots.distributions import distribution, words
from workbench.plots.plan import strip, strip_data
from workbench.plots.sensitivity import bars, bars_data, heat, heat_data, short_names, trusted, value
from workbench.plots.theme import THEMES
from workbench.sensitivity.curves import curves, tolerated
from workbench.sensitivity.histogram import Distribution, draft_histograms
from workbench.sensitivity.trust import spearman, trust
from workbench.study import make_task
from workbench.techniques.static_int8 import StaticInt8
from workbench.techniques.weight_rtn import WeightRtn

EVIL = '<img src=x onerror="alert(1)">%{x}&amp;'
LAYERS = ["bert.encoder.layer.0.query", "bert.encoder.layer.0.key", f"bert.encoder.layer.1.{EVIL}", "classifier"]


def fake_scan(title: str = "kl of static_int8", **changes: Any) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "layer": LAYERS,
            "kind": "linear",
            "parameters": [10, 20, 30, 4],
            "macs": [100, 200, 300, 4],
            "score": [0.5, 0.001, np.nan, 0.02],
            "score_low": [0.4, 0.0005, np.nan, 0.01],
            "score_high": [0.6, 0.002, np.nan, 0.03],
            "rank": [2, 4, 1, 3],
            "note": ["", "", f"no numbers for 3 of 8 examples {EVIL}", ""],
            **changes,
        }
    )
    table.attrs = {"title": title + EVIL, "unit": "nats"}
    return table


def texts(figure: Any) -> list[str]:
    """Every text of a figure that plotly reads as HTML."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list | tuple):
            for item in value:
                walk(item)
        elif isinstance(value, str):
            found.append(value)

    plain = json.loads(figure.to_json())
    for trace in plain["data"]:
        # What a click gives back is no text on the page.
        trace.pop("customdata", None)
    plain["layout"].pop("template", None)
    walk(plain)
    return found


def safe(figure: Any) -> bool:
    return not any("<img" in text for text in texts(figure)) and all(
        getattr(trace, "hovertemplate", None) is None for trace in figure.data
    )


# -- figures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", list(THEMES))
def test_bars_show_every_layer_its_interval_and_what_is_no_number(theme: str) -> None:
    figure = bars(fake_scan(), theme, keep=["classifier"])
    scores, lost = figure.data
    assert list(scores.customdata) == [LAYERS[0], LAYERS[1], LAYERS[3]]
    assert list(scores.error_x.array) == pytest.approx([0.1, 0.001, 0.01])
    assert list(scores.marker.pattern.shape) == ["", "", "/"]
    assert list(lost.customdata) == [LAYERS[2]]
    assert "no numbers for 3 of 8" in lost.hovertext[0].replace("<br>", " ")
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.template.layout.font.color == THEMES[theme].text
    assert safe(figure)
    assert bars(fake_scan(score=[0.5, -0.1, 0.2, 0.3])).layout.xaxis.type == "linear"
    with pytest.raises(DataError, match="several rows"):
        bars_data(pd.concat([fake_scan(), fake_scan()]))


def test_the_heat_map_compares_by_rank() -> None:
    other = fake_scan(score=[4.0, 3.0, 2.0, 1.0], rank=[1, 2, 3, 4])
    data = heat_data({"kl": fake_scan(), EVIL: other})
    assert data.values[:, 0].tolist() == pytest.approx([2 / 3, 0, 1, 1 / 3])
    assert data.values[:, 1].tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert np.isnan(data.scores[2, 0])
    figure = heat({"kl": fake_scan(), EVIL: other}, "dark")
    assert safe(figure)
    assert "no number" in figure.data[0].hovertext[2][0]
    with pytest.raises(DataError):
        heat_data({})


def test_the_value_map_draws_what_it_has() -> None:
    table = fake_scan().assign(ms=[4.0, 3.0, 2.0, 1.0], saved_ms=[3.0, 1.0, 1.0, 0.1], saved_share=0.1, per_score=1.0)
    table.attrs = fake_scan().attrs
    figure = value(table)
    assert list(figure.data[0].x) == [3.0, 1.0, 0.1]
    assert safe(figure)
    assert "saves 3 ms of 4 ms" in figure.data[0].hovertext[0]


def test_the_value_map_names_layers_only_where_names_have_room() -> None:
    table = fake_scan(score=[1.0, 0.99, 0.5, 0.1], rank=[1, 2, 3, 4])
    table = table.assign(ms=1.0, saved_ms=[0.9, 0.8, 0.1, 0.2], saved_share=0.1, per_score=1.0)
    points = value(table).data[0]
    assert [bool(text) for text in points.text] == [True, False, True, True]
    assert list(points.textposition) == ["middle left"] * 2 + ["middle right"] * 2


def test_trust_is_drawn_by_direction() -> None:
    table = pd.DataFrame(
        {
            "probe": ["kl", EVIL, "mse", "odd"],
            "direction": ["only", "only", "all_but", "only"],
            "rho": [0.9, 0.1, -0.2, np.nan],
            "rho_low": [0.8, -0.1, -0.5, np.nan],
            "rho_high": [0.95, 0.3, 0.1, np.nan],
            "seconds": [3.0, 1.0, 2.0, np.nan],
        }
    )
    figure = trusted(table)
    assert [trace.name for trace in figure.data] == ["only", "all but"]
    assert sum(len(trace.x) for trace in figure.data) == 3
    # The two directions of a probe do not hide each other, and differ by more than their colour.
    assert [round(y) for trace in figure.data for y in trace.y] == [0, 1, 2]
    assert figure.data[0].y[0] < 0 < figure.data[1].y[0] - 2
    assert {trace.marker.symbol for trace in figure.data} == {"circle", "diamond"}
    assert safe(figure)


def test_a_plan_is_a_strip() -> None:
    plans = {"one": {"a": "int8", "b": "fp32"}, EVIL: {"a": "bf16"}}
    assert strip_data(plans) == [("one", "a", "int8"), ("one", "b", "fp32"), (EVIL, "a", "bf16"), (EVIL, "b", "")]
    figure = strip(plans, "dark")
    assert len(figure.data) == 4
    assert [t.name for t in figure.data if t.showlegend] == ["int8", "fp32", "bf16", "not there"]
    assert len({t.marker.color for t in figure.data}) == 4
    assert safe(figure)


def test_names_are_cut_where_they_are_alike() -> None:
    names = ["bert.encoder.layer.0.query", "bert.encoder.layer.10.value", "classifier"]
    assert list(short_names(names).values()) == ["0.query", "10.value", "classifier"]
    assert list(short_names(["a.b.c.d"]).values()) == ["c.d"]
    assert short_names([]) == {}
    assert "<" not in short_names([f"x.{EVIL}", "x.y"])[f"x.{EVIL}"]


def test_importing_these_figures_does_not_import_plotly() -> None:
    code = "import sys, workbench.plots.sensitivity, workbench.plots.curves, workbench.plots.plan; "
    code += "import workbench.plots.distributions; sys.exit('plotly' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- pruning curves ----------------------------------------------------------------------------------------------------


def fake_curves() -> pd.DataFrame:
    places = itertools.product(LAYERS, (0.3, 0.5, 0.9))
    rows = [
        {"layer": layer, "sparsity": share, "score": share**4 * (i // 3 + 1)} for i, (layer, share) in enumerate(places)
    ]
    return pd.DataFrame(rows)


def test_curves_are_drawn_as_heat_and_lines() -> None:
    table = curve_table(fake_curves())
    assert list(table.index) == LAYERS
    assert list(table.columns) == [0.3, 0.5, 0.9]
    warm, lines = curve_heat(fake_curves()), curve_lines(fake_curves(), "dark", named=2)
    assert warm.data[0].z.shape == (4, 3)
    assert [trace.showlegend for trace in lines.data] == [False, False, True, True]
    assert lines.data[2].name == "classifier"
    assert safe(warm)
    assert safe(lines)
    with pytest.raises(DataError):
        curve_table(fake_scan())


def test_what_a_layer_tolerates() -> None:
    found = tolerated(fake_curves(), 0.1)
    assert found.tolist() == [0.5, 0.3, 0.3, 0.3]
    bumpy = pd.DataFrame({"layer": "a", "sparsity": [0.1, 0.2, 0.3], "score": [0.0, 1.0, 0.0]})
    assert tolerated(bumpy, 0.5).tolist() == [0.1]
    assert tolerated(bumpy, -1.0).tolist() == [0.0]


# -- distributions -----------------------------------------------------------------------------------------------------


def examples(count: int = 12) -> list[dict[str, list[int]]]:
    rows = [[3 + (11 * i + 5 * j) % 35 for j in range(4 + i % 5)] for i in range(count)]
    return [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]


def test_a_distribution_is_of_all_values_and_knows_its_grid() -> None:
    draft, name = tiny_draft(num_hidden_layers=2), "bert.encoder.layer.1.output.dense"
    seen: list[np.ndarray] = []
    handle = draft.module.get_submodule(name).register_forward_pre_hook(lambda p, a: seen.append(a[0][0].numpy()))
    with torch.no_grad():
        for one in examples():
            draft.module(**{key: torch.tensor([row]) for key, row in one.items()})
    handle.remove()
    x = np.concatenate(seen).astype(np.float64)
    technique = StaticInt8(calibration="percentile", percentile=90, samples=4)
    found = draft_histograms(draft, examples(), technique, [name], bins=50)
    weight, inside = found
    assert [one.what for one in found] == ["weight", "input"]
    assert inside.counts.sum() == x.size
    assert np.allclose(inside.channel_high, x.max(axis=0), atol=1e-6)
    assert np.allclose(inside.channel_deviation, x.std(axis=0), atol=1e-6)
    limits = technique.apply(tiny_draft(num_hidden_layers=2)).plan.layers[name].input_range
    scale, zero = scale_zero(limits)
    assert (inside.scale, inside.zero, inside.steps) == ((scale,), zero, 256)
    lost = np.abs(fake(x, limits) - x) > scale / 2 * 1.0001
    assert lost.any()
    assert inside.clipped == pytest.approx(lost.mean(), abs=0.003)
    quartiles = np.subtract(*np.quantile(x, (0.75, 0.25)))
    assert inside.used == pytest.approx(quartiles / scale, rel=0.1)
    matrix = draft.module.get_submodule(name).weight.detach().numpy()
    assert weight.scale == pytest.approx(tuple(weight_scales(matrix, True)))
    assert weight.counts.sum() == matrix.size
    again = Distribution.from_json(json.loads(json.dumps(weight.to_json())))
    assert np.array_equal(again.counts, weight.counts)
    assert again.scale == weight.scale


def test_a_figure_says_what_the_grid_does() -> None:
    found = draft_histograms(tiny_draft(num_hidden_layers=2), examples(), WeightRtn(group_size=0), ["classifier"])
    weight, inside = found
    assert weight.steps == 16
    assert "no range is fixed" in words(inside)
    figure = distribution(found, "dark")
    titles = " ".join(str(one.text) for one in figure.layout.annotations)
    assert "of 16 steps" in titles
    assert len(figure.data) == 8
    assert safe(figure)
    two = draft_histograms(tiny_draft(num_hidden_layers=2), examples(), StaticInt8(samples=4, calibration="minmax"))
    with pytest.raises(DataError, match="one layer"):
        distribution(two)


# -- trust -------------------------------------------------------------------------------------------------------------


def test_rank_correlation_agrees_with_scipy() -> None:
    from scipy.stats import spearmanr

    random = np.random.default_rng(0)
    for size in (5, 12, 40):
        one, other = random.integers(0, 6, size).astype(float), random.normal(size=size)
        assert spearman(one, other).value == pytest.approx(spearmanr(one, other).statistic)
    found = spearman(np.arange(30.0), np.arange(30.0) + random.normal(size=30) * 8)
    assert found.low < found.value < found.high
    assert spearman(np.array([1.0, np.nan, 0.0]), np.array([1.0, 2.0, 0.0])).value == pytest.approx(1)
    assert np.isnan(spearman(np.zeros(5), np.arange(5.0)).value)
    assert np.isnan(spearman(np.arange(2.0), np.arange(2.0)).value)


def test_probes_are_compared_with_the_real_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    save_model(tmp_path / "model", initializer_range=0.5)
    task = make_task(tmp_path / "model", write_splits(tmp_path / "data"), sequence=16)
    told: list[float] = []
    found = trust(
        task,
        StaticInt8(calibration="minmax", samples=8),
        OnnxRuntime(threads=1, batch=4, sequence=16),
        ["kl", "weight_error"],
        ["only"],
        truth="kl",
        layers=["*.layer.0.*"],
        tell=lambda share, words: told.append(share),
    )
    assert found.table.probe.tolist()[0] == "kl"
    # What is simulated is what the runtime computes.
    assert np.allclose(found.scores["kl only"], found.truth.score, rtol=0.2, atol=1e-6)
    assert found.table.rho[0] > 0.8
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    with pytest.raises(UserError, match="no curve"):
        curves(task, sparsities=[0.5])
    shape = curves(task, sparsities=[0.3, 0.9], samples=8, layers=["classifier"])
    assert shape.sparsity.tolist() == [0.3, 0.9]
    assert shape.score[1] > shape.score[0]
