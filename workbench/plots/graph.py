"""A model as a graph: one transformer layer drawn node by node, and nodes counted by type before and after fusion.

The layout is the plain one: a node stands below everything that it needs. Left out: large graphs, for which Netron is
the tool.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from workbench.plots.markup import escape
from workbench.plots.theme import template
from workbench.plots.theme import theme as find_theme
from workbench.reading import Graph


def depths(graph: Graph) -> list[int]:
    """For each node the length of the longest way to it; one that needs nothing drawn stands just above what needs it.

    The graph's nodes stand in an order in which they can be run.
    """
    found = [0] * len(graph.kinds)
    for start, end in graph.edges:
        found[end] = max(found[end], found[start] + 1)
    fed = {end for _, end in graph.edges}
    for node in range(len(found)):
        below = [found[end] for start, end in graph.edges if start == node]
        # What has a weight begins a branch, and stays at the top.
        if node not in fed and below and not graph.layers[node]:
            found[node] = min(below) - 1
    return found


def places(graph: Graph) -> list[tuple[float, int]]:
    """Across and down for each node: as deep as `depths` says, side by side around the middle of what they need; what
    needs nothing drawn stands at the right of its row."""
    needs: dict[int, list[int]] = defaultdict(list)
    for start, end in graph.edges:
        needs[end].append(start)
    deep, across = depths(graph), [0.0] * len(graph.kinds)
    loose = {node for node in range(len(deep)) if not needs[node] and not graph.layers[node]}
    rows: dict[int, list[int]] = defaultdict(list)
    for node, depth in enumerate(deep):
        rows[depth].append(node)
    for depth in sorted(rows):
        wanted = {}
        for node in rows[depth]:
            held = [other for other in needs[node] if other not in loose] or needs[node]
            wanted[node] = sum(across[other] for other in held) / len(held) if held else 0.0
        order = sorted(rows[depth], key=lambda node: (node in loose, wanted[node], node))
        own = [node for node in order if node not in loose] or order
        left = sum(wanted[node] for node in own) / len(own) - (len(own) - 1) / 2
        for place, node in enumerate(order):
            across[node] = left + place
    return [(across[node], deep[node]) for node in range(len(deep))]


def graph_figure(graph: Graph, theme: str = "light") -> Any:
    """The nodes of `graph` from top to bottom, each with its type; layers with weights are large and have a colour."""
    import plotly.graph_objects as go

    look, spots = find_theme(theme), places(graph)
    figure = go.Figure(layout={"template": template(theme), "showlegend": False, "margin": {"l": 8, "r": 8, "b": 8}})
    x: list[float | None] = []
    y: list[float | None] = []
    for start, end in graph.edges:
        x += [spots[start][0], spots[end][0], None]
        y += [spots[start][1], spots[end][1], None]
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": look.muted, "width": 1}, hoverinfo="skip")
    weighty = [bool(layer) for layer in graph.layers]
    figure.add_scatter(
        x=[spot[0] for spot in spots], y=[spot[1] for spot in spots], mode="markers+text",
        text=[escape(kind) for kind in graph.kinds], textposition="middle right", textfont={"size": 11},
        hovertext=[escape(layer or kind) for layer, kind in zip(graph.layers, graph.kinds, strict=True)],
        hoverinfo="text",
        marker={"size": [14 if w else 8 for w in weighty], "line": {"color": look.text, "width": 0.5},
                "color": [look.runtimes[0] if w else look.runtimes[4] for w in weighty]},
    )  # fmt: skip
    deepest = max((spot[1] for spot in spots), default=0)
    figure.update_layout(height=80 + 24 * (deepest + 1))
    ends = [spot[0] for spot in spots] or [0.0]
    figure.update_xaxes(visible=False, range=[min(ends) - 0.5, max(ends) + 1.2])
    figure.update_yaxes(visible=False, autorange="reversed")
    return figure


def node_counts(graphs: Mapping[str, Mapping[str, int]], theme: str = "light", *, most: int = 16) -> Any:
    """Nodes by type as bars, one colour for each graph: title -> count by type, such as a trial's
    `in_effect["nodes"]`. The `most` frequent types are shown."""
    import plotly.graph_objects as go

    look = find_theme(theme)
    totals: dict[str, int] = defaultdict(int)
    for counts in graphs.values():
        for kind, count in counts.items():
            totals[kind] += count
    kinds = sorted(totals, key=lambda kind: (-totals[kind], kind))[:most]
    figure = go.Figure(layout={"template": template(theme), "barmode": "group"})
    for i, (title, counts) in enumerate(graphs.items()):
        figure.add_bar(
            y=[escape(kind) for kind in kinds], x=[counts.get(kind, 0) for kind in kinds], orientation="h",
            name=f"{escape(title)}: {sum(counts.values())} nodes",
            marker={"color": look.runtimes[i % len(look.runtimes)]},
        )  # fmt: skip
    figure.update_layout(height=120 + 22 * len(kinds), legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_yaxes(autorange="reversed", dtick=1)
    figure.update_xaxes(title={"text": "Nodes"})
    return figure
