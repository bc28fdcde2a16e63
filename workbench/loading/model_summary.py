"""What can be told of a model before it is loaded: whether it can work here, and what it is.

Reads config.json, the headers of safetensors files, the names of the other files and the license in README.md, in some
milliseconds and without torch. A model that cannot work is described all the same, with the reason in `problem`.
Left out: loading weights; what the configuration promises and the weights do not keep shows when a task is prepared.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from workbench.errors import ModelError, UserError
from workbench.loading.folder import PICKLES, check_folder, weights
from workbench.loading.memory import tensors
from workbench.loading.tokens import TOKENIZER_FILES

#: Ends of architecture names by kind of task: the heads that the task can use.
HEADS = {
    "text_classification": ("ForSequenceClassification",),
    "causal_lm": ("ForCausalLM", "LMHeadModel"),
}
_WORDS = {"text_classification": "a classification head", "causal_lm": "a language modelling head"}

#: Folders in which nobody keeps a model that was meant to be found.
_SKIPPED = {"node_modules", "site-packages", "__pycache__", "artifacts", "venv"}
#: At most so many folders are looked into: the working folder may be a home directory.
_FOLDERS = 3000


@dataclass(frozen=True)
class ModelSummary:
    """What is known of a model; None or empty where it is not.

    `kind` is `folder`, `onnx`, `hub` or `demo`; `layers` counts transformer blocks; `macs` are for one example of
    `sequence` tokens; `size_mb` is of the weights on disk, in MB (10^6 bytes). `problem` says why it cannot be used,
    and `do` what can be done about it; both are empty where nothing stands against it.
    """

    model: str
    kind: str
    architecture: str = ""
    labels: tuple[str, ...] = ()
    parameters: int | None = None
    layers: int | None = None
    macs: int | None = None
    sequence: int = 128
    size_mb: float | None = None
    license: str = ""
    problem: str = ""
    do: str = ""

    @property
    def usable(self) -> bool:
        """Whether nothing stands against it."""
        return not self.problem

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The summary that `to_json` wrote."""
        return cls(**{**data, "labels": tuple(data["labels"])})


def summarize(path: Path, kind: str = "text_classification") -> ModelSummary:
    """A model's folder or ONNX file, for a task of this `kind`."""
    if path.suffix.lower() == ".onnx":
        return _onnx(path, kind)
    graphs = sorted(path.glob("*.onnx")) if path.is_dir() else []
    if len(graphs) == 1 and not list(path.glob("*.safetensors")):
        return replace(_onnx(graphs[0], kind), model=str(path))
    found = ModelSummary(str(path), "folder")
    try:
        check_folder(path)
    except UserError as error:
        return replace(found, problem=error.what, do=error.do)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    found = replace(found, **of_config(config), license=license_of(path))
    try:
        headers = [tensors(file) for file in weights(path)]
    except (UserError, OSError, KeyError, json.JSONDecodeError) as error:
        return replace(found, problem=error.what if isinstance(error, UserError) else str(error))
    numbers = sum(math.prod(entry["shape"]) for header in headers for entry in header.values())
    size = sum(file.stat().st_size for file in weights(path)) / 1e6
    problem, do = config_problem(config, kind) or tokenizer_problem(os.listdir(path)) or ("", "")
    return replace(found, parameters=numbers, size_mb=round(size, 1), problem=problem, do=do)


