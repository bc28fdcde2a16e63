"""Pruning while training: more and more weights become zero, and those that stay learn to do without them.

The scores are in `_scores.py`, the patterns in `_patterns.py`; the schedules are below. Stands beside `distil` in one
run, which then gives the loss. Left out: regularization that pushes weights towards zero, soft (thresholded) movement
pruning, and masks for heads and neurons (`prune_structured` removes them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.draft import Draft, ModelFacts
from workbench.errors import KnobError, Refused
from workbench.knobs import knob
from workbench.techniques import _scores
from workbench.techniques._observe import real_tokens
from workbench.techniques._patterns import Pattern
from workbench.techniques._sparse import HONEST, check_pattern, find_masks, no_sparsity, prunable, told, upright
from workbench.techniques.base import Trained
from workbench.training import Batch, Part, Run

if TYPE_CHECKING:
    from collections.abc import Mapping


class PruneGradual(Trained):
    """Set more and more weights to zero while the rest is trained: sparser than in one shot, runs no faster.

    Source: M. Zhu, S. Gupta, "To prune, or not to prune", arXiv:1710.01878, 2017 (cubic schedule); V. Sanh, T. Wolf,
    A. Rush, "Movement pruning", NeurIPS 2020, arXiv:2005.07683 (movement); the default score is Intel Neural
    Compressor's. Cost: minutes of training; a score and a mask more for each weight. Helps beyond half of the weights,
    where one shot costs too much; with `distil` behind it the uncompressed model is the teacher.
    """

    name = "prune_gradual"
    group = "pruning"
    source = "Zhu & Gupta 2017, arXiv:1710.01878"
    phase = 2

    sparsity: float = knob(0.7, low=0.0, high=0.99, search=(0.5, 0.7, 0.9), help="share of the weights at zero at last")
    score: str = knob(
        "snip_momentum",
        choices=("magnitude", "gradient", "snip_momentum", "movement", "wanda"),
        search=("magnitude", "snip_momentum", "movement"),
        help="what says how much a weight matters",
    )
    pattern: str = knob("1x1", help="1x1 = single weights; 4x1 = blocks of outputs x inputs; 2:4 = of 4 inputs 2 stay")
    scope: str = knob(
        "auto",
        choices=("auto", "row", "local", "global"),
        help="weights compete in one output, in one layer, or all together; auto = row for wanda, else local",
    )
    schedule: str = knob(
        "cubic",
        choices=("cubic", "linear", "exponential", "oneshot"),
        help="how the sparsity rises: fast at first, evenly, by equal shares of what is left, or at once",
    )
    start: float = knob(0.0, low=0, high=0.99, help="share of the run after which pruning begins")
    end: float = knob(
        0.7, low=0.01, high=1, help="share of the run after which the sparsity is reached; then only train"
    )
    every: int = knob(10, low=1, high=100_000, unit="steps", help="steps from one change of the masks to the next")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pattern(self.name, self.pattern)
        if self.end <= self.start:
            raise KnobError(
                f"{self.name}.end = {self.end:g} is not possible.", allowed=f"more than start = {self.start:g}"
            )

    @property
    def note(self) -> str:
        """What a mask does not do."""
        return HONEST

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module, or a pattern that fixes another sparsity."""
        return super().fits(facts) or no_sparsity(self.name, check_pattern(self.name, self.pattern), self.sparsity)

    def part(self, draft: Draft) -> Part:
        """The masks' part in a run. Raises `Refused` where `fits` would, where every layer is kept, where a pattern
        does not divide a layer, and where the sparsity of each layer (not with the global scope) leaves one empty."""
        reason = self.fits(draft.facts)
        if reason or draft.module is None:
            raise Refused(reason or f"{self.name} needs a PyTorch module")
        pattern = check_pattern(self.name, self.pattern)
        target = self.sparsity if pattern.fixed is None else pattern.fixed
        scope = {"auto": "row" if self.score == "wanda" else "local"}.get(self.scope, self.scope)
        names = list(prunable(draft, self.name))
        # What cannot be is found before the training, not after it; the global scope depends on the scores.
        sizes = {n: _scores.magnitude(upright(draft.module, n, draft.module.get_submodule(n).weight)) for n in names}
        find_masks(draft, sizes, pattern, target, "local" if scope == "global" else scope, draft.masks)
        return Pruning(self, names, pattern, target, scope)


