"""The tuner without a browser: goal and budget in its own units, what is said of a sweep, buttons that make sense."""

from __future__ import annotations

import pandas as pd
import pytest
from fake_study import EXAMPLES, fake_frame

import workbench
from workbench.errors import UserError
from workbench.plots import table as tables
from workbench.recipe import Open, Recipe, Space
from workbench.registry import members
from workbench.running.status import Status
from workbench.tuning.goal import MINIMISE, Goal
from workbench.widgets.sweep_words import (
    STAGE_WORDS,
    allowance_html,
    bar_html,
    best_html,
    examples_of,
    refused_html,
    share_done,
    stages_html,
    status_html,
)
from workbench.widgets.tuner import ALLOWED, COSTS, LISTED, Tuner, goal_of

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def every_runtime(monkeypatch):
    for kind in members("backends").values():
        monkeypatch.setattr(kind, "available", classmethod(lambda cls: None))


def text_of(markup):
    return pd.Series([str(markup)]).str.replace("<[^>]*>", "", regex=True)[0]


# --- the goal --------------------------------------------------------------------------------------------------------


def test_the_goal_in_the_tuners_own_units():
    assert goal_of(1.0, False, "size", 20, 0) == Goal(max_drop=0.01, minimise="size", trials=20)
    assert goal_of(0.5, True, "latency", 0, 15) == Goal(max_drop=0.005, absolute=True, trials=None, minutes=15)
    assert goal_of(2.5, True, "latency", 5, 0, raw=True) == Goal(max_drop=2.5, absolute=True, trials=5)
    with pytest.raises(UserError):
        goal_of(200.0, False, "latency", 5, 0)


def test_everything_that_can_be_minimised_is_offered_in_words():
    made = Tuner()
    assert set(COSTS) == set(MINIMISE)
    assert [value for _, value in made.minimise.options] == list(MINIMISE)
    made.minimise.value, made.whole.value, made.evidence.value = "throughput", True, 0.975
    assert made.value == Goal(minimise="throughput", front=True, evidence=0.975)


@pytest.mark.parametrize("kind", [Space, Recipe])
def test_code_makes_the_call_of_start(kind):
    made, calls = Tuner(), []
    made.space = Space(Open("bf16"), backends=["eager"]) if kind is Space else Recipe(backend=workbench.Eager())
    made.trials.value = 3
    names = {n: getattr(workbench, n) for n in ("Space", "Open", "Recipe", "Goal")} | workbench.registry.classes()

    class Study:
        def start(self, *args, **options):
            calls.append((args, options))

    eval(made.code, {**names, "study": Study()})  # noqa: S307 - that this makes the call is what is tested
    assert calls == [((made.space,), {"strategy": "frontier", "goal": made.value})]


def test_what_a_drop_means_in_examples():
    one = Goal(max_drop=0.01)
    assert text_of(allowance_html(one, examples=872)) == "at most 8 of 872 examples"
    said = text_of(allowance_html(one, "accuracy", 0.8991, 872))
    assert said == "89.91 % may fall to 89.01 % (0.90 pt) = 7 of 872 examples"
    assert "0 of 872" in allowance_html(Goal(max_drop=0.0), "accuracy", 0.9, 872)
    assert "20 of 1,000 examples" in allowance_html(Goal(max_drop=0.02, absolute=True), "accuracy", 0.5, 1000)
    assert "once the data are" in allowance_html(one)
    assert "perplexity may go from 20 to 20.2" in allowance_html(one, "perplexity", 20.0)


def test_the_tuner_says_it_as_soon_as_it_is_known():
    made = Tuner()
    assert "once the data are" in made.meaning.value
    made.examples = 400
    assert "at most 4 of 400" in made.meaning.value
    made.examples = 0
    made.frame = fake_frame(3)
    assert f"7 of {EXAMPLES} examples" in made.meaning.value
    made.absolute.value, made.drop.value = True, 2.0
    assert f"17 of {EXAMPLES} examples" in made.meaning.value
    assert examples_of(tables.rows(fake_frame(1))[0]) == EXAMPLES
    assert examples_of(None) == 0


def test_a_perplexity_may_rise_by_points_of_its_own():
    made = Tuner()
    made.metric, made.absolute.value, made.drop.value = "perplexity", True, 2.5
    assert made.value == Goal(max_drop=2.5, absolute=True)


def test_strategies_come_with_their_first_sentence():
    made = Tuner()
    for name in members("strategies"):
        made.strategy.value = name
        assert len(text_of(made.meant.value)) > 20


