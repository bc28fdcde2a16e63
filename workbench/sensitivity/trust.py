"""How far to trust a probe: Spearman's rho of its ranking with the flips that a real runtime gives, layer by layer.

    found = trust(task, StaticInt8(calibration="minmax"), OpenVINO())
    found.table                                     a row for each probe and direction: rho, interval, seconds

The truth of a layer is the share of answers that change when this layer alone is compressed, lowered and run. Source of
the measure: C. Spearman, 1904; its interval is a bootstrap over layers, which are taken to be drawn independently.
Where few answers change at all most layers tie, and no probe can tell them apart: more examples, or the true KL instead
(`truth="kl"`), say more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.backends.base import Backend
from workbench.draft import silent
from workbench.errors import Refused
from workbench.measure.estimate import Estimate, with_percentiles
from workbench.registry import find, members
from workbench.sensitivity.scan import Tell, order, scan
from workbench.tasks.base import Task
from workbench.techniques.base import Technique

if TYPE_CHECKING:
    import pandas as pd

_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Trust:
    """`table`: probe, direction, rho, rho_low, rho_high, layers, seconds, evaluations, note, the best first; `scores`:
    layer, truth, and a column `probe direction` for each; `truth`: the scan on the real runtime."""

    table: pd.DataFrame
    scores: pd.DataFrame
    truth: pd.DataFrame


def trust(
    task: Task,
    technique: Technique | str = "static_int8",
    backend: Backend | None = None,
    probes: Iterable[str] | None = None,
    directions: Iterable[str] = ("only", "all_but"),
    *,
    truth: str = "flips",
    truth_samples: int = 10_000,
    truth_split: str = "select",
    layers: Iterable[str] | None = None,
    samples: int = 256,
    split: str = "select",
    tell: Tell = silent,
) -> Trust:
    """Scan with every probe (or those named) and compare with the real runtime, OpenVINO unless another one is given.

    `truth_samples` of `truth_split` are run there for every layer, which takes seconds a layer; everything is kept as
    scans are. A probe that cannot look at this technique has a row without rho, and the reason. Raises what `scan`
    raises for the truth.
    """
    import pandas as pd

    runtime = backend if backend is not None else find("backends", "openvino")(batch=16)
    wanted = tuple(layers or ())
    jobs = [(probe, direction) for probe in (probes or members("probes")) for direction in directions]
    told = _Share(tell, 2 * len(jobs) + len(jobs))
    real = scan(
        task, technique, truth, "only", wanted, samples=truth_samples, split=truth_split, backend=runtime,
        tell=told.part("truth", 2 * len(jobs)),
    )  # fmt: skip
    scores = real[["layer", "score"]].rename(columns={"score": "truth"})
    rows: list[dict[str, Any]] = []
    for probe, direction in jobs:
        row: dict[str, Any] = {"probe": probe, "direction": direction, "layers": len(real), "note": ""}
        try:
            order(technique, probe, direction)
            found = scan(
                task, technique, probe, direction, wanted, samples=samples, split=split, tell=told.part(probe, 1)
            )
        except Refused as reason:
            rows.append({**row, "note": reason.what})
            continue
        scores[f"{probe} {direction}"] = found.score.to_numpy()
        rho = spearman(found.score.to_numpy(), real.score.to_numpy())
        row |= {"rho": rho.value, "rho_low": rho.low, "rho_high": rho.high}
        rows.append({**row, "seconds": found.seconds.sum(), "evaluations": found.evaluations.sum()})
    columns = ["probe", "direction", "rho", "rho_low", "rho_high", "layers", "seconds", "evaluations", "note"]
    table = pd.DataFrame(rows, columns=columns).sort_values("rho", ascending=False, kind="stable", ignore_index=True)
    table.attrs = {"truth": real.attrs["title"], "examples": truth_samples}
    return Trust(table, scores, real)


def spearman(one: np.ndarray, other: np.ndarray, seed: int = 0) -> Estimate:
    """Rank correlation of two lists of scores (layers,), ties sharing their mean rank, with a bootstrap over layers.

    What is no number is taken as the largest. NaN where one list is all ties, or fewer than three layers are given.
    """
    pair = np.stack([np.where(np.isnan(a), np.inf, a) for a in (np.asarray(one, float), np.asarray(other, float))])
    n = pair.shape[1]
    if n < 3:
        return Estimate(np.nan, np.nan, np.nan, n)
    value = float(_correlation(pair[:, None, :])[0])
    drawn = np.random.default_rng(seed).integers(0, n, size=(_RESAMPLES, n))
    found = _correlation(pair[:, drawn])
    found = found[np.isfinite(found)]
    if np.isnan(value) or not len(found):
        return Estimate(np.nan, np.nan, np.nan, n)
    return with_percentiles(value, found, n)


def _correlation(pairs: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the ranks: (2, draws, n) -> (draws,)."""
    import pandas as pd

    ranks = np.stack([pd.DataFrame(values).rank(axis=1).to_numpy() for values in pairs])
    centred = ranks - ranks.mean(axis=2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        top = (centred[0] * centred[1]).sum(axis=1)
        return np.asarray(top / np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1)))


class _Share:
    """Tells of several jobs as of one, by the weight of each."""

    def __init__(self, tell: Tell, total: int) -> None:
        self._tell, self._total, self._done = tell, total, 0

    def part(self, name: str, weight: int) -> Tell:
        before = self._done
        self._done += weight
        return lambda share, words: self._tell((before + weight * share) / self._total, f"{name}: {words}")
