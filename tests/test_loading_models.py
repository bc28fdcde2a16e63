"""Model folders, ONNX files, factories: what is read, and what is refused before anything is loaded."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_folders import LABELS, save_model, save_onnx, save_tokenizer

from workbench.anatomy import find_blocks
from workbench.errors import ModelError, ResourceError, UnsafeModel
from workbench.loading.factory import FactoryModule, load_factory
from workbench.loading.folder import HFFolder, check_folder
from workbench.loading.hashing import hash_file
from workbench.loading.live import model_path
from workbench.loading.onnx_file import OnnxFile
from workbench.loading.tokens import CollateEncoder, TokenizerEncoder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that no test may change."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    save_model(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    target = tmp_path / "model"
    target.mkdir()
    for file in saved.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_is_described_without_weights(saved: Path) -> None:
    source = HFFolder(saved)
    source.check()
    facts = source.facts()
    assert (facts.architecture, facts.blocks, facts.block_path) == (
        "BertForSequenceClassification",
        2,
        "bert.encoder.layer",
    )
    assert facts.layers[0] == "bert.encoder.layer.0.attention.self.query"
    assert facts.layers[-1] == "classifier"
    assert facts.has_module
    assert source.labels() == LABELS
    assert source.inputs() == ("input_ids", "attention_mask", "token_type_ids")
    assert source.longest() == 128
    assert all(parameter.is_meta for parameter in source.meta.parameters())


def test_weights_are_loaded_as_float32_in_eval_mode(folder: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(folder).to(torch.float16).save_pretrained(folder)
    module = HFFolder(folder).load()
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert not any(part.training for part in module.modules())


def test_inputs_are_those_that_the_model_takes(tmp_path: Path) -> None:
    save_model(tmp_path, shape="distilbert")
    assert HFFolder(tmp_path).inputs() == ("input_ids", "attention_mask")


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        HFFolder(folder).check()
    with pytest.raises(ModelError, match="There is no folder"):
        check_folder(folder / "absent")


def test_a_config_that_is_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        HFFolder(folder).check()


def test_an_unknown_architecture(folder: Path) -> None:
    edit_config(folder, model_type="new_thing", architectures=["NewForSequenceClassification"])
    with pytest.raises(ModelError, match="new_thing"):
        HFFolder(folder).check()


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights") as caught:
        HFFolder(folder).check()
    assert not isinstance(caught.value, UnsafeModel)


def test_a_pickle_is_refused_and_the_given_command_converts_it(folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    HFFolder(folder).check()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsafeModel, match=r"pickle only \(pytorch_model\.bin\)") as caught:
        HFFolder(folder).load()
    command = shlex.split(caught.value.do.splitlines()[-1])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    HFFolder(tmp_path / "model-safetensors").check()


def test_code_that_came_with_a_model_does_not_run(folder: Path) -> None:
    edit_config(folder, auto_map={"AutoConfig": "evil.Config"}, model_type="evil")
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UnsafeModel, match="its own Python code") as caught:
        HFFolder(folder).check()
    assert "trust_remote_code=True" in caught.value.do


def test_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for size in (len(whole) - 1, 100, 4):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="is truncated or no safetensors"):
            HFFolder(folder).check()


def test_a_missing_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelError, match=r"lacks 1 of 2 shards: model-00002-of-00002\.safetensors"):
        HFFolder(folder).check()


def test_a_model_without_a_classification_head(folder: Path) -> None:
    edit_config(folder, architectures=["BertForMaskedLM"])
    with pytest.raises(ModelError, match="BertForMaskedLM, which has no classification head"):
        HFFolder(folder).check()


def test_a_head_that_was_never_trained(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("classifier")}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"classifier\.bias, classifier\.weight; they would be random"):
        HFFolder(folder).check()


def test_a_layer_that_is_missing(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items() if "layer.1.output" not in k}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="they would be random"):
        HFFolder(folder).load()


@pytest.mark.parametrize("changes", [{"id2label": {"0": "score"}}, {"problem_type": "multi_label_classification"}])
def test_other_kinds_of_heads(folder: Path, changes: dict[str, Any]) -> None:
    edit_config(folder, **changes)
    with pytest.raises(ModelError, match=r"output\(s\) for"):
        HFFolder(folder).check()


def test_too_little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Little:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    with pytest.raises(ResourceError, match="Not enough memory for"):
        HFFolder(folder).load()


def test_no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="holds no tokenizer"):
        HFFolder(folder).encoder()
    (folder / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ModelError, match="cannot be read"):
        HFFolder(folder).encoder()


def test_the_fingerprint_is_the_content(saved: Path, folder: Path) -> None:
    assert HFFolder(saved).fingerprint() == HFFolder(folder).fingerprint()
    before = hash_file(folder / "model.safetensors")
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)
    assert hash_file(folder / "model.safetensors") != before
    assert HFFolder(saved).fingerprint() != HFFolder(folder).fingerprint()


def test_a_large_file_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.loading.hashing.FULL", 1000)
    monkeypatch.setattr("workbench.loading.hashing._CHUNK", 16)
    path = tmp_path / "a"
    path.write_bytes(bytes(5000))
    before = hash_file(path)
    path.write_bytes(bytes(4999) + b"\x01")
    assert hash_file(path) != before


def test_tokens_are_cut_and_not_padded(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    encoder = TokenizerEncoder(tmp_path)
    examples = encoder.encode([("good film",), ("a " * 30,)], ("input_ids", "attention_mask"), 8)
    assert [len(example["input_ids"]) for example in examples] == [4, 8]
    assert list(examples[0]) == ["input_ids", "attention_mask"]
    assert examples[1]["input_ids"][-1] == 3
    pair = encoder.encode([("good film", "bad film")], ("input_ids", "token_type_ids"), 16)[0]
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert encoder.pad(("input_ids", "attention_mask")) == {"input_ids": 0, "attention_mask": 0}
    assert encoder.tokens(examples[0]) == ["[CLS]", "good", "film", "[SEP]"]
    encoder.save(tmp_path / "again")
    assert TokenizerEncoder(tmp_path / "again").encode([("good film",)], ("input_ids",), 8)[0] == {
        "input_ids": examples[0]["input_ids"]
    }


def test_a_collate_function(tmp_path: Path) -> None:
    def collate(texts: list[str]) -> dict[str, Any]:
        return {"input_ids": np.array([[len(word) for word in texts[0].split()]])}

    encoder = CollateEncoder("mine:collate", collate)
    assert encoder.names() == ("input_ids",)
    assert encoder.encode([("a bb ccc dddd",)], ("input_ids",), 3) == [{"input_ids": [1, 2, 3]}]
    encoder.save(tmp_path)
    assert json.loads((tmp_path / "collate.json").read_text()) == {"collate": "mine:collate"}
    with pytest.raises(ModelError, match="cannot collate"):
        CollateEncoder("mine:bad", lambda texts: None).names()  # type: ignore[arg-type, return-value]


def test_an_onnx_file(tmp_path: Path) -> None:
    source = OnnxFile(save_onnx(tmp_path / "model.onnx"))
    source.check()
    facts = source.facts()
    assert (facts.has_module, facts.layers, facts.blocks) == (False, ("classifier",), 0)
    assert source.inputs() == ("input_ids",)
    assert source.labels() == ("LABEL_0", "LABEL_1")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "bad", "1": "good"}}))
    assert OnnxFile(tmp_path / "model.onnx").labels() == ("bad", "good")


def test_a_truncated_onnx_file(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "model.onnx")
    whole = path.read_bytes()
    # Cuts at every place: some leave a valid message that lacks parts of the graph.
    for size in range(0, len(whole), 23):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="is truncated or no ONNX file"):
            OnnxFile(path).check()


def test_an_onnx_graph_that_hangs_together_nowhere(tmp_path: Path) -> None:
    import onnx

    path = save_onnx(tmp_path / "model.onnx")
    model = onnx.load(str(path))
    model.graph.node[1].input[0] = "nothing"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="is truncated or no ONNX file"):
        OnnxFile(path).check()


def test_external_data_beside_the_file(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "model.onnx", external="weights.bin")
    source = OnnxFile(path)
    source.check()
    before = source.fingerprint()
    data = tmp_path / "weights.bin"
    raw = bytearray(data.read_bytes())
    raw[0] ^= 1
    data.write_bytes(raw)
    assert OnnxFile(path).fingerprint() != before
    data.write_bytes(raw[:10])
    with pytest.raises(ModelError, match="is truncated"):
        OnnxFile(path).check()
    data.unlink()
    with pytest.raises(ModelError, match="is missing"):
        OnnxFile(path).check()


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin", "link.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    import onnx

    folder = tmp_path / "model"
    path = save_onnx(folder / "model.onnx", external="weights.bin")
    (tmp_path / "secret.bin").write_bytes((folder / "weights.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeModel, match="outside its folder"):
        OnnxFile(path).check()


def test_onnx_inputs_that_no_tokenizer_gives(tmp_path: Path) -> None:
    import onnx

    path = save_onnx(tmp_path / "model.onnx")
    model = onnx.load(str(path))
    model.graph.input[0].name = model.graph.node[0].input[1] = "pixels"
    onnx.save_model(model, str(path))
    with pytest.raises(ModelError, match="takes pixels"):
        OnnxFile(path).check()


FACTORIES = """
import torch
from torch import nn

