"""Scans of single layers: a planted layer is found, probes agree with plain formulas, rows survive, nothing crashes."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import as_draft, tiny_draft, tiny_module

from workbench.errors import DataError, Refused, UnknownName, UserError
from workbench.int8 import fake, weight_codes, weight_scales
from workbench.registry import members
from workbench.sensitivity.forms import compressed, swapped
from workbench.sensitivity.scan import Order, Stopped, draft_rows, frame, order
from workbench.sensitivity.stage import Stage
from workbench.techniques.static_int8 import StaticInt8

ALL = list(members("probes").values())
every = pytest.mark.parametrize("probe", ALL, ids=[p.name for p in ALL])
INT8 = StaticInt8(calibration="minmax", samples=24)
PLANTED = "model.layers.1.mlp.Wi"
WEIGHTS_ONLY = ("weight_error", "hessian_trace")


def examples(count: int = 24) -> list[dict[str, list[int]]]:
    rows = [[3 + (11 * i + 5 * j) % 35 for j in range(4 + i % 5)] for i in range(count)]
    return [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]


def decided(module: Any) -> Any:
    """The module with as many answers of one class as of the other: its logits are centred on their median."""
    with torch.no_grad():
        gaps = [run(module, one) for one in examples()]
        module.classifier.bias += torch.tensor([0.0, -float(np.median([g[1] - g[0] for g in gaps]))])
    return module


def run(module: Any, example: dict[str, list[int]]) -> np.ndarray:
    with torch.no_grad():
        return module(**{name: torch.tensor([row]) for name, row in example.items()}).logits[0].numpy()


def planted(factor: float = 1024.0) -> Any:
    """A model that answers as before, in which one number of one layer's input is blown up: the range of that input is
    then its range, and all the others fall on a few steps."""
    module = decided(tiny_module("modernbert", num_hidden_layers=3, initializer_range=0.2))
    before = [run(module, one) for one in examples(4)]
    block = module.model.layers[1]
    with torch.no_grad():
        # The norm is read by this layer alone.
        block.mlp_norm.weight[5] *= factor
        block.mlp.Wi.weight[:, 5] /= factor
    for one, was in zip(examples(4), before, strict=True):
        assert np.allclose(run(module, one), was, atol=1e-3)
    return module


def labels_of(module: Any) -> np.ndarray:
    return np.array([run(module, one).argmax() for one in examples()])


def table(draft: Any, given: Order, **options: Any) -> Any:
    labels = labels_of(draft.module)
    return frame(draft_rows(draft, examples(), labels, given, **options), given)


@pytest.fixture(scope="module")
def outlier() -> Any:
    return planted()


# -- the planted case --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", [p.name for p in ALL if p.name not in WEIGHTS_ONLY])
def test_a_layer_with_blown_up_activations_comes_first(probe: str, outlier: Any) -> None:
    found = table(as_draft(copy.deepcopy(outlier), examples=24), order(INT8, probe)).set_index("layer")
    assert found["rank"].idxmin() == PLANTED
    assert found.loc[PLANTED, "score"] > found["score"].drop(PLANTED).max()


@pytest.mark.parametrize("probe", ["kl", "nmse", "flips", "accuracy_drop"])
def test_leaving_that_layer_alone_regains_most(probe: str, outlier: Any) -> None:
    found = table(as_draft(copy.deepcopy(outlier), examples=24), order(INT8, probe, "all_but")).set_index("layer")
    assert found["rank"].idxmin() == PLANTED
    assert found.loc[PLANTED, "remains"] < found["remains"].drop(PLANTED).min()


def test_it_is_the_activations_that_hurt(outlier: Any) -> None:
    scores = {
        what: table(as_draft(copy.deepcopy(outlier), examples=24), order(INT8, what=what)).set_index("layer").score
        for what in ("both", "weights", "activations")
    }
    assert scores["activations"][PLANTED] > 10 * scores["weights"][PLANTED]
    assert scores["activations"][PLANTED] == pytest.approx(scores["both"][PLANTED], rel=0.2)


# -- the contract ------------------------------------------------------------------------------------------------------


@every
def test_a_probe_describes_itself(probe: Any) -> None:
    assert probe.sees in ("logits", "layers", "weights", "gradients")
    assert probe.source
    summary, _, rest = (probe.__doc__ or "").partition("\n")
    assert summary.endswith(".")
    assert len(summary) <= 110
    for word in ("Definition:", "Source:", "Cost:", "Helps"):
        assert word in rest


@every
@pytest.mark.parametrize("direction", ["only", "all_but"])
def test_a_probe_scores_every_layer_alike_twice(probe: Any, direction: str) -> None:
    given = order(INT8, probe(), direction)
    one, other = (table(tiny_draft(num_hidden_layers=2, examples=24), given) for _ in range(2))
    assert one.drop(columns="seconds").equals(other.drop(columns="seconds"))
    draft = tiny_draft(num_hidden_layers=2)
    assert list(one.layer) == list(draft.facts.layers)
    assert sorted(one["rank"]) == list(range(1, len(one) + 1))
    assert one.score.notna().all()
    assert (one.macs > 0).all()
    exact = (one.score_low == one.score) & (one.score_high == one.score)
    inside = (one.score_low <= one.score + 1e-12) & (one.score <= one.score_high + 1e-12)
    assert (exact | inside).mean() > 0.9
    assert Order.from_json(json.loads(json.dumps(given.to_json()))) == given


@every
def test_a_probe_needs_labels_only_where_it_says_so(probe: Any) -> None:
    draft = tiny_draft(num_hidden_layers=2, examples=24)
    found = frame(draft_rows(draft, examples(), None, order(INT8, probe())), order(INT8, probe()))
    if not probe.needs_labels:
        assert found.score.notna().all()


@every
def test_the_model_is_left_as_it_was(probe: Any) -> None:
    draft = tiny_draft(num_hidden_layers=2, examples=24)
    before = {name: tensor.clone() for name, tensor in draft.module.state_dict().items()}
    answer, flags = run(draft.module, examples(1)[0]), [p.requires_grad for p in draft.module.parameters()]
    table(draft, order(INT8, probe(), "all_but"))
    after = draft.module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert np.array_equal(answer, run(draft.module, examples(1)[0]))
    assert flags == [p.requires_grad for p in draft.module.parameters()]
    assert not any("forward" in vars(part) for part in draft.module.modules())


# -- against plain formulas --------------------------------------------------------------------------------------------


def by_hand(draft: Any, layers: set[str]) -> list[np.ndarray]:
    """Logits, example by example, with NumPy's INT8 in the place of `layers`."""
    found = compressed(tiny_draft(num_hidden_layers=2, examples=24), INT8)
    module, handles = copy.deepcopy(draft.module), []
    for name in layers:
        part, limits = module.get_submodule(name), found.draft.plan.layers[name].input_range
        weight = part.weight.detach().numpy()
        scales = weight_scales(weight, True)
        with torch.no_grad():
            part.weight.copy_(torch.from_numpy(weight_codes(weight, scales) * scales[:, None]))

        def squeeze(part: Any, args: tuple, limits: Any = limits) -> tuple:
            return (torch.from_numpy(fake(args[0].numpy(), limits).astype(np.float32)),)

        handles.append(part.register_forward_pre_hook(squeeze))
    return [run(module, one) for one in examples()]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z.astype(np.float64) - z.max())
    return e / e.sum()


