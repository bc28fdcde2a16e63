"""The process in which trials are executed, one at a time; kept warm between them.

It never touches the store: the runner writes down what it sends. Requests:

    {"do": "prepare", "task": …}                                  -> progress, then facts and sizes
    {"do": "trial", "task": …, "recipe": …, "baseline": …, …}     -> stages, then a measurement
    {"do": "question", "task": …, "question": …, …}               -> progress, then rows
    {"do": "scan", "task": …, "order": …, "known": […], …}        -> progress and rows
    {"do": "cost", "task": …, "order": …, …}                      -> progress and rows
"""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.compress import compress
from workbench.measure.measurement import Measurement
from workbench.recipe import Recipe
from workbench.running.bench import Bench
from workbench.running.child import respond, serve
from workbench.running.questions import compute, plain
from workbench.sensitivity.cost import cost_rows, example_batch
from workbench.sensitivity.scan import Order, rows
from workbench.tasks.base import task_from_json
from workbench.tuning.questions import question_from_json

Send = Callable[[dict[str, Any]], None]


class TrialProcess:
    """Keeps the loaded task and the baseline's runner between requests."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    def handle(self, request: dict[str, Any], send: Send) -> None:
        """Answer one request."""
        respond(self, request, send)

    def do_prepare(self, request: dict[str, Any], send: Send) -> dict[str, Any]:
        """Have the task ready: downloads, training of the demo model, checks."""
        task = task_from_json(request["task"])
        task.prepare(lambda share, message: send({"progress": share, "message": message}))
        return {
            "facts": dataclasses.asdict(task.facts()),
            "sizes": task.sizes(),
            "fingerprint": task.fingerprint(),
            "describe": task.describe(),
            "labels": list(task.labels),
            "metric": task.metric,
        }

    def do_trial(self, request: dict[str, Any], send: Send) -> dict[str, Any]:
        """Compress, evaluate, time and weigh one recipe."""
        bench = self._bench_for(request)
        baseline = Measurement.from_json(request["baseline"]) if request.get("baseline") else None
        measurement = bench.measure(
            Recipe.from_json(request["recipe"]),
            split=request["split"],
            baseline=baseline,
            stage=lambda name, share: send({"stage": name, "progress": share}),
        )
        return measurement.to_json()

    def do_question(self, request: dict[str, Any], send: Send) -> dict[str, Any]:
        """Answer what a strategy wants to know."""
        asked = question_from_json(request["question"])
        return {"rows": plain(compute(asked, self._bench_for(request), _teller(send)))}

    def do_scan(self, request: dict[str, Any], send: Send) -> dict[str, Any]:
        """The rows of a scan, each as it comes."""
        given = Order.from_json(request["order"])
        tell = _teller(send)
        for row in rows(self._bench_for(request).task, given, tell=tell, known=request["known"]):
            send({"row": row})
        return {}

    def do_cost(self, request: dict[str, Any], send: Send) -> dict[str, Any]:
        """What each layer of a recipe costs in time."""
        bench, recipe = self._bench_for(request), Recipe.from_json(request["order"]["recipe"])
        artifact = compress(bench.task, recipe, bench.folder / recipe.id, tell=_teller(send))
        runner = artifact.load()
        try:
            for row in cost_rows(runner, example_batch(bench.task, recipe), request["order"]["calls"]):
                send({"row": row})
        finally:
            runner.close()
        return {}

    def _bench_for(self, request: dict[str, Any]) -> Bench:
        if self._bench is None:
            self._bench = Bench(task_from_json(request["task"]), Path(request["artifacts"]), seconds=request["seconds"])
        return self._bench


def _teller(send: Send) -> Callable[[float, str], None]:
    return lambda share, message: send({"progress": share, "message": message})


def main() -> None:
    """Serve until the runner goes."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Inductor's pool of compilers would outlive a killed trial.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    serve(TrialProcess().handle)


if __name__ == "__main__":
    main()
