"""The command line: what scripts rely on, and one clear message with exit code 2 for every mistake."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from fakes import Fake, FakeTask

from workbench.recipe import Recipe
from workbench.study import Study

pytestmark = pytest.mark.usefixtures("fake_plugins")

SWEEP = [
    "sweep",
    "--task",
    "fake",
    "--techniques",
    "spoil:count=2|8",
    "--backends",
    "fake",
    "--timing",
    "0.05",
    "--strategy",
    "grid",
]
#: What the issue tracker promised to scripts.
TRIAL_KEYS = {
    *("number", "state", "recipe", "recipe_id", "code", "backend", "accuracy", "drop", "metric", "correct"),
    *("flips_lost", "flips_gained", "latency_ms", "speedup", "throughput", "size_mb", "peak_mb", "parameters"),
    *("macs", "in_effect", "split", "seconds", "error"),
}


def workbench(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The command in this process: what it printed and the code with which it would exit."""
    from workbench.cli import main

    out, err, code, back = io.StringIO(), io.StringIO(), None, os.getcwd()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["workbench", *arguments])
        os.chdir(cwd or back)
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            os.chdir(back)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def test_installed_command_exits_with_two_and_one_message(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from workbench.cli import main; main()", "front", "--study", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: There is no study in")


def refusal(*arguments: str, cwd: Path) -> str:
    """The message of a refused command: exit code 2, nothing on stdout, no traceback, nothing written."""
    before = sorted(p.name for p in cwd.iterdir())
    done = workbench(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(p.name for p in cwd.iterdir()) == before
    return done.stderr


def test_sweep_prints_the_promised_object_and_front_the_same_later(tmp_path: Path) -> None:
    done = workbench(*SWEEP, "--study", str(tmp_path / "s"), "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert {"study", "machine", "baseline", "front", "trials"} <= set(printed)
    assert printed["baseline"] == 0
    assert len(printed["trials"]) == 3
    for trial in printed["trials"]:
        assert set(trial) >= TRIAL_KEYS
        assert set(trial["latency_ms"]) == {"p50", "p90", "p99"}
        for name in ("accuracy", "drop", "speedup"):
            assert set(trial[name]) == {"value", "low", "high", "n", "unit"}
    later = workbench("front", "--study", str(tmp_path / "s"), "--all", "--json")
    assert json.loads(later.stdout) == printed
    shown = workbench("front", "--study", str(tmp_path / "s"))
    assert "spoil(count=2) · fake" in shown.stdout


def test_code_of_a_trial_is_python_that_gives_the_trial(tmp_path: Path) -> None:
    study = Study(tmp_path / "s", FakeTask())
    trial = study.run(Recipe(backend=Fake()))
    import workbench as public

    again = eval(study.rows()[0]["code"], {"Study": Study, "Recipe": public.Recipe, "Fake": public.Fake})  # noqa: S307
    assert again.number == trial.number == 0


def test_export_takes_a_number_or_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Study(tmp_path / "s", FakeTask()).run(Recipe(backend=Fake()))
    asked: list[int] = []
    monkeypatch.setattr(Study, "export", lambda self, number, folder: asked.append(number) or folder)
    for word in ("best", "0"):
        done = workbench("export", word, "out", "--study", str(tmp_path / "s"), cwd=tmp_path)
        assert done.stdout == "out\n", done.stderr
    assert asked == [0, 0]
    assert "a number, or best" in refusal("export", "fastest", "out", "--study", "s", cwd=tmp_path)


def test_run_takes_a_recipe_as_python(tmp_path: Path) -> None:
    Study(tmp_path / "s", FakeTask())
    done = workbench("run", "Recipe(Spoil(count=4), backend=Fake())", "--study", str(tmp_path / "s"), "--json")
    assert json.loads(done.stdout)["correct"] == 36, done.stderr
    harmful = workbench("run", "__import__('os').system('echo harm')", "--study", str(tmp_path / "s"))
    assert harmful.returncode == 2
    assert "harm\n" not in harmful.stdout


def test_runs_list_show_delete(tmp_path: Path) -> None:
    Study(tmp_path / "s", FakeTask()).run(Recipe(backend=Fake()))
    (row,) = json.loads(workbench("runs", "list", str(tmp_path), "--json").stdout)
    assert row == {"study": str(tmp_path / "s"), "state": "idle", "trials": 1}
    assert "fp32 · fake" in workbench("runs", "show", str(tmp_path / "s")).stdout
    assert workbench("runs", "delete", str(tmp_path / "s"), "--yes").returncode == 0
    assert not (tmp_path / "s").exists()


def test_delete_refuses_what_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "holiday-photos").mkdir()
    assert "no study" in refusal("runs", "delete", "holiday-photos", "--yes", cwd=tmp_path)


@pytest.mark.parametrize("family", ["techniques", "backends", "strategies", "probes", "tasks"])
def test_list_says_what_a_script_needs(family: str) -> None:
    done = workbench("list", family, "--json")
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout):
        assert {"name", "group", "summary", "knobs", "available", "reason"} <= set(row)
        assert row["available"] or row["reason"]
        assert row["summary"], row["name"]
        for knob in row["knobs"].values():
            assert {"default", "low", "high", "choices", "help"} <= set(knob)


