"""A trial: one recipe and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from workbench.errors import TrialError
from workbench.measure.measurement import Measurement
from workbench.recipe import Recipe

State = Literal["waiting", "running", "complete", "failed", "stopped", "refused"]


@dataclass(frozen=True)
class Trial:
    """Number, recipe, measurement *or* error, seconds.

    `report` is the measurement on the report split (front members only). `error` is for a person; `details` is the
    traceback or log behind it. `stage` and `progress` tell where a running trial is (0 … 1). `filed_under` is the id
    that the recipe had when the trial was made: a later version, with more knobs, gives the same recipe another one.
    """

    number: int
    recipe: Recipe
    state: State
    measurement: Measurement | None = None
    report: Measurement | None = None
    error: str = ""
    details: str = ""
    seconds: float = 0.0
    stage: str = ""
    progress: float = 0.0
    meta: dict[str, Any] = field(default_factory=dict)
    filed_under: str = ""

    @property
    def folder(self) -> str:
        """Name of its model's folder among the study's artifacts."""
        return self.filed_under or self.recipe.id

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("complete", "failed", "refused")


def no_model(trial: Trial, folder: Path) -> TrialError:
    """Why there is no model of a trial in `folder`."""
    if trial.measurement is None:
        reason = trial.error or trial.state
        return TrialError(f"Trial {trial.number} left no model: {reason}.", do="choose a complete trial")
    return TrialError(
        f"The model of trial {trial.number} is gone: there is no {folder}.",
        do=f"build it again: workbench.compress.compress(study.task, study.trials[{trial.number}].recipe, folder)",
    )
