"""A draft on disk: what the first steps of a recipe came to, kept for the next recipe that begins alike.

The module as JSON and safetensors (`loading.structure`), everything else of the draft beside it. A module that cannot
be written so (one that was built live) is not kept, and nothing is lost but time.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.draft import Draft, Grid, ModelFacts, Plan, Precision
from workbench.errors import Refused
from workbench.loading.structure import load_module, save_module

_DRAFT, _TENSORS = "draft.json", "tensors.safetensors"
#: Raised when what is written, or what a technique does, changes its meaning: nothing older is taken then.
FORMAT = 3


def is_kept(folder: Path) -> bool:
    """Whether `folder` holds a draft that `load` understands."""
    path = folder / _DRAFT
    return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["format"] == FORMAT


def save(draft: Draft, folder: Path) -> None:
    """Write the draft's module, plan, masks and notes into `folder`, in one rename."""
    from safetensors.torch import save_file

    if draft.module is None or folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        save_module(draft.module, draft.factory, partial)
        tensors = {f"mask.{name}": mask.contiguous() for name, mask in draft.masks.items()}
        for name, grid in draft.grids.items():
            parts = {"codes": grid.codes, "scales": grid.scales, "zeros": grid.zeros}
            tensors |= {f"grid.{key}.{name}": tensor.contiguous() for key, tensor in parts.items()}
        save_file(tensors, str(partial / _TENSORS))
        rest: dict[str, Any] = {
            "format": FORMAT,
            "plan": draft.plan.to_json(),
            "kept": sorted(draft.kept),
            "notes": draft.notes,
            "blocks": list(draft.blocks),
            "facts": asdict(draft.facts),
            "grids": {name: [grid.bits, grid.group] for name, grid in draft.grids.items()},
        }
        (partial / _DRAFT).write_text(json.dumps(rest), encoding="utf-8")
        partial.rename(folder)
    except (Refused, OSError):
        # A cache that cannot be written costs time, never a result.
        return
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load(folder: Path, fresh: Draft) -> Draft:
    """`fresh` with what `save` wrote in its place."""
    from safetensors.torch import load_file

    rest = json.loads((folder / _DRAFT).read_text(encoding="utf-8"))
    tensors = load_file(str(folder / _TENSORS))
    fresh.module = load_module(folder)
    layers = {name: precision(row) for name, row in rest["plan"]["layers"].items()}
    fresh.plan = Plan(rest["plan"]["base"], layers)
    fresh.kept, fresh.notes, fresh.blocks = frozenset(rest["kept"]), rest["notes"], tuple(rest["blocks"])
    fresh.facts = ModelFacts(**{**rest["facts"], "layers": tuple(rest["facts"]["layers"])})
    fresh.masks = {name.removeprefix("mask."): t for name, t in tensors.items() if name.startswith("mask.")}
    fresh.grids = {
        name: Grid(bits, group, *(tensors[f"grid.{key}.{name}"] for key in ("codes", "scales", "zeros")))
        for name, (bits, group) in rest["grids"].items()
    }
    return fresh


def precision(row: dict[str, Any]) -> Precision:
    """The precision that `dataclasses.asdict` wrote."""
    limits = row["input_range"]
    return Precision(**{**row, "input_range": tuple(limits) if limits else None})
