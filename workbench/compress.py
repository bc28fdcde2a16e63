"""task + recipe -> artifact: a folder that loads in a fresh process without the original model.

The folder holds what the backend lowered, the tokenizer, and `artifact.json` with the recipe and its provenance. It is
written beside its final place and moved there whole, so a killed process leaves nothing that looks finished; equal
recipes of equal tasks share one folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from workbench import prefix
from workbench.backends.base import Backend, Runner
from workbench.draft import Draft, Plan, Work, resolve_keep, silent
from workbench.errors import Refused, ResourceError, UserError
from workbench.measure.machine import Machine
from workbench.paths import cache_dir
from workbench.recipe import Recipe
from workbench.tasks.base import Task
from workbench.techniques.base import Technique, Trained, train_together

#: Called with the name of the stage that begins now.
Stage = Callable[[str], None]

MANIFEST = "artifact.json"
#: Seconds from which on the result of a technique is kept for the next recipe that begins alike.
_WORTH_KEEPING = 3.0
#: Calls that time a module for a technique that asks; the first third warms up.
_CLOCK_CALLS = 45


@dataclass(frozen=True)
class Artifact:
    """A lowered model on disk. `manifest` holds recipe, task, labels, model numbers, notes, versions and seconds."""

    folder: Path
    recipe: Recipe
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Artifact:
        """The artifact in `folder`; raises `UserError` where there is none."""
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise UserError(f"{folder} is no artifact: it has no {MANIFEST}.", do="name a folder that `compress` wrote")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return cls(Path(folder), Recipe.from_json(manifest["recipe"]), manifest)

    @property
    def backend(self) -> Backend:
        """The runtime that the model was lowered for."""
        return self.recipe.backend

    def load(self) -> Runner:
        """A runner of the lowered model."""
        return self.backend.load(self.folder / "model")


def check(task: Task, recipe: Recipe) -> None:
    """Raise, before any work, what would make `recipe` fail on `task`: `Refused`, `UnknownName` (in `keep`)."""
    facts = task.facts()
    reason = recipe.refusal(facts)
    if reason:
        raise Refused(f"{recipe.title} cannot be done here: {reason}")
    resolve_keep(recipe.keep, facts.layers)


def compress(
    task: Task,
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    stage: Stage | None = None,
    tell: Callable[[float, str], None] = silent,
) -> Artifact:
    """Apply `recipe` to the task's model and lower it into `folder` (by default in the cache).

    A folder that already holds this very artifact is opened, not built again. `stage` hears which stage begins, `tell`
    how far a long one is (share 0 … 1, words). Raises what `check` raises, and `ResourceError` where disk or
    permission is missing.
    """
    check(task, recipe)
    place = Path(folder) if folder else cache_dir("artifacts") / f"{task.fingerprint()}-{recipe.id}"
    if (place / MANIFEST).is_file():
        found = Artifact.open(place)
        if found.recipe == recipe and found.manifest["task"] == task.fingerprint():
            return found
    if place.exists() and any(place.iterdir()):
        raise UserError(f"{place} holds something else.", allowed="an empty or new folder", do="name another folder")
    partial = place.with_name(f"{place.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "model").mkdir(parents=True)
        manifest = _build(task, recipe, partial, stage or (lambda name: None), tell)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        if place.exists():
            place.rmdir()
        partial.rename(place)
    except OSError as error:
        raise ResourceError(
            f"{place} could not be written: {error.strerror or error}.", do="free some space, or name another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Artifact(place, recipe, manifest)


def draft(task: Task, recipe: Recipe, *, tell: Callable[[float, str], None] = silent) -> Draft:
    """The task's model with the recipe's techniques applied, not yet lowered.

    What took long is kept in the cache by its prefix of the recipe, so that two recipes that begin alike share it; an
    interrupted training goes on where it stood.
    """
    start = task.draft()
    start.kept = resolve_keep(recipe.keep, start.facts.layers)
    start.sequence = recipe.backend.sequence
    groups = together(recipe.steps)
    if not groups:
        return start
    places = [_prefix_folder(task, recipe, groups[: i + 1]) for i in range(len(groups))]
    done = next((i for i in reversed(range(len(groups))) if prefix.is_kept(places[i])), -1)
    if done >= 0:
        start = prefix.load(places[done], start)
    for group, place in list(zip(groups, places, strict=True))[done + 1 :]:
        began = time.perf_counter()
        start.work = Work(place.with_name(f"{place.name}.work"), tell)
        start.clock = _clock(start, recipe)
        start = _apply(group, start)
        if time.perf_counter() - began > _WORTH_KEEPING:
            prefix.save(start, place)
        start.work, start.clock = Work(), None
    return start


def together(steps: Sequence[Technique]) -> list[tuple[Technique, ...]]:
    """The steps one by one, but those that train and follow each other as one."""
    groups: list[tuple[Technique, ...]] = []
    for step in steps:
        if groups and isinstance(step, Trained) and isinstance(groups[-1][-1], Trained):
            groups[-1] += (step,)
        else:
            groups.append((step,))
    return groups


def _apply(group: tuple[Technique, ...], start: Draft) -> Draft:
    trained = [step for step in group if isinstance(step, Trained)]
    return train_together(trained, start) if len(trained) > 1 else group[0].apply(start)


def _prefix_folder(task: Task, recipe: Recipe, groups: Sequence[tuple[Technique, ...]]) -> Path:
    steps = [step for group in groups for step in group]
    parts: list[Any] = [prefix.FORMAT, task.fingerprint(), list(recipe.keep)]
    parts += [recipe.backend.sequence, [step.to_json() for step in steps]]
    if any(step.asks_runtime for step in steps):
        parts.append(recipe.to_json())
    return cache_dir("prefixes") / hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def _clock(start: Draft, recipe: Recipe) -> Callable[[Any], float]:
    """What `Draft.clock` promises: the median of some calls at the recipe's own batch and length."""
    backend = recipe.backend
    precision = [step for step in recipe.steps if step.precisions and not isinstance(step, Trained)]
    shape = (backend.batch, backend.sequence)
    batch = {name: np.full(shape, int("type" not in name), dtype=np.int64) for name in start.inputs}

    def clock(module: Any) -> float:
        other = replace(start, module=module, plan=Plan(), masks={}, grids={}, notes=[])
        for step in precision:
            # Speed does not depend on the ranges.
            fewer = {"samples": min(8, step.samples)} if hasattr(step, "samples") else {}
            other = step.replace(**fewer).apply(other)
        with tempfile.TemporaryDirectory() as scratch:
            backend.lower(other, Path(scratch))
            runner = backend.load(Path(scratch))
            times = []
            for _ in range(_CLOCK_CALLS):
                began = time.perf_counter()
                runner(batch)
                times.append(time.perf_counter() - began)
            runner.close()
        return float(np.median(times[_CLOCK_CALLS // 3 :]) * 1e3)

    return clock


def _build(
    task: Task, recipe: Recipe, folder: Path, stage: Stage, tell: Callable[[float, str], None]
) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    stage("compress")
    drafted = draft(task, recipe, tell=tell)
    model = _numbers(drafted, recipe.backend.sequence)
    seconds["compress"] = time.perf_counter() - began
    began = time.perf_counter()
    stage("lower")
    recipe.backend.lower(drafted, folder / "model")
    task.save_tokenizer(folder / "tokenizer")
    seconds["lower"] = time.perf_counter() - began
    return {
        "recipe": recipe.to_json(),
        "recipe_id": recipe.id,
        "task": task.fingerprint(),
        "labels": list(task.labels),
        "inputs": list(drafted.inputs),
        "pad": drafted.pad,
        "plan": drafted.plan.to_json(),
        "notes": drafted.notes,
        # Which transformer layers of the original these are: their names count from 0 again.
        "blocks": list(drafted.blocks),
        "block_path": drafted.facts.block_path,
        "model": model,
        "machine": Machine.here().to_json(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": seconds,
    }


def _numbers(drafted: Draft, sequence: int) -> dict[str, Any]:
    """Parameters, those that are not zero, and multiply-accumulates of one example of `sequence` tokens."""
    if drafted.module is None:
        return {"parameters": drafted.facts.parameters, "nonzero_parameters": None, "macs": None}
    import torch

    from workbench.measure import layers

    example = {name: torch.ones((1, sequence), dtype=torch.long) for name in drafted.inputs}
    return {
        "parameters": layers.parameters(drafted.module),
        "nonzero_parameters": layers.nonzero_parameters(drafted.module),
        "macs": layers.macs(drafted.module, example),
    }
