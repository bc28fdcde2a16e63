"""A control for a knob, from the knob's own declaration: range, choices, unit and help are said once.

Left out: sliders for searched ranges; those arrive with the widgets that need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as ipw

from workbench.knobs import Knob
from workbench.widgets.base import styled

#: ipywidgets wants both ends of a bounded number; an open end gets this.
_FAR = 10**9


def control(name: str, knob: Knob, value: Any = None) -> Any:
    """An ipywidget whose `value` is the knob's, labelled with its name and unit, with its help as tooltip."""
    value = knob.default if value is None else value
    label = name.replace("_", " ") + (f" ({knob.unit})" if knob.unit else "")
    common = {"description": label, "tooltip": f"{knob.help} - {knob.allowed}", "style": {"description_width": "auto"}}
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


def read(knob: Knob, made: Any) -> Any:
    """The knob's value from its control."""
    if knob.kind == "names":
        return tuple(part.strip() for part in made.value.split(",") if part.strip())
    return made.value


def changed(knobs: Mapping[str, Knob], controls: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from their defaults, by knob."""
    values = {name: read(knobs[name], made) for name, made in controls.items()}
    return {name: value for name, value in values.items() if value != knobs[name].default}
