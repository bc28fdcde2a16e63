"""`import workbench`, and looking at every plug-in, stay light: no framework is loaded until it is used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from workbench.registry import FAMILIES

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "torchao",
    "optuna",
    "sklearn",
    "scipy",
    "pandas",
    "plotly",
    "ipywidgets",
)


def loaded_after(code: str) -> list[str]:
    """Which heavy modules a fresh interpreter holds after `code`."""
    report = f"import json, sys; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def test_import_loads_nothing_heavy() -> None:
    assert loaded_after("import workbench") == []


@pytest.mark.parametrize("family", FAMILIES)
def test_looking_at_every_plug_in_loads_nothing_heavy(family: str) -> None:
    assert loaded_after(f"from workbench.registry import members; members({family!r})") == []


def test_a_recipe_and_a_space_load_nothing_heavy() -> None:
    code = "import workbench; workbench.Recipe(workbench.StaticInt8(), backend=workbench.Eager()).id; dir(workbench)"
    assert loaded_after(code) == []
    assert loaded_after("import workbench; list(workbench.Space('bf16', backends=['eager']).recipes())") == []


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_after("import pandas") == ["pandas"]


def test_import_takes_under_half_a_second() -> None:
    # The best of three: other work on the machine may slow one of them down.
    code = "import time; start = time.perf_counter(); import workbench; print(time.perf_counter() - start)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.5
