"""Recipes that a person orders of a study: queued in its store, measured by a runner in the background.

An order is one attribute of the study (`queue:…`), taken away when the recipe is a trial; a killed runner loses none.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from workbench.errors import TrialError
from workbench.recipe import Recipe
from workbench.running.store import Store
from workbench.trial import Trial


class Ordering:
    """The part of a study that has recipes measured one by one."""

    _store: Store
    _trial: Callable[[int], Trial]
    _spawn: Callable[[], None]
    status: Callable[[], Any]
    wait: Callable[..., None]

    def run(self, recipe: Recipe, meta: dict[str, Any] | None = None) -> Trial:
        """Measure one recipe and give its trial; one that the study holds already is not run twice.

        `meta` is kept with a new trial, such as where it comes from. Raises `Refused` (before any work) and
        `TrialError` with the reason where it failed.
        """
        for _ in range(3):  # A runner that is about to end may not see the order any more; then another one does.
            if not self.order([recipe], meta):
                break
            self.wait(lambda: (t := self._store.find(recipe)) is not None and t.finished)
            if self._store.get(f"refused:{recipe.id}"):
                break
        found = self._store.find(recipe)
        if found is None:
            raise TrialError(f"{recipe.title} was not run: {self._refusal(recipe)}")
        if found.measurement is None:
            raise TrialError(
                f"Trial {found.number} failed: {found.error}", do="see its `details`, or study.again(number)"
            )
        return found

    def order(self, recipes: Iterable[Recipe], meta: dict[str, Any] | None = None) -> list[Recipe]:
        """Have a runner measure `recipes` one after the other in the background; returns at once, with what is left
        to measure. Nothing is ordered twice, so that ordering again goes on where a runner ended."""
        ordered = [v["recipe"] for k, v in self._store.attributes().items() if k.startswith("queue:") and v]
        left = [each for each in recipes if (t := self._store.find(each)) is None or not t.finished]
        for place, recipe in enumerate(each for each in left if each.to_json() not in ordered):
            self._store.set(f"refused:{recipe.id}", None)
            # The runner takes them by name.
            row = {"recipe": recipe.to_json(), "meta": meta or {}}
            self._store.set(f"queue:{time.time():.6f}-{place:04d}-{uuid.uuid4().hex[:12]}", row)
        if left:
            self._awake()
        return left

    def again(self, number: int) -> None:
        """Queue a failed trial's recipe once more, as a new trial."""
        self._trial(number)
        self._store.again(number)
        self._awake()

    def _refusal(self, recipe: Recipe) -> str:
        row = self._store.get(f"refused:{recipe.id}")
        return row["reason"] if row else self.status().message or "the runner ended first; see the logs folder"

    def _awake(self) -> None:
        """See to it that a runner is there."""
        if self.status().state not in ("running", "stopping"):
            self._spawn()
