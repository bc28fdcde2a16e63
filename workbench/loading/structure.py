"""A PyTorch module as a folder of JSON and safetensors: what builds it again without the original, without pickle.

A Hugging Face module is built from its `config.json`, any other one by the factory that the user named. What a
technique changed afterwards is kept as a difference: linear layers of another shape, split in two factors or with a
scaled input, layers that drop tokens, and plain attributes (such as a smaller number of heads). Left out: modules whose
class or wiring changed in any other way; `torch.export.save` could hold them, but its archives carry pickled tensors
that are loaded without restriction (torch 2.13), so they are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import Refused
from workbench.loading.factory import load_factory

if TYPE_CHECKING:
    import torch

STRUCTURE, WEIGHTS = "structure.json", "model.safetensors"


def save_structure(module: torch.nn.Module, factory: str | None, folder: Path) -> None:
    """Write what `build` needs into `folder`. Raises `Refused` for a module that nothing here can describe."""
    folder.mkdir(parents=True, exist_ok=True)
    structure: dict[str, Any] = {"factory": None, "class": None, "attention": None}
    if _hugging_face(module):
        structure["class"] = type(module).__name__
        structure["attention"] = module.config._attn_implementation
        module.config.save_pretrained(folder)
    elif factory:
        structure["factory"] = factory
    else:
        raise Refused(
            f"A {type(module).__name__} can be saved without pickle only when something builds it again.",
            allowed="a Hugging Face model, or a module whose task names a factory 'package.module:function'",
            do="name the function that builds the module, or use another runtime, which exports its graph",
        )
    structure |= _difference(module, _skeleton(structure, folder, "meta"))
    (folder / STRUCTURE).write_text(json.dumps(structure, indent=1), encoding="utf-8")


def build(folder: Path) -> torch.nn.Module:
    """The module that `save_structure` described, in eval mode, on the CPU, its parameters not yet set."""
    import torch

    from workbench.modules import Factored, ScaledLinear
    from workbench.shortening import shorten

    structure = json.loads((folder / STRUCTURE).read_text(encoding="utf-8"))
    module = _skeleton(structure, folder, "cpu")
    # A factor of a layer may be scaled, so factors come first.
    kinds = {"linear": torch.nn.Linear, "factored": Factored, "scaled": ScaledLinear}
    for key, kind in kinds.items():
        for name, shape in structure.get(key, {}).items():
            replace(module, name, kind(*shape))
    for name, values in structure["attributes"].items():
        for attribute, value in values.items():
            setattr(module.get_submodule(name), attribute, value)
    if tokens := structure.get("tokens"):
        shorten(module, **tokens)
    return module.eval()


def save_module(module: torch.nn.Module, factory: str | None, folder: Path) -> None:
    """Write structure and weights, as they are, into `folder`; raises what `save_structure` raises."""
    from safetensors.torch import save_file

    save_structure(module, factory, folder)
    save_file(distinct(module), str(folder / WEIGHTS))


def load_module(folder: Path) -> torch.nn.Module:
    """The module that `save_module` wrote, in eval mode; raises `Refused` where a tensor has no place or no value."""
    from safetensors.torch import load_file

    module = build(folder)
    fill(module, load_file(str(folder / WEIGHTS)))
    return module


def distinct(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's tensors by name, each once: tied ones lie in one place, and the rebuilt module ties them again."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            seen.add(tensor.data_ptr())
            found[name] = tensor.detach().contiguous().clone()
    return found


def fill(module: torch.nn.Module, tensors: dict[str, torch.Tensor], ready: tuple[str, ...] = ()) -> None:
    """Set the module's tensors; those of the submodules named in `ready` are there already.

    Raises `Refused` where a tensor has no place or no value.
    """
    absent, surplus = module.load_state_dict(tensors, strict=False)
    inside = tuple(f"{name}." for name in ready)
    state = module.state_dict()
    filled = {state[name].data_ptr() for name in tensors if name in state}
    lost = [n for n in absent if not (inside and n.startswith(inside)) and state[n].data_ptr() not in filled]
    if lost or surplus:
        raise Refused(
            f"The module cannot be built again from its configuration: {len(lost)} tensors have no value and "
            f"{len(surplus)} no place, such as {[*lost, *surplus][0]!r}.",
            do="name a factory that builds the module as it is now, or use another runtime, which exports its graph",
        )


def replace(module: torch.nn.Module, name: str, new: torch.nn.Module) -> None:
    """Put `new` in the place of the submodule called `name`."""
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, new)


def _hugging_face(module: Any) -> bool:
    import transformers

    return isinstance(module, transformers.PreTrainedModel) and hasattr(transformers, type(module).__name__)


def _skeleton(structure: dict[str, Any], folder: Path, device: str) -> torch.nn.Module:
    import torch

    if structure["factory"]:
        module: torch.nn.Module = load_factory(structure["factory"])()
        return module.float().eval()
    import transformers
    from transformers.initialization import no_init_weights

    kind = getattr(transformers, structure["class"])
    config = kind.config_class.from_pretrained(folder)
    with no_init_weights(), torch.device(device):
        module = kind._from_config(config, attn_implementation=structure["attention"], dtype=torch.float32)
    # What initialises the weights also ties them, and it was left out.
    module.tie_weights()
    return module


def _difference(module: torch.nn.Module, fresh: torch.nn.Module) -> dict[str, Any]:
    """What must be changed in `fresh` to give it the structure of `module`."""
    import torch

    from workbench.modules import Factored, ScaledLinear
    from workbench.shortening import flow_of

    theirs = dict(fresh.named_modules())
    found: dict[str, dict[str, Any]] = {"linear": {}, "scaled": {}, "factored": {}, "attributes": {}, "tokens": {}}
    if flow := flow_of(module):
        found["tokens"] = {"queries": flow.queries, "rows": flow.rows}
    for name, child in module.named_modules():
        other = theirs.get(name)
        if isinstance(child, Factored):
            found["factored"][name] = child.shape
        elif isinstance(child, ScaledLinear):
            found["scaled"][name] = _shape(child)
        elif any(name.startswith(f"{whole}.") for whole in found["factored"]):
            continue
        elif isinstance(child, torch.nn.Linear) and _shape(child) != _shape(other):
            found["linear"][name] = _shape(child)
        elif other is not None and (changed := _changed(child, other)):
            found["attributes"][name] = changed
    return found


def _shape(child: Any) -> tuple[int, int, bool] | None:
    weight = getattr(child, "weight", None)
    return None if weight is None else (int(weight.shape[1]), int(weight.shape[0]), child.bias is not None)


def _changed(child: Any, other: Any) -> dict[str, Any]:
    """Plain public attributes of `child` that `other` holds differently; the training flag is no structure."""
    return {
        name: value
        for name, value in vars(child).items()
        if not name.startswith("_")
        and name != "training"
        and isinstance(value, bool | int | float | str)
        and vars(other).get(name) != value
    }
