"""A model in a Hugging Face folder: config.json, safetensors and a tokenizer.

The configuration is checked and laid out on the meta device before any weight is read; weights are read from
safetensors only, always as float32. Code that came with a model runs only where the user asked for it.
Left out: sharded pickles, TensorFlow and Flax weights; other heads than classification are in files of their own.
"""

from __future__ import annotations

import inspect
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.draft import ModelFacts
from workbench.errors import ModelError, UnsafeModel
from workbench.loading.hashing import hash_files
from workbench.loading.memory import check_memory, tensors
from workbench.loading.quiet import import_models, no_bars
from workbench.loading.source import Source
from workbench.loading.tokens import TOKENIZER_FILES, Encoder, TokenizerEncoder

#: Weights that are read by unpickling, which runs whatever code the file brings.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


class HFFolder(Source):
    """A sequence classifier as `save_pretrained` writes it; `auto` names the class that loads its kind of head."""

    auto = "AutoModelForSequenceClassification"
    head = "a sequence classifier"

    def __init__(self, folder: Path, *, trust_remote_code: bool = False, tokenizer: Encoder | None = None) -> None:
        self.folder = Path(folder)
        self.trust_remote_code = trust_remote_code
        self._encoder = tokenizer

    def check(self) -> None:
        check_folder(self.folder)
        self._check_code()
        self._check_head()
        check_memory(weights(self.folder), str(self.folder))

    def labels(self) -> tuple[str, ...]:
        names = self.config.id2label
        return tuple(str(names[i]) for i in sorted(names))

    def facts(self) -> ModelFacts:
        return module_facts(self.meta, type(self.meta).__name__)

    def inputs(self) -> tuple[str, ...]:
        return matching_inputs(self.meta, self.encoder(), str(self.folder))

    def encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = TokenizerEncoder(self.folder, self.trust_remote_code)
        return self._encoder

    def load(self) -> Any:
        import torch

        import_models()
        import transformers

        self.check()
        try:
            with no_bars():
                module, info = getattr(transformers, self.auto).from_pretrained(
                    str(self.folder),
                    dtype=torch.float32,
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=self.trust_remote_code,
                    output_loading_info=True,
                )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise self._unreadable(error) from error
        if missing := sorted(info["missing_keys"]):
            raise self._untrained(missing)
        return module.eval()

    def fingerprint(self) -> str:
        found = {path for pattern in (*TOKENIZER_FILES, "*.safetensors") for path in self.folder.glob(pattern)}
        return hash_files([self.folder / "config.json", *found])

    def longest(self) -> int | None:
        limits = [self.encoder().longest(), getattr(self.config, "max_position_embeddings", None)]
        known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
        return min(known) if known else None

    def vocabulary(self) -> int | None:
        return getattr(self.config, "vocab_size", None)

    @cached_property
    def config(self) -> Any:
        """The configuration, read without running anything that came with it."""
        from transformers import AutoConfig

        check_folder(self.folder)
        self._check_code()
        try:
            return AutoConfig.from_pretrained(
                str(self.folder), local_files_only=True, trust_remote_code=self.trust_remote_code
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(error) from error

    @cached_property
    def meta(self) -> Any:
        """The model on the meta device: every shape, no weight."""
        import torch

        import_models()
        import transformers

        try:
            with torch.device("meta"):
                return (
                    getattr(transformers, self.auto)
                    .from_config(self.config, dtype=torch.float32, trust_remote_code=self.trust_remote_code)
                    .eval()
                )
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise self._unreadable(error) from error

    def _check_code(self) -> None:
        written = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        if "auto_map" in written and not self.trust_remote_code:
            raise UnsafeModel(
                f"{self.folder} brings its own Python code (auto_map in config.json).",
                allowed="architectures that transformers knows by itself",
                do="read that code; if you trust it, pass trust_remote_code=True",
            )

    def _check_head(self) -> None:
        written = list(getattr(self.config, "architectures", None) or [])
        if written and not any(name.endswith("ForSequenceClassification") for name in written):
            raise ModelError(
                f"{self.folder} holds a {', '.join(written)}, which has no classification head.",
                allowed="a model whose architecture ends in ForSequenceClassification",
                do="fine-tune it on the task first, or choose a checkpoint that was",
            )
        if len(self.config.id2label) < 2 or getattr(self.config, "problem_type", None) in (
            "regression",
            "multi_label_classification",
        ):
            raise ModelError(
                f"The head of {self.folder} gives {len(self.config.id2label)} output(s) for "
                f"{getattr(self.config, 'problem_type', None) or 'regression'}.",
                allowed="a head that chooses one of at least two classes",
                do="choose a single-label classifier",
            )
        wanted = {name for name in self.meta.state_dict() if name.split(".")[0] in _head_parts(self.meta)}
        stored = {name for file in weights(self.folder) for name in tensors(file)}
        if missing := sorted(wanted - stored):
            raise self._untrained(missing)

    def _untrained(self, missing: list[str]) -> ModelError:
        return ModelError(
            f"{self.folder} lacks {len(missing)} tensor(s) of a {type(self.meta).__name__}: {', '.join(missing[:4])}; "
            "they would be random.",
            allowed="a fine-tuned checkpoint with all weights, the head's among them",
            do="fine-tune it on the task first, or choose a checkpoint that was",
        )

    def _unreadable(self, error: Exception) -> ModelError:
        return ModelError(
            f"The model in {self.folder} cannot be read: {first_line(error)}",
            allowed=f"a folder that transformers' save_pretrained wrote, of an architecture with {self.head}",
            do="save it again with model.save_pretrained(folder), or update transformers for a newer architecture",
        )


def check_folder(folder: Path) -> None:
    """Raise `ModelError` unless `folder` has a readable config.json and safetensors; `UnsafeModel` for a pickle."""
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}.", do="check the path, or give a hub id such as owner/name")
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(
            f"{folder} has no config.json.",
            allowed="a Hugging Face folder: config.json, model.safetensors, tokenizer files",
            do="point to the folder that model.save_pretrained(…) wrote",
        )
    try:
        written = json.loads(config.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{config} is not JSON: {error}", do="download or save the model again") from error
    if not isinstance(written, dict):
        raise ModelError(f"{config} is not a JSON object.", do="download or save the model again")
    if not weights(folder):
        refuse_pickles(folder)
        raise ModelError(
            f"{folder} has no weights.",
            allowed="model.safetensors (or its shards with model.safetensors.index.json)",
            do="download the model again, or save it with model.save_pretrained(folder)",
        )


def refuse_pickles(folder: Path) -> None:
    """Raise `UnsafeModel`, with the command that converts it, where `folder` holds pickled weights."""
    found = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if found:
        raise UnsafeModel(
            f"{folder} holds its weights as a pickle only ({', '.join(found[:3])}); reading it can run any code.",
            allowed="safetensors",
            do=f"if you trust where it comes from, convert it once:\n    {conversion(str(folder))}",
        )


def refuse_file(path: Path) -> None:
    """Raise for a single file that is no model by itself: `UnsafeModel` for a pickle, else `ModelError`."""
    if any(path.match(pattern) for pattern in PICKLES):
        raise UnsafeModel(
            f"{path} is a pickle; reading it can run any code.",
            allowed="a folder with safetensors, or an ONNX file",
            do="if you trust where it comes from, load it in your own code and save it with "
            "model.save_pretrained(folder), or for a plain module with safetensors.torch.save_model",
        )
    raise ModelError(
        f"{path} is a file.",
        allowed="a Hugging Face folder (config.json, model.safetensors, tokenizer files) or an ONNX file",
        do=f"give the folder: {path.parent}",
    )


def conversion(model: str) -> str:
    """The command that writes a model's pickled weights as safetensors, into a new folder."""
    target = model.rstrip("/").split("/")[-1] + "-safetensors"
    return (
        'python -c "from transformers import AutoModelForSequenceClassification as M, AutoTokenizer as T; '
        f"M.from_pretrained({model!r}).save_pretrained({target!r}); "
        f'T.from_pretrained({model!r}).save_pretrained({target!r})"'
    )


def weights(folder: Path) -> list[Path]:
    """The safetensors files of the model in `folder`: those its index names, or all."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if missing := [name for name in shards if not (folder / Path(name).name).is_file()]:
            raise ModelError(
                f"{folder} lacks {len(missing)} of {len(shards)} shards: {', '.join(missing[:3])}.",
                do="download the model again",
            )
        return [folder / Path(name).name for name in shards]
    single = folder / "model.safetensors"
    return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))


def module_facts(module: Any, architecture: str) -> ModelFacts:
    """The facts of a module, on the meta device or not."""
    from workbench.anatomy import find_blocks
    from workbench.measure.layers import quantizable

    path, blocks = find_blocks(module)
    return ModelFacts(
        architecture=architecture,
        layers=tuple(quantizable(module)),
        blocks=blocks,
        block_path=path,
        parameters=sum(p.numel() for p in module.parameters()),
    )


def matching_inputs(module: Any, encoder: Encoder, where: str) -> tuple[str, ...]:
    """The encoder's inputs that the module's `forward` takes, in its order.

    Raises `ModelError` where `forward` needs one that the encoder does not give.
    """
    given = encoder.names()
    parameters = inspect.signature(module.forward).parameters
    taken = tuple(name for name in parameters if name in given)
    needed = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if not taken or set(needed) - set(given):
        raise ModelError(
            f"The forward of {where} takes ({', '.join(parameters)}), and its tokenizer gives {', '.join(given)}.",
            allowed="a forward whose required arguments are named as the tokenizer names them",
            do="rename the arguments of forward, or give a collate function with collate='package.module:function'",
        )
    return taken


def first_line(error: Exception) -> str:
    """The first line of what a library said."""
    text = str(error).strip()
    return text.splitlines()[0] if text else repr(error)


def _head_parts(module: Any) -> set[str]:
    """The top-level parts of a transformers model that are not its backbone."""
    return {name for name, _ in module.named_children()} - {module.base_model_prefix}
