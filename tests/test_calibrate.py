"""Calibrators against the papers' formulas in plain NumPy, and what static_int8 makes of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import as_draft, logits, onnx_draft, tiny_draft, tiny_module

from workbench import int8
from workbench.errors import DataError, Refused
from workbench.measure.layers import quantizable
from workbench.techniques import _calibrate, _int8
from workbench.techniques._calibrate import METHODS, entropy_range, mse_range, one_range, percentile_range
from workbench.techniques.static_int8 import StaticInt8

RNG = np.random.default_rng(0)
#: Heavy tails on the right, as activations have them.
VALUES = np.concatenate([RNG.normal(size=200_000), RNG.normal(6, 3, size=200), [40.0]])


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    limit = np.abs(values).max()
    counts, edges = np.histogram(values, bins=_calibrate.BINS, range=(-limit, limit))
    return counts.astype(float), edges


def one(method: str, values: np.ndarray, **knobs: Any) -> tuple[float, float]:
    return one_range(method, values.min(keepdims=True), values.max(keepdims=True), histogram(values)[0], **knobs)


@pytest.mark.parametrize("percentile", [95.0, 99.9, 99.99, 100.0])
def test_percentile_holds_the_share_of_the_values(percentile: float) -> None:
    counts, edges = histogram(VALUES)
    outside = (100 - percentile) / 2
    wanted = np.percentile(VALUES, [outside, 100 - outside])
    np.testing.assert_allclose(percentile_range(counts, edges, percentile), wanted, atol=2 * (edges[1] - edges[0]))


def test_moving_average_follows_the_formula() -> None:
    lows, highs = np.array([-1.0, -3.0, -2.0]), np.array([1.0, 5.0, 0.0])
    low = 0.99 * (0.99 * -1.0 + 0.01 * -3.0) + 0.01 * -2.0
    high = 0.99 * (0.99 * 1.0 + 0.01 * 5.0) + 0.01 * 0.0
    assert one_range("moving_average", lows, highs, np.zeros(1)) == pytest.approx((low, high))
    assert one_range("minmax", lows, highs, np.zeros(1)) == (-3.0, 5.0)


def slow_entropy(counts: np.ndarray, edges: np.ndarray, levels: int) -> tuple[float, float]:
    """Migacz's pseudo-code, slide 28 and on, written out bin by bin, both sides of zero."""
    middle, best = len(counts) // 2, (np.inf, 0)
    for half in range(levels // 2, middle + 1):
        start, end = middle - half, middle + half + 1
        p = counts[start:end].copy()
        p[0] += counts[:start].sum()
        p[-1] += counts[end:].sum()
        inside, q, step = counts[start:end], np.zeros(end - start), (end - start) // levels
        for level in range(levels):
            last = level == levels - 1
            places = range(level * step, len(p) if last else (level + 1) * step)
            filled = [i for i in places if p[i] > 0]
            for i in filled:
                q[i] = sum(inside[j] for j in places) / len(filled)
        if not q.any():
            continue
        p, q = p / p.sum(), np.maximum(q / q.sum(), 1e-4 / len(q))
        divergence = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
        best = min(best, (divergence, end))
    return -edges[best[1]], edges[best[1]]


def test_entropy_is_that_of_the_pseudo_code() -> None:
    values = np.concatenate([RNG.normal(size=5000), [9.0, -12.0]])
    counts, edges = np.histogram(values, bins=201, range=(-12, 12))
    found = entropy_range(counts.astype(float), edges, levels=16)
    assert found == pytest.approx(slow_entropy(counts.astype(float), edges, 16))
    assert found[1] < 8, "what is rare and far out is cut off"


@pytest.mark.parametrize("shape", ["normal", "laplace"])
def test_entropy_is_near_that_of_onnxruntime(shape: str) -> None:
    """It treats empty bins otherwise, so the thresholds are not the same."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = getattr(np.random.default_rng(0), shape)(size=400_000)
    limit = np.abs(values).max()
    counts, edges = np.histogram(values, bins=2049, range=(-limit, limit))
    collector = HistogramCollector("entropy", False, 2049, 128, 99.99, "same")
    ends = np.float32(values.min()), np.float32(values.max())
    theirs = collector.get_entropy_threshold((counts, edges.astype(np.float32), *ends), 128)
    assert entropy_range(counts.astype(float), edges)[1] == pytest.approx(float(theirs[1]), rel=0.1)


def test_mse_is_about_the_best_pair_of_ends() -> None:
    counts, edges = histogram(VALUES)
    seen = VALUES.min(), VALUES.max()
    found = mse_range(counts, edges, seen)

    def loss(limits: tuple[float, float]) -> float:
        scale = (limits[1] - limits[0]) / 255
        zero = np.round(-limits[0] / scale)
        codes = np.clip(np.round(VALUES / scale) + zero, 0, 255)
        return float((((codes - zero) * scale - VALUES) ** 2).mean())

    ends = [(a * seen[0], b * seen[1]) for a in np.linspace(0.1, 1, 19) for b in np.linspace(0.05, 1, 20)]
    assert loss(found) <= 1.05 * min(map(loss, ends))
    assert loss(found) < 0.8 * loss(seen)


@pytest.mark.parametrize("method", METHODS)
def test_no_range_is_wider_than_what_was_seen(method: str) -> None:
    for values in (VALUES, np.abs(VALUES), -np.abs(VALUES), RNG.normal(3, 0.1, size=5000)):
        low, high = one(method, values)
        assert values.min() <= low <= high <= values.max()


# -- on a module ---------------------------------------------------------------------------------------------------


def inputs_of(module: Any, name: str, draft: Any) -> np.ndarray:
    """What a layer takes in, one example after the other, at its own length."""
    seen = []
    handle = module.get_submodule(name).register_forward_pre_hook(lambda part, args: seen.append(args[0].flatten()))
    with torch.no_grad():
        for example in draft.data.calibration(10):
            module(**{key: torch.tensor([tokens]) for key, tokens in example.items()})
    handle.remove()
    return torch.cat(seen).numpy()


def test_ranges_are_those_of_unpadded_examples() -> None:
    draft = tiny_draft(examples=10)
    StaticInt8(calibration="minmax", samples=10).apply(draft)
    for name, precision in draft.plan.layers.items():
        values = inputs_of(draft.module, name, draft)
        wanted = int8.on_grid((float(values.min()), float(values.max())))
        assert precision.input_range == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_layers_that_share_an_input_share_the_range() -> None:
    draft = StaticInt8(calibration="mse", samples=4).apply(tiny_draft())
    groups = _int8.sharing(draft.module, list(draft.plan.layers), _int8.chunks(draft, 4)[0])
    block = "bert.encoder.layer.0.attention.self."
    assert [f"{block}{name}" for name in ("query", "key", "value")] in groups
    assert sorted(map(len, groups)) == [1] * 20 + [3] * 6
    for group in groups:
        assert len({draft.plan.layers[name].input_range for name in group}) == 1


@pytest.mark.parametrize("method", METHODS)
def test_every_calibration_gives_every_layer_a_range_with_a_zero(method: str) -> None:
    draft = StaticInt8(calibration=method, samples=4, symmetric=method == "minmax").apply(tiny_draft())
    assert set(draft.plan.layers) == set(quantizable(draft.module))
    for precision in draft.plan.layers.values():
        assert precision.calibration == method
        assert precision.input_range is not None
        scale, zero = int8.scale_zero(precision.input_range)
        assert precision.input_range == pytest.approx((-zero * scale, (255 - zero) * scale))
        assert not precision.symmetric or zero == 128


def test_the_runtimes_own_calibration_leaves_ranges_open() -> None:
    draft = StaticInt8(samples=4).apply(tiny_draft())
    assert {p.input_range for p in draft.plan.layers.values()} == {None}


def test_the_percentile_has_no_say_elsewhere_and_changes_no_recipe() -> None:
    assert StaticInt8(calibration="minmax", percentile=95.0) == StaticInt8(calibration="minmax")
    assert StaticInt8(calibration="percentile", percentile=95.0) != StaticInt8(calibration="percentile")
    assert json.dumps(StaticInt8(percentile=95.0).to_json()) == json.dumps(StaticInt8().to_json())


def test_bias_correction_takes_the_mean_error_away() -> None:
    plain, fixed = tiny_draft(examples=8), tiny_draft(examples=8)
    StaticInt8(calibration="minmax", samples=8).apply(plain)
    StaticInt8(calibration="minmax", samples=8, bias_correction=True).apply(fixed)
    name = "bert.encoder.layer.2.intermediate.dense"
    layer = plain.module.get_submodule(name)
    values = inputs_of(plain.module, name, plain).reshape(-1, 16)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    scales = np.abs(weight).max(axis=1, keepdims=True) / 127
    low, high = plain.plan.layers[name].input_range
    step = (high - low) / 255
    given = np.clip(np.round(values / step), round(low / step), round(high / step)) * step
    gap = (given @ (np.round(weight / scales) * scales).T - values @ weight.T).mean(axis=0)
    changed = fixed.module.get_submodule(name).bias.detach().numpy()
    assert np.abs(gap).max() > 1e-6
    np.testing.assert_allclose(changed, bias - gap, atol=1e-6)
    assert "biases of 38 of 38" in fixed.notes[-1]


def test_bias_correction_leaves_kept_layers_alone() -> None:
    draft = tiny_draft(keep=("classifier",))
    before = draft.module.classifier.bias.clone()
    StaticInt8(calibration="minmax", samples=4, bias_correction=True).apply(draft)
    assert torch.equal(draft.module.classifier.bias, before)


def test_bias_correction_without_our_ranges_is_refused() -> None:
    with pytest.raises(Refused, match="bias_correction needs ranges"):
        StaticInt8(bias_correction=True, samples=4).apply(tiny_draft())


def test_an_onnx_file_is_calibrated_by_its_runtime_only() -> None:
    reason = StaticInt8(calibration="mse").fits(onnx_draft().facts)
    assert reason is not None
    assert "'runtime'" in reason
    assert StaticInt8().fits(onnx_draft().facts) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_name_the_layer(bad: float) -> None:
    draft = tiny_draft()
    with torch.no_grad():
        draft.module.bert.encoder.layer[1].output.LayerNorm.bias[3] = bad
    with pytest.raises(DataError, match=r"bert\.encoder\.layer\.2\.attention\.self\.query is not finite"):
        StaticInt8(calibration="minmax", samples=4).apply(draft)


def test_fewer_examples_than_asked_is_passed_on() -> None:
    class Few:
        def calibration(self, samples: int) -> list[Any]:
            if samples > 2:
                raise DataError(f"{samples} calibration examples were asked for, and the training data has 2.")
            return tiny_draft().data.calibration(samples)

    draft = tiny_draft()
    draft.data = Few()
    with pytest.raises(DataError, match="5 calibration examples were asked for"):
        StaticInt8(calibration="minmax", samples=5).apply(draft)


def test_a_layer_that_is_never_reached_is_refused() -> None:
    module = tiny_module("bert")
    module.unused = torch.nn.Linear(4, 4)
    with pytest.raises(Refused, match="unused takes no part"):
        StaticInt8(calibration="minmax", samples=4).apply(as_draft(module))
    StaticInt8(calibration="minmax", samples=4).apply(as_draft(module, keep=("unused",)))


def test_watching_leaves_the_module_as_it_was() -> None:
    draft = tiny_draft()
    before = logits(draft.module)
    StaticInt8(calibration="entropy", samples=4).apply(draft)
    assert torch.equal(logits(draft.module), before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in draft.module.modules())
