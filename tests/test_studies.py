"""Several studies on disk: rename, copy, delete, compare, take over; and what must not be touched."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from fakes import Fake, FakeTask, Spoil

from workbench.errors import Refused, StoreError, TrialError, UserError
from workbench.measure.estimate import Estimate, proportion
from workbench.measure.machine import Machine
from workbench.measure.measurement import Measurement
from workbench.measure.outcomes import Outcomes
from workbench.recipe import Recipe
from workbench.running.owner import Owner
from workbench.running.store import Store
from workbench.studies import (
    compare_studies,
    delete_study,
    duplicate_study,
    import_trial,
    list_studies,
    rename_study,
)
from workbench.study import Study

pytestmark = pytest.mark.usefixtures("fake_plugins")

TARGETS = np.arange(40) % 2


def measured(wrong=0, speedup=2.0, machine=None, targets=TARGETS):
    answers = targets.copy()
    answers[:wrong] = 1 - answers[:wrong]
    seen = Outcomes(answers, targets, np.full(len(targets), 0.9), classes=2)
    return Measurement(
        proportion(int((answers == targets).sum()), len(targets)),
        "accuracy",
        speedup=Estimate(speedup, speedup - 0.1, speedup + 0.1, 10, "×"),
        machine=(machine or here()).to_json(),
        outcomes=seen,
    )


def here(**changes):
    return dataclasses.replace(MACHINE, **changes)


MACHINE = Machine(
    "a processor", "1.2.3", "x86_64", 2, 2, 2, None, ("avx2",), 8000, (), "Linux 6", "3.11", {"torch": "2.13"}, 0.1
)


def recipe(count=None):
    return Recipe(*([Spoil(count=count)] if count else []), backend=Fake())


def make_study(folder, trials=((None, 0, 1.0), (1, 1, 2.0), (2, 2, 3.0)), task=None, machine=None):
    """A study with measured trials: (what it spoils, wrong answers, speed-up)."""
    Study(folder, task or FakeTask())
    store = Store(folder, create=False)
    for count, wrong, speedup in trials:
        number = store.add(recipe(count)).number
        assert store.claim(number, Owner("me", "another-host", 1, 0.0))
        store.complete(number, measured(wrong, speedup, machine), 1.0)
        artifact = folder / "artifacts" / recipe(count).id
        artifact.mkdir(parents=True)
        (artifact / "fake.json").write_text(json.dumps({"spoiled": count or 0}))
    return folder


def set_running(folder):
    """A runner that is alive as far as anybody can see: this process."""
    Store(folder, create=False).set("runner:x", {"owner": Owner.me().to_json()})


def test_the_list_tells_what_is_there_and_what_cannot_be_read(tmp_path):
    make_study(tmp_path / "one")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.db").write_bytes(b"not a database at all, but long enough to be one" * 40)
    (tmp_path / "nothing").mkdir()
    rows = {row.name: row for row in list_studies(tmp_path)}
    assert set(rows) == {"one", "broken"}
    assert (rows["one"].trials, rows["one"].state, rows["one"].problem) == (3, "idle", "")
    assert rows["one"].size_mb > 0
    assert rows["one"].best == recipe(2).title
    assert "corrupt" in rows["broken"].problem


def test_a_link_that_leads_elsewhere_is_not_listed(tmp_path):
    make_study(tmp_path / "elsewhere" / "secret")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere" / "secret")
    assert list_studies(tmp_path / "root") == []


def test_rename_keeps_everything(tmp_path):
    before = [t.recipe.id for t in Study(make_study(tmp_path / "one")).trials]
    moved = rename_study(tmp_path / "one", "two")
    assert moved == tmp_path / "two"
    assert not (tmp_path / "one").exists()
    assert [t.recipe.id for t in Study(moved).trials] == before


@pytest.mark.parametrize("name", ["../out", "/abs", "a/b", "", ".hidden", "<b>", "x" * 101])
def test_names_that_are_no_names(tmp_path, name):
    make_study(tmp_path / "one")
    with pytest.raises(UserError, match="no name for a study"):
        rename_study(tmp_path / "one", name)
    assert (tmp_path / "one" / "study.db").is_file()


def test_a_taken_name_is_refused(tmp_path):
    make_study(tmp_path / "one")
    make_study(tmp_path / "two")
    for action in (rename_study, duplicate_study):
        with pytest.raises(UserError, match="already"):
            action(tmp_path / "one", "two")


def test_a_copy_stands_on_its_own(tmp_path):
    make_study(tmp_path / "one")
    store = Store(tmp_path / "one", create=False)
    store.set("queue:abc", {"recipe": recipe(5).to_json()})
    store.set("runner:dead", {"owner": Owner("dead", "another-host", 1, 0.0).to_json()})
    copy = duplicate_study(tmp_path / "one")
    assert copy.name == "one-copy"
    assert duplicate_study(tmp_path / "one").name == "one-copy-2"
    attributes = Store(copy, create=False).attributes()
    assert attributes["copy_of"] == "one"
    assert attributes["queue:abc"] is None
    assert attributes["runner:dead"] is None
    assert Store(tmp_path / "one", create=False).get("queue:abc") is not None
    Store(copy, create=False).add(recipe(7))
    assert (len(Study(copy).trials), len(Study(tmp_path / "one").trials)) == (4, 3)
    delete_study(tmp_path / "one")
    assert (copy / "artifacts" / recipe(1).id / "fake.json").read_text() == '{"spoiled": 1}'


def test_nothing_touches_a_running_study(tmp_path):
    folder = make_study(tmp_path / "one")
    other = make_study(tmp_path / "two", trials=((None, 0, 1.0), (9, 3, 2.0)))
    set_running(folder)
    for action in (
        lambda: rename_study(folder, "new"),
        lambda: duplicate_study(folder),
        lambda: delete_study(folder),
        lambda: import_trial(folder, other, 1),
    ):
        with pytest.raises(UserError, match="running"):
            action()
    assert len(Study(folder).trials) == 3
    assert sorted(path.name for path in tmp_path.iterdir() if path.name in ("one", "two", "new")) == ["one", "two"]


def test_delete_removes_studies_only(tmp_path):
    delete_study(make_study(tmp_path / "one"))
    assert not (tmp_path / "one").exists()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.txt").write_text("x")
    with pytest.raises(StoreError, match="is no study"):
        delete_study(tmp_path / "data")
    assert (tmp_path / "data" / "precious.txt").is_file()


def test_a_study_in_a_shared_database_is_not_moved(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    Study(tmp_path / "one", FakeTask(), store=url)
    for action in (lambda: rename_study(tmp_path / "one", "two"), lambda: duplicate_study(tmp_path / "one")):
        with pytest.raises(Refused, match="shared database"):
            action()


def test_two_studies_recipe_by_recipe(tmp_path):
    one = make_study(tmp_path / "one")
    two = make_study(tmp_path / "two", trials=((None, 0, 1.0), (1, 4, 2.5), (3, 3, 4.0)))
    found = compare_studies(one, two)
    rows = {row["title"]: row for row in found.frame.to_dict("records")}
    shared = rows[recipe(1).title]
    # Three more of forty answers are wrong in the second.
    assert shared["drop"] == pytest.approx(3 / 40)
    assert shared["drop_low"] <= 3 / 40 <= shared["drop_high"]
    assert shared["verdict"] == "faster in the second"
    assert rows[recipe(2).title]["verdict"] == "in the first only"
    assert rows[recipe(3).title]["verdict"] == "in the second only"
    assert rows[recipe().title]["verdict"] == ""
    assert found.notes == []


def test_a_comparison_says_what_differs_around_it(tmp_path):
    one = make_study(tmp_path / "one")
    elsewhere = here(cpu="another processor", versions={"torch": "2.12"})
    two = make_study(tmp_path / "two", task=FakeTask(report=True), machine=elsewhere)
    notes = compare_studies(one, two).notes
    assert "report: False in one, True in two" in notes
    assert any("different machines" in note for note in notes)
    assert "torch: 2.13 in one, 2.12 in two" in notes


def test_other_examples_are_not_paired(tmp_path):
    one = make_study(tmp_path / "one")
    two = tmp_path / "two"
    Study(two, FakeTask())
    store = Store(two, create=False)
    number = store.add(recipe()).number
    store.claim(number, Owner("me", "another-host", 1, 0.0))
    store.complete(number, measured(targets=np.arange(30) % 2), 1.0)
    row = compare_studies(one, two).frame.set_index("title").loc[recipe().title]
    assert np.isnan(row["drop"])


def test_a_trial_is_taken_over_with_its_model(tmp_path):
    one = make_study(tmp_path / "one")
    two = make_study(tmp_path / "two", trials=((None, 0, 1.0), (9, 3, 2.0)))
    made = import_trial(one, two, 1)
    assert made.number == 3
    assert made.state == "complete"
    assert made.measurement == Study(two).trials[1].measurement
    assert made.meta["imported"]["study"] == "two"
    assert Study(one).trials[3].recipe == recipe(9)
    assert (one / "artifacts" / recipe(9).id / "fake.json").is_file()
    with pytest.raises(UserError, match="already, as trial 3"):
        import_trial(one, two, 1)
    assert len(Study(one).trials) == 4


def test_models_of_an_earlier_version_are_found(tmp_path, monkeypatch):
    """A new knob changes the ids of all recipes that have it; what was built before keeps its folder."""
    one = make_study(tmp_path / "one")
    monkeypatch.setattr(Recipe, "id", property(lambda self: f"new-{len(self.steps)}"))
    # Its folder is found; that this one holds no real model is another matter.
    with pytest.raises(UserError, match="is no artifact"):
        Study(one).artifact(1)
    assert Study(one).trials[1].folder != Study(one).trials[1].recipe.id
    (one / "artifacts" / Study(one).trials[1].folder / "fake.json").unlink()
    (one / "artifacts" / Study(one).trials[1].folder).rmdir()
    with pytest.raises(TrialError, match="model of trial 1 is gone"):
        Study(one).artifact(1)


def test_what_may_not_be_taken_over(tmp_path):
    one = make_study(tmp_path / "one")
    with pytest.raises(UserError, match="no measured trial 7"):
        import_trial(one, make_study(tmp_path / "two"), 7)
    other_task = make_study(tmp_path / "three", trials=((None, 0, 1.0), (9, 3, 2.0)), task=FakeTask(report=True))
    with pytest.raises(Refused, match="another task"):
        import_trial(one, other_task, 1)
    elsewhere = here(cpu="another processor")
    far = make_study(tmp_path / "four", trials=((None, 0, 1.0), (9, 3, 2.0)), machine=elsewhere)
    with pytest.raises(Refused, match="another machine"):
        import_trial(one, far, 1)
    assert import_trial(one, far, 1, other_machine=True).number == 3
    Study(tmp_path / "empty", FakeTask())
    with pytest.raises(UserError, match="no measured baseline"):
        import_trial(tmp_path / "empty", far, 1)
