"""The command line. Every command is one call in Python; `--json` prints what a script would read.

    workbench demo                                     the main job on the embedded model, with a report
    workbench sweep --model DIR --data PATH            compress, measure, show the front
    workbench front --study runs/x --all --json        the same object later
    workbench list techniques --json                   what there is, and why it is not available

A user's mistake exits with code 2 and one clear message; what was measured stays in the study.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from workbench import console
from workbench.errors import UserError, WorkbenchError
from workbench.sweep import BACKENDS

app = typer.Typer(
    name="workbench",
    help="Make a transformer smaller and faster, and see what it costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
runs_app = typer.Typer(help="Studies on disk.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")

StudyOption = Annotated[Path, typer.Option("--study", help="Folder of the study.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]

#: Enough for intervals of some percent; the whole demo is to end within a coffee's time.
DEMO_TIMING_SECONDS = 1.5
#: What the demo tries: one of every kind.
DEMO_TECHNIQUES = ("bf16", "dynamic_int8", "static_int8", "prune", "drop_layers")
#: All runtimes; the one that takes longest to lower comes last, so that the budget ends on one of its trials.
DEMO_BACKENDS = ("eager", "onnxruntime", "openvino", "compiled")


@app.command()
def demo(
    study: StudyOption = Path("runs/demo"),
    report: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("report.html"),
    budget: Annotated[str, typer.Option(help="Trials (20) or time (15min).")] = "11",
    as_json: JsonOption = False,
) -> None:
    """The main job on the embedded demo: sweep, front, report. Example: workbench demo"""
    from workbench.report import write_report
    from workbench.sweep import sweep as search

    with console.progress(as_json) as bar:
        done = search(
            "demo",
            study=study,
            budget=budget,
            techniques=DEMO_TECHNIQUES,
            backends=DEMO_BACKENDS,
            strategy="grid",
            timing_seconds=DEMO_TIMING_SECONDS,
            tick=bar.tick,
            prepare=bar.prepare,
        )
    console.show_front(done, everything=True, as_json=as_json)
    written = write_report(done, report)
    if not as_json:
        console.say(f"Report: {written}")


@app.command()
def sweep(
    model: Annotated[str | None, typer.Option(help="Folder, ONNX file, hub id, or package.module:function.")] = None,
    data: Annotated[str | None, typer.Option(help="File, folder of splits, or hub dataset id.")] = None,
    task: Annotated[str | None, typer.Option(help="Kind of task, such as text_classification or causal_lm.")] = None,
    text: Annotated[str | None, typer.Option(help="Column(s) of the text: COL or COL,COL.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="accuracy, f1, matthews_correlation …; by default the task's own.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    reserve: Annotated[float, typer.Option(help="Share of the validation data kept for the report.")] = 0.0,
    techniques: Annotated[str, typer.Option(help="name,name:knob=value|value …")] = "bf16,dynamic_int8,static_int8",
    backends: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(BACKENDS),
    keep: Annotated[str, typer.Option(help="Layers left alone: patterns, separated by commas.")] = "",
    strategy: Annotated[str, typer.Option(help="frontier, grid, basic … (workbench list strategies)")] = "frontier",
    budget: Annotated[str, typer.Option(help="Trials (20) or time (15min).")] = "20",
    max_drop: Annotated[float, typer.Option(help="Allowed drop, as a share of the baseline's score.")] = 0.01,
    absolute: Annotated[bool, typer.Option("--absolute", help="The allowed drop is in points of the metric.")] = False,
    minimise: Annotated[str, typer.Option(help="latency, latency_p90, size, memory or throughput.")] = "latency",
    evidence: Annotated[float, typer.Option(help="How sure the drop must be: 0.5 (as measured) … 0.975.")] = 0.5,
    whole_front: Annotated[bool, typer.Option("--whole-front", help="Look for the front, not its end.")] = False,
    batch: Annotated[int, typer.Option(help="Examples per call.")] = 1,
    sequence: Annotated[int, typer.Option(help="Longest sequence in tokens.")] = 128,
    threads: Annotated[int, typer.Option(help="Threads per call; 0 = every core.")] = 0,
    padding: Annotated[str | None, typer.Option(help="batch, fixed or buckets; by default each runtime's own.")] = None,
    seed: Annotated[int, typer.Option(help="Makes the order repeatable.")] = 0,
    trial_limit: Annotated[str, typer.Option(help="Time limit of one trial.")] = "30min",
    timing: Annotated[float, typer.Option(help="Seconds that a trial spends on timing.")] = 6.0,
    study: StudyOption = Path("runs/sweep"),
    as_json: JsonOption = False,
) -> None:
    """Compress, measure, show the front. Example: workbench sweep --model my-model --data data/ --max-drop 0.01"""
    from workbench.sweep import sweep as search

    if model is None and task is None:
        raise UserError("Nothing to compress.", allowed="--model with --data, or --task demo", do="workbench demo")
    about = {"text": _names(text), "label": label, "metric": metric, "revision": revision, "reserve": reserve}
    with console.progress(as_json) as bar:
        done = search(
            model or task,
            data,
            study=study,
            kind=task,
            techniques=_names(techniques),
            backends=_names(backends),
            keep=_names(keep),
            strategy=strategy,
            budget=budget,
            max_drop=max_drop,
            absolute=absolute,
            minimise=minimise,
            evidence=evidence,
            whole_front=whole_front,
            workload={
                "batch": batch,
                "sequence": sequence,
                "threads": threads,
                **({"padding": padding} if padding else {}),
            },
            seed=seed,
            trial_limit=trial_limit,
            timing_seconds=timing,
            tick=bar.tick,
            prepare=bar.prepare,
            **{key: value for key, value in about.items() if value},
        )
    console.show_front(done, everything=as_json, as_json=as_json)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe as Python: 'Recipe(StaticInt8(), backend=OpenVINO())'.")],
    study: StudyOption = Path("runs/demo"),
    as_json: JsonOption = False,
) -> None:
    """Measure one recipe in a study. Example: workbench run "Recipe(Bf16(), backend=Eager())" --study runs/demo"""
    from workbench.parsing import recipe_from_code
    from workbench.study import Study

    opened = Study(study)
    trial = opened.run(recipe_from_code(recipe))
    row = next(r for r in opened.rows() if r["number"] == trial.number)
    if as_json:
        console.print_json(row)
    else:
        console.show_trials([row])


@app.command()
def front(
    study: StudyOption = Path("runs/demo"),
    everything: Annotated[bool, typer.Option("--all", help="Every trial, not the front alone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The front of a study. Example: workbench front --study runs/demo --all"""
    from workbench.study import Study

    console.show_front(Study(study), everything=everything, as_json=as_json)


