"""The README's table for people from Neural Compressor 2.x: every line on its right side does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_folders import save_model, write_splits
from tiny_models import tiny_draft

import workbench
from workbench.compress import compress
from workbench.errors import WorkbenchError
from workbench.parsing import recipe_from_code
from workbench.registry import members

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
TABLE = README.partition("### Coming from Neural Compressor 2.x")[2].partition("###")[0]
LINES = [line.split(" | ", 1) for line in TABLE.splitlines() if line.startswith("| ")][1:]
CODES = [code for _, right in LINES for code in re.findall(r"`([A-Za-z.]+\(.*?\))`", right)]
RECIPES = [code for code in CODES if code.startswith("Recipe(")]
#: What there is to say of a model with weights of a few hundred numbers.
SMALL = {
    "minutes=5": "minutes=0.1",
    "minutes=15": "minutes=0.1",
    "samples=100": "samples=8",
}


def test_the_table_is_read() -> None:
    assert len(LINES) >= 18
    assert len(RECIPES) >= 12


@pytest.mark.parametrize("code", RECIPES)
def test_a_recipe_fits_the_classic_case(code: str) -> None:
    assert not recipe_from_code(code).refusal(tiny_draft("distilbert").facts)


@pytest.mark.parametrize("code", [code for code in CODES if code.startswith("Goal(")])
def test_a_goal_can_be_made(code: str) -> None:
    goal = eval(code, {"Goal": workbench.Goal})  # noqa: S307 - our own README
    assert all(
        repr(getattr(goal, name)) == value.replace('"', "'") for name, value in re.findall(r"(\w+)=([\w.\"]+)", code)
    )


def test_every_strategy_has_its_old_name() -> None:
    (row,) = [left for left, right in LINES if left.startswith("| strategies")]
    named = re.findall(r"`(\w+)`", row)
    assert len(named) == 10
    assert set(named) <= set(members("strategies"))


@pytest.mark.parametrize("code", [code for code in CODES if code.startswith("study.")])
def test_a_study_does_it(code: str) -> None:
    method = code.removeprefix("study.").partition("(")[0]
    assert callable(getattr(workbench.Study, method))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_of_it_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a tiny DistilBERT: every recipe is built and runs, then tuned, saved, and asked what came nearest."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", shape="distilbert", n_layers=6)
    task = workbench.make_task(tmp_path / "model", write_splits(tmp_path / "data", train=600))
    for number, code in enumerate(RECIPES):
        small = code
        for long, short in SMALL.items():
            small = small.replace(long, short)
        try:
            compress(task, recipe_from_code(small), tmp_path / str(number)).load().close()
        except WorkbenchError as error:
            raise AssertionError(code) from error
    study = workbench.Study(tmp_path / "study", task)
    names = {"study": study, "Space": workbench.Space, "Goal": workbench.Goal}
    for code in [code for code in CODES if code.startswith("study.")]:
        eval(code, names)  # noqa: S307 - our own README
    assert (tmp_path / "folder" / "run.py").is_file()
