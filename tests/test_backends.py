"""The contract of every registered backend, for each precision it realises, on tiny models with random weights."""

from __future__ import annotations

import pickletools
import subprocess
import sys
import zipfile
from functools import cache
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from tiny_models import as_draft, tiny_module

from workbench.backends import _lowering
from workbench.backends.base import Backend, collate
from workbench.draft import PRECISIONS, Draft, ModelFacts, Plan, Precision
from workbench.errors import ModelError, Refused
from workbench.registry import find, members

SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.3}
DISTIL = {"n_layers": 2, "dim": 32, "hidden_dim": 64, "initializer_range": 0.3}
SHAPES = {"bert": SIZES, "distilbert": DISTIL}
KEEP = ("classifier", "*.layer.0.*")
#: How far logits may lie from the module's, as a share of the spread of its logits.
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1, "int8_dynamic": 0.25, "int8_static": 0.35}
PAIRS = [(name, kind) for name in members("backends") for kind in PRECISIONS if kind in TOLERANCE]
REALISED = [(name, kind) for name, kind in PAIRS if kind in find("backends", name).realises]

FRESH = """
import sys, numpy as np
from pathlib import Path
from workbench.registry import find
runner = find("backends", sys.argv[1]).make(threads=1, sequence=16).load(Path(sys.argv[2]))
batch = dict(np.load(sys.argv[3]))
np.save(sys.argv[4], runner(batch))
"""


class Sentences:
    """Calibration data: random sentences of several lengths."""

    def __init__(self, inputs: tuple[str, ...]) -> None:
        self.inputs = inputs

    def calibration(self, samples: int) -> list[dict[str, list[int]]]:
        rng = np.random.default_rng(0)
        found = []
        for _ in range(samples):
            tokens = rng.integers(3, 39, size=int(rng.integers(4, 16))).tolist()
            plain = {"input_ids": tokens, "attention_mask": [1] * len(tokens), "token_type_ids": [0] * len(tokens)}
            found.append({name: plain[name] for name in self.inputs})
        return found


def drafted(shape: str, kind: str, keep: tuple[str, ...] = KEEP, samples: int = 8) -> Draft:
    draft = as_draft(tiny_module(shape, **SHAPES[shape]), keep=keep)
    if shape == "bert":
        draft.inputs = ("input_ids", "token_type_ids", "attention_mask")
    draft.data = Sentences(draft.inputs)
    draft.pad = dict.fromkeys(draft.inputs, 0)
    return planned(draft, kind, samples)


def planned(draft: Draft, kind: str, samples: int = 8, **settings: object) -> Draft:
    if kind.startswith("int8"):
        precision = Precision(kind, samples=samples, **settings)  # type: ignore[arg-type]
        draft.plan.layers.update(dict.fromkeys(draft.quantizable(), precision))
    else:
        draft.plan.base = kind
    return draft


def batch_of(draft: Draft, rows: int = 4, length: int = 12) -> dict[str, np.ndarray]:
    return collate(draft.data.calibration(rows), length, draft.pad)


