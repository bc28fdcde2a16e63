"""The hub, through the real huggingface_hub and datasets clients, against a small server on the loopback address.

The clients read `HF_ENDPOINT` when they are imported, so each conversation runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, Repository
from tiny_folders import LABELS, rows, save_model

PRELUDE = """
import json
from workbench.errors import WorkbenchError
from workbench.loading.hub import fetch_dataset, fetch_model
from workbench.tasks.base import make_task, task_from_json

def tell(fetch, *args):
    shares = []
    try:
        path = fetch(*args, progress=lambda share, what: shares.append(share))
    except WorkbenchError as error:
        return {"error": type(error).__name__, "text": str(error)}
    return {"files": sorted(file.name for file in path.iterdir()), "shares": shares, "path": str(path)}

def model(name, revision=None):
    return tell(fetch_model, name, revision)

def dataset(name, revision=None):
    return tell(fetch_dataset, name, revision)

def opened():
    task = make_task("made/up", "made/glue/sst2", revision="v1")
    task.prepare()
    return [task.to_json(), task.fingerprint(), task.sizes(), task.labels]
"""
#: A port that nothing listens on: as good as no network.
NOBODY = "http://127.0.0.1:9"

CARD = """---
configs:
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
- config_name: cola
  data_files:
  - split: train
    path: cola/train-*
