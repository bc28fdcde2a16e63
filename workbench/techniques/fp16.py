"""FP16: the whole model in IEEE half precision, for devices that have units for it.

Only the precision plan changes; the runtime casts. Left out: loss scaling (nothing trains in FP16 here) and FP16 as a
mere storage format on a CPU, where bf16 saves the same bytes.
"""

from __future__ import annotations

from workbench.draft import Draft
from workbench.techniques.base import Technique


class Fp16(Technique):
    """Run the whole model in IEEE half precision: for GPUs; on a CPU the runtimes refuse it and say why.

    Source: P. Micikevicius et al., "Mixed precision training", ICLR 2018, arXiv:1710.03740.
    Cost: none; no data, no training. Helps on GPUs, where it halves the memory traffic and matrix units take it; its
    range ends at 65504, so a model with larger activations answers NaN, which the evaluation reports. On CPUs it is
    computed by casting to FP32 and back; bf16 is the one to take there.

    FP16 is the base precision of the whole model, so kept layers run in it as well; their weights are not touched.
    """

    name = "fp16"
    group = "mixed precision"
    source = "Micikevicius et al. 2018, arXiv:1710.03740"
    precisions = frozenset({"fp16"})
    phase = 5

    def apply(self, draft: Draft) -> Draft:
        """Make FP16 the plan's base precision."""
        draft.plan.base = "fp16"
        if draft.kept:
            draft.notes.append(
                f"fp16 is the precision of the whole model: the {len(draft.kept)} kept layers run in it too"
            )
        return draft
