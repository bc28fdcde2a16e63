"""Content hashes of files, rows and settings: equal content, equal hash, on every machine.

Sizes and dates are not content. Files up to `FULL` bytes are hashed whole; of larger ones the size, the head (where
safetensors keeps names, shapes and offsets) and evenly spaced samples. Left out: detecting a change of a few bytes
between the samples of a file over `FULL`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FULL = 512 * 2**20
_CHUNK = 2**20
_SAMPLES = 256


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's content, sampled over `FULL` bytes."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= FULL:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        else:
            for sample in range(_SAMPLES):
                file.seek(sample * (size - _CHUNK) // (_SAMPLES - 1))
                digest.update(file.read(_CHUNK))
    return digest.hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """Hash of several files by name and content, whatever their order and folder."""
    return hash_json(sorted([path.name, hash_file(path)] for path in paths))


def hash_json(data: Any) -> str:
    """SHA-256 (hex) of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