@app.command()
def report(study: StudyOption = Path("runs/demo"), out: Annotated[Path, typer.Option()] = Path("report.html")) -> None:
    """Write one self-contained HTML page that opens off line. Example: workbench report --study runs/demo"""
    from workbench.report import write_report
    from workbench.study import Study

    typer.echo(write_report(Study(study), out))


@app.command()
def export(
    trial: Annotated[str, typer.Argument(help="Number of the trial, or best.")],
    out: Annotated[Path, typer.Argument(help="New folder.")],
    study: StudyOption = Path("runs/demo"),
) -> None:
    """Write a trial's model as a folder that runs on its own. Example: workbench export best my-fast-model"""
    from workbench.study import Study

    opened = Study(study)
    if trial != "best" and not trial.isdecimal():
        raise UserError(f"{trial!r} is no trial.", allowed="a number, or best", do="see workbench front --all")
    typer.echo(opened.export(opened.best().number if trial == "best" else int(trial), out))


@app.command()
def machine(as_json: JsonOption = False) -> None:
    """This machine: what it can do, and what to expect of it. Example: workbench machine"""
    from workbench.measure.advice import advice
    from workbench.measure.machine import Machine

    here = Machine.here()
    if as_json:
        console.print_json({**here.to_json(), "fingerprint": here.fingerprint(), "advice": advice(here)})
        return
    for name, value in here.to_json().items():
        typer.echo(f"{name:>12}  {', '.join(map(str, value)) if isinstance(value, list) else value}")
    for line in advice(here):
        typer.echo(f"- {line}")


