"""TPE: draw where good recipes were dense and bad ones were not.

Bergstra et al. 2011 with the extension to several objectives of Ozaki et al. 2022, in Optuna's implementation. Left
out: Neural Compressor's single objective, a weighted sum of score and latency.
"""

from __future__ import annotations

from typing import Any

from workbench.knobs import knob
from workbench.recipe import Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._ask_tell import ask_and_tell
from workbench.tuning.strategies.base import Search, Strategy

#: Points asked for in vain before one is drawn that is new for sure.
PATIENCE = 3


class Tpe(Strategy):
    """Model where good recipes are dense and bad ones are not (tree-structured Parzen estimator), draw the better.

    Source: J. Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011; Y. Ozaki et al.,
    "Multiobjective tree-structured Parzen estimator", JAIR 73, 2022. Order: `startup` recipes at random, then the best
    of 24 draws from the density of good ones. Cost: little beyond its trials. Helps when many knobs matter each on its
    own and there are some dozens of trials.
    """

    name = "tpe"

    startup: int = knob(10, low=1, high=1000, unit="recipes", help="recipes drawn at random before the model is used")

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes, none twice; ends when the space is exhausted."""
        yield from ask_and_tell(space, goal, self._sampler, self.seed, PATIENCE)

    def _sampler(self) -> Any:
        import optuna

        return optuna.samplers.TPESampler(n_startup_trials=self.startup, seed=self.seed)
