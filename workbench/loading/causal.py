"""A causal language model in a Hugging Face folder.

It is loaded to score texts: without a cache of keys and values, in float32. Left out: generating text, prefix and
encoder-decoder models.
"""

from __future__ import annotations

from typing import Any

from workbench.errors import ModelError
from workbench.loading.folder import HFFolder

#: Inputs of a model that scores texts; GPT-2 would add the embedding of a token to each token type.
_INPUTS = ("input_ids", "attention_mask")


class CausalFolder(HFFolder):
    """A causal language model as `save_pretrained` writes it."""

    auto = "AutoModelForCausalLM"
    head = "a causal language model"

    def labels(self) -> tuple[str, ...]:
        return ()

    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name in super().inputs() if name in _INPUTS)

    def load(self) -> Any:
        module = super().load()
        # A cache would only be thrown away, and exporters would follow it.
        module.config.use_cache = False
        return module

    def _check_head(self) -> None:
        written = list(getattr(self.config, "architectures", None) or [])
        if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in written or ["ForCausalLM"]):
            raise ModelError(
                f"{self.folder} holds a {', '.join(written)}, which is no causal language model.",
                allowed="a model whose architecture ends in ForCausalLM or LMHeadModel",
                do="choose another checkpoint, or another kind of task",
            )
