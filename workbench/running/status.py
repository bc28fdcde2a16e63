"""What a study is doing, as the store and the living runners tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.running.owner import Owner


@dataclass(frozen=True)
class Status:
    """What is happening: `state` is idle, running, stopping, interrupted (the runner died) or failed.

    `trial`, `title`, `stage` and `progress` (0 … 1) are of the running trial; `done` counts this sweep's finished
    trials, `planned` the most it may run; `seconds` since it began, or, once it ended, those of its
    trials and questions; `best` is the trial that meets the goal best.
    """

    state: str
    message: str = ""
    trial: int | None = None
    title: str = ""
    stage: str = ""
    progress: float = 0.0
    done: int = 0
    planned: int | None = None
    seconds: float = 0.0
    best: int | None = None


def state_of(known: dict[str, Any] | None, runners: list[Owner], attributes: dict[str, Any]) -> tuple[str, str]:
    """The state of a study and a message, from its latest sweep, its living runners and its attributes."""
    if runners:
        if known and attributes.get("stop") == known["id"]:
            return "stopping", ""
        if known and attributes.get("pause") == known["id"]:
            return "stopping", "paused as soon as the running trial is done"
        return "running", ""
    if known and known["state"] == "running":
        return "interrupted", "the runner is gone; resume goes on where it stood"
    if known and known["state"] == "failed":
        return "failed", known["message"]
    return "idle", known["message"] if known else ""
