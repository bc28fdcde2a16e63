"""A control for a knob, from the knob's own declaration: range, choices, unit and help are said once.

`control` is the plain control of one value. `KnobField` is that with a choice beside it of how the knob is held: one
value, a set of values to try, or a range. Left out: sets of a knob that is a list of names itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as ipw
import traitlets

from workbench.dimensions import Choice, Range
from workbench.errors import KnobError, UserError
from workbench.knobs import Knob
from workbench.plots.markup import tag
from workbench.widgets.base import html, styled

#: ipywidgets wants both ends of a bounded number; an open end gets this.
_FAR = 10**9
FIXED, SET, RANGE = "fixed", "set", "range"


def control(name: str, knob: Knob, value: Any = None) -> Any:
    """An ipywidget whose `value` is the knob's, labelled with its name and unit, with its help as tooltip."""
    value = knob.default if value is None else value
    common = {
        "description": label_of(name, knob),
        "tooltip": f"{knob.help} - {knob.allowed}",
        "style": {"description_width": "auto"},
    }
    match knob.kind:
        case "choice":
            made = ipw.Dropdown(options=[(str(c), c) for c in knob.choices], value=value, **common)
        case "bool":
            made = ipw.Checkbox(value=value, indent=False, **common)
        case "int" | "float":
            kind = ipw.BoundedIntText if knob.kind == "int" else ipw.BoundedFloatText
            low = -_FAR if knob.low is None else knob.low
            high = _FAR if knob.high is None else knob.high
            made = kind(value=value, min=low, max=high, **common)
        case "names":
            made = ipw.Text(value=", ".join(value), continuous_update=False, **common)
        case _:
            made = ipw.Text(value=value, continuous_update=False, **common)
    return styled(made, "wb-control")


def label_of(name: str, knob: Knob) -> str:
    """`group size (inputs)`"""
    return name.replace("_", " ") + (f" ({knob.unit})" if knob.unit else "")


def read(knob: Knob, made: Any) -> Any:
    """The knob's value from its control; that of a `KnobField` may be a `Choice` or a `Range`."""
    if knob.kind == "names" and isinstance(made.value, str):
        return tuple(part.strip() for part in made.value.split(",") if part.strip())
    return made.value


