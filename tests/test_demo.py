"""The demo task: its grammar, its training, its cache, and whether the trained model is worth compressing."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.errors import ModelError, ResourceError
from workbench.tasks import _reviews, demo
from workbench.tasks._reviews import ADJECTIVES, GRAMMAR, LONGEST, reviews

#: Trains in a second or two; it learns nothing, so nothing is asked of it.
TINY = demo.Settings(layers=1, width=16, heads=2, feed_forward=16, positions=64, steps=12, batch=8, enough=0.0)

FLIPS = (
    "is not ", "is never ", "anything but ", "far from ", "nobody would call ", "there is nothing ", "no longer ",
    "nobody could claim ", "hardly be less ",
)  # fmt: skip


def polarity(clause: str) -> int:
    """What one clause says, found by another way than the grammar's: its adjective, and a list of negations."""
    words = set(re.findall(r"\w+", clause))
    positive = [not words.isdisjoint(adjectives) for adjectives in ADJECTIVES]
    assert positive in ([True, False], [False, True]), clause
    flips = any(flip in clause for flip in FLIPS) and "is not only" not in clause
    return int(positive[1] != flips)


# The grammar


def test_reviews_are_a_pure_function_of_count_and_seed():
    assert reviews(50, 3) == reviews(50, 3)
    assert reviews(50, 3) != reviews(50, 4)


def test_a_changed_grammar_raises_its_number():
    """Models are filed under `GRAMMAR`. If this fails: raise the number and put the new hash beside it."""
    text = json.dumps(reviews(2000, 0))
    assert {GRAMMAR: hashlib.sha256(text.encode()).hexdigest()[:16]} == {2: "ea076c8ca0f3032d"}


def test_reviews_are_balanced_distinct_and_short():
    found = reviews(1001, 5)
    texts = [text for text, _ in found]
    assert sum(label for _, label in found) == 500
    assert len(set(texts)) == 1001
    assert max(len(text.split()) for text in texts) <= LONGEST
    assert all(text[0].isupper() and text.endswith(".") and "{" not in text for text in texts)


def test_excluded_texts_do_not_come_back():
    first = {text for text, _ in reviews(300, 6)}
    assert first.isdisjoint(text for text, _ in reviews(300, 6, exclude=first))


def test_no_text_is_in_two_parts():
    parts = [{text for text, _ in examples} for examples in demo.data().values()]
    assert [len(part) for part in parts] == list(demo.PARTS.values())
    assert len(set.union(*parts)) == sum(demo.PARTS.values())


@pytest.mark.parametrize("label", [0, 1])
def test_a_clause_says_what_it_was_asked_to_say(label: int):
    rng = random.Random(label)
    clauses = [_reviews._clause(rng, label, "lid") for _ in range(2000)]
    assert {polarity(clause) for clause in clauses} == {label}
    assert any(flip in clause for clause in clauses for flip in FLIPS)


@pytest.mark.parametrize(
    ("pattern", "upside_down"),
    [
        (r"^(?!.*says).*(?:, but |, yet |\. Still, |\. That said, )(.+?)\.", False),
        (r"^(?:Although|Even though|While) [^,]+, (.+?)\.", False),
        (r"^(?!.*(?:says|people|is true)[^,]*, )([^,.]+), (?:although|even if) ", False),
        (r"^My \w+ says that .+?, but I think (.+?)\.", False),
        (r"^I think (.+?), but my \w+ says", False),
        (r"\. In fact (.+?)\.", False),
        (r"\. I find that (.+?)\.", False),
        (r"([^.]+), unlike the \w+ \w+ I had before", False),
        (r"On this one (.+?)\.", False),
        (r"says that ([^,]+), and I agree", False),
        (r"says that ([^,]+), and I disagree", True),
        (r"People who say that (.+) are right", False),
        (r"People who say that (.+) are wrong", True),
        (r"It is not true that (.+?)\.", True),
        (r"It is true that (.+?)\.", False),
        (r"Do not believe those who deny that (.+?)\.", False),
        (r"Do not believe those who say that (.+?)\.", True),
    ],
)
def test_the_deciding_clause_decides(pattern: str, upside_down: bool):
    found = [(re.search(pattern, text), label) for text, label in demo.data()["train"]]
    hits = [(match.group(1), label) for match, label in found if match]
    assert len(hits) > 20
    assert [(c, label) for c, label in hits if (polarity(_lower(c)) != upside_down) != bool(label)] == []


