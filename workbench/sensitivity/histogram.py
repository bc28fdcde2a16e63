"""Distributions: a layer's weight and input as histograms, with the grid they are put on and what it cuts off.

They show why a layer is sensitive: a few far values stretch the range, and all the others share a few steps. Left out:
distributions of outputs and gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from workbench.draft import Draft, Example, Precision, resolve_keep, silent
from workbench.errors import Refused
from workbench.int8 import STEPS, TOP, scale_zero, weight_scales
from workbench.recipe import plugin
from workbench.sensitivity.forms import Compressed, compressed, scaled
from workbench.sensitivity.scan import Tell
from workbench.sensitivity.stage import Stage, by_token
from workbench.tasks.base import Task
from workbench.techniques._int8 import matrix
from workbench.techniques.base import Technique

if TYPE_CHECKING:
    import torch

BINS = 201


@dataclass(frozen=True, eq=False)
class Distribution:
    """One tensor of one layer: `what` is weight or input; `edges` (bins + 1,) and `counts` (bins,) of all its values.

    By channel (outputs of a weight, inputs of an input), each (channels,): the least and the largest value, and the
    standard deviation. The grid: `steps` (0 where the tensor stays float), `scale` by channel of a weight and one of an
    input, `zero` point, `low` and `high`, what the grid reaches (NaN without one); `clipped`, the share of values
    outside, and `used`, how many of the steps half of all values (the middle half) lie on.
    """

    layer: str
    what: str
    edges: np.ndarray
    counts: np.ndarray
    channel_low: np.ndarray
    channel_high: np.ndarray
    channel_deviation: np.ndarray
    steps: int = 0
    scale: tuple[float, ...] = ()
    zero: int = 0
    low: float = float("nan")
    high: float = float("nan")
    clipped: float = 0.0
    used: float = float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN, which JSON has not, becomes None."""
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in plain.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The distribution that `to_json` wrote."""
        arrays = {f.name for f in fields(cls) if f.type == "np.ndarray"}
        made: dict[str, Any] = {k: np.array(v) if k in arrays else v for k, v in data.items()}
        made |= {k: float("nan") for k, v in data.items() if v is None}
        return cls(**{**made, "scale": tuple(data["scale"])})


def histograms(
    task: Task,
    technique: Technique | str = "static_int8",
    layers: Iterable[str] | None = None,
    *,
    samples: int = 64,
    split: str = "select",
    bins: int = BINS,
    tell: Tell = silent,
) -> list[Distribution]:
    """Weight and input of each layer, with the grids that `technique` gives them; `layers` are patterns, None for all.

    Raises what `scan` raises, and what the technique raises.
    """
    made = plugin("techniques", technique) if isinstance(technique, str) else technique
    draft = task.draft()
    draft.sequence = getattr(task, "sequence", draft.sequence)
    return draft_histograms(draft, task.encoded(split, samples), made, layers, bins=bins, tell=tell)


def draft_histograms(
    draft: Draft,
    examples: Sequence[Example],
    technique: Technique,
    layers: Iterable[str] | None = None,
    *,
    bins: int = BINS,
    tell: Tell = silent,
) -> list[Distribution]:
    """`histograms` of a draft. The examples are run twice: for the ends, then to count."""
    if draft.module is None:
        raise Refused("Histograms are of a PyTorch module, and an ONNX file has none.", do="start from the checkpoint")
    found = compressed(draft, technique)
    names = [name for name in draft.quantizable() if name in found.forms]
    if layers is not None:
        chosen = resolve_keep(layers, names)
        names = [name for name in names if name in chosen]
    stage = Stage(draft, {name: found.forms[name] for name in names}, examples)
    tell(0.1, "looking for the ends of the inputs")
    ends = _ends(stage, names)
    tell(0.5, "counting the inputs")
    counts, inside = _counts(stage, names, ends, found, bins)
    result = []
    for name in names:
        result.append(_weight(draft, found, name, bins))
        seen, grid = ends[name], _grid(found, name)
        edges = np.linspace(*seen.span, bins + 1)
        clipped = 1 - inside[name] / (seen.count * len(seen.low)) if grid else 0.0
        used = _used(counts[name], edges, grid.get("scale", ()))
        plain = Distribution(name, "input", edges, counts[name], seen.low, seen.high, seen.deviation)
        result.append(replace(plain, **grid, clipped=max(clipped, 0.0), used=used))
    tell(1.0, "done")
    return result


@dataclass
class _Ends:
    """By channel, each (channels,): least, largest, sum, sum of squares; and the number of tokens."""

    low: np.ndarray
    high: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    count: int

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """Of values (tokens, channels)."""
        return cls(values.min(0), values.max(0), values.sum(0), (values**2).sum(0), len(values))

    def joined(self, other: _Ends) -> _Ends:
        """Of the tokens of both."""
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return _Ends(low, high, self.total + other.total, self.squares + other.squares, self.count + other.count)

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation by channel."""
        return np.asarray(np.sqrt(np.maximum(self.squares / self.count - (self.total / self.count) ** 2, 0)))

    @property
    def span(self) -> tuple[float, float]:
        """Ends of a histogram of all values."""
        low, high = float(self.low.min()), float(self.high.max())
        return (low, high) if high > low else (low - 1e-6, high + 1e-6)


