"""Attention as one node of an ONNX graph: ONNX Runtime's MultiHeadAttention, written by the exporter itself.

No optimizer finds attention in what today's exporters write (`onnxruntime.transformers` fuses layer norms only), so
the module's attention is exchanged while it is exported: transformers lets an attention function be registered, and
ours gives a symbolic node instead of a dozen. The padding mask stays the model's own input of shape (batch, length).
Left out: attention with a position bias of its own, grouped keys, sliding windows; such modules are exported as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAME = "workbench_onnx"


@contextmanager
def fused_attention(module: Any) -> Iterator[bool]:
    """Have `module`, while in this context, exported with one node for each attention; False where it cannot be."""
    config = getattr(module, "config", None)
    before = getattr(config, "_attn_implementation", None)
    if config is None or before not in ("sdpa", "eager") or not fusible(module):
        yield False
        return
    _register()
    config._attn_implementation = _NAME
    try:
        yield True
    finally:
        config._attn_implementation = before


def fusible(module: Any) -> bool:
    """Whether every attention of the module is plain: what `anatomy.layout` describes, and not causal."""
    from workbench.anatomy import layout
    from workbench.errors import Refused

    try:
        blocks = layout(module)
    except Refused:
        return False
    owners = (module.get_submodule(block.query.rpartition(".")[0]) for block in blocks)
    return not any(getattr(owner, "is_causal", False) or getattr(owner, "is_decoder", False) for owner in owners)


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, _mask)


def _mask(*_: Any, attention_mask: Any = None, **__: Any) -> Any:
    """The padding mask as it came, (batch, length), or None."""
    return attention_mask


def _attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **_: Any
) -> tuple[Any, None]:
    """One symbolic node; `query`, `key`, `value` are (batch, heads, length, width of a head).

    Source: com.microsoft.MultiHeadAttention in onnxruntime's ContribOperators.md: inputs (batch, length, hidden) and
    a key padding mask, int32 of shape (batch, length).
    """
    import torch

    batch, heads, length, width = query.shape
    flat = [tensor.transpose(1, 2).reshape(batch, tensor.shape[2], heads * width) for tensor in (query, key, value)]
    padding = None if attention_mask is None else attention_mask.to(torch.int32)
    attributes: dict[str, Any] = {"num_heads": int(heads), "scale": float(scaling or width**-0.5)}
    answer = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        [*flat, None, padding] if padding is not None else flat,
        attributes,
        dtype=query.dtype,
        shape=(batch, length, heads * width),
        version=1,
    )
    # Callers reshape (batch, length, heads, width) to (batch, length, hidden).
    return answer.reshape(batch, length, heads, width), None
