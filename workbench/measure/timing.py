"""Paired latency: two callables timed alternately in one process, so that a drifting machine cancels out.

A *block* times candidate and baseline over the same inputs in the order ABBA, and every second block BAAB; its ratio
is free of any drift that is linear over the block. The speed-up is the median of the blocks' ratios, its interval a
bootstrap over whole blocks. The first call after a change of sides is not counted: it pays for caches
that the other side filled and for threads of the other side that still spin.

The order is that of metrologists' weighings; "duet benchmarking" (Bulej et al., ICPE 2020) is the same thought for
servers. Left out: wall time of several streams at once, energy, GPU events (the callable must wait for its device).
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from workbench.errors import TrialError, UserError
from workbench.measure.estimate import Estimate, bootstrap
from workbench.measure.machine import load_average

#: One batch of model inputs: input name -> array of shape (batch, …).
Inputs = Mapping[str, np.ndarray]
#: What is timed: takes one batch, or nothing where no inputs are given.
Call = Callable[..., Any]

#: Times the budget after which the least number of blocks is no longer insisted on, and the fewest that do then.
_LATE, _FEWEST = 3, 6


@dataclass(frozen=True)
class Timing:
    """What `paired` found.

    `speedup` (×) is baseline time over candidate time. `latency_ms` and `baseline_latency_ms` hold p50, p90 and p99
    of single calls; `throughput` is the candidate's, in examples/s. `ratios` are the blocks' own speed-ups, `calls`
    the counted calls of each side, `batch` the mean number of examples a call, `seconds` the time it all took,
    warm-up included, `load` the load average before and after (None where the system has none), and `stopped`
    why it ended: `narrow`, `budget`, `late` (far over it) or `blocks`.
    """

    speedup: Estimate
    latency_ms: dict[str, float]
    baseline_latency_ms: dict[str, float]
    throughput: float
    baseline_throughput: float
    ratios: tuple[float, ...]
    calls: int
    batch: float
    warmup: int
    seconds: float
    load: tuple[float | None, float | None]
    stopped: str

    @property
    def blocks(self) -> int:
        """The number of blocks timed."""
        return len(self.ratios)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {**asdict(self), "speedup": self.speedup.to_json()}
        return {**plain, "ratios": list(self.ratios), "load": list(self.load), "blocks": self.blocks}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The timing that `to_json` wrote."""
        values = {key: value for key, value in data.items() if key != "blocks"}
        values |= {"speedup": Estimate.from_json(data["speedup"])}
        return cls(**{**values, "ratios": tuple(data["ratios"]), "load": tuple(data["load"])})


@dataclass(frozen=True)
class Schedule:
    """How long to time: until the interval's half-width is below `narrow` times the speed-up, `seconds` are spent
    (warm-up not counted) or `max_blocks` are done, but at least `min_blocks`.

    `calls` counted calls make a visit of one side, four visits a block; slow models get shorter visits, so that the
    least number of blocks fits into the time. Where even that takes three times the budget, six blocks must do: the
    fewest whose range holds the median with 95 %. `warmup` calls of each side come first. `seed` is the bootstrap's.
    """

    calls: int = 4
    warmup: int = 5
    min_blocks: int = 12
    max_blocks: int = 200
    seconds: float = 20.0
    narrow: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        sound = self.calls >= 1 and self.warmup >= 0 and 2 <= self.min_blocks <= self.max_blocks
        if not (sound and self.seconds > 0 and self.narrow >= 0):
            raise UserError(
                f"{self} cannot be carried out.",
                allowed="calls ≥ 1, warmup ≥ 0, 2 ≤ min_blocks ≤ max_blocks, seconds > 0, narrow ≥ 0",
            )


