"""The embedded default: product reviews from a grammar, and a small DistilBERT trained on them at first use.

Nothing is downloaded: `_reviews.py` makes the texts, this file makes the model (about a minute on two cores) and keeps
it in the cache, in the layout that `save_pretrained` writes, under a name that hashes all that decides the result.

DistilBERT: Sanh et al. 2019 (arXiv:1910.01108). A Post-LN transformer hardly trains from scratch on so little: what
makes it converge is starting near the identity (small residual projections, as in T-Fixup, Huang et al. 2020), a
curriculum of growing length (Bengio et al. 2009) and warm-up. Batches hold texts of like length, products run in BF16
where the CPU has it.
Left out: pre-training, GPUs, equal weights on unlike machines (equal seeds give equal weights on one machine only).
"""

from __future__ import annotations

import bisect
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from workbench.errors import ModelError, ResourceError
from workbench.loading.hashing import hash_json
from workbench.measure.machine import usable_cores
from workbench.paths import cache_dir
from workbench.quick import MEASURED, at_most
from workbench.tasks._classification import Classification, Rows
from workbench.tasks._reviews import GRAMMAR, reviews
from workbench.tasks.base import SPLITS, Progress

LABELS = ("negative", "positive")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

#: Examples of each part of the data, in the order in which they are drawn; `check` only decides whether the training
#: went well, so that no split that is measured on has chosen the model.
PARTS = {"train": 12_000, "validation": 1_000, "test": 1_000, "check": 500}
_PART_OF = dict(zip(SPLITS, PARTS, strict=False))


@dataclass(frozen=True)
class Settings:
    """Shape of the model and how it is trained.

    `start` scales the initial weights of the residual projections; the longest text admitted grows from `shortest`
    tokens to all over the first `growth` of the steps; the learning rate rises over the first `warmup` of them and
    falls to 0. Training is repeated with another seed, up to `attempts` times, while accuracy stays under `enough`.
    """

    layers: int = 6
    width: int = 256
    heads: int = 4
    feed_forward: int = 512
    positions: int = 512
    vocabulary: int = 600
    steps: int = 560
    batch: int = 64
    learning_rate: float = 4e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: float = 0.1
    spread: float = 0.05
    start: float = 0.1
    shortest: int = 10
    growth: float = 0.6
    seed: int = 0
    attempts: int = 3
    enough: float = 0.94


@dataclass(frozen=True)
class Demo(Classification):
    """Is this review of a product positive? A small DistilBERT on texts from a grammar."""

    name: ClassVar[str] = "demo"
    title: ClassVar[str] = "Embedded demo: product reviews, small DistilBERT"

    def prepare(self, progress: Progress | None = None) -> None:
        demo_folder(progress)
        self.source().check()

    def model_folder(self) -> Path:
        return demo_folder()

    def rows(self, split: str) -> Rows:
        if split not in self._kept:
            part = data()[_PART_OF[split]]
            if split != "calibration":
                part = part[: at_most(None, MEASURED)]
            else:
                order = np.random.default_rng(self.seed).permutation(len(part))
                part = [part[i] for i in order]
            self._kept[split] = ([(text,) for text, _ in part], np.array([label for _, label in part], dtype=np.int64))
        return self._kept[split]

    def notes(self) -> list[str]:
        grammar = "Texts come from a grammar: good for trying the workbench, no evidence about real reviews."
        return [grammar, *super().notes()]


@cache
def data() -> dict[str, list[tuple[str, int]]]:
    """Text and label of every example by part (train, validation, test, check); no text is in two parts."""
    found: dict[str, list[tuple[str, int]]] = {}
    seen: set[str] = set()
    for seed, (part, count) in enumerate(PARTS.items(), start=1):
        found[part] = reviews(count, seed, exclude=seen)
        seen |= {text for text, _ in found[part]}
    return found


def demo_folder(progress: Progress | None = None, settings: Settings | None = None) -> Path:
    """The trained model's folder in the cache, made when missing: by one process, while others wait for it.

    A training that is killed leaves nothing that could be taken for a model. Raises `ResourceError` where the cache
    cannot be written and `ModelError` where no attempt reached `settings.enough`.
    """
    from filelock import FileLock

    settings = settings or Settings()
    try:
        folder = _folder(settings)
        if _complete(folder):
            return folder
        with _patient(FileLock(f"{folder}.lock"), progress):
            if not _complete(folder):
                _make(folder, settings, progress)
    except OSError as error:
        raise ResourceError(
            f"The demo model cannot be kept in the cache: {error}",
            allowed="a cache folder with write permission and 50 MB free",
            do="make room, or name another folder with the environment variable WORKBENCH_CACHE",
        ) from error
    return folder


def is_trained(settings: Settings | None = None) -> bool:
    """Whether the demo's model is in the cache already; without it, asking for its tokens trains it first."""
    return _complete(_folder(settings or Settings()))


def _folder(settings: Settings) -> Path:
    return cache_dir("demo") / hash_json([GRAMMAR, PARTS, LABELS, asdict(settings)])[:16]


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json"))


def _patient(lock: Any, progress: Progress | None) -> Any:
    """The lock, once it is ours; says so while another process has it."""
    from filelock import Timeout

    while True:
        try:
            return lock.acquire(timeout=2)
        except Timeout:
            if progress:
                progress(0.0, "waiting for another process, which is training the demo model")


