"""BF16: the whole model in bfloat16, the sixteen-bit float with FP32's range.

The idea is Google Brain's; Kalamkar et al. 2019 measured that it needs no tuning. Only the precision plan changes; the
runtime casts. Left out: a mix with other precisions by layer, which is `mixed_precision`.
"""

from __future__ import annotations

from workbench.draft import Draft
from workbench.techniques.base import Technique


class Bf16(Technique):
    """Run the whole model in bfloat16: half the memory traffic, hardly ever a changed answer.

    Source: D. Kalamkar et al., "A study of BFLOAT16 for deep learning training", arXiv:1905.12322, 2019.
    Cost: none; no data, no training. Helps on processors with BF16 units (AMX, AVX512-BF16, recent ARM and GPUs);
    elsewhere it is emulated and may be slower than FP32. INT8 has to beat it to be worth its drop.

    BF16 is the base precision of the whole model, so kept layers run in it as well; their weights are not touched.
    """

    name = "bf16"
    group = "mixed precision"
    source = "Kalamkar et al. 2019, arXiv:1905.12322"
    precisions = frozenset({"bf16"})
    phase = 5

    def apply(self, draft: Draft) -> Draft:
        """Make BF16 the plan's base precision."""
        draft.plan.base = "bf16"
        if draft.kept:
            draft.notes.append(
                f"bf16 is the precision of the whole model: the {len(draft.kept)} kept layers run in it too"
            )
        return draft
