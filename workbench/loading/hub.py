"""Models and data sets from the Hugging Face hub, by its own clients (huggingface_hub, datasets).

Only safetensors, configuration and tokenizer files of a model are downloaded, and no script that comes with a data
set runs. What was downloaded is not downloaded again; a connection that breaks is taken up where it broke; without
the hub, what the cache holds is used. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` work as everywhere.
Left out: data sets that are too large for this machine's disk (streaming).
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.errors import DataError, HubError, ModelError, UnsafeModel
from workbench.loading.content import disk_error, settle
from workbench.loading.folder import PICKLES, conversion, first_line
from workbench.loading.hashing import hash_json
from workbench.paths import cache_dir

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
        _check_model_files(repo, [file.rfilename for file in info.siblings or []])
    patterns = [*WEIGHTS, "config.json", *TOKENIZERS, *(("*.py",) if code else ())]
    return _download(repo, revision, "model", patterns, info, progress)


def fetch_tokenizer(repo: str, revision: str | None = None, progress: Progress | None = None) -> Path:
    """The folder of a repository's tokenizer; raises `HubError`."""
    info = _info(repo, revision, "model")
    return _download(repo, revision, "model", [*TOKENIZERS, "config.json"], info, progress)


def fetch_dataset(name: str, revision: str | None = None, progress: Progress | None = None) -> Path:
    """A folder with one Parquet file per split of "owner/name", "owner/name/configuration" or "name/configuration".

    Raises `HubError` (unknown id, revision or configuration, gated, unreachable) and `DataError` for a data set
    that is a script.
    """
    pointer = cache_dir("hub") / f"{hash_json([name, revision])[:16]}.json"
    repo, configuration, info = _find_dataset(name, revision, has_copy=pointer.is_file())
    if info is None:
        folder = Path(json.loads(pointer.read_text(encoding="utf-8"))["folder"])
        if folder.is_dir():
            return folder
        raise _offline(name) if _is_offline() else _unreachable(name, None)
    slug = "-".join(part for part in (repo.replace("/", "--"), configuration, info.sha[:12]) if part)
    target = cache_dir("hub", "datasets") / slug
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=cache_dir("hub"), prefix=".new-") as temporary:
            _build_dataset(repo, configuration, info, Path(temporary), progress)
            settle(Path(temporary) / "parquet", target)
    pointer.write_text(json.dumps({"folder": str(target), "commit": info.sha}), encoding="utf-8")
    if progress:
        progress(1.0, f"{name} is here")
    return target


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
            if not _is_unknown(error.__cause__):
                raise
            failure = failure or error
            continue
        return (info.id if info is not None else repo), configuration, info
    raise failure or HubError(f"{name!r} is no data set's id.", allowed="owner/name or owner/name/configuration")


def _build_dataset(repo: str, configuration: str | None, info: Any, folder: Path, progress: Progress | None) -> None:
    """Download the files of one configuration, with progress, and write each split as Parquet into folder/parquet."""
    import datasets
    from huggingface_hub import HfApi

    commit, quiet = info.sha, datasets.utils.are_progress_bars_disabled()
    datasets.utils.disable_progress_bars()
    try:
        with _explained(repo, "dataset", commit), _readable(repo, configuration):
            # `datasets` would take a gated data set for one that does not exist.
            HfApi().auth_check(repo, repo_type="dataset")
            # A commit, not a branch: with a branch `datasets` asks a second server for exported Parquet files.
            builder = datasets.load_dataset_builder(
                repo, configuration, revision=commit, cache_dir=str(folder / "arrow")
            )
            prefix = f"hf://datasets/{repo}@{commit}/"
            files = [
                file.removeprefix(prefix)
                for split in (builder.config.data_files or {}).values()
                for file in split
                if file.startswith(prefix)
            ]
            _download(repo, commit, "dataset", [glob.escape(file) for file in files], info, progress)
            builder.download_and_prepare()
            (folder / "parquet").mkdir()
            for split, part in builder.as_dataset().items():
                part.to_parquet(str(folder / "parquet" / f"{split}.parquet"))
    finally:
        if not quiet:
            datasets.utils.enable_progress_bars()


