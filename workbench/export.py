"""A trial as a folder that runs on its own: lowered model, tokenizer, `run.py`, pinned requirements, model card.

Nothing in it needs this package. `python run.py --check` there answers the example texts of `check.json` and compares
with the logits that were seen here. Left out: a server around it, pushing it to the hub.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.compress import Artifact
from workbench.errors import Refused, ResourceError, UserError
from workbench.measure.estimate import Estimate
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


def export(study: Study, number: int, folder: str | Path) -> Path:
    """Write trial `number` of `study` into the new `folder`.

    Raises `UserError` where the folder holds something, `TrialError` where the trial left no model, and `Refused` for
    a runtime or a tokenizer that cannot go without this package.
    """
    place = Path(folder).expanduser()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
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
    structure = artifact.folder / "model" / "structure.json"
    if structure.is_file() and json.loads(structure.read_text(encoding="utf-8")).get("factory"):
        raise Refused("The module is built by a function of yours.", do="export a trial of onnxruntime or openvino")


def _write(study: Study, trial: Trial, artifact: Artifact, place: Path) -> None:
    backend, manifest = artifact.backend, artifact.manifest
    shutil.copytree(artifact.folder / "model", place / "model")
    shutil.copytree(artifact.folder / "tokenizer", place / "tokenizer")
    code = files("workbench.standalone")
    (place / "run.py").write_text(code.joinpath("main.py").read_text(encoding="utf-8"), encoding="utf-8")
    (place / "loader.py").write_text(code.joinpath(f"{backend.name}.py").read_text(encoding="utf-8"), encoding="utf-8")
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
    (place / "README.md").write_text(_card(study, trial, manifest), encoding="utf-8")


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


def _card(study: Study, trial: Trial, manifest: dict[str, Any]) -> str:
    measured, machine = trial.measurement, manifest["machine"]
    lines = [
        f"# {study.name}, trial {trial.number}",
        "",
        f"`{trial.recipe.title}`, made with the compression workbench on {manifest['created'][:10]}.",
        "",
        "```",
        "pip install -r requirements.txt",
        'python run.py "a text"',
        "python run.py --check",
        "```",
        "",
    ]
    if measured:
        rows = {
            measured.metric: str(measured.accuracy),
            "drop against the uncompressed model": _points(measured.drop),
            "flips": f"{measured.flips_lost} lost, {measured.flips_gained} gained",
            "speed-up, paired, at a fixed length": str(measured.speedup),
            "speed-up over the data's own lengths": str(measured.speedup_real),
            "p50": f"{measured.latency_ms.get('p50', float('nan')):.2f} ms",
            "size on disk": f"{measured.size_mb:.1f} MB",
            "measured on": f"{machine.get('cpu', 'unknown')}, split `{measured.split}`",
        }
        lines += ["| what | measured |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items()), ""]
    lines += ["The licence of the original model and of its data applies to this folder too."]
    return "\n".join(lines) + "\n"


def _points(drop: Estimate | None) -> str:
    if drop is None:
        return "not measured"
    return str(drop.in_points() if drop.unit == "fraction" else drop)


def _json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
