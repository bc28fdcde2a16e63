"""The tabs on the right: each widget is made when its tab is opened first, and only the open one is fed.

What the study says, and which trials are chosen, waits until a tab is looked at. So a tab that nobody opened costs
nothing, and one that is not seen asks for nothing. Left out: several tabs side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.plots.markup import tag
from workbench.widgets.base import styled
from workbench.widgets.trials import choices

Make = Callable[[], Any]
#: The tab whose trials have a reference among them.
COMPARE = "Compare"


@dataclass(frozen=True)
class Chosen:
    """Which trials a person points at: `selected` by a click, `pinned` to be compared."""

    selected: int | None = None
    pinned: tuple[int, ...] = ()

    def compared(self) -> list[int]:
        """A reference and what is held against it: two pins or more stand for themselves, one trial beside the first
        trial, which is the uncompressed model."""
        if len(self.pinned) > 1:
            return list(dict.fromkeys(self.pinned))
        one = self.pinned[0] if self.pinned else self.selected
        return [0, one] if one else []

    def tried(self) -> list[int]:
        """Trials that answer beside the uncompressed model."""
        chosen = self.pinned or ((self.selected,) if self.selected else ())
        return [number for number in dict.fromkeys(chosen) if number]

    def one(self) -> int | None:
        """The one that is looked into."""
        return self.selected if self.selected is not None else self.pinned[-1] if self.pinned else None


class Views(ipw.Tab):
    """`Views({"Front": make, …})`; `shown` is the open one's widget, `widgets` those made so far by title,
    `doing` what one of them says that it does (as HTML, empty when nothing)."""

    doing = traitlets.Unicode("")
    children: Any

    def __init__(self, makers: Mapping[str, Make]) -> None:
        self._makers = dict(makers)
        self._boxes = {title: styled(ipw.VBox(), "wb-view-box") for title in makers}
        self.widgets: dict[str, Any] = {}
        self.study: Any = None
        self.frame: pd.DataFrame | None = None
        self.theme, self.chosen = "light", Chosen()
        #: What a tab shows where nobody has chosen yet: the best trial of a study that is at rest.
        self.best: int | None = None
        self.copy: Callable[[str], None] = lambda text: None
        self._fed: dict[str, Chosen] = {}
        # The page turns to a tab while the watcher brings what is new.
        self._lock = threading.RLock()
        super().__init__(list(self._boxes.values()), titles=tuple(makers), selected_index=0)
        styled(self, "wb-views")
        self.observe(lambda _: self.feed(), "selected_index")

    @property
    def title(self) -> str:
        """The open tab."""
        return list(self._boxes)[self.selected_index or 0]

    @property
    def shown(self) -> Any:
        """The open tab's widget."""
        return self.widget(self.title)

    def widget(self, title: str) -> Any:
        """The widget of a tab, made now if it was not."""
        with self._lock:
            if title not in self.widgets:
                made = self.widgets[title] = self._makers[title]()
                if hasattr(made, "copy"):
                    made.copy = self.copy
                if hasattr(made, "line"):
                    made.line.observe(self._hear, "value")
                if self.frame is not None:
                    self._give(made, frame=self.frame)
                self._give(made, theme=self.theme, study=self.study)
                self._boxes[title].children = (made,)
            return self.widgets[title]

    def turn_to(self, title: str) -> Any:
        """Turn to a tab."""
        self.selected_index = list(self._boxes).index(title)
        return self.shown

    def feed(self) -> None:
        """Bring the open tab to the study's trials and to what is chosen, unless it has seen that already."""
        with self._lock:
            title, made = self.title, self.shown
            if self.frame is None:
                return
            if not _same(getattr(made, "frame", None), self.frame):
                self._give(made, frame=self.frame)
            # Only at first: what somebody reads does not move when another trial becomes the best.
            chosen = self.chosen if title in self._fed or self.chosen != Chosen() else Chosen(self.best)
            if self._fed.get(title, Chosen()) == chosen:
                return
            self._fed[title] = chosen
            known = {number for _, number in choices(self.frame)}
            one = chosen.one()
            many = chosen.compared() if title == COMPARE else chosen.tried()
            if one in known:
                self._give(made, number=one)
            if many and known.issuperset(many):
                self._give(made, numbers=many)

    def hand(self, study: Any) -> None:
        """Another study, or none: every tab that was made lets go of the old one."""
        with self._lock:
            same = self.study is not None and study is not None and self.study.folder == study.folder
            self.study = study
            if same:
                return
            self.frame, self.chosen, self.best, self._fed = None, Chosen(), None, {}
            for made in self.widgets.values():
                self._give(made, study=study)

    def paint(self, theme: str) -> None:
        """Every figure in the page's theme."""
        self.theme = theme
        for made in self.widgets.values():
            self._give(made, theme=theme)

    def _hear(self, change: dict) -> None:
        """What a tab says that it does; an empty element is nothing."""
        self.doing = change["new"] if change["new"] != tag("span", "") else ""

    def _give(self, made: Any, **traits: Any) -> None:
        for name, value in traits.items():
            if made.has_trait(name):
                setattr(made, name, value)


def _same(one: pd.DataFrame | None, other: pd.DataFrame) -> bool:
    return one is other or (one is not None and one.equals(other))