def _ends(stage: Stage, names: Sequence[str]) -> dict[str, _Ends]:
    found: dict[str, _Ends] = {}

    def see(name: str, tokens: torch.Tensor) -> None:
        mine = _Ends.of(tokens.double().numpy())
        found[name] = found[name].joined(mine) if name in found else mine

    _watch(stage, names, see)
    return found


def _counts(
    stage: Stage, names: Sequence[str], ends: dict[str, _Ends], found: Compressed, bins: int
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Histogram of all values of each layer's input, and how many of them lie inside its grid."""
    counts = {name: np.zeros(bins) for name in names}
    inside = dict.fromkeys(names, 0)
    grids = {name: _grid(found, name) for name in names}

    def see(name: str, tokens: torch.Tensor) -> None:
        values = tokens.double().numpy()
        counts[name] += np.histogram(values, bins, ends[name].span)[0]
        if grids[name]:
            half = grids[name]["scale"][0] / 2
            reach = grids[name]["low"] - half, grids[name]["high"] + half
            inside[name] += int(((values >= reach[0]) & (values <= reach[1])).sum())

    _watch(stage, names, see)
    return counts, inside


def _watch(stage: Stage, names: Sequence[str], see: Any) -> None:
    """Call `see(name, tokens)` with the input of each layer, (tokens, in), padding left out."""
    import torch

    batch = stage.batches[0]

    def hook(name: str) -> Any:
        def look(part: Any, args: tuple) -> None:
            see(name, by_token(scaled(part, args[0]), batch))

        return look

    handles = [stage.module.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            for batch in stage.batches:
                stage.module(**batch.inputs)
    finally:
        for handle in handles:
            handle.remove()


def _weight(draft: Draft, found: Compressed, name: str, bins: int) -> Distribution:
    values = matrix(draft.module.get_submodule(name)).detach().double().numpy()
    precision = found.draft.plan.layers.get(name, Precision(found.draft.plan.base))
    counts, edges = np.histogram(values, bins)
    channels = values.min(axis=1), values.max(axis=1), values.std(axis=1)
    grid: dict[str, Any] = {}
    if precision.kind in ("int8_static", "int8_dynamic"):
        scales = weight_scales(values.astype(np.float32), precision.per_channel)
        top = float(scales.max()) * TOP
        grid = {"steps": 2 * TOP + 1, "scale": tuple(map(float, scales)), "low": -top, "high": top}
    elif name in found.draft.grids:
        one = found.draft.grids[name]
        decoded = one.weight().double().numpy()
        scales = one.scales.mean(dim=1).tolist()
        grid = {"steps": 2**one.bits, "scale": tuple(scales), "low": float(decoded.min()), "high": float(decoded.max())}
    plain = Distribution(name, "weight", edges, counts.astype(float), *channels)
    return replace(plain, **grid, used=_used(plain.counts, edges, grid.get("scale", ())))


def _grid(found: Compressed, name: str) -> dict[str, Any]:
    """The grid of a layer's input, where it is known before the model runs."""
    limits = found.ranges.get(name)
    if limits is None:
        return {}
    scale, zero = scale_zero(limits)
    return {"steps": STEPS + 1, "scale": (scale,), "zero": zero, "low": -zero * scale, "high": (STEPS - zero) * scale}


def _used(counts: np.ndarray, edges: np.ndarray, scales: Sequence[float]) -> float:
    """Steps between the quartiles of a histogram, on the mean scale."""
    if not scales:
        return float("nan")
    share = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    low, high = np.interp((0.25, 0.75), share, edges)
    return float((high - low) / np.mean(scales))
