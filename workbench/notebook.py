"""A study in a notebook: run, followed and shown there (`measure`, `follow`, `show`), and written down as one.

A written notebook makes the same task and runs to the same recipe, on any machine. The recipe stands in it whole, so a
search that ends elsewhere, as timings differ, changes nothing about it. Left out: outputs; a notebook that has not run
says nothing.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ResourceError, TrialError, UserError
from workbench.plots.markup import code_span, markdown, tag
from workbench.recipe import Recipe, Space
from workbench.registry import classes, find
from workbench.running.sweep import Sweep
from workbench.tasks.base import Task
from workbench.trial import Trial

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML

    from workbench.study import Status, Study

#: The longest line that stays one line.
_WIDE = 88
#: The longest cell of a table that stays on one line.
_SHORT = 32


def follow(study: Study) -> None:
    """Show in one line what happens in `study` until nothing is left to do. Interrupting ends the line, not the work.

    Raises `TrialError` where the sweep failed as a whole.
    """
    line = _line()
    study.wait(tick=lambda status: line(status_line(status)))


def measure(study: Study, recipes: Iterable[Recipe]) -> list[Trial]:
    """Measure `recipes` one after the other in one go of the runner, and follow it; their trials, in order.

    What the study holds already is not run twice. A recipe that fails, or is refused before any work, is a trial of
    that state with the reason in `error`, and the others go on; both are told under the cell. Raises `TrialError` where
    a recipe was not run at all, as after a stop.
    """
    wanted = list(recipes)

    def words(status: Status) -> str:
        done = len(wanted) - len(_unmeasured(study, wanted))
        return f"{done} of {len(wanted)} recipes measured" + (f"; {_now(status)}" if status.stage else "")

    line, refused, lost = _line(), dict[Recipe, str](), wanted
    for _ in range(3):  # A runner that is about to end may not see the order any more; then another one does.
        if not study.order(lost):
            break
        study.wait(tick=lambda status: line(words(status)))
        refused = {Recipe.from_json(row["recipe"]): row["reason"] for row in study.refused()}
        lost = [recipe for recipe in _unmeasured(study, wanted) if recipe not in refused]
    if lost := [recipe for recipe in _unmeasured(study, wanted) if recipe not in refused]:
        raise TrialError(f"{len(lost)} recipes were not run.", do="measure them again; see the study's logs folder")
    told = [f"{recipe.title} was refused: {refused[recipe]}" for recipe in wanted if recipe in refused]
    known = {trial.recipe: trial for trial in study.trials}
    failed = [trial for trial in (known.get(recipe) for recipe in wanted) if trial and trial.state == "failed"]
    told += [f"{trial.recipe.title} failed: {trial.error}" for trial in failed]
    line("\n".join([words(study.status()), *told]))
    return [known.get(recipe) or Trial(-1, recipe, "refused", error=refused[recipe]) for recipe in wanted]


def show(frame: pd.DataFrame) -> HTML:
    """A frame as a table, without its index. Nothing is cut off, as pandas does with long recipes and texts; short
    cells stay on one line, and words begin at the left."""
    from IPython.display import HTML

    if frame.empty:
        return HTML(tag("p", "Nothing to show."))
    styles = [_style(frame[name]) for name in frame.columns]
    head = (tag("th", name, scope="col", style=style) for name, style in zip(frame.columns, styles, strict=True))
    rows = (
        tag("tr", *(tag("td", cell, style=style) for cell, style in zip(row, styles, strict=True)))
        for row in frame.itertuples(index=False, name=None)
    )
    return HTML(tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows)))


def _style(column: pd.Series) -> str:
    """How a table's column is laid out."""
    words = [str(cell) for cell in (column.name, *column)]
    side = "right" if column.dtype.kind in "iuf" else "left"
    return f"text-align: {side}" + ("; white-space: nowrap" if max(map(len, words)) <= _SHORT else "")


def status_line(status: Status) -> str:
    """`trial 3: static_int8 · openvino, time 62 %; 2 of at most 8 trials done, 41 s`."""
    planned = f" of at most {status.planned}" if status.planned else ""
    return f"{_now(status)}; {status.done}{planned} trials done, {status.seconds:.0f} s"


def _now(status: Status) -> str:
    trial = f"trial {status.trial}: {status.title}, " if status.trial is not None else ""
    return trial + (f"{status.stage} {100 * status.progress:.0f} %" if status.stage else status.state)


def _unmeasured(study: Study, wanted: Iterable[Recipe]) -> list[Recipe]:
    """Those that the study holds no finished trial of."""
    finished = {trial.recipe for trial in study.trials if trial.finished}
    return [recipe for recipe in wanted if recipe not in finished]


def _line() -> Callable[[str], None]:
    """A line under the cell that changes: a call with its words. Plain text, nothing in it can be taken for markup."""
    from IPython.display import display

    line = display({"text/plain": "starting"}, raw=True, display_id=True)
    return lambda words: line.update({"text/plain": words}, raw=True) if line else None


