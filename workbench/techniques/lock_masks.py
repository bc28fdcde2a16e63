"""Pattern lock: the zeros that a model came with stay zeros, whoever trains it.

Left out: finding out which pattern the zeros follow; they are held one by one, so any pattern stays.
"""

from __future__ import annotations

from typing import Any

from workbench.draft import Draft
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.techniques._sparse import HONEST, hold, prunable
from workbench.techniques.base import Technique


class LockMasks(Technique):
    """Hold the zeros of an already sparse model during the training that follows: distillation, QAT, fine-tuning.

    Source: Intel Neural Compressor 2.x, pruning type `pattern_lock`; O. Zafrir et al., "Prune once for all: sparse
    pre-trained language models", arXiv:2111.05754, 2021 (the locked pattern). Cost: a second; a bit for each weight.
    Helps to fine-tune or to distil a checkpoint that was pruned elsewhere, which would fill up with numbers otherwise.
    """

    name = "lock_masks"
    group = "pruning"
    source = "Zafrir et al. 2021, arXiv:2111.05754"
    phase = 2

    threshold: float = knob(
        0.1, low=0.001, high=1, help="layers with at least this share of zeros are held; the others train as a whole"
    )

    @property
    def note(self) -> str:
        """What a mask does not do."""
        return HONEST

    def apply(self, draft: Draft) -> Draft:
        """Put the zeros of the sparse layers into the draft's masks; no weight changes. Masks that are there stay.

        Raises `Refused` where every layer is kept, and where no layer has so many zeros.
        """
        if draft.module is None:
            raise Refused(self.fits(draft.facts) or f"{self.name} needs a PyTorch module")
        zeros = {name: weight.detach() == 0 for name, weight in prunable(draft, self.name).items()}
        found = {name: mask for name, mask in zeros.items() if share(mask) >= self.threshold}
        if not found:
            most = max(zeros, key=lambda name: share(zeros[name]))
            raise Refused(
                f"{self.name} finds no layer of which {self.threshold:.3g} are zeros; {most!r} has most, "
                f"{share(zeros[most]):.3g}.",
                allowed="a model that is sparse already",
                do="prune it first (prune, prune_gradual), or lower threshold",
            )
        hold(draft, {name: mask | draft.masks[name] if name in draft.masks else mask for name, mask in found.items()})
        held = sum(int(mask.sum()) for mask in found.values())
        draft.notes.append(f"{held} zeros in {len(found)} of {len(zeros)} linear layers are held; {HONEST}")
        return draft


def share(mask: Any) -> float:
    """Share of a mask that is True."""
    return float(mask.float().mean()) if mask.numel() else 0.0
