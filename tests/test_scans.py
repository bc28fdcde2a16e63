"""Scans in the runner: rows are stored as they come, survive a kill and a stop, and are read where they are known."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_folders import save_model, write_splits

from workbench.backends.eager import Eager
from workbench.errors import TrialError
from workbench.recipe import Recipe
from workbench.sensitivity.scan import frame, order, rows
from workbench.study import Study, make_task
from workbench.techniques.prune import Prune

pytestmark = pytest.mark.usefixtures("fake_plugins")


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    save_model(tmp_path / "model")
    return make_task(tmp_path / "model", write_splits(tmp_path / "data"), sequence=16)


def without_seconds(table: Any) -> Any:
    return table.drop(columns="seconds")


def runners(folder: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(folder) in (p.info["cmdline"] or [])]


def until(happened: Any, seconds: float = 120.0) -> None:
    end = time.time() + seconds
    while not happened():
        assert time.time() < end, "it did not happen"
        time.sleep(0.05)


def ordered(study: Study, given: Any) -> None:
    """Order a scan without waiting for it."""
    study._store.set("scan:mine", {"order": given.to_json(), "title": given.title, "state": "waiting", "message": "",
                                   "rows": [], "created": time.time()})  # fmt: skip
    study._spawn()


def test_a_scan_survives_kill_and_stop(tmp_path: Path, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fakes import Sleepy

    folder = tmp_path / "study"
    study = Study(folder, task)
    given = order(Prune(), Sleepy(wait=0.25), samples=8)
    ordered(study, given)

    def found() -> list[dict[str, Any]]:
        return study._store.get("scan:mine")["rows"]

    until(lambda: len(found()) >= 2)
    assert study.status().stage == "scan"
    for one in runners(folder):
        os.kill(one.pid, signal.SIGKILL)
    # One that is just being killed has no command line any more, and still lives.
    until(lambda: not runners(folder) and study.status().state == "idle")
    before = found()
    assert 2 <= len(before) < 14
    assert study.scans().state[0] == "interrupted"
    # The rows must come from the study itself: the cache may be deleted at any time.
    for file in (tmp_path / "cache" / "scans").iterdir():
        file.unlink()
    study.resume()
    until(lambda: len(found()) >= len(before) + 2)
    assert found()[: len(before)] == before
    study.stop()
    assert study.scans().state[0] == "stopped"
    assert study.status().state == "idle"
    middle = found()
    assert len(middle) < 14
    study.resume()
    study.wait()
    listed = study.scans().iloc[0]
    assert (listed.state, listed.rows, listed.id) == ("done", 14, "mine")
    assert found()[: len(middle)] == middle
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "other"))
    whole = frame(rows(task, given), given)
    assert without_seconds(study.scanned("mine")).equals(without_seconds(whole))
    # Nothing but the scan was done: no baseline, no trial.
    assert study.trials == []


def test_a_study_scans_once_and_tells_costs_and_failures(
    tmp_path: Path, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path / "study", task)
    first = study.scan("prune", "nmse", samples=8)
    assert len(first) == 14
    assert (first.score > 0).all()
    with monkeypatch.context() as patch:
        patch.setattr(study, "_spawn", lambda: pytest.fail("what is known was scanned again"))
        assert study.scan("prune", "nmse", samples=8).equals(first)
    with pytest.raises(TrialError, match="drop_layers cannot remove"):
        study.scan("drop_layers", "nmse", samples=8)
    costs = study.costs(Recipe(backend=Eager(sequence=16, threads=1)), calls=3)
    assert list(costs[costs.layer != ""].layer) == list(first.layer)
    assert study.scans().kind.tolist() == ["scan", "scan", "cost"]
    assert study.scans().state.tolist() == ["done", "failed", "done"]
    with pytest.raises(TrialError, match="no scan 'nothing'"):
        study.scanned("nothing")
