"""A trial: one recipe and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from workbench.measure.measurement import Measurement
from workbench.recipe import Recipe

State = Literal["waiting", "running", "complete", "failed", "stopped", "refused"]


@dataclass(frozen=True)
class Trial:
    """Number, recipe, measurement *or* error, seconds.

    `report` is the measurement on the report split (front members only). `error` is for a person; `details` is the
    traceback or log behind it. `stage` and `progress` tell where a running trial is (0 … 1).
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

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("complete", "failed", "refused")
