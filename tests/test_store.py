"""The store's bad days: locked, read-only, newer, corrupt, full, forbidden; and its promises about trials."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from fakes import Fake, FakeTask, Spoil

from workbench.errors import ResourceError, StoreError
from workbench.recipe import Recipe
from workbench.running.owner import Owner
from workbench.running.store import FORMAT, Store, retried
from workbench.study import Study

pytestmark = pytest.mark.usefixtures("fake_plugins")

RECIPE = Recipe(Spoil(count=2), backend=Fake())


def test_corrupt_store_is_kept_aside_and_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"this is no database, but somebody may want it" * 100)
    with pytest.raises(StoreError, match=r"kept aside as study\.db\.corrupt"):
        Study(tmp_path, FakeTask())
    (aside,) = tmp_path.glob("study.db.corrupt-*")
    assert aside.read_bytes().startswith(b"this is no database")
    assert Study(tmp_path, FakeTask()).trials == []


def test_damaged_database_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for count in range(1, 30):
        store.add(Recipe(Spoil(count=count), backend=Fake()))
    path = tmp_path / "study.db"
    content = bytearray(path.read_bytes())
    content[8192:40960] = os.urandom(40960 - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="corrupt"):
        Store(tmp_path)


def test_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).set("format", FORMAT + 1)
    before = (tmp_path / "study.db").read_bytes()
    with pytest.raises(StoreError, match="newer workbench"):
        Store(tmp_path)
    assert (tmp_path / "study.db").read_bytes() == before


def test_locked_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    holder = sqlite3.connect(tmp_path / "study.db")
    holder.execute("BEGIN EXCLUSIVE")
    store._storage._backend.engine.dispose()
    quick = {"connect_args": {"timeout": 0.1}}
    import optuna

    with pytest.raises(StoreError, match="locked by another process"), store._translated():
        optuna.storages.RDBStorage(store.url, engine_kwargs=quick)
    holder.rollback()
    holder.close()
    assert store.trials() == []


def test_locked_store_is_tried_again() -> None:
    answers = iter([StoreError("x is locked by another process."), StoreError("x is locked"), None])

    def action() -> str:
        answer = next(answers)
        if answer:
            raise answer
        return "done"

    assert retried(action, wait=0.01) == "done"


def test_read_only_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    connection = sqlite3.connect(f"file:{tmp_path / 'study.db'}?mode=ro", uri=True)
    with pytest.raises(StoreError, match="read-only"), store._translated():
        connection.execute("CREATE TABLE t (x)")


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "disk .* is full"), (errno.EACCES, "No permission"), (errno.EROFS, "No permission")],
)
def test_disk_and_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ResourceError, match=words):
        Store(tmp_path / "new")
    monkeypatch.undo()
    assert not (tmp_path / "new").exists()


def test_disk_that_fills_up_while_a_trial_is_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.compress import compress

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Fake, "lower", full)
    with pytest.raises(ResourceError, match="No space left"):
        compress(FakeTask(), RECIPE, tmp_path / "artifact")
    assert list(tmp_path.glob("artifact*")) == []


def test_same_recipe_added_by_many_at_once_is_one_trial(tmp_path: Path) -> None:
    Store(tmp_path)
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.append(Store(tmp_path).add(RECIPE).number)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == [0] * 6
    assert len(Store(tmp_path).trials()) == 1


def test_only_one_claim_wins(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    number = first.add(RECIPE).number
    assert first.claim(number, Owner.me())
    assert not second.claim(number, Owner.me())


def test_trial_of_a_dead_owner_waits_again_and_one_of_a_living_owner_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.running.store.CLAIM_SECONDS", 0.0)
    store = Store(tmp_path)
    number = store.add(RECIPE).number
    me = Owner.me()
    store.claim(number, me)
    assert store.recover() == []
    # The process number of a dead owner may be in use again, by a process that started later.
    store.release(number)
    store.claim(number, Owner(me.id, me.host, me.pid, me.started - 1000))
    assert store.recover() == [number]
    assert store.trials()[0].state == "waiting"


def test_any_optuna_url_is_taken_and_remembered(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    Study(tmp_path / "a", FakeTask(), store=url)
    Study(tmp_path / "b", FakeTask(report=True), store=url)
    assert Study(tmp_path / "a").task.report is False
    assert Study(tmp_path / "b").task.report is True
    assert not (tmp_path / "a" / "study.db").exists()


def test_no_pickle_in_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(RECIPE)
    with sqlite3.connect(tmp_path / "study.db") as connection:
        rows = connection.execute("SELECT value_json FROM trial_user_attributes").fetchall()
    assert rows
    assert all(isinstance(value, str) for (value,) in rows)
