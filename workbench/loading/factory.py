"""Any `nn.Module`, built by a function that is named "package.module:function".

The function takes no arguments and returns the module; where tensors were saved beside it (safetensors), they are
loaded into what it built. Naming a function means trusting it: it is the user's own code, imported like any other.
Left out: modules that cannot run on one example.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from workbench.draft import ModelFacts
from workbench.errors import ModelError
from workbench.loading.folder import first_line, matching_inputs, module_facts
from workbench.loading.hashing import hash_file, hash_json
from workbench.loading.live import FACTORY_FILE
from workbench.loading.memory import check_memory
from workbench.loading.source import Source
from workbench.loading.tokens import Encoder, TokenizerEncoder

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class _Probed(NamedTuple):
    facts: ModelFacts
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    content: str


class FactoryModule(Source):
    """A module from a function, with tensors from `folder` where there is one."""

    def __init__(self, name: str, folder: Path | None = None, *, encoder: Encoder | None = None) -> None:
        self.factory, self.folder, self._encoder = name, folder, encoder

    @classmethod
    def from_folder(cls, folder: Path, encoder: Encoder | None = None) -> FactoryModule:
        """The module that `live.model_path` wrote."""
        return cls(json.loads((folder / FACTORY_FILE).read_text(encoding="utf-8"))["factory"], folder, encoder=encoder)

    def check(self) -> None:
        if self.folder is not None:
            check_memory([self.folder / "model.safetensors"], str(self.folder))
        _ = self._probed

    def labels(self) -> tuple[str, ...]:
        return self._probed.labels

    def facts(self) -> ModelFacts:
        return self._probed.facts

    def inputs(self) -> tuple[str, ...]:
        return self._probed.inputs

    def encoder(self) -> Encoder:
        if self._encoder is None:
            if self.folder is None:
                raise ModelError(
                    f"{self.factory} comes without a tokenizer.",
                    do="name one with tokenizer= (a folder or a hub id), or give collate='package.module:function'",
                )
            self._encoder = TokenizerEncoder(self.folder)
        return self._encoder

    def load(self) -> Any:
        import torch
        from safetensors.torch import load_model

        module = load_factory(str(self.factory))()
        if not isinstance(module, torch.nn.Module):
            raise ModelError(
                f"{self.factory} returned a {type(module).__name__}.", allowed="a function that returns an nn.Module"
            )
        if self.folder is not None:
            try:
                load_model(module, str(self.folder / "model.safetensors"))
            except RuntimeError as error:
                raise ModelError(
                    f"The saved tensors do not fit what {self.factory} builds: {first_line(error)}",
                    do="let the function build the same architecture as the module that was given",
                ) from error
        return module.float().eval()

    def fingerprint(self) -> str:
        return hash_json([self.factory, self._probed.content])

    @cached_property
    def _probed(self) -> _Probed:
        """What only building it once can tell; the module itself is not kept."""
        module = self.load()
        inputs = matching_inputs(module, self.encoder(), str(self.factory))
        content = hash_file(self.folder / "model.safetensors") if self.folder else _hash_tensors(module)
        facts = module_facts(module, type(module).__name__)
        return _Probed(facts, inputs, _labels(module, self.encoder(), inputs, str(self.factory)), content)


def is_factory(name: str) -> bool:
    """Whether `name` looks like "package.module:function"."""
    return bool(_NAME.fullmatch(name))


def load_factory(name: str) -> Callable[..., Any]:
    """The function called "package.module:function"; raises `ModelError` where it cannot be imported."""
    if not is_factory(name):
        raise ModelError(f"{name!r} is no function's name.", allowed="'package.module:function'")
    module_name, _, path = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        # A notebook imports from its own folder; its runner must find the same file.
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{name} cannot be imported: {first_line(error)}.",
            allowed="a function in an installed package, or in a file of the working folder",
            do=f"check the name, or add its folder to PYTHONPATH (working folder: {os.getcwd()})",
        ) from error
    if not callable(found):
        raise ModelError(f"{name} is a {type(found).__name__}.", allowed="a function")
    return found


def _labels(module: Any, encoder: Encoder, inputs: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Class names from the module's configuration, or as many numbered ones as it gives logits for one example."""
    import torch

    example = encoder.encode([("a",)], inputs, 16)[0]
    with torch.no_grad():
        try:
            output = module(**{name: torch.tensor([tokens]) for name, tokens in example.items()})
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ModelError(
                f"{where} does not run on one tokenized example: {first_line(error)}",
                allowed=f"a forward that takes {', '.join(inputs)}, int64 of shape (batch, sequence)",
            ) from error
    logits = getattr(output, "logits", output)
    logits = logits[0] if isinstance(logits, tuple | list) else logits
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ModelError(
            f"{where} gives {shape} for one example.",
            allowed="logits of shape (batch, classes) with at least two classes, alone or as .logits",
        )
    names = getattr(getattr(module, "config", None), "id2label", None) or {}
    if len(names) == logits.shape[1]:
        return tuple(str(names[i]) for i in sorted(names))
    return tuple(f"LABEL_{i}" for i in range(logits.shape[1]))


def _hash_tensors(module: Any) -> str:
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()
