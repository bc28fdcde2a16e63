"""Speed of the main stacks at DistilBERT's size (66 M parameters, random weights) on all runtimes.

    python tests/benchmarks/distilbert_shapes.py [--out runs/distilbert]

Speed does not depend on what a model has learned, so the classic case is measured without its weights; accuracy means
nothing here and is not shown. Sequence 128, batch 1, 2 threads. Wants a quiet machine and WORKBENCH_ASSETS (for a
tokenizer and texts).
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.parsing import recipe_from_code
from workbench.study import Study
from workbench.tasks.base import make_task

HERE = Path(__file__).resolve().parent
ASSETS = Path(os.environ.get("WORKBENCH_ASSETS", HERE.parents[2] / "shared" / "assets"))
WORKLOAD = "threads=2, batch=1, sequence=128"
BACKENDS = [
    f"Eager({WORKLOAD})",
    f"Compiled({WORKLOAD})",
    f"OnnxRuntime({WORKLOAD})",
    f"OpenVINO({WORKLOAD})",
    f"OpenVINO({WORKLOAD}, shapes='fixed')",
]
#: Half of the feed-forward width leaves 2/3 of a layer's MACs; by magnitude, because nothing here has been learned.
HALF = "PruneStructured(budget=0.68, parts='neurons', select='magnitude', repair='none', samples=32)"
STACKS = {
    "FP32": "",
    "BF16": "Bf16(), ",
    "static INT8": "StaticInt8(samples=50), ",
    "static INT8, half width": f"{HALF}, StaticInt8(samples=50), ",
    "static INT8, 4 layers": "DropLayers(count=2), StaticInt8(samples=50), ",
}
#: The shape of the headline's stack (see headline.py), on its own runtime.
LAST = f"DropLayers(count=2), {HALF.replace('0.68', '0.45').replace('neurons', 'both')}, StaticInt8(samples=50), "


def random_distilbert(folder: Path) -> Path:
    """DistilBERT from its configuration with seeded random weights, and the tokenizer of the asset beside it."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    DistilBertForSequenceClassification(DistilBertConfig()).save_pretrained(folder)
    for path in (ASSETS / "models" / "minilm-l6-sst2").glob("*token*"):
        shutil.copy(path, folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/distilbert"))
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    model = random_distilbert(options.out.with_name(f"{options.out.name}-model"))
    # The labels are the asset's; a few examples are enough to see that the model answers.
    study = Study(options.out, make_task(model, ASSETS / "data" / "sst2", limit=64))
    lines = [
        *itertools.product(STACKS.items(), BACKENDS),
        *((("the headline's shape", LAST), b) for b in BACKENDS[-2:]),
    ]
    for (name, steps), backend in lines:
        try:
            trial = study.run(recipe_from_code(f"Recipe({steps}backend={backend})"))
        except WorkbenchError as error:
            print(f"{name:36} {backend.split('(')[0]:12} {error.what}", flush=True)
            continue
        measured = trial.measurement
        title = trial.recipe.title.rpartition(" · ")[2]
        print(f"{name:36} {title:24} {measured.speedup}   {measured.size_mb:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