def of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture, labels and layers, as fields of `ModelSummary`, from what config.json says."""
    names = config.get("id2label")
    layers = next((config[k] for k in ("num_hidden_layers", "n_layers", "n_layer", "num_layers") if k in config), None)
    labels: tuple[str, ...] = ()
    if isinstance(names, dict) and all(str(key).isdigit() for key in names):
        labels = tuple(str(names[key]) for key in sorted(names, key=int))
    return {
        "architecture": ", ".join(map(str, config.get("architectures") or [config.get("model_type") or ""])),
        "labels": labels,
        "layers": layers if isinstance(layers, int) else None,
    }


def config_problem(config: Mapping[str, Any], kind: str) -> tuple[str, str] | None:
    """None, or why a model with this configuration does not fit a task of this `kind`, and what to do."""
    if "auto_map" in config:
        return (
            "It brings its own Python code, which is not run.",
            "read that code; if you trust it, use make_task(…, trust_remote_code=True)",
        )
    written = [str(name) for name in config.get("architectures") or []]
    if written and kind in HEADS and not any(name.endswith(HEADS[kind]) for name in written):
        return (
            f"{', '.join(written)} has no {_WORDS[kind].removeprefix('a ')}.",
            "fine-tune it on the task first, or choose a checkpoint that was",
        )
    if kind != "text_classification":
        return None
    if config.get("problem_type") in ("regression", "multi_label_classification"):
        return f"Its head is for {config['problem_type'].replace('_', ' ')}.", "choose a single-label classifier"
    if len(config.get("id2label") or (0, 1)) < 2:
        return "Its head has one output, not classes.", "choose a single-label classifier"
    return None


def tokenizer_problem(names: Iterable[str]) -> tuple[str, str] | None:
    """None, or that no tokenizer is among these file names."""
    if any(Path(name).match(pattern) for name in names for pattern in TOKENIZER_FILES):
        return None
    return "It comes without a tokenizer.", "save it there with tokenizer.save_pretrained(folder)"


def license_of(folder: Path) -> str:
    """The license in the head of README.md, as model cards have it; else the name of a license file, else ''."""
    card = folder / "README.md"
    if card.is_file():
        return license_in(card.read_text(encoding="utf-8", errors="replace"))
    return next((f"see {file.name}" for file in sorted(folder.glob("LICEN[SC]E*"))), "")


def license_in(card: str) -> str:
    """The license that a model card's front matter names; '' where it does not."""
    head = re.match(r"\ufeff?---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    found = re.search(r"^license:[ \t]*(\S[^\n\r]*)", head[1], re.MULTILINE) if head else None
    return found[1].strip().strip("'\"") if found else ""


def find_models(root: str | Path = ".", kind: str = "text_classification", *, depth: int = 3) -> list[ModelSummary]:
    """The models in `root` and at most `depth` folders below it, those that can be used first, then by path.

    Links are not followed and hidden folders are left out. Raises `ModelError` where `root` is no folder.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise ModelError(f"There is no folder {base}.", do="check the path")
    found = [summarize(path, kind) for path in _candidates(base, depth)]
    return sorted(found, key=lambda one: (not one.usable, one.model))


def _candidates(base: Path, depth: int) -> Iterator[Path]:
    """Folders that look like a model's, and ONNX files that lie in none."""
    waiting, seen = [(base, 0)], 0
    while waiting and seen < _FOLDERS:
        folder, level = waiting.pop(0)
        seen += 1
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        names = [entry.name for entry in entries if entry.is_file()]
        if "config.json" in names and _has_weights(names):
            yield folder
            continue
        yield from (folder / name for name in names if name.lower().endswith(".onnx"))
        if level < depth and "study.db" not in names:
            waiting += [
                (Path(entry.path), level + 1)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and entry.name not in _SKIPPED
            ]


def _has_weights(names: list[str]) -> bool:
    patterns = ("*.safetensors", "*.onnx", "*.index.json", *PICKLES)
    return any(Path(name).match(pattern) for name in names for pattern in patterns)


def _onnx(path: Path, kind: str) -> ModelSummary:
    """An ONNX file by what lies beside it; the graph itself is not read."""
    found = ModelSummary(str(path), "onnx", architecture="ONNX graph")
    if not path.is_file():
        return replace(found, problem=f"There is no file {path}.", do="check the path")
    beside = path.parent / "config.json"
    try:
        config = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    except (UnicodeDecodeError, json.JSONDecodeError):
        config = {}
    about = of_config(config) if isinstance(config, dict) else {}
    about["architecture"] = f"{about.get('architecture') or 'unknown architecture'}, as an ONNX graph"
    outside = [file for file in path.parent.glob(f"{path.name}[._]data") if file.is_file()]
    size = sum(file.stat().st_size for file in (path, *outside)) / 1e6
    if kind != "text_classification":
        problem: tuple[str, str] | None = ("ONNX files can be classifiers only.", "give the model's folder")
    else:
        problem = tokenizer_problem(os.listdir(path.parent))
    what, do = problem or ("", "")
    return replace(found, **about, size_mb=round(size, 1), license=license_of(path.parent), problem=what, do=do)
