"""A recipe: ordered techniques, layers left alone, and the runtime. A space: a recipe still open.

Both are frozen, hashable, and survive JSON and `repr`. A recipe that contradicts itself cannot be made; whether a
sound recipe can be realised for a given model is `Recipe.refusal`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench.backends.base import WORKLOAD, Backend
from workbench.dimensions import Choice, Range, draw
from workbench.draft import WEIGHT_ONLY, WHOLE_MODEL, ModelFacts, resolve_keep
from workbench.errors import RecipeError, UserError
from workbench.knobs import Knobbed
from workbench.registry import find, unknown
from workbench.techniques.base import Technique, Trained


@dataclass(frozen=True, init=False, repr=False)
class Recipe:
    """`Recipe(StaticInt8(), backend=OpenVINO(), keep=("classifier",))`.

    Raises `RecipeError` for techniques that exclude each other, stand twice or in an order that cannot work.
    """

    steps: tuple[Technique, ...]
    backend: Backend
    keep: tuple[str, ...]

    def __init__(self, *steps: Technique, backend: Backend, keep: Iterable[str] = ()) -> None:
        for value, contract in (*((step, Technique) for step in steps), (backend, Backend)):
            if not isinstance(value, contract):
                raise RecipeError(
                    f"{value!r} is no {contract.__name__.lower()}.", allowed="plug-ins with their knobs: StaticInt8()"
                )
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "backend", backend)
        object.__setattr__(self, "keep", _patterns(keep))
        problem = contradiction(self.steps)
        if problem:
            raise RecipeError(problem, do="take one of them out, or change their order")

    @cached_property
    def id(self) -> str:
        """A short hash: equal recipes, and only those, have equal ids."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """A short name for a table: `static_int8 · openvino, classifier kept`, with the knobs that are not at their
        default. Of several layers that are left alone it tells how many names and patterns they are.

        The workload (threads, batch, sequence) is left out: it is that of the whole table.
        """
        backend = _short(self.backend, leave=WORKLOAD)
        kept = f", {self.keep[0] if len(self.keep) == 1 else len(self.keep)} kept" if self.keep else ""
        return " → ".join([_short(step) for step in self.steps] or ["fp32"]) + f" · {backend}{kept}"

    def precisions(self) -> frozenset[str]:
        """Precision kinds that the steps write into the plan (`fp32` where none does)."""
        return frozenset(kind for step in self.steps for kind in step.precisions) or frozenset({"fp32"})

    def minutes(self) -> float:
        """The most minutes that the steps were given to train in; those that follow each other train in one run."""
        runs = itertools.groupby(self.steps, lambda step: isinstance(step, Trained))
        return sum(max(step.minutes for step in run) for trained, run in runs if trained)  # type: ignore[attr-defined]

    def keeping(self, keep: Iterable[str]) -> Recipe:
        """The same recipe with other layers left alone."""
        return Recipe(*self.steps, backend=self.backend, keep=keep)

    def edited(self, add: Iterable[str] = (), remove: Iterable[str] = (), layers: Iterable[str] = ()) -> Recipe:
        """The same recipe with patterns added to the layers left alone, and layers taken from them.

        A pattern of `keep` that covers more than is taken is replaced by the rest of its layers; `layers` are all that
        the model has. Raises `UserError` for one that is not kept.
        """
        add, remove, kept, known = _patterns(add), _patterns(remove), [*self.keep], list(layers)
        for pattern in remove:
            if pattern in kept:
                kept.remove(pattern)
                continue
            gone = resolve_keep([pattern], known)
            covering = [p for p in kept if resolve_keep([p], known) & gone]
            if not covering:
                raise UserError(f"{pattern!r} is not kept.", allowed=", ".join(kept) or "nothing is kept")
            rest = resolve_keep(covering, known) - gone
            kept = [p for p in kept if p not in covering] + [name for name in known if name in rest]
        return self.keeping(dict.fromkeys((*kept, *add)))

    def refusal(self, facts: ModelFacts) -> str | None:
        """None, or the reason why this cannot be realised for this model on this machine; costs no work."""
        reason = self.backend.available() or self.backend.refuses(self.precisions(), facts)
        return reason or next(filter(None, (step.fits(facts) for step in self.steps)), None)

    def to_json(self) -> dict[str, Any]:
        """Plain data with every knob written out."""
        return {
            "techniques": [step.to_json() for step in self.steps],
            "backend": self.backend.to_json(),
            "keep": list(self.keep),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """The recipe that `to_json` wrote; raises `UserError`s for what is not one."""
        if not isinstance(data, dict) or not isinstance(data.get("techniques", []), list):
            raise no_recipe(data)
        steps = [_from_row("techniques", row) for row in data.get("techniques", [])]
        return cls(*steps, backend=_from_row("backends", data.get("backend")), keep=data.get("keep", ()))

    def __repr__(self) -> str:
        keep = f", keep={self.keep!r}" if self.keep else ""
        return f"Recipe({''.join(f'{step!r}, ' for step in self.steps)}backend={self.backend!r}{keep})"


def _short(one: Knobbed, leave: tuple[str, ...] = ()) -> str:
    """A plug-in's name with the knobs that were changed: `static_int8(samples=100)`."""
    changed = ", ".join(f"{k}={v}" for k, v in one.settings(changed=True).items() if k not in leave)
    return f"{one.name}({changed})" if changed else one.name


