"""Build the PyTorch module in a folder from its configuration and its safetensors."""

import json

import torch
import transformers
from safetensors.torch import load_file
from torch.ao.nn.quantized import dynamic


def load(folder, model, threads):
    """A function from inputs (name -> int64 array) to logits."""
    if threads:
        torch.set_num_threads(threads)
    module = build(folder, json.loads((folder / "structure.json").read_text(encoding="utf-8")))
    tensors = load_file(str(folder / "model.safetensors"))
    module = module.to(getattr(torch, {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[model["base"]]))
    for name, shape in (model.get("packed") or {}).items():
        replace(module, name, PackedLinear(**shape))
    packed = {name: int8_linear(tensors, name) for name in model["int8"]}
    module.load_state_dict(tensors, strict=False)
    for name, layer in packed.items():
        replace(module, name, layer)
    module.eval()

    def call(batch):
        with torch.inference_mode():
            return module(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.float().numpy()

    return call


class ScaledLinear(torch.nn.Linear):
    """A linear layer whose input is multiplied by `input_scale` first."""

    def __init__(self, inside, outside, bias):
        super().__init__(inside, outside, bias)
        self.register_buffer("input_scale", torch.ones(inside))

    def forward(self, values):
        return super().forward(values * self.input_scale)


class Factored(torch.nn.Sequential):
    """A linear layer as the product of two."""

    def __init__(self, inside, rank, outside, bias):
        super().__init__()
        self.down = torch.nn.Linear(inside, rank, bias=False)
        self.up = torch.nn.Linear(rank, outside, bias=bias)


class PackedLinear(torch.nn.Module):
    """A linear layer that keeps its weight as codes and decodes it whenever it is called."""

    def __init__(self, inside, outside, bits, group, bias, scaled, centred, whole):
        super().__init__()
        self.inside, self.bits, self.group = inside, bits, group
        groups = -(-inside // group)
        self.register_buffer("codes", torch.zeros(outside, -(-inside * bits // 8), dtype=torch.uint8))
        self.register_buffer("scales", torch.ones(outside, groups))
        kind = torch.uint8 if whole else torch.float32
        self.register_buffer("zeros", None if centred else torch.zeros(outside, groups, dtype=kind))
        self.register_buffer("bias", torch.zeros(outside) if bias else None)
        self.register_buffer("input_scale", torch.ones(inside) if scaled else None)

    def forward(self, values):
        if self.input_scale is not None:
            values = values * self.input_scale.to(values.dtype)
        codes = self.codes
        if self.bits == 4:
            codes = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(1)[:, : self.inside]
        zeros = 2.0 ** (self.bits - 1) if self.zeros is None else self.spread(self.zeros)
        weight = (codes.float() - zeros) * self.spread(self.scales)
        bias = None if self.bias is None else self.bias.to(values.dtype)
        return torch.nn.functional.linear(values, weight.to(values.dtype), bias)

    def spread(self, values):
        """One value for each input from one for each group."""
        return values.float()[:, :, None].expand(-1, -1, self.group).flatten(1)[:, : self.inside]


def build(folder, structure):
    """The module without its weights, changed as the recipe changed it."""
    kind = getattr(transformers, structure["class"])
    config = kind.config_class.from_pretrained(folder)
    module = kind._from_config(config, attn_implementation=structure["attention"], dtype=torch.float32)
    for key, part in {"linear": torch.nn.Linear, "factored": Factored, "scaled": ScaledLinear}.items():
        for name, shape in structure[key].items():
            replace(module, name, part(*shape))
    for name, values in structure["attributes"].items():
        for attribute, value in values.items():
            setattr(module.get_submodule(name), attribute, value)
    if structure.get("tokens"):
        from shortening import shorten

        shorten(module, **structure["tokens"])
    return module


def replace(module, name, new):
    """Put `new` in the place of the submodule called `name`."""
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, new)


def int8_linear(tensors, name):
    """The quantized layer called `name`, taken out of the stored tensors."""
    weights, scales = tensors.pop(name + ".weight_int8"), tensors.pop(name + ".weight_scales")
    bias = tensors.pop(name + ".bias", None)
    zeros = torch.zeros(len(scales), dtype=torch.long)
    packed = torch._make_per_channel_quantized_tensor(weights, scales.double(), zeros, 0)
    layer = dynamic.Linear(weights.shape[1], weights.shape[0], bias_=bias is not None, dtype=torch.qint8)
    layer.set_weight_bias(packed, bias)
    scale = tensors.pop(name + ".input_scale", None)
    if scale is not None:
        layer.register_buffer("input_scale", scale)
        layer.register_forward_pre_hook(lambda part, args: (args[0] * part.input_scale,))
    return layer
