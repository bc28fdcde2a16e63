"""Prefixes of recipes: computed once, shared by recipes that begin alike, and equal to what was computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import as_draft, logits, tiny_draft
from torch import nn

from workbench import compress, prefix
from workbench.backends.eager import Eager
from workbench.draft import Draft, Grid, Precision
from workbench.recipe import Recipe
from workbench.techniques.base import Technique
from workbench.techniques.distil import Distil
from workbench.techniques.drop_layers import DropLayers
from workbench.techniques.dynamic_int8 import DynamicInt8
from workbench.techniques.prune_structured import PruneStructured


class Tiny:
    """As much of a task as a draft needs."""

    def draft(self) -> Draft:
        return tiny_draft(examples=20)

    def fingerprint(self) -> str:
        return "tiny"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the techniques in the order in which they were really applied; everything is worth keeping."""
    names: list[str] = []
    plain = compress._apply

    def noted(group: tuple[Technique, ...], start: Draft) -> Draft:
        names.extend(step.name for step in group)
        return plain(group, start)

    monkeypatch.setattr(compress, "_apply", noted)
    monkeypatch.setattr(compress, "_WORTH_KEEPING", -1.0)
    return names


def recipe(*steps: Technique, **knobs: Any) -> Recipe:
    return Recipe(*steps, backend=Eager(sequence=16, **knobs))


SMALL = {"steps": 2, "minutes": 5.0, "batch_size": 4}


def test_a_shared_prefix_is_computed_once(applied: list[str]) -> None:
    first = compress.draft(Tiny(), recipe(DropLayers(), Distil(**SMALL)))
    assert applied == ["drop_layers", "distil"]
    second = compress.draft(Tiny(), recipe(DropLayers(), Distil(**SMALL), DynamicInt8()))
    assert applied == ["drop_layers", "distil", "dynamic_int8"]
    assert torch.equal(logits(first.module), logits(second.module))
    assert second.notes[: len(first.notes)] == first.notes
    assert second.blocks == first.blocks
    assert second.plan.kinds() == {"fp32", "int8_dynamic"}
    compress.draft(Tiny(), recipe(DropLayers(), Distil(**{**SMALL, "steps": 3})))
    assert applied[3:] == ["distil"]


def test_narrowed_layers_come_back(applied: list[str]) -> None:
    steps = DropLayers(), PruneStructured(budget=0.6, multiple=8, samples=16)
    one = compress.draft(Tiny(), recipe(*steps))
    again = compress.draft(Tiny(), recipe(*steps))
    assert applied == ["drop_layers", "prune_structured"]
    assert torch.equal(logits(one.module), logits(again.module))
    assert not again.module.training


def test_what_was_measured_on_a_runtime_is_not_shared_with_another(applied: list[str]) -> None:
    steps = (PruneStructured(budget=0.6, cost="latency", samples=8, multiple=8),)
    compress.draft(Tiny(), recipe(*steps))
    compress.draft(Tiny(), recipe(*steps, padding="fixed"))
    assert applied == ["prune_structured"] * 2


def test_masks_grids_and_ranges_survive(tmp_path: Any) -> None:
    one = tiny_draft()
    name = "bert.encoder.layer.0.output.dense"
    one.masks[name] = torch.rand(16, 24) > 0.5
    one.grids[name] = Grid(4, 8, torch.randint(0, 15, (16, 24)).to(torch.uint8), torch.rand(16, 3), torch.rand(16, 3))
    one.plan.layers[name] = Precision("int8_static", input_range=(-1.5, 2.0))
    prefix.save(one, tmp_path / "kept")
    assert prefix.is_kept(tmp_path / "kept")
    other = prefix.load(tmp_path / "kept", tiny_draft())
    assert torch.equal(other.masks[name], one.masks[name])
    assert torch.equal(other.grids[name].codes, one.grids[name].codes)
    assert torch.equal(other.grids[name].scales, one.grids[name].scales)
    assert other.grids[name].bits == 4
    assert other.plan == one.plan


def test_a_module_that_cannot_be_written_is_not_kept_and_nothing_fails(tmp_path: Any) -> None:
    prefix.save(as_draft(nn.Sequential(nn.Linear(2, 2))), tmp_path / "kept")
    assert not prefix.is_kept(tmp_path / "kept")
    assert not list(tmp_path.iterdir())


def test_steps_that_train_and_follow_each_other_are_one_group() -> None:
    drop, distil, int8 = DropLayers(), Distil(), DynamicInt8()
    assert compress.together((drop, distil, int8)) == [(drop,), (distil,), (int8,)]
    assert compress.together((distil, distil)) == [(distil, distil)]
