"""A measurement survives JSON unchanged, and what is damaged or foreign is refused."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from workbench.errors import DataError, StoreError
from workbench.measure.accuracy import score_of
from workbench.measure.estimate import Estimate
from workbench.measure.measurement import FORMAT, Measurement
from workbench.measure.outcomes import Outcomes


def outcomes(right: int, n: int = 20) -> Outcomes:
    return Outcomes((np.arange(n) < right).astype(int), np.ones(n, dtype=int), np.full(n, 0.75))


def full() -> Measurement:
    """A measurement with every field set to something that differs from its default."""
    seen = outcomes(17)
    percentiles = {"p50": 4.5, "p90": 5.0, "p99": 6.25}
    return Measurement(
        accuracy=score_of("accuracy", seen),
        metric="accuracy",
        split="select",
        drop=Estimate(0.05, -0.1, 0.2, 20, "fraction"),
        correct=17,
        flips_lost=2,
        flips_gained=1,
        latency_ms=percentiles,
        baseline_latency_ms=percentiles,
        speedup=Estimate(2.93, 2.88, 2.99, 30, "×"),
        latency_real_ms=percentiles,
        speedup_real=Estimate(2.5, 2.4, 2.6, 30, "×"),
        noise=Estimate(1.0, 0.98, 1.02, 30, "×"),
        throughput=222.0,
        size_mb=22.5,
        compressed_mb=17.25,
        peak_mb=512.0,
        parameters=22_713_986,
        nonzero_parameters=22_713_000,
        macs=1_400_000_000,
        in_effect={"precision": {"int8": 0.97, "fp32": 0.03}, "nodes": {"MatMul": 36}},
        machine={"cpu": "made up", "flags": ["avx2"]},
        conditions={"batch": 1, "sequence": 128, "padding": "fixed", "threads": 2, "load": [0.1, 0.2]},
        seconds={"lower": 1.5, "time": 20.0},
        outcomes=seen,
    )


def test_json_round_trip_of_every_field() -> None:
    made = full()
    for item in dataclasses.fields(made):
        if item.default is not dataclasses.MISSING:
            assert getattr(made, item.name) != item.default, f"{item.name} is not tried"
        elif item.default_factory is not dataclasses.MISSING:
            assert getattr(made, item.name) != item.default_factory(), f"{item.name} is not tried"
    data = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert data["format"] == FORMAT
    assert Measurement.from_json(data) == made


def test_json_round_trip_of_the_least() -> None:
    made = Measurement(score_of("accuracy", outcomes(3)), "accuracy")
    assert Measurement.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False))) == made


def test_without_outcomes() -> None:
    data = full().to_json(outcomes=False)
    assert data["outcomes"] is None
    assert Measurement.from_json(data) == dataclasses.replace(full(), outcomes=None)


def test_numpy_numbers_and_nan_become_plain() -> None:
    made = dataclasses.replace(
        full(), throughput=math.nan, size_mb=np.float32(1.5), in_effect={"n": np.int64(3), "x": (np.float64(np.inf),)}
    )
    data = made.to_json()
    assert (data["throughput"], data["size_mb"], data["in_effect"]) == (None, 1.5, {"n": 3, "x": [None]})
    json.dumps(data, allow_nan=False)


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="plain data only, not object"):
        dataclasses.replace(full(), machine={"a": object()}).to_json()


@pytest.mark.parametrize(("version", "age"), [(FORMAT + 1, "newer"), (FORMAT - 1, "older")])
def test_another_format(version: int, age: str) -> None:
    with pytest.raises(StoreError, match=f"by an? {age} version"):
        Measurement.from_json(full().to_json() | {"format": version})


def test_damaged() -> None:
    data = full().to_json()
    with pytest.raises(StoreError, match=r"missing \[\], unknown \['flops'\]"):
        Measurement.from_json(data | {"flops": 1})
    del data["macs"]
    with pytest.raises(StoreError, match=r"missing \['macs'\], unknown \['flops'\]"):
        Measurement.from_json(data | {"flops": 1})
    for junk in ({}, [], {"format": "1"}, None):
        with pytest.raises(StoreError, match="no format number"):
            Measurement.from_json(junk)  # type: ignore[arg-type]


def test_against_a_baseline() -> None:
    baseline, candidate = (
        Measurement(score_of("accuracy", o), "accuracy", outcomes=o) for o in (outcomes(18), outcomes(15))
    )
    compared = candidate.against(baseline)
    assert (compared.flips_lost, compared.flips_gained) == (3, 0)
    assert compared.drop is not None
    assert compared.drop.value == pytest.approx(3 / 20)
    assert baseline.against(candidate).flips_gained == 3
    silent = dataclasses.replace(compared, outcomes=None).against(baseline)
    assert (silent.drop, silent.flips_lost, silent.flips_gained) == (None, None, None)
    with pytest.raises(DataError, match="not of the same examples"):
        candidate.against(Measurement(score_of("accuracy", outcomes(3, 9)), "accuracy", outcomes=outcomes(3, 9)))
