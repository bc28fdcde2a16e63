"""Data files: every format gives the same rows, and every way to be wrong gets a message that says where."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_folders import LABELS, rows, write_tsv

from workbench.errors import DataError, ModelError, UserError
from workbench.loading.columns import choose_columns
from workbench.loading.data import Labelled, find_tables, read_split
from workbench.loading.labels import map_labels
from workbench.loading.splits import assign, set_aside, stratified
from workbench.loading.tables import Table, read_table

TRICKY = [
    ('he said "no, never" and left', 0),
    ("naïve — it's <b>good</b>, 100 %", 1),
    ("one\u2028line", 1),
    ('" never closed', 0),
]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def read(path: Path, labels: tuple[str, ...] = LABELS, **options: object) -> tuple[list[tuple[str, ...]], list[int]]:
    part = read_split([path], labels, **options)[0]  # type: ignore[arg-type]
    return part.texts, part.targets.tolist()


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"text": [text for text, _ in TRICKY], "label": [label for _, label in TRICKY]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "a.json", orient="records")
    frame.to_parquet(tmp_path / "a.parquet")
    write_tsv(tmp_path / "a.tsv", TRICKY, "text\tlabel")
    write(tmp_path / "bom.csv", "\ufeff" + (tmp_path / "a.csv").read_text("utf-8").replace("\n", "\r\n"))
    expected = [(text,) for text, _ in TRICKY], [label for _, label in TRICKY]
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "bom.csv"):
        assert read(tmp_path / name) == expected, name


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [
        ("idx sentence label", ("sentence",), "label"),
        ("Review Sentiment", ("Review",), "Sentiment"),
        ("id question1 question2 is_duplicate label", ("question1", "question2"), "label"),
        ("premise hypothesis label idx", ("premise", "hypothesis"), "label"),
        ("title description class", ("title", "description"), "class"),
        ("title text stars", ("text",), "stars"),
        ("text question passage label", ("text",), "label"),
    ],
)
def test_columns_are_guessed(names: str, text: tuple[str, ...], label: str) -> None:
    chosen = choose_columns(Table("x", {name: ["a"] for name in names.split()}))
    assert (chosen.text, chosen.label) == (text, label)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,body,label,mark\nx,long text,0,1\ny,other text,1,0\n")
    assert read(path, text=("body",), label="mark") == ([("long text",), ("other text",)], [1, 0])


def test_a_file_without_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a fine film\tpositive\na bad film\tnegative\nnot bad\tpositive\n")
    part, notes, _ = read_split([path], LABELS)
    assert part.texts == [("a fine film",), ("a bad film",), ("not bad",)]
    assert part.targets.tolist() == [1, 0, 1]
    assert notes == [f"{path} has no header: column 0 was taken as text and column 1 as label."]
    assert read(path, text=("0",), label="1")[1] == [1, 0, 1]


def test_no_such_column(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "a.tsv", rows(4))
    with pytest.raises(DataError, match="no column 'sentense', did you mean 'sentence'") as caught:
        read(path, text=("sentense",))
    assert "sentence, label" in str(caught.value)
    with pytest.raises(DataError, match="no column 'lable', did you mean 'label'"):
        read(path, label="lable", must=True)
    nothing = write(tmp_path / "b.csv", "id,when\n1,2\n2,3\n")
    with pytest.raises(DataError, match="looks like text: id, when"):
        read(nothing)
    unlabelled = write(tmp_path / "c.csv", "text,when\na,2\nb,3\n")
    with pytest.raises(DataError, match="looks like a label: text, when"):
        read(unlabelled, must=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,label\n", "has no rows"),
        ("a.csv", b"text,label\na,0\nb,1,2\n", "Line 3 of .* has 3 fields, and the first line has 2"),
        ("a.csv", b'text,label\n"a,0\nb,1\n', "Line . of .* cannot be read: unexpected end of data"),
        ("a.csv", b"text,text\na,0\n", "two columns of one name"),
        ("a.csv", b"text,label\nfine,1\ncaf\xe9,0\n", "is not UTF-8: byte 0xe9 in line 3"),
        ("a.tsv", "text\tlabel\na\t1\n".encode("utf-16"), "is not UTF-8: byte 0xff in line 1"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": \n', "Line 2 of .* is not JSON"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n7\n', "line 2 of .* is not an object"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": 5, "label": 1}\n', "holds int 5 in line 2"),
        ("a.parquet", b"PAR1 nonsense", "cannot be read as Parquet"),
        ("a.xlsx", b"PK", "is of a kind that cannot be read"),
        ("a.csv", b"text,label\n,0\n  ,1\n", "No row of .* has a text"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name)
    assert caught.value.allowed or caught.value.do


def test_wrong_encoding_gives_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,label\ncafé,0\n".encode("latin-1"))
    with pytest.raises(DataError, match="iconv -f WINDOWS-1252 -t UTF-8"):
        read(tmp_path / "a.csv")


def test_rows_that_miss_something_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nfine,1\n,0\nbad,\npoor,0\n")
    part, notes, _ = read_split([path], LABELS)
    assert (part.texts, part.targets.tolist()) == ([("fine",), ("poor",)], [1, 0])
    assert notes == [
        f"1 row(s) without text were left out, the first in line 3 of {path}.",
        f"1 row(s) without label were left out, the first in line 4 of {path}.",
    ]


@pytest.mark.parametrize(
    ("values", "labels", "expected"),
    [
        (["0", "1"], LABELS, [0, 1]),
        ([1.0, 0.0], LABELS, [1, 0]),
        (["1.0", "0.0"], LABELS, [1, 0]),
        (["Positive", " NEGATIVE "], LABELS, [1, 0]),
        ([True, False], ("no", "yes"), None),
        ([True, False], ("false", "true"), [1, 0]),
        ([None, float("nan"), "", -1, 1], LABELS, [-1, -1, -1, -1, 1]),
        (["label_1", "LABEL_0"], ("LABEL_0", "LABEL_1"), [1, 0]),
        # A class called "1" is meant by its name, whatever its index.
        (["1", "5"], ("5", "1"), [1, 0]),
    ],
)
def test_labels_are_mapped(values: list[object], labels: tuple[str, ...], expected: list[int] | None) -> None:
    table = Table("x", {"label": list(values)})
    if expected is None:
        with pytest.raises(DataError, match="label 'True' in row 0 of x is unknown"):
            map_labels(table, "label", labels)
    else:
        assert map_labels(table, "label", labels).indices.tolist() == expected


def test_class_names_win_over_indices() -> None:
    """MNLI numbers its classes otherwise than many models for it."""
    table = Table("x", {"label": [0, 1, 2]}, classes={"label": ("entailment", "neutral", "contradiction")})
    mapped = map_labels(table, "label", ("CONTRADICTION", "ENTAILMENT", "NEUTRAL"))
    assert mapped.indices.tolist() == [1, 2, 0]
    numbered = map_labels(table, "label", ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert (numbered.indices.tolist(), numbered.names) == ([0, 1, 2], ("entailment", "neutral", "contradiction"))
    other = map_labels(table, "label", ("x", "y", "z"))
    assert other.indices.tolist() == [0, 1, 2]
    assert "matched by index" in other.note


def test_a_map_of_labels() -> None:
    table = Table("x", {"stars": ["1", "3", "5"]})
    assert map_labels(table, "stars", LABELS, {"1": "Negative", "3": 0, "5": 1}).indices.tolist() == [0, 0, 1]
    with pytest.raises(DataError, match="sends '5' to 'great', which is no class"):
        map_labels(table, "stars", LABELS, {"1": 0, "5": "great"})
    with pytest.raises(DataError, match="label '3' in row 1 of x is unknown"):
        map_labels(table, "stars", LABELS, {"1": 0, "5": 1})


def test_labels_that_the_model_does_not_know(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,positive\nb,Meh\n")
    with pytest.raises(DataError, match=r"label 'Meh' in line 3 of .* is unknown to the model") as caught:
        read(path)
    assert "1 or 'positive'" in caught.value.allowed
    assert "labels_map=" in caught.value.do


def test_a_head_that_does_not_fit() -> None:
    table = Table("news.csv", {"class": ["World", "Sports", "Business", "Sci/Tech"]})
    with pytest.raises(ModelError, match=r"2 classes \(negative, positive\), and news.csv has 4 \(Business, Sci/Tech"):
        map_labels(table, "class", LABELS)
    named = Table("x", {"label": [0, 1]}, classes={"label": ("a", "b", "c")})
    with pytest.raises(ModelError, match=r"has 3 \(a, b, c\)"):
        map_labels(named, "label", LABELS)


def examples(count: int, start: int = 0, labelled: bool = True) -> Labelled:
    drawn = rows(count, start)
    targets = np.array([label if labelled else -1 for _, label in drawn])
    return Labelled([(text,) for text, _ in drawn], targets)


def texts(part: Labelled) -> set[str]:
    return {text for (text,) in part.texts}


def test_splits_of_a_full_data_set() -> None:
    found = {"train": examples(60), "validation": examples(20, 200), "test": examples(20, 400)}
    splits = assign(found, limit=None)
    assert splits.origin == {"select": "validation", "calibration": "train", "report": "test"}
    assert splits.select.texts == found["validation"].texts
    assert splits.report.texts == found["test"].texts
    assert splits.calibration.texts != found["train"].texts
    assert sorted(splits.calibration.texts) == sorted(found["train"].texts)
    assert splits.calibration.texts == assign(found, limit=None).calibration.texts
    assert splits.calibration.texts != assign(found, limit=None, seed=1).calibration.texts
    assert splits.notes == []


def test_an_unlabelled_test_split_is_not_reported_on() -> None:
    found = {"train": examples(60), "dev": examples(20, 200), "test": examples(20, 400, labelled=False)}
    splits = assign(found, limit=None)
    assert (splits.origin["select"], len(splits.report)) == ("dev", 0)
    del found["train"]
    assert assign(found, limit=None).origin == {"select": "dev", "calibration": "test"}


def test_a_reserved_share_is_stratified_and_apart() -> None:
    targets = np.array([0] * 30 + [1] * 10)
    found = {"train": examples(60), "dev": Labelled([(f"t{i}",) for i in range(40)], targets)}
    splits = assign(found, reserve=0.5, limit=None)
    assert (len(splits.select), len(splits.report)) == (20, 20)
    assert np.bincount(splits.report.targets).tolist() == [15, 5]
    assert not texts(splits.select) & texts(splits.report)
    assert splits.origin["report"] == "50% of dev"
    with pytest.raises(UserError, match="no share"):
        assign(found, reserve=1.0, limit=None)


def test_one_file_is_parted_and_said() -> None:
    splits = assign({"reviews": examples(100)}, limit=None)
    assert (len(splits.calibration), len(splits.select)) == (50, 50)
    assert not texts(splits.calibration) & texts(splits.select)
    assert "50 of its examples are set aside for calibration" in splits.notes[0]
    assert [set_aside(size) for size in (100, 872, 2000, 60_000)] == [50, 300, 400, 1000]
    few = assign({"reviews": examples(10)}, limit=None)
    assert len(few.select) == len(few.calibration) == 10
    assert "share them" in few.notes[0]


def test_measuring_on_training_data_is_said() -> None:
    splits = assign({"train": examples(100), "dev": examples(20, 200, labelled=False)}, limit=None)
    assert splits.origin["select"] == "train"
    assert "what the model may have learned" in splits.notes[0]


def test_a_named_split_and_a_limit() -> None:
    found = {"train": examples(60), "validation_a": examples(20, 200), "validation_b": examples(20, 400)}
    assert assign(found, limit=None).origin["select"] == "validation_a"
    splits = assign(found, split="validation_b", limit=10)
    assert texts(splits.select) <= texts(found["validation_b"])
    assert np.bincount(splits.select.targets).tolist() == [5, 5]
    assert "Limited to 10" in splits.notes[0]
    with pytest.raises(DataError, match="no split 'holdout'"):
        assign(found, split="holdout", limit=None)


def test_one_class_is_refused() -> None:
    one = Labelled([("a",), ("b",)], np.array([1, 1]))
    with pytest.raises(DataError, match="one class"):
        assign({"train": examples(60), "dev": one}, limit=None)


def test_stratified_keeps_the_count() -> None:
    targets = np.array([0] * 7 + [1] * 5 + [2] * 3)
    for count in range(16):
        drawn = stratified(targets, count, np.random.default_rng(count))
        assert len(drawn) == len(set(drawn.tolist())) == count
    assert np.bincount(targets[stratified(targets, 9, np.random.default_rng(0))]).tolist() == [4, 3, 2]


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "dev.jsonl", "README.md"):
        write(tmp_path / name, json.dumps({"text": name, "label": 0}) + "\n")
    found = find_tables(tmp_path)
    assert {name: len(files) for name, files in found.items()} == {"train": 2, "dev": 1}
    assert read_split(found["train"], LABELS)[0].texts == [
        ("train-00000-of-00002.jsonl",),
        ("train-00001-of-00002.jsonl",),
    ]
    write(tmp_path / "dev.csv", "text,label\na,0\n")
    with pytest.raises(DataError, match="'dev' stands twice"):
        find_tables(tmp_path)
    with pytest.raises(DataError, match="no data file"):
        find_tables(write(tmp_path / "empty" / "x.txt", "").parent)
    with pytest.raises(DataError, match="no file or folder"):
        find_tables(tmp_path / "absent")


def test_class_names_in_parquet(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features).to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").classes == {"label": ("neg", "pos")}


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    path = write_tsv(tmp_path / "a.tsv", rows(4))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match="may not be read: Permission denied"):
        read_table(path)
