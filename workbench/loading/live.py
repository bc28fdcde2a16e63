"""Live objects of a notebook as paths: models, modules, tokenizers, datasets.

A sweep runs in another process, so what lives only here is written to the cache by content: models and modules as
safetensors, datasets as Parquet. A plain `nn.Module` also needs a function that builds it there.
Left out: objects that only a pickle could carry.
"""

from __future__ import annotations

import errno
import inspect
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from workbench.errors import DataError, ModelError
from workbench.loading.content import keep
from workbench.loading.quiet import import_models, no_bars, no_dataset_bars

#: Beside the tensors of a plain module: {"factory": "package.module:function"}.
FACTORY_FILE = "factory.json"


def model_path(model: Any, tokenizer: Any = None, factory: str | None = None) -> str:
    """A folder that holds `model` (an `nn.Module`) and, where it is an object, its tokenizer.

    Raises `ModelError` for anything else, and for a module that nothing can build again.
    """
    from torch import nn

    import_models()
    from transformers import PreTrainedModel

    if not isinstance(model, nn.Module):
        raise ModelError(
            f"A {type(model).__name__} is no model.",
            allowed="a folder, a hub id, an ONNX file, 'package.module:function', or an nn.Module",
        )
    with_tokenizer = hasattr(tokenizer, "save_pretrained")
    if isinstance(model, PreTrainedModel) and factory is None:

        def write(folder: Path) -> None:
            with _as_os_error(), no_bars():
                model.save_pretrained(str(folder))
            if with_tokenizer:
                tokenizer.save_pretrained(str(folder))
    else:
        named = factory or _own_factory(model)

        def write(folder: Path) -> None:
            from safetensors.torch import save_model

            with _as_os_error():
                save_model(model, str(folder / "model.safetensors"))
            (folder / FACTORY_FILE).write_text(json.dumps({"factory": named}), encoding="utf-8")
            if with_tokenizer:
                tokenizer.save_pretrained(str(folder))

    return str(keep("models", write))


def tokenizer_path(tokenizer: Any) -> str:
    """A folder that holds a live tokenizer; raises `ModelError` for what has no `save_pretrained`."""
    if not hasattr(tokenizer, "save_pretrained"):
        raise ModelError(
            f"A {type(tokenizer).__name__} is no tokenizer.",
            allowed="a folder, a hub id, or a transformers tokenizer",
            do="give any other function from texts to inputs as collate='package.module:function'",
        )
    return str(keep("tokenizers", lambda folder: tokenizer.save_pretrained(str(folder))))


def data_path(data: Any) -> str:
    """A folder of Parquet files, one per split, from a `datasets.Dataset`, a `DatasetDict` or a pandas frame."""
    if isinstance(data, dict):
        parts = {str(name): part for name, part in data.items()}
    else:
        parts = {"data": data}
    if not parts or not all(hasattr(part, "to_parquet") for part in parts.values()):
        kinds = ", ".join(sorted({type(part).__name__ for part in parts.values()})) or "nothing"
        raise DataError(
            f"The data ({kinds}) cannot be read.",
            allowed="a file, a folder, a hub id, a datasets.Dataset or DatasetDict, or a pandas DataFrame",
        )

    def write(folder: Path) -> None:
        # A pandas frame draws no bar, and needs no import of datasets.
        with no_dataset_bars() if "datasets" in sys.modules else nullcontext():
            for name, part in parts.items():
                part.to_parquet(str(folder / f"{Path(name).name}.parquet"))

    return str(keep("data", write))


@contextmanager
def _as_os_error() -> Iterator[None]:
    """safetensors reports a full disk as an error of its own kind."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def _own_factory(model: Any) -> str:
    """The module's class as its own factory, where it can be imported elsewhere and takes no arguments."""
    kind = type(model)
    name = f"{kind.__module__}:{kind.__qualname__}"
    needed = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        reason = f"{kind.__qualname__} was defined in the notebook, where no other process can import it"
    elif needed:
        reason = f"{name} needs the arguments {', '.join(needed)}"
    else:
        return name
    raise ModelError(
        f"This module cannot be built again in the sweep's own process: {reason}.",
        allowed="a transformers PreTrainedModel, a class without required arguments, or any module with a factory",
        do="put a function that returns the module (its weights are carried over) into a file, for example "
        "my_models.py, and pass factory='my_models:build'",
    )
