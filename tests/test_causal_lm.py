"""Language modelling: windows, perplexity with its interval, and a sweep from the command line."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_lm import lm_folder, stories
from typer.testing import CliRunner

from workbench.errors import DataError, ModelError, TrialError, UnknownName, UserError
from workbench.loading.passages import read_documents, windows
from workbench.measure.accuracy import drop, flips, score_of
from workbench.measure.measurement import Measurement
from workbench.measure.outcomes import Outcomes
from workbench.measure.windows import Windows, score_window
from workbench.plots.front import pareto_data
from workbench.plots.table import change_text
from workbench.tasks.base import make_task, task_from_json
from workbench.tasks.causal_lm import CausalLM


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lm_folder(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "stories.txt"
    path.write_text(stories(6), encoding="utf-8")
    return path


# -- windows -------------------------------------------------------------------------------------------------------


def test_every_token_is_scored_once_with_the_first_token_in_front():
    cut = windows([[5, 6, 7, 8, 9], [10, 11]], size=3, begin=1)
    assert cut == [[1, 5, 6], [1, 7, 8], [1, 9], [1, 10, 11]]
    assert [token for window in cut for token in window[1:]] == [5, 6, 7, 8, 9, 10, 11]


def test_without_a_first_token_a_lone_token_is_no_window():
    assert windows([[5, 6, 7, 8, 9]], size=2, begin=None) == [[5, 6], [7, 8]]


def test_documents_are_parted_by_the_separator_and_by_rows(tmp_path):
    (tmp_path / "a.txt").write_text("\nOne two.\n<|endoftext|>\n\nThree.\n<|endoftext|>\n", encoding="utf-8")
    assert read_documents([tmp_path / "a.txt"]) == ["One two.", "Three."]
    assert read_documents([tmp_path / "a.txt"], separator="\n\n")[1] == "Three.\n<|endoftext|>"
    (tmp_path / "b.csv").write_text("body,n\nOne.,1\nTwo.,2\n", encoding="utf-8")
    assert read_documents([tmp_path / "b.csv"], text=("body",)) == ["One.", "Two."]
    (tmp_path / "c.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(DataError, match="no text"):
        read_documents([tmp_path / "c.txt"])


def test_a_window_is_scored_as_cross_entropy_scores_it():
    import torch

    random = np.random.default_rng(0)
    logits, tokens = random.normal(size=(6, 9)).astype(np.float32) * 3, [1, 4, 2, 8, 0]
    loss, hits = score_window(logits, tokens)
    wanted = torch.nn.functional.cross_entropy(torch.tensor(logits[:4]), torch.tensor(tokens[1:]), reduction="sum")
    assert loss == pytest.approx(float(wanted), rel=1e-6)
    assert hits.tolist() == [bool(logits[i].argmax() == tokens[i + 1]) for i in range(4)]


# -- outcomes ------------------------------------------------------------------------------------------------------


def made(losses, hits=None, text="a"):
    tokens = np.full(len(losses), 4)
    return Windows(np.array(losses), tokens, np.zeros(4 * len(losses)) if hits is None else hits, text)


def test_perplexity_is_the_exponential_of_the_loss_per_token():
    found = score_of("perplexity", made([4.0, 8.0, 6.0]))
    assert found.value == pytest.approx(math.exp(18 / 12))
    assert math.exp(1) <= found.low < found.value < found.high <= math.exp(2)
    assert found.n == 3


def test_the_drop_is_paired_and_positive_where_the_candidate_is_worse():
    random = np.random.default_rng(0)
    before = random.uniform(2, 12, size=60)
    worse = drop(made(before), made(before + 0.04), "perplexity")
    assert worse.value == pytest.approx(np.exp(before.sum() / 240) * (math.exp(0.01) - 1), rel=1e-5)
    assert 0 < worse.low < worse.value < worse.high
    # Windows differ much and all lose alike: the paired interval is far narrower than that of the score.
    assert worse.half_width < 0.05 * score_of("perplexity", made(before)).half_width


def test_flips_count_tokens():
    before, after = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    assert flips(made([1.0], before), made([1.0], after)) == (1, 1)


def test_other_text_does_not_pair_and_other_metrics_do_not_apply():
    with pytest.raises(DataError, match="same examples"):
        drop(made([1.0]), made([1.0], text="b"), "perplexity")
    with pytest.raises(DataError, match="same examples"):
        drop(made([1.0]), Outcomes(np.zeros(4, int), np.zeros(4, int)), "perplexity")
    with pytest.raises(DataError, match="accuracy"):
        score_of("accuracy", made([1.0]))
    with pytest.raises(DataError, match="perplexity"):
        score_of("perplexity", Outcomes(np.zeros(4, int), np.zeros(4, int)))


def test_windows_survive_json_inside_a_measurement():
    one = made([1.25, 7.5], np.array([1, 0, 0, 1, 1, 1, 0, 0]))
    measured = Measurement(score_of("perplexity", one), "perplexity", outcomes=one).against(
        Measurement(score_of("perplexity", one), "perplexity", outcomes=one)
    )
    again = Measurement.from_json(json.loads(json.dumps(measured.to_json())))
    assert again == measured
    assert isinstance(again.outcomes, Windows)
    assert again.drop is not None
    assert again.drop.value == 0
    damaged = {**one.to_json(), "hits": one.to_json()["losses"]}
    with pytest.raises(DataError, match="damaged"):
        Windows.from_json(damaged)


def test_broken_windows_are_refused():
    with pytest.raises(DataError, match="no number"):
        made([1.0, math.nan])
    with pytest.raises(DataError, match="do not fit"):
        made([1.0], np.zeros(3))


# -- the task ------------------------------------------------------------------------------------------------------


def test_the_task_scores_as_the_model_does(model, text):
    import torch

    task = make_task(model, text, kind="causal_lm", sequence=16)
    task.prepare()
    module = task.draft().module
    examples = task.encoded("select")
    assert {len(e["input_ids"]) for e in examples} == {16, 1 + 30 % 15} - {1}
    losses = []
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example["input_ids"]])
            losses.append(float(module(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1))
    batch = {"input_ids": np.array([e["input_ids"] for e in examples])}
    with torch.no_grad():
        logits = module(input_ids=torch.tensor(batch["input_ids"])).logits.numpy()
    # A runtime with a fixed shape gives more positions and is given in two batches.
    wider = np.concatenate([logits, logits[:, :3]], axis=1)
    found = task.outcomes("select", [(batch, wider[:5]), (batch, wider[5:])])
    np.testing.assert_allclose(found.losses, losses, rtol=1e-5)
    with pytest.raises(UserError, match="cut"):
        task.outcomes("select", [(batch, logits[:, :9])])
    with pytest.raises(TrialError, match="NaN"):
        task.outcomes("select", [(batch, np.full_like(logits, np.nan))])


def test_it_goes_to_another_process_and_keeps_its_identity(model, text):
    task = make_task(str(model), str(text), kind="causal_lm", sequence=16)
    again = task_from_json(json.loads(json.dumps(task.to_json())))
    assert again == task
    assert again.fingerprint() == task.fingerprint()
    assert CausalLM(str(model), str(text), sequence=12).fingerprint() != task.fingerprint()
    assert task.describe()["scored_tokens"] == 180
    assert "beginning-of-text" in task.describe()["windows"]


def test_splits_serve_what_their_names_say(model, tmp_path):
    for name, count in (("train", 5), ("valid", 3), ("test", 4)):
        (tmp_path / f"{name}.txt").write_text(stories(count, 15, seed=count), encoding="utf-8")
    task = CausalLM(str(model), str(tmp_path), sequence=16)
    assert task.sizes() == {"calibration": 5, "select": 3, "report": 4}
    examples, targets = task.draft().data.training()
    assert len(examples) == 5
    assert set(targets) == {-1}
    with pytest.raises(DataError, match="calibration windows"):
        task.draft().data.calibration(6)
    assert CausalLM(str(model), str(tmp_path), split="test", sequence=16).sizes()["select"] == 4
    with pytest.raises(DataError, match="no split"):
        CausalLM(str(model), str(tmp_path), split="dev", sequence=16).sizes()


def test_one_text_is_parted_and_never_trained_on_what_is_measured(model, text, tmp_path):
    small = CausalLM(str(model), str(text), sequence=16)
    assert small.sizes() == {"calibration": 12, "select": 12, "report": 0}
    with pytest.raises(DataError, match="what it has seen"):
        small.draft().data.training()
    (tmp_path / "long.txt").write_text(stories(60, 15), encoding="utf-8")
    large = CausalLM(str(model), str(tmp_path / "long.txt"), sequence=16, limit=20)
    assert large.sizes() == {"calibration": 30, "select": 20, "report": 0}
    held = {tuple(e["input_ids"]) for e in large.encoded("calibration")}
    assert not held & {tuple(e["input_ids"]) for e in large.encoded("select")}
    halved = CausalLM(str(model), str(tmp_path / "long.txt"), sequence=16, reserve=0.5)
    assert halved.sizes() == {"calibration": 30, "select": 15, "report": 15}


def test_bad_input_is_an_error_with_a_reason(model, text, tmp_path):
    with pytest.raises(UnknownName, match="perplexity"):
        CausalLM(str(model), str(text), metric="accuracy")
    with pytest.raises(UserError, match="sequence"):
        CausalLM(str(model), str(text), sequence=100).prepare()
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(UserError, match="cannot be read"):
        CausalLM(str(model), str(tmp_path / "a.pdf")).sizes()
    config = json.loads((model / "config.json").read_text())
    other = tmp_path / "bert"
    other.mkdir()
    for file in model.iterdir():
        os.link(file, other / file.name) if file.name != "config.json" else None
    (other / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ModelError, match="no causal language model"):
        CausalLM(str(other), str(text), sequence=16).prepare()
    with pytest.raises(UnknownName, match="perplexity"):
        make_task(str(model), str(text), metric="perplexity")


# -- a study -------------------------------------------------------------------------------------------------------


def test_a_sweep_from_the_command_line(model, text, tmp_path, monkeypatch):
    from workbench.cli import app
    from workbench.report import report_html
    from workbench.study import Study

    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    study = tmp_path / "study"
    command = ["sweep", "--task", "causal_lm", "--model", str(model), "--data", str(text), "--study", str(study)]
    command += ["--techniques", "drop_layers:count=1", "--backends", "eager", "--sequence", "16", "--threads", "1"]
    done = CliRunner().invoke(app, [*command, "--timing", "0.2", "--max-drop", "0.5", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["trials"]
    assert [row["state"] for row in rows] == ["complete", "complete"]
    assert {row["metric"] for row in rows} == {"perplexity"}
    base, dropped = rows
    assert base["drop"]["value"] == 0
    assert dropped["drop"]["value"] == pytest.approx(dropped["accuracy"]["value"] - base["accuracy"]["value"])
    opened = Study(study)
    data = pareto_data(opened.frame(), opened.goal)
    assert not data.more_is_better
    assert data.goal == pytest.approx(1.5 * base["accuracy"]["value"])
    assert "perplexity" in report_html(opened).lower()
    row = next(row for row in opened.frame().to_dict("records") if row["number"] == 1)
    assert change_text(row).startswith("−") == (dropped["drop"]["value"] < 0)
    with pytest.raises(UserError, match="no classes"):
        opened.export(1, tmp_path / "out")


@pytest.mark.slow
def test_stories260k_scores_as_its_source_says(tmp_path):
    assets = os.environ.get("WORKBENCH_ASSETS")
    if not assets:
        pytest.skip("WORKBENCH_ASSETS is not set")
    from workbench.backends.eager import Eager

    root = Path(assets)
    task = make_task(root / "models/stories260K", root / "data/tinystories_sample.txt", kind="causal_lm", sequence=512)
    backend = Eager(sequence=512, threads=1)
    backend.lower(task.draft(), tmp_path)
    runner = backend.load(tmp_path)
    batches = backend.batches(task.encoded("select"), task.pad())
    found = task.outcomes("select", ((batch, runner(batch)) for batch in batches))
    assert found.tokens.sum() == 1804
    assert found.losses.sum() / 1804 == pytest.approx(1.266, abs=5e-4)
