"""Where each layer lies under the roofs of the machine: bound by its arithmetic, or by what has to be read for it.

    roofline(layer_table(study, 0), study.costs(recipe), peaks())

A layer's intensity is its operations for each byte that must be moved at least: its weight, input and output once.
Source: S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009. Left out: caches. Small weights stay in
them between two calls, so that a layer may well be above the roof of the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import DataError
from workbench.measure.peak import Peaks

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("layer", "precision", "operations", "bytes", "intensity", "gops", "roof", "share", "bound")
#: Bytes of a number by precision.
BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0}


def roofline(layers: pd.DataFrame, costs: pd.DataFrame, peaks: Peaks) -> pd.DataFrame:
    """One row per layer: `operations` and `bytes` of one call, `intensity` (operations a byte), `gops` (billion
    operations a second that it reaches), `roof` (those that are possible at its intensity), `share` of the roof, and
    whether the `bound` is the arithmetic or the memory.

    `layers` is `workbench.reading.layer_table`, `costs` what `Study.costs` gives for a recipe; layers of a precision
    that `peaks` knows nothing of are left out. Raises `DataError` where the two have no layer in common.
    """
    import pandas as pd

    shapes = layers.set_index("layer")
    batch = int(costs.attrs["recipe"]["backend"]["batch"])
    rows = []
    for row in costs[costs.layer.isin(shapes.index)].to_dict("records"):
        kind, shape = str(row["precision"]), shapes.loc[row["layer"]]
        if kind not in peaks.operations or not row["ms"] > 0:
            continue
        weights = float(shape["width"] * shape["inputs"])
        calls = batch * float(shape["macs"]) / weights  # rows of the input: tokens of all examples
        operations = 2 * weights * calls
        moved = BYTES[kind] * (weights + calls * float(shape["width"] + shape["inputs"]))
        gops, arithmetic = operations / row["ms"] / 1e6, peaks.operations[kind]
        memory = peaks.memory * operations / moved
        roof, bound = (arithmetic, "arithmetic") if arithmetic <= memory else (memory, "memory")
        rows.append((row["layer"], kind, operations, moved, operations / moved, gops, roof, gops / roof, bound))
    if not rows:
        raise DataError("No layer has both a shape and a cost.", do="give both tables of one model")
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    found.attrs = {"title": costs.attrs.get("title", "")}
    return found
