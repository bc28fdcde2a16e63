"""What a model answered, example by example: the ground of every paired comparison.

Kept with each measurement, so it is packed: class indices and confidences as zlib-compressed little-endian
16-bit numbers in base64. Confidences are kept to four decimals. Left out: full probability vectors, texts.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from workbench.errors import DataError

#: Confidences are stored in steps of 1 / _STEPS.
_STEPS = 10_000


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Predicted and true class indices, shape (examples,), and the probability given to each prediction.

    `classes` is the number of classes, raised to fit the indices. Raises `DataError` for no examples, different
    lengths, negative indices, or confidences outside 0 … 1.
    """

    predictions: np.ndarray
    labels: np.ndarray
    confidences: np.ndarray | None = None
    classes: int = 2

    def __post_init__(self) -> None:
        labels, predictions = _indices(self.labels, "labels"), _indices(self.predictions, "predictions")
        if len(labels) != len(predictions):
            raise DataError(f"{len(predictions)} predictions do not fit {len(labels)} labels.", allowed="one for each")
        if self.confidences is not None:
            object.__setattr__(self, "confidences", _probabilities(self.confidences, len(labels)))
        classes = max(self.classes, int(labels.max()) + 1, int(predictions.max()) + 1)
        for name, value in (("labels", labels), ("predictions", predictions), ("classes", classes)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.labels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcomes) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    @property
    def right(self) -> np.ndarray:
        """Which answers are right, bool of shape (examples,)."""
        return np.asarray(self.predictions == self.labels)

    @property
    def correct(self) -> int:
        """The number of right answers."""
        return int(self.right.sum())

    def pairs_with(self, other: object) -> bool:
        """Whether both are of the same examples in the same order."""
        return isinstance(other, Outcomes) and np.array_equal(self.labels, other.labels)

    def to_json(self) -> dict[str, Any]:
        """Plain data, some two bytes an example."""
        steps = None if self.confidences is None else np.rint(self.confidences * _STEPS)
        return {
            "n": len(self),
            "classes": self.classes,
            "predictions": _pack(self.predictions),
            "labels": _pack(self.labels),
            "confidences": None if steps is None else _pack(steps),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The outcomes that `to_json` wrote; raises `DataError` where they are damaged."""
        n, packed = int(data["n"]), data["confidences"]
        confidences = None if packed is None else _unpack(packed, n) / _STEPS
        return cls(_unpack(data["predictions"], n), _unpack(data["labels"], n), confidences, int(data["classes"]))


def _indices(values: Any, name: str) -> np.ndarray:
    """Class indices as a read-only int64 array of its own."""
    array = np.array(values)
    if array.ndim != 1 or array.size == 0:
        raise DataError(f"The {name} have shape {array.shape}.", allowed="one class index per example, at least one")
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= 2**16:
        raise DataError(f"The {name} are not class indices.", allowed="whole numbers from 0 to 65535")
    array = array.astype(np.int64)
    array.flags.writeable = False
    return array


def _probabilities(values: Any, n: int) -> np.ndarray:
    """Confidences as a read-only array of their own, in steps of 1 / _STEPS."""
    array = np.rint(np.asarray(values, dtype=np.float64) * _STEPS) / _STEPS
    if broken := int(np.isnan(array).sum()):
        raise DataError(
            f"The model's confidence is NaN for {broken} of {n} examples: it no longer computes numbers.",
            do="quantize fewer layers, or keep the first and the last ones in higher precision",
        )
    if array.shape != (n,) or array.min() < 0 or array.max() > 1:
        raise DataError("The confidences do not fit.", allowed=f"{n} numbers from 0 to 1")
    array.flags.writeable = False
    return array


def _pack(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.astype("<u2").tobytes(), 9)).decode("ascii")


def _unpack(text: str, n: int) -> np.ndarray:
    """The `n` numbers in `text`; never more are decompressed, whatever it claims."""
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), 2 * n + 1)
    except (binascii.Error, zlib.error) as error:
        raise DataError(f"Stored outcomes are damaged: {error}.", do="measure this trial again") from error
    if len(data) != 2 * n:
        raise DataError(f"Stored outcomes are damaged: not {n} of them.", do="measure this trial again")
    return np.frombuffer(data, dtype="<u2").astype(np.int64)
