"""Fixtures that several test files share. Nothing here, and no test, may reach for a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if os.environ.get("PYTEST_XDIST_WORKER"):
    # Workers share the processor; two teams of threads that wait for each other are slower than one thread each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two workers on any machine; none for the other lanes, which time, train or drive a browser."""
    return 2 if "not browser" in config.option.markexpr else 0


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real models and data; skips where it is absent."""
    folder = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parent.parent / "shared" / "assets"))
    if not (folder / "models" / "minilm-l6-sst2" / "model.safetensors").is_file():
        pytest.skip(f"needs real models and data, which are not in {folder} (set WORKBENCH_ASSETS)")
    return folder.resolve()


@pytest.fixture
def fake_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fakes, installed as plug-ins in this process and in every process that it starts."""
    import fakes

    from workbench import registry

    info = tmp_path / "site" / "workbench_fakes-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: workbench-fakes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(fakes.ENTRY_POINTS)
    path = [str(info.parent), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    # Fakes time nothing, so they need not wait for a real sweep that holds this machine's lock.
    monkeypatch.setenv("TMPDIR", str(info.parent))
    monkeypatch.syspath_prepend(str(info.parent))
    registry.members.cache_clear()
    yield
    registry.members.cache_clear()
