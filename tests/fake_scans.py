"""A study whose scans take no model: orders are carried out as far as a test lets them, with made-up scores."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from workbench.errors import TrialError
from workbench.recipe import Recipe
from workbench.running.scans import _title, name_of
from workbench.running.status import Status
from workbench.sensitivity.cost import frame as cost_frame
from workbench.sensitivity.scan import Order, frame, order

LAYERS = ("encoder.layer.0.query", "encoder.layer.0.dense", "encoder.layer.1.query", "classifier")


class ScannedStudy:
    """The part of `Study` that scans. Rows come one at a time, whenever the test gives `turns`."""

    def __init__(self, folder: str = "scanned", turns: int = 10**6, evil: str = "") -> None:
        self.folder, self.evil = Path(folder), evil
        self.orders: dict[str, dict[str, Any]] = {}
        self.costed_recipes: dict[str, Recipe] = {}
        self.turns, self.calls, self.stopped = turns, [], threading.Event()
        self.baseline = None
        self.task = SimpleNamespace(to_json=lambda: {"name": "demo", "sequence": 16})
        self._moved = threading.Condition()

    def layers(self) -> list[str]:
        return [name + self.evil for name in LAYERS]

    def give(self, turns: int) -> None:
        with self._moved:
            self.turns += turns
            self._moved.notify_all()

    def scan(self, technique: Any = "static_int8", probe: Any = "kl", direction: str = "only", layers: Any = None,
             **options: Any) -> pd.DataFrame:  # fmt: skip
        given = order(technique, probe, direction, layers, **options)
        name = name_of(given.to_json())
        row = self.orders.setdefault(name, {"given": given, "state": "waiting", "rows": [], "message": ""})
        if row["state"] == "done":
            return self.scanned(name)
        self.calls.append(name)
        self.stopped.clear()
        row.update(state="running", message="")
        wanted = [_row(i, layer, values) for values, _ in given.techniques() for i, layer in enumerate(self.layers())]
        for one in wanted[len(row["rows"]) :]:
            with self._moved:
                self._moved.wait_for(lambda: self.turns > 0 or self.stopped.is_set(), 20)
                self.turns -= 1
            if self.stopped.is_set():
                row.update(state="stopped", message="stopped; order it again to go on")
                raise TrialError(f"{given.title}: stopped; order it again to go on")
            row["rows"].append(one)
        row["state"] = "done"
        return self.scanned(name)

    def scans(self) -> pd.DataFrame:
        rows = [
            {"id": name, "kind": "scan", "title": _title("scan", row["given"].to_json()) + self.evil,
             "state": row["state"], "rows": len(row["rows"]), "seconds": 1.0, "message": row["message"]}
            for name, row in self.orders.items()
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["id", "kind", "title", "state", "rows", "seconds", "message"])

    def scanned(self, name: str) -> pd.DataFrame:
        row = self.orders[name]
        return frame(list(row["rows"]), Order.from_json(row["given"].to_json()))

    def costs(self, recipe: Recipe) -> pd.DataFrame:
        self.costed_recipes[recipe.id] = recipe
        return self.costed(recipe)  # type: ignore[return-value]

    def costed(self, recipe: Recipe) -> pd.DataFrame | None:
        if recipe.id not in self.costed_recipes:
            return None
        ms = 2.0 if recipe.steps else 5.0
        times = {"ms": ms, "ms_low": ms, "ms_high": ms, "wall_ms": 9.0}
        rows = [{"layer": name, "kind": "MatMul", "precision": "", **times} for name in self.layers()]
        return cost_frame(rows, recipe)

    def status(self) -> Status:
        running = any(row["state"] == "running" for row in self.orders.values())
        words = "kl: 1 of 4 layers, 3 s left" + self.evil
        return Status("running", message=words, stage="scan", progress=0.25) if running else Status("idle")

    def stop(self) -> None:
        self.stopped.set()
        self.give(0)


def _row(i: int, layer: str, values: dict[str, Any]) -> dict[str, Any]:
    score = (0.4, 0.002, None, 0.03)[i] if not values else 0.1 * (i + 1) * values["sparsity"]
    ends = (
        {"score_low": None, "score_high": None} if score is None else {"score_low": score / 2, "score_high": 2 * score}
    )
    note = "the score is no number" if score is None else ""
    facts = {"layer": layer, "index": i, "kind": "linear", "parameters": 10, "macs": 1000 * (i + 1)}
    found = {"score": score, **ends, "remains": None, "evaluations": 1.0, "seconds": 0.1, "note": note}
    return {**facts, **values, **found}