class Pruning(Part):
    """Masks that grow.

    What an interrupted run needs is in `state`: the masks, the scores, and with movement the weights under the masks.
    """

    def __init__(self, technique: PruneGradual, names: list[str], pattern: Pattern, target: float, scope: str) -> None:
        self._of, self._names, self._pattern, self._target, self._scope = technique, names, pattern, target, scope
        self._masks: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._scores: dict[str, Any] = {}
        self._under: dict[str, Any] = {}
        self._inputs: dict[str, Any] = {}
        self._handles: list[Any] = []

    def begin(self, run: Run) -> None:
        """Start with the masks that the draft has, which stay."""
        import torch

        self._before = {name: mask.clone() for name, mask in run.draft.masks.items()}
        #: The sparsity reached, and the steps that the scores have seen.
        self._counters = torch.zeros(2, dtype=torch.float64)
        for name in self._names:
            weight = run.module.get_submodule(name).weight
            self._masks[name] = torch.zeros(weight.shape, dtype=torch.bool)
            if name in self._before:
                self._masks[name] |= self._before[name]
            shape = upright(run.module, name, weight).shape
            if self._of.score == "wanda":
                self._scores[name] = torch.zeros(shape[1])
                see = self._look(name)
                self._handles.append(run.module.get_submodule(name).register_forward_pre_hook(see))
            elif self._of.score != "magnitude":
                self._scores[name] = torch.zeros(shape)
            if self._of.score == "movement":
                self._under[name] = torch.zeros_like(weight)
        run.draft.masks |= self._masks

    def state(self) -> dict[str, Any]:
        """Masks, scores and counters."""
        found = {"counters": self._counters}
        for kind, tensors in (("mask", self._masks), ("score", self._scores), ("under", self._under)):
            found |= {f"{kind}.{name}": tensor for name, tensor in tensors.items()}
        return found

    def before(self, run: Run) -> None:
        """Mask more where the schedule says so."""
        for tensors in (self._scores, self._under):
            tensors.update({name: tensor.to(run.device) for name, tensor in tensors.items()})
        wanted = scheduled(self._of.schedule, self._target, run.share, self._of.start, self._of.end)
        due = run.step % self._of.every == 0 or run.share >= self._of.end
        if due and wanted > float(self._counters[0]) and self._known():
            self._update(run, wanted)

    def loss(self, run: Run, batch: Batch, output: Any) -> Any:
        """No loss; with wanda, the squares of what the layers took."""
        import torch

        if self._inputs:
            with torch.no_grad():
                for name, values in self._inputs.items():
                    tokens = real_tokens(values, batch.inputs.get("attention_mask")).float()
                    self._scores[name] += (tokens**2).sum(dim=0)
            self._inputs = {}
        return None

    def gradients(self, run: Run) -> None:
        """Follow the scores, and leave the weights at zero out of the optimizer's momentum."""
        import torch

        self._counters[1] += 1
        with torch.no_grad():
            for name in self._names:
                weight = run.module.get_submodule(name).weight
                if weight.grad is None:
                    continue
                if self._of.score in ("gradient", "snip_momentum", "movement"):
                    whole = weight + self._under[name] if self._under else weight
                    self._follow(name, *(upright(run.module, name, tensor) for tensor in (whole, weight.grad)))
                weight.grad.masked_fill_(self._masks[name].to(weight.device), 0.0)

    def end(self, run: Run) -> None:
        """Reach what the schedule had not reached, and say what was done."""
        for handle in self._handles:
            handle.remove()
        late = float(self._counters[0]) < self._target
        if late:
            self._update(run, self._target)
        run.draft.notes.append(told(self._masks) + ("; the last of them after the last step" if late else ""))

    def _known(self) -> bool:
        """Whether the scores have seen a step, where they need one."""
        return self._of.score == "magnitude" or float(self._counters[1]) > 0

    def _follow(self, name: str, weight: Any, grad: Any) -> None:
        if self._of.score == "gradient":
            self._scores[name] = _scores.gradient(weight, grad)
        else:
            score = _scores.movement if self._of.score == "movement" else _scores.snip_momentum
            self._scores[name] = score(self._scores[name], weight, grad)

    def _update(self, run: Run, sparsity: float) -> None:
        import torch

        found = find_masks(run.draft, self._current(run), self._pattern, sparsity, self._scope, self._before)
        with torch.no_grad():
            for name, mask in found.items():
                weight = run.module.get_submodule(name).weight
                if self._under:
                    self._swap(name, weight, mask.to(weight.device))
                weight.masked_fill_(mask.to(weight.device), 0.0)
                # In place: the draft holds this very tensor.
                self._masks[name].copy_(mask)
        self._counters[0] = sparsity
        if self._of.score == "wanda":
            # The next norms are of the model as it is now.
            for squares in self._scores.values():
                squares.zero_()

    def _current(self, run: Run) -> Mapping[str, Any]:
        if self._of.score not in ("magnitude", "wanda"):
            return self._scores
        weights = {name: upright(run.module, name, run.module.get_submodule(name).weight) for name in self._names}
        if self._of.score == "magnitude":
            return {name: _scores.magnitude(weight) for name, weight in weights.items()}
        return {name: _scores.wanda(weight, self._scores[name].sqrt()) for name, weight in weights.items()}

    def _swap(self, name: str, weight: Any, mask: Any) -> None:
        """Keep the weights that go, and bring back those that return as they were."""
        under = self._under[name]
        whole = weight + under
        under.copy_(whole.masked_fill(~mask, 0.0))
        weight.copy_(whole.masked_fill(mask, 0.0))

    def _look(self, name: str) -> Any:
        def see(part: Any, args: tuple) -> None:
            self._inputs[name] = args[0].detach()

        return see


def scheduled(schedule: str, target: float, share: float, start: float, end: float) -> float:
    """The sparsity at `share` of the run, 0 before `start`, `target` from `end` on.

    With p, the part of the way from `start` to `end`: cubic, target · (1 − (1 − p)³) (Zhu & Gupta, equation 1);
    linear, target · p; exponential, 1 − (1 − target)^p, which takes equal shares of what is left; oneshot, `target`
    from `start` on.
    """
    if share < start:
        return 0.0
    if schedule == "oneshot" or share >= end:
        return target
    part = (share - start) / (end - start)
    if schedule == "cubic":
        return target * (1 - (1 - part) ** 3)
    return target * part if schedule == "linear" else 1 - (1 - target) ** part
