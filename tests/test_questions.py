"""Questions of strategies through a real runner: answered in the trial's process, kept, and replayed after a kill."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from fakes import Fake, FakeTask, Spoil

from workbench.draft import ModelFacts
from workbench.recipe import Choice, Open, Recipe, Space
from workbench.running.questions import NO_TIME, plain
from workbench.study import Study
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Costs, Facts, Peek, Question, Scan, Unanswered, question_from_json, ranking


def asked(study: Study) -> dict[str, dict[str, Any]]:
    return {k: v for k, v in study._store.attributes().items() if k.startswith("question:")}


def spoils(*counts: int, wait: float = 0.0) -> Space:
    return Space(Open("spoil", count=Choice(*counts)), backends=[Open("fake", wait=wait)])


@pytest.mark.usefixtures("fake_plugins")
def test_answers_come_from_the_trial_process_and_lead_the_strategy(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    study.tune(spoils(2, 8, 4), "asker", timing_seconds=0.05)
    assert [t.recipe.steps[0].count for t in study.trials[1:]] == [8, 4, 2]
    rows = asked(study)
    assert len(rows) == 4
    looks = [r["rows"][0] for r in rows.values() if r["question"]["kind"] == "peek"]
    assert sorted(look["lost"] for look in looks) == [2, 4, 8]
    assert all(look["examples"] == 20 and look["gained"] == 0 for look in looks)
    assert sorted(look["drop"] for look in looks) == pytest.approx([0.1, 0.2, 0.4])
    assert all(look["ratio"] > 0 for look in looks)
    scan = next(r for r in rows.values() if r["question"]["kind"] == "scan")
    assert scan["rows"] is None
    assert scan["error"]


@pytest.mark.usefixtures("fake_plugins")
def test_a_killed_search_by_frontier_goes_on_with_the_answers_it_had(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    space = spoils(*range(1, 9), wait=0.05)
    study.start(space, "frontier", Goal(max_drop=0.3, trials=6), timing_seconds=0.05)
    end = time.time() + 120
    while sum(t.finished for t in study.trials) < 3 and time.time() < end:
        time.sleep(0.05)
    for owner in study._runners():
        os.kill(owner.pid, signal.SIGKILL)
    while study._runners() and time.time() < end:
        time.sleep(0.05)
    before, trials = asked(study), [t.recipe.id for t in study.trials if t.finished]
    assert before
    study.resume()
    study.wait()
    after = asked(study)
    # Nothing is asked twice: what was answered before the kill is there, to the second.
    assert {k: after[k] for k in before} == before
    ids = [t.recipe.id for t in study.trials]
    assert ids[: len(trials)] == trials
    assert len(set(ids)) == len(ids)
    assert sum(t.state == "complete" for t in study.trials) == 7


@pytest.mark.usefixtures("fake_plugins")
def test_minutes_spent_on_questions_count(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    study.tune(spoils(*range(1, 9), wait=0.6), "asker", Goal(trials=None, minutes=4 / 60), timing_seconds=0.05)
    # Looks of 0.6 s each take half of the 4 seconds; then something is tried, which takes the other half.
    rows = [row for row in asked(study).values() if row["question"]["kind"] == "peek"]
    answered = [row for row in rows if row["rows"]]
    assert 1 <= len(answered) <= 4
    assert {row["error"] for row in rows if not row["rows"]} == {NO_TIME}
    assert 2 <= len(study.trials) < 9
    # A later search has minutes of its own, and what it asks is answered.
    study.tune(spoils(*range(1, 9), wait=0.6), "asker", Goal(trials=1), timing_seconds=0.05)
    assert all(row["rows"] for row in asked(study).values() if row["question"]["kind"] == "peek")


@pytest.mark.usefixtures("fake_plugins")
def test_a_budget_of_one_trial_is_one_trial(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    best = study.tune(spoils(20, 30), goal=Goal(max_drop=0.01, trials=1), timing_seconds=0.05)
    assert len(study.trials) == 2
    # Nothing meets the goal: the answer is the baseline, and what came nearest with what it misses.
    assert best.number == 0
    ((trial, missing),) = study.nearest()
    assert trial.number == 1
    assert missing == pytest.approx(trial.recipe.steps[0].count / 40 - 0.01)
    assert study.rows()[1]["goal"] == "fails"


@pytest.mark.usefixtures("fake_plugins")
def test_a_plan_is_edited_and_rerun_as_a_child(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    first = study.run(Recipe(Spoil(count=2), backend=Fake(), keep=("layer.*",)))
    child = study.rerun(first.number, keep_add=["classifier"], keep_remove=["layer.1"])
    assert child.recipe.keep == ("layer.0", "classifier")
    assert child.meta == {"origin": "edit", "parent": first.number}
    assert study.rows()[child.number]["parent"] == first.number
    assert study.frame()["parent"][child.number] == first.number


@pytest.mark.usefixtures("fake_plugins")
@pytest.mark.parametrize(
    "question",
    [
        Facts(),
        Scan(Spoil(count=3), "flips", "all_but", 17, ("a", "b")),
        Costs(Recipe(backend=Fake())),
        Peek(Recipe(Spoil(count=3), backend=Fake()), 99),
    ],
)
def test_a_question_survives_json(question: Question) -> None:
    again = question_from_json(json.loads(json.dumps(question.to_json())))
    assert again == question
    assert again.key == question.key


def test_ranking_takes_what_is_no_number_for_the_worst() -> None:
    rows = [{"layer": "a", "score": 2.0}, {"layer": "b", "score": float("nan")}, {"layer": "c", "score": None}]
    assert ranking(rows, ("c", "a", "b", "d")) == {"c": float("inf"), "a": 2.0, "b": float("inf"), "d": float("inf")}
    assert ranking([{"layer": "a", "score": float("nan")}], ("a",)) is None
    assert ranking(Unanswered("no"), ("a",)) is None
    assert ranking([], ("a",)) is None


def test_rows_are_kept_as_plain_json() -> None:
    import numpy as np

    rows = [{"layer": "a", "score": np.float64("nan"), "n": np.int64(3), "of": (1, 2), "what": ModelFacts("x")}]
    assert json.loads(json.dumps(plain(rows))) == [
        {"layer": "a", "score": None, "n": 3, "of": [1, 2], "what": str(ModelFacts("x"))}
    ]