def test_what_the_budget_comes_to():
    made = Tuner()
    made.space = Space("bf16", backends=["openvino", "eager"])
    assert "enough for all 4 recipes" in made.limits.value
    made.trials.value = 2
    assert "0 = no limit" in made.limits.value
    made.trials.value = 0
    assert "No limit" in made.limits.value
    assert (made.value.trials, made.value.minutes) == (None, None)
    made.space = None
    assert "No limit" in made.limits.value


# --- what is happening -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [None, *(state for state in ALLOWED if state != "none")])
def test_buttons_that_make_sense(state):
    made = Tuner()
    made.status = Status(state) if state else None
    assert {name for name, button in made.buttons.items() if not button.disabled} == ALLOWED[state or "none"]
    made.busy = "Starting …"
    assert all(button.disabled for button in made.buttons.values())
    assert "Starting" in made.line.value


def test_buttons_call_their_hooks():
    made, called = Tuner(), []
    for name in ("start", "pause", "stop", "resume"):
        setattr(made, name, lambda name=name: called.append(name))
        made.buttons[name].click()
    assert called == ["start", "pause", "stop", "resume"]


def test_status_line():
    status = Status("running", trial=3, title=EVIL, stage="time", progress=0.5, done=3, planned=8, seconds=200)
    line = status_html(status, 480.0)
    for part in ("running", "trial 3", "3 of at most 8 trials done", "3 min 20 s", "about 8 min left"):
        assert part in line
    assert "<img" not in line
    assert "No study is open" in status_html(None)
    assert share_done(status) == 3.5 / 8
    assert 'value="0.438"' in bar_html(status)
    assert share_done(Status("idle", done=8, planned=8)) == 0.0
    assert bar_html(Status("idle", done=8, planned=8)) == ""


def test_stages_of_the_running_trial():
    from workbench.running.bench import STAGES

    assert set(STAGE_WORDS) == set(STAGES)
    shown = stages_html(Status("running", trial=1, stage=f"evaluate: 3 of {EVIL}", progress=0.5))
    assert shown.count("wb-stage-done") == 3
    assert 'aria-current="step"><span aria-hidden="true">▸ </span>score' in shown
    assert shown.count("wb-stage-next") == 2
    assert "50 % of the trial: 3 of &lt;img" in shown
    assert stages_html(Status("running", stage="prepare")) == ""
    assert stages_html(Status("idle")) == ""


def test_time_left_comes_from_trials_and_the_goal():
    made = Tuner()
    made.frame = fake_frame(6)
    made.status = Status("running", done=10, planned=20, seconds=100)
    assert "about 1 min 50 s left" in made.line.value or "about 2 min left" in made.line.value
    made.goal = Goal(trials=20, minutes=3.0)
    made.status = Status("running", done=11, planned=20, seconds=160)
    assert "about 20 s left" in made.line.value
    made.status = Status("idle", done=20, planned=20, seconds=300)
    assert "left" not in made.line.value


def test_best_so_far_with_its_numbers():
    made = Tuner()
    made.frame = fake_frame(evil=EVIL)
    made.status = Status("idle", best=8)
    for part in ("#8 static_int8 → ", "3.33×", "−0.23 pt"):
        assert part.replace("static_int8 → ", "static_int8") in made.best.value
    assert "<img" not in made.best.value
    made.status = Status("idle", best=0)
    assert "Nothing yet" in made.best.value
    made.status = Status("idle")
    assert made.best.value == ""
    assert best_html(tables.rows(fake_frame()), 9) == ""


def test_the_log_runs_a_failed_trial_again():
    made, again = Tuner(), []
    made.again = again.append
    assert made.lost.layout.display == "none"
    made.frame = fake_frame(evil=EVIL)
    made.refused = [{"title": EVIL, "reason": EVIL}]
    assert made.lost.note == "1 failed, 1 refused"
    made.lost.unfolded = True
    row, refused = made._lost.children
    assert "The compiler ran out of memory." in row.children[0].value
    assert "<img" not in row.children[0].value + refused.value
    row.children[1].click()
    assert again == [9]
    made.lost.unfolded = False
    assert made._lost.children == ()


def test_a_long_log_is_cut():
    frame = fake_frame(10)
    many = pd.concat([frame, *[frame.iloc[[9]]] * (LISTED + 5)], ignore_index=True)
    made = Tuner()
    made.frame, made.lost.unfolded = many, True
    assert "and 6 more" in made._lost.children[LISTED].value
    assert "and 5 more" in refused_html([{"title": str(i), "reason": "r"} for i in range(25)])