def test_machine_is_json() -> None:
    assert json.loads(workbench("machine", "--json").stdout)["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep"], "Nothing to compress"),
        (["sweep", "--task", "fake", "--techniques", "spoill"], "did you mean 'spoil'"),
        (["sweep", "--task", "fake", "--backends", "onnxruntme"], "did you mean 'onnxruntime'"),
        (["sweep", "--task", "fake", "--strategy", "gird"], "did you mean 'grid'"),
        (["sweep", "--task", "fakes"], "did you mean 'fake'"),
        (["sweep", "--task", "fake", "--metric", "acuracy"], "did you mean 'accuracy'"),
        (["sweep", "--task", "fake", "--techniques", "spoil:count=99", "--backends", "fake"], "≤ 40"),
        (["sweep", "--task", "fake", "--techniques", "spoil:cuont=9", "--backends", "fake"], "did you mean 'count'"),
        (["sweep", "--task", "fake", "--techniques", "spoil:count=many", "--backends", "fake"], "whole number"),
        (["sweep", "--task", "fake", "--budget", "soon"], "number of trials"),
        (["sweep", "--task", "fake", "--budget", "0"], "budget"),
        (["sweep", "--task", "fake", "--max-drop", "7"], "from 0 to 1"),
        (["sweep", "--task", "fake", "--batch", "0", "--backends", "fake"], "≥ 1"),
        (["sweep", "--task", "fake", "--trial-limit", "20"], "no time"),
        (["sweep", "--model", "somewhere"], "needs data"),
        (["front", "--study", "nowhere"], "no study"),
        (["report", "--study", "nowhere"], "no study"),
        (["run", "Recipe(Spoil(), backend=Fake(), backend=1)", "--study", "nowhere"], "no study"),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, arguments: list[str], words: str) -> None:
    message = refusal(*arguments, cwd=tmp_path)
    assert words in message


def test_bad_data_leaves_no_study_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.errors import DataError
    from workbench.sweep import sweep

    monkeypatch.setattr(FakeTask, "prepare", _broken)
    with pytest.raises(DataError):
        sweep("fake", kind="fake", study=tmp_path / "s", backends=["fake"], techniques=[])
    assert not (tmp_path / "s").exists()


def _broken(self: FakeTask, progress: object = None) -> None:
    from workbench.errors import DataError

    raise DataError("the data file is empty")


def test_recipes_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    Study(tmp_path / "s", FakeTask())
    code = "Recipe(Spoil(), Spoil(), backend=Fake())"
    assert "stands twice" in refusal("run", code, "--study", "s", cwd=tmp_path)
    code = "Recipe(Spoil(), StaticInt8(), backend=Fake())"
    assert "exclude each other" in refusal("run", code, "--study", "s", cwd=tmp_path)
