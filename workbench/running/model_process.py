"""The process in which lowered models answer texts and are looked into, so that a notebook's kernel never loads one.

It needs the artifacts only: neither the original model nor, but for the examples, the data. Requests:

    {"do": "answer", "folder": artifact, "texts": [[…], …], "calls": 5}    -> labels, probabilities, milliseconds
    {"do": "examples", "task": …, "split": "select", "limit": null}         -> texts of a split
    {"do": "layers", "folder": artifact}                                    -> each layer's shape, zeros and MACs
    {"do": "histogram", "layers": [[artifact, layer], …], "bins": 81}       -> weights of layers over the same bins
    {"do": "activations", "layers": …, "texts": [[…], …], "bins": 81}       -> what they multiply those by, for texts
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.backends.base import Backend, Runner
from workbench.compress import Artifact
from workbench.errors import DataError, Refused, UserError
from workbench.loading.tokens import Encoder, TokenizerEncoder
from workbench.running.child import respond, serve
from workbench.tasks.base import task_from_json

#: Models kept loaded: the ones that a person compares, no more.
KEPT = 6
#: Seconds that repeating one text's call may take.
REPEAT_SECONDS = 0.15
#: Share of the weights at either end that a histogram's outer bins hold whatever their distance.
_OUTER = 0.002


@dataclass
class Loaded:
    """An artifact ready to answer."""

    artifact: Artifact
    runner: Runner
    encoder: Encoder


class ModelProcess:
    """Keeps the models that were asked last."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()

    def do_answer(self, request: dict[str, Any], send: Any) -> dict[str, Any]:
        """Probabilities of every class for each text, and the median milliseconds of a call with it alone."""
        model = self._load(request["folder"])
        labels = list(model.artifact.manifest["labels"])
        if not labels:
            raise Refused("This model has no classes, so there is nothing to answer with.", allowed="a classifier")
        texts = [tuple(text) for text in request["texts"]]
        answers = [self._answer(model, text, int(request.get("calls", 1))) for text in texts]
        return {
            "labels": labels,
            "probabilities": [np.round(softmax(logits), 6).tolist() for logits, _ in answers],
            "ms": [round(ms, 4) for _, ms in answers],
        }

    def do_examples(self, request: dict[str, Any], send: Any) -> dict[str, Any]:
        """The texts of a split, as the task reads them."""
        texts = task_from_json(request["task"]).texts(request["split"], request.get("limit"))
        return {"texts": [list(text) for text in texts]}

    def do_layers(self, request: dict[str, Any], send: Any) -> dict[str, Any]:
        """What is stored of each linear layer; `why` says why the weights cannot be read, where they cannot."""
        artifact = Artifact.open(request["folder"])
        place = artifact.folder / "model"
        macs = json.loads((place / "lowered.json").read_text(encoding="utf-8")).get("macs", {})
        rows: dict[str, dict[str, Any]] = {name: {"macs": count} for name, count in macs.items()}
        why = ""
        try:
            for name, weight in artifact.backend.weights(place):
                zeros = 1 - np.count_nonzero(weight) / weight.size if weight.size else 0.0
                rows.setdefault(name, {})
                rows[name] |= {"outside": weight.shape[0], "inside": weight.shape[1], "sparsity": float(zeros)}
        except Refused as refusal:
            why = str(refusal)
        return {"layers": rows, "why": why}

    def do_histogram(self, request: dict[str, Any], send: Any) -> dict[str, Any]:
        """Counts of each layer's weights over common bins, and what tells the matrices apart; `found` says which of
        the layers there are. The last one has to be."""
        matrices: list[np.ndarray] = []
        there: list[bool] = []
        for folder, name in request["layers"]:
            artifact = Artifact.open(folder)
            found = dict(artifact.backend.weights(artifact.folder / "model", [name]))
            there.append(name in found)
            matrices += found.values()
        if not there[-1]:
            raise UserError(f"The model in {folder} has no layer {name!r}.")
        return {**histograms(matrices, int(request["bins"])), "found": there}

    def do_activations(self, request: dict[str, Any], send: Any) -> dict[str, Any]:
        """Counts of what each layer multiplies by its weight, over common bins, when its model reads the texts one by
        one, without padding."""
        texts = [tuple(text) for text in request["texts"]]
        if not texts:
            raise DataError("There is no text to run the model on.", do="take a study whose data have examples")
        seen: list[np.ndarray] = []
        for folder, name in request["layers"]:
            artifact = Artifact.open(folder)
            backend, manifest = artifact.backend.replace(batch=1, padding="batch"), artifact.manifest
            look = backend.inputs(artifact.folder / "model", name)
            examples = TokenizerEncoder(artifact.folder / "tokenizer").encode(
                texts, manifest["inputs"], backend.sequence
            )
            seen.append(np.concatenate([look(batch).ravel() for batch in backend.batches(examples, manifest["pad"])]))
        found = histograms(seen, int(request["bins"]))
        for facts, values in zip(found["facts"], seen, strict=True):
            facts["distinct"] = len(np.unique(values))
        # SmoothQuant scales what it makes smooth, so the one is no noisy version of the other.
        return {**found, "noise_db": None, "found": [True] * len(seen)}

    def _answer(self, model: Loaded, text: tuple[str, ...], calls: int) -> tuple[np.ndarray, float]:
        artifact = model.artifact
        examples = model.encoder.encode([text], artifact.manifest["inputs"], artifact.backend.sequence)
        (batch,) = one_by_one(artifact.backend).batches(examples, artifact.manifest["pad"])
        # The first call at a new length sets the runtime up for it.
        logits = model.runner(batch) if calls > 1 else None
        times: list[float] = []
        while len(times) < max(1, calls) and sum(times) < REPEAT_SECONDS:
            began = time.perf_counter()
            logits = model.runner(batch)
            times.append(time.perf_counter() - began)
        return np.asarray(logits, dtype=np.float64)[0], float(np.median(times)) * 1e3

    def _load(self, folder: str) -> Loaded:
        if folder not in self._loaded:
            artifact = Artifact.open(folder)
            encoder = TokenizerEncoder(artifact.folder / "tokenizer")
            self._loaded[folder] = Loaded(artifact, artifact.load(), encoder)
        self._loaded.move_to_end(folder)
        while len(self._loaded) > KEPT:
            self._loaded.popitem(last=False)[1].runner.close()
        return self._loaded[folder]


