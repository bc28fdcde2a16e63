"""The README's commands and Python lines, and the examples of `--help`, run as they stand, in a hurry and in order.

Paths that the README invents (`path/to/model`, `my-model`) are made first, from tiny models. The two commands that set
everything up are run by `.ci/run`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import typer
from tiny_folders import save_model, write_splits
from tiny_lm import lm_folder, stories

from workbench.cli import app

pytestmark = [pytest.mark.demo, pytest.mark.timeout(1200)]

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = [line for block in re.findall(r"```\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
LANGUAGE = [line for line in SHELL if "causal_lm" in line]
OWN = [line for line in SHELL if line.startswith("workbench ") and line not in LANGUAGE]
#: Commands wait for those that make what they read, and the one that removes a study comes last.
ORDER = ("demo", "sweep", "run", "front", "report", "export", "machine", "list", "pages", "dashboard")


def examples() -> dict[str, str]:
    """Command -> its example, in an order in which they can be run."""
    found = {}
    group = typer.main.get_command(app)
    commands = {**group.commands, **{f"runs {name}": made for name, made in group.commands["runs"].commands.items()}}
    for name, command in commands.items():
        if name != "runs":
            (found[name],) = re.findall(r"Example: (workbench .*)", command.help)
    return {name: found.pop(name) for name in ORDER} | found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a newcomer sits: a model, its data, and a language model somewhere else."""
    folder = tmp_path_factory.mktemp("newcomer")
    for model, data in (("path/to/model", "path/to/data"), ("my-model", "data")):
        save_model(folder / model, shape="distilbert", n_layers=6)
        write_splits(folder / data, train=120, dev=60)
    lm_folder(folder / "language/path/to/model", max_position_embeddings=256)
    (folder / "language/path/to/text.txt").write_text(stories(120), encoding="utf-8")
    (folder / "notebooks").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One"), nbformat.v4.new_code_cell("1")])
    nbformat.write(notebook, folder / "notebooks/one.ipynb")
    return folder


def run(*command: str, cwd: Path) -> str:
    """What a command printed; it has to end well."""
    environment = {
        **os.environ,
        "WORKBENCH_QUICK": "1",
        "TERM": "dumb",
        "COLUMNS": "200",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def workbench(line: str, cwd: Path) -> str:
    """One line of a shell; a trial's number is that of one which is there, since a hurried sweep has few."""
    words = shlex.split(line)[1:]
    if words[0] == "dashboard":
        return served(words, cwd)
    if words[0] == "export":
        study = words[words.index("--study") + 1] if "--study" in words else "runs/demo"
        shown = run(sys.executable, "-m", "workbench", "front", "--study", study, "--all", "--json", cwd=cwd)
        if words[1] != "best":
            words[1] = str([t["number"] for t in json.loads(shown)["trials"] if t["state"] == "complete"][-1])
        words[2] += f"-{study.rpartition('/')[2]}"
    return run(sys.executable, "-m", "workbench", *words, cwd=cwd)


def served(words: list[str], cwd: Path) -> str:
    """What the dashboard says when it is ready."""
    command = [sys.executable, "-m", "workbench", *words, "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = ""
    try:
        for line in process.stdout or ():
            said += line
            if "http://" in line:
                return said
        raise AssertionError(said)
    finally:
        process.terminate()
        process.wait(60)


def test_everything_is_found() -> None:
    assert len(OWN) >= 5
    assert len(LANGUAGE) == 1
    assert len(PYTHON) >= 2


def test_the_commands_for_an_own_model(place: Path) -> None:
    said = {line: workbench(line, place) for line in OWN}
    assert any("static_int8" in words for line, words in said.items() if line.startswith("workbench front"))
    assert (place / "out.html").is_file() or (place / "report.html").is_file()
    assert (place / "my-fast-model-mine" / "run.py").is_file()


def test_a_language_model(place: Path) -> None:
    assert "perplexity" in workbench(LANGUAGE[0], place / "language").lower()


def test_the_same_in_python_in_the_same_folder(place: Path) -> None:
    """After the commands: both speak of `runs/mine`."""
    tail = "print(len(scores), len(before), len(after))"
    said = run(sys.executable, "-c", "\n".join([*PYTHON, tail]), cwd=place)
    rows = said.split()[-3:]
    assert rows[0] == "38"
    assert (place / "my-fast-model" / "run.py").is_file()


def test_the_examples_of_help(place: Path) -> None:
    for name, line in examples().items():
        if name == "runs delete":
            (place / "runs/demo").rename(place / "runs/old")
        workbench(line, place)
    assert (place / "html" / "index.html").is_file()
    assert not (place / "runs/old").exists()