@pytest.mark.parametrize("direction", ["only", "all_but"])
def test_output_probes_agree_with_their_definitions(direction: str) -> None:
    draft = tiny_draft(num_hidden_layers=2, examples=24)
    names = set(draft.facts.layers)
    plain, everything = by_hand(draft, set()), by_hand(draft, names)

    def kl(changed: list[np.ndarray]) -> float:
        return float(np.mean([(softmax(p) * np.log(softmax(p) / softmax(q))).sum() for p, q in zip(plain, changed)]))  # noqa: B905

    def nmse(changed: list[np.ndarray]) -> float:
        return float(sum(((q - p) ** 2).sum() for p, q in zip(plain, changed)) / sum((p**2).sum() for p in plain))  # noqa: B905

    for probe, formula in (("kl", kl), ("nmse", nmse)):
        found = table(draft, order(INT8, probe, direction)).set_index("layer")
        for name in ("bert.encoder.layer.1.intermediate.dense", "classifier", "bert.encoder.layer.0.output.dense"):
            wanted = formula(by_hand(draft, {name} if direction == "only" else names - {name}))
            wanted = wanted if direction == "only" else formula(everything) - wanted
            assert found.loc[name, "score"] == pytest.approx(wanted, rel=0.02, abs=2e-9)


def test_own_output_probes_agree_with_their_definitions() -> None:
    draft, name = tiny_draft(num_hidden_layers=2, examples=24), "bert.encoder.layer.1.output.dense"
    found = compressed(draft, INT8)
    part, seen = draft.module.get_submodule(name), []
    handle = part.register_forward_pre_hook(lambda part, args: seen.append(args[0].numpy()[0]))
    for one in examples():
        run(draft.module, one)
    handle.remove()
    x, weight = np.concatenate(seen).astype(np.float64), part.weight.detach().numpy()
    scales = weight_scales(weight, True)
    y = x @ weight.T + part.bias.detach().numpy()
    q = fake(x, found.draft.plan.layers[name].input_range) @ (weight_codes(weight, scales) * scales[:, None]).T
    q = q + part.bias.detach().numpy()
    error = ((q - y) ** 2).sum()
    wanted = {
        "mse": error / y.size,
        "sqnr": 10 * math.log10(error / (y**2).sum()),
        "cosine": 1 - (y * q).sum() / math.sqrt((y**2).sum() * (q**2).sum()),
        "weight_error": ((weight_codes(weight, scales) * scales[:, None] - weight) ** 2).sum() / (weight**2).sum(),
    }
    for probe, value in wanted.items():
        score = table(draft, order(INT8, probe)).set_index("layer").score[name]
        assert score == pytest.approx(value, rel=2e-3, abs=1e-4 if probe == "sqnr" else 1e-12)


