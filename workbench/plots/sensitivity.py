"""Sensitivity as figures: bars by layer, a heat map of several scans, the value map, how far to trust the probes.

Each takes a table of `workbench.sensitivity` and gives a plotly figure; what it shows is plain data first, so that it
can be tested, and shown as a table. Left out: layers of several models in one figure.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import DataError
from workbench.plots.markup import hover_lines
from workbench.plots.theme import LOG, Theme, template
from workbench.plots.theme import theme as find_theme

#: Height of one row of a figure by layer, and of what surrounds them, in pixels.
_ROW, _FRAME = 17, 110
#: How many layers the value map names, and how far apart names have to be, as a share of the axis.
_NAMED, _APART = 5, 0.06
#: How far the points of a probe's directions lie apart, in rows.
_BESIDE = 0.26


@dataclass(frozen=True)
class Bar:
    """One layer: its score with the ends of its interval (NaN where unknown), its rank, and what the hover says."""

    layer: str
    name: str
    score: float
    low: float
    high: float
    rank: int
    kept: bool
    hover: str


def bars_data(scan: pd.DataFrame, keep: Sequence[str] = ()) -> list[Bar]:
    """One bar for each row of a scan, in its order; raises `DataError` where a layer has several."""
    if scan.layer.duplicated().any():
        raise DataError("This scan has several rows for a layer.", do="draw it as curves or as a heat map")
    names, unit = short_names(list(scan.layer)), str(scan.attrs.get("unit", ""))
    found = []
    for row in scan.to_dict("records"):
        value = "no number" if np.isnan(row["score"]) else f"{row['score']:.4g} {unit}".strip()
        inside = "" if np.isnan(row["score_low"]) else f" [{row['score_low']:.4g}, {row['score_high']:.4g}]"
        lines = [f"score {value}{inside}", f"rank {row['rank']} of {len(scan)}", f"{row['parameters']:,} parameters"]
        told = "<br>".join(line for text in (*lines, row.get("note") or "") for line in hover_lines(text))
        title = "<br>".join(hover_lines(row["layer"]))
        ends = (row["score_low"], row["score_high"])
        found.append(
            Bar(row["layer"], names[row["layer"]], row["score"], *ends, row["rank"], row["layer"] in set(keep),
                f"<b>{title}</b><br>{told}")
        )  # fmt: skip
    return found


def bars(scan: pd.DataFrame, theme: str = "light", *, keep: Sequence[str] = (), log: bool | None = None) -> Any:
    """Scores by layer, in the model's order, with their intervals; layers in `keep` are hatched.

    A layer whose score is no number is marked with a cross at the edge. The axis is logarithmic where scores are
    positive and spread over more than a hundredfold, unless `log` says otherwise.
    """
    import plotly.graph_objects as go

    data, look = bars_data(scan, keep), find_theme(theme)
    known = [bar for bar in data if np.isfinite(bar.score)]
    positive = [bar.score for bar in known if bar.score > 0]
    if log is None:
        log = bool(positive) and all(b.score >= 0 for b in known) and max(positive) > 100 * min(positive)
    up = [max(bar.high - bar.score, 0.0) for bar in known]
    down = [max(bar.score - bar.low, 0.0) for bar in known]
    figure = go.Figure(layout={"template": template(theme), **_by_layer(len(data)), "showlegend": False})
    figure.add_trace(
        go.Bar(
            x=[bar.score for bar in known], y=[bar.name for bar in known], orientation="h", name="score",
            customdata=[bar.layer for bar in known], hovertext=[bar.hover for bar in known], hoverinfo="text",
            marker={"color": look.runtimes[0], "pattern": {"shape": ["/" if bar.kept else "" for bar in known]}},
            error_x={"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": look.muted,
                     "thickness": 1.2},
        )
    )  # fmt: skip
    lost = [bar for bar in data if not np.isfinite(bar.score)]
    figure.add_trace(_lost(lost, min(positive, default=1.0) if log else 0.0, look))
    title = html.escape(str(scan.attrs.get("title", "score")))
    unit = html.escape(str(scan.attrs.get("unit", "")))
    figure.update_xaxes(
        title={"text": f"{title}{f' ({unit})' if unit else ''}"}, **(LOG if log else {"type": "linear"})
    )
    figure.update_yaxes(categoryorder="array", categoryarray=[bar.name for bar in data], autorange="reversed")
    return figure


@dataclass(frozen=True, eq=False)
class Heat:
    """`values` (layers, columns): the share of layers that are less sensitive by that column's scan, 0 … 1; `scores`,
    the same shape, the scores themselves (NaN where there are none)."""

    layers: list[str]
    names: list[str]
    columns: list[str]
    values: np.ndarray
    scores: np.ndarray


def heat_data(scans: Mapping[str, pd.DataFrame]) -> Heat:
    """Several scans side by side, by rank, because their units differ; raises `DataError` for no scan."""
    if not scans:
        raise DataError("There is no scan to draw.", do="give at least one")
    layers = list(dict.fromkeys(name for scan in scans.values() for name in scan.layer))
    values = np.full((len(layers), len(scans)), np.nan)
    scores = values.copy()
    for column, scan in enumerate(scans.values()):
        one = scan.drop_duplicates("layer").set_index("layer").reindex(layers)
        ranks = one["rank"].to_numpy(dtype=float)
        values[:, column] = 1 - (ranks - 1) / max(len(scan) - 1, 1)
        scores[:, column] = one["score"].to_numpy(dtype=float)
    return Heat(layers, list(short_names(layers).values()), list(scans), values, scores)


def heat(scans: Mapping[str, pd.DataFrame], theme: str = "light") -> Any:
    """Layers by scans: the darker, the more sensitive among the layers of its column. `scans`: title -> table."""
    import plotly.graph_objects as go

    data, look = heat_data(scans), find_theme(theme)
    text = [["no number" if np.isnan(s) else f"{s:.3g}" for s in row] for row in data.scores]
    hover = [
        [f"<b>{html.escape(layer)}</b><br>{html.escape(column)}: {text[i][j]}" for j, column in enumerate(data.columns)]
        for i, layer in enumerate(data.layers)
    ]
    columns = [html.escape(name) for name in data.columns]
    trace = go.Heatmap(
        z=data.values, x=columns, y=data.names, hovertext=hover, hoverinfo="text", colorscale=scale(look), zmin=0,
        zmax=1, xgap=1, ygap=1, customdata=[[layer] * len(columns) for layer in data.layers],
        colorbar={"title": {"text": "sensitivity"}, "tickvals": [0, 1], "ticktext": ["least", "most"]},
    )  # fmt: skip
    figure = go.Figure(trace, layout={"template": template(theme), **_by_layer(len(data.layers))})
    figure.update_yaxes(autorange="reversed")
    return figure


def value(found: pd.DataFrame, theme: str = "light") -> Any:
    """The value map: milliseconds saved by compressing a layer, against what it costs. Down and right is worth it.

    `found` is the table of `workbench.sensitivity.cost.value_map`; the area of a point is the layer's share of the
    MACs.
    """
    import plotly.graph_objects as go

    look, names = find_theme(theme), short_names(list(found.layer))
    known = found[found.score.notna()]
    size = np.sqrt(known.macs / max(found.macs.max(), 1)) if len(known) else known.macs
    positive = known.score[known.score > 0]
    log = len(positive) == len(known) and len(known) > 0 and positive.max() > 100 * positive.min()
    named = _without_overlap(known, log)
    right = known.saved_ms > (known.saved_ms.max() + known.saved_ms.min()) / 2
    hover = [
        "<br>".join(
            [f"<b>{html.escape(row['layer'])}</b>", f"saves {row['saved_ms']:.3g} ms of {row['ms']:.3g} ms",
             f"score {row['score']:.4g}, rank {row['rank']}"]
        )
        for row in known.to_dict("records")
    ]  # fmt: skip
    trace = go.Scatter(
        x=known.saved_ms, y=known.score, mode="markers+text", customdata=list(known.layer), hovertext=hover,
        hoverinfo="text", text=[f" {names[layer]} " if layer in named else "" for layer in known.layer],
        textposition=["middle left" if far else "middle right" for far in right],
        marker={"size": 6 + 16 * size, "color": look.runtimes[0], "opacity": 0.75},
        error_y=_ends(known, look),
    )  # fmt: skip
    figure = go.Figure(trace, layout={"template": template(theme), "height": 440, "showlegend": False})
    unit = html.escape(str(found.attrs.get("unit", "")))
    figure.update_xaxes(title={"text": "Milliseconds saved"})
    figure.update_yaxes(title={"text": f"Score{f' ({unit})' if unit else ''}"}, **(LOG if log else {"type": "linear"}))
    return figure


def trusted(table: pd.DataFrame, theme: str = "light") -> Any:
    """Spearman's rho of every probe and direction with the real runtime, with its interval; from `trust(...).table`."""
    import plotly.graph_objects as go

    look, shown = find_theme(theme), table[table.rho.notna()]
    figure = go.Figure(layout={"template": template(theme), **_by_layer(len(shown))})
    probes, directions = list(dict.fromkeys(shown.probe)), list(dict.fromkeys(shown.direction))
    for colour, direction in enumerate(directions):
        beside = _BESIDE * (colour - (len(directions) - 1) / 2)
        mine = shown[shown.direction == direction]
        hover = [
            f"<b>{html.escape(row['probe'])}</b>, {html.escape(row['direction'])}<br>"
            f"rho {row['rho']:.2f} [{row['rho_low']:.2f}, {row['rho_high']:.2f}]<br>{row['seconds']:.0f} s"
            for row in mine.to_dict("records")
        ]
        figure.add_trace(
            go.Scatter(
                x=mine.rho, y=[probes.index(name) + beside for name in mine.probe], mode="markers",
                name=html.escape(direction.replace("_", " ")), hovertext=hover, hoverinfo="text",
                marker={"size": 10, "color": look.runtimes[colour % len(look.runtimes)],
                        "symbol": ("circle", "diamond")[colour % 2]},
                error_x={"type": "data", "symmetric": False, "array": mine.rho_high - mine.rho,
                         "arrayminus": mine.rho - mine.rho_low, "thickness": 1.2},
            )
        )  # fmt: skip
    truth = html.escape(str(table.attrs.get("truth", "the real runtime")))
    figure.update_xaxes(title={"text": f"Spearman's rho with {truth}"}, range=[-1.05, 1.05])
    named = {"tickvals": list(range(len(probes))), "ticktext": [html.escape(name) for name in probes]}
    figure.update_yaxes(range=[len(probes) - 0.4, -0.6], **named)
    return figure


