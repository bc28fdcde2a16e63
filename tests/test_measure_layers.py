"""Layers, parameters, zeros and MACs, against numbers worked out by hand."""

from __future__ import annotations

import json

import pytest

from workbench.errors import ModelError
from workbench.measure.layers import (
    example_inputs,
    layers,
    macs,
    nonzero_parameters,
    parameters,
    quantizable,
    sparsity,
)

torch = pytest.importorskip("torch")

WIDTH, HIDDEN, HEADS, LENGTH = 32, 64, 4, 16


@pytest.fixture(scope="module")
def distilbert():
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        dim=WIDTH, hidden_dim=HIDDEN, n_layers=2, n_heads=HEADS, vocab_size=50, max_position_embeddings=64
    )
    return DistilBertForSequenceClassification(config).eval()


def test_quantizable_names(distilbert) -> None:
    names = list(quantizable(distilbert))
    assert len(names) == 2 * 6 + 2
    assert names[0] == "distilbert.transformer.layer.0.attention.q_lin"
    assert names[-2:] == ["pre_classifier", "classifier"]


def test_layers_by_hand(distilbert) -> None:
    rows = {layer.name: layer for layer in layers(distilbert, example_inputs(distilbert, LENGTH))}
    query = rows["distilbert.transformer.layer.0.attention.q_lin"]
    assert (query.kind, query.in_features, query.out_features) == ("linear", WIDTH, WIDTH)
    assert query.parameters == WIDTH * WIDTH + WIDTH
    assert query.macs == LENGTH * WIDTH * WIDTH
    wide = rows["distilbert.transformer.layer.1.ffn.lin1"]
    assert (wide.in_features, wide.out_features, wide.macs) == (WIDTH, HIDDEN, LENGTH * WIDTH * HIDDEN)
    # The head sees the first token only.
    assert rows["classifier"].macs == WIDTH * 2
    json.dumps(query.to_json())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_macs_are_the_linear_ones_and_attention(distilbert, attention: str) -> None:
    """Both forms of attention compute the same two products: scores and context."""
    distilbert.set_attn_implementation(attention)
    inputs = example_inputs(distilbert, LENGTH, batch=3)
    linear = sum(layer.macs for layer in layers(distilbert, inputs))
    assert linear == 3 * sum(layer.macs for layer in layers(distilbert, example_inputs(distilbert, LENGTH)))
    assert macs(distilbert, inputs) == linear + 3 * 2 * (2 * LENGTH * LENGTH * WIDTH)


def test_conv1d_and_tied_weights() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    module = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=32)).eval()
    rows = {layer.name: layer for layer in layers(module, example_inputs(module, 8))}
    fused = rows["transformer.h.0.attn.c_attn"]
    assert (fused.kind, fused.in_features, fused.out_features, fused.macs) == ("conv1d", 16, 48, 8 * 16 * 48)
    assert rows["lm_head"].kind == "linear"
    untied = sum(p.numel() for _, p in module.named_parameters(remove_duplicate=False))
    assert parameters(module) == untied - 20 * 16


class Twice(torch.nn.Module):
    """One layer run twice, and one that is never run."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = torch.nn.Linear(4, 4)
        self.unused = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shared(self.shared(x))


def test_reused_and_unused_layers() -> None:
    module = Twice().train()
    module.unused.eval()
    shared, unused = layers(module, {"x": torch.ones(5, 4)})
    assert shared.macs == 2 * 5 * 4 * 4
    assert unused.macs == 0
    assert macs(module, {"x": torch.ones(5, 4)}) == shared.macs
    assert not module.shared._forward_hooks
    assert (module.shared.training, module.unused.training) == (True, False)


def test_a_failing_forward_leaves_no_hooks() -> None:
    module = Twice()
    with pytest.raises(RuntimeError):
        layers(module, {"x": torch.ones(5, 3)})
    assert not module.shared._forward_hooks
    assert module.training


def test_zeros_and_parameters() -> None:
    module = Twice()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)
        module.shared.weight[:3] = 0
    assert sparsity(module) == {"shared": 0.75, "unused": 0.0}
    assert parameters(module) == 4 * 4 + 4 + 4 * 2 + 2
    assert nonzero_parameters(module) == parameters(module) - 12


def test_no_made_up_input_for_other_modules() -> None:
    with pytest.raises(ModelError, match="Twice takes x"):
        example_inputs(Twice())
