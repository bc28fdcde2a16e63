"""What the models of a study answer and what they hold, read in a process of its own.

Artifacts are loaded there, so a kernel stays small and quick; nothing is read while a trial is being measured on this
machine. Left out: activations outside of linear layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.errors import Refused, TrialError, UserError
from workbench.running.models import Models
from workbench.trial import Trial

if TYPE_CHECKING:
    from workbench.compress import Artifact
    from workbench.study import Study

#: Calls whose median is the latency of a single text; of many texts each is called once.
CALLS = 5
#: Columns of `answers`.
ANSWERS = ["example", "text", "trial", "title", "answer", "probability", "ms", "probabilities"]
#: Columns of `layer_table`.
LAYERS = ["layer", "precision", "width", "inputs", "parameters", "sparsity", "macs", "share", "origin"]
#: Operators that only change the form of numbers, by a part of their name, whatever the runtime calls them.
CONVERTS = re.compile(r"quantize|convert|reorder|cast", re.IGNORECASE)


@cache
def shared() -> Models:
    """The one process of this kernel that is used where no other is given."""
    return Models()


def measured(study: Study, number: int) -> Trial:
    """Trial `number`; raises `UserError` where there is none, `TrialError` where it gave no measurement."""
    trials = {trial.number: trial for trial in study.trials}
    if number not in trials:
        raise UserError(f"This study has no trial {number}.", allowed=", ".join(map(str, trials)) or "none yet")
    if trials[number].measurement is None:
        raise TrialError(
            f"Trial {number} has no measurement: {trials[number].error or trials[number].state}.",
            do="choose a complete trial",
        )
    return trials[number]


def examples(
    study: Study, split: str = "select", limit: int | None = None, *, models: Models | None = None, **ask: Any
) -> list[tuple[str, ...]]:
    """The texts of a split in the order of the outcomes."""
    found = (models or shared()).ask("examples", task=study.task.to_json(), split=split, limit=limit, **ask)
    return [tuple(text) for text in found["texts"]]


def answers(
    study: Study,
    numbers: Iterable[int],
    texts: Sequence[str | tuple[str, ...]],
    *,
    models: Models | None = None,
    **ask: Any,
) -> pd.DataFrame:
    """What the trials `numbers` answer to `texts`, which need no labels: one row per text and trial, texts first.

    `probabilities` is a dictionary by class. `ms` is the median of a few calls with that text alone, in this moment and
    without the uncompressed model beside it: an impression, not the paired measurement of the trial. `ask` is handed
    to `Models.ask`. Raises `Refused` for models without classes.
    """
    plain = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    calls, rows = (CALLS if len(plain) == 1 else 1), []
    for number in numbers:
        trial = measured(study, number)
        found = (models or shared()).ask(
            "answer", folder=str(study.artifact(number).folder), texts=plain, calls=calls, **ask
        )
        for i, (text, odds, ms) in enumerate(zip(plain, found["probabilities"], found["ms"], strict=True)):
            best = int(np.argmax(odds))
            by_class = dict(zip(found["labels"], odds, strict=True))
            said = " ⏐ ".join(text)
            rows.append((i, said, number, trial.recipe.title, found["labels"][best], odds[best], ms, by_class))
    return pd.DataFrame(rows, columns=ANSWERS).sort_values("example", kind="stable").reset_index(drop=True)


def layer_table(study: Study, number: int, *, models: Models | None = None, **ask: Any) -> pd.DataFrame:
    """One row per linear layer of trial `number`, in the model's order, from its lowered model.

    `precision` is what is in effect, `width` the outputs, `inputs` the inputs, `parameters` those of the matrix,
    `sparsity` the share of zeros, `macs` of one example, `share` of all layers' MACs, `origin` the name of the layer
    in the uncompressed model ("" where it is not known). NaN where a runtime does not let its weights be read:
    `frame.attrs["why"]` says so then.
    """
    trial, artifact = measured(study, number), study.artifact(number)
    found = (models or shared()).ask("layers", folder=str(artifact.folder), **ask)
    frame = layer_rows(found["layers"], trial.measurement.in_effect.get("layers", {}))  # type: ignore[union-attr]
    base = study.artifact(0)
    frame["origin"] = [origin(name, artifact.manifest, base.manifest) for name in frame["layer"]]
    frame.attrs["why"] = found["why"]
    return frame


def layer_scores(study: Study) -> tuple[str, dict[str, float]]:
    """Title and score by layer of the latest finished scan that has one row for a layer; ("", {}) without one."""
    listed = study.scans()
    for name in reversed(listed.loc[(listed["kind"] == "scan") & (listed["state"] == "done"), "id"].tolist()):
        found = study.scanned(name)
        if len(found) and not found["layer"].duplicated().any():
            title = str(listed.loc[listed["id"] == name, "title"].iloc[0])
            return title, dict(zip(found["layer"], found["score"], strict=True))
    return "", {}


def layer_rows(stored: Mapping[str, Mapping[str, Any]], precision: Mapping[str, str]) -> pd.DataFrame:
    """The rows of `layer_table` from what is stored of each layer and the precision in effect, without origins."""
    total = sum(row.get("macs", 0) for row in stored.values())
    rows = []
    for name, row in stored.items():
        outside, inside = row.get("outside", math.nan), row.get("inside", math.nan)
        rows.append(
            {
                "layer": name,
                "precision": precision.get(name, "unknown"),
                "width": outside,
                "inputs": inside,
                "parameters": outside * inside,
                "sparsity": row.get("sparsity", math.nan),
                "macs": row.get("macs", 0),
                "share": row.get("macs", 0) / total if total else math.nan,
                "origin": "",
            }
        )
    return pd.DataFrame(rows, columns=LAYERS)


def origin(name: str, manifest: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """The name that a layer of a compressed model has in the uncompressed one; "" where its manifest does not say.

    Where transformer layers were removed the rest was numbered anew, so that `layer.2` may have been `layer.3`.
    """
    blocks, path = manifest.get("blocks"), manifest.get("block_path")
    if blocks is None:
        dropped = any(step["name"] == "drop_layers" for step in manifest["recipe"]["techniques"])
        return "" if dropped and re.search(r"\.\d+\.", name) else name
    if not path or not name.startswith(f"{path}."):
        return name
    number, _, rest = name.removeprefix(f"{path}.").partition(".")
    return f"{path}.{blocks[int(number)]}.{rest}" if number.isdecimal() and int(number) < len(blocks) else name


@dataclass(frozen=True)
class Transitions:
    """How often the precision changes on the way through a lowered model.

    `changes`: neighbouring layers, in the model's order, that run in different precisions; `islands`: stretches of
    one precision; `nodes`: operators of the runtime's graph that only convert numbers, by type.
    """

    changes: int
    islands: int
    nodes: dict[str, int]


def transitions(in_effect: Mapping[str, Any]) -> Transitions:
    """The transitions in a measurement's `in_effect`, which was read from the lowered graph."""
    kinds = list(in_effect.get("layers", {}).values())
    changes = sum(a != b for a, b in pairwise(kinds))
    # A layer that multiplies as it quantizes is no conversion alone.
    nodes = {
        kind: count
        for kind, count in in_effect.get("nodes", {}).items()
        if CONVERTS.search(kind) and "MatMul" not in kind
    }
    return Transitions(changes, changes + 1 if kinds else 0, nodes)


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be run: the type of each (`kinds`), the layer whose weight it multiplies by
    ("" for none), and `edges`, pairs of places: what the first gives the second takes."""

    kinds: tuple[str, ...]
    layers: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]


def layer_graph(study: Study, number: int, block: int = 0) -> Graph:
    """The nodes of one transformer layer in the stored ONNX graph of trial `number`, as it was exported; what ONNX
    Runtime fuses when it loads the file is not yet fused there.

    It begins with the layer's first matrix and ends before the next layer's. Raises `UserError` for an unknown layer,
    and `Refused` where the trial's runtime keeps no ONNX graph.
    """
    import onnx

    trial, artifact = measured(study, number), study.artifact(number)
    path = artifact.folder / "model" / "model.onnx"
    if not path.is_file():
        raise Refused(f"{trial.recipe.backend.title} keeps no ONNX graph.", do="take a trial of onnxruntime")
    graph = onnx.load(str(path), load_external_data=False).graph
    inside = f"{artifact.manifest['block_path']}.{block}."
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    own = [i for i, node in enumerate(nodes) if node.name.startswith(inside)]
    if not own:
        raise UserError(f"The graph of trial {number} has no layer {block}.", do="count the layers from 0")
    known = [
        i for i, node in enumerate(nodes) if i > own[-1] and "." in node.name and node.op_type in ("MatMul", "Gemm")
    ]
    chosen = nodes[own[0] : known[0] if known else len(nodes)]
    makers = {name: i for i, node in enumerate(chosen) for name in node.output}
    edges = {(makers[name], i) for i, node in enumerate(chosen) for name in node.input if name in makers}
    layers = tuple(node.name if node.name.startswith(inside) else "" for node in chosen)
    return Graph(tuple(node.op_type for node in chosen), layers, tuple(sorted(edges)))


@dataclass(frozen=True)
class LayerHistogram:
    """The weights of one layer, or what it multiplies them by (`what`: weights, activations), before and after:
    `counts` has a column of bins for each name.

    `edges` has one number more than there are bins; `facts` gives numbers by name; `noise_db` is the signal-to-noise
    ratio of the compressed weights (None where shapes differ or nothing changed, and for activations).
    """

    layer: str
    what: str
    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]
    facts: dict[str, dict[str, float]]
    noise_db: float | None

    def frame(self) -> pd.DataFrame:
        """One row per bin: from, to, and the number of values by name."""
        return pd.DataFrame({"from": self.edges[:-1], "to": self.edges[1:], **self.counts})


def weight_histogram(
    study: Study, number: int, layer: str, *, bins: int = 81, models: Models | None = None, **ask: Any
) -> LayerHistogram:
    """The weights of `layer` of trial `number`, beside those of the same layer of the uncompressed model.

    Raises `Refused` where the trial's runtime keeps them to itself, and `UserError` for an unknown layer.
    """
    wanted = _before_and_after(study, number, layer)
    found = (models or shared()).ask("histogram", layers=list(wanted.values()), bins=bins, **ask)
    return _histogram(layer, "weights", wanted, found)


def activation_histogram(
    study: Study,
    number: int,
    layer: str,
    *,
    samples: int = 32,
    bins: int = 81,
    models: Models | None = None,
    **ask: Any,
) -> LayerHistogram:
    """What `layer` of trial `number` multiplies its weight by, over the first `samples` texts of the select split,
    beside the same of the uncompressed model: values inside the lowered models, as `Backend.inputs` gives them.

    Raises `Refused` where a runtime does not let them be read, and `UserError` for an unknown layer.
    """
    wanted, ask = _before_and_after(study, number, layer), {"models": models, **ask}
    if "uncompressed" in wanted and "compressed" in wanted:
        base = layer_table(study, 0, **ask)
        # A layer that a technique made, such as one of two factors, is not in the uncompressed model.
        if wanted["uncompressed"][1] not in set(base["layer"]):
            del wanted["uncompressed"]
    texts = examples(study, limit=samples, **ask)
    ask.pop("models")
    found = (models or shared()).ask("activations", layers=list(wanted.values()), texts=texts, bins=bins, **ask)
    return _histogram(layer, "activations", wanted, found)


def _before_and_after(study: Study, number: int, layer: str) -> dict[str, tuple[str, str]]:
    """(artifact, layer) of the uncompressed model, where the layer's name there is known, and of the trial."""
    measured(study, number)
    artifact: Artifact = study.artifact(number)
    base = study.artifact(0)
    before = origin(layer, artifact.manifest, base.manifest) if number else ""
    after = {"compressed" if number else "uncompressed": (str(artifact.folder), layer)}
    return {"uncompressed": (str(base.folder), before), **after} if before else after


def _histogram(
    layer: str, what: str, wanted: Mapping[str, tuple[str, str]], found: Mapping[str, Any]
) -> LayerHistogram:
    """What the process counted; a layer that a technique made is not in the uncompressed model."""
    names = [name for name, there in zip(wanted, found["found"], strict=True) if there]
    return LayerHistogram(
        layer,
        what,
        tuple(found["edges"]),
        {name: tuple(counts) for name, counts in zip(names, found["counts"], strict=True)},
        dict(zip(names, found["facts"], strict=True)),
        found["noise_db"],
    )
