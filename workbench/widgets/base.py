"""The contract of a widget: traits in, one `value` out, and `code`, the Python that gives the same value.

A widget is a thin adapter over one plain function: its observers assign, they never compute. Evaluating `code` in the
namespace of `workbench` gives `value`, or makes the call that the widget's button makes. The habit of traits and
plain properties that need no browser is wigglystuff's. Left out: layout, which is the style sheet's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ipywidgets as ipw
import traitlets

from workbench.plots.markup import Markup, tag

#: Traits of widgets that change while a page loads.
_CHANGING = {"value", "children", "description", "disabled", "index", "_options_labels", "figure", "rows", "layout"}


class Adapter(ipw.VBox):
    """Base of every widget. A subclass has `code` and sets `value`; `copy` is called with code to be copied."""

    value = traitlets.Any(allow_none=True)
    children: Any

    def __init__(self, children: Iterable[ipw.Widget] = (), css: str = "", **kwargs: Any) -> None:
        super().__init__(list(children), **kwargs)
        self.copy: Callable[[str], None] = lambda text: None
        self._alone: ipw.VBox | None = None
        self.add_class("wb")
        if css:
            self.add_class(css)

    @property
    def code(self) -> str:
        """The Python that gives `value`."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Alone in a cell a widget comes with the page's style sheet, theme and clipboard; inside another, without."""
        if self._alone is None:
            from workbench.widgets.page import Page

            page = Page()
            self.copy = page.copy
            if self.has_trait("theme"):
                traitlets.dlink((page, "theme"), (self, "theme"))
            self._alone = ipw.VBox([page, self])
        return self._alone._repr_mimebundle_(**kwargs)

    def code_box(self) -> ipw.VBox:
        """ "Copy as Python": shows `code` as it is at the click, and asks the page to copy it."""
        button = ipw.Button(description="Copy as Python", tooltip="Show and copy the Python for this")
        shown = ipw.HTML()

        def show(_: object) -> None:
            shown.value = code_html(self.code)
            self.copy(self.code)

        button.on_click(show)
        self.observe(lambda _: setattr(shown, "value", ""), "value")
        return styled(ipw.VBox([button, shown]), "wb-code")


def styled(widget: Any, *classes: str) -> Any:
    """`widget` with CSS classes of `static/widgets.css`."""
    for name in classes:
        widget.add_class(name)
    return widget


def html(content: object = "", *classes: str) -> ipw.HTML:
    """A text widget; whatever is not markup is escaped."""
    from workbench.plots.markup import escape

    return styled(ipw.HTML(escape(content)), *classes)


def heading(text: str) -> ipw.HTML:
    """A heading inside a card."""
    return html(tag("h3", text))


def code_html(code: str) -> Markup:
    """Code that one click selects."""
    return tag("pre", tag("code", code), class_="wb-pre")


def everything(widget: Any) -> Iterator[Any]:
    """A widget and all that are in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def bring_up_to_date(widget: Any) -> None:
    """Send all of a widget's changing state once more, to a page that was not there when it was sent. What a person may
    have begun to type meanwhile is left alone: an empty field has nothing to send."""
    for one in everything(widget):
        empty = isinstance(one, ipw.Text | ipw.Textarea) and not one.value
        one.send_state(set(one.keys) & (_CHANGING - {"value"} if empty else _CHANGING))
