"""The one training loop: whatever trains a draft (distillation, QAT, gradual pruning, fine-tuning) is a `Part` of it.

Parts of one run share the steps: one may give the loss, another one holds weights at zero, a third one quantizes on
the way. The loop is `accelerate`'s (BF16 autocast, gradient accumulation, several devices where there are any). It
ends after a number of steps or of minutes; what was done is kept in the draft's work folder every minute, as
safetensors and JSON, so that an interrupted run goes on where it stood. With a budget in steps equal seeds give equal
weights on one machine; with one in minutes the number of steps is the machine's.

Batches hold examples of like length, which on a CPU saves most of the padding. Left out: early stopping on held-out
data (the splits that are measured must not be looked at), and optimizers other than AdamW.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.checkpoint import Checkpoint
from workbench.draft import Draft, Example
from workbench.errors import DataError, Refused, UserError
from workbench.quick import MINUTES, STEPS, at_most

if TYPE_CHECKING:
    import torch

#: Batches that are sorted by length together; more save padding, fewer keep the order more random.
_POOL = 32


@dataclass(frozen=True)
class Pace:
    """How long and how to train. `steps` of the optimizer, or 0 for as many as fit into `minutes`; whichever ends
    first. The learning rate rises over the first `warmup` of the run and falls to 0. `accumulate` batches make a step.
    Without `dropout` the module is trained as it will be used, which suits a short run with a teacher.
    """

    steps: int = 0
    minutes: float = 6.0
    batch: int = 32
    learning_rate: float = 1e-4
    warmup: float = 0.06
    weight_decay: float = 0.01
    accumulate: int = 1
    clip: float = 1.0
    dropout: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.minutes <= 0 or self.batch < 1 or self.accumulate < 1 or self.learning_rate <= 0:
            raise UserError(
                f"{self} cannot be carried out.",
                allowed="steps ≥ 0, minutes > 0, batch ≥ 1, accumulate ≥ 1, learning_rate > 0",
            )

    def joined(self, other: Pace) -> Pace:
        """One pace for two parts of a run: the longer budget, dropout only where both want it; the rest is the first
        one's."""
        steps = max(self.steps, other.steps) if self.steps and other.steps else 0
        both = {"steps": steps, "minutes": max(self.minutes, other.minutes), "dropout": self.dropout and other.dropout}
        return Pace(**{**asdict(self), **both})


@dataclass
class Batch:
    """What one forward pass sees: tensors by input name, of shape (batch, length); `targets` (batch,), -1 where there
    is no label; `rows`, the places of the examples in the training data."""

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    rows: list[int]


class Part:
    """What one technique brings to a run; every method may stay as it is.

    `hidden` asks for the hidden states of every layer in the module's output.
    """

    hidden: bool = False

    def begin(self, run: Run) -> None:
        """Before the first step: wrap modules, load a teacher. What is random here takes `run.pace.seed`."""

    def parameters(self) -> list[Any]:
        """Trainable tensors beside the module's own, always in the same order."""
        return []

    def state(self) -> dict[str, Any]:
        """Tensors, beside the trainable ones, that an interrupted run needs to go on; filled in place before the first
        step of the run that goes on."""
        return {}

    def before(self, run: Run) -> None:
        """Before a step: `run.share` of the run is over."""

    def loss(self, run: Run, batch: Batch, output: Any) -> Any:
        """A scalar tensor to minimise, or None where this part has none."""
        return None

    def gradients(self, run: Run) -> None:
        """Before the optimizer's step: the gradients are there, clipped."""

    def after(self, run: Run) -> None:
        """After the optimizer's step; masks of the draft are applied after this."""

    def end(self, run: Run) -> None:
        """After the last step: unwrap, write what was learned into `run.draft`."""


@dataclass
class Run:
    """One training run as its parts see it."""

    draft: Draft
    module: Any
    pace: Pace
    examples: list[Example]
    targets: np.ndarray
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    device: Any = "cpu"

    @property
    def share(self) -> float:
        """How much of the budget is spent, 0 … 1."""
        spent = self.seconds / (60 * self.pace.minutes)
        return min(1.0, max(spent, self.step / self.pace.steps if self.pace.steps else 0.0))

    def autocast(self) -> Any:
        """The context in which forward passes are computed: BF16 where the device multiplies in it."""
        import torch

        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu" or has_bf16())


