"""The text classification task: sources of model and data, splits, drafts, and what carries it to another process."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_folders import LABELS, rows, save_model, save_onnx, save_tokenizer, write_splits, write_tsv

from workbench.errors import DataError, HubError, ModelError, ResourceError, UnknownName, UnsafeModel, UserError
from workbench.study import Study
from workbench.tasks.base import make_task, task_from_json
from workbench.tasks.text_classification import TextClassification


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that no test may change."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    save_model(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_splits(tmp_path / "data")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def right(task: TextClassification, batch: int = 32) -> int:
    """The number of right answers of the draft's module, as plain PyTorch counts them."""
    import torch

    from workbench.backends.base import collate

    draft, examples, targets = task.draft(), task.encoded("select"), task.targets("select")
    count = 0
    with torch.no_grad():
        for start in range(0, len(examples), batch):
            chunk = examples[start : start + batch]
            arrays = collate(chunk, max(len(example["input_ids"]) for example in chunk), draft.pad)
            output = draft.module(**{name: torch.from_numpy(arrays[name]) for name in draft.inputs})
            count += int((output.logits.argmax(-1).numpy() == targets[start : start + batch]).sum())
    return count


def test_constructing_is_cheap() -> None:
    """No task may import torch before it is asked for something."""
    code = (
        "import sys; from workbench.tasks.text_classification import TextClassification as T;"
        "t = T('owner/name', 'glue/sst2'); t.to_json();"
        "print([m for m in ('torch', 'transformers', 'datasets', 'huggingface_hub', 'onnx') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == "[]"


def test_a_folder_with_split_files(model: Path, data: Path) -> None:
    task = TextClassification(model, data)
    told: list[tuple[float, str]] = []
    task.prepare(lambda share, what: told.append((share, what)))
    assert told[-1] == (1.0, "ready")
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    assert task.sizes() == {"calibration": 30, "select": 20, "report": 0}
    assert task.labels == LABELS
    assert task.targets("select").tolist() == [0, 1] * 10
    assert task.texts("select", 1) == [(rows(1, 1000)[0][0],)]
    example = task.encoded("select")[0]
    assert list(example) == ["input_ids", "attention_mask", "token_type_ids"]
    about = task.describe()
    assert about["origin"] == {"select": "dev", "calibration": "train"}
    assert about["label_counts"] == {"negative": 10, "positive": 10}
    assert about["reported_on"] == "select"
    assert any("same examples" in note for note in about["notes"])
    json.dumps(about)


def test_preview_shows_texts_as_they_are(model: Path, tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "a.tsv", [("<b> good & bad </b>", 1), ("not good", 0)])
    first = TextClassification(model, path).preview(limit=1)[0]
    assert first == {
        "text": ("<b> good & bad </b>",),
        "label": "positive",
        "tokens": ["[CLS]", "<b>", "good", "[UNK]", "bad", "[UNK]", "[SEP]"],
        "length": 7,
    }


def test_pairs(model: Path, tmp_path: Path) -> None:
    lines = ["premise,hypothesis,label", *(f"it is {word},a film,{i % 2}" for i, word in enumerate("abcdefgh"))]
    (tmp_path / "nli.csv").write_text("\n".join(lines))
    task = TextClassification(model, tmp_path / "nli.csv")
    assert task.texts("select", 1) == [("it is a", "a film")]
    assert task.encoded("select", 1)[0]["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1, 1]
    one = TextClassification(model, tmp_path / "nli.csv", text="hypothesis")
    assert one.texts("select", 1) == [("a film",)]
    both = TextClassification(model, tmp_path / "nli.csv", text="hypothesis, premise")
    assert both.texts("select", 1) == [("a film", "it is a")]
    with pytest.raises(UserError, match="names 3 columns"):
        TextClassification(model, data="x", text="a,b,c")


def test_splits_of_different_width(model: Path, tmp_path: Path) -> None:
    write_tsv(tmp_path / "train.tsv", rows(4), "text\tlabel")
    (tmp_path / "test.csv").write_text("title,description,label\na,b,0\nc,d,1\n")
    with pytest.raises(DataError, match="one text column and some have two"):
        TextClassification(model, tmp_path).prepare()


def test_another_process_sees_the_same_task(model: Path, data: Path) -> None:
    task = TextClassification(model, data, reserve=0.5, seed=3, sequence=16, labels_map={"0": "negative", "1": 1})
    code = (
        "import json, sys; from workbench.tasks.base import task_from_json;"
        "t = task_from_json(json.loads(sys.argv[1])); t.prepare(); t.draft();"
        "print(json.dumps([t.fingerprint(), t.encoded('calibration', 3), t.targets('report').tolist()]))"
    )
    carried = json.dumps(task.to_json())
    assert task_from_json(json.loads(carried)) == task
    ran = subprocess.run([sys.executable, "-c", code, carried], check=True, capture_output=True, text=True, timeout=120)
    there = json.loads(ran.stdout)
    # No bar, and none of the notes that transformers' imports print.
    assert ran.stderr == ""
    assert there == [task.fingerprint(), task.encoded("calibration", 3), task.targets("report").tolist()]


def test_what_the_fingerprint_sees(model: Path, data: Path, tmp_path: Path) -> None:
    def fingerprint(**options: Any) -> str:
        return TextClassification(options.pop("model", model), options.pop("data", data), **options).fingerprint()

    first = fingerprint()
    assert fingerprint() == first
    copy = write_splits(tmp_path / "copy")
    assert fingerprint(data=copy) == first
    others = [
        fingerprint(metric="f1"),
        fingerprint(sequence=64),
        fingerprint(seed=1),
        fingerprint(reserve=0.5),
        fingerprint(limit=10),
        fingerprint(split="train"),
        fingerprint(data=write_splits(tmp_path / "other", dev=22)),
    ]
    assert len({first, *others}) == len(others) + 1


def test_the_draft(model: Path, data: Path) -> None:
    task = TextClassification(model, data, sequence=5)
    draft = task.draft()
    assert draft.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert draft.pad == task.pad() == {"input_ids": 0, "attention_mask": 0, "token_type_ids": 0}
    assert not any(part.training for part in draft.module.modules())
    assert draft.module is not task.draft().module
    assert draft.onnx is None
    assert draft.labels == LABELS
    assert len(draft.quantizable()) == len(draft.facts.layers) == 14
    calibration = draft.data.calibration(30)
    assert calibration == task.encoded("calibration")
    assert {len(example["input_ids"]) for example in calibration} == {5}
    with pytest.raises(DataError, match="31 calibration examples were asked for, and the training data has 30"):
        draft.data.calibration(31)


def test_unlabelled_calibration_has_no_targets(model: Path, tmp_path: Path) -> None:
    write_tsv(tmp_path / "dev.tsv", rows(10))
    write_tsv(tmp_path / "test.tsv", [(text, "") for text, _ in rows(10, 50)], "sentence\tid")
    task = TextClassification(model, tmp_path)
    assert len(task.encoded("calibration")) == 10
    with pytest.raises(DataError, match="calibration examples have no labels"):
        task.targets("calibration")


def test_live_objects(tmp_path: Path, data: Path) -> None:
    import datasets
    import pandas as pd

    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    module = save_model(tmp_path / "bert")
    labels = datasets.ClassLabel(names=["Positive", "Negative"])
    parts = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {"text": [text for text, _ in drawn], "label": [1 - label for _, label in drawn]},
                datasets.Features(text=datasets.Value("string"), label=labels),
            )
            for name, drawn in {"train": rows(30), "validation": rows(20, 1000)}.items()
        }
    )
    task = TextClassification(module, parts, tokenizer=tokenizer)
    task.prepare()
    saved = TextClassification(tmp_path / "bert", data)
    assert task.encoded("select") == saved.encoded("select")
    assert task.targets("select").tolist() == saved.targets("select").tolist()
    assert task.fingerprint() == saved.fingerprint()
    again = TextClassification(module, parts, tokenizer=tokenizer)
    assert (again.model, again.data) == (task.model, task.data)
    frame = TextClassification(module, pd.DataFrame(rows(60), columns=["text", "label"]), tokenizer=tokenizer)
    assert frame.sizes() == {"calibration": 30, "select": 30, "report": 0}
    with pytest.raises(DataError, match="cannot be read"):
        TextClassification(module, 7, tokenizer=tokenizer)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="holds no tokenizer"):
        TextClassification(module, data).prepare()


