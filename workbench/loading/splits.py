"""Which examples serve which purpose: calibration, selecting, reporting.

Every trial is measured on the whole validation split. The front is measured again on a labelled test split, or on
a share of the validation split that the user reserves. Calibration takes training data; where there is one file
only, examples are set aside for it, because what is calibrated on must not be measured. All shuffles are seeded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from workbench.errors import DataError, UserError
from workbench.loading.data import Labelled

#: What a split is for -> what people call it, best first.
NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development", "eval"),
    "test": ("test", "testing"),
}
#: Of a single file, a fifth is set aside for calibration, at least as many as static quantization takes by default
#: (but no more than half) and at most so many.
ENOUGH, MOST = 300, 1000
_TOO_FEW_TO_PART = 50


@dataclass(frozen=True)
class Splits:
    """What the splits became; `names` where the data name the classes better than the model does."""

    calibration: Labelled
    select: Labelled
    report: Labelled
    origin: dict[str, str]
    notes: list[str] = field(default_factory=list)
    names: tuple[str, ...] | None = None


def assign(
    found: Mapping[str, Labelled], *, split: str | None = None, reserve: float = 0.0, seed: int = 0, limit: int | None
) -> Splits:
    """Give the splits their purposes; raises `DataError` where nothing labelled can be measured on."""
    if not 0 <= reserve < 1:
        raise UserError(f"reserve = {reserve!r} is no share.", allowed="0 (nothing) to below 1, for example 0.5")
    train, test = role(found, "train"), role(found, "test")
    chosen = select_name(found, split)
    select, notes, origin = found[chosen], [], {"select": chosen}
    random = np.random.default_rng(seed)
    if train == chosen and split is None and len(found) > 1:
        notes.append(f"No other split than {chosen} has labels: it is measured on what the model may have learned.")
    if train is not None and train != chosen:
        origin["calibration"] = train
        calibration = found[train].take(random.permutation(len(found[train])))
    elif test is not None and chosen not in (test, train) and not found[test].labelled:
        origin["calibration"] = test
        calibration = found[test].take(random.permutation(len(found[test])))
        notes.append(f"There is no training split: calibration takes the unlabelled texts of {test}.")
    elif len(select) >= _TOO_FEW_TO_PART:
        aside = stratified(select.targets, set_aside(len(select)), random)
        origin["calibration"] = chosen
        calibration, select = select.take(random.permutation(aside)), select.take(_rest(aside, len(select)))
        notes.append(
            f"There is only the split {chosen}: {len(calibration)} of its examples are set aside for calibration "
            f"and the other {len(select)} are measured."
        )
    else:
        origin["calibration"] = chosen
        calibration = select.take(random.permutation(len(select)))
        notes.append(f"There are only {len(select)} examples: calibration and measurement share them.")
    report = select.take(np.arange(0))
    if reserve > 0:
        aside = stratified(select.targets, round(reserve * len(select)), random)
        report, select = select.take(aside), select.take(_rest(aside, len(select)))
        origin["report"] = f"{reserve:.0%} of {chosen}"
    elif test is not None and test != chosen and found[test].labelled:
        report, origin["report"] = found[test], test
    if limit is not None and limit < 1:
        raise UserError(f"limit = {limit!r} leaves nothing.", allowed="a whole number from 1")
    if limit is not None and limit < max(len(select), len(report)):
        notes.append(f"Limited to {limit} examples a split: {len(select)} of {chosen} could be measured.")
        select, report = (_limited(part, limit, random) for part in (select, report))
    _check_classes(select, chosen)
    return Splits(calibration, select, report, origin, notes)


def set_aside(size: int) -> int:
    """How many of `size` examples serve calibration where there is one file only."""
    return min(MOST, max(size // 5, min(ENOUGH, size // 2)))


def role(found: Mapping[str, object], purpose: str) -> str | None:
    """The split that people mean by `purpose`: an exact name, else the first that begins with one (train_10k)."""
    lowered = {name.lower(): name for name in found}
    for name in NAMES[purpose]:
        if name in lowered:
            return lowered[name]
    begins = [n for name in NAMES[purpose] for n in sorted(lowered) if re.match(rf"{name}[-_.]", n)]
    return lowered[begins[0]] if begins else None


def select_name(found: Mapping[str, Labelled], split: str | None) -> str:
    """The split to measure on: the named one, the validation split, a labelled test split, else the first."""
    if split is not None:
        if split in found:
            return split
        as_role = next((purpose for purpose, names in NAMES.items() if split.lower() in names), None)
        if as_role and (name := role(found, as_role)):
            return name
        raise DataError(f"The data have no split {split!r}.", allowed=", ".join(found), do="name one with split=")
    for purpose in ("validation", "test", "train"):
        name = role(found, purpose)
        if name is not None and found[name].labelled:
            return name
    labelled = [name for name in found if found[name].labelled]
    if not labelled:
        raise DataError("No split of the data has labels.", do="name their column with label=")
    return labelled[0]


def stratified(targets: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Sorted indices of `count` examples, each class by its share (largest remainders), drawn at random."""
    classes, counts = np.unique(targets, return_counts=True)
    exact = counts * count / max(len(targets), 1)
    quota = np.floor(exact).astype(int)
    for i in np.argsort(quota - exact, kind="stable")[: count - quota.sum()]:
        quota[i] += 1
    picked = [random.permutation(np.flatnonzero(targets == c))[:n] for c, n in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate([np.arange(0), *picked]))


def _limited(part: Labelled, limit: int, random: np.random.Generator) -> Labelled:
    return part if len(part) <= limit else part.take(stratified(part.targets, limit, random))


def _rest(rows: np.ndarray, size: int) -> np.ndarray:
    return np.setdiff1d(np.arange(size), rows)


def _check_classes(select: Labelled, name: str) -> None:
    if not select.labelled:
        raise DataError(f"The split {name!r} has no labels.", do="choose another with split=")
    if len(np.unique(select.targets)) < 2:
        raise DataError(
            f"All {len(select)} examples of {name!r} have one class (index {select.targets[0]}): measuring on them "
            "would tell nothing.",
            allowed="at least two classes among the examples that are measured",
            do="give data with more classes, or check the label column",
        )
