"""Pruning curves: what each layer's sparsity does to the model's answers, layer by layer.

    curves(task, sparsities=(0.3, 0.5, 0.7, 0.9))

One scan with the sparsity as its knob. Source: H. Li et al., "Pruning filters for efficient ConvNets", ICLR 2017,
arXiv:1608.08710, section 3.2, whose curves are of accuracy. Left out: sparsities that suit each other over layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from workbench.errors import UserError
from workbench.sensitivity.probes.base import Probe
from workbench.sensitivity.scan import scan
from workbench.tasks.base import Task
from workbench.techniques.base import Technique

if TYPE_CHECKING:
    import pandas as pd

SPARSITIES = (0.3, 0.5, 0.7, 0.9)


def curves(
    task: Task,
    technique: Technique | str = "prune",
    probe: Probe | str = "kl",
    sparsities: Iterable[float] = SPARSITIES,
    **options: Any,
) -> pd.DataFrame:
    """The rows of `scan` for every layer and sparsity, in a column `sparsity`; `options` are those of `scan`.

    Raises `UserError` for fewer than two sparsities, and what `scan` raises.
    """
    values = tuple(dict.fromkeys(sparsities))
    if len(values) < 2:
        raise UserError(f"sparsities = {values} make no curve.", allowed="at least two shares between 0 and 0.99")
    return scan(task, technique, probe, knobs={"sparsity": values}, **options)


def tolerated(found: pd.DataFrame, most: float) -> pd.Series:
    """The largest sparsity of each layer whose score is at most `most`, and so at every smaller one; 0 for none."""
    passing = found.assign(ok=found.score <= most).sort_values("sparsity")
    kept = passing.groupby("layer", sort=False).ok.cumprod().astype(bool)
    best = passing[kept].groupby("layer").sparsity.max()
    return best.reindex(found.layer.unique(), fill_value=0.0).rename("tolerated")