class Bag(nn.Module):
    def __init__(self, size=21):
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.EmbeddingBag(size, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, input_ids):
        return self.head(self.table(input_ids))

class Needy(Bag):
    def __init__(self, size):
        super().__init__(size)

class Flat(Bag):
    def forward(self, input_ids):
        return super().forward(input_ids)[:, 0]

class Other(Bag):
    def forward(self, words):
        return super().forward(words)

def build():
    return Needy(21)

def build_wrong():
    return Needy(5)

def build_nothing():
    return 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module file of the user's, importable as `factories_of_mine`."""
    (tmp_path / "factories_of_mine.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    import importlib

    sys.modules.pop("factories_of_mine", None)
    yield importlib.import_module("factories_of_mine")
    sys.modules.pop("factories_of_mine", None)


def test_a_factory(factories: Any, tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "tokenizer")
    encoder = TokenizerEncoder(tmp_path / "tokenizer")
    source = FactoryModule("factories_of_mine:build", encoder=encoder)
    source.check()
    assert source.inputs() == ("input_ids",)
    assert source.labels() == ("LABEL_0", "LABEL_1")
    assert source.facts().layers == ("head",)
    for name, message in (
        ("factories_of_mine:nothing", "cannot be imported"),
        ("nowhere:build", "cannot be imported"),
        ("factories_of_mine:build_nothing", "returned a int"),
        ("factories_of_mine:Flat", "logits of shape"),
        ("factories_of_mine:Other", r"takes \(words\), and its tokenizer gives input_ids"),
    ):
        with pytest.raises(ModelError, match=message):
            FactoryModule(name, encoder=encoder).check()
    with pytest.raises(ModelError, match="without a tokenizer"):
        FactoryModule("factories_of_mine:build").check()
    with pytest.raises(ModelError, match="no function's name"):
        load_factory("os.system")


def test_a_live_module_is_carried_by_its_tensors(factories: Any, tmp_path: Path) -> None:
    import torch

    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    module = factories.Bag()
    with torch.no_grad():
        module.head.weight.add_(1)
    path = Path(model_path(module, tokenizer))
    assert sorted(file.name for file in path.iterdir() if file.name[:5] != "token") == [
        "factory.json",
        "model.safetensors",
    ]
    assert model_path(module, tokenizer) == str(path)
    loaded = FactoryModule.from_folder(path)
    loaded.check()
    assert torch.equal(loaded.load().head.weight, module.head.weight)
    needy = factories.Needy(21)
    with pytest.raises(ModelError, match="needs the arguments size"):
        model_path(needy)
    fits = FactoryModule.from_folder(Path(model_path(needy, tokenizer, "factories_of_mine:build")))
    fits.check()
    with pytest.raises(ModelError, match="do not fit what factories_of_mine:build_wrong builds"):
        FactoryModule.from_folder(Path(model_path(needy, tokenizer, "factories_of_mine:build_wrong"))).check()
    Local = type("Local", (factories.Bag,), {"__module__": "__main__"})
    with pytest.raises(ModelError, match="defined in the notebook"):
        model_path(Local())
    with pytest.raises(ModelError, match="A int is no model"):
        model_path(3)


def test_blocks() -> None:
    from torch import nn

    def block(width: int = 4) -> Any:
        inner = nn.Module()
        inner.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(5))
        return inner

    model = nn.Module()
    model.body = nn.Module()
    model.body.layers = nn.ModuleList(block() for _ in range(3))
    assert find_blocks(model) == ("body.layers", 3)
    assert find_blocks(nn.Linear(2, 2)) == ("", 0)
    assert find_blocks(nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])) == ("", 0)
