"""Weight-only quantization by rounding to the nearest code: the plain way, which needs no data.

The range of a group is that of its weights. Left out: ranges that are searched for (see weight_hqq), and whatever
looks at the activations (weight_gptq, weight_awq).
"""

from __future__ import annotations

from workbench.draft import Draft
from workbench.techniques._weight_only import WeightOnly, matrix, round_to_nearest


class WeightRtn(WeightOnly):
    """Round weights to 4 or 8 bits, group by group; activations stay in float: no data needed.

    Source: T. Dettmers and L. Zettlemoyer, "The case for 4-bit precision: k-bit inference scaling laws", 2022,
    arXiv:2212.09720 (blockwise zero-shot quantization). Cost: seconds. Helps where weights fill memory or disk (an
    eighth of the size at 4 bits) and where reading them is what takes time, as in models that give one token at a
    time; a compute-bound encoder gains no speed from it.
    """

    name = "weight_rtn"
    source = "Dettmers and Zettlemoyer 2022, arXiv:2212.09720"

    def apply(self, draft: Draft) -> Draft:
        """Plan the layers and give their grids; `Refused` where none is left."""
        layers = self.layers(draft)
        children = {name: draft.module.get_submodule(name) for name in layers}
        grids = {
            name: round_to_nearest(matrix(child), self.bits, self.group_size, self.symmetric)
            for name, child in children.items()
        }
        return self.write(draft, grids)