def test_a_cache_that_cannot_be_written(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    part = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ResourceError, match="could not be written"):
        TextClassification("owner/name", part)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))

    def full(path: str) -> None:
        (Path(path).parent / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device", path)

    part.to_parquet = full
    with pytest.raises(ResourceError, match="The disk is full"):
        TextClassification("owner/name", part)
    assert list((tmp_path / "cache" / "data").iterdir()) == []


def test_cut_texts_are_told(model: Path, data: Path) -> None:
    notes = TextClassification(model, data, sequence=5).describe()["notes"]
    assert "20 of 20 texts looked at fill all 5 tokens; longer ones are cut there." in notes
    assert not any("are cut" in note for note in TextClassification(model, data).describe()["notes"])


def test_an_onnx_task(tmp_path: Path, data: Path) -> None:
    path = save_onnx(tmp_path / "onnx" / "model.onnx")
    task = TextClassification(path, data)
    task.prepare()
    draft = task.draft()
    assert (draft.module, draft.onnx) == (None, path)
    assert draft.inputs == ("input_ids",)
    assert draft.quantizable() == ["classifier"]
    assert task.labels == ("LABEL_0", "LABEL_1")
    assert TextClassification(path.parent, data).draft().onnx == path
    save_tokenizer(tmp_path / "elsewhere")
    for file in path.parent.glob("token*"):
        file.unlink()
    with pytest.raises(ModelError, match="holds no tokenizer"):
        TextClassification(path, data).prepare()
    TextClassification(path, data, tokenizer=tmp_path / "elsewhere").prepare()


COLLATE = """
import torch
from torch import nn

class Lengths(nn.Module):
    def forward(self, lengths):
        mean = lengths.float().mean(1, keepdim=True)
        return torch.cat([-mean, mean], 1)

def collate(texts):
    return {"lengths": [[len(word) for word in texts[0].split()]]}

collate.pad = {"lengths": 9}
"""


def test_a_module_with_a_collate_function(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lengths_of_mine.py").write_text(COLLATE)
    monkeypatch.syspath_prepend(str(tmp_path))
    task = TextClassification("lengths_of_mine:Lengths", data, collate="lengths_of_mine:collate")
    task.prepare()
    draft = task.draft()
    assert draft.factory == "lengths_of_mine:Lengths"
    assert (draft.inputs, draft.pad) == (("lengths",), {"lengths": 9})
    assert task.encoded("select", 1) == [{"lengths": [len(word) for word in task.texts("select")[0][0].split()]}]
    sys.modules.pop("lengths_of_mine")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "./absent"}, ModelError, "no file or folder ./absent"),
        ({"model": "absent.onnx"}, ModelError, "no file or folder"),
        ({"model": "owner/absent"}, HubError, "HF_HUB_OFFLINE=1"),
        ({"data": "absent.csv"}, DataError, "no file or folder"),
        ({"data": "owner/absent"}, HubError, "HF_HUB_OFFLINE=1"),
        ({"model": "no id at all!"}, ModelError, "no file or folder"),
        ({"metric": "acuracy"}, UnknownName, "did you mean 'accuracy'"),
        ({"text": "body"}, DataError, "no column 'body'"),
        ({"label": "mark"}, DataError, "no column 'mark'"),
        ({"split": "holdout"}, DataError, "no split 'holdout'"),
        ({"reserve": 2}, UserError, "no share"),
        ({"limit": 0}, UserError, "leaves nothing"),
        ({"sequence": 129}, UserError, "2 to 128 tokens"),
        ({"sequence": 1}, UserError, "sequence = 1"),
        ({"labels_map": {"0": "neutral"}}, DataError, "no class of the model"),
    ],
)
def test_what_is_refused(model: Path, data: Path, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        TextClassification(**{"model": model, "data": data, **options}).prepare()
    assert caught.value.allowed or caught.value.do


def test_single_files_that_are_no_model(tmp_path: Path, data: Path) -> None:
    save_model(tmp_path / "bert")
    with pytest.raises(ModelError, match="give the folder"):
        TextClassification(tmp_path / "bert" / "model.safetensors", data).prepare()
    (tmp_path / "model.pt").write_bytes(b"\x80\x02")
    with pytest.raises(UnsafeModel, match="is a pickle"):
        TextClassification(tmp_path / "model.pt", data).prepare()


def test_a_tokenizer_of_another_model(tmp_path: Path, data: Path) -> None:
    save_model(tmp_path / "bert", vocab_size=9)
    with pytest.raises(ModelError, match="knows tokens 0 to 8"):
        TextClassification(tmp_path / "bert", data).prepare()


def test_make_task(model: Path, data: Path) -> None:
    task = make_task(str(model), str(data), text="sentence", reserve=0.5)
    assert isinstance(task, TextClassification)
    assert task.sizes() == {"calibration": 30, "select": 10, "report": 10}
    with pytest.raises(UnknownName, match="did you mean 'reserve'"):
        make_task(str(model), str(data), reserv=0.5)


def test_paths_become_absolute(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    task = TextClassification(os.path.relpath(model), "data")
    assert (task.model, task.data) == (str(model), str(data))


@pytest.mark.slow
def test_the_real_model_on_sst2(assets: Path) -> None:
    task = TextClassification(assets / "models" / "minilm-l6-sst2", assets / "data" / "sst2")
    task.prepare()
    assert task.sizes() == {"calibration": 67349, "select": 872, "report": 0}
    assert np.bincount(task.targets("select")).tolist() == [428, 444]
    assert right(task) == 784


def test_the_real_files(assets: Path) -> None:
    """SST-2 is plain tabs; one file of AG News has no header; its four classes do not fit two."""
    model = assets / "models" / "minilm-l6-sst2"
    task = TextClassification(model, assets / "data" / "sst2", limit=50)
    assert task.sizes() == {"calibration": 67349, "select": 50, "report": 0}
    with pytest.raises(ModelError, match="has 4"):
        TextClassification(model, assets / "data" / "ag_news" / "train_10k.tsv").prepare()


def test_a_study_knows_its_task_whether_columns_are_named_or_guessed(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    data = write_splits(tmp_path / "data")
    guessed, named = make_task(tmp_path / "model", data), make_task(tmp_path / "model", data, text="sentence")
    Study(tmp_path / "s", guessed)
    assert Study(tmp_path / "s", named).task.fingerprint() == guessed.fingerprint()
    with pytest.raises(UserError, match="another task"):
        Study(tmp_path / "s", make_task(tmp_path / "model", data, metric="f1"))
