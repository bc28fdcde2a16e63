"""The notebooks as they are committed, and that they run from top to bottom."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def test_there_are_notebooks():
    assert {path.name for path in NOTEBOOKS} >= {"quickstart.ipynb", "dashboard.ipynb"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_without_outputs_and_widget_state(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            ast.parse(cell.source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_short_and_free_of_branches(path):
    cells = read(path).cells
    assert len(cells) < 12
    for cell in cells:
        assert len(cell.source.splitlines()) <= 10
        assert not re.search(r"environ|getenv|\bCI\b", cell.source)


def run(path, folder, monkeypatch, **replaced):
    """The executed notebook, run in `folder`, with `name = value` lines replaced."""
    from nbclient import NotebookClient

    notebook = read(path)
    for cell in notebook.cells:
        for name, value in replaced.items():
            cell.source = re.sub(rf"^{name} = .*$", f"{name} = {value!r}", cell.source, flags=re.M)
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    client = NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


def text_of(notebook):
    """Everything that the notebook printed or showed, as plain text."""
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            parts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    return "\n".join(parts)


def count(notebook, kind):
    """How many outputs have a form of this MIME type."""
    return sum(kind in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_quickstart_runs(tmp_path, monkeypatch):
    source = (FOLDER / "quickstart.ipynb").read_text(encoding="utf-8")
    assert re.search(r"budget = \d+", source)
    done = run(FOLDER / "quickstart.ipynb", tmp_path, monkeypatch, budget=3)
    assert (tmp_path / "runs" / "quickstart" / "report.html").stat().st_size > 1_000_000
    said = text_of(done)
    assert "fp32 · eager" in said
    assert count(done, "application/vnd.plotly.v1+json") == 1
    from workbench import Study

    states = [trial.state for trial in Study(tmp_path / "runs" / "quickstart").trials]
    assert states.count("complete") >= 3


@pytest.mark.slow
def test_dashboard_notebook_builds(tmp_path, monkeypatch):
    done = run(FOLDER / "dashboard.ipynb", tmp_path, monkeypatch)
    assert count(done, "application/vnd.jupyter.widget-view+json") == 1
