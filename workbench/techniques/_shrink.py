"""Heads and neurons physically removed, and what is left repaired by least squares. Functions on modules and tensors.

One factor for each head and neuron is the repair of Kwon et al. 2022 (arXiv:2204.09656); the whole projection behind
the removed parts is fitted as in Kurtic et al., "ZipLM", NeurIPS 2023 (arXiv:2302.04089).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: Ridge of the least squares, as a share of the mean square of the inputs.
_RIDGE = 1e-3


def shrink(
    module: Any,
    blocks: Sequence[Any],
    heads: np.ndarray,
    neurons: np.ndarray,
    batches: Sequence[Any],
    repair: str = "projection",
) -> None:
    """Remove what the masks say from the module, one layer after the other, and repair each with what came before it
    already smaller.

    `heads`: bool (layers, heads), `neurons`: bool (layers, neurons), True is kept.
    """
    names = [name for block in blocks for name in (block.output, block.down)]
    wanted = _outputs(module, names, batches) if repair != "none" else {}
    for block, some_heads, some_neurons in zip(blocks, heads, neurons, strict=True):
        kept = {
            block.output: np.repeat(some_heads, block.head),
            block.down: some_neurons,
        }
        feeds = {block.output: (block.query, block.key, block.value), block.down: (block.up,)}
        for name, mask in kept.items():
            if mask.all():
                continue
            group = block.head if name == block.output else 1
            cut_inputs(module, name, mask)
            for feed in feeds[name]:
                cut_outputs(module, feed, mask)
            if repair != "none":
                inputs = _inputs(module, name, batches)
                refit(module.get_submodule(name), inputs, wanted[name], group if repair == "masks" else 0)
        tell(module, block, int(some_heads.sum()))


def refit(layer: Any, inputs: Any, outputs: Any, group: int = 0, ridge: float = _RIDGE) -> None:
    """Fit a linear layer so that `inputs` (tokens, in) give `outputs` (tokens, out) with least squares.

    With `group` 0 the weight and the bias are free, held near what they are by a ridge; otherwise only one factor for
    each `group` neighbouring inputs is, and is multiplied into the weight.
    """
    import torch

    with torch.no_grad():
        weight, x, y = layer.weight.double(), inputs.double(), outputs.double()
        if group:
            # Output = sum over groups of factor * (x_g W_g^T): a small system in the factors, whose entries are sums
            # over blocks of a matrix of all pairs of inputs; the products by group themselves would not fit in memory.
            count = x.shape[1] // group
            pairs = (x.T @ x) * (weight.T @ weight)
            gram = pairs.reshape(count, group, count, group).sum(dim=(1, 3))
            right = ((y - layer.bias.double()) @ weight * x).sum(dim=0).reshape(count, group).sum(dim=1)
            damp = ridge * gram.diagonal().mean()
            eye = torch.eye(len(gram), dtype=torch.float64)
            factors = torch.linalg.solve(gram + damp * eye, right + damp)
            layer.weight.copy_((weight * factors.repeat_interleave(group)).float())
            return
        means = x.mean(dim=0), y.mean(dim=0)
        x, y = x - means[0], y - means[1]
        gram = x.T @ x
        damp = ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        fitted = torch.linalg.solve(gram + damp, x.T @ y + damp @ weight.T).T
        layer.weight.copy_(fitted.float())
        if layer.bias is not None:
            layer.bias.copy_((means[1] - fitted @ means[0]).float())


def cut_inputs(module: Any, name: str, kept: np.ndarray) -> None:
    """Replace the linear layer called `name` by one without the inputs that `kept` (bool) leaves out."""
    _replace(module, name, lambda layer, mask: (layer.weight[:, mask], layer.bias), kept)


def cut_outputs(module: Any, name: str, kept: np.ndarray) -> None:
    """Replace the linear layer called `name` by one without the outputs that `kept` (bool) leaves out."""

    def cut(layer: Any, mask: Any) -> tuple[Any, Any]:
        return layer.weight[mask], None if layer.bias is None else layer.bias[mask]

    _replace(module, name, cut, kept)


def _outputs(module: Any, names: Sequence[str], batches: Sequence[Any]) -> dict[str, Any]:
    """What the layers called `names` give, by name: (tokens, out), padding left out."""
    return _seen(module, names, batches, lambda args, output: output)


def _inputs(module: Any, name: str, batches: Sequence[Any]) -> Any:
    """What the layer called `name` takes: (tokens, in), padding left out."""
    return _seen(module, [name], batches, lambda args, output: args[0])[name]


def _seen(module: Any, names: Sequence[str], batches: Sequence[Any], what: Callable[..., Any]) -> dict[str, Any]:
    import torch

    found: dict[str, list[Any]] = {name: [] for name in names}
    real: Any = None

    def hook(name: str) -> Callable[..., None]:
        def keep(part: Any, args: tuple, output: Any) -> None:
            values = what(args, output)
            found[name].append(values.flatten(0, 1) if real is None else values[real])

        return keep

    handles = [module.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            for inputs, _ in batches:
                mask = inputs.get("attention_mask")
                real = None if mask is None else mask.bool()
                module(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def _replace(module: Any, name: str, cut: Callable[..., tuple[Any, Any]], kept: np.ndarray) -> None:
    import torch

    from workbench.loading.structure import replace

    old = module.get_submodule(name)
    with torch.no_grad():
        weight, bias = cut(old, torch.from_numpy(kept))
        new = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        new.weight.copy_(weight)
        if bias is not None:
            new.bias.copy_(bias)
    replace(module, name, new.train(old.training))


def tell(module: Any, block: Any, heads: int) -> None:
    """Set right where an attention says how many heads it has; only its width decides what it computes."""
    owner = module.get_submodule(block.query.rpartition(".")[0])
    for name, value in (("num_attention_heads", heads), ("n_heads", heads), ("all_head_size", heads * block.head)):
        if hasattr(owner, name):
            setattr(owner, name, value)
