"""The model while it is being compressed, and what is known of it before the work starts.

Techniques write here, backends read here; so a technique never knows a runtime and a runtime never knows a technique.
A technique changes the *module* (pruning, dropped layers) or only the *precision plan* (BF16, INT8), which the backend
realises when it lowers the draft.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from workbench.errors import UnknownName

#: How a layer's weights and activations can be held. `int8_dynamic`: activation ranges found at run time;
#: `int8_static`: ranges fixed by calibration; `int8_weight`, `int4_weight`: integer weights, activations stay float.
PRECISIONS = ("fp32", "bf16", "fp16", "int8_dynamic", "int8_static", "int8_weight", "int4_weight")
#: Kinds that a plan's base may be, and kinds whose layers take in whatever float the base is.
WHOLE_MODEL, WEIGHT_ONLY = frozenset({"fp32", "bf16", "fp16"}), frozenset({"int8_weight", "int4_weight"})

#: One tokenized example: input name -> list of integers, all of one length, not padded.
Example = Mapping[str, list[int]]
#: Model inputs: input name -> int64 array of shape (batch, sequence).
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Precision:
    """How one layer is to be held, and how its ranges are found.

    `input_range` is the range (low, high) of the layer's input where it is known before the draft is lowered; every
    runtime takes it as it is (see `workbench.int8`). `calibration` says where it comes from: a calibrator of the
    workbench, "learned", or "runtime" where there is none and the runtime's own quantizer finds one. `symmetric` is of
    the activations. `group` (weight-only) is the number of inputs that share a scale, 0 = all.
    """

    kind: str = "fp32"
    per_channel: bool = True
    symmetric: bool = False
    calibration: str = "runtime"
    samples: int = 300
    input_range: tuple[float, float] | None = None
    group: int = 0

    def __post_init__(self) -> None:
        if self.kind not in PRECISIONS:
            raise ValueError(f"{self.kind!r} is not one of {PRECISIONS}")


@dataclass
class Plan:
    """The precision of every layer: `base` for all that is not named, `layers` for the rest."""

    base: str = "fp32"
    layers: dict[str, Precision] = field(default_factory=dict)

    def kinds(self) -> frozenset[str]:
        """Every precision that occurs, the base among them."""
        return frozenset({self.base, *(precision.kind for precision in self.layers.values())})

    def of(self, kind: str) -> list[str]:
        """Names of the layers held in `kind`, in the model's order."""
        return [name for name, precision in self.layers.items() if precision.kind == kind]

    def quantization(self) -> Precision | None:
        """The settings of the quantized layers (they share all but ranges), or None where nothing is quantized."""
        quantized = [p for p in self.layers.values() if p.kind.startswith("int")]
        return quantized[0] if quantized else None

    def to_json(self) -> dict[str, Any]:
        """Plain data, for an artifact's provenance."""
        return {"base": self.base, "layers": {name: asdict(p) for name, p in self.layers.items()}}


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without loading its weights; techniques and backends refuse on these.

    `layers` are the quantizable layers (`nn.Linear` and the like) in order, `blocks` counts the transformer layers,
    `block_path` is the attribute that holds them ('' where none was found). `baseline` names the backend of the
    uncompressed model ('' for PyTorch eager, or ONNX Runtime where there is no module).
    """

    architecture: str
    has_module: bool = True
    layers: tuple[str, ...] = ()
    blocks: int = 0
    block_path: str = ""
    parameters: int = 0
    baseline: str = ""


class DraftData(Protocol):
    """The data that a technique or a backend may look at while it compresses; never what is measured on."""

    def calibration(self, samples: int) -> list[Example]:
        """The first `samples` tokenized training examples (of a seeded shuffle), for ranges; raises `DataError`
        where there are none."""
        ...

    def training(self) -> tuple[list[Example], np.ndarray]:
        """Every tokenized training example, in the same order, with its class index: int64 of shape (examples,), -1
        where there is no label. Raises `DataError` where there are none."""
        ...

    def key(self) -> str:
        """A short hash of model and data, under which what was computed from both may be kept."""
        ...


@dataclass(frozen=True)
class Grid:
    """The integers of a weight-only quantized layer, from which every runtime packs the same numbers.

    `codes`: uint8 tensor (out, in), in 0 … 2^bits - 1; `scales` and `zeros`: float32 tensors (out, groups), where a
    group is `group` neighbouring inputs (the last one may be shorter); zeros lie in the codes' range.
    weight = (codes - zeros) * scales.
    """

    bits: int
    group: int
    codes: Any
    scales: Any
    zeros: Any

    def weight(self) -> Any:
        """The weight that the codes stand for, float32 of shape (out, in)."""
        inside = self.codes.shape[1]
        scales, zeros = (t.repeat_interleave(self.group, dim=1)[:, :inside] for t in (self.scales, self.zeros))
        return (self.codes.float() - zeros) * scales

    @property
    def whole(self) -> bool:
        """Whether every zero point is a whole number."""
        return bool((self.zeros == self.zeros.round()).all())

    @property
    def symmetric(self) -> bool:
        """Whether every zero point lies in the middle."""
        return bool((self.zeros == 2 ** (self.bits - 1)).all())


def silent(share: float, what: str) -> None:
    """Tell nobody how far the work is."""


@dataclass(frozen=True)
class Work:
    """Where long work says how far it is (`tell`: share 0 … 1, words) and keeps what must outlive a crash (`folder`,
    None for nowhere)."""

    folder: Path | None = None
    tell: Callable[[float, str], None] = silent


@dataclass
class Draft:
    """The model on its way through a recipe.

    `module` is None for a task that starts from an ONNX file (`onnx` is its path then). `inputs` names the model's
    inputs in order. `kept` are layer names left in the base precision and untouched by pruning and training. `factory`
    names the function ("package.module:function") that builds the module, where no configuration describes it.
    `masks` are weights held at zero, whoever trains: layer name -> bool tensor of the weight's shape, True where zero.
    `grids` are the integers of weight-only layers. `blocks` says which transformer layers of the original are left.
    `original` gives a fresh copy of the uncompressed module, a teacher. `sequence` is the longest input that will be
    met. `clock` gives the milliseconds of one call of another module in its place, lowered in the recipe's precision
    for the recipe's runtime; None where no runtime is known.
    """

    facts: ModelFacts
    data: DraftData
    inputs: tuple[str, ...]
    pad: dict[str, int]
    labels: tuple[str, ...]
    module: Any = None
    onnx: Path | None = None
    plan: Plan = field(default_factory=Plan)
    kept: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    factory: str | None = None
    masks: dict[str, Any] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)
    blocks: tuple[int, ...] = ()
    original: Callable[[], Any] | None = None
    work: Work = field(default_factory=Work)
    sequence: int = 128
    clock: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        self.blocks = self.blocks or tuple(range(self.facts.blocks))

    def quantizable(self) -> list[str]:
        """The layers that may be quantized or pruned now: those of the module as it stands, less the kept ones."""
        if self.module is None:
            return [name for name in self.facts.layers if name not in self.kept]
        from workbench.measure.layers import quantizable

        return [name for name in quantizable(self.module) if name not in self.kept]


def resolve_keep(patterns: Iterable[str], layers: Iterable[str]) -> frozenset[str]:
    """The layers that `patterns` (shell wildcards over whole names, or a name's last part) leave alone.

    Raises `UnknownName`, with near names, for a pattern that matches nothing.
    """
    names = list(layers)
    kept: set[str] = set()
    for pattern in patterns:
        hits = [n for n in names if fnmatch.fnmatchcase(n, pattern) or n.split(".")[-1] == pattern]
        if not hits:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
            raise UnknownName(
                f"keep = {pattern!r} matches no layer of this model.",
                allowed="a layer's name, its last part, or a pattern such as 'classifier' or '*.layer.0.*'",
                do=f"near names: {', '.join(near or names[:3]) or 'the model has no quantizable layer'}",
            )
        kept.update(hits)
    return frozenset(kept)