def plugin(family: str, name: str, **knobs: Any) -> Any:
    """A technique, backend … by name and knob values; near-miss hints for both."""
    return find(family, name).make(**knobs)  # type: ignore[attr-defined]


def contradiction(steps: tuple[Technique, ...]) -> str | None:
    """None, or why these steps cannot stand together in this order."""
    for first, second in itertools.combinations(steps, 2):
        if first.name == second.name:
            return f"{first.name} stands twice."
        if second.name in first.excludes or first.name in second.excludes:
            return f"{first.name} and {second.name} exclude each other."
        if first.precisions and second.precisions and not beside(first.precisions, second.precisions):
            return f"{first.name} and {second.name} exclude each other: both set the precision of the layers."
        if first.phase > second.phase:
            return f"{first.name} stands before {second.name}, but {second.name} has to come first."
    return None


def beside(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two techniques may both set precisions: one the float of the whole model, one integer weights, whose
    layers take that float in."""
    return (one <= WHOLE_MODEL and other <= WEIGHT_ONLY) or (one <= WEIGHT_ONLY and other <= WHOLE_MODEL)


def _from_row(family: str, row: Any) -> Any:
    """The plug-in that `Knobbed.to_json` wrote."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise no_recipe(row)
    return plugin(family, **row)


def no_recipe(given: Any) -> UserError:
    return UserError(
        f"This is no recipe: {str(given)[:100]!r}.",
        allowed='{"techniques": [{"name": …}], "backend": {"name": …}, "keep": []}, or Recipe(…, backend=…)',
    )


def _patterns(keep: Iterable[str]) -> tuple[str, ...]:
    """`keep` as a tuple. A lone string would fall apart into its letters."""
    if isinstance(keep, str) or not all(isinstance(pattern, str) for pattern in keep):
        raise RecipeError(
            f"keep = {keep!r} is no list of patterns.", allowed='a list or tuple, such as ("classifier",)'
        )
    return tuple(keep)


@dataclass(frozen=True, init=False, repr=False)
class Open:
    """A plug-in whose knobs may be open: `Open("static_int8", samples=Choice(100, 300), optional=True)`."""

    name: str
    knobs: tuple[tuple[str, Any], ...]
    optional: bool

    def __init__(self, name: str, *, optional: bool = False, **knobs: Any) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "knobs", tuple(sorted(knobs.items())))
        object.__setattr__(self, "optional", optional)

    def fixed(self) -> dict[str, Any]:
        """The knobs that are not open."""
        return {k: v for k, v in self.knobs if not isinstance(v, Choice | Range)}

    def opened(self) -> dict[str, Choice | Range]:
        """The knobs that are."""
        return {k: v for k, v in self.knobs if isinstance(v, Choice | Range)}

    def __repr__(self) -> str:
        rest = "".join(f", {k}={v!r}" for k, v in self.knobs) + (", optional=True" if self.optional else "")
        return f"Open({self.name!r}{rest})"


