"""Knowledge distillation: the draft, made smaller by the steps before, learns to answer as the uncompressed model does.

Logits by Hinton et al. 2015 (or plain squared error, Ba & Caruana 2014), hidden states by Romero et al. 2015 as in
TinyBERT, relations between tokens by MiniLM v2. What the teacher answers is kept in the cache, so that no example is
shown to it twice. Left out: data augmentation, several teachers, distillation before fine-tuning.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.draft import Draft, ModelFacts
from workbench.errors import ModelError, Refused
from workbench.knobs import knob
from workbench.paths import cache_dir
from workbench.techniques.base import Trained
from workbench.training import Batch, Part, Run, label_loss

if TYPE_CHECKING:
    from workbench.training import Pace


class Distil(Trained):
    """Train the compressed model to give the uncompressed one's answers: wins back most of what pruning lost.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015;
    X. Jiao et al., "TinyBERT", Findings of EMNLP 2020, arXiv:1909.10351 (hidden states); W. Wang et al., "MiniLMv2",
    Findings of ACL 2021, arXiv:2012.15828 (relations). Cost: minutes to hours; each step runs teacher and student
    once, and the student backwards. Helps after drop_layers, prune_structured and masks; the labels are not needed
    unless `mix` is below 1. With mix=0 and hidden=0 it is plain fine-tuning on the labels.
    """

    name = "distil"
    group = "distillation"
    source = "Hinton et al. 2015, arXiv:1503.02531"
    phase = 3

    teacher: str = knob("", help="folder of the teacher; '' = the uncompressed model, 'self' = the draft as it stands")
    loss: str = knob("kl", choices=("kl", "mse", "ce"), help="how the student's logits are compared with the teacher's")
    temperature: float = knob(2.0, low=0.1, high=100, search=(1.0, 2.0, 4.0), help="softens both sides (kl, ce)")
    mix: float = knob(
        1.0, low=0, high=1, search=(0.5, 0.9, 1.0), help="share of the teacher's loss; the labels' is the rest"
    )
    hidden: float = knob(1.0, low=0, high=1000, help="weight of the hidden states' squared error; 0 = logits only")
    relations: float = knob(0.0, low=0, high=1000, help="weight of the relations between tokens in the last layer")
    layers: str = knob(
        "even",
        choices=("even", "origin", "last"),
        help="which of the teacher's layers a student's layer follows: evenly spread, the one it came from, the last",
    )
    dropout: bool = knob(False, help="train with the model's dropout")

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module to train."""
        return super().fits(facts)

    def part(self, draft: Draft) -> Part:
        """The teacher's part in a run."""
        if draft.module is None:
            raise Refused(self.fits(draft.facts) or f"{self.name} needs a PyTorch module")
        if not (self.mix or self.hidden or self.relations):
            return Part()  # Plain fine-tuning: the labels teach.
        teacher = find_teacher(self.teacher, draft)
        _check_tokens(self, draft.module, teacher)
        return Teaching(self, teacher)

    def pace(self) -> Pace:
        """As of every trained technique, with the `dropout` knob."""
        from dataclasses import replace

        return replace(super().pace(), dropout=self.dropout)


def find_teacher(name: str, draft: Draft) -> Any:
    """The teacher as a frozen module in eval mode; raises `Refused` where there is none, `ModelError` where its
    vocabulary or its classes are others."""
    import torch

    if name == "self":
        teacher = copy.deepcopy(draft.module)
    elif name:
        from workbench.loading.folder import HFFolder

        teacher = HFFolder(Path(name)).load()
    elif draft.original is None:
        raise Refused("There is no uncompressed module to learn from.", do="name a folder with teacher=")
    else:
        teacher = draft.original()
    ours, theirs = getattr(draft.module, "config", None), getattr(teacher, "config", None)
    for key, what in (("vocab_size", "vocabulary"), ("num_labels", "classes")):
        one, other = getattr(ours, key, None), getattr(theirs, key, None)
        if one != other:
            raise ModelError(
                f"Teacher and student differ in their {what}: {other} and {one}.",
                allowed="a teacher fine-tuned for the same classes with the same tokenizer",
                do="name another teacher",
            )
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher.to(torch.float32).eval()


