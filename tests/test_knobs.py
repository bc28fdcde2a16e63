"""A knob is declared once: its check, its words, its JSON, and the class that it makes."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, ClassVar

import numpy as np
import pytest

from workbench.errors import KnobError, UnknownName
from workbench.knobs import Knobbed, knob


class Kettle(Knobbed):
    """Boils water."""

    name: ClassVar[str] = "kettle"

    cups: int = knob(2, low=1, high=10, search=(2, 4), help="how many", unit="cups")
    heat: float = knob(0.5, low=0.0, high=1.0, log=False, help="share of full power")
    whistle: bool = knob(False, help="make a noise")
    metal: str = knob("steel", choices=("steel", "copper"), help="what it is made of")
    size: int = knob(8, choices=(8, 16), help="inches")
    label: str = knob("", help="what is written on it")
    guests: tuple[str, ...] = knob((), help="who comes")


@pytest.mark.parametrize(
    ("name", "given", "canonical"),
    [
        ("cups", 3, 3),
        ("cups", 3.0, 3),
        ("cups", np.int64(3), 3),
        ("heat", 1, 1.0),
        ("heat", np.float32(0.25), 0.25),
        ("whistle", True, True),
        ("metal", "copper", "copper"),
        ("size", 16, 16),
        ("size", "16", 16),
        ("label", "mine", "mine"),
        ("guests", ["a", "b"], ("a", "b")),
    ],
)
def test_a_value_takes_its_canonical_type(name: str, given: Any, canonical: Any) -> None:
    value = getattr(Kettle(**{name: given}), name)
    assert value == canonical
    assert type(value) is type(canonical)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("cups", 0),
        ("cups", 11),
        ("cups", 2.5),
        ("cups", True),
        ("cups", "2"),
        ("cups", None),
        ("cups", math.inf),
        ("cups", math.nan),
        ("heat", 1.01),
        ("heat", -0.1),
        ("heat", math.nan),
        ("heat", math.inf),
        ("heat", "hot"),
        ("heat", False),
        ("whistle", 1),
        ("whistle", "true"),
        ("metal", "wood"),
        ("metal", None),
        ("metal", ["steel"]),
        ("size", 8.7),
        ("size", 9),
        ("size", "eight"),
        ("label", 7),
        ("guests", "ann"),
        ("guests", (1, 2)),
        ("guests", None),
    ],
)
def test_an_impossible_value_says_what_is_allowed(name: str, given: Any) -> None:
    with pytest.raises(KnobError) as caught:
        Kettle(**{name: given})
    declared = Kettle.knobs()[name]
    assert f"kettle.{name} = {given!r}" in caught.value.what
    assert caught.value.allowed == declared.allowed
    assert declared.help in caught.value.do


def test_kind_and_words_follow_from_the_declaration() -> None:
    declared = Kettle.knobs()
    assert {name: k.kind for name, k in declared.items()} == {
        "cups": "int",
        "heat": "float",
        "whistle": "bool",
        "metal": "choice",
        "size": "choice",
        "label": "text",
        "guests": "names",
    }
    assert declared["cups"].allowed == "a whole number ≥ 1 ≤ 10"
    assert declared["metal"].allowed == "steel | copper"
    assert declared["whistle"].allowed == "true | false"


def test_a_row_for_the_listing_is_plain_json() -> None:
    row = json.loads(json.dumps(Kettle.knobs()["cups"].to_json()))
    assert row["kind"] == "int"
    assert (row["default"], row["low"], row["high"], row["unit"]) == (2, 1, 10, "cups")
    assert row["search"] == [2, 4]
    assert row["choices"] == []


def test_instances_are_frozen_keyword_only_and_hashable() -> None:
    kettle = Kettle(cups=4)
    assert kettle == Kettle(cups=4.0)
    assert hash(kettle) == hash(Kettle(cups=4))
    assert kettle != Kettle()
    with pytest.raises(dataclasses.FrozenInstanceError):
        kettle.cups = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Kettle(4)  # type: ignore[misc]


def test_repr_shows_only_what_was_changed() -> None:
    assert repr(Kettle()) == "Kettle()"
    assert repr(Kettle(metal="copper", cups=3)) == "Kettle(cups=3, metal='copper')"


def test_settings_and_json_write_every_knob_out() -> None:
    kettle = Kettle(guests=("a",))
    assert list(kettle.settings()) == list(Kettle.knobs())
    assert kettle.settings(changed=True) == {"guests": ("a",)}
    data = json.loads(json.dumps(kettle.to_json()))
    assert data.pop("name") == "kettle"
    assert data["guests"] == ["a"]
    assert Kettle.make(**data) == kettle


def test_replace_changes_a_copy_and_checks_it() -> None:
    kettle = Kettle(cups=4)
    assert kettle.replace(heat=1.0) == Kettle(cups=4, heat=1.0)
    assert kettle.heat == 0.5
    with pytest.raises(KnobError):
        kettle.replace(heat=2.0)


def test_an_unknown_knob_gets_a_hint() -> None:
    with pytest.raises(UnknownName, match="no knob of kettle 'cup', did you mean 'cups'"):
        Kettle.make(cup=3)


def test_a_subclass_adds_its_knobs_to_those_of_its_base() -> None:
    class Samovar(Kettle):
        name: ClassVar[str] = "samovar"
        coal: bool = knob(True, help="what heats it")

    assert list(Samovar.knobs()) == [*Kettle.knobs(), "coal"]
    assert repr(Samovar(cups=3, coal=False)) == "Samovar(cups=3, coal=False)"
    assert Samovar() != Kettle()
