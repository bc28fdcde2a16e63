"""The compression workbench: make a transformer smaller and faster, and see what it costs.

Public names are loaded when they are first used, so `import workbench` stays light. Every plug-in class is a public
name too (`workbench.StaticInt8`, `workbench.OpenVINO`), whether it lies in this package or in another one.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

__version__ = "0.1.0"

#: Public name -> module that defines it.
_PUBLIC = {
    "Choice": "workbench.recipe",
    "Open": "workbench.recipe",
    "Range": "workbench.recipe",
    "Recipe": "workbench.recipe",
    "Space": "workbench.recipe",
    "Draft": "workbench.draft",
    "Estimate": "workbench.measure.estimate",
    "Measurement": "workbench.measure.measurement",
    "Machine": "workbench.measure.machine",
    "Trial": "workbench.trial",
    "Technique": "workbench.techniques.base",
    "Backend": "workbench.backends.base",
    "Probe": "workbench.sensitivity.probes.base",
    "Seen": "workbench.sensitivity.probes.base",
    "Strategy": "workbench.tuning.strategies.base",
    "knob": "workbench.knobs",
    "Goal": "workbench.tuning.goal",
    "Artifact": "workbench.compress",
    "Study": "workbench.study",
    "make_task": "workbench.study",
    "compare": "workbench.comparison",
    "Comparison": "workbench.comparison",
    "answers": "workbench.reading",
    "layer_table": "workbench.reading",
    "weight_histogram": "workbench.reading",
    "activation_histogram": "workbench.reading",
    "push": "workbench.export",
    "save_notebook": "workbench.notebook",
    "Compare": "workbench.widgets.compare",
    "Playground": "workbench.widgets.playground",
    "ExportPanel": "workbench.widgets.export_panel",
    "LayerExplorer": "workbench.widgets.layer_explorer",
    "scan": "workbench.sensitivity.scan",
    "histograms": "workbench.sensitivity.histogram",
    "compare_studies": "workbench.studies",
    "delete_study": "workbench.studies",
    "duplicate_study": "workbench.studies",
    "import_trial": "workbench.studies",
    "rename_study": "workbench.studies",
    "describe_data": "workbench.summary",
    "describe_model": "workbench.summary",
    "describe_table": "workbench.summary",
    "find_models": "workbench.loading.model_summary",
    "DataPicker": "workbench.widgets.data_picker",
    "MachineCard": "workbench.widgets.machine_card",
    "ModelPicker": "workbench.widgets.model_picker",
    "SensitivityMap": "workbench.widgets.sensitivity_map",
    "ParetoExplorer": "workbench.widgets.pareto_explorer",
    "RecipeBuilder": "workbench.widgets.recipe_builder",
    "Tuner": "workbench.widgets.tuner",
    "StudyBrowser": "workbench.widgets.study_browser",
    "WorkbenchError": "workbench.errors",
}


# transformers imports torchao, which reports at every import what its CPU build does not bring; nobody can act on it.
for _chatty in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name[:1].isupper():
        from workbench.registry import classes

        if name in classes():
            return classes()[name]
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    from workbench.registry import classes

    return sorted({*_PUBLIC, *classes(), "__version__"})
