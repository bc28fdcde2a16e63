"""Paired latency: two callables timed alternately in one process, so that a drifting machine cancels out.

A *block* times candidate and baseline over the same inputs in the order ABBA, and every second block BAAB; its ratio
is free of any drift that is linear over the block. The speed-up is the median of the blocks' ratios, its interval a
bootstrap over whole blocks. The first call after a change of sides is not counted: it pays for caches
that the other side filled and for threads of the other side that still spin.

Drift cancels, a *disturbance* does not: what else runs on the machine (a neighbour on a shared host, mostly) slows
runtimes unequally, for seconds at a time. Such noise only ever adds time, so the blocks that count are the *quiet*
ones: those in which both sides together (the geometric mean of their times) took at most a tenth longer than in the
quietest tenth of the blocks. The criterion treats both sides alike, so it favours neither, and on a machine of one's
own it leaves nearly every block in. Where the inputs differ in shape, time says nothing about quiet: all blocks count.

The order is that of metrologists' weighings; "duet benchmarking" (Bulej et al., ICPE 2020) is the same thought for
servers; that noise is positive, and the quiet samples the ones to believe, is in Chen and Revels (2016,
arXiv:1608.04295). Left out: wall time of several streams at once, energy, GPU events (the callable must wait for its
device).
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

#: The fewest quiet blocks that do: the fewest whose range holds the median with 95 %.
_FEWEST = 6
#: A quiet block takes at most this many times the quietest tenth's time, and its baseline at most that many times
#: the usual one's.
_QUIET, _USUAL = 1.10, 1.15


@dataclass(frozen=True)
class Timing:
    """What `paired` found.

    `speedup` (×) is baseline time over candidate time. `latency_ms` and `baseline_latency_ms` hold p50, p90 and p99
    of single calls; `throughput` is the candidate's, in examples/s. `ratios` are the quiet blocks' own speed-ups,
    `left_out` the number of blocks that were not quiet, `calls` the counted calls of each side, `batch` the mean
    number of examples a call, `seconds` the time it all took, warm-up included, `load` the load average before and
    after (None where the system has none), and `stopped` why it ended: `narrow`, `budget`, `blocks`, or at the end
    of the schedule's patience `late` (too few quiet blocks until then) or `disturbed` (the baseline slower than
    usual).
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
    left_out: int = 0

    @property
    def blocks(self) -> int:
        """The number of quiet blocks: those that count."""
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
    (warm-up not counted) or `max_blocks` are done, but at least `min_blocks` quiet ones; and on a disturbed machine
    on until it is quiet, for at most `patience` times `seconds`.

    `calls` counted calls make a visit of one side, four visits a block; slow models get shorter visits, so that the
    least number of blocks fits into the time. Where even that takes longer than the patience, six blocks must do: the
    fewest whose range holds the median with 95 %. `warmup` calls of each side come first. `seed` is the bootstrap's.
    """

    calls: int = 2
    warmup: int = 5
    min_blocks: int = 12
    max_blocks: int = 200
    seconds: float = 20.0
    patience: float = 3.0
    narrow: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        sound = self.calls >= 1 and self.warmup >= 0 and 2 <= self.min_blocks <= self.max_blocks
        if not (sound and self.seconds > 0 and self.patience >= 1 and self.narrow >= 0):
            raise UserError(
                f"{self} cannot be carried out.",
                allowed="calls ≥ 1, warmup ≥ 0, 2 ≤ min_blocks ≤ max_blocks, seconds > 0, patience ≥ 1, narrow ≥ 0",
            )


def paired(
    candidate: Call,
    baseline: Call,
    inputs: Sequence[Inputs] | None = None,
    *,
    schedule: Schedule = Schedule(),
    usual: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time `candidate` against `baseline` on identical `inputs`, a batch a call, taken in turn.

    Without inputs both are called without arguments, an example a call. `usual` is the median of a baseline call (ms)
    that is known from a quiet time: while its median here is more than 15 % above it, timing goes on. `clock` gives
    seconds. Raises `UserError` for an empty list of inputs, `TrialError` where the clock does not advance; errors of
    the callables pass through.
    """
    if inputs is not None and not len(inputs):
        raise UserError("There is nothing to time: the list of inputs is empty.", allowed="at least one batch")
    batches: list[tuple] = [()] if inputs is None else [(batch,) for batch in inputs]
    before, begun = load_average(), clock()
    with _no_collection():
        warmup = _warm_up((candidate, baseline), batches, schedule.warmup)
        blocks, stopped = _blocks(candidate, baseline, batches, schedule, usual, clock)
    quiet = blocks.quiet()
    return Timing(
        speedup=_speedup(quiet.ratios(), schedule.seed),
        latency_ms=percentiles(quiet.mine.ravel()),
        baseline_latency_ms=percentiles(quiet.theirs.ravel()),
        throughput=float(quiet.examples.sum() / quiet.mine.sum()),
        baseline_throughput=float(quiet.examples.sum() / quiet.theirs.sum()),
        ratios=tuple(float(ratio) for ratio in quiet.ratios()),
        calls=quiet.mine.size,
        batch=float(quiet.examples.sum() / quiet.mine.size),
        warmup=warmup,
        seconds=clock() - begun,
        load=(before, load_average()),
        stopped=stopped,
        left_out=len(blocks.mine) - len(quiet.mine),
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


@dataclass(frozen=True)
class _Blocks:
    """Seconds of the candidate's and the baseline's calls, each (blocks, 2 * calls), and the examples of either side
    by block, shape (blocks,). `alike` says whether every block had inputs of the same shape."""

    mine: np.ndarray
    theirs: np.ndarray
    examples: np.ndarray
    alike: bool

    def ratios(self) -> np.ndarray:
        """Baseline time over candidate time, block by block."""
        spent = self.mine.sum(axis=1)
        if not (spent > 0).all():
            raise TrialError("The clock did not advance during a block.", do="time more calls in each block")
        return np.asarray(self.theirs.sum(axis=1) / spent)

    def quiet(self) -> _Blocks:
        """The blocks that count: see the module's docstring. At least six, the quietest, where there are as many."""
        if not self.alike:
            return self
        slowness = np.sqrt(self.mine.sum(axis=1) * self.theirs.sum(axis=1))
        fewest = np.sort(slowness)[:_FEWEST][-1]
        chosen = slowness <= max(_QUIET * np.quantile(slowness, 0.1), fewest)
        return _Blocks(self.mine[chosen], self.theirs[chosen], self.examples[chosen], True)


def _blocks(
    candidate: Call,
    baseline: Call,
    batches: list[tuple],
    schedule: Schedule,
    usual: float | None,
    clock: Callable[[], float],
) -> tuple[_Blocks, str]:
    """Every block timed, and why it stopped."""
    turn, alike = itertools.cycle(batches), len(_by_shape(batches)) == 1
    mine: list[list[float]] = []
    theirs: list[list[float]] = []
    examples: list[int] = []
    begun, calls = clock(), _affordable(candidate, baseline, batches, schedule, clock)
    while True:
        chosen = [next(turn) for _ in range(calls)]
        sides: dict[bool, list[float]] = {True: [], False: []}
        outer = len(mine) % 2 == 0
        for is_candidate in (outer, not outer, not outer, outer):
            sides[is_candidate] += _visit(candidate if is_candidate else baseline, chosen, clock)
        mine.append(sides[True])
        theirs.append(sides[False])
        examples.append(2 * sum(_examples(batch) for batch in chosen))
        blocks = _Blocks(np.array(mine), np.array(theirs), np.array(examples), alike)
        if stopped := _stop(blocks, schedule, usual, clock() - begun):
            return blocks, stopped


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


def _stop(blocks: _Blocks, schedule: Schedule, usual: float | None, spent: float) -> str:
    """Why to stop after these blocks and `spent` seconds, or ''."""
    timed = len(blocks.mine)
    if timed < min(_FEWEST, schedule.min_blocks):
        return ""
    quiet = blocks.quiet()
    calm = usual is None or np.median(quiet.theirs) * 1e3 <= _USUAL * usual
    if calm and len(quiet.mine) >= schedule.min_blocks:
        # The interval costs a bootstrap, and one block more hardly moves it when there are many.
        if timed % max(1, timed // 16) == 0:
            speedup = _speedup(quiet.ratios(), schedule.seed)
            if speedup.half_width < schedule.narrow * speedup.value:
                return "narrow"
        if spent >= schedule.seconds:
            return "budget"
    ended = "late" if spent >= schedule.patience * schedule.seconds else ""
    ended = "blocks" if timed >= schedule.max_blocks else ended
    return "disturbed" if ended and not calm else ended


def _speedup(ratios: np.ndarray, seed: int) -> Estimate:
    # Whole blocks are drawn: the calls inside one share the machine's mood, and would pretend to be more than they are.
    return bootstrap(ratios, lambda drawn: np.median(drawn, axis=-1), unit="×", resamples=1000, seed=seed)


def _warm_up(calls: Sequence[Call], batches: list[tuple], least: int) -> int:
    """Call each side once with every distinct shape, which runtimes may compile or plan for, and at least `least`
    times; the number of calls of each side."""
    shapes = _by_shape(batches)
    planned = list(itertools.islice(itertools.cycle(shapes.values()), max(least, len(shapes))))
    for call in calls:
        for batch in planned:
            call(*batch)
    return len(planned)


def _by_shape(batches: list[tuple]) -> dict[tuple, tuple]:
    """A batch of each distinct shape."""
    return {tuple(array.shape for array in batch[0].values()) if batch else (): batch for batch in batches}


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
