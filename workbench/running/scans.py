"""Scans and tables of costs of a study: ordered by a person, carried out by the runner, stored as they come.

An order is one attribute of the study (`scan:…`, `cost:…`) with the rows found so far, so that a killed runner loses
the row it was at and no other. Ordering the same again is resuming, or reading where it is done already.
"""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import TrialError
from workbench.measure.estimate import finite
from workbench.recipe import Recipe
from workbench.running.child import Crashed
from workbench.running.store import Store
from workbench.sensitivity import cost as costing
from workbench.sensitivity.scan import Order, frame, order

if TYPE_CHECKING:
    import pandas as pd

#: Kinds of orders; each is a request that the trial's process knows.
KINDS = ("scan", "cost")
_OPEN = ("waiting", "running")

#: Sends a request to the trial's process and gives its events.
Stream = Callable[[dict[str, Any]], Iterator[dict[str, Any]]]
#: Hears words and the share that is done.
Say = Callable[[str, float], None]


class Scans:
    """The part of a study that orders scans and reads them."""

    _store: Store
    status: Callable[[], Any]
    wait: Callable[..., None]
    _awake: Callable[[], None]

    def scan(
        self,
        technique: Any = "static_int8",
        probe: Any = "kl",
        direction: str = "only",
        layers: Iterable[str] | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """One row per layer with what its compression does, found by a runner; see `workbench.sensitivity.scan.scan`.

        Waits. A scan that the study holds is read, one that was cut short goes on. Raises `TrialError` with the reason
        where it failed or was stopped, and `UserError` for an order that cannot be meant.
        """
        given = order(technique, probe, direction, layers, **options)
        return frame(self._ordered("scan", given.to_json()), given)

    def costs(self, recipe: Recipe, *, calls: int = 30) -> pd.DataFrame:
        """What each layer of a recipe costs in time, found by a runner; see `workbench.sensitivity.cost.cost`."""
        return costing.frame(self._ordered("cost", {"recipe": recipe.to_json(), "calls": calls}), recipe)

    def scans(self) -> pd.DataFrame:
        """Every scan and table of costs of this study: `id`, `kind`, `title`, `state`, `rows`, `seconds`, `message`.

        Rows found so far are read with `scanned(id)`.
        """
        import pandas as pd

        columns = ("id", "kind", "title", "state", "rows", "seconds", "message")
        found, runs = [], self.status().state in ("running", "stopping")
        for key, row in orders(self._store).items():
            kind, _, name = key.partition(":")
            if row["state"] == "running" and not runs:
                row = {**row, "state": "interrupted"}
            numbers = {"rows": len(row["rows"]), "seconds": sum(one.get("seconds", 0.0) for one in row["rows"])}
            found.append({"id": name, "kind": kind, **{k: row.get(k) for k in columns[2:]}, **numbers})
        return pd.DataFrame(found, columns=list(columns))

    def scanned(self, name: str) -> pd.DataFrame:
        """What is found so far of the scan called `name` (its `id` in `scans`); raises `TrialError` where none is."""
        row = orders(self._store).get(f"scan:{name}")
        if row is None:
            raise TrialError(f"This study has no scan {name!r}.", do="see study.scans()")
        return frame(row["rows"], Order.from_json(row["order"]))

    def costed(self, recipe: Recipe, *, calls: int = 30) -> pd.DataFrame | None:
        """The table of `costs` where this study holds it already; None where it was not ordered or is not done."""
        row = self._store.get(f"cost:{name_of({'recipe': recipe.to_json(), 'calls': calls})}")
        return costing.frame(row["rows"], recipe) if row and row["state"] == "done" else None

    def _ordered(self, kind: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of an order, carried out by a runner where the study has them not."""
        key = f"{kind}:{name_of(wanted)}"
        known = self._store.get(key)
        if known is None or known["state"] != "done":
            rows = known["rows"] if known else []
            fresh = {"order": wanted, "title": _title(kind, wanted), "state": "waiting", "message": "", "rows": rows}
            self._store.set(key, {**fresh, "created": time.time()})
        for _ in range(3):  # A runner that is about to end may not see the order any more; then another one does.
            if self._store.get(key)["state"] not in _OPEN:
                break
            self._awake()
            self.wait(lambda: self._store.get(key)["state"] not in _OPEN)
        found = self._store.get(key)
        if found["state"] != "done":
            reason = found["message"] or "the runner ended first; order it again to go on"
            raise TrialError(f"{found['title']}: {reason}")
        return list(found["rows"])

    def _reopen(self) -> bool:
        """Put orders that were stopped or cut short back to waiting; whether there are any."""
        cut = {key: row for key, row in orders(self._store).items() if row["state"] in ("stopped", *_OPEN)}
        for key, row in cut.items():
            self._store.set(key, {**row, "state": "waiting"})
        return bool(cut)


def orders(store: Store) -> dict[str, dict[str, Any]]:
    """Every order of the study by its key, the oldest first."""
    found = {k: v for k, v in store.attributes().items() if v and k.partition(":")[0] in KINDS}
    return dict(sorted(found.items(), key=lambda item: item[1]["created"]))


def waiting(store: Store) -> list[str]:
    """Keys of the orders that are not carried out yet."""
    return [key for key, row in orders(store).items() if row["state"] in _OPEN]


def carry_out(store: Store, key: str, request: Mapping[str, Any], stream: Stream, say: Say) -> None:
    """Carry out one order, storing every row as it comes; `request` has what every request has.

    An error of the work is stored as the order's. What `stream` raises otherwise (a stop) goes through, and leaves the
    order stopped.
    """
    row = store.get(key)
    if row["state"] not in _OPEN:
        return
    kind = key.partition(":")[0]
    names = [name for name, _ in row["order"].get("knobs", ())]
    rows = {_place(one, names): one for one in row["rows"]}

    def write(state: str, message: str = "") -> None:
        row.update(state=state, message=message, rows=list(rows.values()))
        store.set(key, row)

    write("running")
    for attempt in (1, 2):
        try:
            for event in stream({**request, "do": kind, "order": row["order"], "known": list(rows.values())}):
                if "row" in event:
                    one = {k: finite(v) if isinstance(v, float) else v for k, v in event["row"].items()}
                    if rows.get(_place(one, names)) != one:
                        rows[_place(one, names)] = one
                        write("running")
                elif "message" in event:
                    say(event["message"], event["progress"])
                elif "error" in event:
                    write("failed", event["error"])
                    return
            write("done")
            return
        except Crashed as crash:
            # One that is killed from outside is tried once more, from where it stood.
            if crash.code != -signal.SIGKILL or attempt == 2:
                write("failed", f"its process ended with exit code {crash.code}; see the study's logs folder")
                return
        except BaseException:
            write("stopped", "stopped; order it again to go on")
            raise


def call(given: Order) -> str:
    """The call that orders a scan: `study.scan('static_int8', 'kl', 'only', samples=64)`."""
    plain = Order(given.technique, given.probe)
    parts = [repr(one.name if one == type(one)() else one) for one in (given.technique, given.probe)] + [
        repr(given.direction)
    ]
    parts += [f"layers={given.layers!r}"] if given.layers else []
    parts += [f"knobs={dict(given.knobs)!r}"] if given.knobs else []
    for name in ("what", "samples", "split", "keep", "backend"):
        if getattr(given, name) != getattr(plain, name):
            parts.append(f"{name}={getattr(given, name)!r}")
    return f"study.scan({', '.join(parts)})"


def repeat(study: Any, given: Order) -> pd.DataFrame:
    """Order a scan from `study` as it was ordered before: read where it is done, gone on with where it was cut."""
    rest = {name: getattr(given, name) for name in ("what", "samples", "split", "keep", "backend")}
    found: pd.DataFrame = study.scan(
        given.technique, given.probe, given.direction, given.layers, knobs=dict(given.knobs), **rest
    )
    return found


def name_of(wanted: Mapping[str, Any]) -> str:
    """The name under which equal orders are one."""
    return hashlib.sha256(json.dumps(wanted, sort_keys=True, default=list).encode()).hexdigest()[:12]


def _title(kind: str, wanted: Mapping[str, Any]) -> str:
    if kind == "cost":
        return f"costs of {Recipe.from_json(wanted['recipe']).title}"
    return Order.from_json(wanted).title


def _place(row: Mapping[str, Any], names: Iterable[str]) -> str:
    return json.dumps([row["layer"], row["kind"], *(row.get(name) for name in names)])
