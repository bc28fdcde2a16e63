"""Weight-only quantization on real models: what each technique costs in perplexity or accuracy, and what it saves.

    python tests/benchmarks/weight_only.py [--model stories|minilm] [--bits 4 8] [--groups 32 64 0] [--only gptq …]

stories260K is scored on TinyStories' sample (windows of 512 tokens, a story each; 1.266 nats a token uncompressed) and
on the first part of WikiText-2, which it was never trained on but which has windows enough for a narrow interval. It is
calibrated on stories that it writes itself, because there is no training text. MiniLM-L6 answers the 872 examples of
SST-2, calibrated on 1024 of its training examples. All on PyTorch eager; intervals are paired, at 95 %. Wants
WORKBENCH_ASSETS; nothing is timed, so any machine will do.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from workbench.backends.eager import Eager
from workbench.loading.passages import SEPARATOR
from workbench.measure.accuracy import Answers, drop, flips, score_of
from workbench.registry import find
from workbench.tasks.base import Task, make_task

HERE = Path(__file__).resolve().parent
ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))
TECHNIQUES = {
    "rtn": ("weight_rtn", {}),
    "hqq": ("weight_hqq", {}),
    "awq": ("weight_awq", {}),
    "gptq": ("weight_gptq", {}),
    "gptq, act order": ("weight_gptq", {"act_order": True}),
}
#: What awq and gptq look at: stories of some hundred tokens, or sentences of ten, of which it takes more to know the
#: second moments of 1536 inputs.
SAMPLES = {"perplexity": 60, "accuracy": 1024}


def own_stories(task: Task, count: int = 64, length: int = 192) -> str:
    """Texts that the model writes from its first token on, drawn with a fixed seed."""
    import torch

    module = task.draft().module
    ids = torch.full((count, 1), module.config.bos_token_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        how = {"do_sample": True, "top_k": 0, "max_new_tokens": length, "use_cache": True, "pad_token_id": 2}
        ids = module.generate(ids, attention_mask=torch.ones_like(ids), **how)
    encoder = task.source().encoder()  # type: ignore[attr-defined]
    return f"\n{SEPARATOR}\n".join(encoder.text(row) for row in ids.tolist())


def stories(folder: Path) -> dict[str, Task]:
    """The task that is calibrated and scored, then others that the same model is scored on."""
    model, sample = ASSETS / "models" / "stories260K", ASSETS / "data" / "tinystories_sample.txt"
    first = make_task(model, sample, kind="causal_lm", sequence=512)
    (folder / "test.txt").write_text(sample.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "train.txt").write_text(own_stories(first), encoding="utf-8")
    wiki = make_task(model, ASSETS / "data" / "wikitext-2", kind="causal_lm", sequence=512, limit=50)
    return {"TinyStories": make_task(model, folder, kind="causal_lm", sequence=512), "WikiText-2": wiki}


def minilm(folder: Path) -> dict[str, Task]:
    return {"SST-2": make_task(ASSETS / "models" / "minilm-l6-sst2", ASSETS / "data" / "sst2", text="sentence")}


def answers(runner: object, backend: Eager, task: Task) -> Answers:
    batches = backend.batches(task.encoded("select"), task.pad())
    return task.outcomes("select", ((batch, runner(batch)) for batch in batches))  # type: ignore[operator]


def table(tasks: dict[str, Task], names: Iterable[str], bits: Iterable[int], groups: Iterable[int]) -> None:
    main = next(iter(tasks.values()))
    backend = Eager(
        batch=1 if main.metric == "perplexity" else 32, sequence=512 if main.metric == "perplexity" else 128
    )
    before: dict[str, Answers] = {}
    heads = [f"{name}: {task.metric} | worse by, paired | flips" for name, task in tasks.items()]
    print(f"| technique | bits | group | {' | '.join(heads)} | MB | seconds |")
    print("|---" * (5 + 3 * len(tasks)) + "|")
    settings = [("none", 32, None), *itertools.product(names, bits, groups)]
    for name, width, group in settings:
        began, draft = time.perf_counter(), main.draft()
        if group is not None:
            plugin, knobs = TECHNIQUES[name]
            if name.startswith(("awq", "gptq")):
                knobs = {**knobs, "samples": SAMPLES[main.metric]}
            draft = find("techniques", plugin)(bits=width, group_size=group, **knobs).apply(draft)
        seconds = time.perf_counter() - began
        with tempfile.TemporaryDirectory() as place:
            backend.lower(draft, Path(place))
            size = (Path(place) / "model.safetensors").stat().st_size / 1e6
            runner = backend.load(Path(place))
            cells = []
            for text, task in tasks.items():
                found = answers(runner, backend, task)
                first = before.setdefault(text, found)
                lost, gained = flips(first, found)
                share = drop(first, found, task.metric)
                told = share.in_points() if share.unit == "fraction" else share
                cells.append(f"{score_of(task.metric, found).value:.4f} | {told} | −{lost} +{gained}")
        print(
            f"| {name} | {width} | {group if group else 'row'} | {' | '.join(cells)} | {size:.2f} | {seconds:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("stories", "minilm"), nargs="+", default=["stories", "minilm"])
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4])
    parser.add_argument("--groups", type=int, nargs="+", default=[32, 64, 0])
    parser.add_argument("--only", nargs="+", default=list(TECHNIQUES), choices=list(TECHNIQUES))
    chosen = parser.parse_args()
    for name in chosen.model:
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{name}\n")
            tasks = {"stories": stories, "minilm": minilm}[name](Path(folder))
            table(tasks, chosen.only, chosen.bits, chosen.groups)


if __name__ == "__main__":
    main()
