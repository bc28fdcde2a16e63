"""What is wanted and how long to look: goal, budget, strategy; start, stop, resume; and how far it is.

The buttons call what their owner put into `start`, `stop` and `resume`; the tuner itself never touches a study.
Left out: a goal of several costs at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as ipw
import traitlets

from workbench.errors import UserError
from workbench.plots.markup import Markup, join, tag
from workbench.registry import members
from workbench.tuning.goal import MINIMISE, Goal, parse_budget
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel

#: Buttons that make sense by the study's state; a click on another one would do no harm.
ALLOWED = {
    "none": {"start"},
    "idle": {"start", "resume"},
    "running": {"stop"},
    "stopping": set(),
    "interrupted": {"start", "resume"},
    "failed": {"start", "resume"},
}


def goal_of(drop_percent: float, absolute: bool, minimise: str, budget: str) -> Goal:
    """The goal in the tuner's own units: percent of the score or points; raises `UserError`."""
    trials, minutes = parse_budget(budget)
    share = round(drop_percent / 100, 8)
    return Goal(max_drop=share, absolute=absolute, minimise=minimise, trials=trials, minutes=minutes)


def status_html(status: Any) -> Markup:
    """One line on what is happening; every text is escaped."""
    if status is None:
        return tag("span", "No study is open. Choose a model, techniques and runtimes, then Start.")
    parts = [tag("b", status.state, class_=f"wb-state wb-{status.state}")]
    if status.trial is not None:
        parts.append(tag("span", f"trial {status.trial}: {status.title}"))
    if status.stage:
        parts.append(tag("span", f"{status.stage} {100 * status.progress:.0f} %"))
    planned = f" of at most {status.planned}" if status.planned else ""
    parts.append(tag("span", f"{status.done}{planned} trials done"))
    if status.seconds:
        parts.append(tag("span", duration(status.seconds)))
    if status.message and status.message != status.title:
        parts.append(tag("span", status.message))
    return join(parts, " · ")


def duration(seconds: float) -> str:
    """`48 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def share_done(status: Any) -> float:
    """How much of the sweep is done, 0 … 1; with a budget of time only the running trial's own share is known."""
    if status is None or status.state not in ("running", "stopping"):
        return 0.0
    if not status.planned:
        return min(max(status.progress, 0.0), 1.0)
    running = status.progress if status.trial is not None else 0.0
    return min((status.done + running) / status.planned, 1.0)


class Tuner(Adapter):
    """`value` is a `Goal`, None while a field cannot be read. `space` is what Start will search, `status` what is
    shown (a `workbench.study.Status`, or None without a study)."""

    space = traitlets.Any(None, allow_none=True)
    status = traitlets.Any(None, allow_none=True)
    busy = traitlets.Unicode("")

    def __init__(self, **kwargs: Any) -> None:
        self.start: Callable[[], None] = lambda: None
        self.stop: Callable[[], None] = lambda: None
        self.resume: Callable[[], None] = lambda: None
        label = {"style": {"description_width": "auto"}}
        self.drop = ipw.BoundedFloatText(value=1.0, min=0, max=100, step=0.1, description="Lose at most (%)", **label)
        self.absolute = ipw.Dropdown(
            options=[("of the score", False), ("points", True)], tooltip="1 % of a score of 90 is 0.9 points"
        )
        self.minimise = ipw.Dropdown(options=MINIMISE, description="Minimise", **label)
        self.budget = ipw.Text(value="20", description="Budget", tooltip="trials (20) or time (15min)", **label)
        self.budget.continuous_update = False
        self.strategy = ipw.Dropdown(options=list(members("strategies")), description="Strategy", **label)
        if "grid" in self.strategy.options:
            self.strategy.value = "grid"
        self.buttons = {
            name: ipw.Button(description=name.capitalize(), button_style=style, tooltip=tip)
            for name, style, tip in (
                ("start", "primary", "Search this space in the background"),
                ("stop", "warning", "End the running trial at once; it is put back, not lost"),
                ("resume", "", "Go on with the latest sweep where it stood"),
            )
        }
        self.line = html("", "wb-status")
        self.bar = styled(ipw.FloatProgress(min=0, max=1), "wb-bar")
        self.panel = ErrorPanel()
        fields = [self.drop, self.absolute, self.minimise, self.budget, self.strategy]
        super().__init__(
            [
                heading("Goal and sweep"),
                styled(ipw.HBox(fields), "wb-row"),
                styled(ipw.HBox([*self.buttons.values(), self.code_box()]), "wb-row"),
                self.bar,
                self.line,
                self.panel,
            ],
            "wb-card",
            **kwargs,
        )
        for field in fields:
            field.observe(self._assign, "value")
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: getattr(self, name)())
        self.observe(self._show, ["status", "busy"])
        self._assign()
        self._show()

    @property
    def code(self) -> str:
        """The call that Start makes."""
        return f"study.start({self.space!r}, strategy={self.strategy.value!r}, goal={self.value!r})"

    def _assign(self, _: object = None) -> None:
        try:
            self.value = goal_of(self.drop.value, self.absolute.value, self.minimise.value, self.budget.value)
            self.panel.error = None
        except UserError as error:
            self.value, self.panel.error = None, error

    def _show(self, _: object = None) -> None:
        allowed = set() if self.busy else ALLOWED.get(self.status.state if self.status else "none", {"start"})
        for name, button in self.buttons.items():
            button.disabled = name not in allowed
        self.line.value = tag("span", self.busy) if self.busy else status_html(self.status)
        self.bar.value = share_done(self.status)