def one_by_one(backend: Backend) -> Backend:
    """The backend as it pads a single text; a fixed shape is filled up by its runner."""
    return backend.replace(batch=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits of shape (classes,)."""
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum())


def histograms(matrices: Sequence[np.ndarray], bins: int) -> dict[str, Any]:
    """`edges` (bins + 1,) over all but the outermost of the values; for each matrix its `counts` (bins,), in which the
    first and the last bin hold what lies beyond, and in `facts` its number of values, share of zeros, standard
    deviation, lowest and highest; `noise_db` is the signal-to-noise ratio of the last against the first,
    10 log10(Σw² / Σ(w−v)²), None where their shapes differ or they are equal.
    """
    # Single values far out would leave all others in one bin.
    ends = [np.quantile(m, (_OUTER, 1 - _OUTER)) for m in matrices]
    low, high = float(min(e[0] for e in ends)), float(max(e[1] for e in ends))
    edges = np.linspace(low, high if high > low else low + 1e-6, bins + 1)
    facts = [
        {
            "count": int(m.size),
            "zeros": float(1 - np.count_nonzero(m) / m.size),
            "deviation": float(m.std()),
            "low": float(m.min()),
            "high": float(m.max()),
        }
        for m in matrices
    ]
    first, last = matrices[0].astype(np.float64), matrices[-1].astype(np.float64)
    noise = float(((first - last) ** 2).sum()) if first.shape == last.shape else 0.0
    ratio = round(10 * float(np.log10((first**2).sum() / noise)), 2) if noise else None
    counts = [np.histogram(np.clip(m, edges[0], edges[-1]), edges)[0].tolist() for m in matrices]
    return {"edges": edges.tolist(), "counts": counts, "facts": facts, "noise_db": ratio}


def main() -> None:
    """Serve until the notebook goes."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    owner = ModelProcess()
    serve(lambda request, send: respond(owner, request, send))


if __name__ == "__main__":
    main()
