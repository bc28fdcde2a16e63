"""What models answer and hold: frames from made-up processes, and the real process on a tiny model."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from fake_models import LAYERS, FakeModels, LookedAt

from workbench.errors import DataError, KnobError, TrialError, UserError
from workbench.plots.answers import batch_summary, batch_table, probabilities_html
from workbench.plots.layers import histogram_figure, layer_tree, operator_times, operators_figure
from workbench.reading import answers, examples, layer_table, origin, transitions, weight_histogram
from workbench.running.model_process import ModelProcess, histograms, softmax
from workbench.running.models import Dropped, Models

EVIL = "<img src=x onerror=alert(1)>"


# --- answers ---------------------------------------------------------------------------------------------------------


def test_answers_are_one_row_per_text_and_trial():
    models = FakeModels()
    frame = answers(LookedAt(), [0, 1], ["good", ("good", "and long")], models=models)
    assert frame[["example", "trial", "answer"]].values.tolist() == [
        [0, 0, "positive"],
        [0, 1, "negative"],
        [1, 0, "positive"],
        [1, 1, "negative"],
    ]
    assert frame["text"].tolist()[2] == "good ⏐ and long"
    assert frame["probabilities"][0] == {"negative": pytest.approx(0.1), "positive": 0.9}
    assert models.asked[0][1]["calls"] == 1
    answers(LookedAt(), [0], ["one text is timed with care"], models=models)
    assert models.asked[-1][1]["calls"] > 1


@pytest.mark.parametrize(("number", "error"), [(7, UserError), (3, TrialError)])
def test_only_measured_trials_answer(number, error):
    with pytest.raises(error):
        answers(LookedAt(), [number], ["text"], models=FakeModels())


def test_examples_come_in_the_order_of_the_outcomes():
    assert examples(LookedAt(), limit=2, models=FakeModels()) == [("text 0",), ("text 1",)]


def test_answers_as_people_read_them():
    frame = answers(LookedAt(), [0, 1], ["good"], models=FakeModels(evil=EVIL))
    page = probabilities_html(frame, 0)
    assert "not the answer of #0" in page
    assert "90.0 %" in page
    assert "4.00 ms" in page
    assert "<img" not in page
    many = answers(LookedAt(), [0, 1], ["good", "good", "bad"], models=FakeModels())
    assert batch_table(many, 0)["Agreement"].tolist() == ["▲ differs", "▲ differs", "same"]
    assert batch_summary(many, 0).startswith("2 of 3 texts")


# --- layers ----------------------------------------------------------------------------------------------------------


def test_layer_table_merges_what_is_stored_with_what_is_in_effect():
    frame = layer_table(LookedAt(), 1, models=FakeModels())
    assert frame["layer"].tolist() == list(LAYERS)
    assert frame["precision"].tolist() == ["int8"] * 4 + ["fp32"]
    assert frame["parameters"].tolist() == [32] * 5
    np.testing.assert_allclose(frame["share"], 0.2)
    assert frame["origin"].tolist() == list(LAYERS)


def test_layers_that_were_numbered_anew_have_their_origin():
    base = LookedAt().artifact(0).manifest
    manifest = {**LookedAt().artifact(2).manifest, "blocks": [0, 2, 3]}
    assert origin("encoder.layer.1.dense", manifest, base) == "encoder.layer.2.dense"
    assert origin("classifier", manifest, base) == "classifier"
    old = {"recipe": {"techniques": [{"name": "drop_layers"}]}}
    assert origin("encoder.layer.1.dense", old, base) == ""
    assert origin("encoder.layer.1.dense", {"recipe": {"techniques": []}}, base) == "encoder.layer.1.dense"


def test_transitions_count_changes_and_converting_nodes():
    found = transitions(
        {
            "layers": dict(zip("abcde", ["int8", "int8", "fp32", "int8", "int8"], strict=True)),
            "nodes": {"Convert": 3, "DynamicQuantizeMatMul": 9, "QuantizeLinear": 2, "Add": 7, "Reorder": 1},
        }
    )
    assert (found.changes, found.islands) == (2, 3)
    assert found.nodes == {"Convert": 3, "QuantizeLinear": 2, "Reorder": 1}
    assert transitions({}).islands == 0


def test_tree_sums_up_and_joins_single_parts():
    frame = layer_table(LookedAt(), 1, models=FakeModels())
    rows = layer_tree(frame, pd.DataFrame({"layer": LAYERS, "ms": [1.0, 1.0, 1.0, 1.0, 4.0]}))
    assert [(row["name"], row["depth"], row["layer"]) for row in rows[:3]] == [
        ("encoder.layer", 0, False),
        ("0", 1, False),
        ("query", 2, True),
    ]
    top = rows[0]
    assert top["share"] == pytest.approx(0.8)
    assert top["precision"] == [["int8", "int8"]]
    assert top["ms_text"] == "4.00 ms"
    assert top["time_share"] == pytest.approx(0.5)
    assert rows[-1]["path"] == "classifier"
    mixed = layer_tree(frame.assign(precision=["int8", "fp32", "int8", "int8", "fp32"]))[0]
    assert mixed["precision"] == [["int8", "int8 75 %"], ["fp32", "fp32 25 %"]]
    assert mixed["time_share"] is None


def test_tree_without_readable_weights_has_no_zeros_to_show():
    frame = layer_table(LookedAt(), 1, models=FakeModels())
    blind = frame.assign(parameters=math.nan, sparsity=math.nan, width=math.nan, inputs=math.nan)
    row = layer_tree(blind)[-1]
    assert (row["sparsity"], row["sparsity_text"], row["width_text"], row["parameters_text"]) == (None, "", "", "")


def test_operator_times_group_by_type_or_by_role():
    frame = pd.DataFrame({"layer": LAYERS, "ms": [1.0, 2.0, 1.0, 2.0, 0.5]})
    assert operator_times(frame)[["type", "ms", "layers"]].values.tolist() == [
        ["dense", 4.0, 2],
        ["query", 2.0, 2],
        ["classifier", 0.5, 1],
    ]
    typed = operator_times(frame.assign(type=["MatMul"] * 4 + ["Gemm"]))
    assert typed["type"].tolist() == ["MatMul", "Gemm"]
    assert typed["share"].sum() == pytest.approx(1)
    assert len(operators_figure(typed, "dark").data[0].x) == 2
    with pytest.raises(DataError, match="ms"):
        operator_times(frame.drop(columns="ms"))


def test_weight_histogram_is_beside_that_of_the_origin():
    models = FakeModels()
    found = weight_histogram(LookedAt(), 1, "classifier", bins=5, models=models)
    assert list(found.counts) == ["uncompressed", "compressed"]
    assert found.frame().shape == (5, 4)
    assert [name for _, name in models.asked[0][1]["layers"]] == ["classifier", "classifier"]
    assert [trace.name for trace in histogram_figure(found).data] == ["uncompressed", "compressed"]
    assert list(weight_histogram(LookedAt(), 0, "classifier", models=models).counts) == ["uncompressed"]


def test_histograms_are_over_the_same_bins():
    weights = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    rounded = np.round(weights * 8) / 8
    found = histograms([weights, rounded], 11)
    edges = np.array(found["edges"])
    for matrix, counts in zip((weights, rounded), found["counts"], strict=True):
        np.testing.assert_array_equal(counts[1:-1], np.histogram(matrix, edges)[0][1:-1])
        assert sum(counts) == 600
    # One weight far out does not leave the others in one bin.
    far = weights.copy()
    far[0, 0] = 1e6
    assert max(histograms([np.tile(far, (10, 10))], 11)["counts"][0]) < 0.5 * 60_000
    ratio = (weights.astype(float) ** 2).sum() / ((weights.astype(float) - rounded) ** 2).sum()
    assert found["noise_db"] == pytest.approx(10 * np.log10(ratio), abs=0.01)
    assert found["facts"][1]["low"] == rounded.min()
    assert histograms([weights, weights], 3)["noise_db"] is None
    assert histograms([weights, weights[:5]], 3)["noise_db"] is None
    assert sum(histograms([np.zeros((2, 2), dtype=np.float32)], 3)["counts"][0]) == 4


# --- the process -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A tiny classifier, lowered for eager, with its tokenizer."""
    from tiny_folders import rows, save_model, write_tsv

    from workbench import Eager, Recipe, make_task
    from workbench.compress import compress

    home = tmp_path_factory.mktemp("tiny")
    module = save_model(home / "model")
    write_tsv(home / "dev.tsv", rows(60))
    task = make_task(home / "model", home / "dev.tsv", sequence=16)
    done = compress(task, Recipe(backend=Eager(sequence=16, threads=1)), home / "artifact")
    return done, module, task


