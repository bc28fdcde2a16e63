"""Why a trial or a study could not be measured, in words for a person."""

from __future__ import annotations

import signal

from workbench.draft import ModelFacts
from workbench.errors import UserError


class BaselineFailed(UserError):
    """The uncompressed model itself could not be measured, so nothing can be compared with it."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The uncompressed model could not be measured: {reason}", do="mend that first; see the study's logs folder"
        )


class TrialFailed(Exception):
    """A trial ended without a measurement: `reason` for a person, `details` as the process printed them."""

    def __init__(self, reason: str, details: str) -> None:
        super().__init__(reason)
        self.reason, self.details = reason, details


class Described:
    """A task's facts, without the task: enough to refuse a recipe before any work."""

    def __init__(self, facts: ModelFacts | None) -> None:
        self._facts = facts

    def facts(self) -> ModelFacts | None:
        return self._facts


def crash_reason(code: int) -> str:
    """What an exit code of a trial's process says; negative is a signal."""
    if code == -signal.SIGKILL:
        return "the trial's process was killed twice from outside (signal 9): most often the system ran out of memory"
    if code < 0:
        return f"the trial's process crashed ({signal.Signals(-code).name}); see details for what it printed last"
    return f"the trial's process ended with exit code {code}; see details for what it printed last"