def _check_tokens(technique: Distil, student: Any, teacher: Any) -> None:
    """Raise `Refused` where what is compared is not there for the same tokens."""
    from workbench.shortening import flow_of

    if technique.relations and flow_of(student) is not None:
        raise Refused(
            "relations compares every token with every other one, and prune_tokens leaves few of them.",
            do="use relations=0; logits and hidden states are compared for the tokens that are left",
        )
    if (technique.hidden or technique.relations) and flow_of(teacher) is not None:
        raise Refused(
            "The teacher drops tokens itself, so that its hidden states are of other tokens than the student's.",
            do="use hidden=0 and relations=0, or the uncompressed teacher",
        )


class Teaching(Part):
    """Loss against a teacher."""

    def __init__(self, technique: Distil, teacher: Any) -> None:
        self._of, self._teacher = technique, teacher
        self.hidden = technique.hidden > 0 or technique.relations > 0
        self._projection: Any = None
        self._answers: Answers | None = None

    def begin(self, run: Run) -> None:
        """Make what projects the student's hidden states where they are narrower, and open the kept answers."""
        import torch

        widths = [getattr(m.config, "hidden_size", getattr(m.config, "dim", 0)) for m in (run.module, self._teacher)]
        if self.hidden and widths[0] != widths[1]:
            self._projection = torch.nn.Linear(*widths, bias=False)
        if not self.hidden and self._of.teacher != "self":
            classes = len(run.draft.labels) or getattr(self._teacher.config, "num_labels", 0)
            self._answers = Answers.open(run.draft.data.key(), self._of.teacher, len(run.examples), classes)

    def parameters(self) -> list[Any]:
        """The projection's weight, where there is one."""
        return [] if self._projection is None else list(self._projection.parameters())

    def loss(self, run: Run, batch: Batch, output: Any) -> Any:
        """Of logits, hidden states and relations together, and of the labels for the rest of `mix`."""
        from workbench.shortening import kept_tokens

        logits, states = self._ask(run, batch)
        total = self._of.mix * logits_loss(
            output.logits, logits, self._of.loss, self._of.temperature, _tokens(batch, logits)
        )
        if self._of.mix < 1 and (labels := label_loss(output, batch)) is not None:
            total = total + (1 - self._of.mix) * labels
        if self.hidden:
            mine, mask = output.hidden_states, batch.inputs.get("attention_mask")
            if self._of.hidden:
                kept = kept_tokens(run.module, len(mine) - 1)
                for own, other in layer_map(len(mine) - 1, len(states) - 1, self._of.layers, run.draft.blocks):
                    student = mine[own] if self._projection is None else self._projection(mine[own].float())
                    teacher, there = of_tokens(states[other], mask, kept[own])
                    total = total + self._of.hidden * hidden_loss(student, teacher, there)
            if self._of.relations:
                total = total + self._of.relations * relation_loss(mine[-1], states[-1], mask, run)
        return total

    def end(self, run: Run) -> None:
        """Keep the answers that were computed."""
        if self._answers is not None:
            self._answers.save()

    def _ask(self, run: Run, batch: Batch) -> tuple[Any, Any]:
        import torch

        if self._answers is not None and (known := self._answers.get(batch.rows)) is not None:
            return torch.from_numpy(known).to(run.device), None
        self._teacher.to(run.device)
        with torch.no_grad(), run.autocast():
            answer = self._teacher(**batch.inputs, **({"output_hidden_states": True} if self.hidden else {}))
        if self._answers is not None:
            self._answers.put(batch.rows, answer.logits.float().cpu().numpy())
        return answer.logits.float(), answer.hidden_states if self.hidden else None


class Answers:
    """The teacher's logits of the training examples, (examples, classes), in the cache; NaN where it was not asked."""

    def __init__(self, path: Path, logits: np.ndarray) -> None:
        self._path, self._logits = path, logits

    @classmethod
    def open(cls, key: str, teacher: str, examples: int, classes: int) -> Answers | None:
        """What is kept under `key`; None for a language model, whose answers are too many."""
        import hashlib

        if not classes:
            return None
        name = hashlib.sha256(f"{key} {teacher}".encode()).hexdigest()[:20]
        path = cache_dir("teachers") / f"{name}.npy"
        fresh = np.full((examples, classes), np.nan, dtype=np.float32)
        if path.is_file():
            kept = np.load(path, allow_pickle=False)
            return cls(path, kept if kept.shape == fresh.shape else fresh)
        return cls(path, fresh)

    def get(self, rows: list[int]) -> np.ndarray | None:
        """The logits of `rows`, or None where one is missing."""
        found = self._logits[rows]
        return None if np.isnan(found).any() else found

    def put(self, rows: list[int], logits: np.ndarray) -> None:
        """Remember the logits of `rows`."""
        self._logits[rows] = logits

    def save(self) -> None:
        """Write them, in one rename."""
        import os

        partial = self._path.with_name(f"{self._path.stem}-{os.getpid()}.npy")
        np.save(partial, self._logits, allow_pickle=False)
        partial.rename(self._path)