def task_code(task: Task) -> str:
    """The call that makes `task` again, with what is not at its default: `make_task('demo')`."""
    given = {key: value for key, value in task.to_json().items() if key not in ("name", "found")}
    kind = find("tasks", task.name)
    known = inspect.signature(kind).parameters
    options = {key: value for key, value in given.items() if key in known and not _default(value, known[key].default)}
    places = [repr(options.pop(key)) for key in ("model", "data") if key in options]
    if task.name == "demo":
        places = ["'demo'"]
    elif task.name != "text_classification":
        options = {"kind": task.name, **options}
    return f"make_task({', '.join([*places, *(f'{key}={value!r}' for key, value in options.items())])})"


def notebook(study: Study, number: int | None = None, *, search: bool = True) -> Any:
    """The notebook of a study: its task, with `search` its latest sweep, and the recipe of trial `number`.

    Raises `UserError` for an unknown trial.
    """
    import nbformat

    trials = {trial.number: trial for trial in study.trials}
    if number is not None and number not in trials:
        raise UserError(f"This study has no trial {number}.", allowed=", ".join(map(str, trials)) or "none yet")
    recipe = trials[number].recipe if number is not None else None
    known = study.to_json()["sweep"] if search else None
    sweep = Sweep.from_json(known) if known else None
    make, told = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    cells = [
        told(f"# {markdown(study.name)}\n\nSaved from the compression workbench. It runs from top to bottom."),
        make(_imports(recipe, sweep)),
        make(f"task = {laid_out(task_code(study.task))}\nstudy = Study({str(Path('runs') / study.name)!r}, task)"),
    ]
    if sweep:
        cells += [
            told("The search that was run. It takes as long as it took then; the recipe below does not need it."),
            make(_search(sweep)),
        ]
    if recipe is not None:
        cells += [
            told(f"The recipe of trial {number}, {code_span(recipe.title)}: measured here, unless the study holds it."),
            make(f"recipe = {laid_out(repr(recipe))}\ntrial = study.run(recipe)"),
            make("trial.measurement.accuracy, trial.measurement.drop, trial.measurement.speedup"),
            make(f"study.export(trial.number, {f'{study.name}-{recipe.id}'!r})"),
        ]
    cells.append(make("study.frame()"))
    made = nbformat.v4.new_notebook(cells=cells)
    for i, cell in enumerate(made.cells):
        # Random ids would make two notebooks of the same work differ.
        cell["id"] = f"cell-{i}"
    return made


def save_notebook(study: Study, path: str | Path, number: int | None = None, *, search: bool = True) -> Path:
    """Write `notebook` to the new file `path`; raises `UserError` where it is there, `ResourceError` for the disk."""
    import nbformat

    target = Path(path).expanduser()
    if target.suffix != ".ipynb":
        raise UserError(f"{target} is no notebook's name.", allowed="a name that ends in .ipynb")
    if target.exists():
        raise UserError(f"{target} is there already.", do="choose another name")
    made = notebook(study, number, search=search)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(made, target)
    except OSError as error:
        raise ResourceError(
            f"{target} could not be written: {error.strerror or error}.", do="free some space"
        ) from error
    return target


def laid_out(code: str) -> str:
    """A call whose line is too long with one argument a line; what is inside an argument stays as it is."""
    call = ast.parse(code, mode="eval").body
    if len(code) <= _WIDE or not isinstance(call, ast.Call):
        return code
    parts = [ast.get_source_segment(code, one) for one in call.args]
    parts += [f"{k.arg}={ast.get_source_segment(code, k.value)}" for k in call.keywords]
    return f"{ast.get_source_segment(code, call.func)}(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def _imports(recipe: Recipe | None, sweep: Sweep | None) -> str:
    names = {"Study", "make_task"}
    code = repr(recipe) if recipe is not None else ""
    if sweep:
        code += repr(sweep.open_space()) + repr(sweep.open_goal())
    known = {"Recipe", "Space", "Open", "Choice", "Range", "Goal", *classes()}
    names |= {name for name in known if f"{name}(" in code}
    return f"from workbench import {', '.join(sorted(names))}"


def _search(sweep: Sweep) -> str:
    space: Space = sweep.open_space()
    seed = f", seed={sweep.strategy['seed']}" if sweep.strategy.get("seed") else ""
    return (
        f"space = {laid_out(repr(space))}\ngoal = {laid_out(repr(sweep.open_goal()))}\n"
        f"study.tune(space, strategy={sweep.strategy['name']!r}, goal=goal{seed})"
    )


def _default(value: Any, default: Any) -> bool:
    plain = list(default) if isinstance(default, tuple) else default
    return bool(value == plain) if default is not inspect.Parameter.empty else False