def _make(folder: Path, settings: Settings, progress: Progress | None) -> None:
    """Train and write `folder` in one rename; the caller holds the lock, so whatever is half-done is nobody's."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    partial = folder.with_name(f"{folder.name}.partial")
    for leftover in (partial, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    model, tokenizer = _train_until_enough(settings, progress)
    try:
        tokenizer.save_pretrained(str(partial))
        model.config.save_pretrained(str(partial))
        save_file(model.state_dict(), partial / "model.safetensors", metadata={"format": "pt"})
        partial.rename(folder)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if progress:
        progress(1.0, "demo model trained")


def _train_until_enough(settings: Settings, progress: Progress | None) -> tuple[Any, Any]:
    tokenizer = make_tokenizer([text for text, _ in data()["train"]], settings)
    for attempt in range(settings.attempts):
        model = train(tokenizer, settings, settings.seed + attempt, progress)
        reached = accuracy(model, tokenizer, data()["check"])
        if reached >= settings.enough:
            return model, tokenizer
    raise ModelError(
        f"The demo model reached only {reached:.1%} in {settings.attempts} trainings; {settings.enough:.0%} is wanted.",
        do="use a model of yours (--model DIR_OR_ID --data FILE), and report this with `workbench machine`",
    )


def make_tokenizer(texts: Sequence[str], settings: Settings) -> Any:
    """A lower-casing word-piece tokenizer learned from `texts`, as transformers wraps it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.vocabulary, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    named = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=settings.positions,
        model_input_names=["input_ids", "attention_mask"],
        **named,
    )


def train(tokenizer: Any, settings: Settings, seed: int, progress: Progress | None = None) -> Any:
    """A `DistilBertForSequenceClassification` trained on the reviews, in eval mode; random state is left as it was."""
    import torch

    ids = tokenizer([text for text, _ in data()["train"]])["input_ids"]
    targets = torch.tensor([label for _, label in data()["train"]])
    before = torch.get_num_threads()
    torch.set_num_threads(_threads())
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            model = _blank_model(len(tokenizer), settings)
            optimizer, schedule = _optimizer(model, settings)
            plan = curriculum([len(row) for row in ids], settings, random.Random(seed))
            for step, rows in enumerate(plan, start=1):
                batch = _padded([ids[i] for i in rows])
                with torch.autocast("cpu", torch.bfloat16, enabled=_has_bf16()):
                    loss = model(**batch, labels=targets[rows]).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                if progress and step % 5 == 0:
                    progress(0.98 * step / settings.steps, f"training the demo model: step {step} of {settings.steps}")
    finally:
        torch.set_num_threads(before)
    return model.eval()


def curriculum(lengths: Sequence[int], settings: Settings, rng: random.Random) -> Iterator[list[int]]:
    """`settings.steps` batches of indices; each holds texts of like length, and longer ones come in by and by."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    ascending, pool = sorted(lengths), 16 * settings.batch
    given = 0
    while True:
        grown = min(1.0, given / (settings.growth * settings.steps))
        longest = settings.shortest + (ascending[-1] - settings.shortest) * grown
        admitted = order[: max(bisect.bisect_right(ascending, longest), min(pool, len(order)))]
        # Until all are admitted, only one pool at a time: the limit moves on with every pool.
        chosen = rng.sample(admitted, min(len(admitted), len(order) if grown == 1 else pool))
        for start in range(0, len(chosen), pool):
            alike = sorted(chosen[start : start + pool], key=lengths.__getitem__)
            batches = [alike[i : i + settings.batch] for i in range(0, len(alike), settings.batch)]
            rng.shuffle(batches)
            for batch in batches:
                yield batch
                given += 1
                if given == settings.steps:
                    return


def accuracy(model: Any, tokenizer: Any, examples: Sequence[tuple[str, int]]) -> float:
    """Share of the examples that the model gets right."""
    import torch

    ordered = sorted(examples, key=lambda example: len(example[0]))
    right = 0
    with torch.no_grad():
        for start in range(0, len(ordered), 100):
            texts, labels = zip(*ordered[start : start + 100], strict=True)
            logits = model(**_padded(tokenizer(list(texts))["input_ids"])).logits
            right += int((logits.argmax(dim=1) == torch.tensor(labels)).sum())
    return right / len(ordered)


def _blank_model(vocabulary: int, settings: Settings) -> Any:
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=settings.positions,
        n_layers=settings.layers,
        dim=settings.width,
        n_heads=settings.heads,
        hidden_dim=settings.feed_forward,
        # With fewer than four passes over the data there is nothing to regularise.
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
        initializer_range=settings.spread,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    # The backward pass of scaled_dot_product_attention in BF16 takes as long on a CPU as all the rest of the step.
    config._attn_implementation = "eager"
    config.architectures = [DistilBertForSequenceClassification.__name__]
    model = DistilBertForSequenceClassification(config)
    for layer in model.distilbert.transformer.layer:
        for projection in (layer.attention.out_lin, layer.ffn.lin2):
            torch.nn.init.normal_(projection.weight, std=settings.start * settings.spread)
    return model.train()


def _optimizer(model: Any, settings: Settings) -> tuple[Any, Any]:
    import torch

    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
    rise = settings.warmup * settings.steps

    def share(step: int) -> float:
        return min((step + 1) / rise, (settings.steps - step) / (settings.steps - rise))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _padded(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    import torch

    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }


def _threads() -> int:
    """More than four threads gain nothing at this size."""
    return min(4, usable_cores())


def _has_bf16() -> bool:
    """Whether the CPU multiplies in BF16; emulated, it would only be slower."""
    import torch

    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
