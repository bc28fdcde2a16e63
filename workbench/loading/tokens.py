"""Text to model inputs, not padded, as the tokenizer that came with the model does it.

`AutoTokenizer` reads the folder; or a function of the user's, "package.module:function", does all the work. Padding
belongs to the backends. Left out: slow tokenizers that need code from the hub, chat templates.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.draft import Example
from workbench.errors import ModelError

#: What a folder may hold of a tokenizer; everything else in it is none of its business.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
)

Texts = Sequence[tuple[str, ...]]


class Encoder(ABC):
    """Turns raw texts (one string each, or two for pairs) into examples."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Every input that it can give, in its own order."""

    @abstractmethod
    def encode(self, texts: Texts, inputs: Sequence[str], sequence: int) -> list[Example]:
        """One example per text with exactly `inputs`, cut to at most `sequence` tokens, not padded."""

    @abstractmethod
    def pad(self, inputs: Sequence[str]) -> dict[str, int]:
        """The number that fills each input up: the padding token, and 0 for masks and types."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what is needed to tokenize into `folder`."""

    @abstractmethod
    def tokens(self, example: Example) -> list[str]:
        """The tokens of one example as a person reads them."""

    def longest(self) -> int | None:
        """The longest sequence that the tokenizer was made for; None where it does not say."""
        return None


class TokenizerEncoder(Encoder):
    """The tokenizer in a folder; raises `ModelError` where there is none or it cannot be read."""

    def __init__(self, folder: Path, trust_remote_code: bool = False) -> None:
        self.folder = folder
        if not any(found for pattern in TOKENIZER_FILES for found in folder.glob(pattern)):
            raise ModelError(
                f"{folder} holds no tokenizer.",
                allowed="a folder with tokenizer.json (or vocab.txt, or vocab.json and merges.txt)",
                do="save it there with tokenizer.save_pretrained(folder), or name its folder with tokenizer=",
            )
        from transformers import AutoTokenizer

        try:
            # A folder that holds only a tokenizer has no config.json: the tokenizer says what it is.
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=trust_remote_code
            )
        except (OSError, ValueError, KeyError, TypeError, ImportError, json.JSONDecodeError) as error:
            raise _unreadable(folder, error) from error
        except Exception as error:
            # The tokenizers library raises bare `Exception`s for a damaged tokenizer.json.
            if type(error) is not Exception:
                raise
            raise _unreadable(folder, error) from error
        # Nobody here pads or truncates by a setting that a file brought along.
        if getattr(self._tokenizer, "backend_tokenizer", None) is not None:
            self._tokenizer.backend_tokenizer.no_padding()
            self._tokenizer.backend_tokenizer.no_truncation()

    def names(self) -> tuple[str, ...]:
        given = tuple(self._tokenizer.model_input_names)
        return tuple(dict.fromkeys((*given, "attention_mask", "token_type_ids")))

    def encode(self, texts: Texts, inputs: Sequence[str], sequence: int) -> list[Example]:
        if not texts:
            return []
        first = [text[0] for text in texts]
        second = [text[1] for text in texts] if len(texts[0]) > 1 else None
        encoded = self._tokenizer(
            first,
            second,
            truncation=True,
            max_length=sequence,
            padding=False,
            return_token_type_ids="token_type_ids" in inputs,
            return_attention_mask="attention_mask" in inputs,
        )
        return [{name: list(encoded[name][row]) for name in inputs} for row in range(len(texts))]

    def pad(self, inputs: Sequence[str]) -> dict[str, int]:
        filler = {"input_ids": self._tokenizer.pad_token_id or 0, "token_type_ids": self._tokenizer.pad_token_type_id}
        return {name: int(filler.get(name) or 0) for name in inputs}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save_pretrained(str(folder))

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text as they are: nothing is added, nothing cut."""
        return [list(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]

    def text(self, ids: Sequence[int]) -> str:
        """The text behind tokens, without special ones."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def begin(self) -> int | None:
        """The token that begins a text, None where the tokenizer has none."""
        number = self._tokenizer.bos_token_id
        return None if number is None else int(number)

    def tokens(self, example: Example) -> list[str]:
        ids = example.get("input_ids") or next(iter(example.values()))
        return [str(token) for token in self._tokenizer.convert_ids_to_tokens(list(ids))]

    def longest(self) -> int | None:
        # transformers writes 10^30 for "no limit".
        limit = self._tokenizer.model_max_length
        return int(limit) if limit and limit < 10**9 else None


def _unreadable(folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"The tokenizer in {folder} cannot be read: {str(error).strip().splitlines()[0] if str(error) else error!r}",
        allowed="files that AutoTokenizer.from_pretrained reads without code from the hub",
        do="save it again with tokenizer.save_pretrained(folder)",
    )


class CollateEncoder(Encoder):
    """A function of the user's, which takes a list with one text (or one pair of them) and returns a mapping from
    input name to integers of shape (1, sequence)."""

    def __init__(self, name: str, function: Callable[[list[Any]], Mapping[str, Any]]) -> None:
        self.name, self._function = name, function
        self._names: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        if not self._names:
            try:
                self._names = tuple(self._one(("a",)))
            except ModelError:
                self._names = tuple(self._one(("a", "b")))
        return self._names

    def encode(self, texts: Texts, inputs: Sequence[str], sequence: int) -> list[Example]:
        rows = [self._one(text) for text in texts]
        return [{name: row[name][:sequence] for name in inputs} for row in rows]

    def pad(self, inputs: Sequence[str]) -> dict[str, int]:
        # A function may say what fills its inputs up: collate.pad = {"input_ids": 1}.
        return {name: int(getattr(self._function, "pad", {}).get(name, 0)) for name in inputs}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "collate.json").write_text(json.dumps({"collate": self.name}), encoding="utf-8")

    def tokens(self, example: Example) -> list[str]:
        return [str(number) for number in next(iter(example.values()))]

    def _one(self, text: tuple[str, ...]) -> dict[str, list[int]]:
        try:
            output = self._function([text[0] if len(text) == 1 else text])
            rows = {str(name): [int(number) for number in values[0]] for name, values in output.items()}
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise ModelError(
                f"{self.name} cannot collate {text!r}: {error!r}",
                allowed="a function from a list of one text to {input name: integers of shape (1, sequence)}",
            ) from error
        if not rows or len({len(row) for row in rows.values()}) != 1:
            raise ModelError(f"{self.name} gave inputs of different lengths for {text!r}.", allowed="equal lengths")
        return rows
