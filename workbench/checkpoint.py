"""What an interrupted training needs to go on: tensors as safetensors, counters as JSON, renamed into place as one.

Everything that a step reads is kept: the module, what parts train and remember beside it, the optimizer's state. The
order of the examples and the random numbers follow from the seed and the step. Left out: checkpoints to go back to.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

#: Seconds from one writing to the next.
KEEP_EVERY = 60.0


class Checkpoint:
    """The state of a `training.Run` with its parts and its optimizer; kept nowhere for a draft without work folder."""

    def __init__(self, run: Any, parts: Sequence[Any], optimizer: Any) -> None:
        self._run, self._parts, self._optimizer = run, parts, optimizer
        folder = run.draft.work.folder
        self._folder = folder / "training" if folder else None
        self._last = time.perf_counter()

    def keep(self) -> None:
        """Write, where the last time is a minute ago."""
        if self._folder is None or time.perf_counter() - self._last < KEEP_EVERY:
            return
        from safetensors.torch import save_file

        partial = self._folder.with_name(f"{self._folder.name}.partial-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(
            {name: t.detach().contiguous().clone() for name, t in self._tensors().items()},
            partial / "state.safetensors",
        )
        run = self._run
        counters = {"step": run.step, "seconds": run.seconds, "losses": run.losses[-50:], "pace": asdict(run.pace)}
        (partial / "state.json").write_text(json.dumps(counters), encoding="utf-8")
        shutil.rmtree(self._folder, ignore_errors=True)
        partial.rename(self._folder)
        self._last = time.perf_counter()

    def restore(self) -> None:
        """Take up what an interrupted run of the same pace left, if anything."""
        import torch
        from safetensors.torch import load_file

        path = self._folder / "state.json" if self._folder else None
        if path is None or not path.is_file():
            return
        counters = json.loads(path.read_text(encoding="utf-8"))
        if counters["pace"] != asdict(self._run.pace):
            return
        run = self._run
        run.step, run.seconds, run.losses = counters["step"], counters["seconds"], counters["losses"]
        # The optimizer makes its state at the first step; made here, it can be filled.
        for group in self._optimizer.param_groups:
            for tensor in group["params"]:
                zeros = {"exp_avg": torch.zeros_like(tensor), "exp_avg_sq": torch.zeros_like(tensor)}
                self._optimizer.state[tensor] = {"step": torch.tensor(float(run.step)), **zeros}
        stored = load_file(path.with_name("state.safetensors"))
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(stored[name])

    def forget(self) -> None:
        """The run is over: what it left is of no use any more."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _tensors(self) -> dict[str, Any]:
        found = {f"module.{name}": t for name, t in self._run.module.named_parameters()}
        found |= {f"buffer.{name}": t for name, t in self._run.module.named_buffers()}
        for i, part in enumerate(self._parts):
            found |= {f"part.{i}.extra.{j}": t for j, t in enumerate(part.parameters())}
            found |= {f"part.{i}.state.{key}": t for key, t in part.state().items()}
        params = [t for group in self._optimizer.param_groups for t in group["params"]]
        for i, tensor in enumerate(params):
            found |= {f"optimizer.{i}.{key}": value for key, value in self._optimizer.state.get(tensor, {}).items()}
        return found
