"""The main job as one call: a model and its data in, a study with its front out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.recipe import Choice, Open, Space
from workbench.registry import find
from workbench.running.status import Status
from workbench.study import Study, make_task
from workbench.tasks.base import Progress
from workbench.tuning.goal import Goal, parse_budget

BACKENDS = ("eager", "compiled", "onnxruntime", "openvino")
TECHNIQUES = ("bf16", "dynamic_int8", "static_int8")


def sweep(
    model: Any = "demo",
    data: Any = None,
    *,
    study: str | Path,
    kind: str | None = None,
    techniques: Iterable[str] = TECHNIQUES,
    backends: Iterable[str] = BACKENDS,
    keep: Iterable[str] = (),
    strategy: str = "frontier",
    budget: str = "20",
    max_drop: float = 0.01,
    absolute: bool = False,
    minimise: str = "latency",
    evidence: float = 0.5,
    whole_front: bool = False,
    workload: Mapping[str, Any] | None = None,
    seed: int = 0,
    trial_limit: str = "30min",
    timing_seconds: float = 6.0,
    tick: Callable[[Status], None] | None = None,
    prepare: Progress | None = None,
    **task_options: Any,
) -> Study:
    """Search `techniques` x `backends` on a model and its data; gives the study when the sweep has ended.

    Techniques and backends are names, with knobs where wanted: `static_int8:samples=100|300`. `workload` sets
    `threads`, `batch`, `sequence` and `padding` of every backend; `budget` is trials (`20`) or time (`15min`);
    `minimise`, `evidence` and `whole_front` are those of `Goal`;
    `task_options` go to the task (`text`, `label`, `metric`, `reserve` …). A study that was cut short is resumed:
    nothing finished runs twice. Everything is checked before the study is made.
    """
    trials, minutes = parse_budget(budget)
    wanted = {"minimise": minimise, "evidence": evidence, "front": whole_front}
    goal = Goal(max_drop=max_drop, absolute=absolute, trials=trials, minutes=minutes, **wanted)  # type: ignore[arg-type]
    limit = parse_budget(trial_limit)[1]
    if limit is None:
        raise UserError(f"The time limit {trial_limit!r} is no time.", allowed="a time such as 90s or 30min")
    space = space_of(techniques, backends, keep, workload or {})
    find("strategies", strategy)
    sequence = (workload or {}).get("sequence")
    task = make_task(model, data, kind=kind, **({"sequence": sequence} if sequence else {}), **task_options)
    task.prepare(prepare)
    opened = Study(study, task)
    opened.start(space, strategy, goal, seed=seed, trial_seconds=60 * limit, timing_seconds=timing_seconds)
    try:
        opened.wait(tick=tick)
    except KeyboardInterrupt:
        opened.stop()
        raise
    return opened


def space_of(
    techniques: Iterable[str],
    backends: Iterable[str],
    keep: Iterable[str] = (),
    workload: Mapping[str, Any] | None = None,
) -> Space:
    """The space in which each technique may be left out, from names with optional knobs (`name:knob=value|value`)."""
    steps = [_open("techniques", text, optional=True) for text in techniques]
    runtimes = [_open("backends", text, **(workload or {})) for text in backends]
    return Space(*steps, backends=runtimes, keep=keep)


def _open(family: str, text: str, **more: Any) -> Open:
    name, *settings = text.split(":")
    declared = find(family, name.strip()).knobs()  # type: ignore[attr-defined]
    knobs: dict[str, Any] = {}
    for setting in settings:
        key, separator, values = setting.partition("=")
        if not separator:
            raise UserError(f"{text!r} is not understood.", allowed="name or name:knob=value or name:knob=value|value")
        kind = declared[key].kind if key in declared else "text"
        parsed = [_value(value, kind) for value in values.split("|")]
        knobs[key] = parsed[0] if len(parsed) == 1 else Choice(*parsed)
    return Open(name.strip(), **{**more, **knobs})


def _value(text: str, kind: str) -> Any:
    """The text as what the knob wants; what does not fit is left as it is, and refused by the knob itself."""
    if kind == "bool":
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in ("int", "float"):
        try:
            return float(text)
        except ValueError:
            return text
    return text
