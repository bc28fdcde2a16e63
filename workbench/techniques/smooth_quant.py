"""SmoothQuant: a layer's input divided by a factor for each channel, its weight multiplied by it; the function stays.

A few channels of an activation are much larger than the rest, and one scale for the whole tensor leaves the rest few
steps. Weights have one scale for each output and bear it better. The rescaling is done on the module, so every runtime
gains. Where what comes before can be divided itself (the value projection before the attention's output projection)
that is done, elsewhere the layer becomes a `ScaledLinear`. Left out: folding into a norm (in post-norm encoders its
output also goes around the layer), tied weights, GPT-2's Conv1D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.draft import Draft, ModelFacts
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.techniques._int8 import chunks, error, finite, quantized, quantized_weight, sharing, watch
from workbench.techniques._plan import no_layers
from workbench.techniques.base import Technique

if TYPE_CHECKING:
    import torch

#: What `search` tries beside leaving the layer as it is.
_ALPHAS = tuple(round(0.05 * i, 2) for i in range(2, 20))
#: Tokens on which `search` compares.
_TOKENS = 2048
_LEAST = 1e-5


class SmoothQuant(Technique):
    """Even out activations before INT8: part of their spread moves into the weights, exactly and for every runtime.

    Source: G. Xiao et al., "SmoothQuant: accurate and efficient post-training quantization for large language models",
    ICML 2023, arXiv:2211.10438. Cost: seconds of calibration, and one multiplication for each input that no layer
    before it can absorb. Helps before static_int8 and dynamic_int8 where a few channels of an activation are far larger
    than the rest; alone it changes nothing.
    """

    name = "smooth_quant"
    group = "quantization"
    needs = "calibration"
    source = "Xiao et al. 2022, arXiv:2211.10438"
    phase = 4

    search: bool = knob(True, help="for every input the alpha of least squared error, or none; otherwise `alpha`")
    alpha: float = knob(
        0.5,
        low=0,
        high=1,
        search=(0.3, 0.5, 0.7),
        help="how much of the spread moves into the weights: 0 none of it, 1 all; at its default while `search` is on",
    )
    samples: int = knob(128, low=1, high=10_000, unit="examples", help="training examples to calibrate on")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search:
            # It has no say then, and equal recipes must have equal ids.
            object.__setattr__(self, "alpha", self.knobs()["alpha"].default)

    @property
    def note(self) -> str:
        """Alone it is of no use."""
        return "it prepares for INT8 and changes nothing by itself: put static_int8 or dynamic_int8 after it"

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module, or nothing to quantize."""
        return super().fits(facts) or no_layers(self.name, facts)

    def apply(self, draft: Draft) -> Draft:
        """Rescale every quantizable layer that is not kept; raises `Refused`, `DataError` as calibration does."""
        reason = self.fits(draft.facts)
        if reason:
            raise Refused(f"{self.name} cannot be done here: {reason}")
        module = draft.module
        names = _takers(draft)
        given = chunks(draft, self.samples)
        groups = sharing(module, names, given[0])
        seen = _look(module, [group[0] for group in groups], given, self.search)
        before = _absorbers(draft, groups)
        chosen: list[float | None] = []
        # Those that change the layer before them come first: that layer is then rescaled as it will be.
        for group in sorted(groups, key=lambda group: group[0] not in before):
            inputs = seen[group[0]]
            layers = [module.get_submodule(name) for name in group]
            alpha = best_alpha(inputs, [layer.weight.detach() for layer in layers]) if self.search else self.alpha
            chosen.append(alpha)
            if alpha is None:
                continue
            factors = smoothing(inputs.largest, [layer.weight.detach() for layer in layers], alpha)
            if group[0] in before:
                divide_outputs(module.get_submodule(before[group[0]]), factors)
                multiply_inputs(layers[0], factors)
            else:
                for name in group:
                    rescale(module, name, factors)
        draft.notes.append(_told(chosen, groups, before))
        return draft


