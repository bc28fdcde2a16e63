"""Paired timing on a scripted clock: no real time is measured here, so nothing can be noisy by accident."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable

import numpy as np
import pytest

from workbench.errors import TrialError, UserError
from workbench.measure.estimate import Estimate
from workbench.measure.timing import Schedule, Timing, band, no_difference, noise_band, paired, percentiles


class ScriptedMachine:
    """A clock that only work advances, on a machine whose slowness changes with time."""

    def __init__(self, slowness: Callable[[float], float] = lambda now: 1.0, noise: float = 0.0, seed: int = 0) -> None:
        self.now, self.slowness, self.noise = 0.0, slowness, noise
        self.random = np.random.default_rng(seed)
        self.calls: list[tuple[str, object]] = []

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float, name: str = "") -> Callable[..., None]:
        """A callable that takes `seconds` while the machine is at its best; a fiftieth of the calls is disturbed."""

        def call(batch: object = None) -> None:
            self.calls.append((name, batch))
            factor = self.random.lognormal(0, self.noise) if self.noise else 1.0
            disturbed = self.noise > 0 and self.random.random() < 0.02
            self.now += seconds * self.slowness(self.now) * factor * (3 if disturbed else 1)

        return call

    def one_after_the_other(self, candidate: float, baseline: float, calls: int) -> float:
        """The plain ratio of means: all of one, then all of the other."""
        means = []
        for seconds in (candidate, baseline):
            begun, call = self.now, self.work(seconds)
            for _ in range(calls):
                call()
            means.append((self.now - begun) / calls)
        return means[1] / means[0]


def heating_up(now: float) -> float:
    """Three times slower after ten seconds."""
    return 1 + min(now, 10.0) / 5


def neighbour(now: float) -> float:
    """Someone else on the machine: half the speed in every other stretch of 0.7 s."""
    return 2.0 if int(now / 0.7) % 2 else 1.0


def batches(lengths: list[int], size: int = 2) -> list[dict[str, np.ndarray]]:
    return [{"input_ids": np.ones((size, length), dtype=np.int64)} for length in lengths]


EXACT = Schedule(min_blocks=30, max_blocks=30)
LONG = Schedule(min_blocks=30, max_blocks=400, narrow=0.0)


@pytest.mark.parametrize("slowness", [heating_up, neighbour])
def test_the_ratio_survives_drift_where_the_ratio_of_means_does_not(slowness: Callable[[float], float]) -> None:
    machine = ScriptedMachine(slowness, noise=0.02)
    timing = paired(machine.work(0.004), machine.work(0.010), schedule=EXACT, clock=machine)
    assert timing.speedup.value == pytest.approx(2.5, rel=0.02)
    # As many calls, one side after the other, while the machine heats up: wrong by far.
    plain = ScriptedMachine(heating_up, noise=0.02).one_after_the_other(0.004, 0.010, calls=300)
    assert abs(plain - 2.5) > 0.5


def test_linear_drift_cancels_within_each_block() -> None:
    machine = ScriptedMachine(lambda now: 1 + 0.5 * now)
    timing = paired(machine.work(0.004), machine.work(0.010), schedule=EXACT, clock=machine)
    assert np.allclose(timing.ratios, 2.5, rtol=2e-3)


def test_the_interval_covers() -> None:
    """Over many scripted runs, stopped early as real ones are, the true ratio is inside about as often as promised."""
    inside = 0
    for seed in range(30):
        machine = ScriptedMachine(lambda now: 1 + 0.3 * np.sin(now), noise=0.03, seed=seed)
        timing = paired(machine.work(0.004), machine.work(0.010), clock=machine)
        inside += timing.speedup.low <= 2.5 <= timing.speedup.high
    assert inside / 30 >= 0.88


def is_quiet(now: float) -> bool:
    """False in the stretches in which someone else is busy: more than half of the time."""
    return now % 1.0 < 0.4


def suffering(machine: ScriptedMachine, seconds: float, factor: float) -> Callable[[], None]:
    """Work that takes `factor` times as long while someone else is busy."""

    def call() -> None:
        slowness = 1.0 if is_quiet(machine.now) else factor
        machine.now += seconds * slowness * machine.random.lognormal(0, 0.02)

    return call


def test_a_disturbance_that_hits_the_sides_unequally_is_left_out() -> None:
    """Slower by half on one side and by three on the other for most of the time: the quiet blocks tell the truth."""
    machine = ScriptedMachine()
    timing = paired(suffering(machine, 0.004, 3.0), suffering(machine, 0.010, 1.5), schedule=LONG, clock=machine)
    assert timing.speedup.value == pytest.approx(2.5, rel=0.03)
    assert timing.latency_ms["p50"] == pytest.approx(4.0, rel=0.03)
    assert timing.left_out > timing.blocks
    assert timing.to_json()["left_out"] == timing.left_out


def test_leaving_out_favours_no_side() -> None:
    """The baseline against itself on a machine that is busy for most of the time."""
    values = []
    for seed in range(20):
        machine = ScriptedMachine(seed=seed)
        same = suffering(machine, 0.01, 1.7)
        values.append(paired(same, same, schedule=LONG, clock=machine).speedup.value)
    assert np.mean(values) == pytest.approx(1.0, abs=0.005)


def test_a_machine_slower_than_usual_is_waited_for() -> None:
    """Busy for the first eight seconds; it was 10 ms when it was quiet, so timing goes on until it is again."""

    def late(now: float) -> float:
        return 1.6 if now < 8.0 else 1.0

    schedule = Schedule(seconds=4.0)
    machine = ScriptedMachine(late, noise=0.02)
    waited = paired(machine.work(0.004), machine.work(0.010), schedule=schedule, usual=10.0, clock=machine)
    assert waited.stopped in ("narrow", "budget")
    assert waited.baseline_latency_ms["p50"] == pytest.approx(10.0, rel=0.05)
    machine = ScriptedMachine(late, noise=0.02)
    hasty = paired(machine.work(0.004), machine.work(0.010), schedule=schedule, clock=machine)
    assert hasty.baseline_latency_ms["p50"] == pytest.approx(16.0, rel=0.05)
    machine = ScriptedMachine(lambda now: 1.6, noise=0.02)
    never = paired(machine.work(0.004), machine.work(0.010), schedule=schedule, usual=10.0, clock=machine)
    assert never.stopped == "disturbed"
    assert never.seconds == pytest.approx(4.0 * 3, rel=0.05)
    # A model so fast that the blocks run out first was disturbed all the same.
    few = Schedule(max_blocks=20)
    machine = ScriptedMachine(lambda now: 1.6, noise=0.02)
    fast = paired(machine.work(0.004), machine.work(0.010), schedule=few, usual=10.0, clock=machine)
    assert (fast.stopped, fast.blocks + fast.left_out) == ("disturbed", 20)


def test_lengths_are_no_disturbance() -> None:
    """Short inputs take less time than long ones; that is no reason to count them alone."""
    machine = ScriptedMachine()

    def work(seconds: float) -> Callable[..., None]:
        def call(batch: dict[str, np.ndarray]) -> None:
            machine.now += seconds * batch["input_ids"].shape[1]

        return call

    schedule = Schedule(calls=1, min_blocks=20, max_blocks=20)
    timing = paired(work(0.001), work(0.002), batches([5, 50]), schedule=schedule, clock=machine)
    assert (timing.blocks, timing.left_out) == (20, 0)


def test_abba_then_baab_on_identical_inputs() -> None:
    machine = ScriptedMachine()
    given = batches([5, 6, 7])
    schedule = Schedule(calls=2, warmup=0, min_blocks=2, max_blocks=2)
    paired(machine.work(0.1, "A"), machine.work(0.2, "B"), given, schedule=schedule, clock=machine)
    # The four between them find out how many calls a visit can have.
    warm, timed = machine.calls[:6], machine.calls[10:]
    # Every distinct shape once on each side, though no warm-up call was asked for.
    assert [(name, batch["input_ids"].shape[1]) for name, batch in warm] == [(n, k) for n in "AB" for k in (5, 6, 7)]
    # Each visit: one call that is not counted, then two that are.
    assert "".join(name for name, _ in timed) == "AAABBBBBBAAA" + "BBBAAAAAABBB"
    lengths = [batch["input_ids"].shape[1] for _, batch in timed]
    assert lengths == [5, 5, 6] * 4 + [7, 7, 5] * 4
    assert all(any(batch is one for one in given) for _, batch in timed)


def test_the_call_after_a_change_of_sides_is_not_counted() -> None:
    clock = ScriptedMachine()
    last = []

    def side(name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            cold = not last or last[-1] != name
            last.append(name)
            clock.now += seconds * (10 if cold else 1)

        return call

    timing = paired(side("A", 0.1), side("B", 0.3), schedule=EXACT, clock=clock)
    # Two visits of one side meet in the middle of a block, so the same side is warm there already.
    assert timing.speedup.value == pytest.approx(3.0)
    assert timing.latency_ms == pytest.approx({"p50": 100, "p90": 100, "p99": 100})


def test_percentiles_and_throughput() -> None:
    machine = ScriptedMachine()
    schedule = Schedule(calls=3, min_blocks=4, max_blocks=4)
    timing = paired(machine.work(0.1), machine.work(0.2), batches([5], size=8), schedule=schedule, clock=machine)
    assert timing.throughput == pytest.approx(8 / 0.1)
    assert timing.baseline_throughput == pytest.approx(8 / 0.2)
    assert (timing.batch, timing.calls, timing.blocks) == (8, 4 * 2 * 3, 4)
    assert timing.baseline_latency_ms["p99"] == pytest.approx(200)
    assert timing.seconds == pytest.approx(machine.now)
    times = np.random.default_rng(0).exponential(size=500)
    assert percentiles(times) == pytest.approx({f"p{q}": 1e3 * np.percentile(times, q) for q in (50, 90, 99)})


def test_throughput_counts_a_smaller_last_batch() -> None:
    machine = ScriptedMachine()
    given = [*batches([5], size=4), *batches([5], size=1)]
    schedule = Schedule(calls=2, min_blocks=2, max_blocks=2)
    timing = paired(machine.work(0.1), machine.work(0.1), given, schedule=schedule, clock=machine)
    assert timing.batch == 2.5
    assert timing.throughput == pytest.approx(25)


@pytest.mark.parametrize(
    ("noise", "schedule", "stopped", "blocks"),
    [
        (0.0, Schedule(min_blocks=6), "narrow", 6),
        (0.03, Schedule(min_blocks=6, max_blocks=9, narrow=0.0), "blocks", 9),
        (0.03, Schedule(min_blocks=8, seconds=1.0, narrow=0.0), "budget", 8),
        (0.03, Schedule(min_blocks=8, seconds=0.001, narrow=0.0), "late", 6),
        (0.03, Schedule(min_blocks=6, max_blocks=500, seconds=5.0, narrow=0.0), "budget", None),
    ],
)
def test_when_it_stops(noise: float, schedule: Schedule, stopped: str, blocks: int | None) -> None:
    machine = ScriptedMachine(noise=noise)
    timing = paired(machine.work(0.01), machine.work(0.02), schedule=schedule, clock=machine)
    assert timing.stopped == stopped
    if blocks is None:
        assert timing.blocks > 6
    else:
        assert blocks in (timing.blocks, timing.blocks + timing.left_out)
    # The last block may run over, the warm-up comes on top.
    assert blocks or 5.0 <= timing.seconds <= 7.0


@pytest.mark.parametrize(("seconds", "calls"), [(0.001, 2), (0.07, 2), (0.1, 1), (0.9, 1)])
def test_slow_models_get_shorter_visits(seconds: float, calls: int) -> None:
    """A block of a pair that takes 2 · seconds costs 4 · (calls + 1) · seconds; twelve of them are to fit into 12 s."""
    machine = ScriptedMachine()
    schedule = Schedule(seconds=12.0, min_blocks=12)
    timing = paired(machine.work(seconds), machine.work(seconds), schedule=schedule, clock=machine)
    assert timing.calls == timing.blocks * 2 * calls
    assert timing.stopped == ("narrow" if seconds < 0.9 else "late")


def test_seeded() -> None:
    def once(seed: int) -> Timing:
        machine = ScriptedMachine(noise=0.1)
        schedule = Schedule(seed=seed, min_blocks=40, max_blocks=40)
        return paired(machine.work(0.01), machine.work(0.02), schedule=schedule, clock=machine)

    assert once(0).speedup == once(0).speedup
    # The bounds are order statistics, so that two seeds may well agree; eight do not.
    assert len({once(seed).speedup for seed in range(8)}) > 1


def test_noise_band_holds_one_and_is_symmetric() -> None:
    machine = ScriptedMachine(heating_up, noise=0.03)
    noise = noise_band(machine.work(0.01), schedule=EXACT, clock=machine)
    assert 0.95 < noise.low < 1 < noise.high < 1.05
    assert noise.low == pytest.approx(1 / noise.high)
    lopsided = band(Estimate(1.02, 1.01, 1.04, 30, "×"))
    assert (lopsided.value, lopsided.low, lopsided.high) == (1.02, pytest.approx(1 / 1.04), 1.04)
    assert band(Estimate(0.9, 0.8, 0.95, 30, "×")).high == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("low", "high", "same"),
    [(0.99, 1.01, True), (1.01, 1.2, True), (1.03, 1.2, False), (0.8, 0.97, False), (0.5, 2.0, True)],
)
def test_no_difference(low: float, high: float, same: bool) -> None:
    noise = Estimate(1.0, 1 / 1.02, 1.02, 30, "×")
    assert no_difference(Estimate((low + high) / 2, low, high, 30, "×"), noise) is same


def test_garbage_collection_is_paused_and_put_back() -> None:
    machine, seen = ScriptedMachine(), []

    def call() -> None:
        seen.append(gc.isenabled())
        machine.now += 0.1

    paired(call, call, schedule=EXACT, clock=machine)
    assert not any(seen)
    assert gc.isenabled()
    gc.disable()
    try:
        paired(call, call, schedule=EXACT, clock=machine)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_error_of_the_callable_passes_through() -> None:
    def broken() -> None:
        raise RuntimeError("out of tiles")

    with pytest.raises(RuntimeError, match="out of tiles"):
        paired(broken, lambda: None)
    assert gc.isenabled()


def test_json_round_trip() -> None:
    machine = ScriptedMachine(noise=0.05)
    timing = paired(machine.work(0.01), machine.work(0.02), batches([4]), clock=machine)
    data = json.loads(json.dumps(timing.to_json(), allow_nan=False))
    assert Timing.from_json(data) == timing
    assert data["blocks"] == len(data["ratios"])
    assert len(data["load"]) == 2


def test_the_real_clock() -> None:
    """A sleep of twice the time takes about twice as long, whatever the machine: the order is all that is asserted."""
    schedule = Schedule(calls=1, warmup=0, min_blocks=4, max_blocks=4)
    timing = paired(lambda: time.sleep(0.001), lambda: time.sleep(0.02), schedule=schedule)
    assert timing.speedup.value > 1
    assert timing.latency_ms["p50"] >= 1


def test_bad_requests() -> None:
    with pytest.raises(UserError, match="list of inputs is empty"):
        paired(print, print, [])
    for wrong in (
        {"calls": 0},
        {"min_blocks": 1},
        {"min_blocks": 9, "max_blocks": 8},
        {"seconds": 0},
        {"narrow": -1},
        {"patience": 0.5},
    ):
        with pytest.raises(UserError, match="cannot be carried out"):
            Schedule(**wrong)
    with pytest.raises(TrialError, match="did not advance"):
        paired(lambda: None, lambda: None, clock=lambda: 0.0)