@dataclass(frozen=True, init=False, repr=False)
class Space:
    """A recipe still open: techniques that may be left out, several backends, knobs that are sets or ranges.

    `Space(Open("static_int8", optional=True), backends=[Open("openvino"), Open("onnxruntime")])`

    `keep` may be open too, `Choice((), ("classifier",))`: it is chosen where a step sets a precision, and is its first
    value elsewhere.
    """

    steps: tuple[Open, ...]
    backends: tuple[Open, ...]
    keep: tuple[str, ...] | Choice

    def __init__(self, *steps: Open | str, backends: Iterable[Open | str], keep: Iterable[str] | Choice = ()) -> None:
        as_open = [Open(s, optional=True) if isinstance(s, str) else s for s in steps]
        # Techniques stand in the order in which they must be applied; only a Recipe's author may be wrong about it.
        # Those of one phase stay as they were given: prune, then lock_masks.
        as_open.sort(key=lambda o: find("techniques", o.name).phase)  # type: ignore[attr-defined]
        object.__setattr__(self, "steps", tuple(as_open))
        object.__setattr__(self, "backends", tuple(Open(b) if isinstance(b, str) else b for b in backends))
        kept = Choice(*map(_patterns, keep.values)) if isinstance(keep, Choice) else _patterns(keep)
        object.__setattr__(self, "keep", kept)
        if not self.backends:
            raise UserError("A space without a backend.", allowed="at least one backend")
        names = [s.name for s in self.steps]
        for name in names:
            if names.count(name) > 1:
                raise RecipeError(f"{name} stands twice.", do=f"open its knobs instead: Open({name!r}, knob=Choice(…))")
        for family, opens in (("techniques", self.steps), ("backends", self.backends)):
            for one in opens:
                _check(family, one)

    def dimensions(self) -> dict[str, Choice | Range]:
        """Everything that is open, by a name such as `backend`, `static_int8` or `static_int8.samples`."""
        found: dict[str, Choice | Range] = {"backend": Choice(*range(len(self.backends)))}
        for step in self.steps:
            if step.optional:
                found[step.name] = Choice(False, True)
        for i, backend in enumerate(self.backends):
            found.update({f"backend{i}.{k}": v for k, v in backend.opened().items()})
        for step in self.steps:
            found.update({f"{step.name}.{k}": v for k, v in step.opened().items()})
        if isinstance(self.keep, Choice):
            found["keep"] = self.keep
        return found

    def keeps(self) -> tuple[tuple[str, ...], ...]:
        """Every choice of layers left alone, the space's own first."""
        return self.keep.values if isinstance(self.keep, Choice) else (self.keep,)

    def build(self, point: dict[str, Any]) -> Recipe:
        """The recipe at one point of `dimensions`; raises `RecipeError` where its steps contradict each other."""
        steps = [
            plugin(
                "techniques",
                s.name,
                **s.fixed(),
                **{k: _cast(s, "techniques", k, point[f"{s.name}.{k}"]) for k in s.opened()},
            )
            for s in self.steps
            if not s.optional or point[s.name]
        ]
        i = point["backend"]
        b = self.backends[i]
        opened = {k: _cast(b, "backends", k, point[f"backend{i}.{k}"]) for k in b.opened()}
        keep = self.keeps()[0]
        if isinstance(self.keep, Choice) and any(step.precisions for step in steps):
            keep = point["keep"]
        return Recipe(*steps, backend=plugin("backends", b.name, **b.fixed(), **opened), keep=keep)

    def workload(self) -> Backend:
        """A backend that stands for the first one's workload; open knobs are at their lowest or first value."""
        first = self.backends[0]
        opened = {k: d.values[0] if isinstance(d, Choice) else d.low for k, d in first.opened().items()}
        backend: Backend = plugin("backends", first.name, **first.fixed(), **opened)
        return backend

    def recipes(self) -> Iterator[Recipe]:
        """Every recipe of the grid once: fewest techniques first, so that a small budget sees each one alone."""
        seen: set[str] = set()
        for point in self.points():
            try:
                recipe = self.build(point)
            except RecipeError:
                continue
            if recipe.id not in seen:
                seen.add(recipe.id)
                yield recipe

    def points(self) -> Iterator[dict[str, Any]]:
        """Every point of the grid, fewest techniques first, one at a time; what has no say at a point is left out."""
        flags = [(False, True) if step.optional else (True,) for step in self.steps]
        chosen = sorted(itertools.product(*flags), key=sum)
        for _, alike in itertools.groupby(chosen, key=sum):
            # Runtimes in the inner loop: a budget that ends early has still seen each technique on all of them.
            for on, (i, backend) in itertools.product(list(alike), enumerate(self.backends)):
                steps = [step for step, wanted in zip(self.steps, on, strict=True) if wanted]
                opened = {f"backend{i}.{k}": v for k, v in backend.opened().items()}
                opened |= {f"{step.name}.{k}": v for step in steps for k, v in step.opened().items()}
                if isinstance(self.keep, Choice) and any(_precise(step) for step in steps):
                    opened["keep"] = self.keep
                optional = {step.name: step in steps for step in self.steps if step.optional}
                grids = [d.values if isinstance(d, Choice) else d.grid() for d in opened.values()]
                for values in itertools.product(*grids):
                    yield {"backend": i, **optional, **dict(zip(opened, values, strict=True))}

    def sample(self, rng: random.Random) -> Recipe:
        """One recipe at random: each dimension on its own, drawn again while the steps contradict each other."""
        for _ in range(1000):
            point = {name: draw(dimension, rng) for name, dimension in self.dimensions().items()}
            try:
                return self.build(point)
            except RecipeError:
                continue
        raise RecipeError("No recipe of this space is free of contradiction.", do="make exclusive techniques optional")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "techniques": [_open_json(s) for s in self.steps],
            "backends": [_open_json(b) for b in self.backends],
            "keep": {"choice": [list(k) for k in self.keep.values]} if isinstance(self.keep, Choice) else [*self.keep],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Space:
        """The space that `to_json` wrote."""
        steps, backends = ([_open_from(row) for row in data[key]] for key in ("techniques", "backends"))
        keep = data.get("keep", ())
        return cls(*steps, backends=backends, keep=Choice(*keep["choice"]) if isinstance(keep, dict) else keep)

    def __repr__(self) -> str:
        keep = f", keep={self.keep!r}" if self.keep else ""
        return f"Space({''.join(f'{s!r}, ' for s in self.steps)}backends={list(self.backends)!r}{keep})"


