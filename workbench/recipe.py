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
from typing import Any

from workbench.backends.base import Backend
from workbench.draft import ModelFacts
from workbench.errors import RecipeError, UserError
from workbench.knobs import Knobbed
from workbench.registry import classes, find, unknown
from workbench.techniques.base import Technique


@dataclass(frozen=True, init=False, repr=False)
class Recipe:
    """`Recipe(StaticInt8(), backend=OpenVINO(), keep=("classifier",))`.

    Raises `RecipeError` for techniques that exclude each other, stand twice or in an order that cannot work.
    """

    steps: tuple[Technique, ...]
    backend: Backend
    keep: tuple[str, ...]

    def __init__(self, *steps: Technique, backend: Backend, keep: Iterable[str] = ()) -> None:
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "backend", backend)
        object.__setattr__(self, "keep", tuple(keep))
        problem = contradiction(self.steps)
        if problem:
            raise RecipeError(problem, do="take one of them out, or change their order")

    @property
    def id(self) -> str:
        """A short hash: equal recipes, and only those, have equal ids."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """A short name for a table: `static_int8 · openvino`."""
        parts = []
        for step in self.steps:
            changed = ", ".join(f"{k}={v}" for k, v in step.settings(changed=True).items())
            parts.append(f"{step.name}({changed})" if changed else step.name)
        return " → ".join(parts or ["fp32"]) + f" · {self.backend.name}"

    def precisions(self) -> frozenset[str]:
        """Precision kinds that the steps write into the plan (`fp32` where none does)."""
        return frozenset(kind for step in self.steps for kind in step.precisions) or frozenset({"fp32"})

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
        if not isinstance(data, dict) or not isinstance(data.get("backend"), dict):
            raise UserError(
                "This is no recipe.", allowed='{"techniques": [{"name": …}], "backend": {"name": …}, "keep": []}'
            )
        steps = [plugin("techniques", **row) for row in data.get("techniques", [])]
        return cls(*steps, backend=plugin("backends", **data["backend"]), keep=data.get("keep", ()))

    def __repr__(self) -> str:
        keep = f", keep={self.keep!r}" if self.keep else ""
        return f"Recipe({''.join(f'{step!r}, ' for step in self.steps)}backend={self.backend!r}{keep})"


def plugin(family: str, name: str, **knobs: Any) -> Any:
    """A technique, backend … by name and knob values; near-miss hints for both."""
    return find(family, name).make(**knobs)  # type: ignore[attr-defined]


def recipe_from_code(code: str) -> Recipe:
    """The recipe that `repr` printed. Only plug-in names, keyword arguments and literals are read; nothing is run."""
    import ast

    def build(node: ast.expr) -> Any:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            return ast.literal_eval(node)
        known = {"Recipe": Recipe, **classes()}
        if node.func.id not in known:
            raise unknown("plug-in class", node.func.id, known)
        named = {k.arg: build(k.value) for k in node.keywords if k.arg}
        return known[node.func.id](*map(build, node.args), **named)

    return build(ast.parse(code, mode="eval").body)


def contradiction(steps: tuple[Technique, ...]) -> str | None:
    """None, or why these steps cannot stand together in this order."""
    for first, second in itertools.combinations(steps, 2):
        if first.name == second.name:
            return f"{first.name} stands twice."
        if second.name in first.excludes or first.name in second.excludes:
            return f"{first.name} and {second.name} exclude each other."
        if first.precisions and second.precisions:
            return f"{first.name} and {second.name} exclude each other: both set the precision of the layers."
        if first.phase > second.phase:
            return f"{first.name} stands before {second.name}, but {second.name} has to come first."
    return None


@dataclass(frozen=True, init=False)
class Choice:
    """A knob that is open: one of these values."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", tuple(values))
        if not values:
            raise UserError("An empty Choice.", allowed="at least one value")

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.values))})"


