"""Everything smaller, to see that it runs and not what it gives: for people in a hurry and for automatic checks.

`WORKBENCH_QUICK=1` in the environment measures on few examples, trains for seconds, looks at few examples and ends a
sweep after a few trials. Tasks say so in their notes, so that nobody takes such numbers for results; and as their
examples are others, nothing that is measured or cached in a hurry is mixed with what was not.
"""

from __future__ import annotations

import os
from typing import overload

#: Examples of a split that are measured, and that techniques may calibrate on, train on and scan with.
MEASURED, CALIBRATED, TRAINED, SCANNED = 200, 32, 1024, 32
#: Minutes and steps of a training.
MINUTES, STEPS = 0.15, 100
#: Trials and minutes of a sweep, and seconds of timing for a trial.
TRIALS, SWEEP_MINUTES, TIMING_SECONDS = 4, 1.0, 1.0

NOTE = (
    f"WORKBENCH_QUICK is set: {MEASURED} examples, trainings of seconds, few trials. It shows that things run; "
    "the numbers are no results."
)


def in_a_hurry() -> bool:
    """Whether `WORKBENCH_QUICK` asks for everything smaller (unset, empty and `0` do not)."""
    return os.environ.get("WORKBENCH_QUICK", "0") not in ("", "0")


@overload
def at_most(value: int, few: int) -> int: ...
@overload
def at_most(value: float, few: float) -> float: ...
@overload
def at_most(value: int | None, few: int) -> int | None: ...
@overload
def at_most(value: float | None, few: float) -> float | None: ...
def at_most(value: float | None, few: float) -> float | None:
    """`value`, or `few` where that is less and time is short; None is without end."""
    if not in_a_hurry():
        return value
    return few if value is None else min(value, few)
