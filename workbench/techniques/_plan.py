"""What the quantizing techniques share: writing one precision into the plan of every layer that may take it.

Left out: a precision of its own for each layer; that is a search over plans, not a technique.
"""

from __future__ import annotations

from workbench.draft import Draft, ModelFacts, Precision
from workbench.errors import Refused


def no_layers(name: str, facts: ModelFacts) -> str | None:
    """None, or the reason why a model without quantizable layers cannot take the technique `name`."""
    if not facts.layers:
        return f"{name} quantizes linear layers, and none was found in this {facts.architecture}"
    return None


def plan_layers(draft: Draft, name: str, precision: Precision) -> Draft:
    """Plan `precision` for every quantizable layer that is not kept; `Refused` where none is left."""
    layers = draft.quantizable()
    if not layers:
        raise Refused(
            f"{name} has no layer left to quantize: every one is kept.",
            allowed="at least one linear layer that `keep` does not match",
            do="take patterns out of `keep`",
        )
    draft.plan.layers.update(dict.fromkeys(layers, precision))
    return draft
