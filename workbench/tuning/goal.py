"""What is wanted: how much accuracy may be lost, what to minimise, and how long to look."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from workbench.errors import UserError
from workbench.measure.measurement import Measurement

MINIMISE = ("latency", "size", "memory")


@dataclass(frozen=True)
class Goal:
    """`max_drop` is a share of the baseline's score (0.01 = 1 % of it), or points of the metric with `absolute`.

    `trials` and `minutes` bound the sweep; None is no bound.
    """

    max_drop: float = 0.01
    absolute: bool = False
    minimise: str = "latency"
    trials: int | None = 20
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.minimise not in MINIMISE:
            raise UserError(f"minimise = {self.minimise!r} is not possible.", allowed=" | ".join(MINIMISE))
        if not 0 <= self.max_drop <= 1:
            raise UserError(
                f"max_drop = {self.max_drop!r} is not possible.", allowed="a share from 0 to 1, such as 0.01"
            )
        for name in ("trials", "minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(
                    f"A budget of {value} {name} is no budget.", allowed="a positive number, such as 20 or 15min"
                )

    def allowed_drop(self, baseline: float) -> float:
        """The largest drop, in points of the metric, that still meets the goal."""
        return self.max_drop if self.absolute else self.max_drop * abs(baseline)

    def met(self, measurement: Measurement, baseline: float) -> bool:
        """Whether the measured drop is within what is allowed (the point estimate; see its interval for the doubt)."""
        drop = measurement.drop.value if measurement.drop else 0.0
        return drop <= self.allowed_drop(baseline) + 1e-12

    def cost(self, measurement: Measurement) -> float:
        """What is minimised: p50 relative to the baseline's, MB on disk, or MB of peak memory."""
        if self.minimise == "latency":
            return 1 / measurement.speedup.value if measurement.speedup else 1.0
        value = measurement.size_mb if self.minimise == "size" else measurement.peak_mb
        return float("inf") if value is None else value

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def parse_budget(text: str) -> tuple[int | None, float | None]:
    """(trials, minutes) from `20`, `20 trials`, `15min`, `90s` or `2h`; raises `UserError`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(trials?|s|sec|m|min|minutes?|h|hours?)?\s*", text)
    if match:
        number, unit = float(match[1]), match[2] or "trials"
        if unit.startswith("trial") and number == int(number) and number > 0:
            return int(number), None
        minutes = number * {"s": 1 / 60, "m": 1.0, "h": 60.0}.get(unit[0], 0)
        if minutes > 0:
            return None, minutes
    raise UserError(
        f"The budget {text!r} is not understood.", allowed="a number of trials (20) or a time (90s, 15min, 2h)"
    )
