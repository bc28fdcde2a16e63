"""Which techniques on which runtimes: ticks in, a `Space` or a `Recipe` out, with what cannot be, and why.

Techniques stand under the five groups that people know. A folded group shows what is ticked of it, so that the panel
stays short. Settings come from the knobs' own declarations; each is one value, a set or a range. Left out: dragging.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, get_args

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.backends.base import Backend
from workbench.dimensions import Choice
from workbench.draft import resolve_keep
from workbench.errors import UserError
from workbench.plots.markup import Markup, join, tag
from workbench.recipe import Open, Recipe, Space, contradiction, plugin
from workbench.registry import members
from workbench.techniques.base import Group, Trained
from workbench.tuning.effort import effort, refusals, typical_seconds
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.caveats import caveats_html, estimate_html, keep_problem
from workbench.widgets.controls import changed, fields
from workbench.widgets.pieces import Fold
from workbench.widgets.plugin_row import PluginRow, summary

#: Ticked at first: what needs no training and has a chance on every machine.
FIRST_TECHNIQUES = ("bf16", "dynamic_int8", "static_int8")
GROUPS: tuple[str, ...] = get_args(Group)
#: Said of a group that no technique is in.
EMPTY = {
    "graph optimization": "Every runtime does this by itself: fused operators, folded constants, fixed shapes. "
    "Its settings are those of the runtimes below.",
}
SPACE, RECIPE = "space", "recipe"


class RecipeBuilder(Adapter):
    """`value` is a `Space`, or a `Recipe` where `make` says so; None while it cannot be made, which `told` explains.
    `facts` of the model sharpen what is refused, `frame` (as `Study.frame()`) what is estimated; `keep` are patterns of
    layers to leave alone."""

    facts = traitlets.Any(None, allow_none=True)
    frame = traitlets.Instance(pd.DataFrame, allow_none=True)
    keep = traitlets.Tuple(())

    def __init__(
        self, techniques: Iterable[str] = FIRST_TECHNIQUES, backends: Iterable[str] = (), **kwargs: Any
    ) -> None:
        kinds: Mapping[str, Any] = members("backends")
        lacking = {name: kind.available() or "" for name, kind in kinds.items()}
        wanted, ticked = set(backends) or {name for name, reason in lacking.items() if not reason}, set(techniques)
        common = Backend.knobs()
        self._kinds: dict[str, Any] = dict(members("techniques"))
        self._lacking = lacking
        self.rows = {n: PluginRow(n, k, n in ticked, k.knobs()) for n, k in self._kinds.items()}
        self.runtimes = {
            n: PluginRow(n, k, n in wanted, {a: b for a, b in k.knobs().items() if a not in common}, reason=lacking[n])
            for n, k in kinds.items()
        }
        self.techniques = {name: row.tick for name, row in self.rows.items()}
        self.backends = {name: row.tick for name, row in self.runtimes.items()}
        self.workload = fields(common)
        self._order = sorted(ticked, key=lambda name: (self._kinds[name].phase, name))
        self._hold = False
        self._build()
        super().__init__(self._layout(), "wb-card", **kwargs)
        styled(self, "wb-builder")
        self._connect()
        self._show_groups()
        self._assign()

    @property
    def code(self) -> str:
        """`Space(Open('bf16', optional=True), backends=[Open('openvino')])`, or `Recipe(Bf16(), backend=OpenVINO())`"""
        return repr(self.value)

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of every technique's knobs, by technique."""
        return _Lazy(self.rows)

    def show(self, recipe: Recipe) -> None:
        """Tick what `recipe` is made of, with its settings, and nothing else."""
        steps = {step.name: step for step in recipe.steps}
        self._hold = True
        try:
            self.make.value, self.keep = RECIPE, recipe.keep
            self._order = list(steps)
            for name, row in self.rows.items():
                row.tick.value = name in steps
                if name in steps:
                    row.fill(steps[name].settings())
            for name, row in self.runtimes.items():
                row.tick.value = name == recipe.backend.name and not self._lacking[name]
                if name == recipe.backend.name:
                    row.fill({k: v for k, v in recipe.backend.settings().items() if k in row.knobs})
            for name, made in self.workload.items():
                made.value = recipe.backend.settings()[name]
        finally:
            self._hold = False
        self._show_groups()
        self._assign()

    def in_short(self) -> str:
        """What is ticked, in a few words."""
        ticked = [sum(tick.value for tick in ticks.values()) for ticks in (self.techniques, self.backends)]
        return "{} techniques, {} runtimes".format(*ticked) if self.value is not None else "nothing to run"

    def task_options(self) -> dict[str, Any]:
        """What the task has to know of the runtimes' settings: it cuts its texts to the same length."""
        sequence = changed(Backend.knobs(), self.workload).get("sequence")
        if isinstance(sequence, Choice):
            sequence = max(sequence.values)
        longest = getattr(sequence, "high", sequence)
        return {"sequence": int(longest)} if longest else {}

    # --- what is chosen -----------------------------------------------------------------------------------------

    def chosen(self) -> list[str]:
        """The ticked techniques in the order in which they are applied."""
        return [name for name in self._order if self.rows[name].tick.value]

    def made(self) -> Space | Recipe:
        """What the panel says; raises `UserError` with what is wrong."""
        runtimes = [name for name, row in self.runtimes.items() if row.tick.value]
        for row in (*self.rows.values(), *self.runtimes.values()):
            if row.problem:
                raise UserError(row.problem)
        wrong = [made.problem for made in self.workload.values() if made.problem]
        if wrong:
            raise UserError(wrong[0])
        if not runtimes:
            raise UserError("Tick at least one runtime.")
        workload = changed(Backend.knobs(), self.workload)
        if self.make.value == RECIPE:
            steps = [plugin("techniques", name, **self.rows[name].settings) for name in self.chosen()]
            knobs = {**workload, **self.runtimes[runtimes[0]].settings}
            return Recipe(*steps, backend=plugin("backends", runtimes[0], **knobs), keep=self.keep)
        opened = [Open(name, optional=not self.rows[name].always, **self.rows[name].settings) for name in self.chosen()]
        keep: Any = Choice((), self.keep) if self.keep and self.without.value else self.keep
        backends = [Open(name, **workload, **self.runtimes[name].settings) for name in runtimes]
        return Space(*opened, backends=backends, keep=keep)

    def _assign(self, _: object = None) -> None:
        if self._hold:
            return
        self._caveats()
        problem: UserError | None = keep_problem(self.keep, self.facts)
        made: Space | Recipe | None = None
        if problem is None:
            try:
                made = self.made()
            except UserError as error:
                problem = error
        self.value = made
        self._tell(problem)

    def _tell(self, problem: UserError | None) -> None:
        """Under the panel: what is wrong, or what there is to run."""
        if self.value is None:
            parts = [tag("p", problem.what if problem else "", class_="wb-what", role="alert")]
            parts += [tag("p", words) for words in (problem.allowed, problem.do) if words] if problem else []
            self.told.value = join(parts)
            return
        rows = [] if self.frame is None else self.frame.to_dict("records")
        known = [(row["techniques"], row["seconds"] or 0.0) for row in rows if row["state"] == "complete"]
        refused = self.value.refusal(self.facts) if isinstance(self.value, Recipe) and self.facts else None
        parts = [tag("p", f"This cannot be run: {refused}", class_="wb-what", role="alert")] if refused else []
        self.told.value = join(parts or [estimate_html(effort(self.value, self.facts), typical_seconds(known))])

    def _caveats(self) -> None:
        """Bring what is refused, and what should be known, to where it arises."""
        chosen, here = self.chosen(), [name for name, reason in self._lacking.items() if not reason]
        single = self.make.value == RECIPE
        pairs = refusals(chosen, here, self.facts)
        for i, name in enumerate(chosen):
            notes = [reason for technique, runtime, reason in pairs if technique == name and not runtime]
            lost = [(members("backends")[r].title, why) for t, r, why in pairs if t == name and r]  # type: ignore[attr-defined]
            self.rows[name].say(
                caveats_html([*notes, *self._notes(name)], lost, len(here)),
                sooner=i > 0 and self._swappable(chosen[i - 1], name),
                later=i + 1 < len(chosen) and self._swappable(name, chosen[i + 1]),
            )
        for name in here:
            lost_here = [(t, why) for t, r, why in pairs if r == name]
            self.runtimes[name].refuse(lost_here[0][1] if single and lost_here else "")
            held = (
                "" if single or not lost_here else f"takes {len(chosen) - len(lost_here)} of {len(chosen)} techniques"
            )
            self.runtimes[name].say(tag("p", held, class_="wb-hint") if held else Markup(""))

    def _swappable(self, one: str, other: str) -> bool:
        """Whether two techniques may stand beside each other in either order."""
        first, second = self._kinds[one](), self._kinds[other]()
        return contradiction((first, second)) is None and contradiction((second, first)) is None

    def _notes(self, name: str) -> list[str]:
        """What to know of a technique before the run, with its settings as they are."""
        kind, row = self._kinds[name], self.rows[name]
        fixed = {k: v for k, v in row.settings.items() if not hasattr(v, "values") and not hasattr(v, "low")}
        made = kind.make(**fixed)
        trains = f"trains: {made.minutes:g} min in every recipe that has it" if isinstance(made, Trained) else ""
        return [*filter(None, [made.note, trains])]

    # --- what is shown ------------------------------------------------------------------------------------------

    def _build(self) -> None:
        """Everything that is not a row."""
        self.make = ipw.Dropdown(
            options=[("a space to search", SPACE), ("one recipe", RECIPE)],
            description="Make",
            tooltip="Everything that these ticks and settings allow, or exactly this",
        )
        self.find = ipw.Text(description="Find", placeholder="a technique, a word", continuous_update=True)
        self.folds = {group: Fold(label=group.capitalize()) for group in GROUPS}
        self.boxes = {group: styled(ipw.VBox(), "wb-group-box") for group in GROUPS}
        self.common = Fold(label="Workload of all runtimes")
        self._workload = ipw.VBox()
        self.keep_field = ipw.Text(
            description="Leave alone", placeholder="layers: classifier, *.layer.0.*", continuous_update=False
        )
        self.without = styled(ipw.Checkbox(description="try without as well", indent=False), "wb-set")
        self.kept = html("", "wb-note")
        self.told = styled(html("", "wb-refusals"), "wb-told")

    def _layout(self) -> list[Any]:
        groups = [part for group in GROUPS for part in (self.folds[group], self.boxes[group])]
        runtimes = styled(ipw.VBox([row.box for row in self.runtimes.values()]), "wb-group-box")
        top = styled(ipw.VBox([styled(self.make, "wb-pair"), styled(self.find, "wb-pair")]), "wb-pairs")
        kept = [styled(self.keep_field, "wb-pair"), self.kept, self.without]
        return [
            heading("Recipe"),
            top,
            *groups,
            html("Runtimes", "wb-subhead"),
            runtimes,
            self.common,
            self._workload,
            html("Layers", "wb-subhead"),
            *kept,
            self.told,
            self.code_box(),
        ]

    def _connect(self) -> None:
        for name, row in self.rows.items():
            row.tick.observe(lambda change, name=name: self._ticked(name, change["new"]), "value")
            row.changed = self._assign
            row.moved = partial(self._move, name)
        for name, row in self.runtimes.items():
            row.tick.observe(lambda change, name=name: self._runtime(name, change["new"]), "value")
            row.changed = self._assign
        for made in self.workload.values():
            made.observe(self._assign, ["value", "problem"])
        for fold in self.folds.values():
            fold.observe(self._show_groups, "unfolded")
        self.common.observe(self._show_workload, "unfolded")
        self.find.observe(self._show_groups, "value")
        self.make.observe(self._switch, "value")
        self.keep_field.observe(self._keep_typed, "value")
        self.without.observe(self._assign, "value")
        self.observe(self._keep_given, "keep")
        self.observe(self._assign, ["facts", "frame"])
        self._keep_given()

    def _ticked(self, name: str, on: bool) -> None:
        """What is ticked last stands last among those that are applied at the same stage."""
        if self._hold:
            return
        if on:
            known = [n for n in self._order if n != name]
            phase = self._kinds[name].phase
            place = sum(self._kinds[n].phase <= phase for n in known)
            self._order = [*known[:place], name, *known[place:]]
        self._count()
        self._assign()

    def _runtime(self, name: str, on: bool) -> None:
        if self._hold:
            return
        if on and self.make.value == RECIPE:
            self._only(name)
        self._assign()

    def _only(self, name: str) -> None:
        """One recipe has one runtime."""
        self._hold = True
        for other, row in self.runtimes.items():
            row.tick.value = other == name
        self._hold = False

    def _move(self, name: str, step: int) -> None:
        chosen = self.chosen()
        other = chosen[chosen.index(name) + step]
        i, j = self._order.index(name), self._order.index(other)
        self._order[i], self._order[j] = other, name
        self._show_groups()
        self._assign()

    def _switch(self, _: object = None) -> None:
        search = self.make.value == SPACE
        for row in (*self.rows.values(), *self.runtimes.values()):
            row.allow(search)
        for made in self.workload.values():
            made.allow(search)
        ticked = [name for name, row in self.runtimes.items() if row.tick.value]
        if not search and not self._hold and ticked:
            self._only(ticked[0])
        self._keep_given()

    def _keep_typed(self, change: dict) -> None:
        self.keep = tuple(part.strip() for part in change["new"].split(",") if part.strip())

    def _keep_given(self, _: object = None) -> None:
        self.keep_field.value = ", ".join(self.keep)
        self.without.layout.display = None if self.keep and self.make.value == SPACE else "none"
        self._say_kept()
        self._assign()

    def _say_kept(self) -> None:
        """How many layers the patterns cover."""
        said = ""
        if self.keep and self.facts and keep_problem(self.keep, self.facts) is None:
            found = resolve_keep(self.keep, self.facts.layers)
            said = f"{len(found)} of {len(self.facts.layers)} layers are left as they are"
        self.kept.value, self.kept.layout.display = said, None if said else "none"

    def _show_workload(self, _: object = None) -> None:
        self._workload.children = tuple(self.workload.values()) if self.common.unfolded else ()

    def _show_groups(self, _: object = None) -> None:
        """An open group shows all of its techniques, a folded one those that are ticked; a search opens what it
        finds."""
        wanted = self.find.value.strip().lower()
        for group, box in self.boxes.items():
            names = [name for name, kind in self._kinds.items() if kind.group == group]
            names.sort(key=lambda name: self._order.index(name) if name in self._order else len(self._order))
            if wanted:
                names = [n for n in names if wanted in f"{n} {n.replace('_', ' ')} {summary(self._kinds[n])}".lower()]
            elif not self.folds[group].unfolded:
                names = [name for name in names if self.rows[name].tick.value]
            shown: list[Any] = [self.rows[name].box for name in names]
            if not shown and self.folds[group].unfolded and not wanted:
                shown = [html(EMPTY.get(group, "There is no technique of this kind here."), "wb-note")]
            box.children = tuple(shown)
            self.folds[group].layout.display = "none" if wanted and not names else None
        self._count()

    def _count(self) -> None:
        for group, fold in self.folds.items():
            ticks = [self.rows[name].tick.value for name, kind in self._kinds.items() if kind.group == group]
            fold.note = f"{sum(ticks)} of {len(ticks)}" if ticks else ""


class _Lazy(dict):
    """The fields of a row, made when they are asked for."""

    def __init__(self, rows: Mapping[str, PluginRow]) -> None:
        super().__init__(rows)

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name).fields
