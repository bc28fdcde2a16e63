"""Low rank: a linear layer becomes the product of two narrow ones, where that saves multiplications.

Either the best product for the weight (its truncated SVD), or the best one for what the layer gives on calibration
examples. Which layer gets which rank is a search over all of them. Left out: Fisher-weighted factors, products that
share a factor between layers, layers one after the other with what came before already smaller, and training
afterwards (`distil`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.draft import Draft, ModelFacts
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.techniques._observe import batches, see_inputs
from workbench.techniques._sparse import upright
from workbench.techniques.base import Need, Technique

#: A layer with a smaller share of the MACs, such as the classifier, has nothing to save.
_WORTH = 1e-3
#: The least variance of the inputs in any direction, as a share of the mean one.
_LEAST = 1e-6


class LowRank(Technique):
    """Replace linear layers by products of two narrow ones: fewer MACs on every runtime, no training.

    Source: X. Wang et al., "SVD-LLM: truncation-aware singular value decomposition for large language model
    compression", ICLR 2025, arXiv:2403.07378 (whitening by the inputs' covariance, after Z. Yuan et al., "ASVD",
    arXiv:2312.05821). Cost: one forward pass over the calibration examples and two decompositions of each layer, a
    minute on two cores; eight bytes for each pair of inputs of a layer. Helps where layers are wide and what they take
    lies near a smaller space: of the 784 right answers of MiniLM-L6 on SST-2, equal shares leave 783 at 0.74 of the
    MACs and 773 at 0.58 (the global search, whose sum of losses spares most layers and cuts few of them deep, leaves
    762 at 0.75); `distil` can follow. A product of two layers is two calls, which a short sequence feels.
    """

    name = "low_rank"
    group = "pruning"
    needs = "calibration"
    source = "Wang et al. 2025, arXiv:2403.07378"
    phase = 1

    budget: float = knob(
        0.75, low=0.05, high=1.0, search=(0.6, 0.75, 0.9), help="share of the linear layers' MACs that is kept"
    )
    method: str = knob(
        "activation",
        choices=("activation", "svd"),
        help="the product nearest to what the layer gives on calibration examples, or nearest to its weight",
    )
    allot: str = knob(
        "uniform",
        choices=("uniform", "global"),
        help="the same share of every layer, or ranks that lose least over all layers together",
    )
    multiple: int = knob(16, low=1, high=512, help="ranks are rounded to this, which kernels like")
    samples: int = knob(256, low=1, high=100_000, unit="examples", help="training examples to look at (activation)")

    @property
    def note(self) -> str:
        """What to expect of it alone."""
        return "" if self.budget >= 0.7 else "below 0.7 without training afterwards it costs points: add distil"

    @property
    def asks(self) -> Need:
        """Nothing where only the weights are looked at."""
        return "nothing" if self.method == "svd" else self.needs

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module, or no linear layer."""
        reason = super().fits(facts)
        if reason or facts.layers:
            return reason
        return f"{self.name} factors linear layers, and none was found in this {facts.architecture}"

    def apply(self, draft: Draft) -> Draft:
        """Put `Factored` in the place of the layers where it saves something; the others stay whole, kept ones
        untouched.

        Raises `Refused` where every layer is kept and where the budget cannot be reached, `DataError` without
        calibration examples.
        """
        import torch

        if draft.module is None:
            raise Refused(self.fits(draft.facts) or f"{self.name} needs a PyTorch module")
        macs = _macs(draft)
        names = [name for name in divisible(draft) if macs[name] >= _WORTH * sum(macs.values())]
        if not names:
            raise Refused(
                f"{self.name} has no layer left to factor: every one is kept.",
                allowed="at least one linear layer that `keep` does not match, with a weight of its own",
                do="take patterns out of `keep`",
            )
        inputs = seen(draft, names, self.samples) if self.method == "activation" else {}
        layers = []
        for name in names:
            part = draft.module.get_submodule(name)
            weight = upright(draft.module, name, part.weight).detach().double()
            layers.append(Layer(name, weight, macs[name], self.multiple, inputs.get(name), part.bias is not None))
        wanted = self.budget * sum(macs.values()) - (sum(macs.values()) - sum(layer.macs for layer in layers))
        ranks = (search if self.allot == "global" else uniform)(layers, wanted)
        with torch.no_grad():
            for layer, rank in zip(layers, ranks, strict=True):
                if rank:
                    _put(draft.module, layer, rank)
        kept = 1 - sum(layer.macs - layer.cost(rank) for layer, rank in zip(layers, ranks, strict=True)) / sum(
            macs.values()
        )
        draft.notes.append(
            f"{sum(map(bool, ranks))} of {len(macs)} linear layers became products of two, "
            f"{kept:.1%} of the linear layers' MACs are left"
        )
        return draft