---
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model repository: what is wanted, and what nobody asked for."""
    folder = tmp_path_factory.mktemp("hub") / "model"
    save_model(folder)
    wanted = {file.name: file.read_bytes() for file in folder.iterdir()}
    return {**wanted, "README.md": b"# hi", "pytorch_model.bin": b"\x80\x02", "onnx/model.safetensors": b"x"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A data set repository with two configurations in Parquet."""
    import datasets

    folder = tmp_path_factory.mktemp("hub")
    features = datasets.Features(sentence=datasets.Value("string"), label=datasets.ClassLabel(names=list(LABELS)))

    def parquet(count: int, start: int) -> bytes:
        drawn = rows(count, start)
        columns = {"sentence": [text for text, _ in drawn], "label": [label for _, label in drawn]}
        datasets.Dataset.from_dict(columns, features).to_parquet(str(folder / "x.parquet"))
        return (folder / "x.parquet").read_bytes()

    return {
        "README.md": CARD.encode(),
        "sst2/train-00000-of-00001.parquet": parquet(30, 0),
        "sst2/validation-00000-of-00001.parquet": parquet(20, 1000),
        "cola/train-00000-of-00001.parquet": parquet(10, 500),
    }


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where both caches lie."""
    return tmp_path / "home"


def ask(url: str, home: Path, *calls: str, **environment: str) -> list[Any]:
    """What the calls gave, in a process that takes `url` for the hub."""
    gone = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE")
    settings = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home / "hf"),
        "WORKBENCH_CACHE": str(home / "workbench"),
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        **environment,
    }
    script = f"{PRELUDE}\nprint('RESULT ' + json.dumps([{', '.join(calls)}]))"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**{k: v for k, v in os.environ.items() if k not in gone}, **settings},
        capture_output=True,
        text=True,
        timeout=240,
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, ran.stderr[-4000:]
    return json.loads(lines[-1].removeprefix("RESULT "))


def wanted(files: dict[str, bytes]) -> list[str]:
    return sorted(set(files) - {"README.md", "pytorch_model.bin", "onnx/model.safetensors"})


def test_a_model_is_downloaded_once_and_with_progress(hub: FakeHub, home: Path, files: dict[str, bytes]) -> None:
    hub.models["made/up"] = Repository(files, revisions=("main", "v1"))
    (first,) = ask(hub.url, home, "model('made/up')")
    assert first["files"] == wanted(files) == sorted(hub.fetched())
    assert len(first["shares"]) > 2
    assert first["shares"] == sorted(first["shares"])
    assert first["shares"][-1] == 1.0
    for name in wanted(files):
        assert (Path(first["path"]) / name).read_bytes() == files[name]
    hub.forget()
    again, tagged = ask(hub.url, home, "model('made/up')", "model('made/up', 'v1')")
    assert again["path"] == tagged["path"] == first["path"]
    assert hub.fetched() == []
    # Without the hub, and where asking it is forbidden, the copy does.
    for url, environment in ((NOBODY, {}), (hub.url, {"HF_HUB_OFFLINE": "1"})):
        hub.forget()
        (kept,) = ask(url, home, "model('made/up')", **environment)
        assert kept["path"] == first["path"]
        assert hub.requests == []


def test_a_broken_connection_is_taken_up_where_it_broke(hub: FakeHub, home: Path) -> None:
    # The client writes blocks of 10 MiB: what came before the last whole one is not asked for again.
    weights = os.urandom(2**20) * 24
    hub.models["made/up"] = Repository({"config.json": b"{}", "model.safetensors": weights})
    hub.drops["model.safetensors"] = 15 * 2**20
    (told,) = ask(hub.url, home, "model('made/up')")
    assert hub.ranges() == [f"bytes={10 * 2**20}-"]
    assert (Path(told["path"]) / "model.safetensors").read_bytes() == weights
    assert told["shares"] == sorted(told["shares"])


def test_a_hub_that_dies_half_way(hub: FakeHub, home: Path, files: dict[str, bytes]) -> None:
    hub.models["made/up"] = Repository(files)
    hub.dies_at = "model.safetensors"
    (told,) = ask(hub.url, home, "model('made/up')")
    assert told["error"] == "HubError"
    assert "could not be reached, or broke off" in told["text"]
    assert "run it again" in told["text"]
    arrived = {file.name for file in (home / "hf").rglob("snapshots/*/*")}
    assert "model.safetensors" not in arrived
    hub.dies_at, hub.dead = None, False
    hub.forget()
    (second,) = ask(hub.url, home, "model('made/up')")
    assert second["files"] == wanted(files)
    assert set(hub.fetched()) == set(wanted(files)) - arrived


def test_what_the_hub_refuses(hub: FakeHub, home: Path, files: dict[str, bytes]) -> None:
    hub.models["made/up"] = Repository(files)
    hub.models["made/gated"] = Repository(files, gated=True)
    hub.models["made/pickled"] = Repository({"config.json": b"{}", "pytorch_model.bin": b"\x80\x02"})
    hub.models["made/empty"] = Repository({"config.json": b"{}"})
    hub.models["made/gguf"] = Repository({"model.gguf": b"x"})
    cases = [
        ("model('made/absent')", "HubError", "has no model 'made/absent'"),
        ("model('made/up', 'v9')", "HubError", "no revision 'v9'"),
        ("model('made/../up')", "HubError", "is no id of the hub"),
        ("model('made/gated')", "HubError", "hf auth login"),
        ("model('made/pickled')", "UnsafeModel", "M.from_pretrained('made/pickled').save_pretrained"),
        ("model('made/empty')", "ModelError", "has no weights"),
        ("model('made/gguf')", "ModelError", "no config.json"),
    ]
    for (call, error, text), told in zip(cases, ask(hub.url, home, *(case[0] for case in cases)), strict=True):
        assert told.get("error") == error, (call, told)
        assert text in told["text"], call
        assert "What to do" in told["text"] or "Allowed" in told["text"]
    assert hub.fetched() == []


def test_no_hub_at_all(hub: FakeHub, home: Path) -> None:
    (nobody,) = ask(NOBODY, home, "model('made/up')")
    assert nobody["error"] == "HubError"
    assert "could not be reached" in nobody["text"]
    hub.status = 500
    (broken,) = ask(hub.url, home, "model('made/up')")
    assert broken["error"] == "HubError"
    assert "500" in broken["text"]
    (offline, data) = ask(hub.url, home, "model('made/up')", "dataset('made/up')", HF_HUB_OFFLINE="1")
    for told in (offline, data):
        assert told["error"] == "HubError"
        assert "HF_HUB_OFFLINE=1 forbids" in told["text"]


def test_a_data_set_is_downloaded_once(hub: FakeHub, home: Path, tables: dict[str, bytes]) -> None:
    hub.datasets["made/glue"] = Repository(tables)
    (first,) = ask(hub.url, home, "dataset('made/glue/sst2')")
    assert first["files"] == ["train.parquet", "validation.parquet"]
    assert first["shares"] == sorted(first["shares"])
    assert first["shares"][-1] == 1.0
    assert {name for name in hub.fetched() if name.endswith("parquet")} == {n for n in tables if n.startswith("sst2")}
    hub.forget()
    (again,) = ask(hub.url, home, "dataset('made/glue/sst2')")
    assert again["path"] == first["path"]
    assert hub.fetched() == []
    for url, environment in ((NOBODY, {}), (hub.url, {"HF_HUB_OFFLINE": "1"})):
        (kept,) = ask(url, home, "dataset('made/glue/sst2')", **environment)
        assert kept["path"] == first["path"]
    # What was half built when it failed is not left behind.
    assert not list((home / "workbench").rglob(".new-*"))


def test_a_data_set_by_its_old_short_name(hub: FakeHub, home: Path, tables: dict[str, bytes]) -> None:
    """`glue/sst2` is configuration sst2 of glue, which the hub calls nyu-mll/glue today."""
    hub.datasets["glue"] = hub.datasets["nyu-mll/glue"] = Repository(tables, id="nyu-mll/glue")
    (told,) = ask(hub.url, home, "dataset('glue/sst2')")
    assert told["files"] == ["train.parquet", "validation.parquet"]


def test_data_sets_that_cannot_be_had(hub: FakeHub, home: Path, tables: dict[str, bytes]) -> None:
    hub.datasets["made/glue"] = Repository(tables)
    hub.datasets["made/gated"] = Repository(tables, gated=True)
    hub.datasets["made/script"] = Repository({"script.py": b"raise SystemExit('ran')", "README.md": b"# x"})
    hub.datasets["made/csv"] = Repository({"train.csv": b"text,label\na,0\n", "test.csv": b"text,label\nb,1\n"})
    hub.datasets["made/broken"] = Repository({"train.parquet": b"PAR1 nonsense"})
    cases = [
        ("dataset('made/absent')", "HubError", "has no data set 'made/absent'"),
        ("dataset('made/glue', 'v9')", "HubError", "no revision 'v9'"),
        ("dataset('made/gated/sst2')", "HubError", "is gated"),
        ("dataset('made/glue')", "DataError", "several configurations"),
        ("dataset('made/glue/qqp')", "DataError", "no configuration 'qqp'"),
        ("dataset('made/script')", "DataError", "is a Python script"),
        ("dataset('made/broken')", "DataError", "cannot be read"),
    ]
    *failed, csv = ask(hub.url, home, *(case[0] for case in cases), "dataset('made/csv')")
    for (call, error, text), told in zip(cases, failed, strict=True):
        assert told.get("error") == error, (call, told)
        assert text in told["text"], (call, told)
    assert csv["files"] == ["test.parquet", "train.parquet"]
    assert not list((home / "workbench").rglob(".new-*"))


def test_a_task_from_the_hub_needs_it_only_once(
    hub: FakeHub, home: Path, files: dict[str, bytes], tables: dict[str, bytes]
) -> None:
    hub.models["made/up"] = Repository(files, revisions=("main", "v1"))
    hub.datasets["made/glue"] = Repository(tables)
    ((carried, fingerprint, sizes, labels),) = ask(hub.url, home, "opened()")
    assert sizes == {"calibration": 30, "select": 20, "report": 0}
    assert labels == list(LABELS)
    hub.dead = True
    hub.forget()
    # Neither a process that was told where things lie, nor one that was not, asks the hub again.
    untold = {key: value for key, value in carried.items() if key != "found"}
    again = [f"task_from_json(json.loads({json.dumps(task)!r})).fingerprint()" for task in (carried, untold)]
    assert ask(hub.url, home, *again) == [fingerprint, fingerprint]
    assert hub.requests == []