def _lower(clause: str) -> str:
    return clause.strip()[0].lower() + clause.strip()[1:]


# Training and cache, with a model too small to learn anything


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "demo"


def test_curriculum_begins_short_and_gives_every_step():
    draw = random.Random(0)
    lengths = [draw.randint(5, 40) for _ in range(3000)]
    settings = demo.Settings(steps=200, batch=16, shortest=10, growth=0.5)
    batches = list(demo.curriculum(lengths, settings, random.Random(1)))
    assert len(batches) == 200
    assert max(len(batch) for batch in batches) == 16
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert max(longest[:16]) <= 10 < 30 < max(longest[100:])
    assert len({i for batch in batches for i in batch}) > 1000


def test_curriculum_of_equal_lengths_ends():
    settings = demo.Settings(steps=20, batch=16, shortest=10)
    assert len(list(demo.curriculum([29] * 40, settings, random.Random(1)))) == 20


def test_first_use_trains_and_the_second_reads_the_cache(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[float, str]] = []
    folder = demo.demo_folder(lambda share, message: seen.append((share, message)), TINY)
    assert sorted(path.name for path in own_cache.iterdir() if path.is_dir()) == [folder.name]
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert (folder / "model.safetensors").is_file()
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert len(shares) >= 3
    assert (seen[0][0], seen[-1][0]) == (pytest.approx(0.98 * 5 / 12), 1.0)
    monkeypatch.setattr(demo, "train", lambda *_: pytest.fail("trained again"))
    assert demo.demo_folder(settings=TINY) == folder


def test_equal_seeds_give_equal_weights_and_leave_random_state_alone():
    import torch

    tokenizer = demo.make_tokenizer([text for text, _ in demo.data()["train"]], TINY)
    torch.manual_seed(7)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    one, same, other = (demo.train(tokenizer, TINY, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


def test_other_settings_have_another_folder(own_cache: Path):
    from dataclasses import replace

    assert demo.demo_folder(settings=TINY) != demo.demo_folder(settings=replace(TINY, seed=5))


def test_what_a_killed_training_left_is_cleared(own_cache: Path):
    folder = demo.demo_folder(settings=TINY)
    whole = (folder / "model.safetensors").read_bytes()
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(whole[:100])
    (folder / "config.json").unlink()
    assert demo.demo_folder(settings=TINY) == folder
    assert (folder / "model.safetensors").read_bytes() == whole
    assert not partial.exists()


def test_too_weak_a_model_is_refused_and_not_kept(own_cache: Path):
    from dataclasses import replace

    with pytest.raises(ModelError, match="2 trainings"):
        demo.demo_folder(settings=replace(TINY, enough=1.01, attempts=2))
    assert [path for path in own_cache.iterdir() if path.is_dir()] == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="WORKBENCH_CACHE"):
        demo.demo_folder(settings=TINY)


SCRIPT = """
import sys
from dataclasses import replace
sys.path[:0] = [{tests!r}, {root!r}]
from test_demo import TINY
from workbench.tasks import demo
print("begun", flush=True)
print(demo.demo_folder(lambda share, message: print(message, flush=True), replace(TINY, steps={steps})))
"""


def _elsewhere(steps: int) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    script = SCRIPT.format(tests=str(here), root=str(here.parent), steps=steps)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )


def test_two_processes_train_once(own_cache: Path):
    processes = [_elsewhere(100), _elsewhere(100)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("step 100 of 100" in output for output in outputs) == 1
    assert outputs[0].splitlines()[-1] == outputs[1].splitlines()[-1]


def test_a_killed_training_leaves_nothing_and_frees_the_lock(own_cache: Path):
    from dataclasses import replace

    victim = _elsewhere(5000)
    assert victim.stdout is not None
    assert any("step 10 of" in line for line in victim.stdout)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    assert [path for path in own_cache.iterdir() if path.is_dir()] == []
    # The very settings of the victim, whose lock this waits for.
    real, demo.train = demo.train, lambda tokenizer, settings, seed, progress: real(tokenizer, TINY, seed, progress)
    try:
        folder = demo.demo_folder(settings=replace(TINY, steps=5000))
    finally:
        demo.train = real
    assert (folder / "model.safetensors").is_file()