def test_fisher_foretells_a_small_divergence() -> None:
    # Of the classifier alone the answer is a linear function, and so second order is nearly all there is to it.
    given = [order("weight_rtn", probe, layers=["classifier"]) for probe in ("kl", "fisher")]
    draft = as_draft(decided(tiny_module("bert", num_hidden_layers=2)), examples=24)
    kl, fisher = (table(copy.deepcopy(draft), one).score[0] for one in given)
    # The diagonal leaves out what errors of one row have in common.
    assert kl / 10 < fisher < kl * 10


def test_the_hessian_trace_agrees_with_the_whole_hessian() -> None:
    from workbench.sensitivity.probes._gradients import label_loss, leaves
    from workbench.sensitivity.probes.hessian_trace import traces

    draft = tiny_draft(num_hidden_layers=2, examples=24)
    stage = Stage(draft, {"classifier": compressed(draft, INT8).forms["classifier"]}, examples(), None)
    with leaves(stage, ["classifier"]) as leaf:
        exact = count = 0.0
        for batch in stage.batches:
            loss, size = label_loss(stage.module, batch)
            weight = leaf.weights["classifier"]
            first = torch.autograd.grad(loss, weight, create_graph=True)[0].flatten()
            for i, one in enumerate(first):
                exact += size * float(torch.autograd.grad(one, weight, retain_graph=True)[0].flatten()[i])
            count += size
    rows = np.array(traces(stage, ["classifier"], 200)["classifier"])
    assert rows[:, 0].sum() / rows[:, 1].sum() == pytest.approx(exact / count, rel=0.1)


# -- the network before a layer is run once ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["bert", "distilbert", "electra", "modernbert"])
@pytest.mark.parametrize("direction", ["only", "all_but"])
def test_the_shortened_network_answers_as_the_whole_one(shape: str, direction: str) -> None:
    draft = tiny_draft(shape, num_hidden_layers=3) if shape != "distilbert" else tiny_draft(shape, n_layers=3)
    forms = compressed(draft, StaticInt8(calibration="minmax", samples=4)).forms
    stage = Stage(draft, forms, examples(), None, direction)
    assert max(stage.levels.values()) == 3
    for name in stage.in_order(list(forms)):
        short = [pair.changed for pair in stage.pairs(name)]
        with torch.no_grad(), swapped(stage.module, stage.active(name)):
            whole = [stage.module(**batch.inputs).logits.numpy() for batch in stage.batches]
        assert all(np.array_equal(one, other) for one, other in zip(short, whole, strict=True))


