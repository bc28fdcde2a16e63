"""What goes wrong with the hub, said so that a person knows what to do.

The clients raise from four libraries (huggingface_hub, its HTTP client, datasets, the system); here all of it becomes
`HubError`, `DataError` or `ResourceError`. Left out: retrying; the clients do that.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from workbench.errors import DataError, HubError
from workbench.loading.content import disk_error
from workbench.loading.folder import first_line


@contextmanager
def explained(repo: str, kind: str, revision: str | None) -> Iterator[None]:
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
        if isinstance(error, OfflineModeIsEnabled) or is_offline():
            raise offline(repo) from error
        raise unreachable(repo, error) from error


def unreachable(repo: str, error: Exception | None) -> HubError:
    """The error for a hub that does not answer."""
    from huggingface_hub import constants

    reason = f": {first_line(error)}" if error else ""
    return HubError(
        f"The hub ({constants.ENDPOINT}) could not be reached, or broke off, while {repo} was fetched{reason}",
        allowed="a connection to the hub, or a model and data that are here already",
        do="check the network (or HF_ENDPOINT) and run it again: files that had arrived are not fetched again",
    )


def offline(repo: str) -> HubError:
    """The error for something that is not here while `HF_HUB_OFFLINE` is set."""
    return HubError(
        f"{repo} is not in the local cache, and HF_HUB_OFFLINE=1 forbids to ask the hub.",
        allowed="what was downloaded before, a local folder, or the embedded demo",
        do="unset HF_HUB_OFFLINE and start Python again, or give a local path",
    )


def is_offline() -> bool:
    """Whether asking the hub was forbidden when its client was imported."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def is_unknown(error: BaseException | None) -> bool:
    """Whether the hub knows no such repository (a gated one it knows)."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    return isinstance(error, RepositoryNotFoundError | HFValidationError) and not isinstance(error, GatedRepoError)


@contextmanager
def readable(repo: str, configuration: str | None) -> Iterator[None]:
    """Turn what `datasets` complains of into a `DataError`; what the hub says is left to `explained`."""
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


def status(error: BaseException | None) -> int:
    """The HTTP status behind an error, or 0."""
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
