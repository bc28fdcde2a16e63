"""kill -9 to the runner, to the trial's process, and to both, at random moments of a sweep: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fakes import FakeTask

from workbench.recipe import Choice, Open, Space
from workbench.running.owner import is_alive
from workbench.study import Study

pytestmark = pytest.mark.usefixtures("fake_plugins")


def processes(folder: Path) -> dict[str, list[psutil.Process]]:
    """The study's runners and everything below them."""
    runners = [
        p
        for p in psutil.process_iter(["cmdline"])
        if "workbench.running.runner" in (p.info["cmdline"] or []) and str(folder) in p.info["cmdline"]
    ]
    children = [c for r in runners for c in r.children(recursive=True)]
    return {"runner": runners, "trial": children}


def kill(victims: list[psutil.Process]) -> None:
    for victim in victims:
        try:
            os.kill(victim.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.timeout(300)
def test_nothing_is_lost_by_ten_kills(tmp_path: Path) -> None:
    rng = random.Random(7)
    folder = tmp_path / "s"
    study = Study(folder, FakeTask())
    counts = tuple(range(1, 19))
    space = Space(Open("spoil", count=Choice(*counts)), backends=[Open("fake", wait=0.4)])
    study.start(space, "in_order", timing_seconds=0.05)
    finished: dict[int, str] = {}
    seen: set[int] = set()
    whom = ["runner", "trial", "both"] * 4
    for target in whom[:10]:
        time.sleep(rng.uniform(0.2, 2.5))
        alive = processes(folder)
        seen |= {p.pid for group in alive.values() for p in group}
        kill([*(alive["runner"] if target != "trial" else []), *(alive["trial"] if target != "runner" else [])])
        for trial in study.trials:
            if trial.number in finished:
                # What was finished before the kill is there after it, to the byte.
                assert finished[trial.number] == str(trial.measurement.to_json())
            elif trial.state == "complete":
                finished[trial.number] = str(trial.measurement.to_json())
        if target != "trial":
            # A killed process loses its command line before it is dead; its number says when it is.
            gone(lambda killed=alive["runner"]: [p for p in killed if is_alive(p.pid)])
            assert study.status().state in ("interrupted", "idle")
            study.resume()
    study.wait()
    if study.status().state == "interrupted":
        study.resume()
        study.wait()
    trials = study.trials
    assert [t.number for t in trials] == list(range(19))
    assert len({t.recipe.id for t in trials}) == 19
    # A process killed twice from outside on one trial is that trial's failure; the reason says so.
    assert all(t.state == "complete" or "killed twice" in t.error for t in trials)
    assert sum(t.state == "complete" for t in trials) >= 17
    # The last runner has said that it is done; on a busy machine it takes a while to end.
    gone(lambda: processes(folder)["runner"])
    gone(lambda: [pid for pid in seen if is_alive(pid)])


def gone(left: Callable[[], list], seconds: float = 20.0) -> None:
    """Wait until nothing is `left`."""
    end = time.time() + seconds
    while left() and time.time() < end:
        time.sleep(0.05)
    assert not left()
