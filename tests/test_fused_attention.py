"""Attention as one node of the ONNX graph: it is there, it answers the same, and quantization leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import as_draft, tiny_draft, tiny_module

from workbench.backends.onnxruntime import OnnxRuntime
from workbench.techniques.drop_layers import DropLayers
from workbench.techniques.prune_structured import PruneStructured
from workbench.techniques.static_int8 import StaticInt8

FUSED = "MultiHeadAttention"
LAYERS = 2


def small(shape: str = "bert", layers: int = LAYERS, **changes: Any) -> Any:
    """A draft of a few layers: to export each takes a while."""
    name = "n_layers" if shape == "distilbert" else "num_hidden_layers"
    return tiny_draft(shape, **{name: layers, **changes})


def batch() -> dict[str, np.ndarray]:
    tokens = np.arange(3, 19, dtype=np.int64).reshape(2, 8)
    mask = np.ones_like(tokens)
    mask[1, 5:] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def answers(draft: Any, folder: Path, **knobs: Any) -> tuple[np.ndarray, dict[str, int]]:
    backend = OnnxRuntime(sequence=16, threads=1, **knobs)
    backend.lower(draft, folder)
    runner = backend.load(folder)
    return runner(batch()), runner.effect().nodes


@pytest.mark.parametrize("shape", ["bert", "distilbert", "roberta", "electra"])
def test_every_attention_is_one_node_and_answers_as_the_module_does(shape: str, tmp_path: Path) -> None:
    draft = small(shape, initializer_range=0.3)
    with torch.no_grad():
        wanted = draft.module(**{name: torch.from_numpy(array) for name, array in batch().items()}).logits.numpy()
    given, nodes = answers(draft, tmp_path / "fused")
    assert nodes[FUSED] == LAYERS
    assert np.allclose(given, wanted, atol=1e-4)
    plain, before = answers(small(shape, initializer_range=0.3), tmp_path / "plain", attention="plain")
    assert FUSED not in before
    assert sum(nodes.values()) < sum(before.values())
    assert np.allclose(plain, wanted, atol=1e-4)


def test_the_module_keeps_its_own_attention(tmp_path: Path) -> None:
    draft = small()
    before = draft.module.config._attn_implementation
    answers(draft, tmp_path / "one")
    assert draft.module.config._attn_implementation == before


def test_int8_keeps_the_fused_attention(tmp_path: Path) -> None:
    draft = StaticInt8().apply(small())
    _, nodes = answers(draft, tmp_path / "int8")
    assert nodes[FUSED] == LAYERS
    assert sum(count for name, count in nodes.items() if name.startswith(("QLinear", "MatMulInteger"))) > 0


def test_narrowed_and_dropped_layers_are_fused_as_well(tmp_path: Path) -> None:
    draft = small(layers=3, examples=20, num_attention_heads=4)
    DropLayers(count=1).apply(draft)
    PruneStructured(budget=0.6, multiple=4, samples=8).apply(draft)
    with torch.no_grad():
        wanted = draft.module(**{name: torch.from_numpy(array) for name, array in batch().items()}).logits.numpy()
    given, nodes = answers(draft, tmp_path / "small")
    assert nodes[FUSED] == LAYERS
    assert np.allclose(given, wanted, atol=1e-4)


def test_another_anatomy_is_exported_as_ever(tmp_path: Path) -> None:
    draft = as_draft(tiny_module("modernbert", num_hidden_layers=LAYERS))
    given, nodes = answers(draft, tmp_path / "modern")
    assert FUSED not in nodes
    with torch.no_grad():
        wanted = draft.module(**{name: torch.from_numpy(array) for name, array in batch().items()}).logits.numpy()
    assert np.allclose(given, wanted, atol=1e-4)
