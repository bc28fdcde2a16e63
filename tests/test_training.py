"""The one training loop: what it may change, that it repeats, and that nothing is lost when it is cut off."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import Examples, logits, tiny_draft

from workbench.draft import Draft, Work
from workbench.errors import DataError, Refused, UserError
from workbench.training import Pace, Part, batches, train

KEPT = "bert.encoder.layer.2.output.dense"
SHORT = Pace(steps=6, minutes=5, batch=4, learning_rate=1e-2)


def draft(**options: Any) -> Draft:
    return tiny_draft(examples=40, **options)


def weights(module: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_learns_the_labels() -> None:
    one = draft()
    train(one, [], Pace(steps=120, minutes=5, batch=8, learning_rate=5e-3))
    examples, targets = one.data.training()
    with torch.no_grad():
        answers = [one.module(**{k: torch.tensor([v]) for k, v in e.items()}).logits.argmax().item() for e in examples]
    assert np.mean(np.array(answers) == targets) > 0.9
    assert "120 steps" in one.notes[-1]


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    results = []
    for seed in (0, 0, 1):
        one = draft()
        train(one, [], Pace(steps=3, minutes=5, batch=4, seed=seed))
        results.append(weights(one.module))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_leaves_the_module_as_it_found_it_but_for_the_weights() -> None:
    one = draft()
    attention, threads = one.module.config._attn_implementation, torch.get_num_threads()
    train(one, [], SHORT)
    assert not one.module.training
    assert one.module.config._attn_implementation == attention
    assert torch.get_num_threads() == threads
    assert all(p.requires_grad and p.grad is None for p in one.module.parameters())
    copied = copy.deepcopy(one.module)
    assert torch.equal(logits(copied), logits(one.module))
    assert logits(one.module).dtype == torch.float32


def test_kept_layers_and_masked_weights_do_not_move() -> None:
    one = draft(keep=(KEPT,))
    name = "bert.encoder.layer.1.output.dense"
    mask = torch.rand(one.module.get_submodule(name).weight.shape) > 0.5
    one.masks[name] = mask
    one.module.get_submodule(name).weight.data.masked_fill_(mask, 0.0)
    before = weights(one.module)
    train(one, [], SHORT)
    after = weights(one.module)
    assert torch.equal(before[f"{KEPT}.weight"], after[f"{KEPT}.weight"])
    assert torch.equal(before[f"{KEPT}.bias"], after[f"{KEPT}.bias"])
    assert (after[f"{name}.weight"][mask] == 0).all()
    assert not torch.equal(before[f"{name}.weight"], after[f"{name}.weight"])


def test_parts_are_asked_in_turn_and_their_losses_added() -> None:
    calls: list[str] = []

    class Counting(Part):
        def begin(self, run: Any) -> None:
            calls.append("begin")

        def before(self, run: Any) -> None:
            calls.append("before")

        def loss(self, run: Any, batch: Any, output: Any) -> Any:
            calls.append("loss")
            assert batch.inputs["input_ids"].shape[0] == len(batch.rows) == len(batch.targets)
            return output.logits.pow(2).mean()

        def after(self, run: Any) -> None:
            calls.append("after")

        def end(self, run: Any) -> None:
            calls.append("end")

    train(draft(), [Counting()], Pace(steps=2, minutes=5, batch=4))
    assert calls == ["begin", *["before", "loss", "after"] * 2, "end"]


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.checkpoint.KEEP_EVERY", 0.0)
    whole = draft()
    train(whole, [], SHORT)

    class Cut(Part):
        def before(self, run: Any) -> None:
            if run.step == 4:
                raise KeyboardInterrupt

    cut = draft()
    cut.work = Work(tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        train(cut, [Cut()], SHORT)
    again = draft()
    again.work = Work(tmp_path / "work")
    seen: list[int] = []

    class Watch(Part):
        def before(self, run: Any) -> None:
            seen.append(run.step)

    train(again, [Watch()], SHORT)
    assert seen == [4, 5]
    assert same(weights(whole.module), weights(again.module))
    assert not (tmp_path / "work" / "training").exists()


def test_a_run_with_another_pace_starts_anew(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.checkpoint.KEEP_EVERY", 0.0)

    class Cut(Part):
        def before(self, run: Any) -> None:
            if run.step == 2:
                raise KeyboardInterrupt

    cut = draft()
    cut.work = Work(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(cut, [Cut()], SHORT)
    other = draft()
    other.work = Work(tmp_path)
    seen: list[int] = []

    class Watch(Part):
        def before(self, run: Any) -> None:
            seen.append(run.step)

    train(other, [Watch()], Pace(steps=3, minutes=5, batch=4))
    assert seen == [0, 1, 2]


def test_accumulated_batches_make_one_step() -> None:
    class Count(Part):
        losses = 0

        def loss(self, run: Any, batch: Any, output: Any) -> Any:
            self.losses += 1
            return output.logits.pow(2).mean()

    part = Count()
    one = draft()
    train(one, [part], Pace(steps=2, minutes=5, batch=4, accumulate=3))
    assert part.losses == 6
    assert "2 steps" in one.notes[-1]


def test_minutes_end_a_run() -> None:
    one = draft()
    train(one, [], Pace(steps=0, minutes=0.02, batch=4))
    assert "trained for" in one.notes[-1]


def test_a_budget_too_small_for_one_step_is_refused() -> None:
    with pytest.raises(Refused, match="too small: one step takes"):
        train(draft(), [], Pace(minutes=1e-9, batch=4))


def test_progress_is_told() -> None:
    told: list[tuple[float, str]] = []
    one = draft()
    one.work = Work(None, lambda share, what: told.append((share, what)))
    train(one, [], SHORT)
    assert told
    assert "loss" in told[0][1]
    assert "min left" in told[0][1]


def test_a_loss_that_is_no_number_is_refused() -> None:
    class Broken(Part):
        def loss(self, run: Any, batch: Any, output: Any) -> Any:
            return output.logits.mean() * float("nan")

    with pytest.raises(Refused, match="nan at step 1"):
        train(draft(), [Broken()], SHORT)


def test_labels_are_asked_for_where_nothing_else_gives_a_loss() -> None:
    class Unlabelled(Examples):
        def training(self) -> Any:
            examples, targets = super().training()
            return examples, np.full_like(targets, -1)

    one = draft()
    one.data = Unlabelled(20)
    with pytest.raises(DataError, match="no labels"):
        train(one, [], SHORT)


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"minutes": 0}, {"batch": 0}, {"accumulate": 0}, {"learning_rate": 0}]
)
def test_an_impossible_pace_is_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match="cannot be carried out"):
        Pace(**wrong)


def test_every_epoch_shows_every_example_once_and_like_lengths_together() -> None:
    lengths = [3 + i % 40 for i in range(500)]
    given = batches(lengths, 10, seed=3)
    for _ in range(2):
        epoch = [next(given) for _ in range(50)]
        assert sorted(row for rows in epoch for row in rows) == list(range(500))
        spread = [max(lengths[r] for r in rows) - min(lengths[r] for r in rows) for rows in epoch]
        assert np.mean(spread) < 3
