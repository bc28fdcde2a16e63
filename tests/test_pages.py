"""Static pages: a notebook rendered with its outputs, and the reference that documents every plug-in and command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import typer

from workbench.cli import app
from workbench.errors import UserError, WorkbenchError
from workbench.pages import build
from workbench.reference import reference
from workbench.registry import FAMILIES, describe

COMMAND = typer.main.get_command(app)


def commands() -> list[Any]:
    """Every command, those of groups too."""
    groups = [COMMAND, *(each for each in COMMAND.commands.values() if hasattr(each, "commands"))]
    return [each for group in groups for each in group.commands.values() if not hasattr(each, "commands")]


def notebook(path: Path, *cells: str) -> Path:
    made = [nbformat.v4.new_markdown_cell("# A small one\n\nSee [the next](01_next.ipynb).")]
    nbformat.write(nbformat.v4.new_notebook(cells=made + [nbformat.v4.new_code_cell(c) for c in cells]), path)
    return path


def test_a_notebook_becomes_a_page_with_figures_and_an_index(tmp_path: Path) -> None:
    figure = "import plotly.graph_objects as go\ngo.Figure(go.Scatter(y=[1, 2]))"
    bar = "import sys; print('Loading:  17%|#     | 1/6\\rLoading: 100%|######| 6/6\\na warning', file=sys.stderr)"
    path = notebook(tmp_path / "00_small.ipynb", "print(6 * 7)", bar, figure)
    before = path.read_bytes()
    told: list[str] = []
    index = build(tmp_path / "html", [path], COMMAND, tell=told.append)
    assert {each.name for each in index.parent.iterdir()} == {
        "00_small.html",
        "index.html",
        "plotly.min.js",
        "reference.html",
    }
    page = (index.parent / "00_small.html").read_text()
    assert "42" in page
    assert "a warning" in page
    assert "vnd.jupyter.stderr" in page
    assert "100%|" not in "".join(re.findall(r'data-mime-type="application/vnd.jupyter.stderr".*?</div>', page, re.S))
    assert "Plotly.newPlot" in page
    assert 'src="plotly.min.js"' in page
    assert 'href="01_next.html"' in page
    assert re.findall(r'<(?:script|link)[^>]+(?:src|href)="(https?:[^"]*)"', page) == []
    assert '<a href="00_small.html">A small one</a>' in index.read_text()
    assert told == ["00_small.ipynb …"]
    assert path.read_bytes() == before


def test_a_cell_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=r"00_bad.ipynb failed"):
        build(tmp_path / "html", [notebook(tmp_path / "00_bad.ipynb", "1 / 0")], tell=lambda words: None)
    with pytest.raises(UserError, match=r"none was named"):
        build(tmp_path / "html", [])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_plugin_is_documented(family: str) -> None:
    page = reference()
    for row in describe(family):
        assert row["summary"].endswith("."), row["name"]
        assert f'id="{family}-{row["name"]}"' in page
        assert row["source"] or family not in ("techniques", "probes"), row["name"]
        for name, knob in row["knobs"].items():
            assert knob["help"], f"{row['name']}.{name}"


def test_every_command_is_documented_with_an_example() -> None:
    page = reference(COMMAND)
    assert page.count("<code>workbench ") >= len(list(commands()))
    for command in commands():
        assert "Example: workbench " in command.help, command.name


def test_the_reference_escapes_what_plugins_say(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.techniques.bf16 import Bf16

    monkeypatch.setattr(Bf16, "__doc__", "Half <script>alert(1)</script> of it. See `<b>`.")
    page = reference()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<code>&lt;b&gt;</code>" in page


def test_examples_that_help_prints_are_commands_that_parse() -> None:
    import shlex

    from workbench.parsing import recipe_from_code

    for command in commands():
        words = shlex.split(command.help.partition("Example: workbench ")[2])
        each, rest = COMMAND, words
        while hasattr(each, "commands"):
            each, rest = each.commands[rest[0]], rest[1:]
        assert each is command
        each.make_context(words[0], rest)
        for word in rest:
            if word.startswith("Recipe("):
                recipe_from_code(word)
