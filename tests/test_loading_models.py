"""Model folders, ONNX files, factories: what is read, and what is refused before anything is loaded."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import LABELS, save_model, save_tokenizer

from workbench.anatomy import find_blocks
from workbench.errors import ModelError, ResourceError, UnsafeModel
from workbench.loading.folder import HFFolder, check_folder
from workbench.loading.hashing import hash_file
from workbench.loading.tokens import TokenizerEncoder


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