def test_the_process_answers_as_the_module_does(artifact):
    import torch

    done, module, task = artifact
    reply = ModelProcess().do_answer({"folder": str(done.folder), "texts": [["good film"], ["bad"]], "calls": 3}, None)
    assert reply["labels"] == ["negative", "positive"]
    for text, odds in zip((("good film",), ("bad",)), reply["probabilities"], strict=True):
        (encoded,) = task.tokenize([text])
        with torch.no_grad():
            logits = module(**{name: torch.tensor([ids]) for name, ids in encoded.items()}).logits[0].numpy()
        np.testing.assert_allclose(odds, softmax(logits.astype(float)), atol=1e-5)
    assert all(ms > 0 for ms in reply["ms"])


def test_the_process_reads_layers_weights_and_texts(artifact):
    done, module, task = artifact
    process = ModelProcess()
    reply = process.do_layers({"folder": str(done.folder)}, None)
    layer = "bert.encoder.layer.1.intermediate.dense"
    assert reply["why"] == ""
    assert reply["layers"][layer] == {"macs": 16 * 16 * 24, "outside": 24, "inside": 16, "sparsity": 0.0}
    found = process.do_histogram({"layers": [[str(done.folder), layer]], "bins": 7}, None)
    weights = module.get_submodule(layer).weight.detach().numpy()
    assert found["facts"][0]["deviation"] == pytest.approx(float(weights.std()), rel=1e-4)
    factor = process.do_histogram({"layers": [[str(done.folder), "made"], [str(done.folder), layer]], "bins": 7}, None)
    assert factor["found"] == [False, True]
    assert factor["counts"] == found["counts"]
    with pytest.raises(UserError, match="no layer"):
        process.do_histogram({"layers": [[str(done.folder), "nowhere"]], "bins": 7}, None)
    told = process.do_examples({"task": task.to_json(), "split": "select", "limit": 2}, None)
    assert [tuple(text) for text in told["texts"]] == task.texts("select", 2)
    assert done.manifest["blocks"] == [0, 1]
    assert done.manifest["block_path"] == "bert.encoder.layer"


