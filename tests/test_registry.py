"""The registry: folders and entry points, near-miss hints, and no swallowed failures."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import workbench
from workbench import registry
from workbench.errors import UnknownName, WorkbenchError
from workbench.registry import FAMILIES, Family, classes, describe, find, members, unknown
from workbench.techniques.base import Technique
from workbench.techniques.static_int8 import StaticInt8

CONTRACT = """
from abc import abstractmethod
from workbench.knobs import Knobbed

class Bird(Knobbed):
    @abstractmethod
    def sing(self): ...
"""
MEMBER = """
from birds.base import Bird

class {kind}(Bird):
    name = "{name}"
    def sing(self): return "tweet"
"""


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """An empty family of its own; call it with a file's name and content to add one."""
    folder = tmp_path / "birds"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(registry.FAMILIES, "birds", Family("birds", "Bird"))

    def add(file: str, content: str) -> None:
        (folder / file).write_text(content)
        importlib.invalidate_caches()

    add("__init__.py", '"""Birds."""')
    add("base.py", CONTRACT)
    members.cache_clear()
    yield add
    members.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "birds"]:
        del sys.modules[name]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Call it with an entry point's group, its line and its module's source to install another package."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(group: str, line: str, source: str) -> None:
        info = tmp_path / "aviary-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aviary\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{line}\n")
        (tmp_path / "aviary.py").write_text(source)
        importlib.invalidate_caches()
        members.cache_clear()

    yield install
    members.cache_clear()
    sys.modules.pop("aviary", None)


# -- what is there -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_members_keep_the_contract_under_their_own_names(family: str) -> None:
    package, contract_name = FAMILIES[family]
    contract = getattr(importlib.import_module(f"{package}.base"), contract_name)
    found = members(family)
    assert list(found) == sorted(found)
    for name, member in found.items():
        assert issubclass(member, contract)
        assert member.name == name  # type: ignore[attr-defined]
        assert find(family, name) is member


def test_every_file_of_a_family_is_one_member() -> None:
    for package, _ in FAMILIES.values():
        folder = Path(importlib.import_module(package).__file__ or "").parent
        files = {p.stem for p in folder.glob("*.py") if p.stem != "base" and not p.stem.startswith("_")}
        family = next(name for name, row in FAMILIES.items() if row.package == package)
        homes = [member.__module__.split(".")[-1] for member in members(family).values()]
        assert sorted(h for h in homes if h in files) == sorted(files)


def test_the_plug_ins_that_scripts_rely_on_are_there() -> None:
    assert {"bf16", "dynamic_int8", "static_int8", "prune", "drop_layers"} <= set(members("techniques"))
    assert {"grid", "random", "nsga2"} <= set(members("strategies"))


def test_every_class_is_a_public_name() -> None:
    assert workbench.StaticInt8 is StaticInt8
    for name, kind in classes().items():
        assert getattr(workbench, name) is kind
        assert name in dir(workbench)
    with pytest.raises(AttributeError, match="NoSuchThing"):
        workbench.NoSuchThing  # noqa: B018


def test_class_names_are_unique_over_all_families() -> None:
    assert len(classes()) == sum(len(members(family)) for family in FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_listing_is_plain_json_with_a_summary(family: str) -> None:
    rows = json.loads(json.dumps(describe(family)))
    assert [row["name"] for row in rows] == list(members(family))
    for row in rows:
        assert row["summary"].endswith(".")
        assert row["available"] == (row["reason"] is None)
        for declared in row["knobs"].values():
            assert declared["help"]
            assert declared["allowed"]


# -- names that are not there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("techniques", "static_int", "no technique 'static_int', did you mean 'static_int8'"),
        ("strategies", "gird", "no strategy 'gird', did you mean 'grid'?"),
        ("techniques", "zzz", "no technique 'zzz'"),
        ("technique", "bf16", "no family 'technique', did you mean 'techniques'?"),
    ],
)
def test_an_unknown_name_gets_a_hint(family: str, name: str, message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        find(family, name)
    assert caught.value.what.startswith(message)
    assert caught.value.allowed


def test_no_hint_where_nothing_is_near_and_no_list_where_there_is_none() -> None:
    assert unknown("bird", "qqq", ["owl"]).what == "no bird 'qqq'"
    assert unknown("bird", "owl", []).allowed == "(there are none)"


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_new_file_is_a_new_member(birds: Callable[[str, str], None]) -> None:
    birds("wren.py", MEMBER.format(kind="Wren", name="wren"))
    birds("owl.py", MEMBER.format(kind="Owl", name="owl"))
    birds("_feathers.py", "SHARED = 1")
    assert list(members("birds")) == ["owl", "wren"]


def test_what_is_imported_or_abstract_is_no_member(birds: Callable[[str, str], None]) -> None:
    birds("owl.py", MEMBER.format(kind="Owl", name="owl"))
    birds(
        "nest.py", "from birds.owl import Owl\nfrom birds.base import Bird\nclass Unfinished(Bird):\n    name = 'egg'\n"
    )
    assert list(members("birds")) == ["owl"]


def test_an_unfinished_plug_in_cannot_be_made() -> None:
    class Unfinished(Technique):
        name = "unfinished"

    with pytest.raises(TypeError, match="apply"):
        Unfinished()


def test_a_broken_file_is_an_error_and_not_a_gap(birds: Callable[[str, str], None]) -> None:
    birds("dodo.py", "import no_such_module")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        members("birds")


def test_two_members_of_one_name_are_an_error(birds: Callable[[str, str], None]) -> None:
    birds("wren.py", MEMBER.format(kind="Wren", name="wren"))
    birds("other.py", MEMBER.format(kind="Impostor", name="wren"))
    with pytest.raises(WorkbenchError, match=r"birds\.other\.Impostor and birds\.wren\.Wren"):
        members("birds")


# -- entry points ------------------------------------------------------------------------------------------------------

PLUG_IN = """
from workbench.techniques.base import Technique

class Plucked(Technique):
    \"\"\"Pluck.\"\"\"
    name = "{name}"
    def apply(self, draft): return draft
"""


def test_another_package_adds_a_plug_in(installed: Callable[[str, str, str], None]) -> None:
    installed("workbench.techniques", "plucked = aviary:Plucked", PLUG_IN.format(name="plucked"))
    assert find("techniques", "plucked").__module__ == "aviary"
    assert workbench.Plucked is find("techniques", "plucked")
    assert "bf16" in members("techniques")


def test_another_package_cannot_take_a_name(installed: Callable[[str, str, str], None]) -> None:
    installed("workbench.techniques", "bf16 = aviary:Plucked", PLUG_IN.format(name="bf16"))
    with pytest.raises(WorkbenchError, match=r"bf16.*aviary\.Plucked") as caught:
        members("techniques")
    assert "uninstall" in caught.value.do


def test_an_entry_point_that_is_no_plug_in_is_an_error(installed: Callable[[str, str, str], None]) -> None:
    installed("workbench.techniques", "plucked = aviary:Plucked", "Plucked = 3")
    with pytest.raises(WorkbenchError, match="no Technique") as caught:
        members("techniques")
    assert "subclass" in caught.value.do


def test_a_broken_package_is_an_error_and_not_a_gap(installed: Callable[[str, str, str], None]) -> None:
    installed("workbench.techniques", "plucked = aviary:Plucked", "raise RuntimeError('moult')")
    with pytest.raises(RuntimeError, match="moult"):
        members("techniques")