def train(draft: Draft, parts: Sequence[Part], pace: Pace) -> None:
    """Train the draft's module in place, and leave a note of what was done.

    Kept layers and masked weights do not change. Without a part that gives a loss the labels do. Raises `DataError`
    without training examples (or without labels where they are needed), `Refused` for a draft without a module, for a
    budget that is too small for one step, and where the loss is no number any more.
    """
    import torch

    if draft.module is None:
        raise Refused("Training needs a PyTorch module, and an ONNX file has none.", do="start from the checkpoint")
    examples, targets = draft.data.training()
    pace = replace(pace, minutes=at_most(pace.minutes, MINUTES), steps=at_most(pace.steps or None, STEPS) or 0)
    run = Run(draft, draft.module, pace, examples, targets)
    with _ready(run), torch.random.fork_rng(devices=[]):
        torch.manual_seed(pace.seed)
        for part in parts:
            part.begin(run)
        _loop(run, parts)
        for part in parts:
            part.end(run)
    if draft.kept:
        draft.notes.append(f"{len(draft.kept)} kept layers were not trained")
    seen = run.step * pace.batch * pace.accumulate
    last = np.mean(run.losses[-50:]) if run.losses else math.nan
    draft.notes.append(
        f"trained for {run.step} steps ({seen / max(len(examples), 1):.1f} passes over {len(examples)} examples, "
        f"{run.seconds / 60:.1f} min); mean loss of the last steps {last:.4f}"
    )


def label_loss(output: Any, batch: Batch) -> Any:
    """Cross-entropy of the logits with the labels; of a language model (logits of shape (batch, length, tokens)) with
    the next token. None where a batch has no label."""
    from torch.nn.functional import cross_entropy

    logits = output.logits if hasattr(output, "logits") else output
    if logits.ndim == 3:
        wanted = batch.inputs["input_ids"].clone()
        if "attention_mask" in batch.inputs:
            wanted[batch.inputs["attention_mask"] == 0] = -1
        return cross_entropy(logits[:, :-1].flatten(0, 1).float(), wanted[:, 1:].flatten(), ignore_index=-1)
    if bool((batch.targets < 0).all()):
        return None
    return cross_entropy(logits.float(), batch.targets, ignore_index=-1)


