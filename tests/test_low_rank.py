"""Low rank: factors against the reduced-rank regression, ranks against brute force, and the runtimes that run them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SHAPES, as_draft, logits, tiny_draft, tiny_module

from workbench import prefix
from workbench.draft import Precision
from workbench.errors import DataError, Refused
from workbench.loading.structure import save_module
from workbench.measure.layers import layers, parameters, quantizable
from workbench.modules import Factored
from workbench.registry import find
from workbench.techniques.low_rank import Inputs, Layer, LowRank, divisible, factors, search, seen, uniform

random = np.random.default_rng(0)
LAYER = "bert.encoder.layer.1.intermediate.dense"
#: Seconds each: they lower what the others have shown already.
SLOW = (
    ("compiled", "fp32"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8_dynamic"),
    ("openvino", "fp32"),
    ("openvino", "int8_dynamic"),
)
WIDE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "initializer_range": 0.3}


def inputs_of(x: np.ndarray) -> Inputs:
    return Inputs(torch.from_numpy(x.mean(axis=0)), torch.from_numpy(x.T @ x / len(x)))


def skewed(rows: int, width: int) -> np.ndarray:
    """Inputs whose directions vary very differently, around a mean that is not zero."""
    return random.normal(size=(rows, width)) @ (random.normal(size=(width, width)) * np.logspace(0, -2, width)) + 1.0


# -- the maths -------------------------------------------------------------------------------------------------------


def test_plain_factors_are_the_best_of_their_rank() -> None:
    weight = random.normal(size=(7, 5))
    up, down = factors(torch.from_numpy(weight), 3)
    assert (tuple(up.shape), tuple(down.shape)) == ((7, 3), (3, 5))
    left = np.linalg.svd(weight, compute_uv=False)[3:]
    assert np.linalg.norm(weight - (up @ down).numpy()) == pytest.approx(np.linalg.norm(left))


@pytest.mark.parametrize("centred", [False, True])
def test_factors_for_inputs_are_the_reduced_rank_regression(centred: bool) -> None:
    # Izenman 1975: the best product of rank r for y = W x is P W, P the projection on the first r eigenvectors of
    # W C W^T. Another way to the same optimum than whitening.
    x, weight, rank = skewed(200, 6), random.normal(size=(9, 6)), 2
    used = x - x.mean(axis=0) if centred else x
    _, vectors = np.linalg.eigh(weight @ (used.T @ used) @ weight.T)
    best = vectors[:, -rank:] @ vectors[:, -rank:].T @ weight
    up, down = factors(torch.from_numpy(weight), rank, inputs_of(x).root(centred))
    np.testing.assert_allclose((up @ down).numpy(), best, rtol=1e-5, atol=1e-8)
    plain = np.linalg.multi_dot([*(part.numpy() for part in factors(torch.from_numpy(weight), rank))])
    assert np.linalg.norm(used @ (weight - best).T) < np.linalg.norm(used @ (weight - plain).T)


def test_inputs_that_never_vary_still_give_factors() -> None:
    x = skewed(3, 6)  # Fewer tokens than inputs.
    x[:, 0] = 0
    weight = torch.from_numpy(random.normal(size=(4, 6)))
    up, down = factors(weight, 2, inputs_of(x).root(True))
    used = x - x.mean(axis=0)
    assert np.abs(used @ (weight.numpy() - (up @ down).numpy()).T).max() < 1e-2 * np.abs(used @ weight.numpy().T).max()
    zeros = inputs_of(np.zeros((3, 6)))
    assert all(torch.isfinite(part).all() for part in factors(weight, 2, zeros.root(True)))


def test_what_a_rank_loses_is_what_the_outputs_lose() -> None:
    x, weight = skewed(100, 12), random.normal(size=(10, 12))
    layer = Layer("a", torch.from_numpy(weight), 1200, 1, inputs_of(x))
    used = x - x.mean(axis=0)
    assert layer.ranks == [1, 2, 3, 4, 5, 0]
    for rank in layer.ranks[:-1]:
        up, down = factors(layer.weight, rank, layer.root)
        lost = ((used @ (weight - (up @ down).numpy()).T) ** 2).sum() / ((used @ weight.T) ** 2).sum()
        assert layer.lost(rank) == pytest.approx(lost, rel=1e-3, abs=1e-9)
        assert layer.cost(rank) == pytest.approx(1200 * rank * 22 / 120)
    assert (layer.lost(0), layer.cost(0)) == (0.0, 1200.0)


def some_layers() -> list[Layer]:
    shapes = [(8, 8), (16, 8), (8, 16), (12, 12)]
    return [
        Layer(str(i), torch.from_numpy(random.normal(size=shape) * np.logspace(0, -i, shape[1])), 64 * (1 + i % 2), 1)
        for i, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize("budget", [0.4, 0.6, 0.8, 0.95])
def test_the_search_comes_close_to_brute_force_and_beats_equal_shares(budget: float) -> None:
    some = some_layers()
    limit = budget * sum(one.macs for one in some)

    def lost(ranks: Any) -> float:
        return sum(one.lost(rank) for one, rank in zip(some, ranks, strict=True))

    def cost(ranks: Any) -> float:
        return sum(one.cost(rank) for one, rank in zip(some, ranks, strict=True))

    found, even = search(some, limit), uniform(some, limit)
    assert cost(found) <= limit
    assert cost(even) <= limit
    best = min(lost(ranks) for ranks in itertools.product(*(one.ranks for one in some)) if cost(ranks) <= limit)
    assert lost(found) <= best + 0.06
    assert lost(found) <= lost(even) + 1e-9


def test_the_whole_budget_leaves_all_whole() -> None:
    some = some_layers()
    total = sum(one.macs for one in some)
    assert search(some, total) == uniform(some, total) == [0] * 4
    for choose in (search, uniform):
        with pytest.raises(Refused, match="smallest ranks"):
            choose(some, 0.01 * total)


# -- the technique ---------------------------------------------------------------------------------------------------


def macs_of(module: Any) -> int:
    ones = torch.ones((1, 16), dtype=torch.long)
    return sum(layer.macs for layer in layers(module, {"input_ids": ones, "attention_mask": ones}))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "vit"])
@pytest.mark.parametrize("allot", ["global", "uniform"])
def test_the_budget_is_kept_in_macs(shape: str, allot: str) -> None:
    draft = tiny_draft(shape, examples=20)
    whole = macs_of(draft.module)
    LowRank(budget=0.7, allot=allot, multiple=1).apply(draft)
    assert 0.6 * whole < macs_of(draft.module) <= 0.7 * whole
    assert parameters(draft.module) < draft.facts.parameters


def test_every_product_saves_and_the_others_are_untouched() -> None:
    draft = tiny_draft(examples=20, keep=(LAYER,), **WIDE)
    before = {name: layer.weight.clone() for name, layer in quantizable(draft.module).items()}
    LowRank(budget=0.8, multiple=1).apply(draft)
    found = {name: part for name, part in draft.module.named_modules() if isinstance(part, Factored)}
    assert found
    assert LAYER not in found
    for part in found.values():
        inside, rank, outside, _ = part.shape
        assert rank * (inside + outside) < inside * outside
    for name in set(before) - set(found):
        assert torch.equal(draft.module.get_submodule(name).weight, before[name])
    assert f"{len(found)} of {len(before)} linear layers" in draft.notes[-1]


def test_looking_at_the_inputs_loses_less_than_looking_at_the_weights() -> None:
    def error(method: str) -> float:
        draft = tiny_draft(examples=60, **WIDE)
        tokens = {
            "input_ids": torch.arange(3, 33).reshape(5, 6),
            "attention_mask": torch.ones((5, 6), dtype=torch.long),
        }
        with torch.no_grad():
            wanted = draft.module(**tokens).logits
            LowRank(budget=0.6, method=method, multiple=1).apply(draft)
            return float(((draft.module(**tokens).logits - wanted) ** 2).mean())

    assert error("activation") < 0.5 * error("svd")


def test_the_mean_of_what_is_left_out_goes_into_the_bias() -> None:
    draft = tiny_draft(examples=60, **WIDE)
    layer = draft.module.get_submodule(LAYER)
    inputs = seen(draft, [LAYER], 60)[LAYER]
    wanted = layer.weight.double() @ inputs.mean + layer.bias.double()
    LowRank(budget=0.5, multiple=1, allot="uniform").apply(draft)
    new = draft.module.get_submodule(LAYER)
    assert isinstance(new, Factored)
    given = new.up.weight.double() @ (new.down.weight.double() @ inputs.mean) + new.up.bias.double()
    assert torch.allclose(given, wanted, atol=1e-4)


def test_a_weight_that_something_else_uses_and_a_product_are_left_alone() -> None:
    module = tiny_module("bert", **WIDE)
    module.bert.encoder.layer[0].attention.self.key.weight = module.bert.encoder.layer[0].attention.self.query.weight
    draft = as_draft(module, examples=20)
    tied = {f"bert.encoder.layer.0.attention.self.{part}" for part in ("query", "key")}
    assert set(quantizable(module)) - set(divisible(draft)) == tied
    LowRank(budget=0.7, multiple=1).apply(draft)
    assert not {name for name in divisible(draft) if name.endswith((".up", ".down"))}


def test_bad_input_is_refused() -> None:
    with pytest.raises(Refused, match="smallest ranks"):
        LowRank(budget=0.05, multiple=64).apply(tiny_draft(examples=8))
    with pytest.raises(Refused, match="every one is kept"):
        LowRank().apply(tiny_draft(keep=("*",)))
    with pytest.raises(DataError, match="none"):
        LowRank().apply(tiny_draft(examples=0))
    LowRank(method="svd").apply(tiny_draft(examples=0))
    broken = tiny_draft(examples=8)
    with torch.no_grad():
        broken.module.get_submodule(LAYER).bias[0] = float("nan")
    with pytest.raises(Refused, match=r"bert\.encoder\.layer\.1\.output\.dense.*finite"):
        LowRank().apply(broken)


def test_survives_the_cache_of_prefixes(tmp_path: Path) -> None:
    draft = LowRank(budget=0.7).apply(tiny_draft(examples=20))
    prefix.save(draft, tmp_path / "kept")
    again = prefix.load(tmp_path / "kept", tiny_draft())
    assert torch.equal(logits(draft.module), logits(again.module))
    assert [n for n, m in again.module.named_modules() if isinstance(m, Factored)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("eager", "fp32"),
        ("eager", "int8_dynamic"),
        ("onnxruntime", "int8_static"),
        ("openvino", "int8_static"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW),
    ],
)
def test_runs_on_the_runtimes_with_every_layer_in_the_precision_planned(name: str, kind: str, tmp_path: Path) -> None:
    draft = LowRank(budget=0.7).apply(tiny_draft(examples=20, **WIDE))
    draft.pad = {"input_ids": 0, "attention_mask": 0}
    if kind != "fp32":
        draft.plan.layers.update(dict.fromkeys(draft.quantizable(), Precision(kind, samples=20)))
    backend = find("backends", name).make(threads=1, sequence=16)  # type: ignore[attr-defined]
    backend.lower(draft, tmp_path)
    runner = backend.load(tmp_path)
    effect = runner.effect()
    assert set(effect.layers) == set(draft.quantizable())
    assert any(layer.endswith(".down") for layer in effect.layers)
    assert set(effect.layers.values()) == {kind.split("_")[0]}
    # Examples of the calibration: INT8 has seen their ranges.
    tokens = np.array([draft.data.training()[0][row]["input_ids"] for row in (5, 11, 17)])
    batch = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    with torch.no_grad():
        wanted = draft.module(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()
    given = runner(batch)
    assert np.abs(given - wanted).max() <= (1e-3 if kind == "fp32" else 0.35) * np.ptp(wanted) + 1e-4
    runner.close()


def test_an_exported_folder_builds_the_products_itself(tmp_path: Path) -> None:
    import importlib.util
    import json

    path = Path(__file__).parent.parent / "workbench" / "standalone" / "eager.py"
    spec = importlib.util.spec_from_file_location("standalone_eager", path)
    assert spec is not None
    assert spec.loader is not None
    standalone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(standalone)
    draft = LowRank(budget=0.7).apply(tiny_draft(examples=20))
    save_module(draft.module, None, tmp_path)
    call = standalone.load(tmp_path, {"base": "fp32", "int8": []}, 1)
    tokens = np.arange(3, 19).reshape(2, 8)
    given = call({"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
    np.testing.assert_allclose(given, logits(draft.module).numpy(), atol=1e-6)
    assert json.loads((tmp_path / "structure.json").read_text())["factored"]