def logits_loss(student: Any, teacher: Any, kind: str, temperature: float, chosen: Any = None) -> Any:
    """How far the student's logits (…, classes) are from the teacher's, a mean over the rows (of those `chosen`).

    "kl": T² KL(teacher ‖ student) of the softmax at temperature T; "ce": T² times its cross-entropy; "mse": the mean
    squared difference of the logits.
    """
    from torch.nn.functional import log_softmax, softmax

    student, teacher = student.float().flatten(0, -2), teacher.float().flatten(0, -2)
    if chosen is not None:
        student, teacher = student[chosen], teacher[chosen]
    if kind == "mse":
        return ((student - teacher) ** 2).mean()
    target, log = softmax(teacher / temperature, dim=-1), log_softmax(student / temperature, dim=-1)
    cross = -(target * log).sum(dim=-1)
    if kind == "kl":
        cross = cross + (target * log_softmax(teacher / temperature, dim=-1)).sum(dim=-1)
    return temperature**2 * cross.mean()


def hidden_loss(student: Any, teacher: Any, mask: Any) -> Any:
    """Mean squared difference of hidden states (batch, length, width), of real tokens only."""
    error = ((student.float() - teacher.float()) ** 2).mean(dim=-1)
    return error.mean() if mask is None else (error * mask).sum() / mask.sum()


def of_tokens(states: Any, mask: Any, kept: Any) -> tuple[Any, Any]:
    """The teacher's hidden states (batch, length, width) and the mask (batch, length) of those tokens that the student
    has left, `kept` (batch, left); None for all."""
    if kept is None:
        return states, mask
    there = None if mask is None else mask.gather(1, kept)
    return states.gather(1, kept[..., None].expand(-1, -1, states.shape[-1])), there


def relation_loss(student: Any, teacher: Any, mask: Any, run: Any = None, heads: int = 12) -> Any:
    """KL between the relations of tokens to each other, softmax(X_h X_h^T / sqrt(d)) of hidden states split into
    `heads` (MiniLM v2, on hidden states instead of queries, keys and values); mean over real tokens."""
    from torch.nn.functional import kl_div

    def relations(states: Any) -> Any:
        rows, length, width = states.shape
        count = heads if width % heads == 0 else 1
        split = states.float().reshape(rows, length, count, width // count).transpose(1, 2)
        scores = split @ split.transpose(-1, -2) / (width // count) ** 0.5
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, None, :] == 0, -1e4)
        return scores.log_softmax(dim=-1)

    mine, theirs = relations(student), relations(teacher)
    divergence = kl_div(mine, theirs, reduction="none", log_target=True).sum(dim=-1).mean(dim=1)
    return divergence.mean() if mask is None else (divergence * mask).sum() / mask.sum()


def layer_map(student: int, teacher: int, how: str, origin: tuple[int, ...] = ()) -> list[tuple[int, int]]:
    """Pairs (place in the student's hidden states, place in the teacher's); place 0 is the embedding, i the i-th layer.

    "even": layer i of n follows layer ceil(i * m / n) of the teacher's m; "origin": the layer that it was, by `origin`
    (places of the student's layers in the teacher, from 0), as long as they are known; "last": only the last pair.
    """
    if how == "last":
        return [(student, teacher)]
    if how == "origin" and len(origin) == student and max(origin, default=0) < teacher:
        return [(i, place + 1) for i, place in enumerate(origin, start=1)]
    return [(i, -(-i * teacher // student)) for i in range(1, student + 1)]


def _tokens(batch: Batch, logits: Any) -> Any:
    """Which rows of a language model's flattened logits are real tokens; None for a classifier."""
    mask = batch.inputs.get("attention_mask")
    return mask.flatten().bool() if logits.ndim == 3 and mask is not None else None