@contextmanager
def _readable(repo: str, configuration: str | None) -> Iterator[None]:
    """Turn what `datasets` complains of into a `DataError`; what the hub says is left to `_explained`."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError:
        raise
    except (DatasetsError, RuntimeError, ValueError) as error:
        raise _wrong_dataset(repo, configuration, error) from error


def _wrong_dataset(repo: str, configuration: str | None, error: Exception) -> DataError:
    text = str(error)
    if "scripts are no longer supported" in text:
        return DataError(
            f"The data set {repo} is a Python script, which would have to run here.",
            allowed="data sets of Parquet, CSV or JSON files",
            do="choose a copy of it in Parquet, or download its files and give their folder",
        )
    if "onfig" in text:
        named = f"no configuration {configuration!r}" if configuration else "several configurations, and none was named"
        return DataError(
            f"The data set {repo} has {named}.", allowed=text, do=f"name one of them: {repo}/<configuration>"
        )
    return DataError(f"The data set {repo} cannot be read: {first_line(error)}")


def _info(repo: str, revision: str | None, kind: str, *, strict: bool = False) -> Any:
    """What the hub says of a repository; None where it cannot be reached and a local copy may do (not `strict`)."""
    from huggingface_hub import HfApi

    if _is_offline():
        if strict:
            raise _offline(repo)
        return None
    try:
        with _explained(repo, kind, revision):
            return HfApi().repo_info(repo, repo_type=kind, revision=revision, files_metadata=True)
    except HubError as error:
        if strict or _status(error.__cause__) in range(400, 500):
            raise
        if isinstance(error.__cause__, ValueError):
            raise
        return None


def _download(
    repo: str, revision: str | None, kind: str, patterns: list[str], info: Any, progress: Progress | None
) -> Path:
    from huggingface_hub import snapshot_download

    with _explained(repo, kind, revision):
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


def _check_model_files(repo: str, names: list[str]) -> None:
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


@contextmanager
def _explained(repo: str, kind: str, revision: str | None) -> Iterator[None]:
    """Turn whatever the clients raise into a `HubError` that tells what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = "data set" if kind == "dataset" else kind
    try:
        yield
    except GatedRepoError as error:
        raise HubError(
            f"The {what} {repo} is gated: its owner wants you to agree to terms first.",
            do=f"agree on https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}, then log in here "
            "with: hf auth login",
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(
            f"The {what} {repo} has no revision {revision!r}.", allowed="a branch, a tag or a commit of it"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"The hub has no {what} {repo!r}, or it is private; nor is it a file or folder here.",
            allowed=f"the id of a public {what}, such as owner/name, or a local path",
            do="check the spelling; for a private one, log in with: hf auth login",
        ) from error
    except HFValidationError as error:
        raise HubError(f"{repo!r} is no id of the hub.", allowed="owner/name", do="check the spelling") from error
    except (OSError, HTTPError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise disk_error(error, f"the {what} {repo}") from error  # type: ignore[arg-type]
        if isinstance(error, OfflineModeIsEnabled) or _is_offline():
            raise _offline(repo) from error
        raise _unreachable(repo, error) from error


def _unreachable(repo: str, error: Exception | None) -> HubError:
    from huggingface_hub import constants

    reason = f": {first_line(error)}" if error else ""
    return HubError(
        f"The hub ({constants.ENDPOINT}) could not be reached, or broke off, while {repo} was fetched{reason}",
        allowed="a connection to the hub, or a model and data that are here already",
        do="check the network (or HF_ENDPOINT) and run it again: files that had arrived are not fetched again",
    )


def _offline(repo: str) -> HubError:
    return HubError(
        f"{repo} is not in the local cache, and HF_HUB_OFFLINE=1 forbids to ask the hub.",
        allowed="what was downloaded before, a local folder, or the embedded demo",
        do="unset HF_HUB_OFFLINE and start Python again, or give a local path",
    )


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _is_unknown(error: BaseException | None) -> bool:
    """Whether the hub knows no such repository (a gated one it knows)."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    return isinstance(error, RepositoryNotFoundError | HFValidationError) and not isinstance(error, GatedRepoError)


def _status(error: BaseException | None) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