def paired(
    candidate: Call,
    baseline: Call,
    inputs: Sequence[Inputs] | None = None,
    *,
    schedule: Schedule = Schedule(),
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time `candidate` against `baseline` on identical `inputs`, a batch a call, taken in turn.

    Without inputs both are called without arguments, an example a call. `clock` gives seconds. Raises `UserError` for
    an empty list of inputs, `TrialError` where the clock does not advance; errors of the callables pass through.
    """
    if inputs is not None and not len(inputs):
        raise UserError("There is nothing to time: the list of inputs is empty.", allowed="at least one batch")
    batches: list[tuple] = [()] if inputs is None else [(batch,) for batch in inputs]
    before, begun = load_average(), clock()
    with _no_collection():
        warmup = _warm_up((candidate, baseline), batches, schedule.warmup)
        times, counted, stopped = _blocks(candidate, baseline, batches, schedule, clock)
    mine, theirs = (np.array(side) for side in times)
    examples = sum(_examples(batch) for batch in counted)
    ratios = _ratios(mine, theirs)
    return Timing(
        speedup=_speedup(ratios, schedule.seed),
        latency_ms=percentiles(mine.ravel()),
        baseline_latency_ms=percentiles(theirs.ravel()),
        throughput=examples / float(mine.sum()),
        baseline_throughput=examples / float(theirs.sum()),
        ratios=tuple(float(ratio) for ratio in ratios),
        calls=mine.size,
        batch=examples / mine.size,
        warmup=warmup,
        seconds=clock() - begun,
        load=(before, load_average()),
        stopped=stopped,
    )


def noise_band(
    baseline: Call,
    inputs: Sequence[Inputs] | None = None,
    *,
    schedule: Schedule = Schedule(),
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """The A/A run: the speed-up of `baseline` against itself, as a band about 1.

    `low` and `high` reach as far to either side of 1 as the A/A interval does at its farthest, so that what the
    machine invents in one direction is expected in the other too. `value` is the A/A speed-up itself.
    """
    return band(paired(baseline, baseline, inputs, schedule=schedule, clock=clock).speedup)


def band(same: Estimate) -> Estimate:
    """The noise band of an A/A speed-up: its interval made symmetric about 1 (as ratios are: 1/r … r)."""
    reach = max(same.high, 1 / same.low, 1.0)
    return Estimate(same.value, 1 / reach, reach, same.n, same.unit)


def no_difference(speedup: Estimate, noise: Estimate) -> bool:
    """Whether the speed-up cannot be told from the noise: its interval reaches into the A/A band."""
    return speedup.low <= noise.high and speedup.high >= noise.low


def percentiles(seconds: np.ndarray) -> dict[str, float]:
    """p50, p90 and p99 in ms of times in seconds, shape (calls,)."""
    p50, p90, p99 = np.percentile(seconds, (50, 90, 99)) * 1e3
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99)}


def _blocks(
    candidate: Call, baseline: Call, batches: list[tuple], schedule: Schedule, clock: Callable[[], float]
) -> tuple[tuple[list, list], list[tuple], str]:
    """Times of the candidate and of the baseline, each (blocks, 2 * calls); the batches that every row of one side
    stands for, both visits; and why it stopped."""
    turn = itertools.cycle(batches)
    mine: list[list[float]] = []
    theirs: list[list[float]] = []
    counted: list[tuple] = []
    begun, calls = clock(), _affordable(candidate, baseline, batches, schedule, clock)
    while True:
        chosen = [next(turn) for _ in range(calls)]
        sides: dict[bool, list[float]] = {True: [], False: []}
        outer = len(mine) % 2 == 0
        for is_candidate in (outer, not outer, not outer, outer):
            sides[is_candidate] += _visit(candidate if is_candidate else baseline, chosen, clock)
        mine.append(sides[True])
        theirs.append(sides[False])
        counted += chosen * 2
        if stopped := _stop(mine, theirs, schedule, clock() - begun):
            return (mine, theirs), counted, stopped


def _visit(call: Call, batches: list[tuple], clock: Callable[[], float]) -> list[float]:
    """Seconds of each call over `batches`, after one call that is not counted."""
    call(*batches[0])
    times = []
    for batch in batches:
        start = clock()
        call(*batch)
        times.append(clock() - start)
    return times


def _affordable(
    candidate: Call, baseline: Call, batches: list[tuple], schedule: Schedule, clock: Callable[[], float]
) -> int:
    """Calls a visit that let the least number of blocks fit into the time, from one visit of each side."""
    begun = clock()
    for call in (candidate, baseline):
        _visit(call, batches[:1], clock)
    # Each visit made two calls here and makes `calls` + 1 later; a block is two visits of each side.
    pair = (clock() - begun) / 2
    most = schedule.seconds / (schedule.min_blocks * 2 * pair) - 1 if pair > 0 else schedule.calls
    return int(min(max(most, 1), schedule.calls))


def _stop(mine: list, theirs: list, schedule: Schedule, spent: float) -> str:
    """Why to stop after these blocks and `spent` seconds, or ''."""
    if len(mine) < schedule.min_blocks:
        late = spent >= _LATE * schedule.seconds and len(mine) >= _FEWEST
        return "late" if late else ""
    speedup = _speedup(_ratios(np.array(mine), np.array(theirs)), schedule.seed)
    if speedup.half_width < schedule.narrow * speedup.value:
        return "narrow"
    if spent >= schedule.seconds:
        return "budget"
    return "blocks" if len(mine) >= schedule.max_blocks else ""


def _ratios(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Baseline time over candidate time, block by block."""
    spent = mine.sum(axis=1)
    if not (spent > 0).all():
        raise TrialError("The clock did not advance during a block.", do="time more calls in each block")
    return np.asarray(theirs.sum(axis=1) / spent)


def _speedup(ratios: np.ndarray, seed: int) -> Estimate:
    # Whole blocks are drawn: the calls inside one share the machine's mood, and would pretend to be more than they are.
    return bootstrap(ratios, lambda drawn: np.median(drawn, axis=-1), unit="×", resamples=1000, seed=seed)


def _warm_up(calls: Sequence[Call], batches: list[tuple], least: int) -> int:
    """Call each side once with every distinct shape, which runtimes may compile or plan for, and at least `least`
    times; the number of calls of each side."""
    shapes = {tuple(array.shape for array in batch[0].values()) if batch else (): batch for batch in batches}
    planned = list(itertools.islice(itertools.cycle(shapes.values()), max(least, len(shapes))))
    for call in calls:
        for batch in planned:
            call(*batch)
    return len(planned)


def _examples(batch: tuple) -> int:
    """Examples in one call: the length of the arrays' first axis, 1 without inputs."""
    return len(next(iter(batch[0].values()))) if batch else 1


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector paused: a collection in a timed call would be charged to one side."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
