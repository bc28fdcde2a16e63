"""The main job, end to end on the embedded demo: what the README's first command does, and what one leaves with."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from workbench.report import write_report
from workbench.study import Study
from workbench.sweep import sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

BACKENDS = {"eager", "compiled", "onnxruntime", "openvino"}


class Fetched(HTMLParser):
    """The addresses that a browser would fetch to show a page; text inside its scripts is none."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        named = given.get("src") or (given.get("href") if tag == "link" else None) or ""
        if named and not named.startswith("data:"):
            self.addresses.append(named)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    techniques = ("bf16", "dynamic_int8", "static_int8", "prune_magnitude", "drop_layers")
    return sweep(
        "demo", study=tmp_path_factory.mktemp("main") / "demo", techniques=techniques, budget="14", timing_seconds=2.0
    )


def test_a_dozen_trials_over_all_four_runtimes_are_measured(study: Study) -> None:
    failed = [f"{t.recipe.title}: {t.error}\n{t.details}" for t in study.trials if t.state != "complete"]
    assert not failed
    assert len(study.trials) >= 12
    assert {t.recipe.backend.name for t in study.trials} == BACKENDS
    assert study.front()


def test_what_took_effect_is_what_was_asked(study: Study) -> None:
    for trial in study.trials:
        share = trial.measurement.in_effect["precision"]
        assert sum(share.values()) == pytest.approx(1.0)
        for kind in trial.recipe.precisions():
            assert share[kind.removesuffix("_static").removesuffix("_dynamic")] > 0.9, trial.recipe.title


def test_front_is_measured_again_on_the_test_split(study: Study) -> None:
    for number in study.front():
        assert study.trials[number].report.split == "report"


def test_refused_pairs_have_reasons(study: Study) -> None:
    reasons = {row["title"]: row["reason"] for row in study.refused()}
    assert "BF16" in reasons["bf16 · onnxruntime"]


def test_report_opens_off_line(study: Study, tmp_path: Path) -> None:
    page = write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")
    fetched = Fetched()
    fetched.feed(page)
    assert fetched.addresses == []
    assert study.trials[1].recipe.backend.title in page


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_exported_folder_runs_without_this_package(study: Study, tmp_path: Path, backend: str) -> None:
    chosen = [t for t in study.trials if t.recipe.backend.name == backend and t.recipe.steps] or study.trials
    trial = next(t for t in chosen if t.recipe.backend.name == backend)
    folder = study.export(trial.number, tmp_path / "model")
    assert not list(folder.rglob("*.pkl"))
    assert not list(folder.rglob("*.bin"))[1:]
    for code in folder.glob("*.py"):
        assert "import workbench" not in code.read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "run.py", "--check"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["same_labels"]
    answer = subprocess.run(
        [sys.executable, "run.py", "a <b>great</b> lamp"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert json.loads(answer.stdout.splitlines()[-1])["label"] in study.task.labels


def test_export_refuses_a_folder_that_holds_something(study: Study, tmp_path: Path) -> None:
    from workbench.errors import UserError

    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something already"):
        study.export(0, tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"
