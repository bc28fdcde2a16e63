"""The front door: README, environment.yml and pyproject.toml say the same, and what they say is so."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import workbench
from workbench.registry import members

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def works_table() -> list[str]:
    """Which technique runs on which runtime, from the registry alone."""
    order = [name for name in ("eager", "compiled", "onnxruntime", "openvino") if name in members("backends")]
    rows = []
    for name, technique in members("techniques").items():
        wanted = technique.precisions or frozenset({"fp32"})
        cells = ["yes" if wanted <= members("backends")[backend].realises else "no" for backend in order]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return rows


def test_table_of_what_works_is_that_of_the_registry() -> None:
    expected = "\n".join(works_table())
    assert expected in README, f"the README's table should read:\n{expected}"


def test_environment_and_project_agree() -> None:
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines()
    items = [line.strip().removeprefix("- ") for line in lines if re.match(r"\s+- ", line)]
    listed = [item for item in items if item != "pip:"]
    # One list of dependencies: the environment asks for the project itself, and for the same Python.
    assert listed == ["conda-forge", f"python{PROJECT['project']['requires-python']}", "pip", "-e .[test]"]


def test_every_dependency_says_which_file_needs_it() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    declared = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    for requirement in declared:
        (line,) = [each for each in lines if each.strip().startswith(f'"{requirement}"')]
        named = re.findall(r"[\w.]+/[\w./]*|[\w]+\.(?:py|yml)", line.partition("#")[2])
        assert named, f"{requirement} does not say which file needs it"
        for name in named:
            assert any((base / name).exists() for base in (ROOT, ROOT / "workbench")), f"{requirement}: {name}"


def test_readme_commands_are_the_two_that_do_all() -> None:
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert [command.split(" && ")[-1] for command in commands] == [".venv/bin/workbench demo", ".venv/bin/pytest"]


def test_readme_python_uses_names_that_exist() -> None:
    block = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert getattr(workbench, alias.name)
    recipe = re.search(r"study\.run\((Recipe\(.*\))\)", block)
    assert recipe
    from workbench.parsing import recipe_from_code

    assert recipe_from_code(recipe[1]).backend.name == "openvino"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^workbench (\w+)", README, re.MULTILINE))))
def test_readme_names_commands_that_exist(command: str) -> None:
    from workbench.cli import app

    names = {each.name or each.callback.__name__ for each in app.registered_commands} | {"runs"}
    assert command in names


def test_readme_options_exist() -> None:
    from typer.testing import CliRunner

    from workbench.cli import app

    for line in README.splitlines():
        if line.startswith("workbench "):
            words = line.split()
            shown = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
            for option in (word for word in words if word.startswith("--")):
                assert option in shown, line


def test_every_picture_and_notebook_named_is_there() -> None:
    for name in re.findall(r"notebooks/[\w.-]+", README):
        assert (ROOT / name).is_file(), name