def short_names(layers: Sequence[str]) -> dict[str, str]:
    """Names without the parts that all of them begin with, as HTML; a single one keeps its last two parts."""
    parts = [name.split(".") for name in layers]
    shared = 0
    if len(parts) > 1:
        # Layers outside of the blocks (a classifier) would leave nothing to be shared.
        most = [p for p in parts if len(p) > 2] or parts
        while shared < min(map(len, most)) - 1 and len({p[shared] for p in most}) == 1:
            shared += 1
    prefix = parts and ([p for p in parts if len(p) > 2] or parts)[0][:shared]
    cut = {name: name.split(".")[shared:] if name.split(".")[:shared] == prefix else name.split(".") for name in layers}
    if len(layers) == 1:
        cut = {name: name.split(".")[-2:] for name in layers}
    return {name: html.escape(".".join(rest)) for name, rest in cut.items()}


def scale(look: Theme) -> list[list[Any]]:
    """From the page's own grid colour to the goal's red, through the first colour."""
    return [[0.0, look.grid], [0.5, look.runtimes[4]], [1.0, look.goal]]


def _by_layer(count: int) -> dict[str, Any]:
    return {"height": _FRAME + _ROW * max(count, 4), "yaxis": {"tickfont": {"size": 11}, "dtick": 1}}


def _lost(bars_: Sequence[Bar], edge: float, look: Theme) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        x=[edge] * len(bars_), y=[bar.name for bar in bars_], mode="markers", name="no number",
        customdata=[bar.layer for bar in bars_], hovertext=[bar.hover for bar in bars_], hoverinfo="text",
        marker={"symbol": "x", "size": 10, "color": look.goal},
    )  # fmt: skip


def _ends(rows: pd.DataFrame, look: Theme) -> dict[str, Any]:
    up, down = (rows.score_high - rows.score).clip(lower=0), (rows.score - rows.score_low).clip(lower=0)
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": look.muted, "thickness": 1.0}


def _without_overlap(known: pd.DataFrame, log: bool) -> set[str]:
    """The most sensitive layers whose names can stand beside their points without touching each other."""
    places = np.log10(known.score) if log else known.score
    room = _APART * float(np.ptp(places) if len(places) else 0)
    taken: list[float] = []
    named: set[str] = set()
    for place, layer, rank in sorted(zip(places, known.layer, known["rank"], strict=True), key=lambda row: row[2]):
        if rank <= _NAMED and all(abs(place - other) >= room for other in taken):
            taken.append(place)
            named.add(layer)
    return named
