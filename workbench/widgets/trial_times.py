"""Milliseconds by layer of chosen trials: what the study holds is read, the rest is measured by its runner on a click.

Left out: timing other settings than a trial's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as ipw
import pandas as pd

from workbench.plots.markup import tag
from workbench.reading import measured
from workbench.widgets.background import Background
from workbench.widgets.base import html, styled


class TrialTimes(ipw.HBox):
    """`look(study, [0, 5])` reads what there is; `profiles` are the tables of `Study.costs` by trial, and `changed` is
    called when there are more. `failed` hears the error of a measurement (None where one begins)."""

    def __init__(self, changed: Callable[[], None], failed: Callable[[Exception | None], None]) -> None:
        self.changed, self.failed = changed, failed
        self.button = ipw.Button(
            description="Time the layers", tooltip="Have the runner measure every layer with the runtime's profiler"
        )
        self.line = html("", "wb-note")
        self.profiles: dict[int, pd.DataFrame] = {}
        self._study: Any = None
        self._numbers: list[int] = []
        self._work = Background("trial-times")
        super().__init__([self.button, self.line])
        styled(self, "wb-row")
        self.button.on_click(lambda _: self.ask())
        self._say()

    @property
    def code(self) -> str:
        """The calls that give `profiles`, in its order."""
        recipes = [measured(self._study, number).recipe for number in self.profiles]
        return ", ".join(f"study.costs({recipe!r})" for recipe in recipes)

    def look(self, study: Any, numbers: Sequence[int]) -> None:
        """Other trials, or none: read what the study holds of them."""
        self._study, self._numbers, self.profiles = study, list(numbers), {}
        self.line.value = ""
        self._say()
        if study is None or not numbers:
            self._work.forget()
            return
        wanted = list(numbers)
        self._work.do(lambda: self._held(study, wanted), self._read, self._wrong)

    def ask(self) -> None:
        """Have the runner measure the trials that were not, one by one."""
        study, wanted = self._study, [number for number in self._numbers if number not in self.profiles]
        if study is None or not wanted:
            return
        self.failed(None)
        self.button.disabled = True
        self.line.value = tag("span", "Timing the layers in the runner …")

        def measure() -> dict[int, pd.DataFrame]:
            found = dict(self.profiles)
            for number in wanted:
                found[number] = study.costs(measured(study, number).recipe)
            return found

        self._work.do(measure, self._read, self._wrong)

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until what was asked for is shown (for scripts and tests)."""
        self._work.settle(seconds)

    def _held(self, study: Any, numbers: list[int]) -> dict[int, pd.DataFrame]:
        found = {number: study.costed(measured(study, number).recipe) for number in numbers}
        return {number: table for number, table in found.items() if table is not None}

    def _read(self, found: dict[int, pd.DataFrame]) -> None:
        self.profiles, self.line.value = found, ""
        self._say()
        self.changed()

    def _wrong(self, error: Exception) -> None:
        self.line.value = ""
        self._say()
        self.failed(error)

    def _say(self) -> None:
        left = [number for number in self._numbers if number not in self.profiles]
        self.button.disabled = not left
        self.layout.display = None if left else "none"