@app.command()
def pages(
    out: Annotated[Path, typer.Argument(help="Folder for the pages.")],
    notebooks: Annotated[Path, typer.Option(help="Folder of the notebooks.")] = Path("notebooks"),
) -> None:
    """Run the notebooks and write them as pages, with a reference beside them. Example: workbench pages html"""
    from workbench.pages import build

    # A dashboard is nothing without its kernel.
    found = sorted(path for path in notebooks.glob("*.ipynb") if path.stem != "dashboard")
    typer.echo(build(out, found, typer.main.get_command(app), tell=lambda words: typer.echo(words, err=True)))


@app.command("list")
def list_plugins(
    family: Annotated[Literal["techniques", "backends", "strategies", "probes", "tasks"], typer.Argument()],
    as_json: JsonOption = False,
) -> None:
    """What there is of one family, with knobs and availability. Example: workbench list techniques"""
    from workbench.registry import describe

    rows = describe(family)
    if as_json:
        console.print_json(rows)
        return
    table = console.table("name", "group", "summary", "knobs", "available")
    for row in rows:
        knobs = "\n".join(f"{n} = {k['default']}  ({k['allowed']})" for n, k in row["knobs"].items())
        table.add_row(
            row["name"], row["group"] or "", row["summary"], knobs, "yes" if row["available"] else row["reason"]
        )
    console.show(table)


@app.command()
def dashboard(
    folder: Annotated[Path, typer.Argument(help="Folder that holds the studies.")] = Path("runs"),
    port: Annotated[int, typer.Option()] = 8866,
    dark: Annotated[bool, typer.Option("--dark")] = False,
    public: Annotated[bool, typer.Option("--public", help="Listen on every address of this machine.")] = False,
    token: Annotated[bool, typer.Option("--token/--no-token", help="Ask for a token.")] = True,
    browser: Annotated[bool, typer.Option("--browser/--no-browser")] = True,
    models: Annotated[Path, typer.Option(help="Models and data are taken from here, and from nowhere else.")] = Path(),
    preheat: Annotated[bool, typer.Option("--preheat", help="Keep a kernel ready for the next page.")] = False,
) -> None:
    """Serve the dashboard with Voila. Example: workbench dashboard runs"""
    from workbench.widgets.serve import serve

    page = {"dark": dark, "public": public, "token": token, "browser": browser, "preheat": preheat}
    serve(folder, port=port, models=models, **page)


@runs_app.command("list")
def runs_list(root: Annotated[Path, typer.Argument()] = Path("runs"), as_json: JsonOption = False) -> None:
    """Studies below a folder. Example: workbench runs list"""
    from workbench.study import Study, studies

    rows: list[dict[str, Any]] = []
    for folder in studies(root):
        try:
            study = Study(folder)
            rows.append({"study": str(folder), "state": study.status().state, "trials": len(study.trials)})
        except UserError as error:
            rows.append({"study": str(folder), "state": "unreadable", "trials": None, "error": error.what})
    if as_json:
        console.print_json(rows)
        return
    table = console.table("study", "state", "trials")
    for row in rows:
        table.add_row(row["study"], row["state"], str(row["trials"] if row["trials"] is not None else row["error"]))
    console.show(table if rows else f"No study below {root}. Start one: workbench demo")


@runs_app.command("show")
def runs_show(study: Annotated[Path, typer.Argument()], as_json: JsonOption = False) -> None:
    """Every trial of a study. Example: workbench runs show runs/demo"""
    from workbench.study import Study

    console.show_front(Study(study), everything=True, as_json=as_json)


@runs_app.command("delete")
def runs_delete(
    study: Annotated[Path, typer.Argument()], yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Stop a study and remove its folder. Example: workbench runs delete runs/old --yes"""
    from workbench.study import Study

    opened = Study(study)
    if yes or typer.confirm(f"Delete {opened.folder} with {len(opened.trials)} trials?"):
        opened.delete()


def main() -> NoReturn:
    """Entry point: a user's mistake is one message on stderr and exit code 2."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(error, 2)
    except WorkbenchError as error:
        _fail(error, 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(0)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _fail(error: WorkbenchError, code: int) -> NoReturn:
    typer.echo(f"Error: {error}", err=True)
    sys.exit(code)
