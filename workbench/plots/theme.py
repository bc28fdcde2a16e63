"""One look for every figure: two plotly templates, a colour for each runtime, a symbol for each set of techniques.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), told apart by people with any kind of colour
blindness; the dark set takes their lighter members. Backgrounds are transparent, so a figure sits on any page.
Left out: user-defined themes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from workbench.registry import members, unknown

#: A logarithmic axis: a tick for every power of ten, and no prefixes of units that are none.
LOG = {"type": "log", "dtick": 1, "exponentformat": "power"}


@dataclass(frozen=True)
class Theme:
    """Colours as CSS hex: `runtimes` in order of use, text, grid, the front's line, the goal, error bars, panels."""

    name: str
    runtimes: tuple[str, ...]
    text: str
    muted: str
    grid: str
    front: str
    goal: str
    band: str
    panel: str


THEMES = {
    "light": Theme(
        "light",
        ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A5D00"),
        text="#1f2328",
        muted="#656d76",
        grid="#e3e6ea",
        front="#1f2328",
        goal="#B3261E",
        band="rgba(101, 109, 118, 0.16)",
        panel="#ffffff",
    ),
    "dark": Theme(
        "dark",
        ("#56B4E9", "#F08A3C", "#2CC295", "#E29BC4", "#F0E442", "#9AA7FF", "#C8BE6A"),
        text="#e6e8eb",
        muted="#a2a9b2",
        grid="#363b42",
        front="#e6e8eb",
        goal="#FF8A80",
        band="rgba(162, 169, 178, 0.20)",
        panel="#1e2126",
    ),
}

SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "x",
    "star",
    "triangle-down",
    "pentagon",
    "hexagram",
    "bowtie",
    "hourglass",
    "star-square",
    "star-diamond",
    "triangle-left",
    "triangle-right",
)

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def theme(name: str) -> Theme:
    """The theme called `light` or `dark`; raises `UnknownName`."""
    if name not in THEMES:
        raise unknown("theme", name, THEMES)
    return THEMES[name]


def runtime_colours(names: Iterable[str], look: Theme) -> dict[str, str]:
    """A colour by runtime. Registered runtimes keep theirs whatever else is shown; strangers take what follows."""
    known = list(members("backends"))
    ordered = known + sorted(set(names) - set(known))
    return {name: look.runtimes[i % len(look.runtimes)] for i, name in enumerate(ordered)}


def technique_symbols(sets: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """A symbol by set of techniques: a circle for none, then single techniques, then combinations, by name."""
    ordered = sorted({(), *sets}, key=lambda names: (len(names), names))
    return {names: SYMBOLS[i % len(SYMBOLS)] for i, names in enumerate(ordered)}


def template(name: str) -> str:
    """The name under which plotly knows the theme's template, registered at its first use."""
    import plotly.io as pio

    look, registered = theme(name), f"workbench_{name}"
    if registered not in pio.templates:
        pio.templates[registered] = _template(look)
    return registered


@cache
def template_json(name: str) -> dict[str, Any]:
    """The theme's template as plain JSON, for figures that plotly's Python does not build."""
    import plotly.io as pio

    return dict(json.loads(pio.templates[template(name)].to_json()))


def _template(look: Theme) -> object:
    import plotly.graph_objects as go

    axis = {
        "gridcolor": look.grid,
        "linecolor": look.muted,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": look.grid,
        "title": {"standoff": 12, "font": {"size": 13}},
        "automargin": True,
    }
    return go.layout.Template(
        layout={
            "colorway": list(look.runtimes),
            "font": {"family": _FONT, "size": 12, "color": look.text},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 60, "r": 16, "t": 24, "b": 48},
            "hoverlabel": {
                "bgcolor": look.panel,
                "bordercolor": look.muted,
                "align": "left",
                "font": {"color": look.text, "family": _FONT, "size": 12},
            },
            "legend": {"font": {"size": 12}, "title": {"font": {"size": 12}}},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": look.muted, "activecolor": look.text},
        }
    )
