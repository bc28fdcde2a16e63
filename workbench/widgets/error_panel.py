"""An error as a person reads it: what was wrong, what is allowed, what to do next, each in its own line.

The traceback of an error that nobody expected stands behind "Details". Left out: sending it anywhere.
"""

from __future__ import annotations

import traceback

import ipywidgets as ipw
import traitlets

from workbench.errors import WorkbenchError
from workbench.plots.markup import Markup, join, tag


def error_html(error: BaseException | str | None) -> Markup:
    """The error's three parts; any other exception by its kind and message; nothing for None."""
    if error is None or error == "":
        return Markup("")
    if isinstance(error, WorkbenchError):
        parts = [tag("p", error.what, class_="wb-what")]
        parts += [tag("p", tag("b", "Allowed: "), error.allowed)] if error.allowed else []
        parts += [tag("p", tag("b", "What to do: "), error.do)] if error.do else []
    elif isinstance(error, str):
        parts = [tag("p", error, class_="wb-what")]
    else:
        parts = [tag("p", f"{type(error).__name__}: {error}", class_="wb-what")]
        if error.__traceback__ is not None:
            trace = "".join(traceback.format_exception(error))
            parts.append(tag("details", tag("summary", "Details"), tag("pre", trace, class_="wb-pre")))
    return tag("div", join(parts), class_="wb-error", role="alert")


class ErrorPanel(ipw.HTML):
    """Shows `error` (an exception, a text or None) until it is set to None."""

    error = traitlets.Any(None, allow_none=True)

    @traitlets.observe("error")
    def _show(self, change: dict) -> None:
        self.value = error_html(change["new"])
