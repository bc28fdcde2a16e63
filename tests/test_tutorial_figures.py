"""What the tutorials show beside studies: roofs, masks, temperatures, workloads, graphs; and recipes run in one go."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_models import LookedAt
from fakes import Fake, FakeTask, Spoil, Trouble
from scipy.special import softmax

import workbench
from workbench.errors import DataError, Refused, UserError
from workbench.measure.peak import Peaks, peaks
from workbench.notebook import measure, status_line
from workbench.plots.graph import depths, graph_figure, node_counts, places
from workbench.plots.pruned import layers_left, left_table, mask_corners
from workbench.plots.roofline import roofline_figure
from workbench.plots.temperature import softened, temperatures
from workbench.plots.workload import workload, workload_data, workload_table
from workbench.reading import Graph, layer_graph
from workbench.recipe import Recipe
from workbench.running.status import Status
from workbench.sensitivity.roofline import roofline
from workbench.study import Study
from workbench.techniques.static_int8 import StaticInt8

EVIL = "<img src=x onerror=alert(1)>"


# --- the roofline ----------------------------------------------------------------------------------------------------


def test_peaks_are_measured_and_leave_the_threads_as_they_were():
    import torch

    before = torch.get_num_threads()
    found = peaks(threads=1, seconds=0.01)
    assert torch.get_num_threads() == before
    assert found.threads == 1
    assert found.operations["fp32"] > 0
    assert found.memory > 0


def shapes_and_costs(batch: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    layers = pd.DataFrame(
        {"layer": ["wide", "last", "other"], "width": [20, 2, 5], "inputs": [10, 10, 5], "macs": [128 * 200, 20, 25]}
    )
    rows = [("wide", "fp32", 0.01), ("last", "int8", 0.002), ("", "", 1.0), ("other", "odd", 1.0)]
    costs = pd.DataFrame(rows, columns=["layer", "precision", "ms"])
    costs.attrs = {"recipe": {"backend": {"batch": batch}}, "title": "a recipe"}
    return layers, costs


def test_roofline_follows_its_definition():
    layers, costs = shapes_and_costs(batch=2)
    found = roofline(layers, costs, Peaks({"fp32": 50.0, "int8": 200.0}, memory=1.0, threads=1)).set_index("layer")
    assert list(found.index) == ["wide", "last"]  # no layer, and a precision that nothing is known of
    wide, last = found.loc["wide"], found.loc["last"]
    # Two examples of 128 tokens: 256 rows of 10 inputs and 20 outputs, four bytes a number.
    assert wide.operations == 2 * 256 * 200
    assert wide.bytes == 4 * (200 + 256 * 30)
    assert wide.intensity == pytest.approx(wide.operations / wide.bytes)
    assert wide.gops == pytest.approx(wide.operations / 0.01e-3 / 1e9)
    assert (wide.roof, wide.bound) == (pytest.approx(wide.intensity), "memory")
    assert last.bytes == 20 + 2 * 12
    assert last.share == pytest.approx(last.gops / last.roof)
    fast = roofline(layers, costs, Peaks({"fp32": 0.1}, memory=100.0, threads=1))
    assert fast.bound.tolist() == ["arithmetic"]
    with pytest.raises(DataError):
        roofline(layers.assign(layer="strange"), costs, Peaks({"fp32": 1.0}, 1.0, 1))


def test_roofline_figure_has_a_roof_for_each_precision_and_a_point_for_each_layer():
    layers, costs = shapes_and_costs()
    roofs = Peaks({"fp32": 50.0, "int8": 200.0}, memory=1.0, threads=1)
    figure = roofline_figure({EVIL: roofline(layers, costs, roofs)}, roofs)
    lines, points = figure.data[:2], figure.data[2]
    assert [max(line.y) for line in lines] == [
        pytest.approx(min(50.0, max(lines[0].x))),
        pytest.approx(max(lines[1].x)),
    ]
    assert list(points.customdata) == ["wide", "last"]
    assert "<img" not in points.name
    with pytest.raises(DataError):
        roofline_figure({}, roofs)


# --- pruning ---------------------------------------------------------------------------------------------------------


def test_mask_corners_show_zeros_and_their_share():
    mask = np.zeros((6, 8), dtype=bool)
    mask[:, ::2] = True
    figure = mask_corners({"half": mask, EVIL: ~mask}, size=4)
    assert figure.data[0].z.shape == (4, 4)
    assert figure.data[0].z[0].tolist() == [1, 0, 1, 0]
    titles = [note.text for note in figure.layout.annotations]
    assert titles[0] == "half: 50% zeros"
    assert "<img" not in titles[1]
    with pytest.raises(DataError):
        mask_corners({})


def test_what_is_left_follows_layers_to_their_origin():
    before = pd.DataFrame({"layer": ["a.0.x", "a.1.x", "a.2.x"], "parameters": [100, 100, 40]})
    after = pd.DataFrame({"layer": ["a.0.x", "a.1.x"], "origin": ["a.0.x", "a.2.x"], "parameters": [50, 40]})
    found = left_table(before, after)
    assert found.left.tolist() == [0.5, 0.0, 1.0]
    figure = layers_left(before, {EVIL: after})
    assert list(figure.data[0].y) == [0.5, 0.0, 1.0]
    assert "<img" not in figure.data[0].name


# --- distillation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_softened_is_the_softmax_of_divided_logits(temperature):
    logits = np.random.default_rng(0).normal(size=(6, 3))
    np.testing.assert_allclose(
        softened(softmax(logits, axis=1), temperature), softmax(logits / temperature, axis=1), atol=1e-6
    )


def test_temperatures_keep_the_order_of_two_classes():
    odds = np.array([[0.999, 0.001], [0.4, 0.6], [0.1, 0.9]])
    one, four = temperatures(odds, (1, 4)).data
    np.testing.assert_allclose(one.y, [0.6, 0.9, 0.999], atol=1e-6)
    assert (np.diff(four.y) > 0).all()
    assert (np.array(four.y) < np.array(one.y)).all()


# --- workloads -------------------------------------------------------------------------------------------------------


def test_workload_is_by_batch_for_each_runtime_and_threads():
    rows = [
        (0, "complete", "eager", 1, 0, 5.0),
        (1, "complete", "openvino", 4, 2, 40.0),
        (2, "complete", "openvino", 1, 2, 20.0),
        (3, "complete", "openvino", 1, 2, 30.0),
        (4, "failed", "openvino", 8, 2, float("nan")),
        (5, "complete", "openvino", 1, 0, 35.0),
    ]
    frame = pd.DataFrame(
        [
            {"number": n, "state": s, "backend": b, "conditions": {"batch": size, "threads": t}, "throughput": y}
            for n, s, b, size, t, y in rows
        ]
    )
    assert workload_data(frame) == {("openvino", 0): [(1, 35.0)], ("openvino", 2): [(1, 30.0), (4, 40.0)]}
    figure = workload(frame)
    assert [line.name for line in figure.data] == ["openvino, every core", "openvino, 2 threads"]
    with pytest.raises(UserError):
        workload_data(frame, "size_mb")
    more = {"title": "fp32", "latency_ms": 8.0, "latency_ms_p99": 9.5, "speedup": 2.0}
    listed = workload_table(frame.assign(**more))
    assert listed["Threads"].tolist() == ["every core", 2, 2, 2]
    assert listed["Batch"].tolist() == [1, 1, 1, 4]
    assert listed["Throughput"].tolist()[-1] == "40.0 examples/s"
    assert listed["Latency p99"].tolist()[0] == "9.50 ms"


# --- graphs ----------------------------------------------------------------------------------------------------------

DIAMOND = Graph(("MatMul", "Relu", EVIL, "Add"), ("layer.0.first", "", "", ""), ((0, 1), (0, 2), (1, 3), (2, 3)))


def test_a_node_stands_below_what_it_needs_and_beside_its_like():
    assert depths(DIAMOND) == [0, 1, 1, 2]
    spots = places(DIAMOND)
    assert [down for _, down in spots] == [0, 1, 1, 2]
    assert spots[2][0] - spots[1][0] == 1
    assert spots[0][0] == spots[3][0]
    assert all(down_a < down_b for a, b in DIAMOND.edges for down_a, down_b in [(spots[a][1], spots[b][1])])


def test_what_needs_nothing_stands_beside_and_just_above_what_needs_it():
    chain = Graph(("MatMul", "Add", "Shape", "Reshape"), ("layer.0.first", "", "", ""), ((0, 1), (1, 3), (2, 3)))
    assert depths(chain) == [0, 1, 1, 2]
    assert places(chain) == [(0.0, 0), (0.0, 1), (1.0, 1), (0.0, 2)]


def test_graph_figures_escape_what_a_file_calls_its_nodes():
    figure = graph_figure(DIAMOND)
    assert len([y for y in figure.data[0].y if y is None]) == len(DIAMOND.edges)
    assert "<img" not in "".join(figure.data[1].text)
    counts = node_counts({"before": {"MatMul": 4, EVIL: 9}, EVIL: {"MatMul": 4}}, most=1)
    assert counts.data[0].name == "before: 13 nodes"
    assert list(counts.data[1].x) == [0]
    assert "<img" not in "".join([*counts.data[0].y, counts.data[1].name])


def test_layer_graph_is_read_from_the_stored_file(tmp_path):
    from onnx import TensorProto, helper, save

    study = LookedAt(tmp_path / "study")
    with pytest.raises(Refused, match="ONNX graph"):
        layer_graph(study, 1)
    place = study.artifact(1).folder / "model"
    place.mkdir(parents=True)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="encoder.layer.0.one"),
        helper.make_node("Relu", ["a"], ["b"], name="node_7"),
        helper.make_node("Constant", [], ["c"], value_float=1.0),
        helper.make_node("Add", ["b", "c"], ["d"], name="node_9"),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="encoder.layer.1.one"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xwy"]
    save(helper.make_model(helper.make_graph(nodes, "g", ends[:2], ends[2:])), place / "model.onnx")
    (place / "lowered.json").write_text(json.dumps({"macs": {f"encoder.layer.{i}.one": 1 for i in range(2)}}))
    assert layer_graph(study, 1) == Graph(("MatMul", "Relu", "Add"), ("encoder.layer.0.one", "", ""), ((0, 1), (1, 2)))
    assert layer_graph(study, 1, block=1).kinds == ("MatMul",)
    with pytest.raises(UserError, match="no layer 7"):
        layer_graph(study, 1, block=7)


# --- several recipes in one go ---------------------------------------------------------------------------------------


def test_a_line_says_what_is_running():
    status = Status("running", trial=3, title="static_int8 · openvino", stage="time", progress=0.62, done=2, planned=8)
    assert status_line(status) == "trial 3: static_int8 · openvino, time 62 %; 2 of at most 8 trials done, 0 s"
    assert status_line(Status("idle")) == "idle; 0 trials done, 0 s"


@pytest.mark.usefixtures("fake_plugins")
def test_recipes_are_measured_in_one_go_and_not_twice(tmp_path, monkeypatch):
    study = Study(tmp_path / "s", FakeTask())
    known = study.run(Recipe(Spoil(count=1), backend=Fake()))
    wanted = [Recipe(Spoil(count=n), backend=Fake()) for n in (2, 1, 4, 3)]
    said = []
    monkeypatch.setattr("workbench.notebook._line", lambda: said.append)
    trials = measure(study, [*wanted, Recipe(Trouble(what="raise"), backend=Fake())])
    assert [trial.recipe for trial in trials[:4]] == wanted
    assert [trial.measurement.correct for trial in trials[:4]] == [38, 39, 36, 37]
    assert [trial.number for trial in trials] == [2, known.number, 3, 4, 5]
    assert trials[4].state == "failed"
    assert trials[4].error
    assert f"failed: {trials[4].error}" in said[-1]
    assert study.status().state == "idle"
    assert measure(study, wanted) == trials[:4]


@pytest.mark.usefixtures("fake_plugins")
def test_a_recipe_that_is_refused_says_why_and_the_others_go_on(tmp_path):
    study = Study(tmp_path / "s", FakeTask())
    refused, done = measure(study, [Recipe(StaticInt8(), backend=Fake()), Recipe(Spoil(count=1), backend=Fake())])
    assert refused.state == "refused"
    assert "the fake has no INT8" in refused.error
    assert done.measurement.correct == 39


# --- an exported model as a service ----------------------------------------------------------------------------------


def test_an_exported_folder_serves(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"bad": 0, "good": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "tokenizer").mkdir()
    words.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    model = {"sequence": 8, "inputs": ["input_ids"], "fixed": False, "batch": 1, "pad": {}, "labels": ["no", "yes"]}
    (tmp_path / "model.json").write_text(json.dumps({**model, "threads": 1}))
    loader = (
        "import numpy as np\ndef load(folder, model, threads):\n    return lambda b: np.eye(2)[b['input_ids'][:, 0]]\n"
    )
    (tmp_path / "loader.py").write_text(loader)
    main = Path(workbench.__file__).parent / "standalone" / "main.py"
    (tmp_path / "run.py").write_text(main.read_text())
    command = [sys.executable, str(tmp_path / "run.py"), "--serve", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(address, data=b"good film\nbad film", timeout=20) as answer:
                said = json.loads(answer.read())
        finally:
            server.terminate()
    assert [one["label"] for one in said] == ["yes", "no"]
