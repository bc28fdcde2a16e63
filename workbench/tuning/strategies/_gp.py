"""Gaussian process regression and expected improvement, as much of them as a search of some hundred points needs.

Source: C. E. Rasmussen, C. K. I. Williams, "Gaussian processes for machine learning", MIT Press 2006 (algorithm 2.1);
D. R. Jones et al., "Efficient global optimization of expensive black-box functions", J. Global Optimization 13, 1998;
M. Emmerich et al., "The computation of the expected improvement in dominated hypervolume of Pareto front
approximations", Leiden 2008. Left out: gradients; scales are chosen from a grid by the marginal likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: What the length scales, by group of features, are multiplied with to find the likeliest.
_SCALES = (0.35, 0.7, 1.4, 2.8)


@dataclass(frozen=True)
class Process:
    """What is believed of a function on points (n, features): around zero, a sum of an additive part, with a variance
    of `linear` for the slope of each feature, and of a smooth one, with `variance` over distances in `lengths`."""

    x: np.ndarray
    solved: np.ndarray
    factor: np.ndarray
    lengths: np.ndarray
    variance: float
    linear: float

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation at points (m, features), each (m,)."""
        cross = _covariance(x, self.x, self.lengths, self.variance, self.linear)
        inside = np.linalg.solve(self.factor, cross.T)
        own = self.variance + self.linear * (x**2).sum(axis=1)
        left = np.maximum(own - (inside**2).sum(axis=0), 1e-12)
        return cross @ self.solved, np.sqrt(left)


def fit(
    x: np.ndarray,
    y: np.ndarray,
    noise: np.ndarray,
    lengths: np.ndarray,
    variance: float | None = None,
    linear: float = 0.0,
) -> Process:
    """The process through values `y` (n,) at `x` (n, features), known to the standard deviations `noise` (n,).

    `lengths` (features,) are the scales to start from; all are multiplied by the one factor that makes the values
    likeliest. `variance` is that of the smooth part; None takes it from the values, but never less than their noise.
    """
    spread = variance or max(float(np.mean(y**2)), float(np.mean(noise**2)), 1e-12)
    best: tuple[float, Process] | None = None
    for scale in _SCALES:
        scaled = lengths * scale
        gram = _covariance(x, x, scaled, spread, linear) + np.diag(noise**2 + 1e-8 * spread)
        factor = np.linalg.cholesky(gram)
        solved = np.linalg.solve(factor.T, np.linalg.solve(factor, y))
        likelihood = -0.5 * float(y @ solved) - float(np.log(np.diag(factor)).sum())
        if best is None or likelihood > best[0]:
            best = likelihood, Process(x, solved, factor, scaled, spread, linear)
    assert best is not None  # there is at least one scale
    return best[1]


def _covariance(a: np.ndarray, b: np.ndarray, lengths: np.ndarray, variance: float, linear: float) -> np.ndarray:
    return np.asarray(variance * matern(a, b, lengths) + linear * (a @ b.T))


def matern(a: np.ndarray, b: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Matérn 5/2 correlations (n, m) of points (n, features) and (m, features)."""
    a, b = a / lengths, b / lengths
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    distance = np.sqrt(5 * np.maximum(squared, 0.0))
    return (1 + distance + distance**2 / 3) * np.exp(-distance)


def below(limit: np.ndarray | float, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """E[max(limit - Y, 0)] for normal Y; the expected improvement below `limit`."""
    away = (limit - mean) / deviation
    return (limit - mean) * phi(away) + deviation * np.exp(-0.5 * away**2) / np.sqrt(2 * np.pi)


def phi(z: np.ndarray) -> np.ndarray:
    """The standard normal's cumulative distribution (to 1e-7: Abramowitz and Stegun 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(z) / np.sqrt(2))
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    error = 1 - tail * np.exp(-(z**2) / 2)
    return 0.5 * (1 + np.sign(z) * error)


#: For one objective: a limit to E[max(limit - Y, 0)] of every point, shape (m,).
Shortfall = Callable[[float], np.ndarray]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)


def normal(mean: np.ndarray, deviation: np.ndarray) -> Shortfall:
    """The shortfall of normal objectives, each (m,)."""
    return lambda limit: below(limit, mean, deviation)


def transformed(mean: np.ndarray, deviation: np.ndarray, back: Callable[[np.ndarray], np.ndarray]) -> Shortfall:
    """The shortfall of objectives that are `back` of a normal number, each (m,), by Gauss-Hermite quadrature."""
    values = back(mean[:, None] + deviation[:, None] * _NODES)
    return lambda limit: np.maximum(limit - values, 0.0) @ (_WEIGHTS / _WEIGHTS.sum())


def hypervolume_improvement(
    front: np.ndarray, reference: Sequence[float], first: Shortfall, second: Shortfall
) -> np.ndarray:
    """Expected growth (m,) of the hypervolume of `front` (points, 2) by points whose two objectives are independent,
    from the shortfalls of both. Exact, both objectives minimised."""
    inside = front[(front < np.asarray(reference)).all(axis=1)] if len(front) else np.empty((0, 2))
    stairs: list[tuple[float, float]] = []
    for x, y in sorted(map(tuple, inside)):
        if not stairs or y < stairs[-1][1]:
            stairs.append((x, y))
    # Between two neighbours of the front, what lies below the left one's height is not yet beaten.
    ends = [*(x for x, _ in stairs), reference[0]]
    heights = [reference[1], *(y for _, y in stairs)]
    total: np.ndarray | float = 0.0
    before: np.ndarray | float = 0.0
    for end, height in zip(ends, heights, strict=True):
        width = first(end)
        total = total + (width - before) * second(height)
        before = width
    return np.asarray(total)
