"""A knob that is left open for a search: one of some values, or any value of a range.

Left out: what a value means; the knob's own declaration checks each of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from workbench.errors import UserError


@dataclass(frozen=True, init=False)
class Choice:
    """A knob that is open: one of these values."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", tuple(values))
        if not values:
            raise UserError("An empty Choice.", allowed="at least one value")

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.values))})"


@dataclass(frozen=True, repr=False)
class Range:
    """A knob that is open: any value from `low` to `high`; a grid takes `points` of them."""

    low: float
    high: float
    points: int = 3
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or self.points < 2 or (self.log and self.low <= 0):
            raise UserError(f"{self!r} is no range.", allowed="low < high, at least 2 points, and low > 0 with log")

    def grid(self) -> tuple[float, ...]:
        """`points` values from low to high, evenly spaced (in the logarithm with `log`)."""
        shares = [i / (self.points - 1) for i in range(self.points)]
        return tuple(self.at(share) for share in shares)

    def at(self, share: float) -> float:
        """The value at `share` (0 … 1) of the way; rounding never leads out of the range."""
        if self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return min(max(value, self.low), self.high)

    def __repr__(self) -> str:
        rest = (f", points={self.points}" if self.points != 3 else "") + (", log=True" if self.log else "")
        return f"Range({self.low!r}, {self.high!r}{rest})"


def draw(dimension: Choice | Range, rng: random.Random) -> Any:
    """One value of a dimension at random."""
    if isinstance(dimension, Choice):
        return rng.choice(dimension.values)
    return dimension.at(rng.random())
