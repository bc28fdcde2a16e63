"""The contract of a strategy, over every one that is registered; then what is particular to each."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from workbench.draft import ModelFacts
from workbench.errors import KnobError
from workbench.measure.estimate import Estimate, exact
from workbench.measure.measurement import Measurement
from workbench.recipe import Choice, Open, Range, Recipe, Space
from workbench.registry import members
from workbench.trial import Trial
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Costs, Facts, Peek, Question, Unanswered
from workbench.tuning.strategies._ask_tell import objectives
from workbench.tuning.strategies._fresh import PATIENCE
from workbench.tuning.strategies.grid import Grid
from workbench.tuning.strategies.nsga2 import Nsga2
from workbench.tuning.strategies.random import RandomSearch

ALL = list(members("strategies").values())
every = pytest.mark.parametrize("strategy", ALL, ids=[s.name for s in ALL])
seeded = pytest.mark.parametrize("strategy", [RandomSearch, Nsga2], ids=["random", "nsga2"])

Evaluator = Callable[[Recipe], Trial | None]

FACTS = ModelFacts("Fake", layers=("layer.0.a", "layer.0.b", "layer.1.a", "layer.1.b", "head"), blocks=2)


def small() -> Space:
    """36 recipes: three precisions, drop no, one or two layers, two runtimes, two lengths. Many points clash."""
    return Space(
        "bf16",
        "static_int8",
        Open("drop_layers", optional=True, count=Choice(1, 2)),
        backends=[Open("eager", sequence=Choice(64, 128)), Open("onnxruntime", sequence=Choice(64, 128))],
    )


def endless() -> Space:
    return Space(
        Open("prune", sparsity=Range(0.1, 0.9)),
        Open("static_int8", optional=True, samples=Range(1, 500, log=True)),
        backends=["eager", "onnxruntime"],
    )


def measured(recipe: Recipe, drop: float, speedup: float, **more: Any) -> Trial:
    values = {"drop": exact(drop), "speedup": exact(speedup), **more}
    return Trial(1, recipe, "complete", Measurement(accuracy=exact(0.9 - drop), metric="accuracy", **values))


def fake(recipe: Recipe) -> Trial | None:
    """An answer that depends on the recipe only: every kind of ending occurs."""
    digit = int(recipe.id, 16)
    if digit % 11 == 0:
        return None
    if digit % 5 == 0:
        return Trial(1, recipe, ("failed", "refused", "stopped", "running")[digit % 4])
    return measured(recipe, drop=(digit % 97) / 970, speedup=1 + (digit % 89) / 40)


def reply(question: Question) -> Any:
    """An answer that depends on the question only."""
    if isinstance(question, Facts):
        return FACTS
    digit = int(question.key, 16)
    if isinstance(question, Peek):
        lost = digit % question.examples // 4
        drop = lost / question.examples
        return [
            {"examples": question.examples, "lost": lost, "gained": 0, "drop": drop, "low": drop / 2, "high": 2 * drop}
        ]
    value = "ms" if isinstance(question, Costs) else "score"
    return [{"layer": name, value: (digit >> i) % 7 + 0.5} for i, name in enumerate(FACTS.layers)]


def silence(question: Question) -> Any:
    return FACTS if isinstance(question, Facts) else Unanswered("the probe gives NaN")


def drive(
    strategy: Any,
    space: Space,
    evaluate: Evaluator = fake,
    *,
    limit: int = 10_000,
    goal: Goal | None = None,
    answer: Callable[[Question], Any] = reply,
) -> list[Recipe]:
    """What the runner does: take a recipe, send its trial, until the strategy ends or the budget is spent."""
    search = strategy.search(space, goal or Goal())
    tried: list[Recipe] = []
    try:
        asked = next(search)
        while True:
            if not isinstance(asked, Recipe):
                asked = search.send(answer(asked))
                continue
            tried.append(asked)
            if len(tried) == limit:
                return tried
            asked = search.send(evaluate(asked))
    except StopIteration:
        return tried


# -- the contract ------------------------------------------------------------------------------------------------------


@every
def test_describes_itself(strategy: Any) -> None:
    assert strategy.name == strategy().to_json()["name"]
    summary, _, rest = (strategy.__doc__ or "").partition("\n")
    assert summary.endswith(".")
    assert len(summary) <= 110
    assert "Cost:" in rest
    assert "Helps" in rest
    assert "seed" in strategy.knobs()


@every
@pytest.mark.parametrize("answer", [reply, silence])
def test_tries_every_recipe_of_a_finite_space_once_and_ends(strategy: Any, answer: Any) -> None:
    tried = drive(strategy(), small(), answer=answer)
    assert Counter(r for r in tried if not r.keep) == Counter(small().recipes())
    # Some leave layers in higher precision on top of that; no recipe twice either.
    assert len(set(tried)) == len(tried)
    assert {r.keeping(()) for r in tried} == set(small().recipes())
    assert all(set(r.keep) < set(FACTS.layers) for r in tried)


@every
def test_is_repeatable(strategy: Any) -> None:
    for space in (small(), endless()):
        assert drive(strategy(seed=7), space, limit=16) == drive(strategy(seed=7), space, limit=16)


@every
@pytest.mark.parametrize("cut", [1, 5, 17])
def test_a_replay_from_stored_answers_is_a_resume(strategy: Any, cut: int) -> None:
    whole = drive(strategy(seed=3), endless(), limit=29)
    stored = {recipe.id: fake(recipe) for recipe in whole[:cut]}
    asked: list[Recipe] = []

    def runner(recipe: Recipe) -> Trial | None:
        if recipe.id in stored:
            return stored[recipe.id]
        asked.append(recipe)
        return fake(recipe)

    again = drive(strategy(seed=3), endless(), runner, limit=29)
    assert again == whole
    assert asked == whole[cut:28]


@every
def test_goes_on_when_nothing_is_ever_measured(strategy: Any) -> None:
    for evaluate in (
        lambda recipe: None,
        lambda recipe: Trial(1, recipe, "failed"),
        lambda recipe: Trial(1, recipe, "running"),
    ):
        tried = drive(strategy(), small(), evaluate, limit=500)
        assert {r for r in tried if not r.keep} == set(small().recipes())


@every
def test_a_space_of_one_recipe(strategy: Any) -> None:
    space = Space(backends=["eager"])
    assert drive(strategy(), space) == list(space.recipes())


@every
def test_a_space_without_a_sound_recipe_ends_at_once(strategy: Any) -> None:
    assert drive(strategy(), Space(Open("bf16"), Open("static_int8"), backends=["eager"])) == []


@every
def test_can_be_closed_early(strategy: Any) -> None:
    search = strategy().search(small(), Goal())
    next(search)
    search.close()
    with pytest.raises(StopIteration):
        next(search)


def test_importing_them_loads_no_optuna() -> None:
    modules = ", ".join(strategy.__module__ for strategy in ALL)
    code = f"import sys, {modules}; print([m for m in ('optuna', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- each on its own ---------------------------------------------------------------------------------------------------


def test_grid_goes_through_the_space_in_order() -> None:
    assert drive(Grid(), small()) == list(small().recipes())


@seeded
def test_another_seed_is_another_order(strategy: Any) -> None:
    orders = {tuple(drive(strategy(seed=seed), small(), limit=8)) for seed in range(5)}
    assert len(orders) == 5


@seeded
def test_a_range_never_runs_out(strategy: Any) -> None:
    tried = drive(strategy(), endless(), limit=3 * PATIENCE)
    assert len(set(tried)) == 3 * PATIENCE


def test_random_ends_when_whole_numbers_of_a_range_are_used_up() -> None:
    space = Space(Open("drop_layers", count=Range(1, 5, points=5)), backends=["eager"])
    assert sorted(r.steps[0].count for r in drive(RandomSearch(), space)) == [1, 2, 3, 4, 5]  # type: ignore[attr-defined]


def test_nsga2_is_led_by_what_it_is_sent() -> None:
    def blind(recipe: Recipe) -> Trial:
        return measured(recipe, 0.0, 1.0)

    start = drive(Nsga2(), endless(), fake, limit=40), drive(Nsga2(), endless(), blind, limit=40)
    assert start[0][0] == start[1][0]
    assert start[0] != start[1]


def test_nsga2_finds_the_corner_of_a_bowl_sooner_than_random_search() -> None:
    # Both objectives are best at one corner of a space of 2 · 10^6 recipes.
    space = Space(
        Open("static_int8", samples=Choice(*range(1, 41)), per_channel=Choice(False, True)),
        Open("prune", sparsity=Choice(*(i / 100 for i in range(40)))),
        backends=[Open("eager", threads=Choice(*range(40)), sequence=Choice(*range(2, 18)))],
    )

    def cost(recipe: Recipe) -> float:
        prune, int8 = recipe.steps
        return prune.sparsity * 100 + int8.samples + recipe.backend.threads  # type: ignore[attr-defined]

    def bowl(recipe: Recipe) -> Trial:
        return measured(recipe, drop=cost(recipe) / 200, speedup=1 / (0.1 + cost(recipe) / 200))

    best = {
        kind: [min(map(cost, drive(kind(seed=seed), space, bowl, limit=150))) for seed in range(3)]
        for kind in (Nsga2, RandomSearch)
    }
    assert sum(best[Nsga2]) < 0.6 * sum(best[RandomSearch])


def test_nsga2_asks_again_after_contradictions() -> None:
    crowded = Space("bf16", "static_int8", "dynamic_int8", backends=["eager"])
    assert Counter(drive(Nsga2(population=2), crowded)) == Counter(crowded.recipes())


def test_nsga2_says_nothing_of_its_own(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    drive(Nsga2(population=4), small(), limit=20)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before != logging.WARNING
    assert not recwarn.list


def test_nsga2_wants_a_population() -> None:
    with pytest.raises(KnobError, match="population"):
        Nsga2(population=1)


@pytest.mark.parametrize(
    ("minimise", "expected"), [("latency", (0.1, 0.5)), ("size", (0.1, 12.0)), ("memory", (0.1, 300.0))]
)
def test_objectives_follow_the_goal(minimise: str, expected: tuple[float, float]) -> None:
    trial = measured(next(small().recipes()), 0.1, 2.0, size_mb=12.0, peak_mb=300.0)
    assert objectives(trial, Goal(minimise=minimise)) == expected


@pytest.mark.parametrize(
    "missing",
    [
        {"drop": None},
        {"speedup": None},
        {"drop": Estimate(float("nan"), 0, 0, 1)},
        {"speedup": Estimate(float("nan"), 0, 0, 1)},
        {"speedup": Estimate(0.0, 0, 0, 1)},
    ],
)
def test_what_was_not_measured_is_no_objective(missing: dict[str, Any]) -> None:
    trial = measured(next(small().recipes()), **{"drop": 0.1, "speedup": 2.0})
    assert trial.measurement is not None
    values = {"accuracy": exact(0.9), "metric": "accuracy", "drop": exact(0.1), "speedup": exact(2.0), **missing}
    assert objectives(Trial(1, trial.recipe, "complete", Measurement(**values)), Goal()) is None
    assert objectives(None, Goal()) is None
    assert objectives(Trial(1, trial.recipe, "failed"), Goal()) is None
    assert objectives(trial, Goal(minimise="size")) is None


def test_the_order_of_a_large_grid_begins_at_once() -> None:
    search = Grid().search(small(), Goal())
    assert list(itertools.islice(search, 3)) == list(itertools.islice(small().recipes(), 3))
