"""What a runner adds to the bare session, at batch 1 and 128 tokens on DistilBERT's shapes (66 M, random weights).

    python tests/benchmarks/bench_runner_overhead.py [--precision fp32] [--seconds 20] [backend ...]

Runner and bare session are timed in turn on equal inputs (`workbench.measure.timing.paired`). Exit code 1 where the
median overhead of a backend is above 3 %. Left out: other batch sizes, where a call costs more and so adds less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workbench.backends.base import Runner
from workbench.draft import Draft, Example, ModelFacts, Precision
from workbench.measure.layers import quantizable
from workbench.measure.timing import Schedule, paired
from workbench.registry import find, members

INPUTS = ("input_ids", "attention_mask")
LIMIT = 0.03


class RandomText:
    """Calibration data: random tokens."""

    def calibration(self, samples: int) -> list[Example]:
        rng = np.random.default_rng(0)
        return [dict.fromkeys(INPUTS, [1] * 32) | {"input_ids": rng.integers(1, 999, 32).tolist()}] * min(samples, 4)


def draft(precision: str) -> Draft:
    """DistilBERT from its default configuration, every linear layer planned in `precision`."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    module = DistilBertForSequenceClassification(DistilBertConfig()).eval()
    layers = tuple(quantizable(module))
    made = Draft(
        facts=ModelFacts("DistilBert", layers=layers),
        data=RandomText(),
        inputs=INPUTS,
        pad=dict.fromkeys(INPUTS, 0),
        labels=("a", "b"),
        module=module,
    )
    if precision.startswith("int8"):
        made.plan.layers.update(dict.fromkeys(layers, Precision(precision, samples=4)))
    else:
        made.plan.base = precision
    return made


def bare(runner: Any, batch: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The runtime's own call, its inputs made ready beforehand, its outputs left as they come."""
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    match type(runner).__name__:
        case "EagerRunner":

            def eager() -> Any:
                with torch.inference_mode():
                    return runner._module(**tensors)

            return eager
        case "CompiledRunner":
            return lambda: runner._run([tensors[name] for name in INPUTS])
        case "OnnxRunner":
            return lambda: runner._run(None, batch)
        case "OpenVinoRunner":
            arrays = [batch[name] for name in INPUTS]
            return lambda: runner._request.infer(arrays, share_inputs=True)
    raise SystemExit(f"No bare session is known for {type(runner).__name__}.")


def main() -> None:
    """Measure each backend and print one line for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backends", nargs="*", default=list(members("backends")))
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    made, over = draft(arguments.precision), False
    tokens = np.random.default_rng(1).integers(1, 999, (1, 128))
    batch = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    print(f"{'backend':12s} {'bare ms':>8s} {'runner ms':>9s} {'overhead':>9s}  95 % interval")
    for name in arguments.backends:
        backend = find("backends", name).make(threads=2, sequence=128)  # type: ignore[attr-defined]
        if arguments.precision not in backend.realises:
            continue
        with tempfile.TemporaryDirectory() as folder:
            backend.lower(made, Path(folder))
            runner: Runner = backend.load(Path(folder))
            timing = paired(
                lambda runner=runner: runner(batch), bare(runner, batch), schedule=Schedule(seconds=arguments.seconds)
            )
        low, middle, high = (1 / value - 1 for value in (timing.speedup.high, timing.speedup.value, timing.speedup.low))
        over |= middle > LIMIT
        bare_ms, runner_ms = timing.baseline_latency_ms["p50"], timing.latency_ms["p50"]
        print(f"{name:12s} {bare_ms:8.2f} {runner_ms:9.2f} {middle:9.2%}  {low:.2%} … {high:.2%}", flush=True)
        runner.close()
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
