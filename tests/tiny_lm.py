"""A tiny random Llama with a tokenizer of its own, as a folder, and a text that it can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

WORDS = [f"w{i}" for i in range(40)]
SIZES = {
    "vocab_size": 44,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
    "tie_word_embeddings": True,
}


def tiny_llama(**changes: Any) -> Any:
    """A `LlamaForCausalLM` with two layers, the same at every call."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    module = t.LlamaForCausalLM(t.LlamaConfig(**{**SIZES, **changes})).eval()
    module.config.use_cache = False
    return module


def lm_folder(folder: Path, **changes: Any) -> Path:
    """The model with a word-level tokenizer, as `save_pretrained` writes it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tiny_llama(**changes).save_pretrained(str(folder))
    wrapped.save_pretrained(str(folder))
    return folder


def stories(documents: int, words: int = 30, seed: int = 0) -> str:
    """Documents of random words, parted as the files of TinyStories are."""
    random = np.random.default_rng(seed)
    texts = (" ".join(WORDS[i] for i in random.integers(0, 40, size=words)) for _ in range(documents))
    return "\n<|endoftext|>\n".join(texts)
