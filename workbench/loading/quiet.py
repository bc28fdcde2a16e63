"""transformers without the noise: notes of libraries that a user can do nothing about.

Importing its models imports torchao, which tells of two shared libraries for other machines, and torch, which tells
torchao of a deprecation. Both are silenced for that import alone; what they say later is heard.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_NOISY = ("torchao", "torch.utils._pytree")


def import_models() -> None:
    """Import what of transformers holds the models; cheap the second time."""
    import torch  # noqa: F401 - it sets up its loggers when it is imported, and must not do so later

    levels = {name: logging.getLogger(name).level for name in _NOISY}
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import transformers.modeling_utils  # noqa: F401
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def no_bars() -> Iterator[None]:
    """No progress bar of transformers: reading and writing a local disk needs none."""
    from transformers.utils import logging as notes

    shown = notes.is_progress_bar_enabled()
    notes.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            notes.enable_progress_bar()


@contextmanager
def no_dataset_bars() -> Iterator[None]:
    """No progress bar of datasets; `prepare` tells its own progress."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hidden = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            enable_progress_bars()
