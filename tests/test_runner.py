"""The runner: a sweep from start to end, failures that do not stop it, stop, resume, and two runners at once."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from fakes import Fake, FakeTask, Spoil, Trouble

from workbench.errors import StoreError, TrialError, UserError
from workbench.recipe import Choice, Open, Recipe, Space
from workbench.study import Study
from workbench.tuning.goal import Goal

pytestmark = pytest.mark.usefixtures("fake_plugins")

QUICK = {"strategy": "in_order", "timing_seconds": 0.05}


def spoils(*counts: int, wait: float = 0.0) -> Space:
    return Space(Open("spoil", count=Choice(*counts)), backends=[Open("fake", wait=wait)])


def leftovers(folder: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]


def gone(folder: Path, seconds: float = 20.0) -> bool:
    """Whether no process of the study is left soon; a runner that is done takes a while to end on a busy machine."""
    end = time.time() + seconds
    while leftovers(folder) and time.time() < end:
        time.sleep(0.1)
    return not leftovers(folder)


def test_sweep_measures_all_and_puts_the_baseline_first(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    best = study.tune(spoils(0, 2, 8), goal=Goal(max_drop=0.1), **QUICK)
    trials = study.trials
    assert [t.state for t in trials] == ["complete"] * 4
    assert trials[0].recipe.steps == ()
    assert trials[0].measurement.correct == 40
    assert [t.measurement.correct for t in trials[1:]] == [40, 38, 32]
    assert trials[3].measurement.flips_lost == 8
    assert trials[3].measurement.drop.value == pytest.approx(0.2)
    assert best.measurement.correct >= 36
    assert trials[0].measurement.noise.low <= 1 <= trials[0].measurement.noise.high
    assert study.status().state == "idle"
    assert gone(tmp_path)


def test_same_recipe_is_not_run_twice(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    study.tune(spoils(1, 2), **QUICK)
    study.tune(spoils(2, 3), **QUICK)
    assert [t.recipe.id for t in study.trials] == list({t.recipe.id: 0 for t in study.trials})
    assert len(study.trials) == 4
    assert study.run(Recipe(Spoil(count=3), backend=Fake())).number == 3


def test_a_recipe_that_an_ending_runner_missed_is_run_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path / "s", FakeTask())
    spawn, spawned = study._spawn, []

    def missing_the_first() -> None:
        spawned.append(time.time())
        if len(spawned) > 1:
            spawn()

    monkeypatch.setattr(study, "_spawn", missing_the_first)
    assert study.run(Recipe(Spoil(count=3), backend=Fake())).measurement.correct == 37
    assert len(spawned) == 2


def test_failures_become_trials_with_a_reason_and_the_sweep_goes_on(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    space = Space(Open("trouble", what=Choice("raise", "exit", "hang", "segfault", "nan")), backends=[Open("fake")])
    study.tune(space, trial_seconds=5.0, **QUICK)
    errors = {t.recipe.steps[0].what: t for t in study.trials if t.state == "failed"}
    assert set(errors) == {"raise", "exit", "hang", "segfault", "nan"}
    assert "the technique broke" in errors["raise"].error
    assert "Traceback" in errors["raise"].details
    assert "exit code 3" in errors["exit"].error
    assert "last words" in errors["exit"].details
    assert "time limit of 5 s" in errors["hang"].error
    assert "SIGSEGV" in errors["segfault"].error
    assert "NaN" in errors["nan"].error


def test_refused_before_work_with_the_reason(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    study.tune(Space(Open("static_int8", optional=True), backends=[Open("fake")]), **QUICK)
    assert len(study.trials) == 1
    assert "the fake has no INT8" in study.refused()[0]["reason"]


def test_stop_ends_the_running_trial_within_two_seconds_and_resume_finishes_it(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    study.start(spoils(1, 2, wait=3.0), **QUICK)
    wait_for(lambda: any(t.state == "running" and t.number == 1 for t in study.trials))
    began = time.time()
    study.stop()
    assert time.time() - began < 2
    assert not leftovers(tmp_path)
    assert study.status().state == "idle"
    assert study.trials[1].state == "stopped"
    study.stop()
    study.resume()
    study.wait()
    assert [t.state for t in study.trials] == ["complete"] * 3
    assert [t.number for t in study.trials] == [0, 1, 2]


def test_pause_lets_the_running_trial_end_and_resume_goes_on_with_the_next(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    study.pause()
    study.start(spoils(1, 2, wait=1.0), **QUICK)
    wait_for(lambda: any(t.state == "running" and t.number == 1 for t in study.trials))
    study.pause()
    status = study.status()
    assert (status.state, "as soon as" in status.message) == ("stopping", True)
    study.wait()
    assert [t.state for t in study.trials] == ["complete"] * 2
    assert study.status().state == "idle"
    assert "paused" in study.status().message
    study.resume()
    study.wait()
    assert [t.state for t in study.trials] == ["complete"] * 3


def test_a_recipe_can_be_started_like_a_space(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    recipe = Recipe(Spoil(count=2), backend=Fake())
    study.start(recipe, **QUICK)
    study.wait()
    assert study.trials[-1].recipe == recipe


def test_start_twice_is_refused(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    study.start(spoils(1, wait=2.0), **QUICK)
    with pytest.raises(UserError, match="running already"):
        study.start(spoils(1), **QUICK)
    study.stop()


def test_budget_of_trials_ends_the_sweep(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    study.tune(spoils(1, 2, 3, 4, 5), goal=Goal(trials=2), **QUICK)
    assert len(study.trials) == 3


def test_two_runners_on_one_study_share_the_work(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    study.start(spoils(*range(1, 7), wait=0.3), **QUICK)
    study._spawn()
    study.wait()
    trials = study.trials
    assert sorted(t.recipe.id for t in trials) == sorted({t.recipe.id for t in trials})
    assert [t.state for t in trials] == ["complete"] * 7


def test_bad_task_fails_the_sweep_with_the_reason(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask(broken="the file is empty"))
    with pytest.raises(TrialError, match="the file is empty"):
        study.tune(spoils(1), **QUICK)
    assert study.trials == []


def test_failed_trial_can_be_run_again(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    with pytest.raises(TrialError, match="broke"):
        study.run(Recipe(Trouble(), backend=Fake()))
    study.again(1)
    study.wait()
    assert [t.number for t in study.trials] == [0, 2]


def test_front_is_measured_again_on_the_report_split(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask(report=True))
    study.tune(spoils(1, 2), **QUICK)
    for number in study.front():
        assert study.trials[number].report.split == "report"


def test_study_of_another_task_is_refused(tmp_path: Path) -> None:
    Study(tmp_path / "s", FakeTask())
    with pytest.raises(UserError, match="another task"):
        Study(tmp_path / "s", FakeTask(report=True))
    with pytest.raises(StoreError, match="no study"):
        Study(tmp_path / "other")


def test_json_and_frame_have_the_same_columns(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    study.tune(spoils(1), **QUICK)
    row, frame = study.to_json()["trials"][1], study.frame()
    wanted = set(row) - {"report"}
    assert wanted <= set(frame.columns)
    assert frame.drop_low[1] <= frame["drop"][1] <= frame.drop_high[1]


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.05)


def test_recipes_ordered_in_the_background_are_measured_once_and_in_order(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    recipes = [Recipe(Spoil(count=count), backend=Fake()) for count in (3, 1, 2)]
    assert study.order(recipes) == recipes
    assert study.order(recipes[:2]) == recipes[:2]
    study.wait()
    assert [t.recipe for t in study.trials[1:]] == recipes
    assert study.order(recipes) == []
    assert study.status().state == "idle"
