"""A knob, declared once.

The constructor's argument, its validation, the slider, the search dimension, the row in the documentation and the
JSON all come from one declaration on the plug-in's class:

    class StaticInt8(Technique):
        samples: int = knob(300, low=1, high=10_000, search=(100, 300), help="calibration examples")

`Knobbed` turns such a class into a frozen, keyword-only dataclass that validates itself. What is left out: knobs that
depend on each other; a plug-in says such things in `fits`.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self, dataclass_transform

from workbench.errors import KnobError
from workbench.registry import unknown


@dataclass(frozen=True)
class Knob:
    """What is known of one knob: default, range or choices, the values a search tries, unit, help."""

    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    search: tuple[Any, ...] = ()
    log: bool = False
    unit: str = ""

    @property
    def kind(self) -> str:
        """One of `choice`, `bool`, `int`, `float`, `text`, `names` (a tuple of strings)."""
        if self.choices:
            return "choice"
        if isinstance(self.default, tuple):
            return "names"
        return {bool: "bool", int: "int", float: "float", str: "text"}[type(self.default)]

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return " | ".join(map(str, self.choices))
        if self.kind == "bool":
            return "true | false"
        if self.kind == "names":
            return "a list of names or patterns"
        low = "" if self.low is None else f" ≥ {self.low:g}"
        high = "" if self.high is None else f" ≤ {self.high:g}"
        return {"int": "a whole number", "float": "a number", "text": "text"}[self.kind] + low + high

    def check(self, name: str, value: Any) -> Any:
        """`value` in its canonical type, or `KnobError`."""
        try:
            value = self._coerce(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._refuse(name, value) from error
        out_of_range = isinstance(value, int | float) and (
            (self.low is not None and value < self.low) or (self.high is not None and value > self.high)
        )
        if out_of_range or (self.choices and value not in self.choices):
            raise self._refuse(name, value)
        return value

    def to_json(self) -> dict[str, Any]:
        """A row for `workbench list --json`; `None` where a bound is open."""
        row = {key: getattr(self, key) for key in ("kind", "default", "low", "high", "unit", "help", "allowed")}
        return {**row, "choices": list(self.choices), "search": list(self.search)}

    def _coerce(self, value: Any) -> Any:
        match self.kind:
            case "choice":
                # A command line has only text; a number must not be rounded into a choice.
                return type(self.choices[0])(value) if isinstance(value, str) else value
            case "bool":
                if not isinstance(value, bool):
                    raise TypeError
            case "int":
                if isinstance(value, bool) or int(value) != value:
                    raise ValueError
                return int(value)
            case "float":
                if isinstance(value, bool) or not math.isfinite(value):
                    raise ValueError
                return float(value)
            case "text":
                if not isinstance(value, str):
                    raise TypeError
            case "names":
                if isinstance(value, str) or not all(isinstance(item, str) for item in value):
                    raise TypeError
                return tuple(value)
        return value

    def _refuse(self, name: str, value: Any) -> KnobError:
        return KnobError(f"{name} = {value!r} is not possible.", allowed=self.allowed, do=f"({name}: {self.help})")


def knob(
    default: Any,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
    search: tuple[Any, ...] = (),
    log: bool = False,
    unit: str = "",
) -> Any:
    """Declare a knob on a `Knobbed` class: the one place where it is said."""
    declared = Knob(default, help, low, high, choices, search, log, unit)
    return dataclasses.field(default=default, metadata={"knob": declared})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(knob,))
class Knobbed(ABC):
    """Base of every plug-in with knobs: frozen, hashable, keyword-only, JSON and `repr` round-trip."""

    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # `repr=False`: ours leaves out what stands at its default.
        dataclass(frozen=True, kw_only=True, repr=False)(cls)

    def __post_init__(self) -> None:
        for name, declared in self.knobs().items():
            value = declared.check(f"{self.name}.{name}", getattr(self, name))
            object.__setattr__(self, name, value)

    @classmethod
    def knobs(cls) -> dict[str, Knob]:
        """The declared knobs by name, in order of declaration."""
        return _declared(cls)

    def settings(self, *, changed: bool = False) -> dict[str, Any]:
        """Value by knob; with `changed`, only those that differ from the default."""
        values = {name: getattr(self, name) for name in self.knobs()}
        if changed:
            return {name: value for name, value in values.items() if value != self.knobs()[name].default}
        return values

    def to_json(self) -> dict[str, Any]:
        """`{"name": …, knob: value …}` with every knob written out, so that a later default changes nothing."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in self.settings().items()}
        return {"name": self.name, **plain}

    @classmethod
    def make(cls, **values: Any) -> Self:
        """An instance from knob values; an unknown knob raises `UnknownName` with near misses."""
        for name in values:
            if name not in cls.knobs():
                raise unknown(f"knob of {cls.name}", name, cls.knobs())
        return cls(**values)

    def replace(self, **values: Any) -> Self:
        """A copy with some knobs changed."""
        return type(self).make(**{**self.settings(), **values})

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.settings(changed=True).items())
        return f"{type(self).__name__}({inside})"


@cache
def _declared(kind: type[Knobbed]) -> dict[str, Knob]:
    """The knobs of one class, looked up once: a search makes thousands of instances."""
    if not dataclasses.is_dataclass(kind):
        return {}
    return {f.name: f.metadata["knob"] for f in dataclasses.fields(kind) if "knob" in f.metadata}
