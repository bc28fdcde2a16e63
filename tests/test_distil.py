"""Distillation: losses against NumPy, layer maps, a student that learns, answers that are asked once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import logits, tiny_draft, tiny_module

from workbench.errors import ModelError, Refused
from workbench.techniques.base import train_together
from workbench.techniques.distil import Answers, Distil, hidden_loss, layer_map, logits_loss, relation_loss
from workbench.techniques.drop_layers import DropLayers


@pytest.fixture(autouse=True)
def _cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_logit_losses_are_the_papers_formulas(temperature: float) -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    p, q = softmax(teacher.numpy() / temperature), softmax(student.numpy() / temperature)
    kl = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    ce = temperature**2 * -(p * np.log(q)).sum(axis=1).mean()
    assert float(logits_loss(student, teacher, "kl", temperature)) == pytest.approx(kl, rel=1e-4)
    assert float(logits_loss(student, teacher, "ce", temperature)) == pytest.approx(ce, rel=1e-4)
    mse = ((student - teacher).numpy() ** 2).mean()
    assert float(logits_loss(student, teacher, "mse", temperature)) == pytest.approx(mse, rel=1e-4)


def test_hidden_loss_leaves_padding_out() -> None:
    student, teacher = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    errors = ((student - teacher).numpy() ** 2).mean(axis=2)
    assert float(hidden_loss(student, teacher, mask)) == pytest.approx(errors[mask.numpy() == 1].mean(), rel=1e-4)


def test_relations_are_equal_for_equal_states_and_blind_to_padding() -> None:
    states = torch.randn(2, 5, 24)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert float(relation_loss(states, states, mask)) == pytest.approx(0, abs=1e-6)
    other = states.clone()
    other[0, 3:] = 7.0
    assert float(relation_loss(states, other, mask)) == pytest.approx(0, abs=1e-5)
    other[0, 1] = 7.0
    assert float(relation_loss(states, other, mask)) > 0.01


def test_relations_are_minilms_formula() -> None:
    student, teacher = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    expected = 0.0
    for part in (slice(0, 2), slice(2, 4)):
        p = softmax((teacher[0, :, part] @ teacher[0, :, part].T).numpy() / np.sqrt(2))
        q = softmax((student[0, :, part] @ student[0, :, part].T).numpy() / np.sqrt(2))
        expected += (p * np.log(p / q)).sum(axis=1).mean() / 2
    assert float(relation_loss(student, teacher, None, heads=2)) == pytest.approx(expected, rel=1e-4)


def test_layer_maps() -> None:
    assert layer_map(4, 6, "even") == [(1, 2), (2, 3), (3, 5), (4, 6)]
    assert layer_map(3, 6, "even") == [(1, 2), (2, 4), (3, 6)]
    assert layer_map(6, 6, "even") == [(i, i) for i in range(1, 7)]
    assert layer_map(4, 6, "origin", (0, 2, 3, 5)) == [(1, 1), (2, 3), (3, 4), (4, 6)]
    assert layer_map(4, 6, "last") == [(4, 6)]
    assert layer_map(4, 6, "origin", ()) == layer_map(4, 6, "even"), "where nobody knows where the layers come from"


@pytest.mark.parametrize("knobs", [{"hidden": 0.0}, {"hidden": 1.0}, {"hidden": 0.0, "relations": 1.0}])
def test_a_student_comes_nearer_to_its_teacher(knobs: Any) -> None:
    # With wider weights the answers differ by more than BF16 can tell apart.
    student = DropLayers(count=3).apply(tiny_draft(examples=60, initializer_range=0.3))
    teacher = logits(tiny_module("bert", initializer_range=0.3))
    before = float((logits(student.module) - teacher).abs().mean())
    Distil(steps=80, minutes=5, batch_size=8, learning_rate=3e-3, temperature=1.0, **knobs).apply(student)
    assert float((logits(student.module) - teacher).abs().mean()) < before
    assert "80 steps" in student.notes[-1]


def test_a_narrower_student_learns_hidden_states_through_a_projection(tmp_path: Any) -> None:
    wider = tiny_module("bert", hidden_size=32)
    wider.save_pretrained(tmp_path / "wide")
    student = tiny_draft(examples=20)
    part = Distil(steps=4, minutes=5, batch_size=4, teacher=str(tmp_path / "wide")).part(student)
    from workbench.training import Pace, train

    train(student, [part], Pace(steps=4, minutes=5, batch=4))
    assert [tuple(p.shape) for p in part.parameters()] == [(32, 16)]


def test_a_teacher_of_another_vocabulary_or_other_classes_is_refused(tmp_path: Any) -> None:
    tiny_module("bert", vocab_size=50).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="vocabulary: 50 and 40"):
        Distil(teacher=str(tmp_path / "other")).part(tiny_draft())
    tiny_module("bert", num_labels=3).save_pretrained(tmp_path / "more")
    with pytest.raises(ModelError, match="classes: 3 and 2"):
        Distil(teacher=str(tmp_path / "more")).part(tiny_draft())


def test_without_a_teacher_it_is_refused() -> None:
    one = tiny_draft()
    one.original = None
    with pytest.raises(Refused, match="no uncompressed module"):
        Distil().part(one)


def test_the_teacher_is_asked_once_for_each_example() -> None:
    one = tiny_draft(examples=8)
    asked = 0
    teacher = tiny_module("bert")
    plain = teacher.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked += 1
        return plain(*args, **kwargs)

    teacher.forward = counted
    one.original = lambda: teacher
    settings = {"steps": 10, "minutes": 5, "batch_size": 8, "hidden": 0.0}
    Distil(**settings).apply(one)
    assert asked == 1
    again = tiny_draft(examples=8)
    again.original = lambda: teacher
    Distil(**settings).apply(again)
    assert asked == 1, "the answers are in the cache"


def test_answers_survive_and_a_file_of_another_shape_is_not_taken() -> None:
    first = Answers.open("key", "", 4, 2)
    assert first is not None
    assert first.get([0, 1]) is None
    first.put([0, 1], np.array([[1.0, 2.0], [3.0, 4.0]]))
    first.save()
    second = Answers.open("key", "", 4, 2)
    assert second is not None
    assert second.get([1]).tolist() == [[3.0, 4.0]]
    assert second.get([1, 2]) is None
    assert Answers.open("key", "", 5, 2).get([1]) is None


def test_without_a_teachers_loss_it_is_fine_tuning_and_asks_nobody() -> None:
    one = tiny_draft(examples=40)
    one.original = None
    Distil(mix=0.0, hidden=0.0, steps=100, minutes=5, batch_size=8, learning_rate=5e-3).apply(one)
    examples, targets = one.data.training()
    with torch.no_grad():
        answers = [one.module(**{k: torch.tensor([v]) for k, v in e.items()}).logits.argmax().item() for e in examples]
    assert np.mean(np.array(answers) == targets) > 0.9


def test_two_trained_techniques_share_one_run() -> None:
    one = tiny_draft(examples=20)
    train_together([Distil(steps=3, minutes=5, batch_size=4), Distil(steps=5, minutes=5, batch_size=4, mix=0.5)], one)
    assert sum("trained for" in note for note in one.notes) == 1
    assert "5 steps" in one.notes[-1]
