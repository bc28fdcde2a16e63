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
from workbench.techniques._shrink import cut_inputs, cut_outputs, shrink, tell
from workbench.techniques.base import Technique

_BATCH = 32


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
            tell(smaller, block, some_heads)
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


def _heads(module: Any, block: Any) -> int:
    return int(module.get_submodule(block.query).out_features) // int(block.head)


def _neurons(module: Any, block: Any) -> int:
    return int(module.get_submodule(block.up).out_features)
