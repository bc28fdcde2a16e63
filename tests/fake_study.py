"""A study without a model: the same methods as `workbench.study.Study`, its trials made from a few given numbers.

For tests of what shows a study (figures, report, widgets). It measures nothing and says so in its task.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

#: (number, techniques, backend, state, accuracy, lost, gained, speed-up, half-width, size, shares)
TRIALS = [
    (0, (), "eager", "complete", 0.8991, 0, 0, 0.995, 0.01, 91.0, {"fp32": 1.0}),
    (1, (), "openvino", "complete", 0.8991, 0, 0, 1.16, 0.02, 91.2, {"fp32": 1.0}),
    (2, (), "onnxruntime", "complete", 0.8991, 0, 0, 0.99, 0.02, 91.4, {"fp32": 1.0}),
    (3, ("bf16",), "eager", "complete", 0.8991, 0, 0, 1.76, 0.03, 45.6, {"bf16": 1.0}),
    (4, ("bf16",), "compiled", "complete", 0.8991, 1, 1, 2.78, 0.05, 45.6, {"bf16": 1.0}),
    (5, ("bf16",), "openvino", "complete", 0.8991, 0, 0, 3.17, 0.06, 45.7, {"bf16": 1.0}),
    (6, ("dynamic_int8",), "onnxruntime", "complete", 0.8945, 5, 1, 1.48, 0.03, 23.1, {"int8": 0.97, "fp32": 0.03}),
    (7, ("static_int8",), "onnxruntime", "complete", 0.8876, 21, 11, 1.19, 0.02, 23.2, {"int8": 0.97, "fp32": 0.03}),
    (8, ("static_int8",), "openvino", "complete", 0.8968, 5, 3, 3.33, 0.05, 23.3, {"int8": 0.99, "fp32": 0.01}),
    (9, ("static_int8",), "compiled", "failed", None, 0, 0, None, 0, None, None),
    (10, ("drop_layers", "static_int8"), "openvino", "complete", 0.8601, 51, 17, 4.9, 0.08, 18.1, {"int8": 0.98}),
    (11, ("prune",), "openvino", "complete", 0.5092, 350, 10, 1.17, 0.02, 91.2, {"fp32": 1.0}),
]
EXAMPLES = 872


def fake_frame(count: int | None = None, evil: str = "") -> pd.DataFrame:
    """The first `count` trials with the columns of `Study.frame()`; `evil` is put into every free text."""
    return pd.DataFrame([_row(*trial, evil=evil) for trial in TRIALS[:count]])


def _row(number, techniques, backend, state, accuracy, lost, gained, speedup, half, size, shares, evil) -> dict:
    done = state == "complete"
    latency = 40.9 / speedup if done else math.nan
    drop = (lost - gained) / EXAMPLES if done else math.nan
    wide = 1.96 * math.sqrt(lost + gained + 2) / EXAMPLES if done else math.nan
    steps = [{"name": name} for name in techniques]
    inside = "".join(f"{name.title().replace('_', '')}(), " for name in techniques)
    return {
        "number": number,
        "state": state,
        "recipe": {"techniques": steps, "backend": {"name": backend}, "keep": []},
        "recipe_id": f"{number:012x}",
        "code": f"Recipe({inside}backend={backend.title()}())" + evil,
        "title": " → ".join(techniques or ["fp32"]) + f" · {backend}" + evil,
        "backend": backend,
        "techniques": techniques,
        "accuracy": accuracy if done else math.nan,
        "accuracy_low": accuracy - 0.02 if done else math.nan,
        "accuracy_high": accuracy + 0.02 if done else math.nan,
        "drop": drop,
        "drop_low": drop - wide,
        "drop_high": drop + wide,
        "metric": "accuracy",
        "correct": round(accuracy * EXAMPLES) if done else math.nan,
        "flips_lost": lost if done else math.nan,
        "flips_gained": gained if done else math.nan,
        "latency_ms": latency,
        "latency_ms_p90": latency * 1.05,
        "latency_ms_p99": latency * 1.2,
        "speedup": speedup if done else math.nan,
        "speedup_low": speedup - half if done else math.nan,
        "speedup_high": speedup + half if done else math.nan,
        "speedup_real": speedup if done else math.nan,
        "speedup_real_low": speedup - half if done else math.nan,
        "speedup_real_high": speedup + half if done else math.nan,
        "noise_low": 0.98 if done else math.nan,
        "noise_high": 1.02 if done else math.nan,
        "throughput": 1000 / latency if done else math.nan,
        "size_mb": size if done else math.nan,
        "compressed_mb": 0.9 * size if done else math.nan,
        "peak_mb": 3 * size if done else math.nan,
        "parameters": 22_700_000 if done else math.nan,
        "macs": 1_450_000_000 if done else math.nan,
        "in_effect": {"precision": shares} if done else {},
        "split": "select",
        "seconds": 11.5,
        "error": "" if done else "The compiler ran out of memory." + evil,
        "report_accuracy": math.nan,
        "report_drop": math.nan,
    }


class FakeStudy:
    """`workbench.study.Study` without its store: the first `count` trials of `TRIALS`, and what surrounds them."""

    def __init__(self, folder: str | Path = "fake", count: int | None = None, evil: str = "", goal: Any = None) -> None:
        from workbench.tuning.goal import Goal

        self.folder, self.name = Path(folder), Path(folder).name + evil
        self.count, self.evil, self.goal = count, evil, goal or Goal(max_drop=0.01)
        self.notes = ["Selection and report used the same examples." + evil]
        self.task = SimpleNamespace(
            describe=lambda: {"model": "no model, made-up numbers" + evil, "labels": ["-", "+"]}
        )
        self.prepared: dict[str, Any] = {}
        self.calls: list[Any] = []

    def frame(self) -> pd.DataFrame:
        return fake_frame(self.count, self.evil)

    def front(self) -> list[int]:
        from workbench.plots.front import pareto_data

        return list(pareto_data(self.frame()).front)

    @property
    def baseline(self) -> Any:
        from workbench.measure.estimate import proportion
        from workbench.measure.measurement import Measurement

        if self.count == 0:
            return None
        machine, conditions = (
            {"cpu": "no machine" + self.evil, "gpu": None, "ram_mb": 25_275},
            {"batch": 1, "sequence": 128},
        )
        measured = Measurement(
            proportion(784, EXAMPLES), "accuracy", correct=784, machine=machine, conditions=conditions
        )
        return SimpleNamespace(number=0, measurement=measured)

    def best(self, goal: Any = None) -> Any:
        from workbench.errors import UserError

        frame = self.frame()
        if frame.empty:
            raise UserError("No trial has been measured yet.")
        good = frame[frame["drop"] <= (goal or self.goal).allowed_drop(0.8991)]
        return SimpleNamespace(number=int(good.loc[good["speedup"].idxmax(), "number"]))

    def refused(self) -> list[dict[str, Any]]:
        return [{"title": "dynamic_int8 · openvino" + self.evil, "reason": "OpenVINO has no dynamic INT8" + self.evil}]
