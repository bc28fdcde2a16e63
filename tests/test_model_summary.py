"""What is told of a model before it is loaded: real folders and a made-up hub, against what the model itself says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repository
from tiny_folders import save_model, save_onnx, save_tokenizer

from workbench.loading.model_summary import ModelSummary, find_models, license_in, summarize
from workbench.summary import describe_model

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "tiny"
    save_model(place)
    (place / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A model\n")
    return place


def change(folder, tmp_path, **config):
    """A copy with another configuration."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    written = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**written, **config}))
    return copy


def test_a_folder_by_its_headers_and_by_its_layers(folder):
    from transformers import AutoModelForSequenceClassification

    real = AutoModelForSequenceClassification.from_pretrained(folder)
    quick = summarize(folder)
    assert quick.usable
    assert quick.architecture == "BertForSequenceClassification"
    assert quick.labels == ("negative", "positive")
    assert quick.layers == 2
    assert quick.license == "mit"
    assert quick.parameters == sum(p.numel() for p in real.parameters())
    assert quick.macs is None
    full = describe_model(str(folder))
    assert full.parameters == quick.parameters
    assert full.size_mb == pytest.approx((folder / "model.safetensors").stat().st_size / 1e6, abs=0.06)
    # By hand: four square products and two of the feed-forward network a block, attention's two, pooler and head.
    c = real.config
    n, d, f = full.sequence, c.hidden_size, c.intermediate_size
    block = n * (4 * d * d + 2 * d * f) + 2 * n * n * d
    assert full.macs == c.num_hidden_layers * block + d * d + d * 2
    assert ModelSummary.from_json(json.loads(json.dumps(full.to_json()))) == full


@pytest.mark.parametrize(
    ("config", "kind", "said"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "text_classification", "no classification head"),
        ({}, "causal_lm", "no language modelling head"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "text_classification", "own Python code"),
        ({"problem_type": "multi_label_classification"}, "text_classification", "multi label"),
        ({"id2label": {"0": "x"}}, "text_classification", "one output"),
    ],
)
def test_a_head_that_does_not_fit(folder, tmp_path, config, kind, said):
    found = summarize(change(folder, tmp_path, **config), kind)
    assert not found.usable
    assert said in found.problem
    assert found.do


def test_what_is_missing_is_said(folder, tmp_path):
    (copy := tmp_path / "a").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, copy)
    assert "without a tokenizer" in summarize(copy).problem
    (copy / "model.safetensors").unlink()
    assert "has no weights" in summarize(copy).problem
    (copy / "pytorch_model.bin").write_bytes(b"x")
    assert "pickle" in summarize(copy).problem
    (copy / "config.json").write_text("{")
    assert "is not JSON" in summarize(copy).problem
    (copy / "config.json").unlink()
    assert "no config.json" in summarize(copy).problem


def test_a_truncated_file_is_said(folder, tmp_path):
    copy = change(folder, tmp_path)
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[:-10])
    assert "truncated" in summarize(copy).problem


def test_a_head_that_was_never_trained_shows_with_the_layers(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = change(folder, tmp_path)
    tensors = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith("classifier")}, copy / "model.safetensors")
    assert summarize(copy).usable
    assert "would be random" in describe_model(str(copy)).problem


def test_an_onnx_file(tmp_path):
    path = save_onnx(tmp_path / "model.onnx")
    found = describe_model(str(path))
    assert found.usable
    assert found.kind == "onnx"
    assert found.labels == ("LABEL_0", "LABEL_1")
    assert found.parameters == 21 * 8 + 8 * 2
    assert "classifiers only" in summarize(path, "causal_lm").problem
    for name in os.listdir(tmp_path):
        if "token" in name:
            (tmp_path / name).unlink()
    assert "without a tokenizer" in summarize(path).problem


def test_models_are_found_where_people_keep_them(folder, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    shutil.copytree(folder, tmp_path / "a" / "b" / "good")
    shutil.copytree(folder, tmp_path / ".hidden" / "good")
    shutil.copytree(folder, tmp_path / "study" / "artifacts" / "good")
    save_onnx(tmp_path / "graphs" / "model.onnx")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    (tmp_path / "broken" / "pytorch_model.bin").write_bytes(b"x")
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "config.json").write_text("{}")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = find_models(tmp_path)
    assert [(Path(one.model).relative_to(tmp_path).as_posix(), one.usable) for one in found] == [
        ("a/b/good", True),
        ("graphs/model.onnx", True),
        ("broken", False),
    ]
    assert find_models(tmp_path / "a", depth=0) == []


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\r\nlicense: 'mit' \r\n---\r\n", "mit"),
        ("# none\nlicense: mit\n", ""),
        ("---\nlicense:\n- mit\n---\n", ""),
        ("", ""),
    ],
)
def test_license_of_a_model_card(card, expected):
    assert license_in(card) == expected


ASK = """
import json, sys
from workbench.summary import describe_model
from workbench.loading.hub_summary import summarize_hub
print(json.dumps([summarize_hub(name, revision).to_json() for name, revision in json.loads(sys.argv[1])]))
print(json.dumps(describe_model("owner/good").to_json()))
"""


def test_the_hub_is_asked_for_no_weights(folder, tmp_path):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    weights = {name: data for name, data in files.items() if name.endswith(("safetensors", "json"))}
    with FakeHub() as hub:
        hub.models["owner/good"] = Repository(files)
        hub.models["owner/gated"] = Repository(files, gated=True)
        hub.models["owner/pickle"] = Repository({"config.json": b"{}", "pytorch_model.bin": b"x"})
        hub.models["owner/bare"] = Repository({k: v for k, v in weights.items() if "token" not in k})
        hub.models["owner/base"] = Repository({**files, "config.json": b'{"architectures": ["BertModel"]}'})
        asked = [(f"owner/{name}", None) for name in ("good", "gated", "pickle", "bare", "base", "none")]
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path),
            "WORKBENCH_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        }
        questions = json.dumps([*asked, ("owner/good", "v9")])
        done = subprocess.run(
            [sys.executable, "-c", ASK, questions], capture_output=True, text=True, env=environment, check=True
        )
        assert not [name for name in hub.fetched() if name.endswith((".safetensors", ".bin"))]
    several, full = map(json.loads, done.stdout.splitlines())
    good, gated, pickle, bare, base, none, revision = several
    assert good["problem"] == ""
    assert (good["architecture"], good["labels"]) == ("BertForSequenceClassification", ["negative", "positive"])
    assert good["size_mb"] == pytest.approx(len(files["model.safetensors"]) / 1e6, abs=0.06)
    assert full["macs"] == describe_model(str(folder)).macs
    for row, said in (
        (gated, "gated"),
        (pickle, "pickle"),
        (bare, "without a tokenizer"),
        (base, "no classification head"),
        (none, "no model 'owner/none'"),
        (revision, "no revision 'v9'"),
    ):
        assert said in row["problem"]


def test_the_demo_before_it_was_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    found = describe_model("demo")
    assert found.usable
    assert found.layers == 6
    assert found.parameters is None


def test_a_tokenizer_alone_is_no_model(tmp_path):
    save_tokenizer(tmp_path / "tokenizer")
    assert find_models(tmp_path) == []
