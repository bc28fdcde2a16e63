"""Two or more trials side by side: paired numbers, what differs in the recipes, who answers what, and what flipped.

The first trial is the reference of all others. Everything that says "worse" is paired, example by example; flips need
no labels, only two models that answered the same texts. Left out: tests for more than two models at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.backends.base import WORKLOAD
from workbench.errors import DataError, UserError
from workbench.measure.accuracy import drop, flips, mcnemar
from workbench.measure.estimate import Estimate
from workbench.measure.outcomes import Outcomes
from workbench.measure.windows import Windows
from workbench.reading import answers, examples, measured
from workbench.recipe import Recipe
from workbench.running.models import Models
from workbench.trial import Trial

if TYPE_CHECKING:
    from workbench.study import Study

#: Columns of a flip list. `change` is lost, gained or changed; `shift` is how far the confidence moved.
FLIPS = ["example", "text", "label", "was", "was_sure", "now", "now_sure", "shift", "change"]
#: What stands for all operators that are no layer.
REST = "everything else"
#: Columns of the windows of a language model, by how far their loss per token moved.
WINDOWS = ["example", "text", "was", "now", "shift", "tokens"]


@dataclass(frozen=True, eq=False)
class Answered:
    """What one model answered: class indices (examples,), their probabilities, and the true classes where known."""

    predictions: np.ndarray
    confidences: np.ndarray | None = None
    truth: np.ndarray | None = None


@dataclass(frozen=True)
class Pair:
    """One trial against the reference on the same examples.

    `drop` is paired (positive is worse), `p` McNemar's exact p-value that flips either way are equally likely.
    `speed` is the ratio of the two speed-ups over the uncompressed model: each is paired with it, but not with the
    other, so its interval takes both for independent.
    """

    drop: Estimate | None = None
    lost: int | None = None
    gained: int | None = None
    p: float | None = None
    speed: Estimate | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What `compare` gives; the first of `trials` is the reference.

    `answered` (by trial) and `texts` are of the study's own examples, or of texts that were given, without labels;
    `names` are the classes. `answered` is empty for a language model.
    """

    trials: tuple[Trial, ...]
    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    answered: dict[int, Answered]

    @property
    def reference(self) -> Trial:
        """The first trial."""
        return self.trials[0]

    @property
    def others(self) -> tuple[Trial, ...]:
        """All but the reference."""
        return self.trials[1:]

    def pair(self, number: int) -> Pair:
        """Trial `number` against the reference."""
        return paired(self.reference, self._trial(number))

    def recipes(self) -> pd.DataFrame:
        """What differs in the recipes; see `recipe_difference`."""
        return recipe_difference([trial.recipe for trial in self.trials], [f"#{t.number}" for t in self.trials])

    def flips(self, number: int) -> pd.DataFrame:
        """Examples whose answer changed, by confidence shift; of a language model the windows whose loss moved."""
        was, now = (trial.measurement and trial.measurement.outcomes for trial in (self.reference, self._trial(number)))
        if not self.answered and isinstance(was, Windows) and isinstance(now, Windows):
            return window_shifts(was, now, self.texts)
        if number not in self.answered or self.reference.number not in self.answered:
            raise DataError("The answers of these trials were not kept.", do="measure them again")
        return changed(self.answered[self.reference.number], self.answered[number], self.texts, self.names)

    def confusion(self, number: int) -> pd.DataFrame:
        """True classes (or, without labels, the reference's answers) by the answers of trial `number`."""
        mine = self.answered[number]
        rows = mine.truth if mine.truth is not None else self.answered[self.reference.number].predictions
        return confusion(rows, mine.predictions, self.names)

    @property
    def labelled(self) -> bool:
        """Whether the true classes are known."""
        return all(one.truth is not None for one in self.answered.values())

    def _trial(self, number: int) -> Trial:
        for trial in self.trials:
            if trial.number == number:
                return trial
        raise UserError(f"Trial {number} is not compared.", allowed=", ".join(str(t.number) for t in self.trials))

    def __repr__(self) -> str:
        against = ", ".join(f"#{trial.number}" for trial in self.others)
        return f"<Comparison of #{self.reference.number} with {against} on {len(self.texts)} texts>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Comparison):
            return NotImplemented
        mine, theirs = (
            ([t.number for t in c.trials], [t.recipe for t in c.trials], c.names, c.texts) for c in (self, other)
        )
        return mine == theirs and all(
            np.array_equal(one.predictions, other.answered[number].predictions)
            for number, one in self.answered.items()
            if number in other.answered
        )

    __hash__ = None  # type: ignore[assignment]


