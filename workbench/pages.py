"""Notebooks run and rendered as static pages, with an index and the reference beside them; they open off line.

A figure is drawn by one copy of plotly.js that lies in the folder. Left out: widgets, which need a kernel.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workbench.errors import ResourceError, UserError, WorkbenchError
from workbench.plots.markup import tag
from workbench.reference import page, reference

FIGURE = "application/vnd.plotly.v1+json"
#: Seconds that one cell may take.
CELL_SECONDS = 1800
#: Nothing is cut off on a page: long lines go on below, between words where they can.
_STYLE = """
.jp-Notebook pre { white-space: pre-wrap !important; word-break: normal !important; overflow-wrap: anywhere; }
.jp-RenderedHTMLCommon { overflow-x: auto; }
body.jp-Notebook { max-width: 1100px; margin: 0 auto; }
"""


def build(
    out: str | Path, notebooks: Iterable[str | Path], command: Any = None, *, tell: Callable[[str], None] = print
) -> Path:
    """Run `notebooks` in a folder of their own, and write them, `reference.html` and `index.html` to `out`.

    Gives the path of the index. `command` is the click group whose commands the reference lists. Raises `UserError`
    where there is no notebook, `WorkbenchError` for a cell that fails, `ResourceError` for the disk.
    """
    from plotly.offline import get_plotlyjs

    sources, folder = [Path(each) for each in notebooks], Path(out).expanduser()
    missing = [str(each) for each in sources if not each.is_file()]
    if missing or not sources:
        raise UserError(f"No notebook: {', '.join(missing) or 'none was named'}.", do="name files that end in .ipynb")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
        (folder / "reference.html").write_text(reference(command), encoding="utf-8")
        titles = {}
        for source in sources:
            tell(f"{source.name} …")
            done = executed(source)
            (folder / f"{source.stem}.html").write_text(rendered(done), encoding="utf-8")
            titles[source.stem] = _title(done) or source.stem
        links = [tag("li", tag("a", title, href=f"{stem}.html")) for stem, title in titles.items()]
        last = tag("p", tag("a", "Reference", href="reference.html"))
        index = page("Compression workbench", tag("h1", "Compression workbench"), tag("ol", *links), last)
        (folder / "index.html").write_text(index, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{folder} could not be written: {error.strerror or error}.") from error
    return folder / "index.html"


def executed(path: Path) -> Any:
    """The notebook with its outputs; its studies lie in a temporary folder, which is removed."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as work:
        try:
            place = {"metadata": {"path": work}}
            NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", resources=place).execute()
        except CellExecutionError as error:
            raise WorkbenchError(f"{path.name} failed: {error}", do="run it in JupyterLab and see the cell") from error
    return notebook


def rendered(notebook: Any) -> str:
    """An executed notebook as a page that takes nothing from the network but what its own text links to."""
    from nbconvert import HTMLExporter

    _draw_figures(notebook)
    _leave_out_progress(notebook)
    notebook.metadata.pop("widgets", None)
    exporter = HTMLExporter(template_name="lab")
    exporter.require_js_url = exporter.jquery_url = exporter.mathjax_url = ""
    exporter.mermaid_js_url = exporter.jupyter_widgets_base_url = exporter.html_manager_semver_range = ""
    notebook.metadata["title"] = _title(notebook) or "Notebook"
    body, _ = exporter.from_notebook_node(notebook)
    body = body.replace("</head>", f"<style>{_STYLE}</style></head>", 1)
    # One notebook links to another by its file.
    return re.sub(r'href="(\w+)\.ipynb"', r'href="\1.html"', body)


def _draw_figures(notebook: Any) -> None:
    """Give every figure a form that a browser draws with the folder's plotly.js."""
    import plotly.io as pio

    first = True
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            figure = output.get("data", {}).pop(FIGURE, None)
            if figure is not None:
                script = "directory" if first else False
                plain = {key: figure[key] for key in ("data", "layout")}
                html = pio.to_html(plain, include_plotlyjs=script, full_html=False, validate=False)
                output["data"], first = {"text/html": html}, False


def _leave_out_progress(notebook: Any) -> None:
    """Take away the lines of progress bars, of which a page could only show the last state."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                lines = re.split(r"[\r\n]+", output["text"])
                output["text"] = "\n".join(line for line in lines if not re.search(r"\d%\|", line))
        if "outputs" in cell:
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr" or one["text"].strip()]


def _title(notebook: Any) -> str:
    found = re.search(r"^# (.+)$", notebook.cells[0].source, re.M) if notebook.cells else None
    return found[1] if found else ""
