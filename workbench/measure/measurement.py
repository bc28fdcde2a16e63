"""All that was measured of one compressed model, as one frozen record that survives JSON unchanged.

What a stage did not measure is None or empty, never a guess. The record holds plain data and estimates only, so that
a store written on one machine can be read on another. Left out: how to measure; `timing`, `accuracy`, `footprint`
and `layers` do that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from workbench.errors import StoreError
from workbench.measure.accuracy import Answers, drop, flips
from workbench.measure.estimate import Estimate
from workbench.measure.outcomes import Outcomes
from workbench.measure.windows import Windows

#: Version of the JSON form; raised when a reader of the old form would misread the new one.
FORMAT = 1

_ESTIMATES = ("accuracy", "drop", "speedup", "speedup_real", "noise")


@dataclass(frozen=True)
class Measurement:
    """One model on one machine: how good, how fast, how large, and under which conditions.

    `accuracy` is the score in `metric` on `split`; `drop` is against the baseline on the same examples (positive is
    worse), with `flips_lost` and `flips_gained`. `latency_ms` and `baseline_latency_ms` hold `p50`, `p90`, `p99` of
    single calls at a fixed length, `latency_real_ms` over the data's own lengths; `speedup` and `speedup_real` are
    paired ratios to the baseline; `noise` is the A/A band. `throughput` is in examples/s; sizes are in MB (10^6
    bytes), `compressed_mb` after deflate, `peak_mb` the peak resident memory of the trial's process. `macs` are for
    one example at the conditions' length. `in_effect` is read from the lowered model. `seconds` is by stage.
    """

    accuracy: Estimate
    metric: str
    split: str = ""
    drop: Estimate | None = None
    correct: int | None = None
    flips_lost: int | None = None
    flips_gained: int | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    baseline_latency_ms: dict[str, float] = field(default_factory=dict)
    speedup: Estimate | None = None
    latency_real_ms: dict[str, float] = field(default_factory=dict)
    speedup_real: Estimate | None = None
    noise: Estimate | None = None
    throughput: float | None = None
    size_mb: float | None = None
    compressed_mb: float | None = None
    peak_mb: float | None = None
    parameters: int | None = None
    nonzero_parameters: int | None = None
    macs: int | None = None
    in_effect: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    outcomes: Answers | None = None

    def against(self, baseline: Measurement) -> Measurement:
        """A copy with the drop and the flips against `baseline`, from the outcomes of both.

        Raises `DataError` where they are not of the same examples. Without outcomes nothing is claimed.
        """
        if self.outcomes is None or baseline.outcomes is None:
            return replace(self, drop=None, flips_lost=None, flips_gained=None)
        lost, gained = flips(baseline.outcomes, self.outcomes)
        worse = drop(baseline.outcomes, self.outcomes, self.metric)
        return replace(self, drop=worse, flips_lost=lost, flips_gained=gained)

    def to_json(self, *, outcomes: bool = True) -> dict[str, Any]:
        """Plain data with its `format`; without the bulky `outcomes` where they are not wanted."""
        data: dict[str, Any] = {"format": FORMAT}
        for item in fields(self):
            value = getattr(self, item.name)
            data[item.name] = value.to_json() if isinstance(value, Estimate | Outcomes | Windows) else _plain(value)
        if not outcomes:
            data["outcomes"] = None
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The measurement that `to_json` wrote; raises `StoreError` for another format or other fields."""
        if not isinstance(data, dict) or not isinstance(data.get("format"), int):
            raise StoreError("This is not a stored measurement: it has no format number.")
        if data["format"] != FORMAT:
            age = "a newer" if data["format"] > FORMAT else "an older"
            raise StoreError(
                f"A measurement was written in format {data['format']} by {age} version of the workbench.",
                allowed=f"format {FORMAT}",
                do="open the study with the version that wrote it, or start a new study",
            )
        known, given = {item.name for item in fields(cls)}, set(data) - {"format"}
        if known != given:
            raise StoreError(
                f"A stored measurement is damaged: missing {sorted(known - given)}, unknown {sorted(given - known)}.",
                do="delete that trial and measure it again",
            )
        values = {name: data[name] for name in known}
        for name in _ESTIMATES:
            values[name] = None if values[name] is None else Estimate.from_json(values[name])
        if values["outcomes"] is not None:
            kind = Windows if values["outcomes"].get("kind") == "windows" else Outcomes
            values["outcomes"] = kind.from_json(values["outcomes"])
        return cls(**values)


def _plain(value: Any) -> Any:
    """`value` as JSON will give it back: string keys, lists for tuples, Python's own numbers, no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if hasattr(value, "item"):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"a measurement holds plain data only, not {type(value).__name__}")