def compare(
    study: Study,
    numbers: Sequence[int],
    texts: Sequence[str | tuple[str, ...]] | None = None,
    *,
    models: Models | None = None,
    **ask: Any,
) -> Comparison:
    """The trials `numbers` of `study`, the first of them as reference: `compare(study, [0, 5])`.

    With `texts` the models answer those, which need no labels, instead of the examples that they were measured on.
    `ask` is handed to `Models.ask`. Raises `UserError` for fewer than two different trials or an unknown one.
    """
    comparison = kept(study, numbers)
    if texts is None:
        found = examples(study, models=models, **ask)
        return replace(comparison, texts=tuple(found))
    frame = answers(study, numbers, texts, models=models, **ask)
    given = {n: frame[frame["trial"] == n] for n in numbers}
    names = tuple(given[numbers[0]]["probabilities"].iloc[0]) if len(frame) else ()
    by_class = {name: i for i, name in enumerate(names)}
    own = {
        number: Answered(rows["answer"].map(by_class).to_numpy(), rows["probability"].to_numpy(dtype=float))
        for number, rows in given.items()
    }
    plain = tuple((text,) if isinstance(text, str) else tuple(text) for text in texts)
    return replace(comparison, names=names, texts=plain, answered=own)


def kept(study: Study, numbers: Sequence[int]) -> Comparison:
    """`compare` without texts: all that the store knows, which asks no other process."""
    if len(set(numbers)) < 2 or len(set(numbers)) < len(numbers):
        raise UserError(f"{list(numbers)} is no comparison.", allowed="two or more different trials")
    trials = tuple(measured(study, number) for number in numbers)
    outcomes = {t.number: t.measurement.outcomes for t in trials if t.measurement}
    own = {
        number: Answered(found.predictions, found.confidences, found.labels)
        for number, found in outcomes.items()
        if isinstance(found, Outcomes)
    }
    classes = max((found.classes for found in outcomes.values() if isinstance(found, Outcomes)), default=0)
    names = tuple(map(str, study.prepared.get("labels") or ()))
    names += tuple(str(i) for i in range(len(names), classes))
    return Comparison(trials, names, (), own)


def paired(reference: Trial, other: Trial) -> Pair:
    """One trial against another; what was not measured, or is not of the same examples, is None."""
    was, now = reference.measurement, other.measurement
    if was is None or now is None:
        return Pair()
    speed = ratio(now.speedup, was.speedup, reference.number == 0, other.number == 0)
    one, two = was.outcomes, now.outcomes
    if one is None or two is None or not one.pairs_with(two):
        return Pair(speed=speed)
    lost, gained = flips(one, two)
    p = mcnemar(lost, gained) if isinstance(one, Outcomes) else None
    return Pair(drop(one, two, now.metric), lost, gained, p, speed)


def ratio(top: Estimate | None, bottom: Estimate | None, base: bool = False, top_base: bool = False) -> Estimate | None:
    """`top` / `bottom` of two positive estimates, taken as independent: half-widths add in squares on a log scale.

    `base` and `top_base` say that one of them is the uncompressed model, which is one time itself by definition.
    """
    one = Estimate(1.0, 1.0, 1.0, 1, "×")
    top, bottom = (one if top_base else top), (one if base else bottom)
    if top is None or bottom is None or not min(top.low, top.value, bottom.low, bottom.value) > 0:
        return None
    up = math.hypot(math.log(top.high / top.value), math.log(bottom.value / bottom.low))
    down = math.hypot(math.log(top.value / top.low), math.log(bottom.high / bottom.value))
    value = top.value / bottom.value
    return Estimate(value, value * math.exp(-down), value * math.exp(up), min(top.n, bottom.n), "×")


def recipe_difference(recipes: Sequence[Recipe], titles: Sequence[str]) -> pd.DataFrame:
    """One row for each setting that is not the same in all `recipes`: `setting`, then a column for each of `titles`.

    A knob of something that a recipe lacks is "–" there, and is listed only where another recipe has changed it.
    """
    settings = [_settings(recipe) for recipe in recipes]
    names = list(dict.fromkeys(name for one in settings for name in one))
    rows = []
    for name in names:
        there = [one[name] for one in settings if name in one]
        lacking = len(there) < len(settings)
        if len({value for value, _ in there}) > 1 or (lacking and not all(default for _, default in there)):
            rows.append((name, *(one[name][0] if name in one else "–" for one in settings)))
    return pd.DataFrame(rows, columns=["setting", *titles])


