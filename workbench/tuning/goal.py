"""What is wanted: how much accuracy may be lost, what to minimise, how sure to be, and how long to look."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

from workbench.errors import UserError
from workbench.measure.estimate import Z
from workbench.measure.measurement import Measurement
from workbench.quick import SWEEP_MINUTES, TRIALS, at_most

MINIMISE = ("latency", "latency_p90", "size", "memory", "throughput")

#: Rounding of a drop that is exactly what is allowed must not decide.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Verdict:
    """Whether a goal's drop is kept, beyond the doubt of the examples: `word`, and a sentence for a person."""

    word: Literal["passes", "fails", "unsure"]
    text: str


@dataclass(frozen=True)
class Goal:
    """`max_drop` is a share of the baseline's score (0.01 = 1 % of it), or points of the metric with `absolute`.

    A drop is positive where the model got worse, whether the metric is better when higher or when lower. `minimise` is
    the p50 or the p90 of the latency relative to the baseline's, the size on disk, the peak memory, or the negative
    `throughput`. `front` wants the whole front of drop and cost up to `max_drop`, not its fastest point alone.
    `trials` and `minutes` bound the sweep; None is no bound. `evidence` is how sure it must be that the drop is
    allowed: 0.5 takes the estimate as it is, 0.975 wants the whole paired 95 % interval below.
    """

    max_drop: float = 0.01
    absolute: bool = False
    minimise: str = "latency"
    trials: int | None = 20
    minutes: float | None = None
    evidence: float = 0.5
    front: bool = False

    def __post_init__(self) -> None:
        if self.minimise not in MINIMISE:
            raise UserError(f"minimise = {self.minimise!r} is not possible.", allowed=" | ".join(MINIMISE))
        # Points of a perplexity may be more than one; a share of the score may not.
        if not 0 <= self.max_drop < math.inf or (self.max_drop > 1 and not self.absolute):
            raise UserError(
                f"max_drop = {self.max_drop!r} is not possible.",
                allowed="a share from 0 to 1, such as 0.01; with `absolute`, points of the metric from 0 up",
            )
        if not 0.5 <= self.evidence < 1:
            raise UserError(
                f"evidence = {self.evidence!r} is not possible.",
                allowed="from 0.5 (the estimate as it is) to below 1, such as 0.975 (the whole 95 % interval)",
            )
        for name in ("trials", "minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(
                    f"A budget of {value} {name} is no budget.", allowed="a positive number, such as 20 or 15min"
                )

    def allowed_drop(self, baseline: float) -> float:
        """The largest drop, in points of the metric, that still meets the goal; 0 for a share of a score of 0."""
        return self.max_drop if self.absolute else self.max_drop * abs(baseline)

    def caution(self, baseline: float) -> str:
        """What a reader should know of this goal with this baseline score ('' for nothing)."""
        if not self.absolute and baseline == 0 and self.max_drop > 0:
            return (
                "The uncompressed model scores 0, and a share of 0 is 0: no drop at all is allowed. "
                "State the allowed drop in points (absolute) instead."
            )
        return ""

    def met(self, measurement: Measurement, baseline: float) -> bool:
        """Whether the measured drop is within what is allowed, as surely as `evidence` wants."""
        return self.bound(measurement) <= self.allowed_drop(baseline) + _ROUNDING

    def missing(self, measurement: Measurement, baseline: float) -> float:
        """By how many points of the metric the goal is missed; 0 where it is met."""
        return 0.0 if self.met(measurement, baseline) else self.bound(measurement) - self.allowed_drop(baseline)

    def bound(self, measurement: Measurement) -> float:
        """The drop that must be allowed: the estimate, moved towards its interval's upper end by `evidence`."""
        drop = measurement.drop
        if drop is None:
            return 0.0
        if self.evidence == 0.5 or not math.isfinite(drop.value):
            return drop.value
        return drop.value + (drop.high - drop.value) * NormalDist().inv_cdf(self.evidence) / Z

    def sure(self, measurement: Measurement, baseline: float) -> Verdict:
        """Whether the paired 95 % interval of the drop lies wholly on one side of what is allowed, and else how many
        examples would tell."""
        allowed, drop = self.allowed_drop(baseline), measurement.drop
        if drop is None:
            return Verdict("passes", "It is the model that all others are compared with.")
        if not all(map(math.isfinite, (drop.value, drop.low, drop.high))):
            return Verdict("fails", "Its drop is not known.")
        if drop.high <= allowed + _ROUNDING:
            return Verdict("passes", "The whole interval of the drop is within what is allowed.")
        if drop.low > allowed + _ROUNDING:
            return Verdict("fails", "The whole interval of the drop is beyond what is allowed.")
        away = abs(allowed - drop.value)
        if away < drop.half_width / 100:
            return Verdict("unsure", "too few examples to tell: it lies on the very edge of what is allowed")
        # The interval shrinks with the square root of the number of examples.
        needed = drop.n * (drop.half_width / away) ** 2
        return Verdict("unsure", f"too few examples to tell: needs about {_rounded(max(needed, drop.n + 1)):,}")

    def cost(self, measurement: Measurement) -> float:
        """What is minimised: p50 or p90 relative to the baseline's, MB on disk, MB of peak memory, or -examples/s.

        Infinite where it was not measured.
        """
        if self.minimise == "latency":
            speedup = measurement.speedup
            if speedup is None:
                return 1.0
            return 1 / speedup.value if math.isfinite(speedup.value) and speedup.value > 0 else math.inf
        if self.minimise == "latency_p90":
            mine, other = (d.get("p90") for d in (measurement.latency_ms, measurement.baseline_latency_ms))
            return mine / other if mine and other else math.inf
        if self.minimise == "throughput":
            return math.inf if measurement.throughput is None else -measurement.throughput
        value = measurement.size_mb if self.minimise == "size" else measurement.peak_mb
        return math.inf if value is None else value

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def _rounded(number: float) -> int:
    """Two leading digits are all that such an extrapolation is worth."""
    digits = max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / 10**digits) * 10**digits


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


def affordable(goal: Goal) -> Goal:
    """The goal, with a small budget where `WORKBENCH_QUICK` asks for one."""
    return replace(goal, trials=at_most(goal.trials, TRIALS), minutes=at_most(goal.minutes, SWEEP_MINUTES))
