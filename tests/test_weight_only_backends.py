"""Weight-only layers on every runtime: the same integers, the same answers, and a smaller file."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_lm import tiny_llama
from tiny_models import Examples, as_draft, tiny_module

from workbench.backends import _nbits
from workbench.backends.base import collate
from workbench.draft import Draft, Grid, Precision
from workbench.errors import Refused
from workbench.loading.structure import replace
from workbench.measure.accuracy import drop
from workbench.modules import PackedLinear, ScaledLinear, packed
from workbench.recipe import Recipe
from workbench.registry import find
from workbench.tasks.base import make_task
from workbench.techniques._weight_only import round_to_nearest
from workbench.techniques.bf16 import Bf16
from workbench.techniques.weight_awq import WeightAwq
from workbench.techniques.weight_gptq import WeightGptq
from workbench.techniques.weight_hqq import hqq
from workbench.techniques.weight_rtn import WeightRtn

SIZES = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 172, "initializer_range": 0.3}
RUNTIMES = ("eager", "onnxruntime", "openvino")
#: One kind of grid for each layer of a block, so that one lowering shows them all: bits, group, symmetric. The last
#: layer has 172 inputs, which is no multiple of a group.
KINDS = {
    "self_attn.q_proj": (4, 32, False),
    "self_attn.k_proj": (4, 64, True),
    "self_attn.v_proj": (4, 0, False),
    "self_attn.o_proj": (8, 32, False),
    "mlp.gate_proj": (8, 0, True),
    "mlp.up_proj": (4, 32, False),
    "mlp.down_proj": (4, 32, False),
}
FRACTIONS, SCALED = "mlp.up_proj", ("self_attn.q_proj", "self_attn.o_proj")


def drafted(shape: str, technique: Any, keep: tuple[str, ...] = ()) -> Draft:
    module = tiny_llama(**SIZES) if shape == "llama" else tiny_module("bert", **SIZES)
    return technique.apply(as_draft(module, keep=keep, examples=8))


def mixed() -> Draft:
    """A language model with another kind of grid in each layer, two of them with a scaled input."""
    draft = as_draft(tiny_llama(**SIZES), examples=8)
    for last, (bits, group, symmetric) in KINDS.items():
        name = f"model.layers.0.{last}"
        child = draft.module.get_submodule(name)
        if last in SCALED:
            scaled = ScaledLinear(64, child.out_features, bias=False)
            with torch.no_grad():
                scaled.input_scale.copy_(torch.linspace(0.5, 2, 64))
                scaled.weight.copy_(child.weight / scaled.input_scale)
            replace(draft.module, name, scaled.eval())
            child = scaled
        grid = (hqq if last == FRACTIONS else round_to_nearest)(child.weight.detach(), bits, group, symmetric)
        draft.grids[name] = grid
        draft.plan.layers[name] = Precision(f"int{bits}_weight", group=group)
        assert grid.whole == (last != FRACTIONS)
    return draft


def decoded(draft: Draft, batch: dict[str, np.ndarray]) -> np.ndarray:
    """The answer of the module with every grid's weight in place, in FP32."""
    module = copy.deepcopy(draft.module)
    with torch.no_grad():
        for name, grid in draft.grids.items():
            module.get_submodule(name).weight.copy_(grid.weight())
        return module(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()


def batch_of() -> dict[str, np.ndarray]:
    return collate(Examples(8).calibration(3), 6, {})


def lowered(name: str, draft: Draft, folder: Path) -> Any:
    return lowered_at(find("backends", name).make(threads=1, sequence=16), draft, folder)


def lowered_at(backend: Any, draft: Draft, folder: Path) -> Any:
    backend.lower(draft, folder)
    return backend.load(folder)


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_answers_as_the_decoded_module_does(name, tmp_path):
    draft, batch = mixed(), batch_of()
    wanted = decoded(draft, batch)
    runner = lowered(name, draft, tmp_path)
    given, mask = runner(batch), batch["attention_mask"].astype(bool)
    np.testing.assert_allclose(given[mask], wanted[mask], atol=2e-5 * np.ptp(wanted))
    effect = runner.effect()
    assert {layer: effect.layers[layer] for layer in draft.grids} == {
        layer: one.kind for layer, one in draft.plan.layers.items()
    }
    assert effect.layers["lm_head"] == "fp32"
    assert sum(effect.precision.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", RUNTIMES)
def test_encoders_run_and_their_files_shrink(name, tmp_path):
    draft = drafted("bert", WeightRtn(bits=4, group_size=32), keep=("classifier",))
    batch = batch_of()
    wanted = decoded(draft, batch)
    runner = lowered(name, draft, tmp_path)
    np.testing.assert_allclose(runner(batch), wanted, atol=2e-5 * np.ptp(wanted))
    assert runner.effect().layers["classifier"] == "fp32"
    file = {"eager": "model.safetensors", "onnxruntime": "model.onnx", "openvino": "model.bin"}[name]
    whole = 4 * sum(p.numel() for p in draft.module.parameters())
    codes = sum(grid.codes.numel() for grid in draft.grids.values())
    groups = sum(grid.scales.numel() for grid in draft.grids.values())
    # An ONNX file holds its graph as well; rows are filled up, and names take a little.
    room = {"eager": 12_000, "onnxruntime": 80_000, "openvino": 12_000}[name]
    assert (tmp_path / file).stat().st_size < whole - 3.5 * codes + 5 * groups + room
    assert whole - 3.5 * codes + 5 * groups + room < 0.8 * whole


def test_inductor_decodes_at_every_call(tmp_path):
    # Two layers only: each one is a kernel of its own to compile.
    draft = drafted("bert", WeightAwq(bits=4, group_size=32), keep=("*.attention.*", "*.pooler.*"))
    assert len(draft.grids) == 3
    batch = batch_of()
    runner = lowered("compiled", draft, tmp_path)
    wanted = decoded(draft, batch)
    np.testing.assert_allclose(runner(batch), wanted, atol=2e-5 * np.ptp(wanted))
    effect = runner.effect()
    assert {name for name, kind in effect.layers.items() if kind == "int4_weight"} == set(draft.grids)
    settings = json.loads((tmp_path / "lowered.json").read_text())
    kept = next(name for name, kind in settings["layers"].items() if kind == "fp32")
    settings["layers"][kept] = "int8_weight"
    (tmp_path / "lowered.json").write_text(json.dumps(settings))
    with pytest.raises(Refused, match="for good"):
        find("backends", "compiled").make(threads=1, sequence=16).load(tmp_path).effect()


def test_a_packed_layer_decodes_to_its_grid():
    weight = torch.randn(10, 37, generator=torch.Generator().manual_seed(0))
    child = torch.nn.Linear(37, 10)
    for bits in (4, 8):
        for group in (0, 32):
            for symmetric in (False, True):
                grid = round_to_nearest(weight, bits, group, symmetric)
                layer, shape = packed(child, grid)
                torch.testing.assert_close(layer.weight(), grid.weight())
                again = PackedLinear(**shape)
                again.load_state_dict(layer.state_dict())
                x = torch.randn(2, 37)
                torch.testing.assert_close(again(x), torch.nn.functional.linear(x, grid.weight(), child.bias))
                assert layer.codes.numel() == 10 * (37 if bits == 8 else 19)


def test_an_exported_folder_decodes_as_well(tmp_path):
    from workbench.standalone import __file__ as standalone

    draft, batch = drafted("bert", WeightAwq(bits=4, group_size=32)), batch_of()
    runner = lowered("eager", draft, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "lowered.json").read_text())
    np.savez(tmp_path / "batch.npz", **batch)
    model = {key: settings.get(key) for key in ("base", "int8", "packed")}
    (tmp_path / "model.json").write_text(json.dumps(model))
    code = f"""
import sys, json, numpy as np, importlib.util
from pathlib import Path
sys.modules['workbench'] = None
spec = importlib.util.spec_from_file_location('loader', {str(Path(standalone).parent / "eager.py")!r})
loader = importlib.util.module_from_spec(spec); spec.loader.exec_module(loader)
call = loader.load(Path({str(tmp_path / "model")!r}), json.load(open({str(tmp_path / "model.json")!r})), 1)
np.save({str(tmp_path / "out.npy")!r}, call(dict(np.load({str(tmp_path / "batch.npz")!r}))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), runner(batch), atol=1e-6)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eager", "compiled", "onnxruntime", "openvino"])
def test_a_plan_without_integers_is_refused(name, tmp_path):
    draft = drafted("bert", WeightRtn())
    draft.grids.popitem()
    with pytest.raises(Refused, match="without any"):
        find("backends", name).make(threads=1, sequence=16).lower(draft, tmp_path)


def test_onnxruntime_refuses_what_its_operator_cannot_hold():
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(Refused, match="groups of 24"):
        _nbits.packed(round_to_nearest(weight, 4, 24, False), "layer")
    grid = round_to_nearest(weight, 8, 32, False)
    with pytest.raises(Refused, match="fractions"):
        _nbits.packed(Grid(8, 32, grid.codes, grid.scales, grid.zeros + 0.25), "layer")


# -- real models -------------------------------------------------------------------------------------------------------


def real() -> Path:
    assets = os.environ.get("WORKBENCH_ASSETS")
    if not assets:
        pytest.skip("WORKBENCH_ASSETS is not set")
    return Path(assets)


@pytest.mark.slow
def test_gptq_is_no_worse_than_rounding_on_stories260k(tmp_path):
    real()
    from benchmarks.weight_only import answers, stories

    task, backend = stories(tmp_path)["TinyStories"], find("backends", "eager")(threads=1, sequence=512)
    found = {}
    for technique in (WeightRtn(bits=4), WeightGptq(bits=4, samples=60)):
        draft = technique.apply(task.draft())
        found[technique.name] = answers(lowered_at(backend, draft, tmp_path / technique.name), backend, task)
    assert drop(found["weight_rtn"], found["weight_gptq"], "perplexity").value <= 0


@pytest.mark.slow
def test_an_encoder_keeps_its_accuracy_at_8_bits_and_most_of_it_at_4(tmp_path):
    root = real()
    task = make_task(root / "models" / "minilm-l6-sst2", root / "data" / "sst2", text="sentence")
    backend = find("backends", "eager")(threads=1, batch=32)
    for technique, least in ((WeightRtn(bits=8), 781), (WeightGptq(bits=4, group_size=32, samples=60), 770)):
        draft = technique.apply(task.draft())
        runner = lowered_at(backend, draft, tmp_path / technique.name)
        batches = backend.batches(task.encoded("select"), task.pad())
        assert task.outcomes("select", ((batch, runner(batch)) for batch in batches)).correct >= least


# Integer weights in a model whose float is BF16


@pytest.mark.parametrize("name", ["eager", "openvino", pytest.param("compiled", marks=pytest.mark.slow)])
@pytest.mark.parametrize("bits", [4, 8])
def test_integer_weights_and_bf16_go_together(name, bits, tmp_path):
    draft = Bf16().apply(drafted("bert", WeightRtn(bits=bits, group_size=32), keep=("classifier",)))
    batch = batch_of()
    wanted = decoded(draft, batch)
    runner = lowered(name, draft, tmp_path)
    effect = runner.effect()
    assert effect.layers == dict.fromkeys(draft.grids, f"int{bits}_weight") | {"classifier": "bf16"}
    given = runner(batch)
    assert np.abs(given - wanted).max() <= 0.1 * np.ptp(wanted)
    assert not np.allclose(given, wanted, atol=1e-6), "BF16 has three digits"


def test_onnxruntime_refuses_integer_weights_in_bf16():
    recipe = Recipe(WeightRtn(), Bf16(), backend=find("backends", "onnxruntime")())
    reason = recipe.refusal(as_draft(tiny_module("bert")).facts)
    assert reason is not None
    assert "BF16" in reason
