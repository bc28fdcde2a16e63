"""Structured pruning without training: whole attention heads and feed-forward neurons are removed, the rest repaired.

Which ones: the diagonal-Fisher mask search of Kwon et al. (`_masks.py`), or magnitude, or chance to compare with. What
is left of each layer is fitted to what the whole layer gave, by least squares on calibration examples: either one
factor for each head and neuron, as in the paper, or the whole projection behind them, as Frantar & Alistarh and others
do for single weights. Left out: dropped layers (`drop_layers`), a narrower hidden state (`low_rank` is its
replacement), and training afterwards (`distil`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from workbench.draft import Draft, ModelFacts
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.techniques._masks import Costs, block_macs, rearrange, rounded, search
from workbench.techniques.base import Technique

_BATCH = 32
#: Ridge of the least squares, as a share of the mean square of the inputs.
_RIDGE = 1e-3


class PruneStructured(Technique):
    """Remove the least important heads and neurons, and repair what is left: faster on every runtime, no training.

    Source: W. Kwon et al., "A fast post-training pruning framework for transformers", NeurIPS 2022, arXiv:2204.09656;
    the repair of whole projections follows E. Kurtic, E. Frantar, D. Alistarh, "ZipLM", NeurIPS 2023,
    arXiv:2302.04089. Cost: one backward and some forward passes over the calibration examples, a minute or two on two
    cores. Helps on every runtime in proportion to the MACs removed; multiplies with INT8. Down to three quarters of
    the MACs it costs little; further down `distil` should follow.
    """

    name = "prune_structured"
    group = "pruning"
    needs = "calibration"
    source = "Kwon et al. 2022, arXiv:2204.09656"
    phase = 1

    budget: float = knob(
        0.75, low=0.1, high=1.0, search=(0.5, 0.6, 0.75), help="share of the layers' cost that is kept"
    )
    cost: str = knob(
        "macs",
        choices=("macs", "latency"),
        help="what the budget counts: multiply-accumulates, or measured time of a layer on this machine and runtime",
    )
    parts: str = knob("both", choices=("both", "heads", "neurons"), help="what may be removed")
    select: str = knob(
        "fisher", choices=("fisher", "magnitude", "random"), help="how the heads and neurons to remove are chosen"
    )
    repair: str = knob(
        "projection",
        choices=("projection", "masks", "none"),
        help="fit the projections behind the removed parts, one factor for each head and neuron, or nothing",
    )
    multiple: int = knob(32, low=1, high=512, unit="neurons", help="widths are rounded to this, which kernels like")
    samples: int = knob(1024, low=1, high=100_000, unit="examples", help="training examples to look at")
    seed: int = knob(0, low=0, high=2**31, help="decides what `random` removes")

    @property
    def asks_runtime(self) -> bool:
        """Where the budget is in latency."""
        return self.cost == "latency"

    @property
    def note(self) -> str:
        """What to expect of it alone."""
        return "" if self.budget >= 0.7 else "below 0.7 without training afterwards the drop grows quickly: add distil"

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module, or no list of layers."""
        reason = super().fits(facts)
        if reason or facts.blocks:
            return reason
        return f"{self.name} found no list of transformer layers in this {facts.architecture}"

    def apply(self, draft: Draft) -> Draft:
        """Remove heads and neurons from the module.

        Where a kept layer has to do with heads, or with neurons, all those of its transformer layer stay. Raises
        `Refused` for an architecture without a layout, where everything is kept, and where the budget leaves a layer
        without a head; `DataError` without training examples.
        """
        from workbench.anatomy import layout

        if draft.module is None:
            raise Refused(self.fits(draft.facts) or f"{self.name} needs a PyTorch module")
        blocks = layout(draft.module)
        whole = [[bool(draft.kept & set(part)) for part in (b.layers[:4], b.layers[4:])] for b in blocks]
        if all(heads and neurons for heads, neurons in whole):
            raise Refused(
                f"{self.name} has nothing to remove: every transformer layer has a kept part.",
                do="take patterns out of `keep`",
            )
        widths = {(_heads(draft.module, b), _neurons(draft.module, b)) for b in blocks}
        if len(widths) > 1:
            raise Refused(
                f"The layers have different numbers of heads and neurons already: {sorted(widths)}.",
                do="start from a model whose layers are alike",
            )
        batches = list(_batches(draft, self.samples))
        costs = self._costs(draft, blocks)
        importance, gradients = self._importance(draft, blocks, batches)
        for i, kept_parts in enumerate(whole):
            for part, name, is_kept in zip(importance, ("heads", "neurons"), kept_parts, strict=True):
                if is_kept or self.parts not in ("both", name):
                    part[i] = np.inf
        try:
            heads, neurons = search(importance[0], importance[1], costs, self.budget)
        except ValueError as error:
            raise Refused(f"budget = {self.budget} is too small: {error}.", do="raise it, or keep less") from error
        for i in range(len(blocks)):
            if gradients is not None:
                heads[i], neurons[i] = (rearrange(m[i], g[i]) for m, g in zip((heads, neurons), gradients, strict=True))
            neurons[i] = rounded(neurons[i], importance[1][i], min(self.multiple, len(neurons[i])))
        shrink(draft.module, blocks, heads, neurons, batches, self.repair)
        kept = sum(costs.heads[h.sum()] + costs.neurons[n.sum()] for h, n in zip(heads, neurons, strict=True))
        draft.notes.append(
            f"{int(heads.sum())} of {heads.size} heads and {int(neurons.sum())} of {neurons.size} neurons are left, "
            f"{kept / (len(blocks) * costs.whole):.1%} of the layers' {self.cost}"
        )
        return draft

    def _costs(self, draft: Draft, blocks: Sequence[Any]) -> Costs:
        block = blocks[0]
        heads, neurons = _heads(draft.module, block), _neurons(draft.module, block)
        hidden = draft.module.get_submodule(block.query).in_features
        if self.cost == "macs":
            return block_macs(hidden, block.head, heads, neurons, draft.sequence)
        if draft.clock is None:
            raise Refused(
                "There is no runtime to measure latency on.", do="compress a whole recipe, or take cost='macs'"
            )
        return latencies(draft.clock, draft.module, blocks, heads, neurons)

    def _importance(self, draft: Draft, blocks: Sequence[Any], batches: Sequence[Any]) -> tuple[Any, Any]:
        """Importance of heads (layers, heads) and neurons (layers, neurons), and the gradients where there are any."""
        if self.select == "fisher":
            gradients = mask_gradients(draft.module, blocks, batches)
            heads, neurons = ([(g**2).sum(axis=0) for g in part] for part in gradients)
            return (np.stack(heads), np.stack(neurons)), gradients
        if self.select == "magnitude":
            return magnitudes(draft.module, blocks), None
        random = np.random.default_rng(self.seed)
        shape = len(blocks), _heads(draft.module, blocks[0])
        return (random.random(shape), random.random((len(blocks), _neurons(draft.module, blocks[0])))), None