def test_a_model_that_remembers_is_run_whole() -> None:
    class Remembering(torch.nn.Module):
        """Blocks whose input is added to the answer once more, behind their backs."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed = torch.nn.Embedding(40, 8)
            self.blocks = torch.nn.ModuleList(Remembered() for _ in range(3))
            self.head = torch.nn.Linear(8, 2)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden, memory = self.embed(input_ids), []
            for block in self.blocks:
                hidden = block(hidden, memory)
            return self.head((hidden + sum(memory)).mean(dim=1))

    class Remembered(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(8, 8)

        def forward(self, hidden: Any, memory: list) -> Any:
            memory.append(self.line(hidden))
            return hidden + memory[-1]

    draft = as_draft(Remembering().eval())
    forms = compressed(draft, StaticInt8(calibration="minmax", samples=4)).forms
    stage = Stage(draft, forms, examples(), None)
    for name in stage.in_order(list(forms)):
        short = [pair.changed for pair in stage.pairs(name)]
        with torch.no_grad(), swapped(stage.module, stage.active(name)):
            whole = [stage.module(**batch.inputs).numpy() for batch in stage.batches]
        assert all(np.array_equal(one, other) for one, other in zip(short, whole, strict=True))
    assert set(stage.levels.values()) == {0}


# -- language models ---------------------------------------------------------------------------------------------------


def test_a_language_model_is_scored_by_its_next_tokens() -> None:
    from tiny_lm import tiny_llama

    module = tiny_llama()
    # As language models come: what the shortened network must not stumble over.
    module.config.use_cache = True
    draft, texts = as_draft(module, examples=24), examples(8)
    name = "model.layers.1.mlp.up_proj"
    form = compressed(draft, INT8).forms[name]
    wanted = {"kl": 0.0, "flips": 0.0, "accuracy_drop": 0.0}
    count = 0
    for one in texts:
        tokens = {key: torch.tensor([row]) for key, row in one.items()}
        with torch.no_grad():
            plain = module(**tokens).logits[0, :-1].numpy()
            with swapped(module, {name: form}):
                changed = module(**tokens).logits[0, :-1].numpy()
        for before, after, token in zip(plain, changed, one["input_ids"][1:], strict=True):
            p, q = softmax(before), softmax(after)
            wanted["kl"] += float((p * np.log(p / q)).sum())
            wanted["flips"] += float(before.argmax() != after.argmax())
            wanted["accuracy_drop"] += float(before.argmax() == token) - float(after.argmax() == token)
            count += 1
    for probe, total in wanted.items():
        given = order(INT8, probe, layers=[name])
        found = frame(draft_rows(copy.deepcopy(draft), texts, None, given), given)
        assert found.score[0] == pytest.approx(total / count, rel=0.02, abs=1e-9)
        assert found.score_low[0] <= found.score[0] <= found.score_high[0]
    for probe in ("fisher", "fit", "hessian_trace"):
        given = order(INT8, probe, layers=[name])
        assert np.isfinite(frame(draft_rows(copy.deepcopy(draft), texts, None, given), given).score[0])


def test_no_flip_at_all_is_no_proof_that_there_are_none() -> None:
    from workbench.measure.accuracy import paired_proportions
    from workbench.measure.estimate import proportion

    terms = np.stack([np.zeros(24), np.ones(24)], axis=1)
    flips, drop = members("probes")["flips"](), members("probes")["accuracy_drop"]()
    assert flips.estimate(terms) == proportion(0, 24)
    assert flips.estimate(terms).high > 0.1
    terms[:5, 0], terms[5, 0] = 1, -1
    assert drop.estimate(terms) == paired_proportions(5, 1, 24)
    assert flips.estimate(terms).value == pytest.approx(4 / 24)


# -- other techniques, knobs, refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "technique", ["dynamic_int8", "weight_rtn", "weight_hqq", "prune", "bf16", "low_rank", "mixed_precision"]
)
def test_other_techniques_are_scanned(technique: str) -> None:
    from workbench.registry import find

    kind = find("techniques", technique)
    quick = {name: value for name, value in {"samples": 4, "multiple": 1}.items() if name in kind.knobs()}
    found = table(tiny_draft(num_hidden_layers=2), order(kind(**quick), "nmse"))
    assert (found.score > 0).sum() >= len(found) / 2
    assert found.score.notna().all()


def test_a_row_for_every_value_of_a_knob() -> None:
    found = table(tiny_draft(num_hidden_layers=2), order("prune", "nmse", knobs={"sparsity": (0.2, 0.9)}))
    assert list(found.columns)[4] == "sparsity"
    assert len(found) == 2 * len(tiny_draft(num_hidden_layers=2).facts.layers)
    mean = found.groupby("sparsity").score.mean()
    assert mean[0.9] > 5 * mean[0.2]
    assert found.groupby("sparsity")["rank"].max().tolist() == [len(found) // 2] * 2


@pytest.mark.parametrize("technique", ["prune_structured", "drop_layers", "distil"])
def test_what_is_no_matter_of_single_layers_is_refused(technique: str) -> None:
    with pytest.raises(Refused, match="layer"):
        table(tiny_draft(num_hidden_layers=4, examples=64), order(technique))


def test_wrong_orders_are_refused_before_any_work() -> None:
    with pytest.raises(UserError, match="direction"):
        order(direction="sideways")
    with pytest.raises(UnknownName, match="no probe 'kll', did you mean 'kl'"):
        order(probe="kll")
    with pytest.raises(Refused, match="activations alone"):
        order(probe="hessian_trace", what="activations")
    with pytest.raises(UnknownName, match="knob of prune"):
        order("prune", knobs={"sparsty": (0.1,)})
    with pytest.raises(UnknownName, match="layers = 'clasifier'"):
        table(tiny_draft(), order(INT8, layers=["clasifier"]))


def test_layers_and_keep_choose() -> None:
    given = order(INT8, layers=["*.layer.0.*"], keep=["*.query"], direction="all_but")
    found = table(tiny_draft(num_hidden_layers=2, examples=24), given)
    assert len(found) == 5
    assert not found.layer.str.contains("query").any()


# -- numbers that are none, stopping, going on -------------------------------------------------------------------------


@pytest.mark.parametrize("probe", ["kl", "nmse", "flips", "accuracy_drop", "sqnr", "mse", "cosine"])
def test_a_score_that_is_no_number_is_a_row_and_ranks_first(probe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.sensitivity import forms

    real = forms.quantized_weight

    def broken(weight: Any, per_channel: bool) -> Any:
        return real(weight, per_channel) * (math.nan if weight.shape == (24, 16) else 1)

    monkeypatch.setattr(forms, "quantized_weight", broken)
    found = table(tiny_draft(num_hidden_layers=2, examples=24), order(INT8, probe)).set_index("layer")
    lost = [name for name in found.index if "intermediate" in name]
    assert found.loc[lost, "score"].isna().all()
    assert set(found.loc[lost, "rank"]) == {1, 2}
    assert found.loc[lost, "note"].str.contains("no number").all()
    assert found.score.drop(lost).notna().all()


def test_a_model_that_gives_no_numbers_is_refused() -> None:
    draft = tiny_draft(num_hidden_layers=2)
    with torch.no_grad():
        draft.module.classifier.weight[:] = math.nan
    with pytest.raises(DataError, match="uncompressed model itself"):
        table(draft, order("prune"))


def collect(rows: Any, into: list) -> None:
    for row in rows:
        into.append(row)


def test_stop_and_known_rows() -> None:
    given, seen, told = order(INT8, "nmse"), [], []
    whole = table(tiny_draft(num_hidden_layers=2, examples=24), given)
    draft = tiny_draft(num_hidden_layers=2, examples=24)
    found = draft_rows(draft, examples(), None, given, stop=lambda: len(seen) >= 3, tell=lambda *a: told.append(a))
    with pytest.raises(Stopped):
        collect(found, seen)
    assert len(seen) == 3
    assert told[-1][0] == pytest.approx(3 / len(whole))
    assert "left" in told[-1][1]
    rest = table(tiny_draft(num_hidden_layers=2, examples=24), given, known=seen)
    assert rest.drop(columns="seconds").equals(whole.drop(columns="seconds"))
    stored = {row["layer"]: row["seconds"] for row in seen}
    assert all(rest.set_index("layer").seconds[name] == seconds for name, seconds in stored.items())
