"""task + recipe -> artifact: a folder that loads in a fresh process without the original model.

The folder holds what the backend lowered, the tokenizer, and `artifact.json` with the recipe and its provenance. It is
written beside its final place and moved there whole, so a killed process leaves nothing that looks finished; equal
recipes of equal tasks share one folder.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.backends.base import Backend, Runner
from workbench.draft import Draft, resolve_keep
from workbench.errors import Refused, ResourceError, UserError
from workbench.measure.machine import Machine
from workbench.paths import cache_dir
from workbench.recipe import Recipe
from workbench.tasks.base import Task

#: Called with the name of the stage that begins now.
Stage = Callable[[str], None]

MANIFEST = "artifact.json"


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


def compress(task: Task, recipe: Recipe, folder: str | Path | None = None, *, stage: Stage | None = None) -> Artifact:
    """Apply `recipe` to the task's model and lower it into `folder` (by default in the cache).

    A folder that already holds this very artifact is opened, not built again. Raises what `check` raises, and
    `ResourceError` where disk or permission is missing.
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
        manifest = _build(task, recipe, partial, stage or (lambda name: None))
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


def draft(task: Task, recipe: Recipe) -> Draft:
    """The task's model with the recipe's techniques applied, not yet lowered."""
    start = task.draft()
    start.kept = resolve_keep(recipe.keep, start.facts.layers)
    for step in recipe.steps:
        start = step.apply(start)
    return start


def _build(task: Task, recipe: Recipe, folder: Path, stage: Stage) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    stage("compress")
    drafted = draft(task, recipe)
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
