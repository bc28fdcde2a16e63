"""Modules that functions of the user's build, and functions that take the place of a tokenizer."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_folders import save_tokenizer

from workbench.errors import ModelError
from workbench.loading.factory import FactoryModule, load_factory
from workbench.loading.live import model_path
from workbench.loading.tokens import CollateEncoder, TokenizerEncoder

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
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module file of the user's, importable as `factories_of_mine`."""
    (tmp_path / "factories_of_mine.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
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
