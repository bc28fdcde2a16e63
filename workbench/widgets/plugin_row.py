"""A technique or a runtime in the panel: a tick, its first sentence, and once it is ticked its settings and caveats.

What a row shows besides its tick is made when it is first shown: thirty techniques with all their knobs would be a
thousand widgets on a page that shows ten. Left out: what a tick means for a recipe, which is the panel's business.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as ipw

from workbench.knobs import Knob
from workbench.plots.markup import Markup, join, tag
from workbench.widgets.base import html, styled
from workbench.widgets.controls import KnobField, changed, fields, told
from workbench.widgets.pieces import Fold

#: So many knobs are shown at once; of more, those that a search would try, and the rest on demand.
FEW = 4


def summary(kind: type) -> str:
    """The first sentence of a plug-in's docstring."""
    return inspect.cleandoc(kind.__doc__ or kind.__name__).split("\n\n")[0].replace("\n", " ")


def foremost(knobs: Mapping[str, Knob]) -> list[str]:
    """The knobs that are shown first: all where they are few, else those that a search tries (or the first ones)."""
    if len(knobs) <= FEW:
        return list(knobs)
    return [name for name, knob in knobs.items() if knob.search] or list(knobs)[:FEW]


class PluginRow:
    """`tick` is its checkbox, `fields` its knobs' fields, `box` what is shown. `changed` is called when a setting
    changes, `moved` with -1 or 1 when it is to stand sooner or later."""

    def __init__(self, name: str, kind: Any, ticked: bool, knobs: Mapping[str, Knob], *, reason: str = "") -> None:
        self.name, self.kind, self.knobs, self.reason = name, kind, dict(knobs), reason
        self.changed: Callable[[], None] = lambda: None
        self.moved: Callable[[int], None] = lambda step: None
        self.search = True
        title = getattr(kind, "title", name)
        self.tick = styled(
            ipw.Checkbox(
                value=ticked and not reason,
                disabled=bool(reason),
                description=title,
                tooltip=summary(kind),
                indent=False,
            ),
            "wb-tick",
        )
        self._fields: dict[str, KnobField] | None = None
        self._box: ipw.VBox | None = None
        self._caveats = Markup("")
        self._movable = (False, False)

    @property
    def fields(self) -> dict[str, KnobField]:
        """A field for every knob."""
        if self._fields is None:
            self._fields = fields(self.knobs)
            for made in self._fields.values():
                made.allow(self.search)
                made.observe(self._changed, ["value", "problem"])
        return self._fields

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that differ from their defaults, by knob; some may be a `Choice` or a `Range`."""
        return changed(self.knobs, self._fields) if self._fields else {}

    @property
    def problem(self) -> str:
        """Why a setting cannot be read ('' where all can)."""
        wrong = [made.problem for made in (self._fields or {}).values() if made.problem]
        return wrong[0] if self.tick.value and wrong else ""

    @property
    def always(self) -> bool:
        """Whether every recipe of a search has it."""
        return self._box is not None and self._always.value

    def fill(self, values: Mapping[str, Any]) -> None:
        """Show these settings, and the defaults of what is not among them."""
        if not values and self._fields is None:
            return
        for name, made in self.fields.items():
            made.value = values.get(name, self.knobs[name].default)
        if self._box is not None:
            self._fold.unfolded = False

    def allow(self, search: bool) -> None:
        """Whether settings may be open and the plug-in left out."""
        self.search = search
        for made in (self._fields or {}).values():
            made.allow(search)
        self._show()

    def say(self, caveats: Markup, *, sooner: bool = False, later: bool = False) -> None:
        """Show these caveats, and buttons that move it sooner or later."""
        self._caveats, self._movable = caveats, (sooner, later)
        self._show()

    def refuse(self, reason: str) -> None:
        """Grey the tick with a reason, or free it ('')."""
        self.reason = reason
        self.tick.disabled = bool(reason) and not self.tick.value
        self._show()

    @property
    def box(self) -> ipw.VBox:
        """What is shown of it."""
        if self._box is None:
            self._fold = styled(Fold(label="Settings", hint=f"Settings of {self.name}"), "wb-fold-small")
            self._more = styled(Fold(label="More settings"), "wb-fold-small")
            self._always = styled(ipw.Checkbox(description="in every recipe", indent=False), "wb-set", "wb-always")
            self._arrows = [
                styled(ipw.Button(description=arrow, tooltip=f"{self.name} {word}"), "wb-arrow")
                for arrow, word in (("↑", "sooner"), ("↓", "later"))
            ]
            for arrow, step in zip(self._arrows, (-1, 1), strict=True):
                arrow.on_click(lambda _, step=step: self.moved(step))
            self._said, self._told = html("", "wb-summary"), html("", "wb-caveats")
            self._line, self._settings = styled(ipw.HBox(), "wb-plugin-line"), ipw.VBox()
            for fold in (self._fold, self._more):
                fold.observe(self._show, "unfolded")
            self._always.observe(self._changed, "value")
            self.tick.observe(self._ticked, "value")
            self._box = styled(ipw.VBox([self._line, self._said, self._told, self._settings]), "wb-plugin")
            self._show()
        return self._box

    def _ticked(self, change: dict) -> None:
        """A person who ticks something sees its settings."""
        self._fold.unfolded = bool(change["new"])
        self._show()

    def _changed(self, _: object = None) -> None:
        self._show()
        self.changed()

    def _show(self, _: object = None) -> None:
        if self._box is None:
            return
        on = self.tick.value
        arrows = [arrow for arrow, wanted in zip(self._arrows, self._movable, strict=True) if wanted and on]
        foldable = on and (self.knobs or (self.search and self._offers_always))
        self._line.children = (self.tick, *arrows, *([self._fold] if foldable else []))
        self._said.value = self._summary(on and (self._fold.unfolded or self._offers_always))
        self._told.value = join(
            [tag("p", self.reason, class_="wb-caveat") if self.reason else "", self._caveats if on else ""]
        )
        self._told.layout.display = None if self._told.value else "none"
        self._settings.children = self._unfolded() if foldable and self._fold.unfolded else ()
        self._fold.note = f"{len(self.settings)} changed" if self.settings else ""

    def _summary(self, whole: bool) -> Markup:
        """The first sentence, cut to a line unless it is to be `whole`, and the settings that were changed."""
        told_of = [tag("code", f"{name.replace('_', ' ')}: {told(value)}") for name, value in self.settings.items()]
        cut = {} if whole else {"class_": "wb-one-line", "title": summary(self.kind)}
        said = tag("div", summary(self.kind), **cut)
        return join([said, tag("div", *told_of, class_="wb-set-values")] if self.tick.value and told_of else [said])

    @property
    def _offers_always(self) -> bool:
        return not hasattr(self.kind, "realises")

    def _unfolded(self) -> tuple[Any, ...]:
        first = foremost(self.knobs)
        shown: list[Any] = [self._always] if self.search and self._offers_always else []
        shown += [self.fields[name] for name in first]
        rest = [name for name in self.knobs if name not in first]
        if rest:
            self._more.note = str(len(rest))
            shown.append(self._more)
        if rest and self._more.unfolded:
            shown += [self.fields[name] for name in rest]
        return tuple(shown)