def changed(knobs: Mapping[str, Knob], controls: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from their defaults, by knob."""
    values = {name: read(knobs[name], made) for name, made in controls.items()}
    return {name: value for name, value in values.items() if value != knobs[name].default}


def set_of(name: str, knob: Knob, text: str) -> Choice:
    """`"0.3, 0.5"` as a `Choice` of the knob's values; raises `KnobError` for one that is not possible."""
    number = {"int": int, "float": float}.get(knob.kind, str)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    values = []
    for part in parts:
        try:
            values.append(knob.check(name, number(part)))
        except ValueError:
            raise KnobError(f"{name}: {part!r} is no number.", allowed=knob.allowed) from None
    if not values:
        raise KnobError(f"{name}: this set is empty.", allowed="values with commas between them", do="name one or two")
    return Choice(*dict.fromkeys(values))


def range_of(name: str, knob: Knob, low: float, high: float, points: int) -> Range:
    """A range whose ends the knob allows, in equal steps or, where the knob is so declared, equal factors."""
    ends = [knob.check(name, end) for end in (low, high)]
    return Range(ends[0], ends[1], points=points, log=knob.log and ends[0] > 0)


def open_kinds(knob: Knob) -> tuple[str, ...]:
    """How a knob can be held."""
    if knob.kind == "names":
        return (FIXED,)
    return (FIXED, SET, RANGE) if knob.kind in ("int", "float") else (FIXED, SET)


class KnobField(ipw.VBox):
    """`value` is the knob's value, a `Choice` or a `Range`; `problem` says why what was typed is none of them (`value`
    stays as it was). Assigning `value` shows it."""

    value = traitlets.Any()
    problem = traitlets.Unicode("")
    children: Any

    def __init__(self, name: str, knob: Knob, value: Any = None) -> None:
        self.name, self.knob = name, knob
        self._showing = False
        self.one = control(name, knob)
        self.kind = ipw.Dropdown(
            options=open_kinds(knob), description=f"{name.replace('_', ' ')}: one value, a set or a range"
        )
        self._parts: dict[str, Any] = {}
        self._below, self._wrong = styled(ipw.HBox(), "wb-open"), html("", "wb-error-line")
        self._below.layout.display = self._wrong.layout.display = "none"
        top = ipw.HBox([self.one, styled(self.kind, "wb-kind-of")])
        super().__init__(
            [styled(top, "wb-knob-line"), html(knob.help.replace("`", ""), "wb-note"), self._below, self._wrong]
        )
        styled(self, "wb-knob")
        self.value = knob.default
        self.one.observe(self._read, "value")
        self.kind.observe(self._switch, "value")
        self.observe(self._show, "value")
        self.observe(self._say, "problem")
        if value is not None:
            self.value = value

    def allow(self, opened: bool) -> None:
        """Whether the knob may be open; where it may not, only one value can be given."""
        self.kind.layout.display = None if opened and len(self.kind.options) > 1 else "none"
        if not opened:
            self.kind.value = FIXED

    def _switch(self, _: object = None) -> None:
        self._open(self.kind.value)
        self._read()

    def _open(self, kind: str) -> tuple[Any, ...]:
        """Show the controls of one way to hold it, and give them."""
        parts = self._controls(kind)
        self.one.disabled = kind != FIXED
        self._below.children = parts
        self._below.layout.display = None if parts else "none"
        return parts

    def _say(self, change: dict) -> None:
        self._wrong.value = tag("span", change["new"], role="alert")
        self._wrong.layout.display = None if change["new"] else "none"

    def _controls(self, kind: str) -> tuple[Any, ...]:
        """The controls of a set or a range, filled with what the knob's declaration would try."""
        if kind == FIXED:
            return ()
        if kind not in self._parts:
            made = self._set() if kind == SET else self._range()
            for each in made:
                each.observe(self._read, "value")
            self._parts[kind] = made
        return tuple(self._parts[kind])

    def _set(self) -> list[Any]:
        knob, first = self.knob, self.knob.search or (self.knob.default,)
        if knob.kind in ("choice", "bool"):
            values = knob.choices or (False, True)
            some = set(first) if len(set(first)) > 1 else set(values)
            return [styled(ipw.Checkbox(value=v in some, description=str(v), indent=False), "wb-set") for v in values]
        text = ", ".join(f"{v:g}" if isinstance(v, int | float) else str(v) for v in first)
        return [styled(ipw.Text(value=text, description="values", continuous_update=False), "wb-set-text")]

    def _range(self) -> list[Any]:
        knob = self.knob
        ends = [v for v in (*knob.search, knob.default) if isinstance(v, int | float)]
        low, high = min(ends), max(ends)
        if low == high:
            low, high = (max(low / 2, knob.low or 0), low * 2 or 1)
            high = high if knob.high is None else min(high, knob.high)
        whole = knob.kind == "int"
        return [
            styled(
                (ipw.IntText if integer else ipw.FloatText)(
                    value=round(v) if integer else v, description=word, continuous_update=False
                ),
                "wb-end",
            )
            for word, v, integer in (("from", low, whole), ("to", high, whole), ("tries", 3, True))
        ]

    def _read(self, _: object = None) -> None:
        """Bring `value` to the controls."""
        if self._showing:
            return
        try:
            value = self._given()
            self.problem = ""
        except UserError as error:
            self.problem = f"{error.what} Allowed: {error.allowed}" if error.allowed else error.what
            return
        self._showing = True
        try:
            self.value = value
        finally:
            self._showing = False

    def _given(self) -> Any:
        kind = self.kind.value
        parts = self._controls(kind)
        if kind == FIXED:
            return read(self.knob, self.one)
        if kind == RANGE:
            return range_of(self.name, self.knob, *(part.value for part in parts))
        if self.knob.kind not in ("choice", "bool"):
            return set_of(self.name, self.knob, parts[0].value)
        ticked = [v for v, part in zip(self.knob.choices or (False, True), parts, strict=True) if part.value]
        if not ticked:
            raise KnobError(f"{self.name}: no value is ticked.", allowed="at least one")
        return Choice(*ticked)

    def _show(self, change: dict) -> None:
        """Bring the controls to a `value` that was assigned."""
        if self._showing:
            return
        value = change["new"]
        self._showing = True
        try:
            self.kind.value = SET if isinstance(value, Choice) else RANGE if isinstance(value, Range) else FIXED
            parts = self._open(self.kind.value)
            if isinstance(value, Range):
                for part, number in zip(parts, (value.low, value.high, value.points), strict=True):
                    part.value = number
            elif isinstance(value, Choice) and self.knob.kind in ("choice", "bool"):
                for each, part in zip(self.knob.choices or (False, True), parts, strict=True):
                    part.value = each in value.values
            elif isinstance(value, Choice):
                parts[0].value = ", ".join(map(str, value.values))
            else:
                self.one.value = ", ".join(value) if isinstance(value, tuple) else value
            self.problem = ""
        finally:
            self._showing = False


def fields(knobs: Mapping[str, Knob]) -> dict[str, KnobField]:
    """A field for every knob."""
    return {name: KnobField(name, knob) for name, knob in knobs.items()}


def told(value: Any) -> str:
    """A setting in words: `100 or 300`, `0.3 to 0.7`."""
    if isinstance(value, Choice):
        return " or ".join(map(str, value.values))
    if isinstance(value, Range):
        return f"{value.low:g} to {value.high:g}"
    return ", ".join(value) or "none" if isinstance(value, tuple) else str(value)
