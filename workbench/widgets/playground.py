"""Type a text and see what the uncompressed model and the chosen trials make of it, and how long each takes.

The models live in a process of their own; what is typed while they answer overtakes what was typed before. Left out:
texts that a language model would go on writing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.plots.answers import batch_summary, batch_table, probabilities_html
from workbench.plots.download import csv_link
from workbench.plots.markup import join, table, tag, wide
from workbench.reading import answers, examples
from workbench.running.models import Models
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel
from workbench.widgets.trials import alone, choices, rows
from workbench.widgets.worker import Worker

#: Seconds without a key after which the text is answered.
PAUSE = 0.25
#: The most lines of a batch.
MOST_TEXTS = 500
#: Texts from which an example is drawn.
EXAMPLES = 200
NO_TRIALS = "No measured trial yet. Start a sweep; a trial can be tried as soon as it is complete."
NO_TEXT = "Type a text, or take an example. The uncompressed model answers beside the trials that you choose."


class Playground(Adapter):
    """Texts in, answers out: `Playground(study, [5, 8])` in a cell.

    `study`, `frame` (as `Study.frame()`) and `numbers` (trials beside the baseline) in; `value` is the frame that
    `answers` gives, None while there is no text.
    """

    study = traitlets.Any(None, allow_none=True)
    frame = traitlets.Instance(pd.DataFrame, allow_none=True)
    numbers = traitlets.List(traitlets.Int())

    def __init__(
        self, study: Any = None, numbers: Sequence[int] = (), *, models: Models | None = None, **kwargs: Any
    ) -> None:
        self.models = models
        auto = {"style": {"description_width": "auto"}}
        self.choose = styled(ipw.SelectMultiple(description="Trials", rows=5, **auto), "wb-choose")
        self.many = ipw.ToggleButton(description="Many texts", tooltip="One text on each line, answered at once")
        self.example = ipw.Button(description="Another example", tooltip="Take a text of the study's data")
        self.text = styled(
            ipw.Textarea(description="Text", placeholder="Type a sentence …", rows=3, **auto), "wb-choose", "wb-text"
        )
        self.second = styled(ipw.Textarea(description="Second text", rows=2, **auto), "wb-choose", "wb-text")
        self.second.layout.display = "none"
        self.line, self.panel, self.shown = html("", "wb-status"), ErrorPanel(), html("", "wb-wrap")
        self.worker = Worker(self._busy, lambda error: self.panel.set_trait("error", error))
        self._examples: list[tuple[str, ...]] = []
        self._filling = False
        super().__init__(
            [
                heading("Playground"),
                styled(ipw.HBox([self.choose]), "wb-row", "wb-choices"),
                self.text,
                self.second,
                styled(ipw.HBox([self.example, self.many, self.code_box()]), "wb-row"),
                self.line,
                self.panel,
                self.shown,
            ],
            "wb-card",
            **kwargs,
        )
        self.observe(self._open, "study")
        self.observe(self._list, "frame")
        self.observe(self._numbers, "numbers")
        self.choose.observe(self._chosen, "value")
        for field in (self.text, self.second):
            field.observe(self._typed, "value")
        self.many.observe(self._switch, "value")
        self.example.on_click(lambda _: self._take())
        self._draw()
        if study is not None:
            alone(self)
            self.numbers = list(numbers)
            self.study = study

    @property
    def code(self) -> str:
        """`answers(study, [0, 5], ['a text'])`"""
        return f"answers(study, {self._asked()!r}, {[t[0] if len(t) == 1 else t for t in self.texts()]!r})"

    def texts(self) -> list[tuple[str, ...]]:
        """What is to be answered: one text (or a pair), or every line of a batch, in which a tab parts a pair."""
        if self.many.value:
            lines = [line.strip() for line in self.text.value.splitlines() if line.strip()]
            return [tuple(part.strip() for part in line.split("\t")[:2]) for line in lines[:MOST_TEXTS]]
        one = " ".join(self.text.value.split())
        pair = (one, " ".join(self.second.value.split())) if self.second.layout.display is None else (one,)
        return [pair] if one else []

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until what was typed is answered and shown (for scripts and tests)."""
        self.worker.settle(seconds)

    # --- plumbing -----------------------------------------------------------------------------------------------

    def _asked(self) -> list[int]:
        """The baseline, then the chosen trials."""
        return [0, *(number for number in self.numbers if number)]

    def _open(self, change: dict) -> None:
        old, study = change["old"], change["new"]
        if old is not None and study is not None and old.folder == study.folder:
            return
        if old is not None:
            self.numbers, self.frame, self._examples = [], None, []
        self._pairs(False)
        if study is not None and self.frame is None:
            self.worker.order("Reading the study …", lambda order: study.frame(), self._framed)
        elif study is not None:
            self._ask()

    def _framed(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._ask()

    def _list(self, _: object = None) -> None:
        options = [(words, number) for words, number in choices(self.frame) if number]
        if list(self.choose.options) != options:
            self._filling = True
            self.choose.options = options
            self.choose.rows = rows(options)
            self._filling = False
        self._choose()
        self._draw()

    def _choose(self) -> None:
        known = [number for _, number in self.choose.options]
        self._filling = True
        self.choose.value = tuple(n for n in self.numbers if n in known)
        self._filling = False

    def _chosen(self, _: object = None) -> None:
        if not self._filling:
            self.numbers = list(self.choose.value)

    def _numbers(self, _: object = None) -> None:
        self._choose()
        self._ask()

    def _typed(self, _: object = None) -> None:
        self._ask(PAUSE)

    def _switch(self, _: object = None) -> None:
        many = self.many.value
        self.text.rows = 10 if many else 3
        self.text.description = "Texts" if many else "Text"
        self.text.placeholder = f"One text on each line, at most {MOST_TEXTS}" if many else "Type a sentence …"
        self._ask()

    def _pairs(self, pairs: bool) -> None:
        """Show the second field where the data are pairs of texts."""
        self.second.layout.display = None if pairs else "none"

    def _ask(self, after: float = 0.0) -> None:
        """Have what stands there answered."""
        texts = self.texts()
        if self.study is None or not texts or not choices(self.frame):
            self.worker.drop()
            self.value = None
            self._draw()
            return
        study, numbers, models = self.study, self._asked(), self.models
        self.worker.order(
            "Answering …",
            lambda order: answers(study, numbers, texts, models=models, say=order.say, dropped=order.dropped),
            self._answered,
            after=after,
        )

    def _answered(self, frame: pd.DataFrame) -> None:
        self.value = frame
        self._draw()

    def _take(self) -> None:
        """Put a text of the data into the field."""
        if self.study is None:
            return
        if self._examples:
            self._put()
            return
        study, models = self.study, self.models
        self.worker.order(
            "Reading the texts …",
            lambda order: examples(study, limit=EXAMPLES, models=models, say=order.say, dropped=order.dropped),
            self._taken,
        )

    def _taken(self, found: list[tuple[str, ...]]) -> None:
        self._examples = found
        self._pairs(bool(found) and len(found[0]) > 1)
        self._put()

    def _put(self) -> None:
        one = random.choice(self._examples)
        self.many.value = False
        self.second.value = one[1] if len(one) > 1 else ""
        self.text.value = one[0]

    # --- drawing ------------------------------------------------------------------------------------------------

    def _busy(self, saying: str) -> None:
        self.line.value = tag("span", saying)

    def _draw(self) -> None:
        if self.value is None or self.value.empty:
            words = NO_TEXT if choices(self.frame) else NO_TRIALS
            self.shown.value = tag("p", words, class_="wb-note")
            return
        if not self.many.value:
            self.shown.value = join([wide(probabilities_html(self.value, 0), "Probabilities"), _ABOUT])
            return
        frame = batch_table(self.value, 0)
        listed = wide(table(frame, css="wb-table wb-flips"), "Answers")
        self.shown.value = join([tag("p", batch_summary(self.value, 0)), listed, csv_link(frame, "answers")])


_ABOUT = tag(
    "p",
    "Milliseconds are the median of a few calls with this text, in this moment: an impression. What a trial's speed-up "
    "is worth was measured beside the uncompressed model, and stands behind it in the list.",
    class_="wb-note",
)
