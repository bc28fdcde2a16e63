"""What the command line prints: tables, progress bars, JSON. Names from models and files are printed as plain text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from workbench.measure.estimate import Estimate

if TYPE_CHECKING:
    from workbench.running.status import Status
    from workbench.study import Study

#: A pipe has no width; a table that is folded to 80 columns reads badly in a log.
_console = Console(width=None if sys.stdout.isatty() else 160)
#: Progress goes to stderr, so that what is printed can be piped.
_errors = Console(stderr=True)


def show(thing: Any) -> None:
    """Print a table or a line."""
    _console.print(thing)


def say(text: str) -> None:
    """Print a line as it is, without markup."""
    _console.print(escape(text), highlight=False, soft_wrap=True)


def print_json(data: Any) -> None:
    """Print plain data; NaN is not JSON and would be an error of ours."""
    print(json.dumps(data, allow_nan=False))


def table(*columns: str) -> Table:
    """An empty table."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


class Bar:
    """Progress of the preparation and then of the sweep; silent where JSON is wanted."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task = progress.add_task("preparing", total=1.0) if progress else None

    def prepare(self, share: float, message: str) -> None:
        """Called while model and data are made ready."""
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=share, total=1.0, description=escape(message))

    def tick(self, status: Status) -> None:
        """Called twice a second during the sweep."""
        if self._progress and self._task is not None:
            total = (status.planned or 0) + 1
            where = (
                f"trial {status.trial}: {status.title} ({status.stage})" if status.trial is not None else status.message
            )
            done = status.done + status.progress
            self._progress.update(
                self._task, completed=done, total=total if status.planned else None, description=escape(where)
            )


@contextmanager
def progress(silent: bool) -> Iterator[Bar]:
    """A bar that goes when its work is done."""
    if silent:
        yield Bar(None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=_errors, transient=True) as shown:
        yield Bar(shown)


def show_front(study: Study, *, everything: bool, as_json: bool) -> None:
    """Print the front of a study, or all its trials."""
    data = study.to_json()
    if as_json:
        chosen = data["trials"] if everything else [t for t in data["trials"] if t["number"] in data["front"]]
        print_json({**data, "trials": chosen})
        return
    rows = data["trials"] if everything else [t for n in data["front"] for t in data["trials"] if t["number"] == n]
    show_trials(rows, data["front"])
    if everything and data["front"]:
        say("* on the front: no other trial is both faster and more accurate")
    failed = [t for t in data["trials"] if t["state"] == "failed"]
    for trial in failed:
        say(f"trial {trial['number']} failed: {trial['title']}: {trial['error']}")
    for row in data["refused"]:
        say(f"refused: {row['reason'].splitlines()[0]}")
    for note in data["notes"]:
        say(f"note: {note}")
    if data["trials"] and data["trials"][0]["noise"]:
        band = data["trials"][0]["noise"]
        say(f"A/A band: {band['low']:.3f}× … {band['high']:.3f}×; a speed-up inside it is no difference.")


def show_trials(rows: list[dict[str, Any]], front: list[int] | None = None) -> None:
    """Print rows of trials."""
    made = table(
        "", "#", "recipe", _score_title(rows), "drop", "flips", "speed-up", "p50 (baseline's)", "size", "state"
    )
    for row in rows:
        made.add_row(
            "*" if front and row["number"] in front else "",
            str(row["number"]),
            escape(row["title"]),
            *_numbers(row),
            "disturbed" if (row.get("conditions") or {}).get("disturbed") else row["state"],
        )
    show(made)


def _score_title(rows: list[dict[str, Any]]) -> str:
    """The metric's name, where all rows have one."""
    metrics = {row["metric"] for row in rows if row.get("metric")}
    return metrics.pop() if len(metrics) == 1 else "score"


def _numbers(row: dict[str, Any]) -> list[str]:
    if row["accuracy"] is None:
        return [""] * 6
    drop, speed = (Estimate.from_json(row[name]) if row[name] else None for name in ("drop", "speedup"))
    return [
        f"{row['accuracy']['value']:.4f}",
        str(drop.in_points()) if drop and drop.unit == "fraction" else str(drop or ""),
        f"-{row['flips_lost'] or 0} +{row['flips_gained'] or 0}",
        str(speed or ""),
        _beside_the_baseline(row),
        f"{row['size_mb']:.1f} MB" if row["size_mb"] is not None else "",
    ]


def _beside_the_baseline(row: dict[str, Any]) -> str:
    """The median beside the baseline's own from the same minutes: lone milliseconds of two trials do not compare."""
    if not row["latency_ms"]:
        return ""
    theirs = (row["baseline_latency_ms"] or {}).get("p50")
    return f"{row['latency_ms']['p50']:.2f} ms" + (f" ({theirs:.2f})" if theirs else "")
