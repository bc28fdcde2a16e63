"""Another model as the student: what it must have in common with its teacher, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import logits, tiny_draft, tiny_module

from workbench import prefix
from workbench.draft import ModelFacts
from workbench.errors import ModelError, Refused
from workbench.techniques.distil import Distil
from workbench.techniques.drop_layers import DropLayers
from workbench.techniques.student import Student

SMALL = {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 12, "initializer_range": 0.3}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def saved(folder: Path, shape: str = "bert", **changes: Any) -> str:
    tiny_module(shape, **changes).save_pretrained(folder)
    return str(folder)


def test_the_model_of_the_folder_takes_the_place(tmp_path: Path) -> None:
    draft = Student(folder=saved(tmp_path, **SMALL)).apply(tiny_draft())
    assert torch.equal(logits(draft.module), logits(tiny_module("bert", **SMALL)))
    assert draft.facts.blocks == 2
    assert draft.facts.parameters == sum(p.numel() for p in draft.module.parameters())
    assert "BertForSequenceClassification" in draft.notes[0]


def test_another_architecture_will_do(tmp_path: Path) -> None:
    draft = Student(folder=saved(tmp_path, "distilbert", n_layers=2)).apply(tiny_draft())
    assert draft.facts.architecture == "DistilBertForSequenceClassification"
    assert DropLayers(count=1).apply(draft).module.config.n_layers == 1


def test_it_learns_from_the_model_whose_place_it_took(tmp_path: Path) -> None:
    draft = tiny_draft(examples=60, initializer_range=0.3)
    teacher = logits(draft.module)
    Student(folder=saved(tmp_path, **SMALL)).apply(draft)
    before = float((logits(draft.module) - teacher).abs().mean())
    Distil(steps=60, minutes=5, batch_size=8, learning_rate=3e-3, temperature=1.0, hidden=0.0).apply(draft)
    assert float((logits(draft.module) - teacher).abs().mean()) < before


def test_a_model_without_a_head_gets_a_fresh_one_by_seed(tmp_path: Path) -> None:
    module = tiny_module("bert", **SMALL)
    module.bert.save_pretrained(tmp_path)
    one, same, other = (Student(folder=str(tmp_path), seed=seed).apply(tiny_draft()).module for seed in (0, 0, 1))
    assert torch.equal(one.classifier.weight, same.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert torch.equal(one.bert.embeddings.word_embeddings.weight, module.bert.embeddings.word_embeddings.weight)


def test_a_head_for_other_classes_is_made_anew(tmp_path: Path) -> None:
    draft = Student(folder=saved(tmp_path, num_labels=5, **SMALL)).apply(tiny_draft())
    assert draft.module.config.num_labels == 2
    assert logits(draft.module).shape == (2, 2)


def test_weights_that_are_missing_in_the_encoder_are_an_error(tmp_path: Path) -> None:
    module = tiny_module("bert", **SMALL)
    del module.bert.encoder.layer[1]
    module.config.num_hidden_layers = 2
    module.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no weights for 16 tensors"):
        Student(folder=str(tmp_path)).apply(tiny_draft())


def test_another_vocabulary_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="vocabulary: 40 and 50"):
        Student(folder=saved(tmp_path, vocab_size=50, **SMALL)).apply(tiny_draft())


def test_other_inputs_and_shorter_texts_are_refused(tmp_path: Path) -> None:
    draft = tiny_draft()
    draft.inputs = ("input_ids", "token_type_ids", "attention_mask")
    with pytest.raises(Refused, match="token_type_ids"):
        Student(folder=saved(tmp_path / "a", "distilbert")).apply(draft)
    with pytest.raises(Refused, match="at most 8 tokens"):
        Student(folder=saved(tmp_path / "b", max_position_embeddings=8, **SMALL)).apply(tiny_draft())


def test_kept_layers_come_along_or_it_is_refused(tmp_path: Path) -> None:
    kept = tiny_module("bert").classifier.weight
    draft = Student(folder=saved(tmp_path / "a", initializer_range=0.3)).apply(tiny_draft(keep=("classifier",)))
    assert torch.equal(draft.module.classifier.weight, kept)
    with pytest.raises(Refused, match="no layer like the kept"):
        Student(folder=saved(tmp_path / "b", **SMALL)).apply(tiny_draft(keep=("classifier",)))


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (ModelFacts("BertForSequenceClassification"), "needs the folder"),
        (ModelFacts("LlamaForCausalLM"), "LlamaForCausalLM"),
        (ModelFacts("onnx", has_module=False), "ONNX"),
    ],
)
def test_it_does_not_fit(facts: ModelFacts, word: str) -> None:
    reason = Student().fits(facts)
    assert reason is not None
    assert word in reason


def test_a_draft_from_the_disk_is_still_the_students(tmp_path: Path) -> None:
    draft = Student(folder=saved(tmp_path / "small", **SMALL)).apply(tiny_draft())
    prefix.save(draft, tmp_path / "kept")
    again = prefix.load(tmp_path / "kept", tiny_draft())
    assert again.facts == draft.facts
    assert again.blocks == draft.blocks
    assert torch.equal(logits(again.module), logits(draft.module))