def test_the_process_reads_what_a_layer_multiplies(artifact):
    import torch

    done, module, task = artifact
    layer = "bert.encoder.layer.1.intermediate.dense"
    texts = [("good film",), ("bad",), ("a film that is neither good nor bad, but long",)]
    request = {"layers": [[str(done.folder), layer]] * 2, "texts": [list(text) for text in texts], "bins": 7}
    found = ModelProcess().do_activations(request, None)
    seen = []
    module.get_submodule(layer).register_forward_pre_hook(lambda part, args: seen.append(args[0].numpy().ravel()))
    for text in texts:
        (encoded,) = task.tokenize([text])
        with torch.no_grad():
            module(**{name: torch.tensor([ids]) for name, ids in encoded.items()})
    values = np.concatenate(seen)
    assert found["facts"][0]["count"] == values.size == sum(found["counts"][0])
    assert found["facts"][0]["deviation"] == pytest.approx(float(values.std()), rel=1e-4)
    assert found["facts"][0]["distinct"] == len(np.unique(values))
    assert found["counts"][0] == found["counts"][1]
    assert found["noise_db"] is None
    with pytest.raises(DataError, match="no text"):
        ModelProcess().do_activations({**request, "texts": []}, None)


class Child:
    """Stands for the process on the other side of the pipe."""

    made, events = 0, ({"done": {"fine": True}},)

    def __init__(self, module, log):
        type(self).made += 1
        self.pid = 1

    def request(self, message, watch):
        yield from self.events

    def kill(self):
        pass

    def tail(self, size):
        return "last words"


@pytest.fixture
def child(monkeypatch, tmp_path):
    import workbench.running.models as module

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(module, "Child", Child)
    Child.made, Child.events = 0, ({"done": {"fine": True}},)
    return Child


def test_models_are_asked_in_one_process(child, tmp_path):
    models = Models(tmp_path / "log")
    assert [models.ask("answer")["fine"] for _ in range(2)] == [True, True]
    assert child.made == 1
    models.close()
    assert models.ask("answer") == {"fine": True}
    assert child.made == 2


def test_an_idle_process_goes(child, tmp_path):
    import time

    models = Models(tmp_path / "log", idle=0.05)
    models.ask("answer")
    end = time.monotonic() + 5
    while models.pid is not None and time.monotonic() < end:
        time.sleep(0.02)
    assert models.pid is None


def test_errors_of_the_process_keep_their_parts(child, tmp_path):
    models = Models(tmp_path / "log")
    child.events = ({"error": "all", "kind": "KnobError", "what": "what", "allowed": "allowed", "do": "do"},)
    with pytest.raises(KnobError) as caught:
        models.ask("answer")
    assert (caught.value.what, caught.value.allowed, caught.value.do) == ("what", "allowed", "do")
    child.events = ({"error": "ValueError: no", "kind": "ValueError"},)
    with pytest.raises(TrialError, match="ValueError: no"):
        models.ask("answer")


def test_nothing_is_read_while_a_trial_is_measured(child, tmp_path):
    import threading

    from workbench.running.lock import machine_lock

    models, said, wanted = Models(tmp_path / "log"), [], [True]
    lock = machine_lock()
    lock.acquire()
    done = []
    asking = threading.Thread(target=lambda: done.append(models.ask("answer", say=said.append)), daemon=True)
    asking.start()
    asking.join(0.6)
    assert asking.is_alive()
    assert said[0].startswith("Waiting: a trial is being measured")
    lock.release()
    asking.join(5)
    assert done == [{"fine": True}]
    with pytest.raises(Dropped):
        models.ask("answer", dropped=lambda: wanted[0])
