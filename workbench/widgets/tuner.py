"""What is wanted and how long to look: goal, budget, strategy; start, pause, stop, resume; and how far it is.

The buttons call what their owner put into `start`, `pause`, `stop`, `resume` and `again`; the tuner itself never
touches a study. Left out: knobs of strategies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.errors import UserError
from workbench.plots import table as tables
from workbench.plots.markup import tag
from workbench.registry import find, members
from workbench.tuning.effort import Effort, effort, seconds_left, typical_seconds
from workbench.tuning.goal import MINIMISE, Goal
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel
from workbench.widgets.pieces import Fold, Slider
from workbench.widgets.plugin_row import summary
from workbench.widgets.sweep_words import (
    allowance_html,
    bar_html,
    best_html,
    examples_of,
    failed_html,
    first_row,
    refused_html,
    share_done,
    stages_html,
    status_html,
)

__all__ = ["Tuner", "goal_of", "share_done", "status_html"]

#: Buttons that make sense by the study's state; a click on another one would do no harm.
ALLOWED = {
    "none": {"start"},
    "idle": {"start", "resume"},
    "running": {"pause", "stop"},
    "stopping": {"stop"},
    "interrupted": {"start", "resume"},
    "failed": {"start", "resume"},
}
#: What each thing to minimise is called.
COSTS = {
    "latency": "latency p50",
    "latency_p90": "latency p90",
    "size": "size on disk",
    "memory": "peak memory",
    "throughput": "throughput (as much as possible)",
}
BUTTONS = (
    ("start", "primary", "Search this space in the background"),
    ("pause", "", "Let the running trial end, then stop"),
    ("stop", "warning", "End the running trial at once; it is put back, not lost"),
    ("resume", "", "Go on with the latest sweep where it stood"),
)
#: So many failed trials are listed; the table has all of them.
LISTED = 20


def goal_of(
    drop: float,
    absolute: bool,
    minimise: str,
    trials: int,
    minutes: float,
    *,
    front: bool = False,
    evidence: float = 0.5,
    raw: bool = False,
) -> Goal:
    """The goal in the tuner's own units: percent of the score or points, 0 for no limit; raises `UserError`.

    `raw` takes the drop as it is, for metrics that are no share.
    """
    share = drop if absolute and raw else round(drop / 100, 8)
    return Goal(
        max_drop=share,
        absolute=absolute,
        minimise=minimise,
        trials=trials or None,
        minutes=minutes or None,
        front=front,
        evidence=evidence,
    )


class Tuner(Adapter):
    """`value` is a `Goal`, None while it cannot be made. In: `space` is what Start will search, `status` what is shown
    (a `workbench.study.Status`, or None without a study), `frame` (as `Study.frame()`) and `refused` what came of it,
    `goal` that of the latest sweep, `examples` and `metric` of the data, where they are known before the baseline."""

    space = traitlets.Any(None, allow_none=True)
    status = traitlets.Any(None, allow_none=True)
    busy = traitlets.Unicode("")
    frame = traitlets.Instance(pd.DataFrame, allow_none=True)
    refused = traitlets.List()
    goal = traitlets.Any(None, allow_none=True)
    examples = traitlets.Int(0)
    metric = traitlets.Unicode("")

    def __init__(self, **kwargs: Any) -> None:
        for name in ("start", "pause", "stop", "resume"):
            setattr(self, name, lambda: None)
        self.again: Callable[[int], None] = lambda number: None
        self._effort: Effort | None = None
        self._begun: Effort | None = None
        self._rows: list[dict[str, Any]] = []
        self._failures: dict[int, Any] = {}
        self._build()
        fields = [self.drop, self.absolute, self.minimise, self.whole, self.evidence, self.trials, self.minutes]
        super().__init__(self._layout(), "wb-card", **kwargs)
        styled(self, "wb-tuner")
        for field in (*fields, self.strategy):
            field.observe(self._assign, "value")
        for name, button in self.buttons.items():
            button.on_click(partial(self._press, name))
        self.lost.observe(self._show_lost, "unfolded")
        self.observe(self._read, "frame")
        self.observe(self._assign, ["metric", "examples", "frame"])
        self.observe(self._count, "space")
        self.observe(self._show, ["status", "busy", "frame"])
        self.observe(self._show_lost, ["frame", "refused"])
        self._assign()
        self._show()
        self._show_lost()

    @property
    def code(self) -> str:
        """The call that Start makes."""
        return f"study.start({self.space!r}, strategy={self.strategy.value!r}, goal={self.value!r})"

    def lend_actions(self) -> ipw.HBox:
        """The row of buttons, for an owner who keeps it in sight; the tuner shows it, and the line of what is happening
        that stands with it, no more."""
        self.children = tuple(child for child in self.children if child not in (self.actions, self.line))
        return self.actions

    # --- what is wanted -----------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.drop = Slider(label="Lose at most", low=0, high=5, most=100, step=0.05, value=1.0, unit="%")
        self.absolute = ipw.Dropdown(
            options=[("percent of the score", False), ("points of the score", True)],
            description="Counted in",
            tooltip="1 % of a score of 90 is 0.9 points",
        )
        self.meaning = html("", "wb-note", "wb-under")
        self.minimise = ipw.Dropdown(options=[(COSTS[name], name) for name in MINIMISE], description="Minimise")
        self.whole = ipw.Dropdown(
            options=[("the best trial", False), ("the front of all of them", True)],
            description="Find",
            tooltip="The one trial that meets the goal best, or every trade of score against cost up to the drop",
        )
        self.evidence = ipw.Dropdown(
            options=[("the estimate is enough", 0.5), ("the whole 95 % interval", 0.975)],
            description="How sure",
            tooltip="What has to lie within the allowed drop",
        )
        names = list(members("strategies"))
        first = "frontier" if "frontier" in names else names[0]
        self.strategy = ipw.Dropdown(options=names, value=first, description="Strategy")
        self.meant = html("", "wb-note", "wb-under")
        self.trials = ipw.BoundedIntText(value=20, min=0, max=1_000_000, description="Trials", tooltip="0 = no limit")
        self.minutes = ipw.BoundedFloatText(
            value=0, min=0, max=1e6, step=5, description="Minutes", tooltip="0 = no limit"
        )
        self.limits = html("", "wb-note", "wb-under")
        self.buttons = {
            name: ipw.Button(description=name.capitalize(), button_style=style, tooltip=tip)
            for name, style, tip in BUTTONS
        }
        self.actions = styled(ipw.HBox([*self.buttons.values()]), "wb-buttons")
        self.bar, self.line = html("", "wb-bar-box"), html("", "wb-status")
        self.stages, self.best = html("", "wb-stage-box"), html("", "wb-best")
        self.panel = ErrorPanel()
        self.lost = Fold(label="Failed and refused")
        self._lost = styled(ipw.VBox(), "wb-log")

    def _layout(self) -> list[Any]:
        pairs = [styled(each, "wb-pair") for each in (self.absolute, self.minimise, self.whole, self.evidence)]
        budget = styled(ipw.HBox([styled(each, "wb-half") for each in (self.trials, self.minutes)]), "wb-halves")
        return [
            heading("Goal and sweep"),
            self.drop,
            pairs[0],
            self.meaning,
            *pairs[1:],
            styled(self.strategy, "wb-pair"),
            self.meant,
            budget,
            self.limits,
            self.panel,
            self.actions,
            self.bar,
            self.line,
            self.stages,
            self.best,
            self.lost,
            self._lost,
            self.code_box(),
        ]

    def _assign(self, _: object = None) -> None:
        first = first_row(self._rows)
        metric = self.metric or (str(first["metric"]) if first else "")
        raw = not tables.is_fraction(metric or "accuracy")
        self.drop.unit = ("pt" if not raw else "") if self.absolute.value else "%"
        try:
            self.value = goal_of(
                self.drop.value,
                self.absolute.value,
                self.minimise.value,
                self.trials.value,
                self.minutes.value,
                front=self.whole.value,
                evidence=self.evidence.value,
                raw=raw,
            )
            self.panel.error = None
        except UserError as error:
            self.value, self.panel.error = None, error
        if self.value is not None:
            score = tables.number(first["accuracy"]) if first else None
            self.meaning.value = allowance_html(self.value, metric, score, self.examples or examples_of(first))
        self.meant.value = tag("span", summary(find("strategies", self.strategy.value)))
        self._say_limits()

    def _read(self, _: object = None) -> None:
        self._rows = [] if self.frame is None else tables.rows(self.frame)

    def _count(self, _: object = None) -> None:
        self._effort = effort(self.space) if self.space is not None else None
        self._say_limits()

    def _say_limits(self) -> None:
        """What the budget comes to."""
        if not self.trials.value and not self.minutes.value:
            said = "No limit: it ends when the space is exhausted"
        elif self._effort and self.trials.value >= self._effort.recipes > 0:
            said = f"enough for all {self._effort.recipes:,} recipes of this space"
        else:
            said = "whichever ends first; 0 = no limit" if self.trials.value and self.minutes.value else "0 = no limit"
        self.limits.value = tag("span", said)

    # --- what is happening --------------------------------------------------------------------------------------

    def _press(self, name: str, _: object = None) -> None:
        if name == "start":
            self._begun = self._effort
        getattr(self, name)()

    def _show(self, _: object = None) -> None:
        status = self.status
        allowed = set() if self.busy else ALLOWED.get(status.state if status else "none", {"start"})
        for name, button in self.buttons.items():
            button.disabled = name not in allowed
        self.line.value = tag("span", self.busy) if self.busy else status_html(status, self._left())
        self.bar.value, self.stages.value = bar_html(status), stages_html(status)
        self.best.value = best_html(self._rows, status.best if status else None)
        for each in (self.bar, self.stages, self.best):
            each.layout.display = None if each.value else "none"

    def _left(self) -> float | None:
        """Seconds that the running sweep will still take, as far as its trials tell."""
        status, goal = self.status, self.goal or self.value
        if status is None or status.state != "running" or goal is None:
            return None
        done = [row for row in self._rows if row["state"] == "complete"]
        known = typical_seconds((row["techniques"], tables.number(row["seconds"])) for row in done)
        each = known[0] if known else None
        if each is not None and self._begun and self._begun.recipes:
            each = 60 * self._begun.minutes(each) / self._begun.recipes
        goal = replace(goal, trials=status.planned)
        running = status.progress if status.trial is not None else 0.0
        recipes = self._begun.recipes if self._begun else None
        return seconds_left(goal, status.done + running, status.seconds, each, recipes)

    def _show_lost(self, _: object = None) -> None:
        """Trials without a measurement, the newest first, each with a button that runs it again."""
        rows = [row for row in self._rows if row["state"] in tables.FAILED]
        counts = [(len(rows), "failed"), (len(self.refused), "refused")]
        self.lost.note = ", ".join(f"{count:,} {word}" for count, word in counts if count) or "nothing"
        self.lost.layout.display = None if rows or self.refused else "none"
        if not self.lost.unfolded:
            self._lost.children = ()
            return
        shown = [self._failed(row) for row in rows[: -LISTED - 1 : -1]]
        if len(rows) > LISTED:
            shown.append(html(f"and {len(rows) - LISTED:,} more: see the table", "wb-note"))
        self._lost.children = (*shown, html(refused_html(self.refused), "wb-caveats"))

    def _failed(self, row: dict[str, Any]) -> Any:
        """One line of the log, made once for each trial."""
        number = int(row["number"])
        if number not in self._failures:
            button = ipw.Button(description="Run again", tooltip=f"Queue the recipe of trial {number} once more")
            button.on_click(lambda _: self.again(number))
            self._failures[number] = styled(ipw.HBox([html("", "wb-failed-row"), button]), "wb-log-row")
        self._failures[number].children[0].value = failed_html(row)
        return self._failures[number]