class Inputs:
    """What one input of shape (tokens, channels) is like: its ends by channel, and some of its rows."""

    def __init__(self) -> None:
        self.low: Any = None
        self.high: Any = None
        self.rows: list[Any] = []

    def add(self, values: torch.Tensor, rows: int) -> None:
        """Look at values (tokens, channels) and keep `rows` of them, evenly spread."""
        low, high = values.amin(dim=0), values.amax(dim=0)
        self.low = low if self.low is None else self.low.minimum(low)
        self.high = high if self.high is None else self.high.maximum(high)
        if rows:
            self.rows.append(values[:: max(1, len(values) // rows)][:rows].clone())

    @property
    def largest(self) -> torch.Tensor:
        """The largest absolute value of each channel, shape (channels,)."""
        found: torch.Tensor = self.low.abs().maximum(self.high.abs())
        return found


def smoothing(largest: torch.Tensor, weights: Sequence[torch.Tensor], alpha: float) -> torch.Tensor:
    """Factors (in,) by which an input is divided and weights (out, in) are multiplied: equation 4 of Xiao et al.,
    max|X_j|^alpha / max|W_j|^(1 - alpha), the weights' maximum over all layers that share the input."""
    import torch

    tops = torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0)
    factors = largest.clamp(min=_LEAST) ** alpha / tops.clamp(min=_LEAST) ** (1 - alpha)
    # A channel that is always zero says nothing; only the ratios of the factors matter.
    factors = torch.where((largest > _LEAST) & (tops > _LEAST), factors, torch.ones_like(factors))
    return factors.clamp(min=_LEAST)


def best_alpha(inputs: Inputs, weights: Sequence[torch.Tensor]) -> float | None:
    """The alpha whose INT8 outputs are nearest to the float ones in squared error; None where it is best to leave the
    input as it is. The input's range is all that was seen, weights have a scale for each output."""
    import torch

    rows = torch.cat(inputs.rows)
    wanted = [rows @ weight.T for weight in weights]

    def loss(factors: torch.Tensor) -> float:
        limits = float((inputs.low / factors).min()), float((inputs.high / factors).max())
        values = quantized(rows / factors, limits)
        given = (values @ quantized_weight(weight * factors, True).T for weight in weights)
        return sum(error(one, other)[0] for one, other in zip(wanted, given, strict=True))

    losses: dict[float | None, float] = {None: loss(torch.ones_like(inputs.low))}
    losses |= {alpha: loss(smoothing(inputs.largest, weights, alpha)) for alpha in _ALPHAS}
    return min(losses, key=lambda alpha: losses[alpha])


def divide_outputs(layer: Any, factors: torch.Tensor) -> None:
    """Make a linear layer give its outputs divided by `factors` (out,)."""
    import torch

    with torch.no_grad():
        layer.weight.div_(factors[:, None])
        if layer.bias is not None:
            layer.bias.div_(factors)


def multiply_inputs(layer: Any, factors: torch.Tensor) -> None:
    """Make a linear layer take inputs that come divided by `factors` (in,)."""
    import torch

    with torch.no_grad():
        layer.weight.mul_(factors)


def rescale(module: Any, name: str, factors: torch.Tensor) -> None:
    """Let the layer called `name` divide its input by `factors` (in,) itself, and multiply its weight by them."""
    import torch

    from workbench.loading.structure import replace
    from workbench.modules import ScaledLinear

    old = module.get_submodule(name)
    new = old
    if not isinstance(old, ScaledLinear):
        new = ScaledLinear(old.in_features, old.out_features, old.bias is not None).train(old.training)
        new.weight, new.bias = old.weight, old.bias
        replace(module, name, new)
    multiply_inputs(new, factors)
    with torch.no_grad():
        new.input_scale.div_(factors)


def _takers(draft: Draft) -> list[str]:
    """The layers that can be rescaled: linear, not kept, their weight their own."""
    import torch

    owners: dict[int, int] = {}
    for _, parameter in draft.module.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    layers = {name: draft.module.get_submodule(name) for name in draft.quantizable()}
    names = [n for n, part in layers.items() if isinstance(part, torch.nn.Linear) and owners[id(part.weight)] == 1]
    if not names:
        raise Refused(
            "smooth_quant has no layer left to rescale: every one is kept, or shares its weight.",
            allowed="at least one linear layer that `keep` does not match",
            do="take patterns out of `keep`",
        )
    return names


def _look(module: Any, names: Sequence[str], given: Sequence[Any], rows: bool) -> dict[str, Inputs]:
    found = {name: Inputs() for name in names}

    def see(name: str, _: list[int], values: torch.Tensor, output: torch.Tensor) -> None:
        finite(name, values)
        found[name].add(values.flatten(0, -2), -(-_TOKENS // len(given)) if rows else 0)

    watch(module, names, given, see)
    return found


def _absorbers(draft: Draft, groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Value projection by output projection, where both may be changed: attention mixes tokens and not channels, so a
    factor for each channel of the value comes out of it unchanged."""
    from workbench.anatomy import layout

    try:
        blocks = layout(draft.module)
    except Refused:
        return {}
    alone, free = {group[0] for group in groups if len(group) == 1}, {name for group in groups for name in group}
    return {block.output: block.value for block in blocks if block.output in alone and block.value in free}


def _told(chosen: Sequence[float | None], groups: Sequence[Sequence[str]], before: dict[str, str]) -> str:
    alphas = [alpha for alpha in chosen if alpha is not None]
    count = sum(map(len, groups))
    ends = f"alpha {min(alphas):g} to {max(alphas):g}, median {np.median(alphas):g}" if alphas else "none needed it"
    return (
        f"smooth_quant rescaled {len(alphas)} of {len(groups)} inputs of {count} layers ({ends}); "
        f"{len(before)} can be folded into the layer before, the rest is multiplied at run time"
    )
