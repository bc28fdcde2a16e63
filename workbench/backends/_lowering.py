"""What the runtimes share when they lower a draft: example inputs, calibration, fixed shapes, threads, settings, quiet.

Every artifact holds `lowered.json` with what its backend must know to load it again. MACs by layer are counted on the
module before it is lowered; which precision each layer then runs in is read from the lowered model.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.backends.base import Backend, collate
from workbench.draft import Batch, Draft, Plan
from workbench.errors import ModelError, Refused
from workbench.int8 import Range
from workbench.measure.machine import usable_cores

if TYPE_CHECKING:
    import torch

SETTINGS = "lowered.json"

#: Loggers that report what no user of the workbench can act on.
_CHATTY = ("torchao", "nncf", "torch.onnx", "torch.export", "torch._inductor", "torch.utils._pytree", "transformers")


def write_settings(folder: Path, **settings: Any) -> None:
    """Write what `load` must know, as JSON, into `folder`, made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")


def read_settings(folder: Path) -> dict[str, Any]:
    """What `write_settings` wrote; raises `ModelError` where there is nothing."""
    path = folder / SETTINGS
    if not path.is_file():
        raise ModelError(f"{folder} holds no lowered model: it has no {SETTINGS}.", do="compress the recipe again")
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return settings


def spread(count: int) -> list[int]:
    """Numbers of `count` logical cores that this process may use, of different physical ones first; [] for a single
    thread, where there are not as many, and on systems that do not tell."""
    if count < 2 or not hasattr(os, "sched_getaffinity"):
        return []
    first: dict[str, int] = {}
    allowed = sorted(os.sched_getaffinity(0))
    for core in allowed:
        place = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        first.setdefault(place.read_text() if place.is_file() else str(core), core)
    apart = list(first.values())
    found = [*apart, *(core for core in allowed if core not in apart)][:count]
    return found if len(found) == count else []


def threads(wanted: int) -> int:
    """The number of intra-op threads: `wanted`, or one for every core this process may use."""
    return wanted or usable_cores()


def one_float(plan: Plan, title: str) -> str:
    """The one float precision of a plan; `Refused` where single layers ask for another one than the rest."""
    floats = {precision.kind for precision in plan.layers.values() if not precision.kind.startswith("int")}
    if floats - {plan.base}:
        raise Refused(
            f"{title} runs all layers that are not quantized in one float precision, and the plan mixes "
            f"{', '.join(sorted(floats | {plan.base}))}.",
            do="use one float precision for the whole model (mixed_precision: raise bf16_limit), or PyTorch compiled, "
            "which mixes them beside INT8",
        )
    return plan.base


def known_ranges(plan: Plan) -> dict[str, Range]:
    """The planned input range of every static INT8 layer; empty where the runtime's own quantizer is to find them.

    Raises `Refused` where only some layers have one: two quantizers on one graph would undo each other's work.
    """
    names = plan.of("int8_static")
    found = {name: limits for name in names if (limits := plan.layers[name].input_range) is not None}
    if found and len(found) < len(names):
        lost = next(name for name in names if name not in found)
        raise Refused(
            f"{len(found)} of {len(names)} static INT8 layers have a known range and the rest has none, such as "
            f"{lost!r}.",
            allowed="a range for every layer, or for none",
        )
    return found


def example(inputs: Sequence[str], batch: int, sequence: int) -> tuple[torch.Tensor, ...]:
    """One int64 tensor of shape (batch, sequence) for each input, in order: ones, but token types zero."""
    import torch

    shape = (batch, sequence)
    return tuple((torch.zeros if "type" in name else torch.ones)(shape, dtype=torch.long) for name in inputs)


def calibration(draft: Draft, samples: int, sequence: int, *, fixed: tuple[int, int] | None = None) -> list[Batch]:
    """Calibration examples as batches of one, each at its own length, or of shape `fixed` (batch, sequence)."""
    examples = draft.data.calibration(samples)
    lengths = [min(len(next(iter(one.values()))), sequence) for one in examples]
    batches = [collate([one], size, draft.pad) for one, size in zip(examples, lengths, strict=True)]
    return [fit(batch, fixed, draft.pad) for batch in batches] if fixed else batches


