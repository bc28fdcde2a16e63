"""Is there room for the model? Asked of the safetensors header, before any weight is read.

The header is JSON behind an eight-byte length, as https://github.com/huggingface/safetensors specifies it.
Left out: what the forward pass needs on top (activations), which depends on batch and length.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.errors import ModelError, ResourceError

#: No header is longer than this (the format's own limit).
_LONGEST_HEADER = 100_000_000


def tensors(file: Path) -> dict[str, dict[str, Any]]:
    """Name -> `{"dtype", "shape", "data_offsets"}`; raises `ModelError` for a truncated file or another format."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else _LONGEST_HEADER + 1
        if length > min(size - 8, _LONGEST_HEADER):
            raise _damaged(file, f"{size} bytes are too few for its header")
        try:
            header = json.loads(stream.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise _damaged(file, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _damaged(file, "its header is not a JSON object")
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if 8 + length + end != size:
        raise _damaged(file, f"it has {size} bytes and should have {8 + length + end}")
    return header


def check_memory(files: Sequence[Path], where: str) -> None:
    """Raise `ResourceError` where the weights, as float32, do not fit beside what already runs."""
    numbers = sum(math.prod(entry["shape"]) for file in files for entry in tensors(file).values())
    # Once as float32, and once more while they are read.
    check_room(4 * numbers + sum(file.stat().st_size for file in files), where)


def check_room(needed: int, where: str) -> None:
    """Raise `ResourceError` where `needed` bytes are more than the machine has available now."""
    import psutil

    free = psutil.virtual_memory().available
    if needed > free:
        raise ResourceError(
            f"Not enough memory for {where}: loading it takes {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB "
            "are available.",
            do="close other programs or kernels, use a machine with more memory, or choose a smaller model",
        )


def _damaged(file: Path, why: str) -> ModelError:
    return ModelError(f"{file} is truncated or no safetensors file: {why}.", do="download or save the model again")