def changed(
    before: Answered, after: Answered, texts: Sequence[tuple[str, ...]] = (), names: Sequence[str] = ()
) -> pd.DataFrame:
    """The examples that the two answer differently, the largest confidence shift first; columns `FLIPS`.

    `shift` is the least by which a probability moved: with p given to the old answer and q to the new one it is
    max(p + q - 1, |p - q|), and for two classes exactly how far the new answer's probability rose. NaN without
    confidences. `label` is "" without labels, and every change is then "changed". Raises `DataError` where they do not
    answer the same number of examples.
    """
    if len(before.predictions) != len(after.predictions):
        raise DataError(
            f"{len(before.predictions)} and {len(after.predictions)} answers are not of the same examples.",
            do="compare trials of one study",
        )
    chosen = np.flatnonzero(before.predictions != after.predictions)
    unsure = np.full(len(before.predictions), math.nan)
    p = (before.confidences if before.confidences is not None else unsure)[chosen]
    q = (after.confidences if after.confidences is not None else unsure)[chosen]
    was, now = before.predictions[chosen], after.predictions[chosen]
    truth = None if before.truth is None else before.truth[chosen]

    def named(indices: np.ndarray) -> list[str]:
        return [str(names[i]) if i < len(names) else str(i) for i in indices.tolist()]

    frame = pd.DataFrame(
        {
            "example": chosen,
            "text": [" ⏐ ".join(texts[i]) if i < len(texts) else "" for i in chosen.tolist()],
            "label": [""] * len(chosen) if truth is None else named(truth),
            "was": named(was),
            "was_sure": p,
            "now": named(now),
            "now_sure": q,
            "shift": np.maximum(p + q - 1, np.abs(p - q)),
            "change": ["changed"] * len(chosen) if truth is None else _kinds(was == truth, now == truth),
        },
        columns=FLIPS,
    )
    return frame.sort_values("shift", ascending=False, kind="stable").reset_index(drop=True)


def window_shifts(before: Windows, after: Windows, texts: Sequence[tuple[str, ...]] = ()) -> pd.DataFrame:
    """Every window of a language model by how far its loss per token moved (nats); columns `WINDOWS`."""
    if not before.pairs_with(after):
        raise DataError("The two trials did not score the same windows.", do="compare trials of one study")
    was, now = before.losses / before.tokens, after.losses / after.tokens
    frame = pd.DataFrame(
        {
            "example": np.arange(len(before)),
            "text": [" ".join(texts[i]) if i < len(texts) else "" for i in range(len(before))],
            "was": was,
            "now": now,
            "shift": now - was,
            "tokens": before.tokens,
        },
        columns=WINDOWS,
    )
    return frame.sort_values("shift", key=abs, ascending=False, kind="stable").reset_index(drop=True)


def confusion(rows: np.ndarray, columns: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Counts of class pairs: `rows` (examples,) down, `columns` (examples,) across; index and columns are `names`."""
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    return pd.DataFrame(counts, index=list(names), columns=list(names))


def layer_delta(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds by layer of two profiles (columns `layer`, `ms`), the largest difference first.

    What is no layer is one row, `REST`. `was` or `now` is NaN where one model lacks the layer.
    """
    one, two = (profile.assign(layer=profile["layer"].replace("", REST)) for profile in (before, after))
    sums = [profile.groupby("layer", sort=False)["ms"].sum() for profile in (one, two)]
    frame = pd.concat(sums, axis=1, keys=["was", "now"]).rename_axis("layer").reset_index()
    frame["delta"] = frame["now"].fillna(0) - frame["was"].fillna(0)
    return frame.sort_values("delta", key=abs, ascending=False, kind="stable").reset_index(drop=True)


def _settings(recipe: Recipe) -> dict[str, tuple[str, bool]]:
    """Every setting as text, and whether it stands at its default."""
    found = {"techniques": (" → ".join(step.name for step in recipe.steps) or "none", False)}
    found["runtime"] = (recipe.backend.name, False)
    for one in (*recipe.steps, recipe.backend):
        own = one.settings(changed=True)
        for knob, value in one.settings().items():
            # The workload is the same thing whatever the runtime.
            name = knob if one is recipe.backend and knob in WORKLOAD else f"{one.name}.{knob}"
            found[name] = (str(value), knob not in own)
    found["keep"] = (", ".join(recipe.keep) or "none", False)
    return found


def _kinds(was_right: Iterable[bool], now_right: Iterable[bool]) -> list[str]:
    return ["lost" if was else "gained" if now else "changed" for was, now in zip(was_right, now_right, strict=True)]
