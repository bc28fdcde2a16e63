"""One page that holds a whole study and opens anywhere: no network, no files beside it, light and dark.

plotly.js is inlined once and everything else is plain HTML, so the tables read without scripts too. All text from
models and data passes through `markup.tag`, which escapes it. Left out: several studies on one page, PDF.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench.errors import ResourceError, WorkbenchError
from workbench.measure.accuracy import meaning
from workbench.plots import table as tables
from workbench.plots.front import pareto_data
from workbench.plots.markup import Markup, join, script_json, table, tag
from workbench.plots.pareto import pareto
from workbench.tuning.goal import Goal

if TYPE_CHECKING:
    from workbench.study import Study

_FOCUS = Markup('<label class="note"><input type="checkbox" id="goal"> Show the heights around the goal only</label>')

_STYLE = """
:root { --text: #1f2328; --muted: #5c646d; --line: #d8dde3; --back: #ffffff; --panel: #f5f7f9; --accent: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8eb; --muted: #a2a9b2; --line: #363b42; --back: #14171a; --panel: #1e2126; --accent: #7cc0ff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 24px 24px 64px; }
h1 { font-size: 22px; margin: 8px 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 36px 0 10px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }
.headline { font-size: 20px; margin: 8px 0; white-space: pre-line; }
.headline b { color: var(--accent); }
.note { color: var(--muted); margin: 4px 0; }
#front { width: 100%; min-height: 440px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 600; white-space: nowrap; }
td { overflow-wrap: anywhere; min-width: 3em; }
td:nth-child(2) { min-width: 15em; }
td:nth-child(n+3) { white-space: nowrap; }
.reasons td { white-space: normal; }
pre { background: var(--panel); padding: 12px 14px; border-radius: 6px; overflow-x: auto; font-size: 13px; }
dl { display: grid; grid-template-columns: minmax(9em, max-content) 1fr; gap: 2px 20px; margin: 8px 0 16px; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
@media print { main { max-width: none; } #front { page-break-inside: avoid; } }
"""

#: Draws the figure in the reader's scheme and again when the scheme changes.
_SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const goal = document.getElementById("goal");
const draw = () => {
  const figure = figures[dark.matches ? "dark" : "light"][goal.checked ? 1 : 0];
  Plotly.react("front", figure.data, figure.layout, {responsive: true, displaylogo: false, showSendToCloud: false});
};
dark.addEventListener("change", draw);
goal.addEventListener("change", draw);
draw();
"""

_METHOD = (
    "Latency is paired: the candidate and the uncompressed model are timed alternately in short blocks, in one "
    "process, after warm-up, on identical inputs. The speed-up is the median of the ratios of the blocks, with a "
    "block-bootstrap 95 % interval.",
    "The A/A run times the uncompressed model against itself; a speed-up within its band is shown as no difference.",
    "Accuracy is paired: both models answer the same examples. The change comes with a paired 95 % interval and "
    "with the number of right answers lost and gained.",
    "What is in effect is read from the lowered model, not from the recipe: the share of the linear layers' "
    "multiplications by precision.",
)


def write_report(study: Study, path: str | Path) -> Path:
    """Write the page to `path` (or to `report.html` in the folder `path`) and return where it is.

    Raises `ResourceError` where it cannot be written; a half-written page never takes the place of an old one.
    """
    target = Path(path).expanduser()
    if target.is_dir():
        target = target / "report.html"
    part = target.with_name(target.name + ".part")
    page = report_html(study)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise ResourceError(
            f"The report cannot be written to {target}: {error.strerror or error}.",
            do="name a folder that you may write to and that has some 6 MB free",
        ) from error
    return target


def report_html(study: Study) -> str:
    """The page as text. Raises nothing for a study without a finished trial: it says so."""
    from plotly.offline import get_plotlyjs

    frame = study.frame()
    figures = {
        name: [pareto(frame, study.goal, name, focus=focus).to_plotly_json() for focus in (False, True)]
        for name in ("light", "dark")
    }
    described = study.prepared.get("describe") or study.task.describe()
    body = tag(
        "main",
        tag("h1", f"Compression study: {study.name}"),
        *_headline(study, frame),
        *(tag("p", note, class_="note") for note in study.notes),
        *_section("Accuracy against speed", _FOCUS, tag("div", id="front"), _front_table(frame)),
        *_section("Python", *_python(study, frame)),
        *_section("All trials", tag("div", table(tables.trials_table(frame)), class_="wide")),
        *_section("Refused and failed", *_failed(study, frame)),
        *_section("Task and data", _facts(described), _one_percent(study)),
        *_section("Machine and conditions", *_conditions(study)),
        *_section("How it was measured", tag("ul", *(tag("li", line) for line in _METHOD))),
    )
    head = join(
        [
            Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup('<meta name="color-scheme" content="light dark">'),
            tag("title", f"{study.name} - compression study"),
            Markup(f"<style>{_STYLE}</style>"),
        ]
    )
    scripts = join(
        [
            Markup(f"<script>{get_plotlyjs()}</script>"),
            tag("script", _figures_json(figures), type="application/json", id="figures"),
            Markup(f"<script>{_SCRIPT}</script>"),
        ]
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}{scripts}</body></html>\n'


def _figures_json(figures: Mapping[str, Any]) -> Markup:
    """plotly's own encoder knows NaN and arrays; what it wrote is read back so that `<` is escaped in one place."""
    import json

    from plotly.io import to_json

    return script_json({name: [json.loads(to_json(f, validate=False)) for f in both] for name, both in figures.items()})


def _section(title: str, *children: Markup) -> Iterator[Markup]:
    yield tag("h2", title)
    yield from children


def _headline(study: Study, frame: pd.DataFrame) -> Iterator[Markup]:
    """The answer in one line, or why there is none yet."""
    goal = study.goal or Goal()
    rows = {row["number"]: row for row in tables.rows(frame)}
    try:
        best = study.best(goal)
    except WorkbenchError as error:
        yield tag("p", str(error), class_="headline")
        return
    row = rows[best.number]
    if best.number == 0:
        yield tag("p", "Nothing measured so far is better than the model as it is.", class_="headline")
    else:
        change = tables.change_text(row) or "an unknown change"
        yield tag("p", tag("b", tables.speedup_text(row)), " faster: ", tag("b", row["title"]), class_="headline")
        what = "right answers" if tables.higher_is_better(row["metric"]) else "next tokens told right"
        yield tag("p", f"{row['metric']} changes by {change}; {what} {tables.flips_text(row)}.")
    allowed = f"{100 * goal.max_drop:g} {'points' if goal.absolute else '% of the score'}"
    states = Counter(row["state"] for row in rows.values())
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common()) or "none"
    yield tag("p", f"Goal: lose at most {allowed}, least {goal.minimise}. Trials: {counts}.", class_="note")


def _front_table(frame: pd.DataFrame) -> Markup:
    """The members of the front, fastest last as in the figure."""
    front = list(pareto_data(frame).front)
    if not front:
        return tag("p", "No trial has been measured yet.")
    members = frame.set_index("number", drop=False).loc[front]
    shown = tables.trials_table(members).drop(columns=["State", "Took"])
    again = [tables.score_text(row, "report_accuracy") or "not measured" for row in tables.rows(members)]
    return tag("div", table(shown.assign(**{"On the report split": again})), class_="wide")


def _python(study: Study, frame: pd.DataFrame) -> Iterator[Markup]:
    yield tag("p", "Each recipe is one line; the last two lines hand over the trial with that number.")
    lines = [f"{row['code']}  # {row['number']}" for row in tables.rows(frame) if row["state"] == "complete"]
    opened = ["", f"study = Study({str(study.folder)!r})", "study.export(NUMBER, 'my-model')"]
    yield tag("pre", tag("code", "\n".join([*lines, *opened])))


def _failed(study: Study, frame: pd.DataFrame) -> Iterator[Markup]:
    lost = tables.failures(frame).drop(columns=["Python"])
    if not lost.empty:
        yield tag("div", table(lost), class_="wide reasons")
    refused = [{"Recipe": row["title"], "Refused before the start because": row["reason"]} for row in study.refused()]
    if refused:
        yield tag("div", table(pd.DataFrame(refused)), class_="wide reasons")
    if lost.empty and not refused:
        yield tag("p", "None.")


def _one_percent(study: Study) -> Markup:
    """What the allowed drop means in answers, for a score that counts them."""
    measured, goal = study.baseline and study.baseline.measurement, study.goal or Goal()
    if not measured or measured.metric != "accuracy" or not measured.correct:
        return Markup("")
    return tag("p", meaning(measured.correct, measured.accuracy.n, goal.max_drop, absolute=goal.absolute))


def _conditions(study: Study) -> Iterator[Markup]:
    measured = study.baseline and study.baseline.measurement
    if not measured:
        yield tag("p", "The baseline has not been measured yet.")
        return
    # What is nested in them repeats the numbers of the table.
    yield _facts({key: value for key, value in measured.conditions.items() if not isinstance(value, Mapping)})
    yield _facts(measured.machine)


def _facts(facts: Mapping[str, Any]) -> Markup:
    """A dictionary as a list of terms; nested ones are written out."""
    known = {key: _plain(value) for key, value in facts.items() if value is not None}
    pairs = (item for key, text in known.items() if text for item in (tag("dt", _words(key)), tag("dd", text)))
    return tag("dl", *pairs)


def _words(key: object) -> str:
    return str(key).replace("_", " ")


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(key)}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
