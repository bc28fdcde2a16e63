"""The notebooks as they are committed, and that they run from top to bottom."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from workbench.registry import FAMILIES

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
#: The walkthroughs, in the order in which they are read.
TUTORIALS = [path for path in NOTEBOOKS if path.name[:2].isdigit()]
#: The subject of this one is writing classes.
EXTEND = "11_extend.ipynb"
#: A cell that ends in a call of one of these shows a figure.
DRAWS = (
    "bars",
    "curve_lines",
    "distribution",
    "graph_figure",
    "heat",
    "hypervolume_history",
    "layers_left",
    "mask_corners",
    "node_counts",
    "operators_figure",
    "pareto",
    "roofline_figure",
    "strip",
    "temperatures",
    "value",
    "workload",
)
FIGURE = "application/vnd.plotly.v1+json"


def by_name(path):
    return path.name


def read(path):
    return nbformat.read(path, as_version=4)


def python(cell):
    """The cell's tree, its magics turned into the calls that they stand for."""
    return ast.parse(TransformerManager().transform_cell(cell.source))


def code_of(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def draws(cell):
    """Whether the cell's last line is a call that gives a figure."""
    last = python(cell).body[-1]
    call = last.value if isinstance(last, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in DRAWS


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == [
        "00_quickstart",
        "01_quantization",
        "02_mixed_precision",
        "03_pruning",
        "04_distillation",
        "05_graph_optimization",
        "06_sensitivity",
        "07_tuning",
        "08_stacking",
        "09_deploy",
        "10_bring_your_own",
        "11_extend",
        "dashboard",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_committed_without_outputs_and_widget_state(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    for i, cell in enumerate(notebook.cells):
        assert cell.id == f"cell-{i:02d}"
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            python(cell)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_short_because_the_package_does_the_work(path):
    cells = read(path).cells
    assert len(cells) <= (20 if path.name == EXTEND else 15)
    for cell in code_of(path):
        assert len([line for line in cell.source.splitlines() if line.strip()]) <= 8
        for node in ast.walk(python(cell)):
            assert not isinstance(node, ast.If | ast.IfExp | ast.Match | ast.Try | ast.While)
            definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            assert path.name == EXTEND or not definition
        assert not re.search(r"environ|getenv|\bCI\b", cell.source)


@pytest.mark.parametrize("path", TUTORIALS, ids=by_name)
def test_begins_with_the_switch_and_ends_with_something_to_try(path):
    first, *_, last = read(path).cells
    assert first.cell_type == last.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"^## Something to try$", last.source, re.M)
    assert 'model, data = "demo", None' in code_of(path)[0].source
    assert any("make_task(model, data)" in cell.source for cell in code_of(path)[:5])


@pytest.mark.parametrize("path", TUTORIALS, ids=by_name)
def test_prose_states_no_measurement(path):
    # What was measured stands in outputs; percentages and factors in prose come from a cited paper.
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for line in cell.source.split("\n\n"):
                assert not re.search(r"\d\s?(%|×|ms\b)", line) or re.search(r"https?://", line), line


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)]+)\)", cell.source):
                assert target.startswith("https://") or (FOLDER / target).is_file(), target


@pytest.mark.parametrize("path", TUTORIALS, ids=by_name)
def test_names_in_prose_exist(path):
    import importlib

    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for dotted in re.findall(r"`workbench((?:\.\w+)+)", cell.source):
                if dotted.removeprefix(".") in FAMILIES:  # A group of entry points.
                    continue
                *modules, name = f"workbench{dotted}".split(".")
                holder = importlib.import_module(".".join(modules))
                assert hasattr(holder, name) or importlib.util.find_spec(".".join([*modules, name])), dotted


@pytest.mark.parametrize("path", TUTORIALS, ids=by_name)
def test_every_import_of_the_package_is_there(path):
    import importlib

    for cell in code_of(path):
        for node in ast.walk(python(cell)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("workbench"):
                module = importlib.import_module(node.module)
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def run(path, folder, monkeypatch):
    """The notebook, executed in `folder`."""
    from nbclient import NotebookClient

    notebook = read(path)
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    client = NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    done = client.execute()
    # For whoever wants to see what the test saw.
    nbformat.write(done, folder / f"done-{path.name}")
    return done


def text_of(outputs):
    """Everything that was printed or shown, as plain text."""
    parts = []
    for output in outputs:
        data = output.get("data", {})
        parts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    return "\n".join(parts)


def shows(outputs, kind):
    """Whether an output has a form of this MIME type."""
    return any(kind in output.get("data", {}) for output in outputs)


#: What a reader must find somewhere in a notebook's outputs, beside its figures.
SAID = {
    "00_quickstart": "fp32 · eager",
    "09_deploy": '"same_labels": true',
    "10_bring_your_own": "static_int8 · onnxruntime",
    "11_extend": "clip_weights →",
}


@pytest.mark.notebooks
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", TUTORIALS, ids=by_name)
def test_tutorial_runs(path, tmp_path, monkeypatch):
    done = run(path, tmp_path, monkeypatch)
    for cell in done.cells:
        if cell.cell_type == "code":
            assert not any(output.output_type == "error" for output in cell.outputs), cell.source
            assert shows(cell.outputs, FIGURE) == draws(cell), cell.source
    said = text_of(output for cell in done.cells for output in cell.get("outputs", []))
    assert SAID.get(path.stem, "") in said
    assert "Traceback" not in said


@pytest.mark.notebooks
def test_dashboard_notebook_builds(tmp_path, monkeypatch):
    done = run(FOLDER / "dashboard.ipynb", tmp_path, monkeypatch)
    assert sum(shows(cell.get("outputs", []), "application/vnd.jupyter.widget-view+json") for cell in done.cells) == 1
