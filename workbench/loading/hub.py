"""Models and data sets from the Hugging Face hub, by its own clients (huggingface_hub, datasets).

Only safetensors, configuration and tokenizer files of a model are downloaded, and no script that comes with a data
set runs. What was downloaded is not downloaded again; a connection that breaks is taken up where it broke; without
the hub, what the cache holds is used. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` work as everywhere.
Left out: data sets that are too large for this machine's disk (streaming).
"""

from __future__ import annotations

import fnmatch
import glob
import json
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.errors import HubError, ModelError, UnsafeModel
from workbench.loading.content import cache, settle
from workbench.loading.folder import PICKLES, conversion
from workbench.loading.hashing import hash_json
from workbench.loading.hub_errors import explained, is_offline, is_unknown, offline, readable, status, unreachable
from workbench.loading.quiet import no_dataset_bars

Progress = Callable[[float, str], None]

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


def fetch_model(
    repo: str, revision: str | None = None, progress: Progress | None = None, *, code: bool = False
) -> Path:
    """The folder of a model repository's safetensors, configuration and tokenizer at `revision`.

    Raises `HubError` (unknown id or revision, gated, unreachable), `UnsafeModel` for pickled weights only (before
    anything is downloaded), `ModelError` for a repository without a model, `ResourceError` for a full disk.
    """
    info = _info(repo, revision, "model")
    if info is not None:
        check_model_files(repo, [file.rfilename for file in info.siblings or []])
    patterns = [*WEIGHTS, "config.json", *TOKENIZERS, *(("*.py",) if code else ())]
    return _remember("model", repo, revision, _download(repo, revision, "model", patterns, info, progress))


def fetch_tokenizer(repo: str, revision: str | None = None, progress: Progress | None = None) -> Path:
    """The folder of a repository's tokenizer; raises `HubError`."""
    info = _info(repo, revision, "model")
    folder = _download(repo, revision, "model", [*TOKENIZERS, "config.json"], info, progress)
    return _remember("tokenizer", repo, revision, folder)


def repository(repo: str, revision: str | None = None) -> Any:
    """What the hub says of a model repository, its files with their sizes; raises `HubError`."""
    return _info(repo, revision, "model", strict=True)


def local_copy(kind: str, name: str, revision: str | None = None) -> Path | None:
    """Where the last fetch of a "model", "tokenizer" or "data" put it; None where it is not here. Asks nobody."""
    pointer = _pointer(kind, name, revision)
    if not pointer.is_file():
        return None
    folder = Path(json.loads(pointer.read_text(encoding="utf-8"))["folder"])
    return folder if folder.is_dir() else None


def fetch_dataset(name: str, revision: str | None = None, progress: Progress | None = None) -> Path:
    """A folder with one Parquet file per split of "owner/name", "owner/name/configuration" or "name/configuration".

    Raises `HubError` (unknown id, revision or configuration, gated, unreachable) and `DataError` for a data set
    that is a script.
    """
    copy = local_copy("data", name, revision)
    repo, configuration, info = _find_dataset(name, revision, has_copy=copy is not None)
    if info is None:
        if copy is not None:
            return copy
        raise offline(name) if is_offline() else unreachable(name, None)
    slug = "-".join(part for part in (repo.replace("/", "--"), configuration, info.sha[:12]) if part)
    target = cache("hub", "datasets") / slug
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=cache("hub"), prefix=".new-") as temporary:
            _build_dataset(repo, configuration, info, Path(temporary), progress)
            settle(Path(temporary) / "parquet", target)
    if progress:
        progress(1.0, f"{name} is here")
    return _remember("data", name, revision, target)


def _pointer(kind: str, name: str, revision: str | None) -> Path:
    return cache("hub") / f"{hash_json([kind, name, revision])[:16]}.json"


def _remember(kind: str, name: str, revision: str | None, folder: Path) -> Path:
    """Note where it lies, in one rename, for `local_copy`."""
    pointer = _pointer(kind, name, revision)
    with tempfile.NamedTemporaryFile("w", dir=pointer.parent, prefix=".new-", delete=False, encoding="utf-8") as file:
        json.dump({"kind": kind, "name": name, "revision": revision, "folder": str(folder)}, file)
    Path(file.name).replace(pointer)
    return folder


