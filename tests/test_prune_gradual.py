"""Pruning while training: schedules, scores followed step by step, masks that hold, and an interruption that loses
nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_draft

from workbench.draft import Draft, Work
from workbench.errors import KnobError, Refused
from workbench.measure.layers import quantizable, sparsity
from workbench.techniques.base import train_together
from workbench.techniques.distil import Distil
from workbench.techniques.prune import Prune
from workbench.techniques.prune_gradual import PruneGradual, Pruning, scheduled
from workbench.training import Pace, Part, Run, train

LAYER = "bert.encoder.layer.1.intermediate.dense"
SHORT: dict[str, Any] = {"steps": 6, "minutes": 5.0, "batch_size": 4, "learning_rate": 1e-2, "every": 1}
SCORES = PruneGradual.knobs()["score"].choices


@pytest.fixture(autouse=True)
def _cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def draft(**options: Any) -> Draft:
    return tiny_draft(examples=40, initializer_range=0.3, num_hidden_layers=2, **options)


def run(technique: PruneGradual, one: Draft, *parts: Part) -> Draft:
    """As `apply`, with other parts behind it."""
    train(one, [technique.part(one), *parts], technique.pace())
    return one


# -- schedules -------------------------------------------------------------------------------------------------------


def test_schedules_are_the_papers_formulas() -> None:
    p = (0.4 - 0.2) / (0.7 - 0.2)
    assert scheduled("cubic", 0.8, 0.4, 0.2, 0.7) == pytest.approx(0.8 + (0 - 0.8) * (1 - p) ** 3)
    assert scheduled("linear", 0.8, 0.4, 0.2, 0.7) == pytest.approx(0.8 * p)
    # Every change of an exponential schedule leaves the same share of what is left.
    left = [1 - scheduled("exponential", 0.8, share, 0.2, 0.7) for share in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)]
    assert np.diff(np.log(left)) == pytest.approx(np.full(5, np.log(0.2) / 5))
    assert scheduled("oneshot", 0.8, 0.2, 0.2, 0.7) == 0.8


@pytest.mark.parametrize("schedule", PruneGradual.knobs()["schedule"].choices)
def test_schedules_begin_at_nothing_end_at_the_target_and_never_fall(schedule: str) -> None:
    values = [scheduled(schedule, 0.9, share, 0.25, 0.75) for share in np.linspace(0, 1, 41)]
    assert set(values[:10]) == {0.0}
    assert set(values[30:]) == {0.9}
    assert np.diff(values).min() >= 0


@pytest.mark.parametrize("schedule", PruneGradual.knobs()["schedule"].choices)
def test_masks_follow_the_schedule(schedule: str) -> None:
    seen: list[float] = []

    class Watch(Part):
        def before(self, run: Run) -> None:
            seen.append(float(run.draft.masks[LAYER].float().mean()))

    run(PruneGradual(score="magnitude", schedule=schedule, start=0.2, end=0.8, **SHORT), draft(), Watch())
    expected = [scheduled(schedule, 0.7, step / 6, 0.2, 0.8) for step in range(6)]
    assert seen == pytest.approx([round(share * 24 * 16) / (24 * 16) for share in expected])


# -- what is reached -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "pattern"), [*((score, "1x1") for score in SCORES), ("snip_momentum", "2:4"), ("movement", "4x1")]
)
def test_every_score_reaches_the_sparsity_in_every_pattern(score: str, pattern: str) -> None:
    one = draft(keep=("classifier",))
    before = {name: layer.weight.clone() for name, layer in quantizable(one.module).items()}
    PruneGradual(score=score, pattern=pattern, sparsity=0.5, **SHORT).apply(one)
    layers = quantizable(one.module)
    assert set(one.masks) == set(layers) - {"classifier"}
    for name, zeros in one.masks.items():
        weight = layers[name].weight
        assert float(zeros.float().mean()) == pytest.approx(0.5, abs=0.001)
        assert torch.equal(weight == 0, zeros)
        assert not torch.equal(weight[~zeros], before[name][~zeros]), "what stays is trained"
        if pattern == "2:4":
            assert (zeros.reshape(-1, 4).sum(dim=1) == 2).all()
        elif pattern == "4x1":
            assert (zeros.reshape(len(zeros) // 4, 4, -1).sum(dim=1) % 4 == 0).all()
    assert "no faster" in one.notes[0]
    assert "last step" not in one.notes[0]


def test_a_run_that_ends_before_the_schedule_reaches_the_sparsity_all_the_same() -> None:
    one = PruneGradual(sparsity=0.6, **{**SHORT, "steps": 2, "every": 100}).apply(draft())
    assert float(one.masks[LAYER].float().mean()) == pytest.approx(0.6, abs=0.002)
    assert torch.equal(one.module.get_submodule(LAYER).weight == 0, one.masks[LAYER])
    assert "after the last step" in one.notes[0]


def test_a_training_that_follows_leaves_the_zeros_alone() -> None:
    one = Prune(sparsity=0.6).apply(draft())
    masks = {name: mask.clone() for name, mask in one.masks.items()}
    before = one.module.get_submodule(LAYER).weight.clone()
    Distil(steps=4, minutes=5, batch_size=4, learning_rate=1e-2).apply(one)
    for name, zeros in masks.items():
        assert torch.equal(one.module.get_submodule(name).weight == 0, zeros)
    assert not torch.equal(before, one.module.get_submodule(LAYER).weight)


def test_zeros_that_were_there_stay_and_are_counted() -> None:
    one = Prune(sparsity=0.3, score="wanda").apply(draft())
    first = {name: mask.clone() for name, mask in one.masks.items()}
    PruneGradual(sparsity=0.6, score="movement", **SHORT).apply(one)
    assert sparsity(one.module)[LAYER] == pytest.approx(0.6, abs=0.002)
    assert not any((zeros & ~one.masks[name]).any() for name, zeros in first.items())


# -- scores ----------------------------------------------------------------------------------------------------------


class Shadow(Part):
    """The scores of one layer by the papers' formulas, in NumPy, from what the run shows."""

    def __init__(self, score: str) -> None:
        self.score, self.value = score, np.zeros((24, 16))

    def gradients(self, run: Run) -> None:
        weight = run.module.get_submodule(LAYER).weight
        w, g = weight.detach().double().numpy(), weight.grad.double().numpy()
        if self.score == "snip_momentum":
            self.value = 0.9 * self.value + np.abs(w * g)
        elif self.score == "movement":
            self.value -= w * g
        else:
            self.value = np.abs(w * g)


