"""The front, alive: one figure that grows with the study; a click on a point shows its recipe, numbers and code.

Whatever can be done in the figure can be done without a pointer: a list of trials does the same as a click, filters and
limits the same as a lasso. A frame is read once, and a change of axis or limit draws from what was read: some
tens of milliseconds with 2,000 trials (`tests/benchmarks/front_redraw.py`). Left out: more than two axes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.errors import DataError
from workbench.plots import table as tables
from workbench.plots.download import csv_text
from workbench.plots.front import AXES, HEIGHTS, ParetoData, best_within, data_of, filtered, hover, short
from workbench.plots.markup import join, tag
from workbench.plots.pareto import drawn
from workbench.plots.theme import technique_symbols, template_json, theme
from workbench.recipe import Recipe
from workbench.registry import members
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.figure import Figure
from workbench.widgets.pieces import Fold, Slider
from workbench.widgets.trial_words import (
    PAGE,
    SORTS,
    best_text,
    detail_html,
    lost_html,
    page_of,
    pins_html,
    refused_html,
    rows_html,
    trials_html,
)
from workbench.widgets.trials import known_recipe

__all__ = ["ParetoExplorer", "detail_html", "refused_html", "trials_html"]

#: The value of "none" in the list of trials: None would leave the list without a selection, blank.
_NONE = -1
#: So many trials are in the list to choose from; a click in the figure or a number finds the others.
LISTED = 200


class ParetoExplorer(Adapter):
    """`frame` (as `Study.frame()`), `goal`, `theme`, `refused`, `notes` in; `selected` is a trial's number and
    `value` its `Recipe`, both None where nothing is chosen; `chosen` are the trials inside a lasso or a box, `pinned`
    those that stand side by side."""

    frame = traitlets.Instance(pd.DataFrame, allow_none=True)
    goal = traitlets.Any(None, allow_none=True)
    theme = traitlets.Enum(("light", "dark"), "light")
    refused = traitlets.List()
    notes = traitlets.List()
    selected = traitlets.Int(None, allow_none=True)
    chosen = traitlets.Tuple(())
    pinned = traitlets.Tuple(())

    def __init__(self, **kwargs: Any) -> None:
        self._lock = threading.RLock()
        self._rows: list[dict[str, Any]] = []
        self._hovers: dict[int, tuple[Any, str]] = {}
        self._symbols: dict[tuple[str, ...], str] = {}
        self._data: ParetoData | None = None
        self._page, self._given = 0, 1.0
        self._still = False
        self.use: Callable[[Recipe], None] = lambda recipe: None
        self._build()
        super().__init__(self._layout(), "wb-card", **kwargs)
        styled(self, "wb-explorer")
        self._connect()
        self.frame = pd.DataFrame()

    @property
    def code(self) -> str:
        """The selected trial's recipe as Python; `None` where nothing is selected."""
        return repr(self.value)

    # --- what there is ------------------------------------------------------------------------------------------

    def _build(self) -> None:
        auto = {"style": {"description_width": "auto"}}
        self.figure = styled(Figure(self._csv, name="trials", label="Trials: score against cost"), "wb-figure")
        self.axis = ipw.Dropdown(
            options=[(short(a.title), name) for name, a in AXES.items()], description="Across", **auto
        )
        self.height = ipw.Dropdown(
            options=[(short(w), name) for name, w in HEIGHTS.items()], description="Height", **auto
        )
        self.near = ipw.ToggleButton(description="Around the goal", tooltip="Show the heights that matter for the goal")
        self.choose = ipw.Dropdown(options=[("none", _NONE)], description="Trial", **auto)
        self.allow = Slider(label="Lose at most", low=0, high=5, most=100, step=0.05, value=1.0, unit="pt")
        self.bound = Slider(label="At least", low=0, high=1, step=0.01, value=0, disabled=True)
        self.filter = Fold(label="Filter", note="all trials")
        self._filters = styled(ipw.VBox(), "wb-filters")
        self.runtimes: dict[str, ipw.Checkbox] = {}
        self.techniques: dict[str, ipw.Checkbox] = {}
        self.reuse = ipw.Button(description="Open in the builder", tooltip="Tick what this recipe is made of")
        self.pin = ipw.Button(description="Pin", tooltip="Keep this trial to compare it with others")
        self.unpin = ipw.Button(description="Unpin all")
        self.inside = ipw.Button(description="Pin these", tooltip="Pin the trials inside the lasso or the box")
        self.said, self.detail = html("", "wb-note"), html("", "wb-detail")
        self.best, self.pins = html("", "wb-within"), html("", "wb-trials")
        self.sort = ipw.Dropdown(options=list(SORTS), description="Sort by", **auto)
        self.sooner = ipw.Button(description="Previous", tooltip="The page of the table before this one")
        self.later = ipw.Button(description="Next", tooltip="The page of the table behind this one")
        self.place = html("", "wb-note")
        self.trials, self.left_out = html("", "wb-trials"), html("", "wb-refusals")

    def _layout(self) -> list[Any]:
        row = lambda *made: styled(ipw.HBox(made), "wb-row")  # noqa: E731 - a name for what stands in a line
        limits = styled(ipw.HBox([self.allow, self.bound]), "wb-limits")
        self._pager = row(self.sort, self.sooner, self.later, self.place)
        self._actions = row(self.code_box(), self.reuse, self.pin)
        self._pinned = styled(ipw.VBox([self.pins, self.unpin]), "wb-flow")
        figure = styled(ipw.VBox([self.figure, self.best, self.inside]), "wb-front")
        side = styled(ipw.VBox([self.detail, self._actions]), "wb-side")
        return [
            heading("Accuracy against cost"),
            row(self.axis, self.height, self.near, self.choose),
            limits,
            self.filter,
            self._filters,
            styled(ipw.HBox([figure, side]), "wb-beside"),
            self._pinned,
            self.said,
            self._pager,
            self.trials,
            self.left_out,
        ]

    def _connect(self) -> None:
        self.observe(self._read, "frame")
        self.observe(self._goal_given, "goal")
        self.axis.observe(self._fit_bound, "value")
        for widget in (self.axis, self.height, self.near, self.allow, self.bound):
            widget.observe(self._draw, "value")
        self.observe(self._draw, ["theme", "pinned"])
        self.observe(self._say, ["refused", "notes"])
        self.observe(self._select, "selected")
        self.observe(self._show_pins, "pinned")
        self.observe(self._show_chosen, "chosen")
        self.filter.observe(self._unfold, "unfolded")
        self.figure.observe(self._clicked, "clicked")
        self.figure.observe(self._lassoed, "chosen")
        self.choose.observe(self._listed, "value")
        self.reuse.on_click(lambda _: self.value is not None and self.use(self.value))
        self.pin.on_click(self._pin)
        self.unpin.on_click(lambda _: self.set_trait("pinned", ()))
        self.inside.on_click(lambda _: self.set_trait("pinned", tuple(dict.fromkeys((*self.pinned, *self.chosen)))))
        self.sort.observe(partial(self._turn, None), "value")
        self.sooner.on_click(partial(self._turn, -1))
        self.later.on_click(partial(self._turn, 1))

    # --- reading ------------------------------------------------------------------------------------------------

    def _read(self, _: object = None) -> None:
        """Take in a frame: once, whatever is then drawn of it."""
        with self._lock:
            self._rows = [] if self.frame is None else tables.rows(self.frame)
            self._symbols = technique_symbols(tuple(row["techniques"]) for row in self._rows)
            texts = {str(row["number"]): self._hover(row) for row in self._rows if row["state"] == "complete"}
            self._still = True
            self._offer()
            self._fit_bound()
            self._goal_given()
            self.selected = next(iter(self._known([self.selected])), None)
            self.pinned, self.chosen = tuple(self._known(self.pinned)), tuple(self._known(self.chosen))
            self._still = False
            if texts != self.figure.texts:
                self.figure.texts = texts
            self._list()
            self._draw()
            self._detail()
            self._show_pins()

    def _hover(self, row: Mapping[str, Any]) -> str:
        """A row's hover, made once for what it says now."""
        number = int(row["number"])
        state = [str(row.get(name)) for name in ("recipe_id", "goal_text", "holds_not", "report_accuracy")]
        if self._hovers.get(number, (None,))[0] != state:
            self._hovers[number] = (state, hover(row))
        return self._hovers[number][1]

    def _offer(self) -> None:
        """Checkboxes for the runtimes and techniques that occur."""
        titles = {name: getattr(kind, "title", name) for name, kind in members("backends").items()}
        before = len(self.runtimes) + len(self.techniques)
        for made, names, ticked in (
            (self.runtimes, {str(row["backend"]) for row in self._rows}, True),
            (self.techniques, {name for row in self._rows for name in row["techniques"]}, False),
        ):
            for name in sorted(names - set(made)):
                box = ipw.Checkbox(value=ticked, description=titles.get(name, name), indent=False)
                box.observe(self._filtered, "value")
                made[name] = styled(box, "wb-set")
        if len(self.runtimes) + len(self.techniques) > before:
            self._unfold()

    def _unfold(self, _: object = None) -> None:
        if not self.filter.unfolded or not self._rows:
            self._filters.children = ()
            return
        line = lambda words, made: styled(ipw.HBox([html(words, "wb-note"), *made.values()]), "wb-open")  # noqa: E731
        self._filters.children = (line("Runtime", self.runtimes), line("With", self.techniques))

    def _kept(self) -> list[Any]:
        """The rows that the filter lets through."""
        on = {name for name, box in self.runtimes.items() if box.value}
        wanted = [name for name, box in self.techniques.items() if box.value]
        return filtered(self._rows, None if len(on) == len(self.runtimes) else on, wanted)

    def _filtered(self, _: object = None) -> None:
        self._page = 0
        self._draw()

    # --- drawing ------------------------------------------------------------------------------------------------

    def _draw(self, _: object = None) -> None:
        """Bring the figure to the frame, the axes and the limits; a person's zoom stays."""
        if self._still:
            return
        with self._lock:
            kept, x, y = self._kept(), self.axis.value, self.height.value
            share = all(tables.is_fraction(row["metric"]) for row in kept if row["state"] == "complete")
            self.allow.unit = "pt" if share else ""
            try:
                # Hovers are sent apart.
                data = data_of(kept, x=x, y=y, allowed=self.allow.value, text=lambda row: "")
            except DataError as error:
                self.best.value = tag("p", str(error), class_="wb-what", role="alert")
                return
            bound = self._bound()
            # Only where something is asked for is something the best of it.
            best = best_within(data, self.allow.value, bound) if data.goal is not None or bound is not None else None
            self._data = data
            made = drawn(
                data,
                theme(self.theme),
                focus=self.near.value,
                selected=self.selected,
                pinned=self.pinned,
                best=best,
                bound=bound,
                symbols=self._symbols,
            )
            made["layout"]["template"] = template_json(self.theme)
            self.figure.show(made)
            shown = "all trials" if len(kept) == len(self._rows) else f"{len(kept):,} of {len(self._rows):,} trials"
            self.filter.note = shown
            some = any(not point.baseline for point in data.points)
            limited = some and (data.goal is not None or bound is not None)
            self.best.value = best_text(kept, best.number if best else None, limited)
            self._show_table(kept)

    def _bound(self) -> float | None:
        """The limit across; None at its loosest end."""
        loosest = self.bound.low if AXES[self.axis.value].more_is_better else self.bound.high
        return None if self.bound.disabled or self.bound.value == loosest else float(self.bound.value)

    def _fit_bound(self, change: dict | None = None) -> None:
        """The slider across runs over what the trials have; another axis begins at its loosest end."""
        axis, slider = AXES[self.axis.value], self.bound
        values = [axis.factor * tables.number(row.get(self.axis.value)) for row in self._rows]
        values = [value for value in values if math.isfinite(value)]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        step = 10.0 ** math.floor(math.log10((high - low) / 50)) if high > low else 0.01
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
        was, fresh = self._bound(), change is not None
        still, self._still = self._still, True
        slider.label, slider.unit = ("At least" if axis.more_is_better else "At most"), axis.unit
        slider.low, slider.high, slider.step, slider.disabled = low, high, step, not values
        slider.value = (low if axis.more_is_better else high) if fresh or was is None else was
        self._still = still

    def _goal_given(self, _: object = None) -> None:
        """The limit of the drop is what the goal allows, until a person moves it."""
        with self._lock:
            first = next((r for r in self._rows if r["number"] == 0 and r["state"] == "complete"), None)
            if self.goal is None or self.allow.value != self._given:
                return
            score = tables.number(first["accuracy"]) if first else 1.0
            factor = 100 if first is None or tables.is_fraction(first["metric"]) else 1
            self._given = round(factor * self.goal.allowed_drop(score), 4)
            self.allow.value = self._given
            self._given = self.allow.value

    # --- choosing -----------------------------------------------------------------------------------------------

    def _list(self) -> None:
        """The trials to choose from: all of them where they are few, else the newest, and what is selected."""
        rows = self._rows[-LISTED:]
        if self.selected is not None and all(row["number"] != self.selected for row in rows):
            rows = [*(row for row in self._rows if row["number"] == self.selected), *rows]
        wanted = [("none", _NONE), *((f"{row['number']}: {row['title']}", row["number"]) for row in rows)]
        still, self._still = self._still, True
        if list(self.choose.options) != wanted:
            self.choose.options = wanted
        self.choose.value = self.selected if self._known([self.selected]) else _NONE
        self._still = still

    def _known(self, numbers: Iterable[Any]) -> list[int]:
        """Those that are numbers of trials: what a page sends may be of an older frame."""
        there = {int(row["number"]) for row in self._rows}
        return [number for number in numbers if number in there]

    def _clicked(self, change: dict) -> None:
        for number in self._known([change["new"].get("trial")]):
            self.selected = number

    def _lassoed(self, change: dict) -> None:
        self.chosen = tuple(self._known(change["new"].get("trials", ())))

    def _listed(self, change: dict) -> None:
        if not self._still:
            self.selected = None if change["new"] in (_NONE, None) else change["new"]

    def _select(self, _: object = None) -> None:
        with self._lock:
            if self._still:
                return
            self._list()
            self._detail()
            self._draw()

    def _detail(self) -> None:
        with self._lock:
            row = next((r for r in self._rows if r["number"] == self.selected), None)
            self.value = known_recipe(row["recipe"]) if row else None
            self.reuse.layout.display = "none" if self.value is None else None
            self.pin.layout.display = "none" if row is None else None
            self.pin.description = "Unpin" if self.selected in self.pinned else "Pin"
            self.detail.value = detail_html(self._rows, self.selected)

    def _pin(self, _: object = None) -> None:
        if self.selected in self.pinned:
            self.pinned = tuple(number for number in self.pinned if number != self.selected)
        elif self.selected is not None:
            self.pinned = (*self.pinned, self.selected)

    def _show_pins(self, _: object = None) -> None:
        self.pins.value = pins_html(self._rows, self.pinned)
        self._pinned.layout.display = None if self.pinned else "none"
        self.pin.description = "Unpin" if self.selected in self.pinned else "Pin"

    def _show_chosen(self, _: object = None) -> None:
        self.inside.description = f"Pin these {len(self.chosen)}"
        self._page = 0
        self._show_table()

    # --- the table ----------------------------------------------------------------------------------------------

    def _turn(self, step: int | None, _: object = None) -> None:
        self._page = 0 if step is None else self._page + step
        self._show_table()

    def _show_table(self, kept: list[Any] | None = None) -> None:
        """One page of what the filter and the lasso let through."""
        if self._still:
            return
        kept = self._kept() if kept is None else kept
        shown = [row for row in kept if row["number"] in self.chosen] if self.chosen else kept
        pages = max(1, -(-len(shown) // PAGE))
        self._page = min(max(self._page, 0), pages - 1)
        page, _ = page_of(shown, self.sort.value, self._page)
        self.inside.layout.display = None if 0 < len(self.chosen) <= 6 else "none"
        self.sooner.disabled, self.later.disabled = self._page == 0, self._page >= pages - 1
        self._pager.layout.display = None if len(self._rows) > 1 else "none"
        first = self._page * PAGE + 1
        inside = " inside the selection" if self.chosen else ""
        self.place.value = tag("span", f"{first}–{first + len(page) - 1} of {len(shown):,} trials{inside}")
        if not self._rows:
            self.trials.value = tag("p", "No trial yet. Start a sweep: each trial appears here.", class_="wb-note")
            return
        front = self._data.front if self._data else ()
        self.trials.value = join([rows_html(page, front), lost_html(shown)])

    def _csv(self) -> str:
        """The table as CSV, all pages of it."""
        kept = self._kept()
        shown = [row for row in kept if row["number"] in self.chosen] if self.chosen else kept
        return csv_text(pd.DataFrame(shown).drop(columns=["recipe"], errors="ignore"))

    def _say(self, _: object = None) -> None:
        self.left_out.value = refused_html(self.refused)
        self.said.value = join(tag("div", note) for note in self.notes)
