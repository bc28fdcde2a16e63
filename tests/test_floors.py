"""The house stands as it is drawn: floors, families, sizes, lazy imports, and nothing that runs code it read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from workbench.registry import FAMILIES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "workbench"
SOURCES = sorted(PACKAGE.rglob("*.py"))
#: Copied into exported folders as text and never imported, so what it imports costs the package nothing.
STANDALONE = PACKAGE / "standalone"

#: Classes of PyTorch modules: the files that import torch at once, and are themselves imported by functions only.
MODULES = (PACKAGE / "modules.py", PACKAGE / "shortening.py")

#: Imported by the functions that use them, so that everything else starts at once.
LAZY = {"torch", "transformers", "onnxruntime", "openvino", "nncf", "optuna", "torchao", "datasets", "plotly"}
#: Reading these formats can run code.
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "pandas.read_pickle", "pd.read_pickle", "eval", "exec"}
UNSAFE_ARGUMENTS = {"allow_pickle=True", "trust_remote_code=True", "weights_only=False"}


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(node: ast.AST) -> Iterator[str]:
    """Full names of the modules (or members of modules) that one import statement takes."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield str(node.module)
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported; those for type checkers only are left out."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody"):
                yield from at_import(getattr(node, part, []))


def test_every_import_goes_down() -> None:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_members_of_a_family_never_import_each_other(family: str) -> None:
    package = FAMILIES[family].package
    folder = ROOT.joinpath(*package.split("."))
    members = {path.stem: path for path in folder.glob("*.py") if path.stem != "base" and not path.stem.startswith("_")}
    for name, path in members.items():
        taken = {imported for node in ast.walk(tree(path)) for imported in imports(node)}
        others = {f"{package}.{other}" for other in members if other != name}
        assert not taken & others, f"{path.name} imports a sibling; share it in a file that begins with an underscore"


def test_the_init_of_a_family_holds_a_docstring_only() -> None:
    inits = [path for path in SOURCES if path.name == "__init__.py" and path.parent != PACKAGE]
    assert len(inits) >= len(FAMILIES)
    assert not [where(path) for path in inits if len(tree(path).body) != 1]


def test_no_file_is_long_and_each_opens_with_what_it_does() -> None:
    assert not [where(path) for path in SOURCES if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    assert not [where(path) for path in SOURCES if not ast.get_docstring(tree(path))]


def test_frameworks_are_imported_where_they_are_used() -> None:
    found = {
        (where(path), name)
        for path in SOURCES
        if path.parent != STANDALONE and path not in MODULES
        for node in at_import(tree(path).body)
        for name in imports(node)
        if name.split(".")[0] in LAZY or name in ("workbench.modules", "workbench.shortening")
    }
    assert not found


def test_nothing_that_is_read_can_run_code() -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            unsafe = {name.split(".")[0] for name in imports(node)} & UNSAFE_MODULES
            if isinstance(node, ast.Call):
                unsafe |= {ast.unparse(node.func)} & UNSAFE_CALLS
                unsafe |= {f"{k.arg}={ast.unparse(k.value)}" for k in node.keywords} & UNSAFE_ARGUMENTS
            found += [f"{where(path)}: {what}" for what in unsafe]
    assert not found


def test_what_an_export_carries_knows_nothing_of_this_package() -> None:
    found = {name for path in STANDALONE.glob("*.py") for node in ast.walk(tree(path)) for name in imports(node)}
    assert "numpy" in {name.split(".")[0] for name in found}
    assert "workbench" not in {name.split(".")[0] for name in found}


def test_no_file_is_called_utils() -> None:
    assert not [path for path in SOURCES if path.stem in ("utils", "helpers", "common", "misc")]
