"""Name -> plug-in. A family is a folder; every file in it is one member.

A family's folder is imported whole, with no `try`: a broken plug-in is an error, not a gap. Files that begin with
an underscore are shared pieces of a family, not members. Other packages add members through entry points:

    [project.entry-points."workbench.techniques"]
    drop_everything = "my_package.drop_everything:DropEverything"

There is no list of plug-ins anywhere.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from workbench.errors import UnknownName, WorkbenchError


class Family(NamedTuple):
    """Where a family's members live and which contract they keep."""

    package: str
    contract: str


FAMILIES = {
    "tasks": Family("workbench.tasks", "Task"),
    "techniques": Family("workbench.techniques", "Technique"),
    "backends": Family("workbench.backends", "Backend"),
    "strategies": Family("workbench.tuning.strategies", "Strategy"),
    "probes": Family("workbench.sensitivity.probes", "Probe"),
}


@cache
def members(family: str) -> dict[str, type]:
    """All plug-ins of `family` by name, in alphabetical order.

    Raises `UnknownName` for a family that does not exist, and `WorkbenchError` when two plug-ins claim one name.
    """
    if family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    package, contract_name = FAMILIES[family]
    contract = getattr(importlib.import_module(f"{package}.base"), contract_name)
    found: dict[str, type] = {}
    for member in (*_in_folder(package, contract), *_in_entry_points(family, contract)):
        name = member.name  # type: ignore[attr-defined]
        if name in found and found[name] is not member:
            raise WorkbenchError(
                f"Two {family} are called {name!r}: {_where(found[name])} and {_where(member)}.",
                do="rename one of them or uninstall the package that brings it",
            )
        found[name] = member
    return dict(sorted(found.items()))


def find(family: str, name: str) -> type:
    """The plug-in called `name`; raises `UnknownName` with near misses."""
    known = members(family)
    if name not in known:
        raise unknown(_singular(family), name, known)
    return known[name]


def describe(family: str) -> list[dict[str, Any]]:
    """One plain row per plug-in: name, group, summary, source, knobs, whether it is available or the reason why not."""
    rows = []
    for name, member in members(family).items():
        available = getattr(member, "available", None)
        reason = available() if available else None
        knobs = member.knobs() if hasattr(member, "knobs") else {}
        rows.append(
            {
                "name": name,
                "title": getattr(member, "title", name),
                "group": getattr(member, "group", None),
                "summary": (inspect.getdoc(member) or "").split("\n\n")[0].replace("\n", " "),
                "source": member.__dict__.get("source") if isinstance(member.__dict__.get("source"), str) else "",
                "knobs": {knob: declared.to_json() for knob, declared in knobs.items()},
                "available": reason is None,
                "reason": reason,
            }
        )
    return rows


def classes() -> dict[str, type]:
    """Every plug-in class by its Python name, as `repr` of a recipe uses it (`StaticInt8`, `OpenVINO` …)."""
    return {member.__name__: member for family in FAMILIES for member in members(family).values()}


def unknown(kind: str, name: object, known: Iterable[str]) -> UnknownName:
    """The error for a name that is not among `known`, with the nearest ones first.

    >>> str(unknown("technique", "static_int", ["bf16", "static_int8"])).splitlines()[0]
    "no technique 'static_int', did you mean 'static_int8'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f", did you mean {' or '.join(map(repr, near))}?" if near else ""
    return UnknownName(f"no {kind} {str(name)!r}{hint}", allowed=", ".join(names) or "(there are none)")


def _in_folder(package: str, contract: type) -> Iterator[type]:
    folder = importlib.import_module(package)
    for module in pkgutil.iter_modules(folder.__path__):
        if module.name == "base" or module.name.startswith("_"):
            continue
        yield from _defined_in(importlib.import_module(f"{package}.{module.name}"), contract)


def _defined_in(module: Any, contract: type) -> Iterator[type]:
    for value in vars(module).values():
        defined_here = inspect.isclass(value) and issubclass(value, contract) and value.__module__ == module.__name__
        if defined_here and not inspect.isabstract(value):
            yield value


def _in_entry_points(family: str, contract: type) -> Iterator[type]:
    for point in entry_points(group=f"workbench.{family}"):
        member = point.load()
        if not (inspect.isclass(member) and issubclass(member, contract)):
            raise WorkbenchError(
                f"Entry point {point.name!r} of {point.group!r} gives {member!r}, which is no {contract.__name__}.",
                do=f"make it a subclass of {contract.__module__}.{contract.__name__} or uninstall its package",
            )
        yield member


def _where(member: type) -> str:
    return f"{member.__module__}.{member.__qualname__}"


def _singular(family: str) -> str:
    return {"strategies": "strategy"}.get(family, family.removesuffix("s"))
