"""Another student: the model of another folder takes the place of the task's model and learns to answer like it.

Any Hugging Face model that reads the same tokens will do, fine-tuned or not; one without a head for these classes gets
a fresh one. Left out: students with another tokenizer, and architectures searched for. A student that begins as a part
of the teacher is `drop_layers` (with `layers`, whichever ones) and `prune_structured`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.draft import Draft, ModelFacts
from workbench.errors import ModelError, Refused
from workbench.knobs import knob
from workbench.techniques.base import Technique


class Student(Technique):
    """Put another, smaller model in the place of the task's model, to be trained by it (distil, right behind it).

    Source: I. Turc et al., "Well-read students learn better: on the importance of pre-training compact models",
    arXiv:1908.08962, 2019. Cost: nothing by itself; it knows nothing of the task until it is trained, and needs more
    training than a student that begins as a part of its teacher. Helps where a small pre-trained model of the same
    vocabulary is at hand.
    """

    name = "student"
    group = "distillation"
    source = "Turc et al. 2019, arXiv:1908.08962"
    phase = 0

    folder: str = knob("", help="folder of the student, as save_pretrained writes it; it must be named")
    seed: int = knob(0, low=0, high=2**31, help="decides the weights of a fresh head")

    @property
    def note(self) -> str:
        """What it wants."""
        return "it answers as it was trained elsewhere, or at random: put distil behind it"

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module to replace, a task that is no classification, or no folder."""
        reason = super().fits(facts)
        if reason:
            return reason
        if not facts.architecture.endswith("ForSequenceClassification"):
            return f"{self.name} loads sequence classifiers, and this task's model is a {facts.architecture}"
        if not (Path(self.folder) / "config.json").is_file():
            return f"{self.name} needs the folder of a model, and {self.folder!r} holds none; name one with folder="
        return None

    def apply(self, draft: Draft) -> Draft:
        """Replace the draft's module. Layers in `kept` are taken over from the model before.

        Raises `Refused` where `fits` would, for a student that takes other inputs, or that has no place for a kept
        layer; `ModelError` for another vocabulary, and for weights that cannot be read.
        """
        from workbench.loading.folder import module_facts

        reason = self.fits(draft.facts)
        if reason or draft.module is None:
            raise Refused(reason or f"{self.name} needs a PyTorch module")
        old, new = draft.module, load(Path(self.folder), len(draft.labels) or draft.module.config.num_labels, self.seed)
        fit(old, new, draft, self.folder)
        take_over(old, new, sorted(draft.kept))
        found = module_facts(new, type(new).__name__)
        draft.facts = replace(draft.facts, **{key: getattr(found, key) for key in _OF_THE_MODULE})
        # Its layers come from none of the teacher's.
        draft.module, draft.blocks, draft.factory = new, (), None
        kept = f"; {len(draft.kept)} kept layers were taken over" if draft.kept else ""
        draft.notes.append(
            f"the student is a {found.architecture} of {found.parameters:,} parameters from {self.folder}{kept}"
        )
        return draft


_OF_THE_MODULE = ("architecture", "layers", "blocks", "block_path", "parameters")


def load(folder: Path, classes: int, seed: int) -> Any:
    """The classifier in `folder` in FP32 and eval mode, with a fresh head where it has none for so many `classes`.

    Raises `ModelError` where anything but the head has no weights, and `UnsafeModel` where it is made of code or
    pickle.
    """
    import torch

    from workbench.loading.folder import HFFolder, check_folder
    from workbench.loading.quiet import import_models, no_bars

    import_models()
    import transformers

    check_folder(folder)
    config = HFFolder(folder).config
    config.num_labels = classes
    try:
        with no_bars(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                str(folder),
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder} could not be read: {str(error).splitlines()[0]}", do="look at its files") from error
    inside = f"{module.base_model_prefix}."
    fresh = [*info["missing_keys"], *(row[0] for row in info["mismatched_keys"])]
    # Models that were saved without a head have no pooler either.
    lost = sorted(name for name in fresh if name.startswith(inside) and ".pooler." not in name)
    if lost:
        raise ModelError(f"{folder} has no weights for {len(lost)} tensors of its encoder, such as {lost[0]!r}.")
    return module.eval()


def fit(old: Any, new: Any, draft: Draft, folder: str) -> None:
    """Raise where the student cannot read what the model before it reads."""
    import inspect

    theirs, ours = getattr(new.config, "vocab_size", None), getattr(old.config, "vocab_size", None)
    if theirs != ours:
        raise ModelError(
            f"Teacher and student differ in their vocabulary: {ours} and {theirs}.",
            allowed="a student with the same tokenizer",
            do="name another folder",
        )
    lost = [name for name in draft.inputs if name not in inspect.signature(new.forward).parameters]
    if lost:
        raise Refused(
            f"The student in {folder} does not take {', '.join(lost)}, which this task gives.",
            allowed="a student with the same inputs",
        )
    longest = getattr(new.config, "max_position_embeddings", draft.sequence)
    if longest < draft.sequence:
        raise Refused(
            f"The student in {folder} takes at most {longest} tokens.", do=f"use sequence={longest} on the runtime"
        )


def take_over(old: Any, new: Any, names: list[str]) -> None:
    """Give the layers `names` of `new` the weights that `old` has; `Refused` where they do not match."""
    import torch

    theirs = dict(new.named_modules())
    for name in names:
        layer, other = old.get_submodule(name), theirs.get(name)
        if other is None or getattr(other, "weight", None) is None or other.weight.shape != layer.weight.shape:
            raise Refused(
                f"The student has no layer like the kept {name!r}.",
                allowed="kept layers that stand in both models under one name and in one shape",
                do="take it out of `keep`",
            )
    with torch.no_grad():
        for name in names:
            theirs[name].load_state_dict(old.get_submodule(name).state_dict())
