"""What a sweep is, as it stands in the store: a space, a strategy, a goal, limits, and how far it is."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from workbench.recipe import Space, plugin
from workbench.tuning.goal import Goal
from workbench.tuning.strategies.base import Strategy

SweepState = Literal["running", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Sweep:
    """One order to search. `trial_seconds` is the time limit of one trial, `timing_seconds` what it may spend on
    timing alone."""

    space: dict[str, Any]
    strategy: dict[str, Any]
    goal: dict[str, Any]
    trial_seconds: float = 1800.0
    timing_seconds: float = 6.0
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    state: SweepState = "running"
    message: str = ""
    created: float = field(default_factory=time.time)

    @classmethod
    def new(cls, space: Space, strategy: Strategy, goal: Goal, **limits: float) -> Self:
        """A sweep about to run."""
        return cls(space.to_json(), strategy.to_json(), goal.to_json(), **limits)  # type: ignore[arg-type]

    def open_space(self) -> Space:
        """The space as an object."""
        return Space.from_json(self.space)

    def open_strategy(self) -> Strategy:
        """The strategy as an object."""
        strategy: Strategy = plugin("strategies", **self.strategy)
        return strategy

    def open_goal(self) -> Goal:
        """The goal as an object."""
        return Goal(**self.goal)

    def now(self, state: SweepState, message: str = "") -> Self:
        """The same sweep in another state."""
        return replace(self, state=state, message=message)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The sweep that `to_json` wrote."""
        return cls(**data)
