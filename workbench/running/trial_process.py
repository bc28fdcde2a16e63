"""The process in which trials are executed, one at a time; kept warm between them.

It never touches the store: the runner writes down what it sends. Requests:

    {"do": "prepare", "task": …}                                  -> progress, then facts and sizes
    {"do": "trial", "task": …, "recipe": …, "baseline": …, …}     -> stages, then a measurement
"""

from __future__ import annotations

import dataclasses
import logging
import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.measure.measurement import Measurement
from workbench.recipe import Recipe
from workbench.running.bench import Bench
from workbench.running.child import serve
from workbench.tasks.base import task_from_json

Send = Callable[[dict[str, Any]], None]


class TrialProcess:
    """Keeps the loaded task and the baseline's runner between requests."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    def handle(self, request: dict[str, Any], send: Send) -> None:
        """Answer one request; every error becomes an event, with the words for a person and the traceback."""
        try:
            send({"done": getattr(self, f"do_{request['do']}")(request, send)})
        except WorkbenchError as error:
            send({"error": str(error), "kind": type(error).__name__, "details": traceback.format_exc()})
        except MemoryError:
            send({"error": "ran out of memory", "kind": "MemoryError", "details": traceback.format_exc()})
        # The runner must hear of everything that went wrong here; the reason is passed on whole.
        except Exception as error:  # noqa: BLE001
            message = f"{type(error).__name__}: {error}"
            send({"error": message, "kind": type(error).__name__, "details": traceback.format_exc()})

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

    def _bench_for(self, request: dict[str, Any]) -> Bench:
        if self._bench is None:
            self._bench = Bench(task_from_json(request["task"]), Path(request["artifacts"]), seconds=request["seconds"])
        return self._bench


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
