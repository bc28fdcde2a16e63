"""WORKBENCH_QUICK: less of everything, said aloud, and never mixed with what was measured at leisure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_folders import save_model, write_splits
from tiny_models import tiny_draft

from workbench import quick
from workbench.sensitivity.scan import order
from workbench.tasks.base import make_task
from workbench.training import Pace, train
from workbench.tuning.goal import Goal, affordable


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_QUICK", "1")


@pytest.mark.parametrize(("value", "hurry"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_who_is_in_a_hurry(value: str | None, hurry: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_QUICK", raising=False)
    if value is not None:
        monkeypatch.setenv("WORKBENCH_QUICK", value)
    assert quick.in_a_hurry() is hurry
    assert quick.at_most(100, 3) == (3 if hurry else 100)
    assert quick.at_most(2, 3) == 2
    assert quick.at_most(None, 3) == (3 if hurry else None)


def test_a_task_measures_fewer_examples_says_so_and_is_another_task(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(quick, "MEASURED", 3)
    monkeypatch.setattr("workbench.tasks.text_classification.MEASURED", 3)
    save_model(tmp_path / "model")
    data = write_splits(tmp_path / "data")
    slow = make_task(tmp_path / "model", data, sequence=16)
    whole, leisurely = slow.sizes()["select"], slow.fingerprint()
    assert quick.NOTE not in slow.describe()["notes"]
    monkeypatch.setenv("WORKBENCH_QUICK", "1")
    fast = make_task(tmp_path / "model", data, sequence=16)
    assert fast.sizes()["select"] == 3 < whole
    assert fast.fingerprint() != leisurely
    assert quick.NOTE in fast.describe()["notes"]


@pytest.mark.usefixtures("hurried")
def test_fewer_examples_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "model")
    task = make_task(tmp_path / "model", write_splits(tmp_path / "data"), sequence=16)
    monkeypatch.setattr("workbench.tasks._classification.CALIBRATED", 2)
    monkeypatch.setattr("workbench.tasks._classification.TRAINED", 4)
    data = task.draft().data
    assert len(data.calibration(5)) == 2
    examples, targets = data.training()
    assert len(examples) == len(targets) == 4
    assert order(samples=1000).samples == quick.SCANNED
    assert order(samples=5).samples == 5


@pytest.mark.usefixtures("hurried")
def test_budgets_shrink_and_never_grow() -> None:
    assert affordable(Goal(trials=100, minutes=60)) == Goal(trials=quick.TRIALS, minutes=quick.SWEEP_MINUTES)
    assert affordable(Goal(trials=2)).trials == 2


@pytest.mark.usefixtures("hurried")
def test_trainings_take_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.training.STEPS", 3)
    draft = tiny_draft(examples=8)
    train(draft, [], Pace(steps=50, minutes=60, batch=4))
    assert "trained for 3 steps" in draft.notes[-1]
