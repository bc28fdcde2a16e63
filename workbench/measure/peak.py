"""What this machine can do at most: operations a second in each precision, and bytes a second out of its memory.

Both are measured with PyTorch: the best of some products of large square matrices, and of some sums over an array that
no cache holds. Floats are multiplied both as matrices and as a 1 x 1 convolution, which is the same product by oneDNN:
on processors that are not Intel's the library for matrices uses half of the processor's width. They are the roofs of a
roofline (S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009).
Left out: caches, whose bandwidth is many times that of the memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.measure.machine import usable_cores

#: Width of the square matrices, and numbers in the array: large enough to be at full speed, and for no cache.
_WIDTH, _NUMBERS = 1024, 50_000_000


@dataclass(frozen=True)
class Peaks:
    """`operations`: billion operations a second by precision, a multiplication and its addition being two; `memory`:
    billion bytes read in a second (GB/s); `threads` that did it."""

    operations: dict[str, float]
    memory: float
    threads: int

    def __str__(self) -> str:
        speeds = ", ".join(f"{kind} {speed:.0f}" for kind, speed in self.operations.items())
        return (
            f"{speeds} billion operations a second; {self.memory:.0f} GB a second from memory; {self.threads} threads"
        )


def peaks(threads: int = 0, seconds: float = 0.5) -> Peaks:
    """Measure both with `threads` (0 = every core this process may use), about `seconds` for each number.

    A precision that PyTorch cannot multiply in here is left out. What else runs on the machine lowers the numbers.
    """
    import torch

    count, before = threads or usable_cores(), torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.inference_mode():
            found = {
                kind: 2 * _WIDTH**3 / 1e9 / min(_best(job, seconds / len(jobs)) for job in jobs)
                for kind, jobs in _products(torch).items()
            }
            array = torch.ones(_NUMBERS)
            memory = 4 * _NUMBERS / 1e9 / _best(array.sum, seconds)
    finally:
        torch.set_num_threads(before)
    return Peaks(found, memory, count)


def _products(torch: Any) -> dict[str, list[Callable[[], Any]]]:
    """Ways to multiply two square matrices, by precision."""
    plain = torch.randn(_WIDTH, _WIDTH)
    # Weights lie as a linear layer keeps them, (out, in).
    given = {"fp32": plain, "bf16": plain.bfloat16(), "int8": (10 * plain).clamp(-127, 127).to(torch.int8)}
    found = {kind: _product(torch, kind, values) for kind, values in given.items()}
    return {kind: jobs for kind, jobs in found.items() if jobs}


def _product(torch: Any, kind: str, values: Any) -> list[Callable[[], Any]]:
    jobs: list[Callable[[], Any]] = [
        (lambda: torch._int_mm(values, values.T)) if kind == "int8" else (lambda: values @ values.T)
    ]
    if kind != "int8":
        last = torch.channels_last
        image = values.reshape(1, _WIDTH, -1, 32).contiguous(memory_format=last)
        weight = values.reshape(_WIDTH, _WIDTH, 1, 1).contiguous(memory_format=last)
        jobs.append(lambda: torch.nn.functional.conv2d(image, weight))
    return [job for job in jobs if _works(job)]


def _works(job: Callable[[], Any]) -> bool:
    try:
        job()
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    return True


def _best(job: Callable[[], Any], seconds: float) -> float:
    """The fewest seconds of a call; noise only ever adds time."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        began = time.perf_counter()
        job()
        best = min(best, time.perf_counter() - began)
    return best
