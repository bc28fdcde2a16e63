"""Mixed precision by layer: INT8 where it is exact enough, BF16 where it is not, FP32 where neither is.

Each layer is compared with itself on calibration examples: the normalised squared error of its output when its input
and weight are on the INT8 grid, and when they are rounded to BF16. All that is no linear layer runs in BF16. Left out:
errors that grow from layer to layer (a search over whole models, the tuner's work).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from workbench.draft import Draft, ModelFacts, Precision
from workbench.errors import Refused
from workbench.int8 import Range
from workbench.knobs import knob
from workbench.techniques._calibrate import METHODS, find_ranges
from workbench.techniques._int8 import chunks, error, matrix, quantized, quantized_weight, watch
from workbench.techniques._plan import no_layers, plan_layers
from workbench.techniques.base import Technique

if TYPE_CHECKING:
    import torch


class MixedPrecision(Technique):
    """Choose INT8, BF16 or FP32 for every layer by its error: INT8 where it pays, BF16 where INT8 hurts.

    Source: after the mixed precision of Intel Neural Compressor 2.x; K. Wang et al., "HAQ", CVPR 2019, arXiv:1811.08886
    (precision by layer); error as in H. Wu et al., arXiv:2004.09602, 2020. Cost: seconds of calibration. Helps on
    processors with BF16 and INT8 units (AMX), where static_int8 loses too much by a few layers; OpenVINO and inductor
    mix both in one model.
    """

    name = "mixed_precision"
    group = "mixed precision"
    needs = "calibration"
    source = "Wang et al. 2019, arXiv:1811.08886"
    precisions = frozenset({"int8_static", "bf16"})
    phase = 5

    int8_limit: float = knob(
        0.01, low=0, high=1, search=(0.001, 0.003, 0.01), help="largest normalised squared error of a layer in INT8"
    )
    bf16_limit: float = knob(0.001, low=0, high=1, help="largest normalised squared error of a layer in BF16")
    calibration: str = knob("mse", choices=METHODS, help="how the INT8 ranges are found")
    samples: int = knob(128, low=1, high=10_000, unit="examples", help="training examples to calibrate on")
    per_channel: bool = knob(
        True, help="one scale for each output channel of a weight (more exact), not one for the whole weight"
    )

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module to compare on, or nothing to quantize."""
        if not facts.has_module:
            return f"{self.name} runs the PyTorch module, and an ONNX file has none; start from the checkpoint"
        return super().fits(facts) or no_layers(self.name, facts)

    def apply(self, draft: Draft) -> Draft:
        """Plan every layer that is not kept, and BF16 for the rest; raises what calibration raises."""
        reason = self.fits(draft.facts)
        if reason:
            raise Refused(f"{self.name} cannot be done here: {reason}")
        names = draft.quantizable()
        if not names:
            return plan_layers(draft, self.name, Precision("int8_static"))
        ranges = find_ranges(draft, names, self.calibration, self.samples)
        errors = layer_errors(draft, ranges, self.per_channel, self.samples)
        kinds = {name: chosen(*errors[name], self.int8_limit, self.bf16_limit) for name in names}
        draft.plan.base = "bf16"
        for name, kind in kinds.items():
            if kind == "int8_static":
                draft.plan.layers[name] = Precision(
                    kind,
                    per_channel=self.per_channel,
                    calibration=self.calibration,
                    samples=self.samples,
                    input_range=ranges[name],
                )
            elif kind == "fp32":
                draft.plan.layers[name] = Precision("fp32")
        draft.notes.append(_told(kinds, errors))
        if draft.kept:
            draft.notes.append(f"the {len(draft.kept)} kept layers run in BF16, like all that is not quantized")
        return draft


def chosen(int8: float, bf16: float, int8_limit: float, bf16_limit: float) -> str:
    """The precision of one layer by its normalised errors in INT8 and in BF16."""
    if int8 <= int8_limit:
        return "int8_static"
    return "bf16" if bf16 <= bf16_limit else "fp32"


def layer_errors(
    draft: Draft, ranges: Mapping[str, Range], per_channel: bool, samples: int
) -> dict[str, tuple[float, float]]:
    """For each layer in `ranges` the sum of squared differences over the sum of squares of its output, without its
    bias: in INT8 and in BF16."""
    import torch

    plain = {name: matrix(draft.module.get_submodule(name)) for name in ranges}
    weights = {name: (quantized_weight(w, per_channel), w.bfloat16().float()) for name, w in plain.items()}
    sums = {name: np.zeros((2, 2)) for name in ranges}

    def see(name: str, rows: list[int], values: torch.Tensor, output: torch.Tensor) -> None:
        wanted = values @ plain[name].T
        sums[name][0] += error(wanted, quantized(values, ranges[name]) @ weights[name][0].T)
        sums[name][1] += error(wanted, (values.bfloat16().float() @ weights[name][1].T).bfloat16().float())

    with torch.no_grad():
        watch(draft.module, ranges, chunks(draft, samples), see)
    return {name: (float(a[0] / max(a[1], 1e-30)), float(b[0] / max(b[1], 1e-30))) for name, (a, b) in sums.items()}


def _told(kinds: Mapping[str, str], errors: Mapping[str, tuple[float, float]]) -> str:
    """The plan in one line: how many layers of each kind, and those that are not INT8 with their errors."""
    counts = ", ".join(f"{list(kinds.values()).count(k)} {k}" for k in ("int8_static", "bf16", "fp32"))
    rest = [f"{n} {k} (error in INT8 {errors[n][0]:.2g})" for n, k in kinds.items() if k != "int8_static"]
    return f"mixed_precision planned {counts}" + (f": {', '.join(rest)}" if rest else "")
