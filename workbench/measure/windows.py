"""How well a language model told the next token, window by window: the ground of its paired comparisons.

Kept with each measurement, so it is packed: of every window (a piece of text that is scored by itself) the loss and
the number of scored tokens, of every token one bit, whether it was the most likely one. Logits are reduced as they
come; those of a whole split would be its tokens times the vocabulary. Left out: the losses of single tokens.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from workbench.errors import DataError


@dataclass(frozen=True, eq=False)
class Windows:
    """`losses` (windows,): negative log-likelihood of each window's scored tokens, summed, in nats, as float32;
    `tokens` (windows,): how many were scored; `hits` (all tokens,): which of them were the most likely ones, bool.

    `text` is a hash of the scored tokens: only what scored the same text is comparable. Raises `DataError` for no
    windows, a loss that is no number, or parts that do not fit each other.
    """

    losses: np.ndarray
    tokens: np.ndarray
    hits: np.ndarray
    text: str = ""

    def __post_init__(self) -> None:
        for name, kind in (("losses", np.float32), ("tokens", np.int64), ("hits", np.bool_)):
            array = np.array(getattr(self, name), dtype=kind)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        shapes = self.losses.shape, self.tokens.shape, self.hits.shape
        if not len(self.losses) or shapes != ((len(self.losses),), shapes[0], (int(self.tokens.sum()),)):
            raise DataError(
                f"Losses, tokens and hits of shapes {shapes} do not fit.",
                allowed="at least one window, a hit per token",
            )
        if broken := int((~np.isfinite(self.losses)).sum()):
            raise DataError(
                f"The loss of {broken} of {len(self)} windows is no number: the model no longer computes numbers.",
                do="quantize fewer layers, or keep the first and the last ones in higher precision",
            )
        if (self.tokens < 1).any():
            raise DataError("A window without a scored token tells nothing.", allowed="windows of at least two tokens")

    def __len__(self) -> int:
        return len(self.losses)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Windows) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    @property
    def right(self) -> np.ndarray:
        """Which tokens were the most likely ones, bool of shape (all tokens,)."""
        return self.hits

    @property
    def correct(self) -> int:
        """The number of tokens that were the most likely ones."""
        return int(self.hits.sum())

    def pairs_with(self, other: object) -> bool:
        """Whether both are of the same tokens in the same windows."""
        return isinstance(other, Windows) and self.text == other.text and np.array_equal(self.tokens, other.tokens)

    def to_json(self) -> dict[str, Any]:
        """Plain data: some six bytes a window and a bit a token."""
        return {
            "kind": "windows",
            "n": len(self),
            "losses": _pack(self.losses.astype("<f4")),
            "tokens": _pack(self.tokens.astype("<u4")),
            "hits": _pack(np.packbits(self.hits)),
            "text": self.text,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The windows that `to_json` wrote; raises `DataError` where they are damaged."""
        n = int(data["n"])
        losses, tokens = _unpack(data["losses"], "<f4", n), _unpack(data["tokens"], "<u4", n)
        total = int(tokens.sum())
        bits = _unpack(data["hits"], "u1", (total + 7) // 8)
        return cls(losses, tokens, np.unpackbits(bits, count=total).astype(np.bool_), str(data["text"]))


def score_window(logits: np.ndarray, tokens: Sequence[int]) -> tuple[float, np.ndarray]:
    """Summed loss in nats and hits (length - 1,) of one window: `logits` (length, vocabulary) of its `tokens`
    (length,), of which every one but the first is predicted by what stands before it."""
    given, wanted = np.asarray(logits[: len(tokens) - 1], dtype=np.float64), np.asarray(tokens[1:])
    largest = given.max(axis=1)
    log_sum = np.log(np.exp(given - largest[:, None]).sum(axis=1)) + largest
    return float((log_sum - given[np.arange(len(wanted)), wanted]).sum()), given.argmax(axis=1) == wanted


def text_hash(windows: Sequence[Sequence[int]]) -> str:
    """A short hash of windows of tokens."""
    digest = hashlib.sha256()
    for window in windows:
        digest.update(np.asarray([len(window), *window], dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def _pack(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode("ascii")


def _unpack(text: str, kind: str, n: int) -> np.ndarray:
    """The `n` numbers in `text`; never more are decompressed, whatever it claims."""
    size = n * np.dtype(kind).itemsize
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, zlib.error) as error:
        raise DataError(f"Stored outcomes are damaged: {error}.", do="measure this trial again") from error
    if len(data) != size:
        raise DataError(f"Stored outcomes are damaged: not {n} of them.", do="measure this trial again")
    return np.frombuffer(data, dtype=kind)
