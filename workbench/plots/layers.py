"""A model's layers: as the rows of a tree, the weights of one before and after, the time by type of operator.

Plain data first (`layer_tree`, `operator_times`, a `LayerHistogram`), then the figure. Left out: figures
of many layers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import pandas as pd

from workbench.errors import DataError
from workbench.plots.markup import hover_lines
from workbench.plots.table import amount
from workbench.plots.theme import template
from workbench.plots.theme import theme as find_theme
from workbench.reading import LayerHistogram

#: Columns that name the type of an operator in a profile, the first that is there.
_TYPES = ("type", "operator", "kind")


def checked(profile: pd.DataFrame) -> pd.DataFrame:
    """`profile`, or `DataError` where it lacks the columns of one."""
    if missing := {"layer", "ms"} - set(profile.columns):
        raise DataError(
            f"A profile without {' and '.join(sorted(missing))} tells no times.", allowed="columns layer, ms (and type)"
        )
    return profile


def layer_tree(
    layers: pd.DataFrame, profile: pd.DataFrame | None = None, scores: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """The rows of a tree, parts before what is in them, from `workbench.reading.layer_table`, each with its texts.

    A part sums up its layers: parameters, MACs, milliseconds (of `profile`, columns `layer`, `ms`), zeros by weight,
    precisions by MACs; of the `scores` (by a layer's name in the uncompressed model) it has the largest. Parts that
    hold a single part are one row with it. Plain data, fit for JSON.
    """
    times = {} if profile is None else checked(profile).groupby("layer")["ms"].sum().to_dict()
    whole = sum(times.values())
    rows_of = cast("list[dict[str, Any]]", layers.to_dict("records"))
    scored = scores or {}
    most = max((score for score in scored.values() if math.isfinite(score)), default=0.0)
    leaves = [
        {**row, "ms": times.get(row["layer"], math.nan), "score": scored.get(row["origin"], math.nan)}
        for row in rows_of
    ]
    rows: list[dict[str, Any]] = []

    def add(prefix: str, inside: list[dict[str, Any]], depth: int) -> None:
        groups: dict[str, list[dict[str, Any]]] = {}
        for leaf in inside:
            groups.setdefault(leaf["layer"][len(prefix) :].split(".", 1)[0], []).append(leaf)
        for name, group in groups.items():
            path = prefix + name
            own = [leaf for leaf in group if leaf["layer"] == path]
            below = [leaf for leaf in group if leaf["layer"] != path]
            # Parts that hold one part only would be rows that say the same.
            while not own and len({leaf["layer"][len(path) + 1 :].split(".", 1)[0] for leaf in below}) == 1:
                step = below[0]["layer"][len(path) + 1 :].split(".", 1)[0]
                name, path = f"{name}.{step}", f"{path}.{step}"
                own = [leaf for leaf in below if leaf["layer"] == path]
                below = [leaf for leaf in below if leaf["layer"] != path]
            if own:
                rows.append(_tree_row(name, path, depth, own, whole, most, layer=True))
            if below:
                rows.append(_tree_row(name, path, depth, below, whole, most, layer=False))
                add(f"{path}.", below, depth + 1)

    add("", leaves, 0)
    return rows


def _tree_row(
    name: str, path: str, depth: int, leaves: list[dict[str, Any]], whole: float, most: float, *, layer: bool
) -> dict[str, Any]:
    weights, share = (sum(leaf[key] for leaf in leaves) for key in ("parameters", "share"))
    zeros = sum(leaf["sparsity"] * leaf["parameters"] for leaf in leaves) / weights if weights else math.nan
    kinds: Counter[str] = Counter()
    for leaf in leaves:
        kinds[leaf["precision"]] += leaf["macs"] or 1
    total = kinds.total()
    mixed = len(kinds) > 1
    told = [[k, f"{k} {100 * n / total:.0f} %" if mixed else k] for k, n in kinds.most_common()]
    known = [leaf["ms"] for leaf in leaves if not math.isnan(leaf["ms"])]
    ms = sum(known) if known else math.nan
    score = max((leaf["score"] for leaf in leaves if not math.isnan(leaf["score"])), default=math.nan)
    width, inputs = leaves[0]["width"], leaves[0]["inputs"]
    return {
        "name": name,
        "path": path,
        "depth": depth,
        "layer": layer,
        "precision": told,
        "width_text": f"{inputs:.0f} → {width:.0f}" if layer and not math.isnan(width) else "",
        "parameters_text": amount(weights / 1e6, "M"),
        "sparsity": None if math.isnan(zeros) else zeros,
        "sparsity_text": "" if math.isnan(zeros) else f"{100 * zeros:.1f} %",
        "share": None if math.isnan(share) else share,
        "share_text": "" if math.isnan(share) else f"{100 * share:.1f} %",
        "time_share": ms / whole if whole and not math.isnan(ms) else None,
        "ms_text": "" if math.isnan(ms) else f"{ms:.2g} ms" if ms < 1 else amount(ms, "ms"),
        "score_share": max(score, 0.0) / most if most > 0 and not math.isnan(score) else None,
        "score_text": "" if math.isnan(score) else f"{score:.2g}",
    }


def operator_times(profile: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds and share by type of operator, the longest first, from a profile with columns `layer`, `ms`.

    The type is the column `type` (or `operator`, `kind`); without one, the last part of the layer's name that is no
    number. Columns of the answer: `type`, `ms`, `share`, `layers`. Raises `DataError` for a frame without them.
    """
    checked(profile)
    column = next((name for name in _TYPES if name in profile.columns), None)
    types = profile[column] if column else profile["layer"].map(_role)
    # What is no layer has none as its name.
    grouped = profile.assign(type=types, named=profile["layer"] != "").groupby("type", sort=False)
    frame = grouped.agg(ms=("ms", "sum"), layers=("named", "sum")).reset_index()
    frame["share"] = frame["ms"] / frame["ms"].sum() if frame["ms"].sum() else 0.0
    return frame[["type", "ms", "share", "layers"]].sort_values("ms", ascending=False).reset_index(drop=True)


def histogram_figure(histogram: LayerHistogram, theme: str = "light") -> Any:
    """The weights or activations of a layer, uncompressed as an area and compressed as a line: told apart by more than
    colour."""
    import plotly.graph_objects as go

    look, edges = find_theme(theme), histogram.edges
    middle = [(a + b) / 2 for a, b in pairwise(edges)]
    axes = _layout(histogram.what.removesuffix("s").capitalize(), f"Share of {histogram.what} (%)")
    figure = go.Figure(layout={"template": template(theme), **axes})
    styles: dict[str, dict[str, Any]] = {
        "uncompressed": {"fill": "tozeroy", "fillcolor": look.band, "line": {"color": look.muted, "width": 1}},
        "compressed": {"line": {"color": look.runtimes[0], "width": 2}},
    }
    for name, counts in histogram.counts.items():
        total = sum(counts) or 1
        share = [100 * count / total for count in counts]
        style = {**styles[name], "line": {**styles[name]["line"], "shape": "hvh"}}
        figure.add_trace(go.Scatter(x=middle, y=share, mode="lines", name=name, **style))
    return figure


def operators_figure(times: pd.DataFrame, theme: str = "light") -> Any:
    """Bars of `operator_times`, the longest on top, with the milliseconds written out."""
    import plotly.graph_objects as go

    look = find_theme(theme)
    figure = go.Figure(layout={"template": template(theme), **_layout("Milliseconds of one call", "")})
    names = [" ".join(hover_lines(name)) for name in times["type"]]
    rows = zip(times["ms"], times["share"], strict=True)
    figure.add_trace(
        go.Bar(
            x=times["ms"], y=names, orientation="h", marker={"color": look.runtimes[0]},
            text=[f"{amount(ms, 'ms')} · {100 * share:.0f} %" for ms, share in rows],
            textposition="outside", cliponaxis=False, hoverinfo="skip",
        )
    )  # fmt: skip
    # Room for the words behind the longest bar.
    figure.update_xaxes(range=[0, 1.22 * float(times["ms"].max())] if len(times) else None)
    figure.update_yaxes(autorange="reversed")
    return figure


def _layout(across: str, up: str) -> dict[str, Any]:
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return {
        "height": 300,
        "xaxis": {"title": {"text": across}},
        "yaxis": {"title": {"text": up}, "rangemode": "tozero"},
        "legend": legend,
        "hovermode": "x unified",
    }


def _role(layer: str) -> str:
    """What a layer is for, from its name: `bert.encoder.layer.3.output.dense` is `output.dense`."""
    parts = str(layer).split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[numbers[-1] + 1 :] if numbers else parts[-1:]) or str(layer)
