"""Which techniques on which runtimes: ticks in, a `Space` out, with what cannot be and why.

Techniques stand under the group that they name themselves, runtimes that this machine lacks are greyed with the
reason and never hidden. Settings come from the knobs' own declarations.
Left out: open knobs (`Choice`, `Range`), layers to keep; those are written in Python for now.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import ipywidgets as ipw
import traitlets

from workbench.backends.base import Backend
from workbench.draft import ModelFacts
from workbench.errors import UserError
from workbench.plots.markup import Markup, join, tag
from workbench.recipe import Open, Recipe, Space
from workbench.registry import find, members
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.controls import changed, control

#: Ticked at first: what needs no training and has a chance on every machine.
FIRST_TECHNIQUES = ("bf16", "dynamic_int8", "static_int8")


def refusals(techniques: Iterable[str], backends: Iterable[str], facts: ModelFacts | None) -> list[tuple[str, str]]:
    """(`technique × runtime`, reason) for every pair that cannot be realised; pairs of no facts only by precision."""
    neutral = ModelFacts(architecture="this model")
    found = []
    for technique in techniques:
        kind: Any = find("techniques", technique)
        unfit = kind().fits(facts) if facts else None
        if unfit:
            found.append((technique, unfit))
            continue
        for name in backends:
            backend: Any = find("backends", name)()
            reason = backend.available() or backend.refuses(kind.precisions or frozenset({"fp32"}), facts or neutral)
            if reason:
                found.append((f"{technique} × {name}", reason))
    return found


def summary(kind: type) -> str:
    """The first sentence of a plug-in's docstring."""
    return inspect.cleandoc(kind.__doc__ or kind.__name__).split("\n\n")[0].replace("\n", " ")


class RecipeBuilder(Adapter):
    """`value` is a `Space`, None while no runtime is ticked. `facts` of the model sharpen what is refused."""

    facts = traitlets.Any(None, allow_none=True)

    def __init__(
        self, techniques: Iterable[str] = FIRST_TECHNIQUES, backends: Iterable[str] = (), **kwargs: Any
    ) -> None:
        kinds: Mapping[str, Any] = members("backends")
        self._kinds: dict[str, Any] = dict(members("techniques"))
        self._lacking = {name: kind.available() for name, kind in kinds.items()}
        wanted = set(backends) or {name for name, reason in self._lacking.items() if not reason}
        self.techniques = {n: _tick(n, k, n in set(techniques)) for n, k in self._kinds.items()}
        self.backends = {n: self._runtime(n, k, n in wanted) for n, k in members("backends").items()}
        self.settings = {n: _controls(k.knobs()) for n, k in self._kinds.items()}
        self.workload = _controls(Backend.knobs())
        self.told = html("", "wb-refusals")
        self._settings = ipw.VBox()
        toggle = ipw.ToggleButton(value=False, description="Settings", tooltip="Knobs of techniques and runtimes")
        toggle.observe(self._unfold, "value")
        self._settings.layout.display = "none"
        super().__init__(
            [
                heading("Techniques"),
                *self._grouped(),
                heading("Runtimes"),
                *self._runtimes(),
                self.told,
                toggle,
                self._settings,
            ],
            "wb-card",
            **kwargs,
        )
        self.children = (*self.children, self.code_box())
        every = [*self.workload.values(), *(made for group in self.settings.values() for made in group.values())]
        for made in (*self.techniques.values(), *self.backends.values(), *every):
            made.observe(self._assign, "value")
        self.observe(self._assign, "facts")
        self._assign()

    @property
    def code(self) -> str:
        """`Space(Open('bf16', optional=True), backends=[Open('openvino')])`"""
        return repr(self.value)

    def show(self, recipe: Recipe) -> None:
        """Tick what `recipe` is made of, with its settings, and nothing else."""
        steps = {step.name: step for step in recipe.steps}
        for name, tick in self.techniques.items():
            tick.value = name in steps
            if name in steps:
                _set(self.settings[name], steps[name].settings())
        for name, tick in self.backends.items():
            tick.value = name == recipe.backend.name and not tick.disabled
        _set(self.workload, recipe.backend.settings())

    def task_options(self) -> dict[str, Any]:
        """What the task has to know of the runtimes' settings: it cuts its texts to the same length."""
        sequence = changed(Backend.knobs(), self.workload).get("sequence")
        return {"sequence": sequence} if sequence else {}

    def _unfold(self, change: dict) -> None:
        self._settings.layout.display = None if change["new"] else "none"

    def _assign(self, _: object = None) -> None:
        chosen = [name for name, tick in self.techniques.items() if tick.value]
        runtimes = [name for name, tick in self.backends.items() if tick.value]
        self._settings.children = self._shown_settings(chosen)
        self.value, wrong = self._space(chosen, runtimes)
        pairs = refusals(chosen, runtimes, self.facts)
        self.told.value = refusals_html(pairs, wrong)

    def _space(self, chosen: list[str], runtimes: list[str]) -> tuple[Space | None, str]:
        workload = changed(Backend.knobs(), self.workload)
        try:
            opened = [self._open(name) for name in chosen]
            return Space(*opened, backends=[Open(name, **workload) for name in runtimes]), ""
        except UserError as error:
            return None, "Tick at least one runtime." if not runtimes else str(error)

    def _open(self, name: str) -> Open:
        return Open(name, optional=True, **changed(self._kinds[name].knobs(), self.settings[name]))

    def _runtime(self, name: str, kind: type, wanted: bool) -> ipw.Checkbox:
        made = _tick(name, kind, wanted and not self._lacking[name])
        made.disabled = bool(self._lacking[name])
        return made

    def _runtimes(self) -> list[Any]:
        """Each runtime's tick, and under one that is not available the reason."""
        shown: list[Any] = []
        for name, tick in self.backends.items():
            reason = self._lacking[name]
            shown += [tick, html(reason, "wb-note", "wb-reason")] if reason else [tick]
        return shown

    def _grouped(self) -> list[Any]:
        """The ticks of the techniques under the headings of their groups."""
        shown: list[Any] = []
        for group in dict.fromkeys(kind.group for kind in self._kinds.values()):
            shown.append(html(group, "wb-group"))
            shown += [tick for name, tick in self.techniques.items() if self._kinds[name].group == group]
        return shown

    def _shown_settings(self, chosen: list[str]) -> list[Any]:
        shown = [html("all runtimes", "wb-group"), *self.workload.values()]
        for name in chosen:
            if self.settings[name]:
                shown += [html(name, "wb-group"), *self.settings[name].values()]
        return shown


def refusals_html(pairs: list[tuple[str, str]], wrong: str = "") -> Markup:
    """What will not be run, and why."""
    items = [tag("li", tag("b", pair), f": {reason}") for pair, reason in pairs]
    parts = [tag("p", wrong, class_="wb-what", role="alert")] if wrong else []
    if items:
        word = "pair" if len(items) == 1 else "pairs"
        parts.append(tag("details", tag("summary", f"{len(items)} {word} will be left out"), tag("ul", *items)))
    return join(parts)


def _tick(name: str, kind: type, ticked: bool) -> ipw.Checkbox:
    title = getattr(kind, "title", name)
    return styled(ipw.Checkbox(value=ticked, description=title, tooltip=summary(kind), indent=False), "wb-tick")


def _set(controls: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    for name, made in controls.items():
        value = values[name]
        made.value = ", ".join(value) if isinstance(value, tuple) else value


def _controls(knobs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: control(name, knob) for name, knob in knobs.items()}
