"""The demo's trained model: whether it is worth compressing. Trained once, in the cache that everybody uses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from workbench.tasks import demo
from workbench.tasks.base import make_task, task_from_json

pytestmark = [pytest.mark.demo, pytest.mark.timeout(1200)]


@pytest.fixture(scope="session")
def task() -> demo.Demo:
    trained = make_task("demo")
    trained.prepare()
    assert isinstance(trained, demo.Demo)
    return trained


def right(module, task: demo.Demo, split: str = "report") -> float:
    """Accuracy of a module on a split."""
    import torch

    examples, targets = task.encoded(split), task.targets(split)
    answers = np.empty(len(targets), dtype=np.int64)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    with torch.no_grad():
        for start in range(0, len(order), 100):
            rows = order[start : start + 100]
            batch = demo._padded([examples[i]["input_ids"] for i in rows])
            answers[rows] = module(**batch).logits.argmax(dim=1).numpy()
    return float((answers == targets).mean())


@pytest.fixture(scope="session")
def baseline(task: demo.Demo) -> float:
    return right(task.draft().module, task)


def test_model_reaches_94_percent_but_not_all(task: demo.Demo, baseline: float):
    assert 0.94 <= baseline < 1
    assert 0.94 <= right(task.draft().module, task, "select") < 1


def test_bag_of_words_stays_8_points_below(task: demo.Demo, baseline: float):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    bags = CountVectorizer()
    regression = LogisticRegression(max_iter=1000)
    regression.fit(bags.fit_transform(text for (text,) in task.texts("calibration")), task.targets("calibration"))
    held_out = bags.transform(text for (text,) in task.texts("report"))
    assert regression.score(held_out, task.targets("report")) <= baseline - 0.08


def test_70_percent_sparsity_costs_several_points(task: demo.Demo, baseline: float):
    import torch
    from torch.nn.utils import prune

    module = task.draft().module
    linears = [(layer, "weight") for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
    prune.global_unstructured(linears, pruning_method=prune.L1Unstructured, amount=0.7)
    assert right(module, task) <= baseline - 0.03


def test_dropping_two_layers_costs_something(task: demo.Demo, baseline: float):
    module = task.draft().module
    del module.distilbert.transformer.layer[-2:]
    assert right(module, task) < baseline - 0.01


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dynamic_int8_costs_little(task: demo.Demo, baseline: float):
    import torch

    module = torch.ao.quantization.quantize_dynamic(task.draft().module, {torch.nn.Linear}, dtype=torch.qint8)
    assert abs(right(module, task) - baseline) <= 0.015


def test_task_keeps_its_contract(task: demo.Demo):
    assert task.sizes() == {"calibration": 12_000, "select": 1_000, "report": 1_000}
    assert task.labels == ("negative", "positive")
    assert task.facts().blocks == 6
    assert max(len(example["input_ids"]) for example in task.encoded("select")) <= 40
    assert set(task.encoded("select", 1)[0]) == set(task.inputs()) == {"input_ids", "attention_mask"}
    again = task_from_json(json.loads(json.dumps(task.to_json())))
    assert again == task
    assert again.fingerprint() == task.fingerprint()
    assert make_task("demo", seed=1).texts("calibration") != task.texts("calibration")
    assert make_task("demo", seed=1).texts("select") == task.texts("select")
    assert task.draft().data.calibration(3) == task.encoded("calibration", 3)


def test_an_unknown_word_costs_no_unknown_token(task: demo.Demo):
    """Rare adjectives are split into word pieces, never lost."""
    pieces = {token for example in task.encoded("report") for token in example["input_ids"]}
    assert 1 not in pieces