def fit(batch: Batch, shape: tuple[int, int], pad: Mapping[str, int]) -> Batch:
    """`batch` filled up to `shape` (batch, sequence): with padding on the right, and with rows that repeat the first.

    Raises `ModelError` for a batch that is larger.
    """
    rows, length = next(iter(batch.values())).shape
    if (rows, length) == shape:
        return batch
    if rows > shape[0] or length > shape[1]:
        raise ModelError(
            f"A batch of shape {(rows, length)} came to a model of fixed shape {shape}.",
            allowed=f"at most {shape[0]} examples of {shape[1]} tokens",
            do="raise the knobs `batch` and `sequence`, or use shapes='dynamic'",
        )
    filled = {}
    for name, array in batch.items():
        wider = np.pad(array, ((0, 0), (0, shape[1] - length)), constant_values=pad.get(name, 0))
        filled[name] = np.concatenate([wider, np.repeat(wider[:1], shape[0] - rows, axis=0)])
    return filled


def positional(module: torch.nn.Module, inputs: Sequence[str]) -> torch.nn.Module:
    """`module` as `model` inside one that takes its inputs by position and returns the logits alone, in float32."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            answer = logits(self.model(**dict(zip(inputs, tensors, strict=True))))
            # A cast that changes nothing would still take the name of the last layer's node.
            return answer if answer.dtype == torch.float32 else answer.float()

    return Logits().eval()


def logits(output: Any) -> torch.Tensor:
    """The logits in what a module returned: itself, `.logits`, or the first of several."""
    found = getattr(output, "logits", output)
    return found[0] if isinstance(found, tuple | list) else found


def layer_macs(draft: Draft, sequence: int) -> dict[str, int]:
    """MACs by quantizable layer of one example of `sequence` tokens, counted on the module."""
    from workbench.measure.layers import layers

    tensors = example(draft.inputs, 1, sequence)
    return {layer.name: layer.macs for layer in layers(draft.module, dict(zip(draft.inputs, tensors, strict=True)))}


def missing_grids(draft: Draft) -> None:
    """Raise `Refused` where a layer is planned in integer weights and the draft has no integers for it."""
    planned = [name for name, one in draft.plan.layers.items() if one.kind.endswith("_weight")]
    if lost := [name for name in planned if name not in draft.grids]:
        raise Refused(
            f"{len(lost)} layers are planned in integer weights without any, such as {lost[0]!r}.",
            do="plan them with a weight-only technique, such as weight_rtn",
        )


def shares(precision: Mapping[str, str], macs: Mapping[str, int]) -> dict[str, float]:
    """Share of the layers' MACs by precision, adding to 1; empty where there are none."""
    counts: Counter[str] = Counter()
    for name, kind in precision.items():
        counts[kind] += macs[name]
    total = counts.total()
    return {kind: count / total for kind, count in counts.items()} if total else {}


def ran(kind: str) -> str:
    """What an effect calls a layer that runs in the planned `kind`: static and dynamic INT8 multiply alike."""
    return kind if kind.endswith("_weight") else kind.split("_")[0]


def honoured(plan: Plan, precision: Mapping[str, str], backend: Backend) -> None:
    """Raise `Refused` where the lowered model does not run a layer in the precision that was planned for it."""
    planned = dict.fromkeys(precision, plan.base) | {name: one.kind for name, one in plan.layers.items()}
    wrong = [name for name, kind in planned.items() if ran(kind) != precision.get(name)]
    if wrong:
        first = wrong[0]
        raise Refused(
            f"{backend.title} runs {len(wrong)} of {len(planned)} layers in another precision than planned, "
            f"such as {first!r}: {precision.get(first, 'nothing')} instead of {planned[first]}.",
            do="keep these layers, or use another runtime",
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back progress bars, notices and warnings of the libraries; their errors still come through as exceptions."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    before = [logger.level for logger in loggers]
    root, root_level = logging.getLogger(), logging.getLogger().level
    for logger in (*loggers, root):
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        root.setLevel(root_level)
