"""This machine at a glance: what it has, which runtimes are there, and what that means for low precision.

    MachineCard()

`value` is a `Machine`, whose `differences` tells two of them apart. Reading it takes up to some seconds where there
is a GPU to ask, so that happens in a thread. Left out: other machines; a study names the one it was measured on.
"""

from __future__ import annotations

from typing import Any

import ipywidgets as ipw
import traitlets

from workbench.measure.advice import advice, instructions, warnings
from workbench.measure.machine import Machine
from workbench.plots.markup import Markup, join, table, tag
from workbench.registry import describe
from workbench.widgets.background import Background
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.error_panel import error_html


def facts_html(machine: Machine) -> Markup:
    """Processor, cores, memory, GPU and system, and which instructions of low precision there are."""
    cores = f"{machine.cores_usable} usable" + (
        f" of {machine.cores_logical}" if machine.cores_logical != machine.cores_usable else ""
    )
    cores += f" ({machine.cores_physical} physical)"
    if machine.cpu_limit is not None:
        cores += f", the container may use {machine.cpu_limit:g}"
    facts = {
        "Processor": machine.cpu,
        "Cores": cores,
        "Memory": f"{machine.ram_mb / 1000:.1f} GB",
        "GPU": ", ".join(machine.gpus) or "none found",
        "System": f"{machine.system}, Python {machine.python}",
    }
    listed = tag("dl", *(item for key, value in facts.items() for item in (tag("dt", key), tag("dd", value))))
    return join([tag("div", listed, class_="wb-facts"), instructions_html(machine)])


def instructions_html(machine: Machine) -> Markup:
    """One mark for each instruction set, said in a word as well as in a sign."""
    words = {True: ("yes", "✓"), False: ("no", "✗"), None: ("unknown", "?")}
    marks = [
        tag("li", tag("span", words[has][1], aria_hidden="true"), f" {name}: {words[has][0]}", class_=f"wb-{css}")
        for name, has in instructions(machine).items()
        for css in ("has" if has else "lacks",)
    ]
    return tag("ul", *marks, class_="wb-marks", aria_label="Instructions for low precision")


def meaning_html(machine: Machine) -> Markup:
    """What to expect; a warning comes first and says that it is one."""
    warned = warnings(machine)
    parts = [tag("p", tag("b", "Warning: "), line, class_="wb-warning", role="note") for line in warned]
    told = [tag("li", line) for line in advice(machine) if line not in warned]
    return join([*parts, tag("ul", *told, class_="wb-list")])


def runtimes_html(rows: list[dict[str, Any]], machine: Machine) -> Markup:
    """Every runtime, with the reason and the line that installs it where it is missing; then the libraries."""
    import pandas as pd

    shown = pd.DataFrame(
        [
            {"Runtime": row["title"], "Here": "ready" if row["available"] else missing_html(row["reason"])}
            for row in rows
        ],
        columns=["Runtime", "Here"],
        # A column of strings would take markup for plain text.
        dtype=object,
    )
    found = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return join([table(shown, css="wb-table wb-narrow"), tag("p", f"Libraries: {found}", class_="wb-note")])


def missing_html(reason: str) -> Markup:
    """`openvino is not installed: pip install …` with the line set as code."""
    what, found, line = str(reason).partition(": ")
    return tag("span", what, ": ", tag("code", line)) if found else tag("span", what)


class MachineCard(Adapter):
    """`value` is the `Machine`, None until it was read.

    MachineCard()
    """

    value = traitlets.Instance(Machine, allow_none=True)

    def __init__(self, **kwargs: Any) -> None:
        self.facts, self.meaning = html("", "wb-flow"), html("", "wb-flow")
        self.runtimes = html("", "wb-flow")
        self.again = ipw.Button(description="Read again", tooltip="Look at this machine again: its load changes")
        self.again.on_click(lambda _: self.read())
        super().__init__([heading("This machine"), self.facts], "wb-card", **kwargs)
        actions = styled(ipw.HBox([self.again, self.code_box()]), "wb-row")
        means, there = html(tag("h4", "What this means")), html(tag("h4", "Runtimes"))
        self.children = (*self.children, means, self.meaning, there, self.runtimes, actions)
        self._background = Background("machine")
        self.read()

    @property
    def code(self) -> str:
        """`Machine.here()`"""
        return "Machine.here()"

    @property
    def warnings(self) -> list[str]:
        """What a person should know before a run in low precision; empty where the hardware supports it."""
        return warnings(self.value) if self.value else []

    def read(self) -> None:
        """Look at the machine in a thread and show it."""
        self.again.disabled = True
        if self.value is None:
            self.facts.value = tag("p", "Reading this machine …", class_="wb-note")
        self._background.do(_look, self._show, self._wrong)

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until it is shown (for scripts and tests)."""
        self._background.settle(seconds)

    def _show(self, seen: tuple[Machine, list[dict[str, Any]]]) -> None:
        machine, rows = seen
        self.facts.value, self.meaning.value = facts_html(machine), meaning_html(machine)
        self.runtimes.value = runtimes_html(rows, machine)
        self.value, self.again.disabled = machine, False

    def _wrong(self, error: Exception) -> None:
        self.facts.value, self.again.disabled = error_html(error), False


def _look() -> tuple[Machine, list[dict[str, Any]]]:
    return Machine.here(), describe("backends")
