"""Strategies on recorded tables: cut short anywhere and replayed, led to the front, undisturbed by missing answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recorded import LAYERS, Table, replay, synthetic

from workbench.draft import ModelFacts
from workbench.measure.measurement import Measurement
from workbench.recipe import Choice, Open, Recipe, Space, plugin
from workbench.registry import members
from workbench.trial import Trial
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Costs, Peek, Scan, Unanswered

GOAL = Goal(max_drop=0.05, front=True, trials=None)


@pytest.fixture(scope="module")
def table() -> Table:
    return synthetic(1)


def small(table: Table) -> Table:
    """A part of the table that a search is through with quickly: one runtime, one precision, no structure."""
    choices = table.space.keeps()
    space = Space("bf16", "static_int8", "dynamic_int8", backends=["openvino"], keep=Choice(*choices))
    part = Table(space, table.facts, table.correct, table.examples, scans=table.scans)
    for point in space.points():
        try:
            recipe = space.build(point)
        except Exception:  # noqa: BLE001
            continue
        if recipe.id in table.rows:
            part.rows[recipe.id] = table.rows[recipe.id]
    part.costs = {key: rows for key, rows in table.costs.items() if key in part.rows}
    return part


def steps(table: Table, strategy: Any, known: list[tuple[str, Any]], limit: int = 30) -> list[tuple[str, Any]]:
    """What was asked, as JSON, and answered, as the store gives it back; what is `known` is answered from there."""
    search, done = strategy.search(table.space, Goal(max_drop=0.02, trials=None)), []
    try:
        asked = next(search)
        while len(done) < limit:
            key = json.dumps([type(asked).__name__, asked.to_json()], sort_keys=True)
            if len(done) < len(known):
                assert known[len(done)][0] == key
                kept = known[len(done)][1]
            else:
                kept = stored(table.trial(asked) if isinstance(asked, Recipe) else table.answer(asked))
            done.append((key, kept))
            asked = search.send(opened(kept, asked))
    except StopIteration:
        pass
    return done


def stored(answer: Any) -> str:
    """An answer as text, as a database holds it."""
    if isinstance(answer, Trial):
        measured = answer.measurement
        return json.dumps(["trial", answer.state, measured and measured.to_json()])
    if isinstance(answer, ModelFacts):
        return json.dumps(["facts"])
    return json.dumps(["no"] if isinstance(answer, Unanswered) else ["rows", answer])


def opened(kept: str, asked: Any) -> Any:
    kind, *rest = json.loads(kept)
    if kind == "trial":
        return Trial(1, asked, rest[0], rest[1] and Measurement.from_json(rest[1]))
    return {"facts": ModelFacts("x", layers=LAYERS, blocks=6), "no": Unanswered("no")}.get(kind) or rest[0]


@pytest.mark.parametrize("name", list(members("strategies")))
def test_cut_short_anywhere_and_replayed_it_takes_the_same_steps(table: Table, name: str) -> None:
    part, strategy = small(table), plugin("strategies", name, seed=3)
    whole = steps(part, strategy, [])
    assert len(whole) >= 13
    for cut in range(0, len(whole), 1 if name not in ("tpe", "nsga2", "bayesian", "frontier") else 7):
        assert steps(part, strategy, whole[:cut]) == whole


def test_a_table_survives_its_file(table: Table, tmp_path: Path) -> None:
    table.save(tmp_path / "table.json")
    again = Table.load(tmp_path / "table.json")
    assert (again.space, again.facts, again.rows, again.scans, again.costs) == (
        table.space,
        table.facts,
        table.rows,
        table.scans,
        table.costs,
    )
    assert again.best(GOAL) == table.best(GOAL) > 0
    stranger = Recipe(backend=plugin("backends", "eager"))
    assert table.trial(stranger).state == "refused"
    assert isinstance(table.answer(Peek(stranger)), Unanswered)
    assert isinstance(table.answer(Costs(stranger)), Unanswered)
    assert isinstance(table.answer(Scan(plugin("techniques", "bf16"))), Unanswered)


def test_frontier_reaches_the_front_in_half_the_evaluations_of_a_random_search(table: Table) -> None:
    wanted = 0.95 * table.best(GOAL)
    ours = replay(table, plugin("strategies", "frontier"), GOAL, 16)
    needed = ours.needed(wanted)
    assert needed is not None
    assert needed <= 10
    assert ours.questions["peek"] <= 3 * 4 + 4 * 16 + 10
    random = [replay(table, plugin("strategies", "random", seed=seed), GOAL, 2 * needed) for seed in range(3)]
    assert all(one.needed(wanted) is None for one in random)


def test_frontier_without_any_answer_still_goes_on_and_learns(table: Table) -> None:
    silent = Table(table.space, table.facts, table.correct, table.examples, rows=table.rows)
    silent.answer = lambda question: table.facts if question.kind == "facts" else Unanswered("no")  # type: ignore[method-assign]
    found = replay(silent, plugin("strategies", "frontier"), GOAL, 25)
    assert len(found.areas) == 25
    assert found.areas[-1] > 0.6 * table.best(GOAL)


def test_frontier_finds_the_fastest_that_meets_a_goal_and_not_the_first(table: Table) -> None:
    goal = Goal(max_drop=0.02, trials=None)
    allowed = goal.allowed_drop(table.correct / table.examples)
    passing = [
        1 / row["speedup"] for row in table.rows.values() if (row["lost"] - row["gained"]) / table.examples <= allowed
    ]
    search, costs = plugin("strategies", "frontier").search(table.space, goal), []
    asked = next(search)
    while len(costs) < 20:
        if not isinstance(asked, Recipe):
            asked = search.send(table.answer(asked))
            continue
        trial = table.trial(asked)
        if trial.measurement and trial.measurement.drop and trial.measurement.drop.value <= allowed:
            costs.append(goal.cost(trial.measurement))
        else:
            costs.append(1.0)
        asked = search.send(trial)
    assert min(costs) <= 1.05 * min(passing)


@pytest.mark.parametrize(("told", "first"), [(True, "openvino"), (False, "onnxruntime")])
def test_frontier_believes_a_whole_call_more_than_the_sum_of_its_nodes(told: bool, first: str) -> None:
    """A profiler costs time at every node: OpenVINO's INT8 adds up to more than ONNX Runtime's, and is faster."""
    ms = {("onnxruntime", 0): (9.0, 8.6), ("openvino", 0): (8.6, 7.8)}
    ms |= {("onnxruntime", 1): (5.8, 4.8), ("openvino", 1): (6.0, 3.3)}
    search = plugin("strategies", "frontier").search(
        Space(Open("static_int8", samples=10), backends=["onnxruntime", "openvino"]), Goal(max_drop=0.01, absolute=True)
    )
    asked = next(search)
    while not isinstance(asked, Recipe):
        answer: Any = Unanswered("no")
        if asked.kind == "facts":
            answer = ModelFacts("x", layers=("0.x", "1.x"), blocks=2)
        elif isinstance(asked, Costs):
            total, wall = ms[asked.recipe.backend.name, len(asked.recipe.steps)]
            answer = [
                {"layer": name, "ms": total / 2, **({"wall_ms": wall} if told else {})} for name in ("0.x", "1.x")
            ]
        asked = search.send(answer)
    assert (asked.backend.name, len(asked.steps)) == (first, 1)


def test_frontier_walks_the_ranking_by_bisection_not_one_by_one() -> None:
    """Sixteen layers; the goal is met from nine kept ones on."""
    layers = tuple(f"{i}.x" for i in range(16))
    space = Space(Open("static_int8", samples=10), backends=["openvino"])
    search = plugin("strategies", "frontier").search(space, Goal(max_drop=0.01, absolute=True))
    looks: list[int] = []
    asked = next(search)
    while not isinstance(asked, Recipe):
        if asked.kind == "facts":
            answer: Any = ModelFacts("x", layers=layers, blocks=16)
        elif isinstance(asked, Peek):
            looks.append(len(asked.recipe.keep))
            drop = 0.0 if len(asked.recipe.keep) >= 9 else 0.1
            answer = [{"examples": asked.examples, "drop": drop, "low": drop - 0.001, "high": drop + 0.001}]
        else:
            answer = [{"layer": name, "score": 16.0 - i, "ms": 1.0} for i, name in enumerate(layers)]
        asked = search.send(answer)
    # Rungs 0, 1, 2, 3, 4, 6, 8, 12: none, then halves of what is left.
    assert looks[:4] == [0, 4, 8, 12]
    assert len(looks) <= 6
    assert asked.keep == layers[:12]
