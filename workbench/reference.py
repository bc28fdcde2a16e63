"""The reference: every plug-in and every command, told by their own docstrings and declarations.

Nothing is written down a second time. Docstrings of other packages' plug-ins are text of strangers: everything passes
through `markup.tag`, which escapes it. Left out: the Python of the package itself, which `help()` tells.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from workbench.plots.markup import Markup, join, table, tag
from workbench.registry import FAMILIES, describe, members

STYLE = Markup("""
:root { --text: #1f2328; --muted: #5c646d; --line: #d8dde3; --back: #ffffff; --panel: #f5f7f9; --accent: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8eb; --muted: #a2a9b2; --line: #363b42; --back: #14171a; --panel: #1e2126; --accent: #7cc0ff; }
}
body { margin: 0; background: var(--back); color: var(--text);
       font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 24px 64px; }
a { color: var(--accent); }
h2 { margin-top: 48px; border-bottom: 1px solid var(--line); }
h3 { margin: 32px 0 4px; }
p { margin: 6px 0; max-width: 75ch; }
.note { color: var(--muted); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: 8px 0; }
th, td { text-align: left; vertical-align: top; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); }
th { color: var(--muted); }
code { background: var(--panel); padding: 1px 4px; border-radius: 4px; }
""")

_INTRODUCED = {
    "tasks": "A model with its data and a metric.",
    "techniques": "What changes a model or the precision of its layers.",
    "backends": "Runtimes that a compressed model is lowered to, and measured on.",
    "strategies": "In which order a search tries recipes.",
    "probes": "What says how much a layer's compression hurts.",
}


def page(title: str, *body: object) -> Markup:
    """A whole page that needs nothing from elsewhere."""
    viewport = Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width">')
    head = tag("head", viewport, tag("title", title), tag("style", STYLE))
    return join([Markup("<!doctype html>\n"), tag("html", head, tag("body", tag("main", *body)), lang="en")])


def reference(command: Any = None) -> Markup:
    """The page of all families; with `command` (a click group) the command line too."""
    contents = [tag("a", family, href=f"#{family}") for family in FAMILIES]
    if command is not None:
        contents.append(tag("a", "command line", href="#commands"))
    parts = [part for family in FAMILIES for part in _family(family)]
    lines = list(_commands(command)) if command is not None else []
    return page("Reference", tag("h1", "Reference"), tag("p", join(contents, " · ")), *parts, *lines)


def knob_rows(knobs: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """A row per knob, from its declaration."""
    rows = [
        {
            "knob": name,
            "default": repr(row["default"]),
            "allowed": row["allowed"] + (f" {row['unit']}" if row["unit"] else ""),
            "searched": ", ".join(map(str, row["search"])),
            "what it does": row["help"],
        }
        for name, row in knobs.items()
    ]
    return pd.DataFrame(rows)


def _family(family: str) -> Iterator[Markup]:
    yield tag("h2", family.capitalize(), id=family)
    yield tag("p", _INTRODUCED[family])
    for row in describe(family):
        member = members(family)[row["name"]]
        yield tag("h3", tag("code", row["name"]), id=f"{family}-{row['name']}")
        yield tag("p", tag("code", f"workbench.{member.__name__}"), class_="note")
        yield from (tag("p", *_coded(text)) for text in _paragraphs(inspect.getdoc(member) or ""))
        if row["source"]:
            yield tag("p", "Source: ", row["source"], class_="note")
        if row["knobs"]:
            yield tag("div", table(knob_rows(row["knobs"])), class_="wide")


def _commands(group: Any, path: str = "workbench") -> Iterator[Markup]:
    if path == "workbench":
        yield tag("h2", "Command line", id="commands")
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
            continue
        yield tag("h3", tag("code", f"{path} {name}"))
        yield from (tag("p", *_coded(text)) for text in _paragraphs(command.help or ""))
        rows = [
            {
                "argument": ", ".join(one.opts) if one.param_type_name == "option" else one.name.upper(),
                "default": "" if one.default is None or one.required else str(one.default),
                "what it does": getattr(one, "help", None) or "",
            }
            for one in command.params
            if "--help" not in one.opts
        ]
        if rows:
            yield tag("div", table(pd.DataFrame(rows)), class_="wide")


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _coded(text: str) -> Iterator[object]:
    """What stands between backticks as code, the rest as text."""
    for i, piece in enumerate(re.split(r"`([^`]+)`", text)):
        yield tag("code", piece) if i % 2 else piece
