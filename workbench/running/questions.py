"""Answers to the questions of strategies: computed once in the trial's process, kept in the study, replayed from there.

The only place of the runner that knows the sensitivity scans. A question that fails is answered with its reason, which
is kept too: a replay must go the same way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from workbench.draft import ModelFacts
from workbench.errors import Refused, WorkbenchError
from workbench.measure.accuracy import class_metrics, drop
from workbench.measure.outcomes import Outcomes
from workbench.running.bench import Bench
from workbench.running.store import Store
from workbench.tuning.questions import Costs, Facts, Peek, Question, Scan, Unanswered

Rows = list[dict[str, Any]]
Tell = Callable[[float, str], None]
#: Calls of the runtime's profiler: enough for a belief, which trials correct.
CALLS = 10
#: Why a question is not answered when too much of the budget went into questions, and nothing was tried yet.
NO_TIME = "there is no time left for questions: something has to be tried"


def known_answer(store: Store, question: Question, facts: ModelFacts | None, sweep: str = "") -> Any:
    """The answer that needs no work: the model's facts, or what the study holds; None where it must be computed.

    What was left unanswered for want of time holds for that sweep alone.
    """
    if isinstance(question, Facts):
        return facts or Unanswered("nothing is known of the model")
    row = store.get(f"question:{question.key}")
    if row is None or (row.get("error") == NO_TIME and row["sweep"] != sweep):
        return None
    return Unanswered(row["error"]) if row.get("error") else row["rows"]


def keep_answer(store: Store, question: Question, rows: Rows | None, error: str, sweep: str, seconds: float) -> Any:
    """Write an answer down, or the reason why there is none, and give it as a later replay will get it."""
    row = {"question": question.to_json(), "rows": plain(rows), "error": error, "sweep": sweep, "seconds": seconds}
    store.set(f"question:{question.key}", {**row, "when": time.time()})
    return known_answer(store, question, None, sweep)


def seconds_asked(attributes: Mapping[str, Any], sweep: str) -> float:
    """Seconds that a sweep's own questions took."""
    rows = [v for k, v in attributes.items() if k.startswith("question:") and v]
    return float(sum(row["seconds"] for row in rows if row["sweep"] == sweep))


def compute(question: Question, bench: Bench, tell: Tell) -> Rows:
    """The rows that answer `question`; raises what the work raises."""
    if isinstance(question, Scan):
        from workbench.sensitivity.scan import scan

        found = scan(
            bench.task,
            question.technique,
            question.probe,
            question.direction,
            samples=question.samples,
            keep=question.keep,
            tell=tell,
        )
        return [dict(zip(found.columns, row, strict=True)) for row in found.itertuples(index=False)]
    if isinstance(question, Costs):
        from workbench.sensitivity.cost import cost_rows, example_batch

        runner = bench.open(question.recipe)
        try:
            return cost_rows(runner, example_batch(bench.task, question.recipe), CALLS, whole=True)
        finally:
            runner.close()
    if isinstance(question, Peek):
        return [peek(bench, question)]
    raise Refused(f"Nobody knows how to answer {question!r}.")


def peek(bench: Bench, question: Peek) -> dict[str, Any]:
    """How many right answers the recipe loses and gains on some examples; raises `Refused` for a task whose answers
    are no classes, or that is scored by other than classes."""
    task = bench.task
    if task.metric not in class_metrics():
        raise Refused(f"A look at some examples says nothing of the {task.metric} of this task.")
    labels = task.targets("select", question.examples)
    mine, other, ratio = bench.peek(question.recipe, question.examples)
    if not np.isfinite(mine).all():
        raise WorkbenchError("The compressed model gives NaN or infinite logits.")
    classes = len(task.labels)
    before, after = (Outcomes(task.predictions(logits)[0], labels, classes=classes) for logits in (other, mine))
    lost, gained = int((before.right & ~after.right).sum()), int((~before.right & after.right).sum())
    worse = drop(before, after, task.metric)
    numbers = {"drop": worse.value, "low": worse.low, "high": worse.high}
    return {"examples": len(labels), "lost": lost, "gained": gained, **numbers, "ratio": ratio}


def plain(value: Any) -> Any:
    """Rows as JSON gives them back: NumPy's numbers made Python's, what is not finite made None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