@pytest.mark.parametrize("score", ["gradient", "snip_momentum", "movement"])
def test_masks_are_of_the_scores_of_all_steps(score: str) -> None:
    shadow, one = Shadow(score), draft()
    technique = PruneGradual(score=score, sparsity=0.5, schedule="oneshot", start=0.98, end=1.0, **SHORT)
    # The shadow stands first, so that it sees the gradients before they are masked.
    train(one, [shadow, technique.part(one)], technique.pace())
    expected = np.zeros(24 * 16, dtype=bool)
    expected[np.argsort(shadow.value.ravel())[: 24 * 8]] = True
    assert np.array_equal(one.masks[LAYER].numpy().ravel(), expected)


def test_movement_goes_on_under_the_masks() -> None:
    class Straight(Shadow):
        """Knows the weights under the masks: they stand still."""

        def before(self, run: Run) -> None:
            weight = run.module.get_submodule(LAYER).weight.detach().double().numpy()
            self.whole = np.where(weight != 0, weight, getattr(self, "whole", weight))

        def gradients(self, run: Run) -> None:
            self.value -= self.whole * run.module.get_submodule(LAYER).weight.grad.double().numpy()

    shadow, one = Straight("movement"), draft()
    technique = PruneGradual(score="movement", sparsity=0.8, schedule="linear", end=1.0, **SHORT)
    train(one, [shadow, technique.part(one)], technique.pace())
    expected = np.zeros(24 * 16, dtype=bool)
    expected[np.argsort(shadow.value.ravel())[: round(0.8 * 24 * 16)]] = True
    assert np.array_equal(one.masks[LAYER].numpy().ravel(), expected)


def test_wanda_masks_are_of_the_inputs_since_the_last_change() -> None:
    squares = np.zeros(16)
    weights: list[np.ndarray] = []

    class Inputs(Part):
        def begin(self, run: Run) -> None:
            run.module.get_submodule(LAYER).register_forward_pre_hook(self.look)

        def look(self, part: Any, args: tuple) -> None:
            self.values = args[0].detach().double().numpy()

        def loss(self, run: Run, batch: Any, output: Any) -> Any:
            real = batch.inputs["attention_mask"].bool().numpy()
            squares[:] += (self.values[real] ** 2).sum(axis=0)

        def end(self, run: Run) -> None:
            weights.append(run.module.get_submodule(LAYER).weight.detach().double().numpy().copy())

    one = draft()
    technique = PruneGradual(score="wanda", sparsity=0.5, schedule="oneshot", start=0.98, end=1.0, **SHORT)
    train(one, [Inputs(), technique.part(one)], technique.pace())
    score = np.abs(weights[0]) * np.sqrt(squares)
    expected = np.zeros((24, 16), dtype=bool)
    for row, values in enumerate(score):
        expected[row, np.argsort(values)[:8]] = True
    assert np.array_equal(one.masks[LAYER].numpy(), expected)


