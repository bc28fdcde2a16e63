"""The machine's card without a browser: its code gives its value, and it says what the machine cannot do."""

from __future__ import annotations

import dataclasses

import pytest

import workbench
from workbench.measure import machine as machine_module
from workbench.measure.machine import Machine
from workbench.registry import members
from workbench.widgets.machine_card import MachineCard, facts_html, meaning_html, runtimes_html

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(machine_module, "_gpus", lambda: ())
    monkeypatch.setattr(machine_module, "load_average", lambda: 0.0)
    made = MachineCard()
    made.settle()
    return made


def machine(card, *flags, **changes):
    return dataclasses.replace(card.value, flags=flags, architecture="x86_64", **changes)


def test_its_code_gives_its_value(card):
    assert eval(card.code, {"Machine": workbench.Machine}) == card.value  # noqa: S307 - the law
    assert isinstance(card.value, Machine)


def test_it_shows_the_machine_and_every_runtime(card):
    shown = card.facts.value + card.runtimes.value
    assert "Processor" in shown
    assert f"{card.value.ram_mb / 1000:.1f} GB" in shown
    for kind in members("backends").values():
        assert kind.title in shown


def test_it_warns_where_hardware_is_missing(card):
    poor = meaning_html(machine(card, "avx2"))
    assert poor.count("Warning: ") == 2
    assert "often no faster than FP32" in poor
    rich = meaning_html(machine(card, "avx512_vnni", "avx512_bf16"))
    assert "Warning" not in rich
    assert "expect 2-4x" in rich
    card.value = machine(card, "avx2")
    assert len(card.warnings) == 2


def test_signs_have_words(card):
    shown = facts_html(machine(card, "avx512_vnni"))
    assert "VNNI (INT8): yes" in shown
    assert "AMX (INT8): no" in shown
    unknown = facts_html(dataclasses.replace(card.value, flags=None))
    assert "unknown" in unknown


def test_a_missing_runtime_comes_with_the_line_that_installs_it(card):
    rows = [{"title": "OpenVINO", "available": False, "reason": f"openvino is not installed: pip install {EVIL}"}]
    shown = runtimes_html(rows, card.value)
    assert "openvino is not installed" in shown
    assert "<code>pip install &lt;img" in shown
    assert "<img" not in shown


def test_names_of_hardware_show_as_text(card):
    shown = facts_html(machine(card, cpu=EVIL, gpus=(EVIL,)))
    assert shown.count("&lt;img") == 2
    assert "<img" not in shown


def test_reading_again_and_failing(card, monkeypatch):
    monkeypatch.setattr(machine_module, "load_average", lambda: 7.5)
    card.again.click()
    card.settle()
    assert card.value.load == 7.5
    assert "7.5" in card.meaning.value

    def broken(cls):
        raise OSError("no /proc here")

    monkeypatch.setattr(Machine, "here", classmethod(broken))
    card.again.click()
    card.settle()
    assert "no /proc here" in card.facts.value
    assert not card.again.disabled