def _precise(one: Open) -> bool:
    return bool(find("techniques", one.name).precisions)  # type: ignore[attr-defined]


def _check(family: str, one: Open) -> None:
    """Every value of every knob, open or not, must pass the knob's own declaration."""
    kind: type[Knobbed] = find(family, one.name)
    for name, value in one.knobs:
        if name not in kind.knobs():
            raise unknown(f"knob of {one.name}", name, kind.knobs())
        values = (
            value.values
            if isinstance(value, Choice)
            else [value.low, value.high]
            if isinstance(value, Range)
            else [value]
        )
        if isinstance(value, Range) and kind.knobs()[name].kind not in ("int", "float"):
            raise UserError(
                f"{one.name}.{name} cannot be a Range.", allowed="Choice(…) for a knob that is not a number"
            )
        for each in values:
            kind.knobs()[name].check(f"{one.name}.{name}", each)


def _cast(one: Open, family: str, name: str, value: Any) -> Any:
    declared = find(family, one.name).knobs()[name]  # type: ignore[attr-defined]
    return round(value) if declared.kind == "int" and isinstance(value, float) else value


def _open_json(one: Open) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, Choice):
            return {"choice": list(value.values)}
        if isinstance(value, Range):
            return {"range": [value.low, value.high], "points": value.points, "log": value.log}
        return list(value) if isinstance(value, tuple) else value

    return {"name": one.name, "optional": one.optional, "knobs": {k: plain(v) for k, v in one.knobs}}


def _open_from(row: dict[str, Any]) -> Open:
    def value(raw: Any) -> Any:
        if isinstance(raw, dict) and "choice" in raw:
            return Choice(*map(value, raw["choice"]))
        if isinstance(raw, dict):
            low, high = raw["range"]
            return Range(low, high, points=raw["points"], log=raw["log"])
        return tuple(raw) if isinstance(raw, list) else raw

    return Open(row["name"], optional=row["optional"], **{k: value(v) for k, v in row["knobs"].items()})