def batches(lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Rows of one batch after another, without end: every epoch each row once, like lengths together."""
    for epoch in itertools.count():
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(lengths)).tolist()
        for start in range(0, len(order), _POOL * size):
            pool = sorted(order[start : start + _POOL * size], key=lengths.__getitem__)
            rows = [pool[i : i + size] for i in range(0, len(pool), size)]
            random.shuffle(rows)
            yield from rows


def collate(run: Run, rows: list[int]) -> Batch:
    """The examples of `rows`, padded on the right to the longest."""
    import torch

    chosen = [run.examples[row] for row in rows]
    longest = max(len(next(iter(example.values()))) for example in chosen)
    inputs = {}
    for name in run.draft.inputs:
        filler = run.draft.pad.get(name, 0)
        inputs[name] = torch.tensor([[*one[name], *[filler] * (longest - len(one[name]))] for one in chosen])
    return Batch(inputs, torch.from_numpy(run.targets[rows]), rows)


def has_bf16() -> bool:
    """Whether the CPU multiplies in BF16; emulated, it would only be slower."""
    import torch

    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@contextmanager
def _ready(run: Run) -> Iterator[None]:
    """The module set up to be trained, and put back: threads, gradients, attention, mode."""
    import torch

    from workbench.measure.machine import usable_cores

    module, threads = run.module, torch.get_num_threads()
    kept = {id(p) for name in run.draft.kept for p in module.get_submodule(name).parameters(recurse=False)}
    wanted = {p: p.requires_grad for p in module.parameters()}
    config: Any = getattr(module, "config", None)
    attention = getattr(config, "_attn_implementation", None)
    torch.set_num_threads(usable_cores())
    if attention == "sdpa":
        # The backward pass of scaled_dot_product_attention in BF16 takes as long on a CPU as all the rest of the step.
        config._attn_implementation = "eager"
    try:
        for parameter in wanted:
            parameter.requires_grad_(id(parameter) not in kept)
        with torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(threads)
        if attention == "sdpa":
            config._attn_implementation = attention
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)
            parameter.grad = None
        module.eval()


def _loop(run: Run, parts: Sequence[Part]) -> None:
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    pace, gpu = run.pace, torch.cuda.is_available()
    # Both are kept for the whole process, and a process may train more than once.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    accelerator = Accelerator(cpu=not gpu, gradient_accumulation_steps=pace.accumulate)
    run.device = accelerator.device
    extra = [tensor for part in parts for tensor in part.parameters()]
    tensors = [*(p for p in run.module.parameters() if p.requires_grad), *extra]
    inner = torch.optim.AdamW(_groups(tensors, pace), lr=pace.learning_rate, betas=(0.9, 0.98), fused=True)
    module, optimizer = accelerator.prepare(run.module, inner)
    keeper = Checkpoint(run, parts, inner)
    keeper.restore()
    order = batches([len(next(iter(e.values()))) for e in run.examples], pace.batch, pace.seed)
    order = itertools.islice(order, run.step * pace.accumulate, None)
    module.train(pace.dropout)
    hidden = {"output_hidden_states": True} if any(part.hidden for part in parts) else {}
    told = 0.0
    while run.share < 1:
        began, total = time.perf_counter(), 0.0
        # Every step has its own random numbers, so that a resumed run does what it would have done.
        torch.manual_seed(pace.seed + 1_000_003 * run.step)
        for part in parts:
            part.before(run)
        for group in inner.param_groups:
            group["lr"] = pace.learning_rate * _rate(run.share, pace.warmup)
        for _ in range(pace.accumulate):
            batch = _moved(collate(run, next(order)), run.device)
            with accelerator.accumulate(module):
                with run.autocast():
                    output = module(**batch.inputs, **hidden)
                loss = _total(run, parts, batch, output)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(tensors, pace.clip)
                    for part in parts:
                        part.gradients(run)
                optimizer.step()
                optimizer.zero_grad()
                total += loss.item() / pace.accumulate
        if not math.isfinite(total):
            raise Refused(
                f"The loss became {total} at step {run.step + 1} of the training.",
                do="lower learning_rate, or look at the training data",
            )
        for part in parts:
            part.after(run)
        _mask(run.draft)
        run.step += 1
        run.losses.append(total)
        run.seconds += time.perf_counter() - began
        if run.step == 1 and run.seconds > 60 * pace.minutes:
            raise Refused(
                f"A budget of {pace.minutes:g} min is too small: one step takes {run.seconds:.1f} s.",
                allowed=f"at least {run.seconds / 30:.2g} min, for two steps",
                do="raise minutes, or lower the batch size",
            )
        if time.perf_counter() - told > 1.0:
            told, left = time.perf_counter(), run.seconds * (1 / run.share - 1)
            run.draft.work.tell(run.share, f"training: step {run.step}, loss {total:.3f}, {left / 60:.1f} min left")
        keeper.keep()
    accelerator.unwrap_model(module)
    run.module.cpu()
    keeper.forget()


def _total(run: Run, parts: Sequence[Part], batch: Batch, output: Any) -> Any:
    given = [loss for part in parts if (loss := part.loss(run, batch, output)) is not None]
    if not given:
        given = [loss for loss in (label_loss(output, batch),) if loss is not None]
    if not given:
        raise DataError(
            "The training examples have no labels.",
            allowed="labelled examples, or a teacher (distil)",
            do="give training data with labels, or put distil into the recipe",
        )
    return sum(given)


def _moved(batch: Batch, device: Any) -> Batch:
    return Batch({k: t.to(device) for k, t in batch.inputs.items()}, batch.targets.to(device), batch.rows)


def _groups(tensors: Sequence[Any], pace: Pace) -> list[dict[str, Any]]:
    """Matrices decay, biases and norms do not."""
    return [
        {"params": [t for t in tensors if t.ndim > 1], "weight_decay": pace.weight_decay},
        {"params": [t for t in tensors if t.ndim < 2], "weight_decay": 0.0},
    ]


def _rate(share: float, warmup: float) -> float:
    """The learning rate's factor: up from a hundredth, down to 0, in straight lines."""
    return max(share / warmup, 0.01) if share < warmup else (1 - share) / (1 - warmup)


def _mask(draft: Draft) -> None:
    import torch

    with torch.no_grad():
        for name, mask in draft.masks.items():
            weight = draft.module.get_submodule(name).weight
            weight.masked_fill_(mask.to(weight.device), 0.0)
