"""Weight-only quantization: the maths of each technique against a reference of its own, and what they plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_lm import tiny_llama
from tiny_models import as_draft, logits, tiny_draft

from workbench.draft import Draft
from workbench.errors import DataError, Refused
from workbench.measure.layers import quantizable
from workbench.modules import ScaledLinear
from workbench.recipe import Recipe
from workbench.registry import find
from workbench.techniques._weight_only import Inputs, WeightOnly, output_error, round_to_nearest, stages
from workbench.techniques.prune import Prune
from workbench.techniques.weight_awq import WeightAwq, column_scale, search
from workbench.techniques.weight_gptq import WeightGptq, gptq
from workbench.techniques.weight_hqq import WeightHqq, hqq, norm_error, optimized_zeros
from workbench.techniques.weight_rtn import WeightRtn

ALL: list[type[WeightOnly]] = [WeightRtn, WeightHqq, WeightGptq, WeightAwq]
every = pytest.mark.parametrize("technique", ALL, ids=[t.name for t in ALL])


def weight(out: int = 12, inside: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(out, inside, generator=torch.Generator().manual_seed(seed))


def correlated(inside: int = 40, rows: int = 200) -> torch.Tensor:
    """Inputs (rows, inside) that depend on each other, some much larger than others."""
    generator = torch.Generator().manual_seed(3)
    mixed = torch.randn(rows, inside, generator=generator) @ torch.randn(inside, inside, generator=generator)
    return (mixed * torch.logspace(-1, 1, inside)[torch.randperm(inside, generator=generator)]).double()


def inputs_of(x: torch.Tensor) -> Inputs:
    return Inputs(x.T @ x / len(x), x.abs().mean(dim=0))


def lm_draft(**changes: Any) -> Draft:
    draft = as_draft(tiny_llama(**changes), examples=12)
    draft.labels = ()
    return draft


# -- rounding to nearest -------------------------------------------------------------------------------------------


def rounded(row: np.ndarray, bits: int, symmetric: bool) -> tuple[np.ndarray, float, float]:
    """One group by the textbook: codes, scale, zero."""
    low, high = min(row.min(), 0.0), max(row.max(), 0.0)
    if symmetric:
        high = max(-low, high)
        low = -high
    scale = (high - low) / (2**bits - 1)
    zero = 2 ** (bits - 1) if symmetric else float(np.rint(np.float32(-low / scale)))
    return np.clip(np.rint(row / scale + zero), 0, 2**bits - 1), scale, zero


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("bits", "group"), [(4, 0), (4, 32), (8, 32), (8, 64)])
def test_rounding_is_that_of_the_textbook(bits, group, symmetric):
    w = weight()
    grid = round_to_nearest(w, bits, group, symmetric)
    size = min(group or 40, 40)
    assert grid.codes.dtype == torch.uint8
    assert grid.group == size
    assert grid.scales.shape == grid.zeros.shape == (12, -(-40 // size))
    for out in range(12):
        for at in range(0, 40, size):
            codes, scale, zero = rounded(w[out, at : at + size].numpy(), bits, symmetric)
            assert grid.codes[out, at : at + size].numpy().tolist() == codes.tolist()
            assert float(grid.scales[out, at // size]) == pytest.approx(scale, rel=1e-6)
            assert float(grid.zeros[out, at // size]) == zero
    assert (grid.weight() - w).abs().max() <= 0.51 * grid.scales.max()
    assert grid.symmetric == symmetric


def test_zeros_stay_zeros_and_empty_groups_are_no_harm():
    w = weight()
    w[:, ::3] = 0
    w[4] = 0
    assert (round_to_nearest(w, 4, 32, False).weight()[w == 0] == 0).all()
    for technique in (round_to_nearest, hqq):
        assert torch.isfinite(technique(w, 4, 32, False).weight()).all()
        assert torch.isfinite(technique(w, 4, 0, True).weight()).all()


def test_masked_weights_stay_zero():
    draft = WeightRtn().apply(Prune(sparsity=0.5).apply(tiny_draft()))
    for name, grid in draft.grids.items():
        assert (grid.weight()[draft.module.get_submodule(name).weight == 0] == 0).all()


# -- HQQ ---------------------------------------------------------------------------------------------------------------


def test_hqq_finds_the_zero_points_of_torchao():
    from torchao.quantization.quant_primitives import _choose_qparams_and_quantize_affine_hqq as theirs

    w = weight(16, 64) ** 3
    # Theirs takes the range without 0; each of these groups has values on both sides.
    _, scale, zero, _ = theirs(w, 4, 32, compute_dtype=torch.float32, device="cpu", raw_output=True)
    groups = w.reshape(16, 2, 32)
    low = groups.amin(-1)
    ours = optimized_zeros(groups, scale, (-low / scale).round(), 4)
    assert torch.isfinite(zero).all()
    np.testing.assert_allclose(ours.numpy(), zero.numpy(), atol=1e-4)


def test_hqq_lessens_its_norm_and_never_adds_to_it():
    w = weight(16, 64) ** 3
    groups = w.reshape(16, 2, 32)
    before, after = round_to_nearest(w, 4, 32, False), hqq(w, 4, 32, False)
    errors = [norm_error(groups, g.scales, g.zeros, 4) for g in (before, after)]
    assert (errors[1] <= errors[0] + 1e-5).all()
    assert errors[1].sum() < errors[0].sum()
    assert not after.whole
    assert hqq(w, 8, 32, False).whole


# -- GPTQ --------------------------------------------------------------------------------------------------------------


def surgeon(
    w: np.ndarray, h: np.ndarray, bits: int, order: np.ndarray, scales: np.ndarray, zeros: np.ndarray, size: int
):
    """Optimal brain surgery, column by column, with the inverse of what is left computed anew: codes and the error."""
    w, left = w.copy(), list(order)
    codes = np.zeros_like(w)
    while left:
        q = left[0]
        inverse = np.linalg.inv(h[np.ix_(left, left)])
        scale, zero = scales[:, q // size], zeros[:, q // size]
        codes[:, q] = np.clip(np.rint(w[:, q] / scale + zero), 0, 2**bits - 1)
        error = (w[:, q] - (codes[:, q] - zero) * scale) / inverse[0, 0]
        w[:, left] -= error[:, None] * inverse[0]
        left = left[1:]
    return codes


@pytest.mark.parametrize(("group", "act_order"), [(0, False), (0, True), (32, True)])
def test_gptq_is_optimal_brain_surgery(group, act_order):
    w, x = weight(inside=160).double(), correlated(160, 400)
    h = (x.T @ x / len(x)).numpy()
    damped = h + 0.01 * h.diagonal().mean() * np.eye(160)
    found = gptq(w, x.T @ x / len(x), 4, group, act_order=act_order)
    order = np.argsort(-damped.diagonal(), kind="stable") if act_order else np.arange(160)
    wanted = surgeon(
        w.numpy(), damped, 4, order, found.scales.double().numpy(), found.zeros.double().numpy(), found.group
    )
    # A weight in the middle between two codes may be rounded either way.
    assert (found.codes.numpy() == wanted).mean() > 0.99


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [0, 32])
def test_gptq_changes_the_output_less_than_rounding_does(bits, group, act_order):
    w, h = weight(), inputs_of(correlated()).hessian
    errors = [
        output_error(grid.weight() - w, h)
        for grid in (round_to_nearest(w, bits, group, False), gptq(w, h, bits, group, act_order=act_order))
    ]
    assert errors[1] < 0.8 * errors[0]


def test_gptq_bears_inputs_that_never_occur():
    x = correlated()
    x[:, 5:9] = 0
    found = gptq(weight(), x.T @ x, 4, 32)
    assert torch.isfinite(found.weight()).all()


def test_gptq_fits_each_layer_to_the_quantized_ones_before_it():
    draft, plain = lm_draft(), lm_draft()
    found = WeightGptq(group_size=32).apply(draft).grids
    first, last = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
    examples = plain.data.calibration(128)
    fresh = {
        names[0]: {n: gptq(plain.module.get_submodule(n).weight.detach(), seen.hessian, 4, 32) for n in names}
        for names, seen in stages(plain.module, list(found), examples)
    }
    alone = {name: grid for part in fresh.values() for name, grid in part.items()}
    assert torch.equal(found[first].codes, alone[first].codes)
    assert not torch.equal(found[last].codes, alone[last].codes)


# -- AWQ ---------------------------------------------------------------------------------------------------------------


def test_awq_searches_the_exponent_with_the_least_error_of_the_output():
    w, x = weight(), correlated()
    scale, grid = search(w, inputs_of(x), 4, 32, False, steps=10)
    errors = {}
    for step in range(11):
        s = x.abs().mean(dim=0).numpy() ** (step / 10)
        s = (s / np.sqrt(s.max() * s.min())).astype(np.float32)
        kept = round_to_nearest(w * torch.from_numpy(s), 4, 32, False).weight().numpy() / s
        errors[step] = float((((kept - w.numpy()) @ x.numpy().T) ** 2).sum())
    best = min(errors, key=errors.__getitem__)
    assert 0 < best < 10
    assert errors[best] < 0.95 * errors[0]
    assert scale is not None
    np.testing.assert_allclose(scale.numpy(), column_scale(x.abs().mean(dim=0), best / 10).numpy(), rtol=1e-5)
    assert torch.equal(grid.codes, round_to_nearest(w * scale, 4, 32, False).codes)


def test_awq_leaves_what_the_module_computes_and_says_how_many_it_scaled():
    draft = tiny_draft(hidden_size=32, num_hidden_layers=2)
    before = logits(draft.module)
    WeightAwq(group_size=32).apply(draft)
    scaled = [n for n, part in draft.module.named_modules() if isinstance(part, ScaledLinear)]
    assert scaled
    assert f"{len(scaled)} of" in draft.notes[0]
    torch.testing.assert_close(logits(draft.module), before, atol=1e-5, rtol=1e-5)
    for name in scaled:
        child = draft.module.get_submodule(name)
        assert (draft.grids[name].weight() - child.weight).abs().max() <= 0.51 * draft.grids[name].scales.max()
    # Once more on what is scaled already: nothing is lost.
    WeightAwq(group_size=32).apply(draft)
    torch.testing.assert_close(logits(draft.module), before, atol=1e-5, rtol=1e-5)


# -- inputs ------------------------------------------------------------------------------------------------------------


def test_layers_that_take_one_tensor_are_one_stage_and_see_what_the_module_gives_them():
    draft = lm_draft()
    names = list(quantizable(draft.module))[:-1]
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for name in names:
        draft.module.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen[name].append(args[0].flatten(0, -2))
        )
    examples = draft.data.calibration(12)
    found = list(stages(draft.module, names, examples))
    for name in names:
        seen[name].clear()
    with torch.no_grad():
        for example in examples:
            draft.module(**{key: torch.tensor([row]) for key, row in example.items()})
    assert [len(stage) for stage, _ in found] == [3, 1, 2, 1] * 2
    for stage, inputs in found:
        for name in stage:
            rows = torch.cat(seen[name]).double()
            torch.testing.assert_close(inputs.hessian, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(inputs.mean_abs, rows.abs().mean(dim=0), rtol=1e-4, atol=1e-6)


def test_nan_activations_are_an_error_that_names_the_layer():
    draft = lm_draft()
    with torch.no_grad():
        draft.module.model.layers[1].input_layernorm.weight[0] = float("nan")
    for technique in (WeightGptq(), WeightAwq()):
        with pytest.raises(DataError, match=r"layers\.1\.self_attn\.q_proj"):
            technique.apply(draft)


# -- the plan ----------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("bits", [4, 8])
def test_every_planned_layer_has_a_grid_in_the_precision_asked_for(technique, bits):
    draft = technique(bits=bits, group_size=32, symmetric=True).apply(tiny_draft(keep=("classifier",)))
    assert set(draft.grids) == set(draft.plan.layers) == set(quantizable(draft.module)) - {"classifier"}
    assert {p.kind for p in draft.plan.layers.values()} == {f"int{bits}_weight"}
    assert {p.group for p in draft.plan.layers.values()} == {32}
    assert all(grid.symmetric and grid.bits == bits for grid in draft.grids.values())
    assert draft.plan.base == "fp32"


@every
def test_a_weight_tied_to_an_embedding_stays_in_float_and_says_so(technique):
    draft = technique().apply(lm_draft())
    assert "lm_head" not in draft.grids
    assert "lm_head" in draft.notes[0]
    assert "lm_head" in technique().apply(lm_draft(tie_word_embeddings=False)).grids


@every
def test_a_smaller_group_is_closer(technique):
    errors = []
    for group in (0, 32):
        draft = technique(group_size=group).apply(lm_draft(hidden_size=64))
        errors.append(
            sum(
                float((grid.weight() - draft.module.get_submodule(name).weight.detach()).square().sum())
                for name, grid in draft.grids.items()
            )
        )
    assert errors[1] < errors[0] or technique is WeightGptq


@every
def test_an_onnx_file_is_refused(technique):
    from workbench.draft import ModelFacts

    assert "checkpoint" in technique().fits(ModelFacts("onnx", has_module=False, layers=("a",)))
    assert "linear" in technique().fits(ModelFacts("Embeddings"))


def test_calibration_is_needed_where_the_inputs_are():
    for technique in (WeightGptq, WeightAwq):
        with pytest.raises(Refused, match="weight_hqq"):
            technique().apply(tiny_draft(examples=0))


def test_a_recipe_holds_one_weight_only_technique():
    from workbench.errors import UserError

    with pytest.raises(UserError, match="exclude"):
        Recipe(WeightRtn(), WeightGptq(), backend=find("backends", "eager")())
