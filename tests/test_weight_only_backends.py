"""Weight-only layers on every runtime: the same integers, the same answers, and a smaller file."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_lm import tiny_llama
from tiny_models import Examples, as_draft, tiny_module

from workbench.backends.base import collate
from workbench.draft import Draft, Grid
from workbench.errors import Refused
from workbench.modules import PackedLinear, ScaledLinear, packed
from workbench.registry import find
from workbench.techniques._weight_only import round_to_nearest
from workbench.techniques.weight_awq import WeightAwq
from workbench.techniques.weight_hqq import WeightHqq
from workbench.techniques.weight_rtn import WeightRtn

SIZES = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 172, "initializer_range": 0.3}
RUNTIMES = ("eager", "onnxruntime", "openvino")
#: 172 inputs are no multiple of a group; AWQ puts scaled layers there, HQQ fractions for zero points.
KINDS = {
    "int4": WeightRtn(bits=4, group_size=32),
    "int4-symmetric": WeightRtn(bits=4, group_size=64, symmetric=True),
    "int4-row": WeightRtn(bits=4, group_size=0),
    "int4-awq": WeightAwq(bits=4, group_size=32),
    "int4-hqq": WeightHqq(bits=4, group_size=32),
    "int8": WeightRtn(bits=8, group_size=128),
    "int8-row-symmetric": WeightRtn(bits=8, group_size=0, symmetric=True),
}


def drafted(shape: str, technique: Any, keep: tuple[str, ...] = ()) -> Draft:
    module = tiny_llama(**SIZES) if shape == "llama" else tiny_module("bert", **SIZES)
    draft = as_draft(module, keep=keep, examples=8)
    return technique.apply(draft)


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
    backend = find("backends", name).make(threads=1, sequence=16)
    backend.lower(draft, folder)
    return backend.load(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_every_runtime_answers_as_the_decoded_module_does(kind, tmp_path):
    draft, batch = drafted("llama", KINDS[kind]), batch_of()
    if kind == "int4-awq":
        assert any(isinstance(child, ScaledLinear) for child in draft.module.modules())
    wanted = decoded(draft, batch)
    for name in RUNTIMES:
        runner = lowered(name, draft, tmp_path / name)
        given = runner(batch)
        mask = batch["attention_mask"].astype(bool)
        np.testing.assert_allclose(given[mask], wanted[mask], atol=2e-5 * np.ptp(wanted), err_msg=name)
        effect = runner.effect()
        assert {effect.layers[layer] for layer in draft.grids} == {f"{kind[:4]}_weight"}, name
        assert effect.layers["lm_head"] == "fp32"
        assert sum(effect.precision.values()) == pytest.approx(1)
        runner.close()


@pytest.mark.parametrize("bits", [4, 8])
def test_encoders_run_and_their_files_shrink(bits, tmp_path):
    draft = drafted("bert", WeightRtn(bits=bits, group_size=32), keep=("classifier",))
    plain = as_draft(tiny_module("bert", **SIZES))
    batch = batch_of()
    wanted = decoded(draft, batch)
    saved = sum(4 * g.codes.numel() - g.codes.numel() * bits / 8 - 5 * g.scales.numel() for g in draft.grids.values())
    for name in RUNTIMES:
        runner = lowered(name, draft, tmp_path / name)
        lowered(name, plain, tmp_path / f"{name}-plain").close()
        np.testing.assert_allclose(runner(batch), wanted, atol=2e-5 * np.ptp(wanted), err_msg=name)
        assert runner.effect().layers["classifier"] == "fp32"
        file = {"eager": "model.safetensors", "onnxruntime": "model.onnx", "openvino": "model.bin"}[name]
        sizes = [(tmp_path / folder / file).stat().st_size for folder in (f"{name}-plain", name)]
        # Padded rows and names of new tensors take a little.
        assert sizes[0] - sizes[1] > 0.9 * saved, name
        runner.close()


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


def with_grid(grid: Grid, name: str = "bert.pooler.dense") -> Draft:
    draft = drafted("bert", WeightRtn(bits=grid.bits), keep=("bert.encoder.*", "classifier"))
    assert set(draft.grids) == {name}
    draft.grids[name] = grid
    return draft


def test_onnxruntime_refuses_what_its_operator_cannot_hold(tmp_path):
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    odd = with_grid(round_to_nearest(weight, 4, 24, False))
    with pytest.raises(Refused, match="groups of 24"):
        lowered("onnxruntime", odd, tmp_path / "odd")
    grid = round_to_nearest(weight, 8, 32, False)
    fractions = with_grid(Grid(8, 32, grid.codes, grid.scales, grid.zeros + 0.25))
    with pytest.raises(Refused, match="fractions"):
        lowered("onnxruntime", fractions, tmp_path / "fractions")
    batch = batch_of()
    for draft in (odd, fractions):
        wanted = decoded(draft, batch)
        for name in ("eager", "openvino"):
            given = lowered(name, draft, tmp_path / f"{name} {id(draft)}")(batch)
            np.testing.assert_allclose(given, wanted, atol=2e-5 * np.ptp(wanted), err_msg=name)
