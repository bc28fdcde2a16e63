"""Which weights become zero together: single ones, N of M neighbours, blocks. Pure functions on tensors.

N:M is that of A. Mishra et al., "Accelerating sparse deep neural networks", arXiv:2104.08378, and A. Zhou et al.,
arXiv:2102.04010: of M neighbouring inputs at most N stay. (Intel Neural Compressor read N:M as N that go; 2:4 is the
same in both.) RxC are blocks of R outputs by C inputs, as Neural Compressor wrote them: 4x1 are four outputs of one
input. Left out: patterns across layers, and permutations of the inputs that would leave N:M more to choose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Which weights compete with each other: those of one output, of one layer, of all layers.
SCOPES = ("row", "local", "global")
ALLOWED = "'1x1' (single weights), blocks of outputs x inputs such as '4x1', or N:M with N < M such as '2:4'"


@dataclass(frozen=True)
class Pattern:
    """Blocks of `rows` outputs by `columns` inputs; with `stay`, as many of `columns` neighbours that may stay."""

    rows: int = 1
    columns: int = 1
    stay: int = 0

    def __str__(self) -> str:
        return f"{self.stay}:{self.columns}" if self.stay else f"{self.rows}x{self.columns}"

    @property
    def single(self) -> bool:
        """Whether every weight goes on its own account."""
        return self.rows * self.columns == 1 or bool(self.stay)

    @property
    def fixed(self) -> float | None:
        """The sparsity that N:M comes to, None for other patterns."""
        return 1 - self.stay / self.columns if self.stay else None

    def divides(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of this shape (out, in) consists of whole blocks."""
        return shape[0] % self.rows == 0 and shape[1] % self.columns == 0


def parse(text: str) -> Pattern:
    """The pattern that `text` names; raises `ValueError` for none."""
    if matched := re.fullmatch(r"(\d+)x(\d+)", text):
        rows, columns = map(int, matched.groups())
        if rows and columns:
            return Pattern(rows, columns)
    if matched := re.fullmatch(r"(\d+):(\d+)", text):
        stay, columns = map(int, matched.groups())
        if 0 < stay < columns:
            return Pattern(1, columns, stay)
    raise ValueError(f"{text!r} is no pattern")


def mask(scores: Mapping[str, Any], pattern: Pattern, sparsity: float, scope: str = "local") -> dict[str, Any]:
    """What to prune: a bool tensor (out, in) for each score (out, in), True where the weight becomes zero.

    Of n blocks exactly `round(sparsity * n)` go, n counted in each row of blocks ("row"), within each layer ("local")
    or over all ("global"); a block's score is its sum. With N:M the lowest M - N of M neighbours may go; a `sparsity`
    below the one that this comes to takes the lowest of those. Of equal scores the earlier goes first, in the order of
    the mapping and then of the rows; NaN stays longest. Raises `ValueError` where a pattern does not divide a shape or
    N:M cannot reach the sparsity.
    """
    import torch

    wrong = [name for name, score in scores.items() if not pattern.divides(tuple(score.shape))]
    if wrong:
        raise ValueError(f"{pattern} does not divide {wrong[0]} of shape {tuple(scores[wrong[0]].shape)}")
    units = {name: _units(score.detach().float(), pattern) for name, score in scores.items()}
    if pattern.fixed is not None:
        if sparsity > pattern.fixed + 1e-9:
            raise ValueError(f"{pattern} leaves no more than {pattern.fixed:g} zeros, and {sparsity:g} are asked for")
        # What must stay is out of the competition; all the rest goes where the sparsity is the pattern's own.
        most = torch.finfo(torch.float32).max
        units = {n: unit.clamp(max=most).masked_fill(~_lowest(unit, pattern), torch.inf) for n, unit in units.items()}
    chosen = _choose(units, sparsity, scope)
    return {name: _entries(one, pattern) for name, one in chosen.items()}


def smallest(values: Any, count: int) -> Any:
    """A bool tensor (n,), True for exactly the `count` smallest of `values` (n,); ties by position."""
    import torch

    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    threshold = values.kthvalue(count).values
    chosen = values < threshold
    equal = torch.nonzero(values == threshold).flatten()
    chosen[equal[: count - int(chosen.sum())]] = True
    return chosen


def _choose(units: Mapping[str, Any], sparsity: float, scope: str) -> dict[str, Any]:
    import torch

    if scope == "row":
        return {name: _each_row(unit, round(sparsity * unit.shape[1])) for name, unit in units.items()}
    if scope == "local":
        return {
            name: smallest(unit.flatten(), round(sparsity * unit.numel())).reshape(unit.shape)
            for name, unit in units.items()
        }
    flat = torch.cat([unit.flatten() for unit in units.values()])
    parts = smallest(flat, round(sparsity * flat.numel())).split([unit.numel() for unit in units.values()])
    return {name: part.reshape(unit.shape) for (name, unit), part in zip(units.items(), parts, strict=True)}


def _each_row(values: Any, count: int) -> Any:
    """True for the `count` smallest of every row of `values` (rows, n); ties by position."""
    import torch

    order = values.argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order, True)


def _units(score: Any, pattern: Pattern) -> Any:
    """One score for each block (or for each weight with N:M); NaN becomes the highest."""
    import torch

    score = score.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    if pattern.single:
        return score
    rows, columns = score.shape
    blocks = score.reshape(rows // pattern.rows, pattern.rows, columns // pattern.columns, pattern.columns)
    return blocks.sum(dim=(1, 3)).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _lowest(score: Any, pattern: Pattern) -> Any:
    """True for the M - N lowest of every M neighbours."""
    groups = score.reshape(-1, pattern.columns)
    return _each_row(groups, pattern.columns - pattern.stay).reshape(score.shape)


def _entries(chosen: Any, pattern: Pattern) -> Any:
    """The mask of single weights from one of blocks."""
    if pattern.single:
        return chosen
    return chosen.repeat_interleave(pattern.rows, dim=0).repeat_interleave(pattern.columns, dim=1)
