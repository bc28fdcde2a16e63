"""Tiny random models of the common shapes, wrapped as drafts; built in milliseconds, nothing is downloaded."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from workbench.anatomy import find_blocks
from workbench.draft import Draft, Example, ModelFacts, resolve_keep
from workbench.measure.layers import parameters, quantizable

TEXT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
DISTIL = {"vocab_size": 40, "dim": 16, "n_layers": 6, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 32}
IMAGE = {
    "image_size": 8,
    "patch_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
SHAPES = ("bert", "distilbert", "roberta", "electra", "vit")


def tiny_module(shape: str, **changes: Any) -> Any:
    """A classifier with two labels and six layers, the same at every call."""
    import torch
    import transformers as t

    kinds = {
        "bert": (t.BertForSequenceClassification, t.BertConfig, TEXT),
        "distilbert": (t.DistilBertForSequenceClassification, t.DistilBertConfig, DISTIL),
        "roberta": (t.RobertaForSequenceClassification, t.RobertaConfig, TEXT),
        "electra": (t.ElectraForSequenceClassification, t.ElectraConfig, {**TEXT, "embedding_size": 8}),
        "vit": (t.ViTForImageClassification, t.ViTConfig, IMAGE),
        "modernbert": (
            t.ModernBertForSequenceClassification,
            t.ModernBertConfig,
            {**TEXT, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
        ),
    }
    model, config, sizes = kinds[shape]
    torch.manual_seed(0)
    return model(config(**{**sizes, **changes})).eval()


def logits(module: Any) -> Any:
    """The module's answer to one fixed input, shape (2, 2)."""
    import torch

    with torch.no_grad():
        if module.config.model_type == "vit":
            return module(pixel_values=torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)).logits
        tokens = torch.arange(3, 19).reshape(2, 8)
        return module(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits


class Examples:
    """Training data: `size` examples of three to eight tokens; the label says whether the first one is even."""

    def __init__(self, size: int = 4) -> None:
        self.size = size

    def calibration(self, samples: int) -> list[Example]:
        return self.training()[0][:samples]

    def training(self) -> tuple[list[Example], np.ndarray]:
        rows = [[3 + (7 * i + j) % 30 for j in range(3 + i % 6)] for i in range(self.size)]
        examples = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
        return examples, np.array([row[0] % 2 for row in rows], dtype=np.int64)

    def key(self) -> str:
        return f"tiny-{self.size}"


def tiny_draft(shape: str = "bert", *, keep: tuple[str, ...] = (), examples: int = 4, **changes: Any) -> Draft:
    """A fresh draft of a tiny model, as a task would give it."""
    return as_draft(tiny_module(shape, **changes), keep=keep, examples=examples)


def as_draft(module: Any, *, keep: tuple[str, ...] = (), examples: int = 4) -> Draft:
    """A draft of any module."""
    path, blocks = find_blocks(module)
    layers, first = tuple(quantizable(module)), copy.deepcopy(module)
    facts = ModelFacts(type(module).__name__, True, layers, blocks, path, parameters(module))
    return Draft(
        facts=facts,
        data=Examples(examples),
        inputs=("input_ids", "attention_mask"),
        pad={},
        labels=("negative", "positive"),
        module=module,
        kept=resolve_keep(keep, layers),
        original=lambda: copy.deepcopy(first),
        sequence=16,
    )


def onnx_draft(*, layers: tuple[str, ...] = ("MatMul_0",)) -> Draft:
    """A draft without a module, as a task that starts from an ONNX file would give it."""
    facts = ModelFacts("onnx", has_module=False, layers=layers)
    return Draft(facts=facts, data=Examples(), inputs=("input_ids",), pad={}, labels=("a", "b"))
