"""The page around the widgets: its theme, the study's name in its address, the clipboard, the style sheet.

Jupyter and Voila both set `data-jp-theme-light`; nothing in Python can see it, so a few lines of JavaScript tell.
Left out: everything else that a browser could say.
"""

from __future__ import annotations

import os
from importlib.resources import files
from urllib.parse import parse_qs

import anywidget
import traitlets


class Page(anywidget.AnyWidget):
    """`theme` follows the page (`light` or `dark`). `study` is kept in the address where `addressed` (under Voila,
    where each reload is a new kernel), so that a reload finds it again.

    `hello` is the time at which the page was drawn (0 before), `query` what stands in its address after the `?`. What
    the kernel changes while a page loads is lost to that page, so whoever changes things by itself waits for `hello`.
    """

    _esm = files("workbench.widgets").joinpath("static/page.js").read_text(encoding="utf-8")
    _css = files("workbench.widgets").joinpath("static/widgets.css").read_text(encoding="utf-8")

    theme = traitlets.Enum(("light", "dark"), "light").tag(sync=True)
    study = traitlets.Unicode("").tag(sync=True)
    addressed = traitlets.Bool(False).tag(sync=True)
    hello = traitlets.Float(0.0).tag(sync=True)
    query = traitlets.Unicode("").tag(sync=True)

    def copy(self, text: str) -> None:
        """Ask the browser to put `text` on the clipboard; it may refuse."""
        self.send({"copy": text})

    def asked_for(self, name: str) -> str:
        """The value of `name` in the page's address, once it said `hello`; empty where there is none."""
        return parse_qs(self.query.lstrip("?")).get(name, [""])[0] if self.addressed else ""


def in_voila() -> bool:
    """Whether this kernel serves a page of Voila's."""
    return os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


def asked_for(name: str) -> str:
    """The value of `name` in the page's address, as Voila hands it over; empty where there is none."""
    return parse_qs(os.environ.get("QUERY_STRING", "")).get(name, [""])[0] if in_voila() else ""
