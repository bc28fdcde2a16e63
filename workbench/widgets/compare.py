"""Trials side by side: numbers with paired intervals, what differs in the recipes, matrices, and the flip list.

Numbers come from the store at once; the texts of the flip list are read by another process. Left out: three models in
one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.comparison import Comparison, compare, kept, layer_delta
from workbench.errors import DataError
from workbench.plots.comparison import confusion_html, flips_html, numbers_table, summary
from workbench.plots.download import csv_link
from workbench.plots.markup import Markup, join, table, tag, wide
from workbench.running.models import Models
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel
from workbench.widgets.trial_times import TrialTimes
from workbench.widgets.trials import alone, choices, rows
from workbench.widgets.worker import Order, Worker

#: Flips shown at first, and more with each click.
PAGE = 25
#: The most texts of a person's own that are answered at once.
MOST_TEXTS = 500
EMPTY = "Choose a reference and one or more trials to compare with it. Hold Ctrl or ⌘ to choose several."
NO_TRIALS = "No measured trial yet. Start a sweep; its trials can be compared as soon as two of them are complete."
TIMES = "By each runtime's own profiler, which costs time itself: a sum of these is no latency."
NO_TIMES = (
    "The layers of these trials have not been timed. The runner does it between trials, with each one's profiler."
)
_KINDS = [("every change", ""), ("right answers lost", "lost"), ("right answers gained", "gained")]


class Compare(Adapter):
    """Trials side by side: `Compare(study, [0, 5])` in a cell.

    `study`, `frame` (as `Study.frame()`) and `numbers` (the first is the reference) in, perhaps `profiles` of one's own
    (trial -> frame with columns `layer`, `ms`); `value` is the `Comparison` with its texts, None until it is complete.
    """

    study = traitlets.Any(None, allow_none=True)
    frame = traitlets.Instance(pd.DataFrame, allow_none=True)
    numbers = traitlets.List(traitlets.Int())
    profiles = traitlets.Dict()

    def __init__(
        self, study: Any = None, numbers: Sequence[int] = (), *, models: Models | None = None, **kwargs: Any
    ) -> None:
        self.models = models
        auto = {"style": {"description_width": "auto"}}
        self.reference = styled(ipw.Dropdown(description="Reference", **auto), "wb-choose")
        self.others = styled(ipw.SelectMultiple(description="Compared with it", rows=6, **auto), "wb-choose")
        self.source = ipw.Dropdown(
            options=[("the examples they were measured on", "study"), ("texts of my own, no labels needed", "own")],
            description="Answers to",
            **auto,
        )
        styled(self.source, "wb-choose")
        self.own = styled(
            ipw.Textarea(description="Texts", placeholder="one text per line", rows=4, **auto), "wb-choose"
        )
        self.answer = styled(
            ipw.Button(description="Answer these texts", tooltip="Have the chosen models answer every line"), "wb-start"
        )
        self.which = styled(ipw.Dropdown(description="Answers of", **auto), "wb-choose")
        self.kind = ipw.Dropdown(options=_KINDS, description="Show", **auto)
        self.more = styled(ipw.Button(description="Show more", tooltip=f"Show {PAGE} more changed answers"), "wb-start")
        self.line, self.panel = html("", "wb-status"), ErrorPanel()
        self.told, self.table, self.differs, self.said, self.matrices, self.list, self.delta = (
            html("", "wb-wrap") for _ in range(7)
        )
        self.clock = TrialTimes(self._draw_delta, lambda error: self.panel.set_trait("error", error))
        self._shown: Comparison | None = None
        self._texts: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._most, self._filling = PAGE, False
        self.worker = Worker(self._busy, lambda error: self.panel.set_trait("error", error))
        self._own = styled(ipw.VBox([self.own, self.answer]), "wb-own")
        self._below = ipw.VBox(
            [
                self.table,
                self.differs,
                heading("What they answer"),
                styled(ipw.HBox([self.which, self.kind]), "wb-row", "wb-choices"),
                self.said,
                self.matrices,
                self.list,
                self.more,
                heading("Milliseconds by layer"),
                self.clock,
                self.delta,
            ]
        )
        super().__init__(
            [
                heading("Compare"),
                styled(ipw.HBox([self.reference, self.others]), "wb-row", "wb-choices"),
                self.source,
                self._own,
                self.line,
                self.panel,
                self.told,
                self._below,
            ],
            "wb-card",
            **kwargs,
        )
        self.children = (*self.children, self.code_box())
        self._connect()
        if study is not None:
            alone(self)
            self.numbers = list(numbers)
            self.study = study

    @property
    def code(self) -> str:
        """`compare(study, [0, 5])`, with the texts where they are a person's own."""
        own = [text[0] if len(text) == 1 else text for text in self._own_texts()]
        given = f", {own!r}" if self.source.value == "own" else ""
        return f"compare(study, {self.numbers!r}{given})" if len(self.numbers) > 1 else "None"

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until everything that was asked for is shown (for scripts and tests)."""
        self.worker.settle(seconds)
        self.clock.settle(seconds)

    # --- plumbing -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self.observe(self._open, "study")
        self.observe(self._list, "frame")
        self.observe(self._numbers, "numbers")
        self.observe(self._draw_delta, "profiles")
        for choice in (self.reference, self.others):
            choice.observe(self._chosen, "value")
        self.source.observe(self._sourced, "value")
        self.answer.on_click(lambda _: self._ask())
        self.which.observe(self._draw_answers, "value")
        self.kind.observe(self._draw_answers, "value")
        self.more.on_click(lambda _: self._show_more())
        self._sourced()
        self._draw()

    def _open(self, change: dict) -> None:
        """Another study: its trials are listed, nothing of the old one stays."""
        old, study = change["old"], change["new"]
        if old is not None and study is not None and old.folder == study.folder:
            return
        if old is not None:
            self.numbers, self.frame, self._shown, self.value = [], None, None, None
        if study is not None and self.frame is None:
            self.worker.order("Reading the study …", lambda order: study.frame(), self._framed)
        elif study is not None and self.numbers:
            self._ask()
        self._draw()

    def _framed(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._ask()

    def _list(self, _: object = None) -> None:
        """Bring the lists to the frame; what is chosen stays."""
        options = choices(self.frame)
        if list(self.others.options) != options:
            self._filling = True
            self.reference.options, self.others.options = options, options
            self.others.rows = rows(options)
            self.reference.index = 0 if options else None
            self._filling = False
        self._choose()
        self._draw()

    def _choose(self) -> None:
        """Show `numbers` in the lists."""
        known = [number for _, number in self.others.options]
        self._filling = True
        if self.numbers and self.numbers[0] in known:
            self.reference.value = self.numbers[0]
        self.others.value = tuple(n for n in self.numbers[1:] if n in known)
        self._filling = False

    def _chosen(self, _: object = None) -> None:
        if not self._filling and self.reference.value is not None:
            others = [n for n in self.others.value if n != self.reference.value]
            self.numbers = [self.reference.value, *others]

    def _numbers(self, _: object = None) -> None:
        self._choose()
        self._shown, self.value = None, None
        self._ask()

    def _sourced(self, _: object = None) -> None:
        own = self.source.value == "own"
        self._own.layout.display = None if own else "none"
        if not own or self._own_texts():
            self._ask()

    def _own_texts(self) -> list[tuple[str, ...]]:
        """The person's texts; a tab parts a pair."""
        lines = [line.strip() for line in self.own.value.splitlines() if line.strip()]
        return [tuple(part.strip() for part in line.split("\t")[:2]) for line in lines[:MOST_TEXTS]]

    def _ask(self) -> None:
        """Compare what is chosen: numbers first, then the texts."""
        self._most, self.value = PAGE, None
        self.clock.look(self.study, self.numbers if len(self.numbers) > 1 else [])
        if self.study is None or len(self.numbers) < 2:
            self.worker.drop()
            self._shown = None
            self._draw()
            return
        study, numbers = self.study, list(self.numbers)
        own = self._own_texts() if self.source.value == "own" else None
        self.worker.order("Comparing …", lambda order: self._answers(order, study, numbers, own), self._finish)

    def _answers(self, order: Order, study: Any, numbers: list[int], own: list[tuple[str, ...]] | None) -> Comparison:
        asks = {"models": self.models, "say": order.say, "dropped": order.dropped}
        place = str(study.folder)
        if own is None and place in self._texts:
            return replace(kept(study, numbers), texts=self._texts[place])
        first = kept(study, numbers)
        if not order.dropped():
            self._shown = first
            self._draw()
        if own is not None and not own:
            raise DataError("There is no text to answer.", do="write one text per line")
        order.say("Reading the texts …" if own is None else "Answering …")
        done = compare(study, numbers, own, **asks)  # type: ignore[arg-type]
        if own is None:
            self._texts[place] = done.texts
        return done

    def _finish(self, done: Comparison) -> None:
        self._shown = self.value = done
        self._draw()

    def _show_more(self) -> None:
        self._most += PAGE
        self._draw_answers()

    # --- drawing ------------------------------------------------------------------------------------------------

    def _busy(self, saying: str) -> None:
        self.line.value = tag("span", saying)

    def _draw(self, _: object = None) -> None:
        shown = self._shown
        self._below.layout.display = None if shown else "none"
        words = "" if shown else EMPTY if choices(self.frame) else NO_TRIALS
        self.told.value = tag("p", words, class_="wb-note") if words else ""
        if shown is None:
            return
        numbers = numbers_table(shown)
        self.table.value = _titled("Numbers", numbers, "comparison")
        self.differs.value = _titled("What differs in the recipes", shown.recipes(), "recipes")
        options = [(f"#{t.number}  {t.recipe.title}", t.number) for t in shown.others]
        if list(self.which.options) != options:
            # A list that was empty chooses nothing by itself.
            self.which.options = options
            self.which.index = self.which.index or 0
        self._draw_answers()
        self._draw_delta()

    def _draw_answers(self, _: object = None) -> None:
        shown, number = self._shown, self.which.value
        if shown is None or number is None or number not in [t.number for t in shown.others]:
            return
        try:
            flips = shown.flips(number)
        except DataError as error:
            self.said.value, self.matrices.value, self.list.value = tag("p", error.what), "", ""
            return
        classes = number in shown.answered
        self.kind.layout.display = None if classes and shown.labelled else "none"
        self.said.value = tag("p", summary(shown, number))
        self.matrices.value = _matrices(shown, number) if classes else ""
        wanted = flips[flips["change"] == self.kind.value] if self.kind.value and shown.labelled and classes else flips
        link = csv_link(wanted, f"flips-{shown.reference.number}-{number}")
        none = tag("p", "No answer changed." if flips.empty else "None of this kind.", class_="wb-note")
        self.list.value = join([flips_html(wanted, self._most), link]) if len(wanted) else none
        self.more.layout.display = None if len(wanted) > self._most else "none"

    def _draw_delta(self, _: object = None) -> None:
        """Milliseconds by layer, where a profile of both is there."""
        profiles: Mapping[int, pd.DataFrame] = {**self.clock.profiles, **self.profiles}
        first = self._shown.reference.number if self._shown else None
        other = self.which.value
        if first is None or first not in profiles or other not in profiles:
            self.delta.value = tag("p", NO_TIMES, class_="wb-note")
            return
        frame = layer_delta(profiles[first], profiles[other])
        text = frame.map(lambda cell: cell if isinstance(cell, str) else f"{cell:.3f}".replace("nan", "–"))
        text["delta"] = [f"{one:+.3f}".replace("-", "−") for one in frame["delta"]]
        text.columns = ["Layer", f"#{first} (ms)", f"#{other} (ms)", "Difference (ms)"]
        shown = wide(table(text, css="wb-table wb-facts"), "Milliseconds by layer")
        self.delta.value = join([tag("p", TIMES, class_="wb-note"), shown, csv_link(frame, "layers")])


def _titled(title: str, frame: pd.DataFrame, name: str) -> Markup:
    """A table with its heading and its download."""
    if frame.empty:
        return join([tag("h3", title), tag("p", "Nothing.", class_="wb-note")])
    shown = wide(table(frame, css="wb-table wb-facts"), title)
    return join([tag("h3", title), shown, csv_link(frame, name)])


def _matrices(shown: Comparison, number: int) -> Markup:
    """Who answered what, for the reference and for the trial; without labels one against the other."""
    if not shown.labelled:
        counts = shown.confusion(number)
        return tag("div", confusion_html(counts, f"#{shown.reference.number}", f"#{number}"), class_="wb-matrices")
    both = [confusion_html(shown.confusion(n), "label", f"#{n}") for n in (shown.reference.number, number)]
    return tag("div", *both, class_="wb-matrices")
