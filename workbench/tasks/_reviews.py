"""A small grammar of product reviews whose label hangs on word order.

A review states opinions about parts of a product, and a rule of the grammar says which of them decides: negation flips
an opinion ("anything but flimsy"), contrast hands the verdict to one of two clauses ("A, but B"; "B, although A"), and
distractors report opinions that do not count (an advert, an old product) or count upside down ("my sister says that
A, and I disagree"). The label follows from the derivation, so it is never wrong; rare words, rare rules and their
combinations make some sentences hard all the same.

Templates of negation and contrast as a test of language models come from CheckList (Ribeiro et al. 2020,
arXiv:2005.04118), generated text whose structure decides from bAbI (Weston et al. 2015, arXiv:1502.05698).
Left out: sarcasm, comparisons of degree, typing errors, and all else that makes real reviews hard.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from itertools import accumulate
from typing import Any

#: Raise it whenever a change here alters what `reviews` returns: trained models are filed under it.
GRAMMAR = 2

#: Words in the longest review kept, so that its word pieces fit in one short batch.
LONGEST = 26

# fmt: off
#: Adjectives by polarity, from common to rare: they are drawn with Zipf-like weights.
ADJECTIVES = (
    ("awful", "flimsy", "terrible", "useless", "poor", "disappointing", "clumsy", "shoddy", "unreliable", "horrible",
     "annoying", "faulty", "dreadful", "uncomfortable", "impractical", "lousy", "pathetic", "inadequate", "unpleasant",
     "dismal", "abysmal", "inelegant", "defective", "unimpressive", "wretched", "thoughtless", "tiresome",
     "substandard", "appalling", "unconvincing"),
    ("great", "sturdy", "excellent", "useful", "superb", "impressive", "handy", "solid", "reliable", "wonderful",
     "delightful", "flawless", "brilliant", "comfortable", "practical", "lovely", "splendid", "adequate", "pleasant",
     "terrific", "faultless", "elegant", "dependable", "unbeatable", "admirable", "thoughtful", "effortless",
     "outstanding", "charming", "convincing"),
)
PARTS = ("handle", "lid", "battery", "strap", "zip", "motor", "screen", "stand", "cable", "hinge", "finish", "case",
         "manual", "button", "filter", "switch", "grip", "lining")
PRODUCTS = ("kettle", "lamp", "backpack", "blender", "keyboard", "tent", "watch", "camera", "speaker", "toaster")
PEOPLE = ("sister", "neighbour", "boss", "brother", "friend", "mother", "flatmate", "uncle")
DEGREES = ("really", "truly", "quite", "so", "remarkably", "particularly")
# fmt: on

#: One opinion: (weight, template, does it flip its adjectives?). {p} a part, {d} a degree, {a} and {b} adjectives.
CLAUSES = (
    (30, "the {p} is {a}", False),
    (16, "the {p} is {d} {a}", False),
    (8, "the {p} turned out {a}", False),
    (4, "the {p} is nothing but {a}", False),
    (4, "the {p} is not only {a} but {d} {b}", False),
    (3, "nobody could deny that the {p} is {a}", False),
    (3, "the {p} never stopped being {a}", False),
    (1, "the {p} could not be more {a}", False),
    (10, "the {p} is not {a}", True),
    (4, "the {p} is not {d} {a}", True),
    (3, "the {p} is never {a}", True),
    (3, "the {p} is anything but {a}", True),
    (3, "the {p} is far from {a}", True),
    (3, "nobody would call the {p} {a}", True),
    (3, "there is nothing {a} about the {p}", True),
    (2, "the {p} is no longer {a}", True),
    (2, "nobody could claim that the {p} is {a}", True),
    (1, "the {p} could hardly be less {a}", True),
)

#: {B} decides; {A} mostly says the opposite.
CONTRASTS = (
    (12, "{A}, but {B}"),
    (6, "{A}, yet {B}"),
    (6, "although {A}, {B}"),
    (4, "even though {A}, {B}"),
    (4, "while {A}, {B}"),
    (6, "{B}, although {A}"),
    (5, "{B}, even if {A}"),
    (3, "{A}. That said, {B}"),
    (3, "granted, {A}. Still, {B}"),
)

#: Opinions that do not count: {B} decides, {A} and {a} are about something else or somebody else's.
DISTRACTIONS = (
    (7, "my {person} says that {A}, but I think {B}"),
    (2, "I think {B}, but my {person} says that {A}"),
    (4, "the advert says that {A}. In fact {B}"),
    (4, "I was told that {A}. I find that {B}"),
    (4, "{B}, unlike the {a} {product} I had before"),
    (4, "my old {product} was {a}. On this one {B}"),
    (2, "{B}, and I do not care that my {person} calls it {a}"),
)

#: Opinions of others that do count: (weight, template, do they count upside down?).
VERDICTS = (
    (4, "my {person} says that {B}, and I agree", False),
    (4, "my {person} says that {B}, and I disagree", True),
    (4, "people who say that {B} are right", False),
    (4, "people who say that {B} are wrong", True),
    (2, "it is true that {B}", False),
    (2, "it is not true that {B}", True),
    (1, "do not believe those who deny that {B}", False),
    (1, "do not believe those who say that {B}", True),
)

#: Sentences without an opinion.
ASIDES = (
    "It is a {product}.",
    "It came in a plain box.",
    "I bought it for my {person}.",
    "Delivery took three days.",
    "I have used it for a month.",
    "This is my second {product}.",
)

SHAPES = ((28, "plain"), (13, "agreement"), (26, "contrast"), (14, "distraction"), (19, "verdict"))
#: How often what does not decide says the opposite of what does.
CONTRARY = {"contrast": 0.8, "distraction": 0.6}
#: How often a sentence without an opinion stands before or after.
ASIDE = 0.25

_ZIPF = tuple(accumulate((rank + 3) ** -0.9 for rank in range(len(ADJECTIVES[0]))))


def reviews(count: int, seed: int, exclude: Collection[str] = ()) -> list[tuple[str, int]]:
    """`count` different reviews with their labels (0 = negative, 1 = positive), half of each, in random order.

    The same arguments give the same list on every machine. No text in `exclude` is returned, and no text twice.
    """
    rng = random.Random(seed)
    taken = set(exclude)
    found: list[tuple[str, int]] = []
    while len(found) < count:
        label = len(found) % 2
        text = _review(rng, label)
        if text not in taken and len(text.split()) <= LONGEST:
            taken.add(text)
            found.append((text, label))
    rng.shuffle(found)
    return found


def _review(rng: random.Random, label: int) -> str:
    text = _sentence(rng, label)
    text = f"{text[0].upper()}{text[1:]}."
    if rng.random() >= ASIDE:
        return text
    aside = rng.choice(ASIDES).format(person=rng.choice(PEOPLE), product=rng.choice(PRODUCTS))
    return f"{text} {aside}" if rng.random() < 0.5 else f"{aside} {text}"


def _sentence(rng: random.Random, label: int) -> str:
    shape = _pick(rng, SHAPES)[1]
    first, second = rng.sample(PARTS, 2)
    if shape == "plain":
        return _clause(rng, label, first)
    if shape == "agreement":
        return f"{_clause(rng, label, first)} and {_clause(rng, label, second)}"
    if shape == "verdict":
        _, template, flips = _pick(rng, VERDICTS)
        said = _clause(rng, 1 - label if flips else label, first)
        return template.format(B=said, person=rng.choice(PEOPLE))
    other = 1 - label if rng.random() < CONTRARY[shape] else label
    names = {"person": rng.choice(PEOPLE), "product": rng.choice(PRODUCTS), "a": _adjective(rng, other)}
    template = _pick(rng, CONTRASTS if shape == "contrast" else DISTRACTIONS)[1]
    return template.format(A=_clause(rng, other, first), B=_clause(rng, label, second), **names)


def _clause(rng: random.Random, polarity: int, part: str) -> str:
    """One opinion of the given polarity (0 negative, 1 positive) about one part."""
    _, template, flips = _pick(rng, CLAUSES)
    said = 1 - polarity if flips else polarity
    return template.format(p=part, d=rng.choice(DEGREES), a=_adjective(rng, said), b=_adjective(rng, said))


def _adjective(rng: random.Random, polarity: int) -> str:
    return rng.choices(ADJECTIVES[polarity], cum_weights=_ZIPF)[0]


def _pick(rng: random.Random, rows: tuple[tuple[Any, ...], ...]) -> tuple[Any, ...]:
    """One row of a table whose first column is its weight."""
    return rng.choices(rows, weights=[row[0] for row in rows])[0]
