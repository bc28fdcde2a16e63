"""A model card for an exported trial: where it comes from, what was done to it, what was measured, whose licence holds.

The metadata on top is what the hub reads. Names, labels and titles come from models and data, so all of them are
written as plain text. Left out: intended use and limits, which only the original's card can tell.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.measure.estimate import Estimate
from workbench.plots.markup import code_span, markdown
from workbench.trial import Trial

if TYPE_CHECKING:
    from workbench.study import Study

#: The names that the hub knows licences by, for the first lines of common licence files.
_TEXTS = {
    "apache license": "apache-2.0",
    "mit license": "mit",
    "gnu general public license": "gpl-3.0",
    "bsd 3-clause": "bsd-3-clause",
    "creative commons attribution-sharealike 4.0": "cc-by-sa-4.0",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.+-]+)[\"']?\s*$", re.MULTILINE | re.IGNORECASE)


def licence_of(model: str) -> str:
    """The licence that the folder of a model names, as the hub writes it; "" where it names none.

    It is looked for in the metadata of README.md, then in the first lines of a file called LICENSE.
    """
    folder = Path(model).expanduser()
    card = folder / "README.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
        if found := _LICENCE.search(head):
            return found[1].lower()
    for path in sorted(folder.glob("LICEN[SC]E*")) if folder.is_dir() else ():
        start = path.read_text(encoding="utf-8", errors="replace")[:400].lower() if path.is_file() else ""
        for words, name in _TEXTS.items():
            if words in " ".join(start.split()):
                return name
    return ""


def lineage(study: Study, trial: Trial, manifest: dict[str, Any]) -> dict[str, str]:
    """Where an exported model comes from, as plain text by what it is: model, data, recipe, how and when."""
    described = study.prepared.get("describe") or study.task.to_json()
    model = str(described.get("model") or described.get("task") or study.task.name)
    known = {
        "Original model": model,
        "Revision": str(described.get("revision") or ""),
        "Architecture": str(described.get("architecture") or ""),
        "Data": str(described.get("data") or ""),
        "Recipe": trial.recipe.title,
        "Layers left alone": ", ".join(trial.recipe.keep),
        "Notes": "; ".join(map(str, manifest.get("notes", []))),
        "Fingerprint of model and data": str(manifest["task"]),
        "Recipe id": str(manifest["recipe_id"]),
        "Made": str(manifest["created"]),
        "Licence of the original": licence_of(model) or _where_to_look(model),
    }
    return {key: text for key, text in known.items() if text}


def model_card(study: Study, trial: Trial, manifest: dict[str, Any]) -> str:
    """The card as Markdown, with the hub's metadata on top."""
    told = lineage(study, trial, manifest)
    lines = [
        *_metadata(told["Original model"], trial, manifest),
        f"# {markdown(study.name)}, trial {trial.number}",
        "",
        f"{code_span(trial.recipe.title)}, made with the compression workbench on {manifest['created'][:10]}.",
        "",
        "```",
        "pip install -r requirements.txt",
        'python run.py "a text"',
        "python run.py --check",
        "```",
        "",
        "## Where it comes from",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {markdown(text)} |" for key, text in told.items()),
        "",
        "The licence of the original model and of its data applies to this folder too.",
        "",
        *_measured(trial, manifest),
        "## Classes",
        "",
        *(f"{i}. {markdown(label)}" for i, label in enumerate(manifest["labels"])),
        "",
        "## The line that made it",
        "",
        *(f"    {line}" for line in study.code(trial).splitlines()),
    ]
    return "\n".join(lines) + "\n"


def _metadata(model: str, trial: Trial, manifest: dict[str, Any]) -> list[str]:
    """YAML for the hub; what a stranger wrote stands in it only where it has the form of an id."""
    changed = [step.name for step in trial.recipe.steps]
    is_id = bool(_HUB_ID.fullmatch(model)) and not Path(model).exists()
    relation = "quantized" if any(step.precisions for step in trial.recipe.steps) else "finetune"
    lines = ["---", f"license: {licence_of(model) or 'unknown'}"]
    lines += [f"base_model: {model}", f"base_model_relation: {relation}"] if is_id else []
    lines += ["pipeline_tag: text-classification"] if manifest["labels"] else []
    return [*lines, "tags:", *(f"- {name}" for name in ("compressed", trial.recipe.backend.name, *changed)), "---", ""]


def _measured(trial: Trial, manifest: dict[str, Any]) -> list[str]:
    measured, machine = trial.measurement, manifest["machine"]
    if not measured:
        return []
    rows = {
        measured.metric: str(measured.accuracy),
        "drop against the uncompressed model": _points(measured.drop),
        "flips": f"{measured.flips_lost} lost, {measured.flips_gained} gained",
        "speed-up, paired, at a fixed length": str(measured.speedup),
        "speed-up over the data's own lengths": str(measured.speedup_real),
        "p50": f"{measured.latency_ms.get('p50', float('nan')):.2f} ms",
        "size on disk": f"{measured.size_mb:.1f} MB" if measured.size_mb is not None else "not measured",
        "measured on": f"{markdown(machine.get('cpu', 'unknown'))}, split {code_span(measured.split)}",
    }
    return [
        "## What was measured",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {k} | {v} |" for k, v in rows.items()),
        "",
    ]


def _points(drop: Estimate | None) -> str:
    if drop is None:
        return "not measured"
    return str(drop.in_points() if drop.unit == "fraction" else drop)


def _where_to_look(model: str) -> str:
    is_id = bool(_HUB_ID.fullmatch(model)) and not Path(model).exists()
    return f"not known here: see https://huggingface.co/{model}" if is_id else "not known: the folder names none"