def _find_dataset(name: str, revision: str | None, has_copy: bool) -> tuple[str, str | None, Any]:
    """Repository, configuration and what the hub says of it (None where only the local copy can be had)."""
    parts = name.split("/")
    readings: list[tuple[str, str | None]] = [(name, None)] if len(parts) < 3 else []
    if len(parts) > 1:
        readings.append(("/".join(parts[:-1]), parts[-1]))
    failure: HubError | None = None
    for repo, configuration in readings:
        try:
            info = _info(repo, revision, "dataset", strict=not has_copy)
        except HubError as error:
            # "a/b" may be the data set b of a, or configuration b of a; the first complaint is the better one.
            if not is_unknown(error.__cause__):
                raise
            failure = failure or error
            continue
        return (info.id if info is not None else repo), configuration, info
    raise failure or HubError(f"{name!r} is no data set's id.", allowed="owner/name or owner/name/configuration")


def _build_dataset(repo: str, configuration: str | None, info: Any, folder: Path, progress: Progress | None) -> None:
    """Download the files of one configuration, with progress, and write each split as Parquet into folder/parquet."""
    import datasets
    from huggingface_hub import HfApi

    with no_dataset_bars(), explained(repo, "dataset", info.sha), readable(repo, configuration):
        # `datasets` would take a gated data set for one that does not exist.
        HfApi().auth_check(repo, repo_type="dataset")
        # A commit, not a branch: with a branch `datasets` asks a second server for exported Parquet files.
        builder = datasets.load_dataset_builder(repo, configuration, revision=info.sha, cache_dir=str(folder / "arrow"))
        prefix = f"hf://datasets/{repo}@{info.sha}/"
        files = [
            file.removeprefix(prefix)
            for split in (builder.config.data_files or {}).values()
            for file in split
            if file.startswith(prefix)
        ]
        _download(repo, info.sha, "dataset", [glob.escape(file) for file in files], info, progress)
        builder.download_and_prepare()
        (folder / "parquet").mkdir()
        for split, part in builder.as_dataset().items():
            part.to_parquet(str(folder / "parquet" / f"{split}.parquet"))


def _info(repo: str, revision: str | None, kind: str, *, strict: bool = False) -> Any:
    """What the hub says of a repository; None where it cannot be reached and a local copy may do (not `strict`)."""
    from huggingface_hub import HfApi

    if is_offline():
        if strict:
            raise offline(repo)
        return None
    try:
        with explained(repo, kind, revision):
            return HfApi().repo_info(repo, repo_type=kind, revision=revision, files_metadata=True)
    except HubError as error:
        if strict or status(error.__cause__) in range(400, 500):
            raise
        if isinstance(error.__cause__, ValueError):
            raise
        return None


def _download(
    repo: str, revision: str | None, kind: str, patterns: list[str], info: Any, progress: Progress | None
) -> Path:
    from huggingface_hub import snapshot_download

    with explained(repo, kind, revision):
        bar = _reporting(f"downloading {repo}", _bytes(info, patterns), progress)
        # By the name of the revision, not its commit: the cache must find it again by that name without the hub.
        path = snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=patterns, tqdm_class=bar)
    if progress:
        progress(1.0, f"{repo} is here")
    return Path(path)


def _bytes(info: Any, patterns: list[str]) -> int:
    files = (info.siblings or []) if info else []
    return sum(f.size or 0 for f in files if any(fnmatch.fnmatch(f.rfilename, pattern) for pattern in patterns))


def _reporting(what: str, total: int, progress: Progress | None) -> Any:
    """A progress bar class that draws nothing and tells `progress` the share of `total` bytes, never going back."""
    import io

    from tqdm.std import tqdm

    lock, reached = threading.Lock(), [0.0]

    class Reporting(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            drawn = super().update(n)
            whole = max(total, self.total or 0)
            if progress and self.unit == "B" and whole:
                with lock:
                    share = min(self.n / whole, 1.0)
                    if share > reached[0]:
                        reached[0] = share
                        progress(share, f"{what}: {self.n / 1e6:.1f} of {whole / 1e6:.1f} MB")
            return drawn

    return Reporting


def check_model_files(repo: str, names: list[str]) -> None:
    """Raise `ModelError`, or `UnsafeModel` for pickles only, unless these files of `repo` are a model."""
    if "config.json" not in names:
        raise ModelError(
            f"The repository {repo} has no config.json.",
            allowed="a transformers model: config.json, model.safetensors and tokenizer files",
            do="choose another repository",
        )
    if any(fnmatch.fnmatch(name, pattern) for name in names for pattern in WEIGHTS):
        return
    if pickles := [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in PICKLES)]:
        raise UnsafeModel(
            f"The repository {repo} holds its weights as a pickle only ({', '.join(pickles[:3])}); reading it can run "
            "any code. Nothing was downloaded.",
            allowed="safetensors",
            do=f"if you trust where it comes from, convert it once and give the new folder:\n    {conversion(repo)}",
        )
    raise ModelError(f"The repository {repo} has no weights.", allowed="model.safetensors", do="choose another one")
