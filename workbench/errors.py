"""Every error that the workbench raises on purpose, drawn as one tree.

    WorkbenchError                 what was wrong, what is allowed, what to do next
    ├── UserError                  the request cannot be carried out as asked (exit code 2)
    │   ├── UnknownName            no such plug-in, metric, knob …; carries near misses
    │   ├── KnobError              a knob's value is of the wrong type or out of its range
    │   ├── RecipeError            techniques that exclude each other, stand twice or in a wrong order
    │   ├── Refused                a sound recipe that this model, runtime or machine cannot realise
    │   ├── ModelError             the model cannot be read or does not fit the task
    │   │   └── UnsafeModel        it could be read only by running code that came with it
    │   ├── DataError              the data cannot be read or do not fit the model
    │   ├── HubError               the hub said no, or could not be reached
    │   ├── StoreError             the study's store cannot be used as it is
    │   └── ResourceError          disk, memory or permission is missing
    └── TrialError                 one trial failed; the sweep goes on

`str(error)` is the whole message for a person; `what`, `allowed` and `do` are its three parts, so that a widget
can set them apart. The habit of drawing the tree is httpx's.
"""

from __future__ import annotations


class WorkbenchError(Exception):
    """Base of all; `what` was wrong, what is `allowed`, what to `do` next (the last two may be empty)."""

    def __init__(self, what: str, *, allowed: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what, self.allowed, self.do = what, allowed, do

    def __str__(self) -> str:
        parts = [self.what]
        if self.allowed:
            parts.append(f"Allowed: {self.allowed}")
        if self.do:
            parts.append(f"What to do: {self.do}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple:
        # Keyword-only arguments do not survive the default reduction of exceptions.
        return _rebuild, (type(self), self.what, self.allowed, self.do)


def _rebuild(kind: type[WorkbenchError], what: str, allowed: str, do: str) -> WorkbenchError:
    return kind(what, allowed=allowed, do=do)


class UserError(WorkbenchError):
    """The request cannot be carried out as asked; nothing was started or written."""


class UnknownName(UserError):
    """No such plug-in, metric or knob."""


class KnobError(UserError):
    """A knob's value is of the wrong type or outside its declared range."""


class RecipeError(UserError):
    """Techniques exclude each other, stand twice, or stand in an order that cannot work."""


class Refused(UserError):
    """A sound recipe that this model, runtime or machine cannot realise."""


class ModelError(UserError):
    """The model cannot be found or read, or does not fit the task."""


class UnsafeModel(ModelError):
    """The model could be read only by running code that came with it (pickle, remote code)."""


class DataError(UserError):
    """The data cannot be found or read, or do not fit the model."""


class HubError(UserError):
    """The hub said no (wrong id, gated) or could not be reached."""


class StoreError(UserError):
    """The study's store is locked, read-only, from a newer version, or corrupt."""


class ResourceError(UserError):
    """Disk, memory or permission is missing."""


class TrialError(WorkbenchError):
    """One trial failed; what it had measured is kept and the sweep goes on."""