@dataclass(frozen=True, repr=False)
class Range:
    """A knob that is open: any value from `low` to `high`; a grid takes `points` of them."""

    low: float
    high: float
    points: int = 3
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or self.points < 2 or (self.log and self.low <= 0):
            raise UserError(f"{self!r} is no range.", allowed="low < high, at least 2 points, and low > 0 with log")

    def grid(self) -> tuple[float, ...]:
        """`points` values from low to high, evenly spaced (in the logarithm with `log`)."""
        shares = [i / (self.points - 1) for i in range(self.points)]
        if self.log:
            return tuple(self.low * (self.high / self.low) ** share for share in shares)
        return tuple(self.low + (self.high - self.low) * share for share in shares)

    def __repr__(self) -> str:
        rest = (f", points={self.points}" if self.points != 3 else "") + (", log=True" if self.log else "")
        return f"Range({self.low!r}, {self.high!r}{rest})"


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
    """

    steps: tuple[Open, ...]
    backends: tuple[Open, ...]
    keep: tuple[str, ...]

    def __init__(self, *steps: Open | str, backends: Iterable[Open | str], keep: Iterable[str] = ()) -> None:
        as_open = [Open(s, optional=True) if isinstance(s, str) else s for s in steps]
        # Techniques stand in the order in which they must be applied; only a Recipe's author may be wrong about it.
        as_open.sort(key=lambda o: (find("techniques", o.name).phase, o.name))  # type: ignore[attr-defined]
        object.__setattr__(self, "steps", tuple(as_open))
        object.__setattr__(self, "backends", tuple(Open(b) if isinstance(b, str) else b for b in backends))
        object.__setattr__(self, "keep", tuple(keep))
        if not self.backends:
            raise UserError("A space without a backend.", allowed="at least one backend")
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
        return found

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
        return Recipe(*steps, backend=plugin("backends", b.name, **b.fixed(), **opened), keep=self.keep)

    def workload(self) -> Backend:
        """A backend that stands for the first one's workload; open knobs are at their lowest or first value."""
        first = self.backends[0]
        opened = {k: d.values[0] if isinstance(d, Choice) else d.low for k, d in first.opened().items()}
        backend: Backend = plugin("backends", first.name, **first.fixed(), **opened)
        return backend

    def recipes(self) -> Iterator[Recipe]:
        """Every recipe of the grid once: fewest techniques first, so that a small budget sees each one alone."""
        seen: set[str] = set()
        points = sorted(self._points(), key=lambda p: sum(p.get(s.name, True) for s in self.steps))
        for point in points:
            try:
                recipe = self.build(point)
            except RecipeError:
                continue
            if recipe.id not in seen:
                seen.add(recipe.id)
                yield recipe

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
            "keep": list(self.keep),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Space:
        """The space that `to_json` wrote."""
        steps, backends = ([_open_from(row) for row in data[key]] for key in ("techniques", "backends"))
        return cls(*steps, backends=backends, keep=data.get("keep", ()))

    def __repr__(self) -> str:
        keep = f", keep={self.keep!r}" if self.keep else ""
        return f"Space({''.join(f'{s!r}, ' for s in self.steps)}backends={list(self.backends)!r}{keep})"

    def _points(self) -> Iterator[dict[str, Any]]:
        dims = self.dimensions()
        grids = [d.values if isinstance(d, Choice) else d.grid() for d in dims.values()]
        for values in itertools.product(*grids):
            yield dict(zip(dims, values, strict=True))


def draw(dimension: Choice | Range, rng: random.Random) -> Any:
    """One value of a dimension at random."""
    if isinstance(dimension, Choice):
        return rng.choice(dimension.values)
    if dimension.log:
        return dimension.low * (dimension.high / dimension.low) ** rng.random()
    return rng.uniform(dimension.low, dimension.high)


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
            return Choice(*raw["choice"])
        if isinstance(raw, dict):
            return Range(*raw["range"], points=raw["points"], log=raw["log"])
        return tuple(raw) if isinstance(raw, list) else raw

    return Open(row["name"], optional=row["optional"], **{k: value(v) for k, v in row["knobs"].items()})
