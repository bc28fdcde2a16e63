"""A trial as a folder or zip that runs on its own: lowered model, tokenizer, `run.py`, requirements, model card.

Nothing in it needs this package. `python run.py --check` there answers the example texts of `check.json` and compares
with the logits that were seen here. `push` is the only thing in the workbench that uploads. Left out: a server around
the model.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.card import model_card
from workbench.compress import Artifact
from workbench.errors import HubError, Refused, ResourceError, UserError
from workbench.measure.footprint import compressed_mb, size_mb
from workbench.trial import Trial

if TYPE_CHECKING:
    from workbench.study import Study

#: What each runtime's loader imports, beside numpy and tokenizers.
_REQUIREMENTS = {
    "eager": ("torch", "transformers", "safetensors"),
    "compiled": ("torch",),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}

_CHECKED_EXAMPLES = 5
#: What the code, the card and the numbers take beside model and tokenizer, in MB.
_REST_MB = 0.03


@dataclass(frozen=True)
class ExportSize:
    """What an export will take, in MB: the model, the tokenizer, all of it, and about how much as a zip."""

    model: float
    tokenizer: float
    total: float
    zipped: float


def export_place(root: str | Path, name: str, *, zipped: bool = False) -> Path:
    """Where an export called `name` goes, below `root`; raises `UserError` for a name that would lead elsewhere.

    The name may come from a browser: it is one plain part of a path, and no link leads out of `root`.
    """
    base = Path(root).expanduser()
    if not re.fullmatch(r"\w[\w. -]{0,99}", name) or name.endswith((".", " ")):
        raise UserError(
            f"{name!r} is no name for an export.",
            allowed="letters, digits, spaces, '-', '_' and '.'",
            do="choose another name",
        )
    place = base / (name if not zipped or name.endswith(".zip") else f"{name}.zip")
    if place.resolve().parent != base.resolve():
        raise UserError(f"{name!r} leads out of {base}.", do="choose another name")
    return place


def export_size(study: Study, number: int) -> ExportSize:
    """The size of trial `number` before it is exported; raises `TrialError` where it left no model."""
    folder = study.artifact(number).folder
    model, tokenizer = size_mb(folder / "model"), size_mb(folder / "tokenizer")
    zipped = compressed_mb(folder / "model") + compressed_mb(folder / "tokenizer")
    return ExportSize(model, tokenizer, model + tokenizer + _REST_MB, zipped + _REST_MB)


def export(study: Study, number: int, folder: str | Path) -> Path:
    """Write trial `number` of `study` into the new `folder`, or into the new file where its name ends in `.zip`.

    Raises `UserError` where it is there and holds something, `TrialError` where the trial left no model, and `Refused`
    for a runtime or a tokenizer that cannot go without this package.
    """
    place = Path(folder).expanduser()
    packed = place.suffix == ".zip"
    if place.exists() and (packed or not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{place} holds something already.", allowed="an empty or new folder", do="name another folder")
    artifact = study.artifact(number)
    trial = next(t for t in study.trials if t.number == number)
    if not study.task.labels:
        raise Refused(
            "An exported folder classifies texts, and this model has no classes.",
            allowed="trials of a classifier",
            do=f"take the lowered model from {artifact.folder}, and load it with Artifact.open(…).load()",
        )
    _check(artifact)
    partial = place.with_name(f"{place.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(study, trial, artifact, partial)
        if packed:
            _pack(partial, place)
        else:
            if place.exists():
                place.rmdir()
            partial.rename(place)
    except OSError as error:
        raise ResourceError(
            f"{place} could not be written: {error.strerror or error}.", do="free some space, or name another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return place


def push(folder: str | Path, repo: str, *, token: str | None = None, private: bool = True) -> str:
    """Upload an exported folder to the hub as the model `repo` ("owner/name"), made when missing; its address.

    Without `token` the client's own login is used. Raises `UserError` for a folder that was not exported, `HubError`
    where the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalTokenNotFoundError

    place = Path(folder).expanduser()
    if not (place / "run.py").is_file() or not (place / "model.json").is_file():
        raise UserError(f"{place} is no exported folder.", do="export the trial as a folder first")
    api = HfApi(token=token or None)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(folder_path=str(place), repo_id=repo, commit_message="Add the compressed model")
    except (HFValidationError, ValueError) as error:
        raise HubError(f"{repo!r} is no id of the hub.", allowed="owner/name", do="check the spelling") from error
    except LocalTokenNotFoundError as error:
        raise HubError("There is no token.", do="give one that may write, or log in with: hf auth login") from error
    except (HTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        what = f"it answered {status}" if status else str(error).partition("\n")[0]
        raise HubError(
            f"The hub did not take {repo}: {what}.",
            allowed="a token with the right to write to that owner",
            do="check the token at https://huggingface.co/settings/tokens, and the connection",
        ) from error
    return str(getattr(done, "repo_url", None) or f"https://huggingface.co/{repo}")


def _pack(folder: Path, target: Path) -> None:
    """All files of `folder` as a zip whose one folder is called like the file; moved to `target` when it is whole."""
    part = target.with_name(f"{target.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, Path(target.stem) / file.relative_to(folder))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _check(artifact: Artifact) -> None:
    name = artifact.backend.name
    if name not in _REQUIREMENTS:
        raise Refused(
            f"{artifact.backend.title} has no loader that goes without this package.",
            allowed=", ".join(_REQUIREMENTS),
            do="export a trial of one of these runtimes",
        )
    if not (artifact.folder / "tokenizer" / "tokenizer.json").is_file():
        raise Refused("This model's tokenizer has no tokenizer.json.", do="save a fast tokenizer with the model")
    if _structure(artifact).get("factory"):
        raise Refused("The module is built by a function of yours.", do="export a trial of onnxruntime or openvino")


def _structure(artifact: Artifact) -> dict[str, Any]:
    """What builds the module again, of a runtime that does."""
    path = artifact.folder / "model" / "structure.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _write(study: Study, trial: Trial, artifact: Artifact, place: Path) -> None:
    backend, manifest = artifact.backend, artifact.manifest
    shutil.copytree(artifact.folder / "model", place / "model")
    shutil.copytree(artifact.folder / "tokenizer", place / "tokenizer")
    code = files("workbench.standalone")
    (place / "run.py").write_text(code.joinpath("main.py").read_text(encoding="utf-8"), encoding="utf-8")
    (place / "loader.py").write_text(code.joinpath(f"{backend.name}.py").read_text(encoding="utf-8"), encoding="utf-8")
    if _structure(artifact).get("tokens"):
        # What drops tokens needs nothing of this package.
        source = files("workbench").joinpath("shortening.py")
        (place / "shortening.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    pinned = [f"{name}=={version(name)}" for name in ("numpy", "tokenizers", *_REQUIREMENTS[backend.name])]
    (place / "requirements.txt").write_text("\n".join(pinned) + "\n", encoding="utf-8")
    lowered = json.loads((artifact.folder / "model" / "lowered.json").read_text(encoding="utf-8"))
    model = {
        **{key: lowered.get(key) for key in ("base", "int8", "dynamic_int8", "packed")},
        "labels": manifest["labels"],
        "inputs": manifest["inputs"],
        "pad": manifest["pad"],
        "sequence": backend.sequence,
        "batch": backend.batch,
        "threads": backend.threads,
        "fixed": getattr(backend, "shapes", "dynamic") == "fixed",
    }
    _json(place / "model.json", model)
    _json(place / "recipe.json", {"recipe": trial.recipe.to_json(), "code": study.code(trial)})
    measured = trial.measurement
    _json(place / "measurement.json", measured.to_json(outcomes=False) if measured else {})
    _json(place / "check.json", _seen(study, artifact))
    (place / "README.md").write_text(model_card(study, trial, manifest), encoding="utf-8")


def _seen(study: Study, artifact: Artifact) -> dict[str, Any]:
    """The first examples with their logits, one at a time as `run.py` answers them."""
    texts = study.task.texts("select", _CHECKED_EXAMPLES)
    examples = study.task.encoded("select", _CHECKED_EXAMPLES)
    runner, backend = artifact.load(), artifact.backend.replace(batch=1)
    logits = [
        np.asarray(runner(batch))[0].astype(float).tolist() for batch in backend.batches(examples, study.task.pad())
    ]
    runner.close()
    # Another machine rounds otherwise; in INT8 that moves a logit by a step of its scale.
    return {"texts": [list(text) for text in texts], "logits": logits, "tolerance": 0.25}


def _json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