def mask_gradients(module: Any, blocks: Sequence[Any], batches: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Gradients of each example's loss by the masks of heads and neurons: for each layer (examples, heads) and
    (examples, neurons).

    Every example of a batch has masks of its own, so that one backward pass gives the gradients of all.
    """
    import torch
    from torch.nn.functional import cross_entropy

    masks: dict[str, Any] = {}
    handles = []

    def masked(name: str, group: int) -> Callable[..., Any]:
        def hook(part: Any, args: tuple) -> tuple:
            values = args[0]
            mask = torch.ones((len(values), values.shape[-1] // group), requires_grad=True)
            masks[name] = mask
            return (values * mask.repeat_interleave(group, dim=1)[:, None, :],)

        return hook

    for block in blocks:
        for name, group in ((block.output, block.head), (block.down, 1)):
            handles.append(module.get_submodule(name).register_forward_pre_hook(masked(name, group)))
    found: dict[str, list[Any]] = {name: [] for block in blocks for name in (block.output, block.down)}
    flags = [(p, p.requires_grad) for p in module.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            for inputs, targets in batches:
                logits = module(**inputs).logits
                # Unlabelled examples stand for the model's own answer.
                wanted = torch.where(targets >= 0, targets, logits.argmax(dim=1))
                loss = cross_entropy(logits, wanted, reduction="sum")
                names = list(masks)
                for name, gradient in zip(names, torch.autograd.grad(loss, [masks[n] for n in names]), strict=True):
                    found[name].append(gradient.numpy())
    finally:
        for handle in handles:
            handle.remove()
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    stacked = {name: np.concatenate(parts) for name, parts in found.items()}
    return [stacked[block.output] for block in blocks], [stacked[block.down] for block in blocks]


def magnitudes(module: Any, blocks: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Squared norm of the weights that make and use each head and each neuron: (layers, heads), (layers, neurons)."""
    heads, neurons = [], []
    for block in blocks:
        weight = {name: module.get_submodule(name).weight.detach() for name in block.layers}
        rows = sum((weight[name] ** 2).sum(dim=1) for name in (block.query, block.key, block.value))
        rows = rows + (weight[block.output] ** 2).sum(dim=0)
        heads.append(rows.reshape(-1, block.head).sum(dim=1).numpy())
        neurons.append(((weight[block.up] ** 2).sum(dim=1) + (weight[block.down] ** 2).sum(dim=0)).numpy())
    return np.stack(heads), np.stack(neurons)


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
        _tell(module, block, int(some_heads.sum()))


def refit(layer: Any, inputs: Any, outputs: Any, group: int = 0, ridge: float = _RIDGE) -> None:
    """Fit a linear layer so that `inputs` (tokens, in) give `outputs` (tokens, out) with least squares.

    With `group` 0 the weight and the bias are free, held near what they are by a ridge; otherwise only one factor for
    each `group` neighbouring inputs is, and is multiplied into the weight.
    """
    import torch

    with torch.no_grad():
        weight, x, y = layer.weight.double(), inputs.double(), outputs.double()
        if group:
            # Output = sum over groups of factor * (x_g W_g^T): a small system in the factors.
            parts = [x[:, i : i + group] @ weight[:, i : i + group].T for i in range(0, x.shape[1], group)]
            if group == 1:
                gram, right = (x.T @ x) * (weight.T @ weight), ((y - layer.bias.double()) @ weight * x).sum(dim=0)
            else:
                flat = torch.stack([part.flatten() for part in parts])
                gram, right = flat @ flat.T, flat @ (y - layer.bias.double()).flatten()
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


def latencies(clock: Callable[[Any], float], module: Any, blocks: Sequence[Any], heads: int, neurons: int) -> Costs:
    """Milliseconds of one layer by heads and by neurons kept: the whole model is timed with all its layers narrowed to
    a few widths; in straight lines between them, and never falling.

    What no width changes (norms, embeddings) is left out: it cannot be saved.
    """
    import copy

    def timed(some_heads: int, some_neurons: int) -> float:
        smaller = copy.deepcopy(module)
        wide, few = np.arange(heads * blocks[0].head) < some_heads * blocks[0].head, np.arange(neurons) < some_neurons
        for block in blocks:
            for name in (block.query, block.key, block.value):
                cut_outputs(smaller, name, wide)
            cut_inputs(smaller, block.output, wide)
            cut_outputs(smaller, block.up, few)
            cut_inputs(smaller, block.down, few)
            _tell(smaller, block, some_heads)
        return clock(smaller)

    some = sorted({1, max(1, heads // 2), heads})
    few = sorted({max(1, neurons // 16), max(1, neurons // 2), neurons})
    whole = timed(heads, neurons)
    by_heads = [whole if n == heads else timed(n, neurons) for n in some]
    by_neurons = [whole if n == neurons else timed(heads, n) for n in few]

    def curve(places: list[int], seconds: list[float], most: int) -> np.ndarray:
        rising = np.maximum.accumulate(seconds) / len(blocks)
        # A straight line through the first two points says what nothing at all would take.
        slope = (rising[1] - rising[0]) / (places[1] - places[0]) if len(places) > 1 else rising[0] / places[0]
        start = max(rising[0] - slope * places[0], 0.0)
        return np.maximum(
            np.interp(np.arange(most + 1), [0, *places], [start, *rising]) - start, 1e-9 * np.arange(most + 1)
        )

    return Costs(curve(some, by_heads, heads), curve(few, by_neurons, neurons))


def _batches(draft: Draft, samples: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """The first `samples` training examples with their labels, in batches of like length."""
    import torch

    examples, targets = draft.data.training()
    lengths = [len(next(iter(example.values()))) for example in examples[:samples]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        longest = lengths[rows[-1]]
        inputs = {
            name: torch.tensor([[*examples[r][name], *[draft.pad.get(name, 0)] * (longest - lengths[r])] for r in rows])
            for name in draft.inputs
        }
        yield inputs, torch.from_numpy(targets[rows])


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


def _tell(module: Any, block: Any, heads: int) -> None:
    """Set right where an attention says how many heads it has; only its width decides what it computes."""
    owner = module.get_submodule(block.query.rpartition(".")[0])
    for name, value in (("num_attention_heads", heads), ("n_heads", heads), ("all_head_size", heads * block.head)):
        if hasattr(owner, name):
            setattr(owner, name, value)


def _heads(module: Any, block: Any) -> int:
    return int(module.get_submodule(block.query).out_features) // int(block.head)


def _neurons(module: Any, block: Any) -> int:
    return int(module.get_submodule(block.up).out_features)
