"""Sizes on disk and memory, on files and allocations whose size is known."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from workbench.errors import ResourceError
from workbench.measure import footprint
from workbench.measure.footprint import available_mb, compressed_mb, peak_mb, reset_peak, resident_mb, size_mb

MB = 1_000_000


def noise(n: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    return np.random.default_rng(seed).bytes(n)


def test_size_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(MB))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.bin").write_bytes(bytes(MB // 2))
    assert size_mb(tmp_path) == 1.5
    assert size_mb(tmp_path / "a.bin") == 1.0


def test_links_count_once_and_as_what_they_point_to(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    (blobs / "weights").write_bytes(bytes(MB))
    (snapshot / "model").symlink_to(blobs / "weights")
    os.link(blobs / "weights", snapshot / "again")
    (snapshot / "dangling").symlink_to(blobs / "gone")
    assert size_mb(snapshot) == 1.0
    assert size_mb(tmp_path) == 1.0


def test_nothing_there(tmp_path: Path) -> None:
    for weigh in (size_mb, compressed_mb):
        with pytest.raises(ResourceError, match="nothing at"):
            weigh(tmp_path / "gone")
    assert size_mb(tmp_path) == 0
    assert compressed_mb(tmp_path) == 0


def test_compressed_size(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(noise(MB))
    assert compressed_mb(tmp_path) == pytest.approx(1.0, rel=0.01)
    (tmp_path / "zeros").write_bytes(bytes(MB))
    (tmp_path / "empty").write_bytes(b"")
    assert compressed_mb(tmp_path) == pytest.approx(1.0, abs=0.02)


def test_sparsity_shows_in_the_compressed_size_only(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=250_000).astype(np.float32)
    (tmp_path / "dense").write_bytes(weights.tobytes())
    weights[np.random.default_rng(1).random(250_000) < 0.7] = 0
    (tmp_path / "sparse").write_bytes(weights.tobytes())
    assert size_mb(tmp_path / "sparse") == size_mb(tmp_path / "dense")
    assert compressed_mb(tmp_path / "sparse") < 0.5 * compressed_mb(tmp_path / "dense")


def test_a_large_file_is_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "_CHUNK", 4096)
    monkeypatch.setattr(footprint, "_SAMPLED", 16)
    # A quarter noise, the rest zeros, and a last chunk that is not full.
    (tmp_path / "large").write_bytes(noise(64 * 4096) + bytes(192 * 4096 - 100))
    assert compressed_mb(tmp_path / "large") == pytest.approx(64 * 4096 / 1e6, rel=0.05)


def test_memory_of_this_process() -> None:
    before = resident_mb()
    assert 0 < before <= peak_mb() * 1.01
    held = np.ones(100 * MB, dtype=np.uint8)
    assert resident_mb() > before + 90
    assert peak_mb() > before + 90
    assert held[-1] == 1
    assert available_mb() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_the_peak_can_start_again() -> None:
    held = np.ones(200 * MB, dtype=np.uint8)
    high = peak_mb()
    del held
    if not reset_peak():
        pytest.skip("this container does not let a process reset its peak")
    assert peak_mb() < high - 150
