"""The bench: one task with its baseline kept warm, on which recipes are compressed, evaluated, timed and weighed.

Candidate and baseline are timed in one process on identical inputs, once at a fixed length and once over the data's
own lengths. The baseline is the uncompressed model on PyTorch eager (ONNX Runtime for a task that is an ONNX file).
The baseline's own trial is the A/A run: two separately loaded runners of the same artifact against each other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workbench.backends.base import WORKLOAD, Backend, Runner, collate
from workbench.compress import Artifact, compress
from workbench.draft import Batch, Example, ModelFacts
from workbench.errors import TrialError
from workbench.measure.accuracy import Answers, score_of
from workbench.measure.estimate import Estimate
from workbench.measure.footprint import compressed_mb, size_mb
from workbench.measure.machine import Machine, load_average
from workbench.measure.measurement import Measurement
from workbench.measure.timing import Schedule, Timing, band, paired
from workbench.recipe import Recipe, plugin
from workbench.tasks.base import Task

#: Stages of a trial and the share of its time that each takes, roughly, for progress.
STAGES = {"compress": 0.1, "lower": 0.25, "load": 0.05, "evaluate": 0.25, "time": 0.25, "weigh": 0.1}

#: Examples whose lengths stand for the real length distribution.
_REAL_EXAMPLES = 64

#: Called with the stage and the share of the whole trial that is done.
Report = Callable[[str, float], None]


def baseline_recipe(facts: ModelFacts, like: Backend | None = None) -> Recipe:
    """The uncompressed model with the workload of `like`: its threads, batch and sequence length."""
    workload = {k: getattr(like, k) for k in WORKLOAD} if like else {}
    name = facts.baseline or ("eager" if facts.has_module else "onnxruntime")
    return Recipe(backend=plugin("backends", name, **workload))


class Bench:
    """Measures recipes of one task. `folder` takes the artifacts; `seconds` bounds the timing of one trial."""

    def __init__(self, task: Task, folder: Path, *, seconds: float = 6.0) -> None:
        self.task = task
        self.folder = folder
        self.seconds = seconds
        self.machine = Machine.here()
        self._facts = task.facts()
        self._encoded: dict[str, list[Example]] = {}
        self._baseline: tuple[Recipe, Runner] | None = None
        self._quietest: dict[Recipe, float] = {}
        self._peeked: dict[Recipe, tuple[np.ndarray, float]] = {}

    def measure(
        self, recipe: Recipe, *, split: str = "select", baseline: Measurement | None = None, stage: Report | None = None
    ) -> Measurement:
        """Everything about `recipe` on `split`; the drop against `baseline` (None for the baseline itself).

        Raises the errors of `compress`, and `TrialError` for a model that gives NaN.
        """
        clock = _Stages(stage or (lambda name, share: None))
        artifact = compress(self.task, recipe, self.folder / recipe.id, stage=clock.enter, tell=clock.tell)
        clock.enter("load")
        runner = artifact.load()
        try:
            clock.enter("evaluate")
            outcomes = self._evaluate(runner, recipe.backend, split, clock.inside)
            clock.enter("time")
            reference = baseline_recipe(self._facts, recipe.backend)
            fixed, real = self._time(runner, recipe, reference, baseline)
            effect = runner.effect()
        finally:
            runner.close()
        clock.enter("weigh")
        # What it weighs does not depend on the examples, and was found when it was selected.
        weight = weigh(artifact) if split == "select" else {"peak_mb": None}
        clock.leave()
        model = artifact.manifest["model"]
        measured = Measurement(
            accuracy=score_of(self.task.metric, outcomes),
            metric=self.task.metric,
            split=split,
            correct=outcomes.correct,
            latency_ms=fixed.latency_ms,
            baseline_latency_ms=fixed.baseline_latency_ms,
            speedup=fixed.speedup,
            latency_real_ms=real.latency_ms,
            speedup_real=real.speedup,
            noise=self._noise(recipe == reference, fixed, baseline),
            throughput=fixed.throughput,
            size_mb=size_mb(artifact.folder / "model"),
            compressed_mb=compressed_mb(artifact.folder / "model"),
            peak_mb=weight["peak_mb"],
            parameters=model["parameters"],
            nonzero_parameters=model["nonzero_parameters"],
            macs=model["macs"],
            in_effect=effect.to_json(),
            machine=self.machine.to_json(),
            conditions=self._conditions(recipe.backend, fixed, real),
            seconds=clock.seconds,
            outcomes=outcomes,
        )
        return measured.against(baseline or measured)

    def open(self, recipe: Recipe) -> Runner:
        """A runner of `recipe`, built where it is not yet; the artifact stays, so that a trial need not build it."""
        return compress(self.task, recipe, self.folder / recipe.id).load()

    def peek(self, recipe: Recipe, examples: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Logits of `recipe` and of the baseline on the first `examples` of the selection split, and the median time of
        a call over the baseline's: a hint only, for they did not take turns."""
        chosen = self._examples("select")[:examples]
        reference = baseline_recipe(self._facts, recipe.backend)
        runner = self.open(recipe)
        try:
            mine, took = _logits(runner, recipe.backend.batches(chosen, self._pad))
        finally:
            runner.close()
        if len(self._peeked.get(reference, ((), 0.0))[0]) < len(chosen):
            baseline = self._baseline_runner(reference)
            self._peeked[reference] = _logits(baseline, reference.backend.batches(chosen, self._pad))
        other, usual = self._peeked[reference]
        return mine, other[: len(chosen)], took / usual

    def _evaluate(self, runner: Runner, backend: Backend, split: str, inside: Callable[[float], None]) -> Answers:
        examples = self._examples(split)

        def answers() -> Iterator[tuple[Batch, np.ndarray]]:
            told, done = time.perf_counter(), 0
            for batch in backend.batches(examples, self._pad):
                yield batch, runner(batch)
                done += backend.batch
                if time.perf_counter() - told > 1.0:
                    told = time.perf_counter()
                    inside(done / len(examples))

        return self.task.outcomes(split, answers())

    def _time(
        self, runner: Runner, recipe: Recipe, reference: Recipe, baseline_trial: Measurement | None
    ) -> tuple[Timing, Timing]:
        """Against the baseline at `sequence` tokens, and over the data's own lengths."""
        examples = self._examples("select")
        chosen, backend = examples[:_REAL_EXAMPLES], recipe.backend
        baseline = self._baseline_runner(reference)
        chunks = [chosen[i : i + backend.batch] for i in range(0, len(chosen), backend.batch)]
        chunks = [chunk for chunk in chunks if len(chunk) == backend.batch] or [_cycled(chosen, backend.batch)]
        fixed = [collate(chunk, backend.sequence, self._pad) for chunk in chunks]
        plain = [collate(chunk, reference.backend.length(chunk), self._pad) for chunk in chunks]
        padded = [collate(chunk, backend.length(chunk), self._pad) for chunk in chunks]
        own = {id(theirs): mine for theirs, mine in zip(plain, padded, strict=True)}
        schedule = Schedule(seconds=self.seconds)
        if recipe == reference:  # The A/A run sets the band for all trials: it takes the time that others may need.
            schedule = Schedule(seconds=self.seconds * schedule.patience, patience=1)
        at_length = paired(runner, baseline, fixed, schedule=schedule, usual=self._usual(reference, baseline_trial))
        self._quietest[reference] = min(
            at_length.baseline_latency_ms["p50"], self._quietest.get(reference, float("inf"))
        )
        over_lengths = paired(
            lambda batch: runner(own[id(batch)]), baseline, plain, schedule=Schedule(seconds=self.seconds / 2)
        )
        return at_length, over_lengths

    def _usual(self, reference: Recipe, baseline_trial: Measurement | None) -> float | None:
        """The baseline's median, in ms, in the quietest time known: its own trial, or any trial of this process."""
        known = [self._quietest[reference]] if reference in self._quietest else []
        if baseline_trial and _workload(baseline_trial.conditions) == _workload(vars(reference.backend)):
            known.append(baseline_trial.latency_ms["p50"])
        return min(known, default=None)

    def _baseline_runner(self, reference: Recipe) -> Runner:
        if self._baseline is None or self._baseline[0] != reference:
            artifact = compress(self.task, reference, self.folder / reference.id)
            self._baseline = (reference, artifact.load())
        return self._baseline[1]

    def _examples(self, split: str) -> list[Example]:
        if split not in self._encoded:
            self._encoded[split] = self.task.encoded(split)
        return self._encoded[split]

    @property
    def _pad(self) -> dict[str, int]:
        return self.task.pad()

    def _noise(self, same: bool, fixed: Timing, baseline: Measurement | None) -> Estimate | None:
        return band(fixed.speedup) if same else baseline.noise if baseline else None

    def _conditions(self, backend: Backend, fixed: Timing, real: Timing) -> dict[str, Any]:
        return {
            **{name: getattr(backend, name) for name in ("batch", "sequence", "padding", "threads")},
            "machine": self.machine.fingerprint(),
            "load": load_average(),
            "disturbed": fixed.stopped == "disturbed",
            "fixed": {k: v for k, v in fixed.to_json().items() if k not in ("ratios", "latency_ms")},
            "real": {k: v for k, v in real.to_json().items() if k not in ("ratios", "latency_ms")},
        }


