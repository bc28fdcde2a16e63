"""The error tree: as it is drawn, in three parts, and whole after a process boundary."""

from __future__ import annotations

import inspect
import multiprocessing
import re
from typing import Any

import pytest

from workbench import errors
from workbench.errors import KnobError, TrialError, UnknownName, UserError, WorkbenchError

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, WorkbenchError)]


def drawn() -> dict[str, str]:
    """Parent by class name, read from the picture in the docstring."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│ ├└─]*)([A-Z]\w+)\s", line)
        if match:
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            parents[match[2]] = path[depth - 1] if depth else ""
    return parents


def test_the_tree_is_as_it_is_drawn() -> None:
    real = {kind.__name__: kind.__base__.__name__ for kind in ALL if kind is not WorkbenchError}
    assert drawn() == {"WorkbenchError": "", **real}


@pytest.mark.parametrize("kind", ALL)
def test_each_says_what_it_is(kind: type) -> None:
    assert inspect.getdoc(kind)
    assert kind.__doc__ != WorkbenchError.__doc__ or kind is WorkbenchError


def test_a_message_has_three_parts() -> None:
    error = KnobError("samples = 0 is not possible.", allowed="a whole number ≥ 1", do="give more")
    assert (error.what, error.allowed, error.do) == ("samples = 0 is not possible.", "a whole number ≥ 1", "give more")
    assert str(error) == "samples = 0 is not possible.\nAllowed: a whole number ≥ 1\nWhat to do: give more"


def test_empty_parts_are_not_shown() -> None:
    assert str(UserError("No.")) == "No."
    assert str(UserError("No.", do="leave it")) == "No.\nWhat to do: leave it"


def test_a_failed_trial_is_no_mistake_of_the_user() -> None:
    assert not issubclass(TrialError, UserError)
    assert issubclass(UnknownName, UserError)


def _raise(kind: type[WorkbenchError]) -> None:
    raise kind("what", allowed="allowed", do="do")


@pytest.mark.parametrize("kind", ALL)
def test_survives_a_copy_between_processes(kind: type[Any]) -> None:
    rebuild, arguments = kind("what", allowed="allowed", do="do").__reduce__()
    again = rebuild(*arguments)
    assert type(again) is kind
    assert (again.what, again.allowed, again.do) == ("what", "allowed", "do")


def test_survives_a_real_process_boundary() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(KnobError, match="What to do: do"):
        pool.apply(_raise, (KnobError,))
