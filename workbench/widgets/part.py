"""A part of the rail that folds: a button with its name and what was chosen in it, and the part below.

Left out: folding one when another unfolds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as ipw
import traitlets

from workbench.widgets.base import styled
from workbench.widgets.pieces import Fold


class Part(ipw.VBox):
    """`Part("Data", picker.form)`; `about` stands behind the name, `unfolded` says whether the part is seen.

    `make` instead of a part gives it when it is unfolded for the first time.
    """

    unfolded = traitlets.Bool(False)
    about = traitlets.Unicode("")
    children: Any

    def __init__(
        self,
        title: str,
        part: ipw.Widget | None = None,
        *,
        make: Callable[[], ipw.Widget] | None = None,
        unfolded: bool = False,
    ) -> None:
        self._make = make
        self.button = Fold(label=title, unfolded=unfolded)
        self.body = styled(ipw.VBox([part] if part is not None else []), "wb-part-body")
        super().__init__([self.button, self.body], unfolded=unfolded)
        styled(self, "wb-part")
        traitlets.link((self, "unfolded"), (self.button, "unfolded"))
        self.observe(self._show, ["unfolded", "about"])
        self._show()

    def _show(self, _: object = None) -> None:
        if self.unfolded and self._make is not None:
            make, self._make = self._make, None
            self.body.children = (make(),)
        self.button.note = "" if self.unfolded else self.about
        self.body.layout.display = None if self.unfolded else "none"