def weigh(artifact: Artifact) -> dict[str, float | None]:
    """Peak resident memory, in MB, of a fresh process that loads the artifact and answers a few batches.

    That the artifact loads without the original model is proven on the way.
    """
    command = [sys.executable, "-m", "workbench.running.weigh", str(artifact.folder)]
    environment = {**os.environ, "WORKBENCH_PARENT": str(os.getpid())}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    if done.returncode:
        raise TrialError(
            f"The lowered model does not load in a fresh process (exit code {done.returncode}): {done.stderr[-2000:]}"
        )
    answer: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _logits(runner: Runner, batches: Iterable[Batch]) -> tuple[np.ndarray, float]:
    """The runner's answers to all batches, shape (examples, classes), and the median seconds of a call."""
    answers, seconds = [], []
    for batch in batches:
        began = time.perf_counter()
        answers.append(np.array(runner(batch), dtype=np.float32))
        seconds.append(time.perf_counter() - began)
    return np.concatenate(answers), float(np.median(seconds))


def _workload(conditions: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(conditions.get(name) for name in WORKLOAD)


def _cycled(examples: list[Example], size: int) -> list[Example]:
    """`size` examples, again from the start where there are fewer."""
    return [examples[i % len(examples)] for i in range(size)]


class _Stages:
    """Seconds by stage, and the share of the whole that is done."""

    def __init__(self, report: Report) -> None:
        self.seconds: dict[str, float] = {}
        self._report = report
        self._name = ""
        self._began = time.perf_counter()

    def enter(self, name: str) -> None:
        self.leave()
        self._name, self._began = name, time.perf_counter()
        self.inside(0.0)

    def leave(self) -> None:
        if self._name:
            self.seconds[self._name] = time.perf_counter() - self._began

    def tell(self, share: float, what: str) -> None:
        self.inside(share, what)

    def inside(self, share: float, what: str = "") -> None:
        names = list(STAGES)
        before = sum(STAGES[name] for name in names[: names.index(self._name)])
        told = f"{self._name}: {what}" if what else self._name
        self._report(told, before + STAGES[self._name] * min(share, 1.0))