@dataclass(frozen=True)
class Inputs:
    """What a layer takes on the calibration examples: `mean` (in,), and `gram` (in, in), the mean of x xᵀ."""

    mean: Any
    gram: Any

    def root(self, centred: bool) -> Any:
        """S (in, in) with S Sᵀ = the covariance, or the gram where the mean counts as well; it has an inverse."""
        import torch

        matrix = self.gram - torch.outer(self.mean, self.mean) if centred else self.gram
        values, vectors = torch.linalg.eigh(matrix)
        # Inputs that hardly vary together are taken to vary a little: else nothing would be known of their weights.
        least = (_LEAST * values.mean()).clamp(min=torch.finfo(torch.float64).tiny)
        return vectors * values.clamp(min=least).sqrt()


class Layer:
    """A layer that may become a product: what each rank would cost and lose. Rank 0 stands for the layer as it is."""

    def __init__(
        self, name: str, weight: Any, macs: int, multiple: int, inputs: Inputs | None = None, bias: bool = True
    ) -> None:
        import torch

        self.name, self.weight, self.macs, self.inputs = name, weight, macs, inputs
        # With a bias the mean of the inputs is free: it goes there, and only what varies has to be met.
        self.root = inputs.root(centred=bias) if inputs else None
        squares = torch.linalg.svdvals(weight if self.root is None else weight @ self.root) ** 2
        total = max(float(squares.sum()), torch.finfo(torch.float64).tiny)
        self._lost = [1.0, *(1 - squares.cumsum(0) / total).tolist()]
        out, inside = weight.shape
        most = (out * inside - 1) // (out + inside)
        # Layers too small for the multiple take steps of their own.
        step = min(multiple, max(1, most // 4))
        self.ranks = [*range(step, most + 1, step), 0]

    def cost(self, rank: int) -> float:
        """MACs with this rank."""
        out, inside = self.weight.shape
        return self.macs * (rank * (out + inside) / (out * inside)) if rank else float(self.macs)

    def lost(self, rank: int) -> float:
        """Share of the squared output (of the squared weight without inputs) that this rank does not give."""
        return max(self._lost[rank], 0.0) if rank else 0.0


def factors(weight: Any, rank: int, root: Any = None) -> tuple[Any, Any]:
    """up (out, rank) and down (rank, in) with the least ‖weight − up · down‖, or the least ‖(weight − up · down) S‖ for
    a square `root` S: then, with S Sᵀ = the mean of x xᵀ, the least squared error of the outputs.

    SVD-LLM, theorem 3.2: the truncated SVD of weight · S, times the inverse of S.
    """
    import torch

    u, s, _ = torch.linalg.svd(weight if root is None else weight @ root, full_matrices=False)
    half = s[:rank].clamp(min=torch.finfo(s.dtype).tiny).sqrt()
    # S cancels: its inverse times the right singular vectors are the left ones times the weight.
    up, down = u[:, :rank] * half, (u[:, :rank].T @ weight) / half[:, None]
    return up, down


def search(layers: Sequence[Layer], budget: float) -> list[int]:
    """The rank of each layer (0 = whole) that lose the least in sum within `budget` MACs, by a price on a MAC.

    For each price every layer takes the rank with the least loss plus price; the lowest price whose sum of costs fits
    is found by bisection, and what it leaves of the budget goes to the layers that gain most by a MAC. Raises `Refused`
    where not even the smallest ranks fit.
    """

    def at(price: float) -> list[int]:
        # Of equal ones the cheaper rank.
        return [min((one.lost(r) + price * one.cost(r), one.cost(r), r) for r in one.ranks)[2] for one in layers]

    low, high = 0.0, 1.0
    _check(layers, budget)
    while _cost(layers, at(high)) > budget:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if _cost(layers, at(middle)) <= budget else (middle, high)
    ranks = at(high)
    while True:
        left = budget - _cost(layers, ranks)
        better = [
            ((one.lost(rank) - one.lost(other)) / (one.cost(other) - one.cost(rank)), -i, other)
            for i, (one, rank) in enumerate(zip(layers, ranks, strict=True))
            for other in one.ranks
            if 0 < one.cost(other) - one.cost(rank) <= left and one.lost(other) < one.lost(rank)
        ]
        if not better:
            return ranks
        _, place, other = max(better)
        ranks[-place] = other


def uniform(layers: Sequence[Layer], budget: float) -> list[int]:
    """The rank of each layer that keeps the same share of its MACs, within `budget` MACs; raises `Refused` where not
    even the smallest ranks fit."""
    _check(layers, budget)

    def at(share: float) -> list[int]:
        return [
            0
            if share >= 1
            else max((r for r in one.ranks if r and one.cost(r) <= share * one.macs), default=one.ranks[0])
            for one in layers
        ]

    low, high = 0.0, 1.0
    if _cost(layers, at(high)) <= budget:
        return at(high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _cost(layers, at(middle)) <= budget else (low, middle)
    return at(low)


def _check(layers: Sequence[Layer], budget: float) -> None:
    least = sum(one.cost(one.ranks[0]) for one in layers)
    if least > budget:
        raise Refused(
            "The budget does not pay for the smallest ranks of the layers that can be factored, with the others whole.",
            do="raise budget, lower multiple, or keep less",
        )


def _cost(layers: Sequence[Layer], ranks: Sequence[int]) -> float:
    return sum(one.cost(rank) for one, rank in zip(layers, ranks, strict=True))


def divisible(draft: Draft) -> list[str]:
    """The layers that may become products: not kept, not a part of a product, and with a weight of their own."""
    from workbench.modules import Factored

    owners = Counter(id(p) for _, p in draft.module.named_parameters(remove_duplicate=False))
    return [
        name
        for name in draft.quantizable()
        if owners[id(draft.module.get_submodule(name).weight)] == 1
        and not isinstance(draft.module.get_submodule(name.rpartition(".")[0]), Factored)
    ]


def seen(draft: Draft, names: Sequence[str], samples: int) -> dict[str, Inputs]:
    """Mean and gram of what each layer takes on `samples` calibration examples, padding left out."""
    sums: dict[str, list[Any]] = {}

    def add(name: str, tokens: Any) -> None:
        one = sums.setdefault(name, [0, 0.0, 0.0])
        one[0] += len(tokens)
        one[1] = one[1] + tokens.double().sum(dim=0)
        one[2] = one[2] + (tokens.T @ tokens).double()

    see_inputs(draft.module, names, batches(draft, samples), add)
    return {name: Inputs(total / count, gram / count) for name, (count, total, gram) in sums.items()}


def _macs(draft: Draft) -> dict[str, int]:
    """MACs of one example by quantizable layer."""
    import torch

    from workbench.measure.layers import layers

    example = {
        name: (torch.zeros if "type" in name else torch.ones)((1, draft.sequence), dtype=torch.long)
        for name in draft.inputs
    }
    return {layer.name: layer.macs for layer in layers(draft.module, example)}


def _put(module: Any, layer: Layer, rank: int) -> None:
    from workbench.loading.structure import replace
    from workbench.modules import Factored

    old = module.get_submodule(layer.name)
    up, down = factors(layer.weight, rank, layer.root)
    new = Factored(down.shape[1], rank, up.shape[0], old.bias is not None)
    new.down.weight.copy_(down)
    new.up.weight.copy_(up)
    if old.bias is not None:
        new.up.bias.copy_(old.bias)
        if layer.inputs is not None:
            new.up.bias.add_((layer.weight - up @ down) @ layer.inputs.mean)
    replace(module, layer.name, new.train(old.training))