def test_with_movement_a_weight_comes_back_as_it_was() -> None:
    one = draft()
    technique = PruneGradual(score="movement", sparsity=0.5, **SHORT)
    part = technique.part(one)
    assert isinstance(part, Pruning)
    examples, targets = one.data.training()
    going = Run(one, one.module, Pace(steps=1), examples, targets)
    part.begin(going)
    weight = one.module.get_submodule(LAYER).weight
    whole = weight.detach().clone()
    scores = part.state()[f"score.{LAYER}"]
    for sign in (1.0, -1.0):
        scores.copy_(sign * torch.arange(24 * 16).reshape(24, 16))
        part._update(going, 0.5)
        zeros = one.masks[LAYER]
        assert int(zeros.sum()) == 24 * 8
        assert bool(zeros[0, 0]) == (sign > 0)
        assert torch.equal(weight, whole.masked_fill(zeros, 0.0))


def test_weights_at_zero_have_no_momentum() -> None:
    found: list[torch.Tensor] = []

    class Look(Part):
        def gradients(self, run: Run) -> None:
            layer = run.module.get_submodule(LAYER)
            found.append(layer.weight.grad[run.draft.masks[LAYER]])

    run(PruneGradual(score="magnitude", schedule="oneshot", **SHORT), draft(), Look())
    assert all(grad.numel() and (grad == 0).all() for grad in found)


# -- together, interrupted, refused ----------------------------------------------------------------------------------


def test_shares_one_run_with_a_teacher() -> None:
    one = draft()
    settings: dict[str, Any] = {"steps": 6, "minutes": 5.0, "batch_size": 4}
    train_together([PruneGradual(sparsity=0.5, every=1, **settings), Distil(**settings)], one)
    assert sum("trained for" in note for note in one.notes) == 1
    assert sparsity(one.module)[LAYER] == pytest.approx(0.5)


def test_dropout_is_used_only_where_both_want_it() -> None:
    alone, taught = PruneGradual().pace(), Distil().pace()
    assert alone.dropout
    assert not alone.joined(taught).dropout
    assert alone.joined(Distil(dropout=True).pace()).dropout


@pytest.mark.parametrize("score", ["magnitude", "snip_momentum", "movement", "wanda"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    score: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.checkpoint.KEEP_EVERY", 0.0)
    technique = PruneGradual(score=score, sparsity=0.6, **SHORT)
    whole = technique.apply(draft())

    class Cut(Part):
        def before(self, run: Run) -> None:
            if run.step == 4:
                raise KeyboardInterrupt

    cut, again = draft(), draft()
    cut.work = again.work = Work(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(technique, cut, Cut())
    technique.apply(again)
    assert torch.equal(whole.masks[LAYER], again.masks[LAYER])
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, again.module.state_dict()[name]), name


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(KnobError, match="end"):
        PruneGradual(start=0.5, end=0.4)
    with pytest.raises(KnobError, match="pattern"):
        PruneGradual(pattern="two of four")


def test_what_cannot_be_reached_is_refused_before_the_training() -> None:
    one = draft()
    before = one.module.get_submodule(LAYER).weight.clone()
    with pytest.raises(Refused, match="leaves nothing of 'classifier'"):
        PruneGradual(sparsity=0.99, **SHORT).apply(one)
    with pytest.raises(Refused, match="does not divide 'classifier'"):
        PruneGradual(pattern="4x1", **SHORT).apply(one)
    with pytest.raises(Refused, match="fixes the sparsity"):
        PruneGradual(pattern="2:4", sparsity=0.7, **SHORT).apply(one)
    assert torch.equal(before, one.module.get_submodule(LAYER).weight)
    assert not one.masks


def test_a_layer_that_the_global_scope_empties_is_refused_with_its_name() -> None:
    one = draft()
    with torch.no_grad():
        one.module.get_submodule(LAYER).weight.mul_(1e-9)
    with pytest.raises(Refused, match=LAYER):
        PruneGradual(score="magnitude", scope="global", **{**SHORT, "learning_rate": 1e-7}).apply(one)
