"""What the hub says of a model before anything but its config.json is downloaded.

The checks are those that a download would fail on: the id, its revision, the file names, the head. Left out: searching
the hub.
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.loading.hub import WEIGHTS, check_model_files, local_copy, repository
from workbench.loading.hub_errors import explained
from workbench.loading.model_summary import ModelSummary, config_problem, of_config, summarize, tokenizer_problem


def summarize_hub(repo: str, revision: str | None = None, kind: str = "text_classification") -> ModelSummary:
    """A model of the hub, for a task of this `kind`; `problem` also says that the hub knows no such id.

    Without the hub, the copy of the last download is described. Asks the hub three times at most.
    """
    found = ModelSummary(repo, "hub")
    try:
        info = repository(repo, revision)
        names = [file.rfilename for file in info.siblings or []]
        check_model_files(repo, names)
        config = json.loads(config_of(repo, revision).read_text(encoding="utf-8"))
    except UserError as error:
        copy = local_copy("model", repo, revision)
        if copy is not None:
            return replace(summarize(copy, kind), model=repo, kind="hub")
        return replace(found, problem=error.what, do=error.do)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        return replace(found, problem=f"Its config.json is not JSON: {error}", do="choose another repository")
    if not isinstance(config, dict):
        return replace(found, problem="Its config.json is not a JSON object.", do="choose another repository")
    problem, do = config_problem(config, kind) or tokenizer_problem(names) or ("", "")
    size = sum(f.size or 0 for f in info.siblings if any(fnmatch.fnmatch(f.rfilename, p) for p in WEIGHTS))
    return replace(
        found,
        **of_config(config),
        parameters=getattr(info.safetensors, "total", None),
        size_mb=round(size / 1e6, 1) if size else None,
        license=_license(info),
        problem=problem,
        do=do,
    )


def config_of(repo: str, revision: str | None = None) -> Path:
    """A repository's config.json, downloaded when missing; raises `HubError`."""
    from huggingface_hub import hf_hub_download

    with explained(repo, "model", revision):
        return Path(hf_hub_download(repo, "config.json", revision=revision))


def _license(info: Any) -> str:
    card = getattr(info, "card_data", None)
    named = card.get("license") if card is not None and hasattr(card, "get") else None
    tagged = [name.removeprefix("license:") for name in info.tags or [] if name.startswith("license:")]
    return str(named or (tagged[0] if tagged else ""))
