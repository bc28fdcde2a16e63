"""Tiny models and data sets on disk, as a user would have them; built in milliseconds, nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [
    "good",
    "bad",
    "fine",
    "poor",
    "film",
    "story",
    "it",
    "is",
    "was",
    "not",
    "a",
    "the",
    "very",
    "and",
    "<b>",
    "never",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LABELS = ("negative", "positive")


def save_tokenizer(folder: Path) -> Any:
    """A word-level tokenizer of `WORDS`, saved into `folder`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    plain.normalizer = normalizers.Lowercase()
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def save_model(folder: Path, labels: tuple[str, ...] = LABELS, shape: str = "bert", **changes: Any) -> Any:
    """A random two-layer classifier with its tokenizer, in the Hugging Face layout."""
    from tiny_models import tiny_module

    sizes = {"max_position_embeddings": 128, ("n_layers" if shape == "distilbert" else "num_hidden_layers"): 2}
    names = dict(enumerate(labels))
    module = tiny_module(shape, **{**sizes, "id2label": names, "label2id": {v: k for k, v in names.items()}, **changes})
    module.save_pretrained(str(folder))
    save_tokenizer(folder)
    return module


def rows(count: int, start: int = 0) -> list[tuple[str, int]]:
    """Different texts of known words, labels 0 and 1 in turn."""
    n = len(WORDS)
    return [
        (f"{WORDS[i % n]} {WORDS[i // n % n]} {WORDS[(i // n // n + 3) % n]} film", i % 2)
        for i in range(start, start + count)
    ]


def write_tsv(path: Path, examples: list[tuple[str, Any]], header: str = "sentence\tlabel") -> Path:
    """A TSV file as GLUE writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(f"{text}\t{label}" for text, label in examples)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_splits(folder: Path, train: int = 30, dev: int = 20) -> Path:
    """train.tsv and dev.tsv with different rows."""
    write_tsv(folder / "train.tsv", rows(train))
    write_tsv(folder / "dev.tsv", rows(dev, start=1000))
    return folder


def save_onnx(path: Path, external: str | None = None) -> Path:
    """A graph that embeds `input_ids`, averages and classifies; its tokenizer lies beside it."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    tables = {
        "table": random.normal(size=(len(WORDS) + len(SPECIAL), 8)).astype(np.float32),
        "weight": random.normal(size=(8, 2)).astype(np.float32),
    }
    initializers = [numpy_helper.from_array(values, name) for name, values in tables.items()]
    initializers.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"))
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"], name="embed"),
        helper.make_node("ReduceMean", ["embedded", "axis"], ["mean"], name="mean", keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["logits"], name="classifier"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    save_tokenizer(path.parent)
    if external is None:
        onnx.save_model(model, str(path))
    else:
        onnx.save_model(model, str(path), save_as_external_data=True, location=external, size_threshold=0)
    return path
