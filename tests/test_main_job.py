"""The main job, end to end on the embedded demo: what the README's first command does, and what one leaves with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import DEMO_BACKENDS, DEMO_TECHNIQUES, DEMO_TIMING_SECONDS
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
    folder = tmp_path_factory.mktemp("main") / "demo"
    return sweep(
        "demo",
        study=folder,
        techniques=DEMO_TECHNIQUES,
        backends=DEMO_BACKENDS,
        strategy="grid",
        budget="11",
        timing_seconds=DEMO_TIMING_SECONDS,
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
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pt", ".pth", ".ckpt")]
    # This package is installed where the tests run: the exported code finds one that cannot be imported instead.
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "workbench.py").write_text("raise ImportError('the exported folder needs the workbench')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "away")}

    def answer(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "run.py", *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    assert answer("--check")["same_labels"]
    assert answer("a <b>great</b> lamp")["label"] in study.task.labels


def test_export_refuses_a_folder_that_holds_something(study: Study, tmp_path: Path) -> None:
    from workbench.errors import UserError

    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something already"):
        study.export(0, tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"