def answer(draft: Draft, batch: dict[str, np.ndarray]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return draft.module(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()


@pytest.fixture(scope="session")
def lowered(tmp_path_factory: pytest.TempPathFactory):
    """(backend, draft, folder) of a backend's name, a precision and a shape; each is lowered once."""

    @cache
    def lower(name: str, kind: str, shape: str = "bert") -> tuple[Backend, Draft, Path]:
        backend = find("backends", name).make(threads=1, sequence=16)
        folder = tmp_path_factory.mktemp(f"{name}-{kind}-{shape}")
        draft = drafted(shape, kind)
        backend.lower(draft, folder)
        return backend, draft, folder

    return lower


@pytest.mark.parametrize(("name", "kind"), REALISED)
def test_an_artifact_loads_in_a_fresh_process_and_answers_as_the_module(lowered, name, kind, tmp_path):
    backend, draft, folder = lowered(name, kind)
    batch = batch_of(draft)
    np.savez(tmp_path / "batch.npz", **batch)
    command = [sys.executable, "-c", FRESH, name, str(folder), str(tmp_path / "batch.npz"), str(tmp_path / "out.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "Failed to load" not in done.stderr + done.stdout
    fresh = np.load(tmp_path / "out.npy")
    here = backend.load(folder)(batch)
    assert fresh.dtype == here.dtype == np.float32
    np.testing.assert_allclose(fresh, here, atol=1e-5)
    wanted = answer(draft, batch)
    assert np.abs(fresh - wanted).max() <= TOLERANCE[kind] * np.ptp(wanted)


@pytest.mark.parametrize(("name", "kind"), REALISED)
def test_what_took_effect_is_what_was_planned(lowered, name, kind):
    backend, draft, folder = lowered(name, kind)
    effect = backend.load(folder).effect()
    assert sum(effect.precision.values()) == pytest.approx(1)
    assert set(effect.layers) == set(draft.facts.layers)
    short = kind.split("_")[0]
    kept = {layer for layer in effect.layers if layer in draft.kept}
    assert {effect.layers[layer] for layer in kept} == {short if kind == "bf16" else "fp32"}
    assert {effect.layers[layer] for layer in effect.layers if layer not in kept} == {short}
    assert len(kept) == 7
    assert effect.nodes
    assert min(effect.nodes.values()) > 0
    assert effect.parameters > 5_000


@pytest.mark.parametrize(("name", "kind"), REALISED)
def test_any_batch_and_length_runs(lowered, name, kind):
    backend, draft, folder = lowered(name, kind)
    runner = backend.load(folder)
    for rows, length in ((1, 5), (3, 16), (2, 2)):
        assert runner(batch_of(draft, rows, length)).shape == (rows, 2)
    runner.close()


@pytest.mark.parametrize(("name", "kind"), REALISED)
def test_an_artifact_holds_no_pickle(lowered, name, kind):
    _, _, folder = lowered(name, kind)
    for path in folder.rglob("*"):
        assert not is_pickle(path.read_bytes()), path
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                assert not any(is_pickle(archive.read(member)) for member in archive.namelist()), path


def test_a_pickle_would_be_found():
    import pickle

    assert is_pickle(pickle.dumps({"a": 1}))


def is_pickle(data: bytes) -> bool:
    try:
        return data[:1] == b"\x80" and any(code.name == "STOP" for code, _, _ in pickletools.genops(data))
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["eager", "onnxruntime", "openvino"])
def test_distilbert_lowers_as_well(lowered, name):
    for kind in sorted(find("backends", name).realises & {"int8_dynamic", "int8_static"}):
        backend, draft, folder = lowered(name, kind, "distilbert")
        batch = batch_of(draft)
        wanted = answer(draft, batch)
        assert np.abs(backend.load(folder)(batch) - wanted).max() <= TOLERANCE[kind] * np.ptp(wanted)


@pytest.mark.parametrize("name", members("backends"))
def test_a_module_is_not_changed_by_lowering(lowered, name):
    kind = "int8_static" if "int8_static" in find("backends", name).realises else "int8_dynamic"
    _, draft, _ = lowered(name, kind)
    untouched = drafted("bert", kind).module.state_dict()
    for tensor, value in draft.module.state_dict().items():
        assert (value == untouched[tensor]).all(), tensor


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair not in REALISED])
def test_an_unsupported_precision_is_refused_with_what_to_do(name, kind):
    backend = find("backends", name)()
    reason = backend.refuses(frozenset({kind}), ModelFacts("Bert"))
    assert reason
    assert any(other in reason for other in members("backends") if other != name), reason


@pytest.mark.parametrize("name", members("backends"))
def test_fp16_is_refused_on_a_cpu(name):
    assert find("backends", name)().refuses(frozenset({"fp16"}), ModelFacts("Bert"))


@pytest.mark.parametrize("name", members("backends"))
def test_available_says_how_to_install(name, monkeypatch):
    backend = find("backends", name)
    assert backend.available() is None
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    assert "pip install" in backend.available()


@pytest.mark.parametrize("name", ["eager", "compiled"])
def test_a_missing_gpu_is_refused(name, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "CUDA" in find("backends", name)(device="cuda").refuses(frozenset({"fp32"}), ModelFacts("Bert"))


@pytest.mark.parametrize("name", members("backends"))
def test_importing_a_backend_imports_no_runtime(name):
    heavy = {"torch", "transformers", "onnxruntime", "openvino", "nncf", "onnx", "torchao"}
    code = f"import sys, workbench.backends.{name}; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# A file without its module


@pytest.fixture(scope="session")
def onnx_draft(tmp_path_factory):
    """A draft that starts from an ONNX file, and the draft of the module that the file came from."""
    import onnx

    from workbench.backends._onnx import export, linear_nodes

    source = drafted("bert", "fp32")
    model = export(source, 16)
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{i}"
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx.save(model, path)
    layers = tuple(node.name for node in linear_nodes(model.graph))
    facts = ModelFacts("model", has_module=False, layers=layers)

    def make(kind: str) -> tuple[Draft, Draft]:
        draft = Draft(facts=facts, data=source.data, inputs=source.inputs, pad=source.pad, labels=("a", "b"), onnx=path)
        draft.kept = frozenset(layers[-1:])
        return planned(draft, kind), source

    return make


@pytest.mark.parametrize("kind", ["fp32", "int8_dynamic", "int8_static"])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_onnx_file_is_lowered_as_it_is(onnx_draft, name, kind, tmp_path):
    draft, source = onnx_draft(kind)
    backend = find("backends", name).make(threads=1, sequence=16)
    backend.lower(draft, tmp_path)
    runner = backend.load(tmp_path)
    batch = batch_of(source)
    wanted = answer(source, batch)
    assert np.abs(runner(batch) - wanted).max() <= TOLERANCE[kind] * np.ptp(wanted)
    effect = runner.effect()
    assert sum(effect.precision.values()) == pytest.approx(1)
    assert effect.layers == {
        layer: "fp32" if layer in draft.kept or kind == "fp32" else "int8" for layer in draft.facts.layers
    }


@pytest.mark.parametrize("name", ["eager", "compiled"])
def test_pytorch_refuses_an_onnx_file(onnx_draft, name, tmp_path):
    draft, _ = onnx_draft("fp32")
    assert "ONNX file" in find("backends", name)().refuses(frozenset({"fp32"}), draft.facts)
    with pytest.raises(Refused, match="ONNX file"):
        find("backends", name)().lower(draft, tmp_path)


# Each backend's own ways


@pytest.mark.parametrize("name", ["openvino", "compiled"])
def test_a_fixed_shape_is_filled_up_and_cut(lowered, name, tmp_path):
    _, draft, folder = lowered(name, "fp32")
    dynamic = find("backends", name).make(threads=1, sequence=16).load(folder)
    fixed = find("backends", name).make(threads=1, batch=4, sequence=16, shapes="fixed")
    fixed.lower(draft, tmp_path)
    runner = fixed.load(tmp_path)
    batch = batch_of(draft, rows=3, length=9)
    np.testing.assert_allclose(runner(batch), dynamic(batch), atol=1e-4)
    with pytest.raises(ModelError, match="fixed shape"):
        runner(batch_of(draft, rows=5, length=9))


def test_eager_stores_int8_weights(lowered):
    from safetensors import safe_open

    _, draft, folder = lowered("eager", "int8_dynamic")
    with safe_open(folder / "model.safetensors", "pt") as file:
        kinds = {name: str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118 - not a dict
    quantized = {name.removesuffix(".weight_int8") for name, kind in kinds.items() if kind == "torch.int8"}
    assert quantized == set(draft.plan.layers)
    assert not any(f"{name}.weight" in kinds for name in quantized)


def test_onnxruntime_leaves_kept_weights_in_float(lowered):
    import onnx

    _, draft, folder = lowered("onnxruntime", "int8_dynamic")
    graph = onnx.load(folder / "model.onnx").graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    # The quantizer splits a Gemm into a MatMul and an Add, kept or not.
    named = {node.name.removesuffix("_MatMul"): node for node in graph.node if node.op_type in ("MatMul", "Gemm")}
    found = {name: types[named[name].input[1]] for name in draft.kept}
    assert found == dict.fromkeys(draft.kept, onnx.TensorProto.FLOAT)


def test_openvino_leaves_kept_weights_in_float(lowered):
    import openvino

    _, draft, folder = lowered("openvino", "int8_static")
    model = openvino.Core().read_model(folder / "model.xml")
    types = {}
    for op in model.get_ordered_ops():
        weight = op.input_value(1).get_node() if op.get_type_name() == "MatMul" else None
        while weight is not None and weight.get_type_name() in ("Convert", "Multiply", "Subtract", "Transpose"):
            weight = weight.input_value(0).get_node()
        if weight is not None and weight.get_type_name() == "Constant":
            layer = op.get_friendly_name().removeprefix("__module.model.").split("/")[0]
            types[layer] = weight.get_element_type().get_type_name()
    assert {layer: types[layer] for layer in draft.kept} == dict.fromkeys(draft.kept, "f32")
    assert {kind for layer, kind in types.items() if layer not in draft.kept} <= {"i8", "u8"}


def test_openvino_tells_when_dynamic_int8_does_not_take_effect(tmp_path):
    # Sixteen inputs are fewer than one group of activations.
    draft = as_draft(tiny_module("bert", num_hidden_layers=1))
    draft.data, draft.pad = Sentences(draft.inputs), dict.fromkeys(draft.inputs, 0)
    with pytest.raises(Refused, match="another precision than planned"):
        find("backends", "openvino")(threads=1, sequence=16).lower(planned(draft, "int8_dynamic"), tmp_path)


def test_autotune_wants_one_shape_and_no_int8() -> None:
    kind, facts = find("backends", "compiled"), ModelFacts("Bert")
    assert "fixed" in kind.make(autotune=True).refuses(frozenset({"bf16"}), facts)
    assert "INT8" in kind.make(autotune=True, shapes="fixed").refuses(frozenset({"fp32", "int8_static"}), facts)
    assert kind.make(autotune=True, shapes="fixed").refuses(frozenset({"bf16"}), facts) is None


def test_openvino_with_bounded_shapes_answers_the_same(tmp_path):
    answers = []
    for shapes in ("dynamic", "bounded"):
        backend = find("backends", "openvino").make(threads=1, batch=2, sequence=16, shapes=shapes)
        backend.lower(drafted("bert", "fp32"), tmp_path / shapes)
        batch = collate(Sentences(("input_ids", "token_type_ids", "attention_mask")).calibration(2), 16, {})
        answers.append(backend.load(tmp_path / shapes)(batch))
    assert np.allclose(*answers, atol=1e-5)


def test_eager_rebuilds_layers_of_another_shape(tmp_path):
    import torch

    draft = drafted("distilbert", "fp32")
    for block in draft.module.distilbert.transformer.layer:
        block.ffn.lin1, block.ffn.lin2 = torch.nn.Linear(32, 20), torch.nn.Linear(20, 32)
    backend = find("backends", "eager")(threads=1, sequence=16)
    backend.lower(draft, tmp_path)
    batch = batch_of(draft)
    np.testing.assert_allclose(backend.load(tmp_path)(batch), answer(draft, batch), atol=1e-5)


def test_eager_refuses_a_module_that_nothing_describes(tmp_path):
    import torch

    draft = drafted("distilbert", "fp32")
    draft.module.pre_classifier = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Tanh())
    with pytest.raises(Refused, match="factory"):
        find("backends", "eager")(threads=1, sequence=16).lower(draft, tmp_path)


def test_eager_refuses_a_changed_answer(tmp_path):
    import torch

    draft = drafted("distilbert", "fp32")
    draft.module.distilbert.transformer.layer[1].ffn.activation = torch.nn.Tanh()
    with pytest.raises(Refused, match="answers otherwise"):
        find("backends", "eager")(threads=1, sequence=16).lower(draft, tmp_path)


def plain_module():
    """A module of no known library: the factory of the tests below."""
    import torch

    class Bag(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(40, 16)
            self.classifier = torch.nn.Linear(16, 2)

        def forward(self, input_ids, attention_mask):
            weight = attention_mask[..., None].float()
            return self.classifier((self.embedding(input_ids) * weight).sum(1) / weight.sum(1))

    return Bag().eval()


def test_eager_wants_a_factory_for_any_other_module(tmp_path):
    import torch

    draft = as_draft(plain_module())
    backend = find("backends", "eager")(threads=1, sequence=16)
    with pytest.raises(Refused, match="factory"):
        backend.lower(draft, tmp_path / "refused")
    draft.factory = "test_backends:plain_module"
    backend.lower(draft, tmp_path / "made")
    tokens = {"input_ids": np.array([[3, 4, 0]]), "attention_mask": np.array([[1, 1, 0]])}
    with torch.no_grad():
        wanted = draft.module(**{name: torch.from_numpy(array) for name, array in tokens.items()}).numpy()
    np.testing.assert_allclose(backend.load(tmp_path / "made")(tokens), wanted, atol=1e-6)


def test_mixed_float_precisions_are_refused():
    plan = Plan(base="bf16", layers={"classifier": Precision("fp32")})
    with pytest.raises(Refused, match="bf16, fp32"):
        _lowering.one_float(plan, "OpenVINO")


def test_a_layer_that_runs_otherwise_than_planned_is_refused():
    plan = Plan(layers={"a": Precision("int8_static")})
    backend = find("backends", "onnxruntime")()
    _lowering.honoured(plan, {"a": "int8", "b": "fp32"}, backend)
    with pytest.raises(Refused, match="'a': fp32 instead of int8_static"):
        _lowering.honoured(plan, {"a": "fp32", "b": "fp32"}, backend)


def test_threads_follow_the_machine():
    assert _lowering.threads(3) == 3
    assert _lowering.threads(0) >= 1


@pytest.mark.parametrize(
    ("count", "allowed", "expected"),
    [(1, {0, 1}, []), (2, {0, 1}, [0, 1]), (2, {5, 3, 9}, [3, 5]), (3, {0, 1}, []), (3, {2, 4, 6}, [2, 4, 6])],
)
def test_workers_get_cores_of_their_own(
    count: int, allowed: set[int], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.backends import _lowering

    monkeypatch.setattr(_lowering.os, "sched_getaffinity", lambda _: allowed, raising=False)
    # No machine's topology: every core stands for itself.
    monkeypatch.setattr(_lowering.Path, "is_file", lambda _: False)
    assert _lowering.spread(count) == expected


def test_physical_cores_come_before_their_second_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.backends import _lowering

    siblings = {0: "0,1", 1: "0,1", 2: "2,3", 3: "2,3"}
    monkeypatch.setattr(_lowering.os, "sched_getaffinity", lambda _: set(siblings), raising=False)
    monkeypatch.setattr(_lowering.Path, "is_file", lambda _: True)
    monkeypatch.setattr(_lowering.Path, "read_text", lambda path: siblings[int(path.parts[-3][3:])])
    assert _lowering.spread(2) == [0, 2]
    assert _lowering.spread(4) == [0, 2, 1, 3]
