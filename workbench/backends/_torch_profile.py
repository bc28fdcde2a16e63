"""Where the time of a PyTorch module goes, by PyTorch's own profiler with every layer marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from workbench.backends.base import NodeTime

_MARK = "layer: "


def profile(module: Any, layers: Sequence[str], call: Callable[[], Any], calls: int) -> list[NodeTime]:
    """`call` runs `module`; times of its `layers`, then the own time of every operator outside of them, by type."""
    from torch.profiler import ProfilerActivity, profile, record_function

    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    open_marks: list[Any] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(part: Any, args: tuple) -> None:
            open_marks.append(record_function(_MARK + name))
            open_marks[-1].__enter__()

        return hook

    def leave(part: Any, args: tuple, output: Any) -> None:
        open_marks.pop().__exit__(None, None, None)

    with ExitStack() as stack:
        for name in layers:
            part = module.get_submodule(name)
            stack.callback(part.register_forward_pre_hook(enter(name)).remove)
            stack.callback(part.register_forward_hook(leave).remove)
        for number in range(calls):
            with profile(activities=[ProfilerActivity.CPU]) as seen:
                call()
            for key, ms in _one_call(seen.events(), module).items():
                # What was not met in an earlier call took no time there.
                found[key] += [0.0] * (number - len(found[key])) + [ms]
    return [NodeTime(layer, kind, (*ms, *[0.0] * (calls - len(ms)))) for (layer, kind), ms in found.items()]


def _one_call(events: Any, module: Any) -> dict[tuple[str, str], float]:
    """Milliseconds by layer and operator type."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for event in events:
        if event.name.startswith(_MARK):
            name = event.name.removeprefix(_MARK)
            found[name, type(module.get_submodule(name)).__name__] += event.cpu_time_total / 1e3
        elif not _inside(event):
            found["", event.name.removeprefix("aten::")] += event.self_cpu_time_total / 1e3
    return dict(found)


def _inside(event: Any) -> bool:
    parent = event.cpu_parent
    while parent is not None:
        if parent.name.startswith(_MARK):
            return True
        parent = parent.cpu_parent
    return False
