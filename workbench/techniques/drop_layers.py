"""Drop layers: whole transformer layers are removed; the model becomes smaller and faster on every runtime.

The idea and three of the choices are those of Sajjad et al. 2023; the even spread is how Shleifer & Rush 2020 pick a
student's layers; `layers` names the ones that stay. Left out: choosing layers by their measured contribution (that is
a sensitivity scan), and training afterwards, which wins most of the drop back.
"""

from __future__ import annotations

from typing import Any

from workbench.draft import Draft, ModelFacts
from workbench.errors import KnobError, Refused
from workbench.knobs import knob
from workbench.techniques.base import Technique

#: Attributes in which a configuration or a module says how many layers there are.
COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers")
#: Attributes in which a layer or its attention remembers its own place.
PLACES = ("layer_idx", "layer_id", "layer_index", "layer_number")


class DropLayers(Technique):
    """Remove whole transformer layers: latency, memory and size fall with each one, on every runtime.

    Source: H. Sajjad et al., "On the effect of dropping layers of pre-trained transformer models", Computer Speech &
    Language 77, 2023, arXiv:2004.03844; S. Shleifer, A. M. Rush, "Pre-trained summarization distillation",
    arXiv:2010.13002, 2020 (spread). Cost: a second; without training afterwards one or two layers of six cost some
    points, more cost many. Helps most when it is combined with INT8, whose gain it multiplies.
    """

    name = "drop_layers"
    group = "pruning"
    source = "Sajjad et al. 2023, arXiv:2004.03844"
    phase = 0

    count: int = knob(2, low=1, high=48, search=(1, 2, 3), unit="layers", help="how many layers to remove")
    which: str = knob(
        "spread",
        choices=("spread", "alternate", "top", "bottom"),
        help="evenly spread between first and last, every other one below the last, the last ones, or the first ones",
    )
    layers: str = knob(
        "", help="the layers that stay, counted from 0, such as '0 2 3 5'; '' = as `count` and `which` say"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers:
            try:
                chosen = {int(place) for place in self.layers.replace(",", " ").split()}
            except ValueError:
                chosen = set()
            if not chosen or min(chosen) < 0:
                raise KnobError(
                    f"drop_layers.layers = {self.layers!r} is not possible.", allowed="places such as '0 2 3 5'"
                )
            object.__setattr__(self, "layers", " ".join(map(str, sorted(chosen))))
            # They have no say then, and equal recipes must have equal ids.
            for name in ("count", "which"):
                object.__setattr__(self, name, self.knobs()[name].default)

    @property
    def note(self) -> str:
        """What to expect of it alone."""
        return "nothing is trained afterwards: expect a drop that grows with every layer"

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module, no list of layers, or not one layer would be left."""
        reason = super().fits(facts)
        if reason:
            return reason
        if not facts.blocks:
            return f"{self.name} found no list of transformer layers in this {facts.architecture}"
        if self.layers:
            return self._wrong_layers(facts.blocks)
        if self.count >= facts.blocks:
            return (
                f"{self.name} cannot remove {self.count} of {facts.blocks} layers; at most {facts.blocks - 1} of them"
            )
        return None

    def _wrong_layers(self, blocks: int) -> str | None:
        left = [int(place) for place in self.layers.split()]
        if left[-1] >= blocks:
            return f"{self.name} cannot keep layer {left[-1]}: there are {blocks}, counted from 0"
        return f"{self.name} would keep all of the {blocks} layers" if len(left) == blocks else None

    def _gone(self, blocks: int) -> tuple[int, ...]:
        if not self.layers:
            return dropped(blocks, self.count, self.which)
        left = {int(place) for place in self.layers.split()}
        return tuple(i for i in range(blocks) if i not in left)

    def apply(self, draft: Draft) -> Draft:
        """Remove the layers from the module and its configuration, and follow the kept layers to their new names.

        Raises `Refused` where `fits` would, where a kept layer lies in a dropped one, and where the configuration
        cannot describe what is left.
        """
        from workbench.anatomy import find_blocks

        reason = self.fits(draft.facts)
        if reason or draft.module is None:
            raise Refused(reason or f"{self.name} needs a PyTorch module")
        path, blocks = find_blocks(draft.module)
        gone = self._gone(blocks)
        lost = sorted(name for name in draft.kept if place(name, path) in gone)
        if lost:
            raise Refused(
                f"{self.name} would remove the kept layer {lost[0]!r}.",
                allowed=f"keep layers outside {', '.join(f'{path}.{i}' for i in gone)}",
                do="keep other layers, or choose another `count`, `which` or `layers`",
            )
        remove(draft.module, path, gone)
        if hasattr(draft.module, "save_pretrained"):
            check_config(draft.module)
        draft.kept = frozenset(renamed(name, path, gone) for name in draft.kept)
        draft.blocks = tuple(origin for i, origin in enumerate(draft.blocks) if i not in gone)
        draft.notes.append(f"removed layers {', '.join(map(str, gone))} of {blocks} in {path} (counted from 0)")
        return draft


def dropped(blocks: int, count: int, which: str) -> tuple[int, ...]:
    """Which `count` of `blocks` layers go, ascending, counted from 0; 1 ≤ count < blocks.

    "spread" leaves layers at even distances, the first and the last among them (of a single one, the first).
    "alternate" takes every other layer from the last but one down, then every other of those left, and so on; the last
    layer, which feeds the head, always stays.
    """
    every = range(blocks)
    if which == "top":
        return tuple(every[blocks - count :])
    if which == "bottom":
        return tuple(every[:count])
    if which == "spread":
        gaps = max(1, blocks - count - 1)
        left = {(2 * i * (blocks - 1) + gaps) // (2 * gaps) for i in range(blocks - count)}
        return tuple(i for i in every if i not in left)
    order, rest = [], list(every)
    while len(rest) > 1:
        pass_ = rest[-2::-2]
        order += pass_
        rest = [i for i in rest if i not in pass_]
    return tuple(sorted(order[:count]))


def place(name: str, path: str) -> int | None:
    """The index of the layer of `path` in which the module called `name` lies; None when outside."""
    if not name.startswith(f"{path}."):
        return None
    return int(name[len(path) + 1 :].split(".")[0])


def renamed(name: str, path: str, gone: tuple[int, ...]) -> str:
    """The name that a module has after the layers `gone` of `path` were removed."""
    old = place(name, path)
    if old is None:
        return name
    rest = name[len(f"{path}.{old}") :]
    return f"{path}.{old - sum(i < old for i in gone)}{rest}"


def remove(module: Any, path: str, gone: tuple[int, ...]) -> None:
    """Delete layers `gone` from the list at `path`, and set right every count and every place that speaks of them."""
    blocks = module.get_submodule(path)
    before = len(blocks)
    left = [i for i in range(before) if i not in gone]
    for new, old in enumerate(left):
        for part in blocks[old].modules():
            for attribute in PLACES:
                if vars(part).get(attribute) == old:
                    setattr(part, attribute, new)
    for i in reversed(gone):
        del blocks[i]
    parts = path.split(".")
    owners = [module.get_submodule(".".join(parts[:depth])) for depth in range(len(parts))]
    configs = {
        id(config): config for config in (getattr(owner, "config", None) for owner in owners) if config is not None
    }
    for holder in (*owners, *configs.values()):
        recount(holder, before, left)


def recount(holder: Any, before: int, left: list[int]) -> None:
    """Where `holder`, a module or a configuration, counts `before` layers or lists one thing a layer, keep `left`."""
    for name, value in list(vars(holder).items()):
        if name in COUNTS and value == before and not isinstance(value, bool):
            setattr(holder, name, len(left))
        elif "layer" in name and isinstance(value, list | tuple) and len(value) == before:
            setattr(holder, name, type(value)(value[i] for i in left))


def check_config(module: Any) -> None:
    """`Refused` unless a model built from `module.config` has the tensors of `module`, so that it loads again."""
    import torch

    with torch.device("meta"):
        described = type(module)(module.config).state_dict()
    actual = module.state_dict()
    wrong = {k for k in {*described, *actual} if k not in described or k not in actual}
    wrong |= {k for k in {*described} - wrong if described[k].shape != actual[k].shape}
    if wrong:
        raise Refused(
            f"Without these layers the configuration of {type(module).__name__} no longer describes the model "
            f"({len(wrong)} tensors differ, such as {min(wrong)!r}).",
            do="choose another `which`: some architectures build their first or last layers differently",
        )
