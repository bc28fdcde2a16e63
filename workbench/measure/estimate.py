"""A number that says how sure it is: value, 95 % interval, samples, unit.

Proportions use Wilson's score interval (Wilson 1927), everything else the percentile bootstrap (Efron 1979). Scores
and drops are fractions (unit "fraction"), speed-ups are ratios (unit "×"), times are in "ms"; `in_points` gives a
fraction as percentage points.
Left out: other confidence levels, one-sided intervals, BCa.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from workbench.errors import DataError

#: The 97.5 % point of the standard normal: all intervals are two-sided at 95 %.
Z = 1.959963984540054

#: Cells of one (resamples × samples) block of drawn indices: bounds the bootstrap's memory to some 32 MB.
_CHUNK = 4_000_000

#: A statistic reduces the last axis of an array: (…, n) -> (…).
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """`value` with its 95 % interval `low` … `high` from `n` samples, in `unit` ("" where there is none).

    A number that could not be determined is NaN here and `None` in JSON. `exact` numbers have low = value = high.
    """

    value: float
    low: float
    high: float
    n: int
    unit: str = ""

    @property
    def half_width(self) -> float:
        """Half the length of the interval, in `unit`."""
        return (self.high - self.low) / 2

    def in_points(self) -> Estimate:
        """A fraction as percentage points: 0.0046 -> 0.46 pt; other units raise `ValueError`."""
        if self.unit != "fraction":
            raise ValueError(f"only a fraction has percentage points, not {self.unit!r}")
        return scaled(self, 100, "pt")

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN and infinities, which JSON has not, become `None`."""
        return {key: finite(item) if isinstance(item, float) else item for key, item in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The estimate that `to_json` wrote; `None` becomes NaN."""
        value, low, high = (math.nan if data[key] is None else float(data[key]) for key in ("value", "low", "high"))
        return cls(value, low, high, int(data["n"]), str(data["unit"]))

    def __str__(self) -> str:
        """As people write it: `4.41 ± 0.05 ms`, `2.93× [2.88, 2.99]`, `0.46 pt [−0.23, 1.14]`, `−0.46 pt`."""
        if not math.isfinite(self.value):
            return "unknown"
        places = self._places()
        value, low, high = (_number(number, places) for number in (self.value, self.low, self.high))
        unit = {"fraction": "", "×": "×", "": ""}.get(self.unit, f" {self.unit}")
        if low == high or not (math.isfinite(self.low) and math.isfinite(self.high)):
            return value + unit
        # "±" is kept for a plain amount, whose interval is symmetric to the digits shown.
        below, above = (_number(abs(side - self.value), places) for side in (self.low, self.high))
        if below == above and unit.strip() and self.unit not in ("×", "pt"):
            return f"{value} ± {above}{unit}"
        return f"{value}{unit} [{low}, {high}]"

    def _places(self) -> int:
        """Decimals that show three digits of the value and the first digit of the interval's half-width."""
        half = self.half_width if math.isfinite(self.half_width) else 0.0
        digits = 2 - _magnitude(max(abs(self.value), half))
        digits = min(digits, 2 if self.unit in ("×", "pt", "%") else 4)
        return max(0, digits, min(-_magnitude(half), 6) if half > 0 else 0)


def finite(number: float | None) -> float | None:
    """`number`, or None where it is not finite (JSON knows no NaN)."""
    return number if number is not None and math.isfinite(number) else None


def exact(value: float, unit: str = "") -> Estimate:
    """A number without doubt, such as a size on disk."""
    return Estimate(float(value), float(value), float(value), 1, unit)


def proportion(successes: int, n: int, unit: str = "fraction") -> Estimate:
    """`successes` of `n` with Wilson's score interval; raises `DataError` unless 0 ≤ successes ≤ n and n > 0.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    if not 0 <= successes <= n or n == 0:
        raise DataError(f"{successes} of {n} is no proportion.", allowed="0 ≤ successes ≤ n and n ≥ 1")
    share = successes / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    # At 0 and n the score interval touches its end exactly; rounding must not move it past the value.
    return Estimate(share, min(max(0.0, centre - half), share), max(min(1.0, centre + half), share), n, unit)


def bootstrap(
    values: Sequence[float] | np.ndarray,
    statistic: Statistic,
    *,
    unit: str = "",
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """`statistic` of `values` (n,) with a percentile bootstrap interval, the same for the same `seed`.

    `statistic` reduces the last axis, such as `lambda a: np.median(a, axis=-1)`. Raises `DataError` for no values.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise DataError(f"A bootstrap needs a list of at least one number, not an array of shape {data.shape}.")
    random = np.random.default_rng(seed)
    rows = max(1, _CHUNK // data.size)
    drawn = []
    for done in range(0, resamples, rows):
        index = random.integers(0, data.size, size=(min(rows, resamples - done), data.size))
        drawn.append(np.asarray(statistic(data[index])))
    return with_percentiles(float(statistic(data)), np.concatenate(drawn), data.size, unit)


def with_percentiles(value: float, drawn: np.ndarray, n: int, unit: str = "") -> Estimate:
    """`value` with the 2.5 % and 97.5 % quantiles of `drawn`, its bootstrap distribution, shape (resamples,)."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(value, float(low), float(high), n, unit)


def scaled(estimate: Estimate, factor: float, unit: str | None = None) -> Estimate:
    """`estimate` times a number without doubt, in a new `unit`; a negative factor turns the interval round."""
    low, high = sorted((estimate.low * factor, estimate.high * factor))
    named = estimate.unit if unit is None else unit
    return replace(estimate, value=estimate.value * factor, low=low, high=high, unit=named)


def _magnitude(number: float) -> int:
    """The power of ten of the first digit: 0.05 -> -2, 4.4 -> 0, 123 -> 2."""
    return math.floor(math.log10(abs(number))) if number else 0


def _number(number: float, places: int) -> str:
    """`number` with a true minus sign, and no minus before a zero."""
    text = f"{number:.{places}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", "−")
