"""HTML that cannot be injected: `tag` escapes whatever is not already markup.

Titles, labels, paths and error messages come from models and files that strangers wrote, so nothing is ever put
into a page by string formatting. The idea is markupsafe's `Markup`. Left out: parsing, templates.
"""

from __future__ import annotations

import html
import json
import re
import textwrap
from collections.abc import Iterable
from typing import Any

import pandas as pd


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """`value` as HTML text; markup stays as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(children: Iterable[object], separator: str = "") -> Markup:
    """The children one after the other, each escaped unless it is markup."""
    return Markup(separator.join(escape(child) for child in children))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """`<name attributes>children</name>`; `class_` is `class`, and `_` in a name is `-`. None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def table(frame: pd.DataFrame, *, css: str = "wb-table", marked: Iterable[int] = ()) -> Markup:
    """A frame as a table; rows at the positions in `marked` get the class `wb-mark`. No index is shown."""
    strong = set(marked)
    head = tag("tr", *(tag("th", column, scope="col") for column in frame.columns))
    rows = (
        tag("tr", *(tag("td", cell) for cell in row), class_="wb-mark" if i in strong else None)
        for i, row in enumerate(frame.itertuples(index=False, name=None))
    )
    return tag("table", tag("thead", head), tag("tbody", *rows), class_=css)


def wide(content: object, name: str) -> Markup:
    """What may be wider than its place, in a region that scrolls and that the keyboard reaches under this name."""
    return tag("div", content, class_="wb-wide", tabindex="0", role="region", aria_label=name)


def script_json(value: Any) -> Markup:
    """JSON that can stand inside `<script>`: no `<` survives, so no text can end the element."""
    return Markup(json.dumps(value).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def hover_lines(text: object, width: int = 64) -> list[str]:
    """Lines for plotly's hover, wrapped and then escaped: plotly reads its text as HTML."""
    lines = [piece for line in str(text).splitlines() for piece in textwrap.wrap(line, width) or [""]]
    return [html.escape(line) for line in lines]


def markdown(text: object) -> str:
    """`text` as plain text inside Markdown: neither Markdown nor HTML in it takes effect, and it stays on one line."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()+\-.!|~$:/]|#(?!\w+;))", r"\\\1", plain)


def code_span(text: object) -> str:
    """`text` as a code span of Markdown, whatever backticks it holds."""
    plain = " ".join(str(text).split())
    fence = "`" * (max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") or not plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}"
