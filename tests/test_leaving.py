"""What one leaves with: a zip, its size, the card with licence and lineage, the hub, a notebook that runs again."""

from __future__ import annotations

import ast
import json
import zipfile
from types import SimpleNamespace

import pytest
from fake_models import LookedAt

import workbench
import workbench.export as export_module
from workbench.card import licence_of, lineage, model_card
from workbench.errors import HubError, UserError
from workbench.export import export, export_place, export_size, push
from workbench.notebook import laid_out, notebook, save_notebook, task_code
from workbench.recipe import Open, Space
from workbench.running.sweep import Sweep
from workbench.study import make_task
from workbench.tuning.goal import Goal

EVIL = "<img src=x onerror=alert(1)> **bold** [link](http://x) `code` | a"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study whose trial 1 has an artifact on disk, of a runtime that nobody loads."""
    study = LookedAt(tmp_path / "study")
    place = study.artifact(1).folder
    for name, size in (("model", 300_000), ("tokenizer", 100_000)):
        (place / name).mkdir(parents=True)
        (place / name / f"{name}.json").write_text(json.dumps({"text": "a" * size}))
    (place / "model" / "lowered.json").write_text(json.dumps({"base": "fp32", "dynamic_int8": False}))
    manifest = {**study.artifact(1).manifest, "inputs": ["input_ids"], "pad": {}}
    artifact = SimpleNamespace(folder=place, manifest=manifest, backend=study.trials[1].recipe.backend)
    study.artifact = lambda number: artifact
    monkeypatch.setattr(export_module, "_seen", lambda study, artifact: {"texts": [], "logits": [], "tolerance": 0})
    return study


def test_a_zip_holds_what_the_folder_holds(study, tmp_path):
    folder = export(study, 1, tmp_path / "out" / "plain")
    packed = export(study, 1, tmp_path / "out" / "packed.zip")
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    with zipfile.ZipFile(packed) as archive:
        assert {n.removeprefix("packed/") for n in archive.namelist() if not n.endswith("/")} == names
        assert archive.read("packed/run.py") == (folder / "run.py").read_bytes()
    assert {"run.py", "loader.py", "requirements.txt", "recipe.json", "measurement.json", "README.md"} <= names
    assert not list((tmp_path / "out").glob("*.part*"))
    with pytest.raises(UserError, match="holds something already"):
        export(study, 1, packed)


def test_size_before_is_the_size_after(study, tmp_path):
    size = export_size(study, 1)
    folder = export(study, 1, tmp_path / "plain")
    real = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    assert size.total == pytest.approx(real, abs=0.03)
    assert size.zipped < size.total / 5


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/b", "", ".hidden", "a\\b", "..", "x" * 200, "end."])
def test_an_export_stays_below_its_root(tmp_path, name):
    with pytest.raises(UserError):
        export_place(tmp_path, name)


def test_no_link_leads_out(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out"):
        export_place(tmp_path / "root", "link")
    assert export_place(tmp_path / "root", "my model", zipped=True) == tmp_path / "root" / "my model.zip"


# --- the card --------------------------------------------------------------------------------------------------------


def test_licence_is_read_from_card_or_file(tmp_path):
    assert licence_of(str(tmp_path)) == ""
    (tmp_path / "LICENSE").write_text("                  Apache License\n   Version 2.0, January 2004")
    assert licence_of(str(tmp_path)) == "apache-2.0"
    (tmp_path / "README.md").write_text("---\ntags:\n- a\nlicense: mit\n---\n# A model\nlicense: other\n")
    assert licence_of(str(tmp_path)) == "mit"
    (tmp_path / "README.md").write_text("---\nlicense: 'evil: [x]'\n---\n")
    assert licence_of(str(tmp_path)) == "apache-2.0"
    assert licence_of("owner/name") == ""


def test_card_tells_where_it_comes_from(tmp_path):
    study = LookedAt("study")
    study.prepared["describe"] = {"model": "owner/name", "revision": "v1", "data": "glue/sst2", "architecture": "Bert"}
    trial, manifest = study.trials[1], study.artifact(1).manifest
    told = lineage(study, trial, manifest)
    assert told["Original model"] == "owner/name"
    assert told["Licence of the original"] == "not known here: see https://huggingface.co/owner/name"
    card = model_card(study, trial, manifest)
    head = card.split("---")[1]
    for line in ("license: unknown", "base_model: owner/name", "base_model_relation: quantized", "- openvino"):
        assert f"\n{line}\n" in head
    assert "| accuracy | 0.875" in card
    assert repr(trial.recipe) in card


def test_nothing_in_a_card_takes_effect():
    study = LookedAt("study", evil=EVIL)
    study.name += EVIL
    card = model_card(study, study.trials[1], study.artifact(1).manifest)
    for part in ("<img", "**bold**", "[link](", "base_model:"):
        assert part not in card
    assert "&lt;img" in card
    assert all(line.count(" | ") == 1 for line in card.splitlines() if line.startswith("| Notes"))


# --- the hub ---------------------------------------------------------------------------------------------------------


class Api:
    calls: list = []  # noqa: RUF012 - emptied by each test
    error: Exception | None = None

    def __init__(self, token):
        self.calls.append(("token", token))

    def create_repo(self, repo, **options):
        if self.error:
            raise self.error
        self.calls.append((repo, options))

    def upload_folder(self, **options):
        self.calls.append(options)
        return SimpleNamespace(repo_url="https://huggingface.co/owner/name")


@pytest.fixture
def api(monkeypatch):
    import huggingface_hub

    Api.calls, Api.error = [], None
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return Api


def test_push_uploads_the_folder_with_that_token(study, tmp_path, api):
    folder = export(study, 1, tmp_path / "plain")
    assert push(folder, "owner/name", token="hf_x") == "https://huggingface.co/owner/name"
    assert api.calls[0] == ("token", "hf_x")
    assert api.calls[1] == ("owner/name", {"private": True, "exist_ok": True})
    assert (api.calls[2]["folder_path"], api.calls[2]["repo_id"]) == (str(folder), "owner/name")
    with pytest.raises(UserError, match="no exported folder"):
        push(tmp_path, "owner/name", token="hf_x")


def test_a_hub_that_refuses_says_so(study, tmp_path, api):
    from huggingface_hub.errors import HFValidationError

    folder = export(study, 1, tmp_path / "plain")
    api.error = HFValidationError("no")
    with pytest.raises(HubError, match="is no id of the hub"):
        push(folder, "a b")
    api.error = OSError("Network is unreachable")
    with pytest.raises(HubError, match="did not take owner/name: Network is unreachable"):
        push(folder, "owner/name")


# --- the notebook ----------------------------------------------------------------------------------------------------


class Asked(LookedAt):
    """A study with a search behind it."""

    def __init__(self, folder="study", evil=""):
        super().__init__(folder, evil)
        space = Space(
            Open("static_int8", optional=True), backends=[Open("openvino", sequence=64)], keep=("classifier",)
        )
        goal = Goal(max_drop=0.02, trials=9)
        self.sweep = Sweep(space.to_json(), {"name": "grid", "seed": 0}, goal.to_json())


def ran(made, study):
    """The names in a notebook's kernel after its cells ran, with `Study` and `make_task` standing for the real ones."""
    names: dict = {}
    for cell in made.cells:
        if cell.cell_type == "code":
            source = cell.source
            exec(compile(ast.parse(source), "cell", "exec"), names)  # noqa: S102 - that it runs is what is tested
            if source.startswith("from workbench import"):
                names |= {"Study": lambda folder, task: study, "make_task": lambda *a, **k: (a, k)}
    return names


class Again:
    """Stands for the study in which the notebook runs."""

    def __init__(self):
        self.runs, self.tuned, self.exported = [], [], []

    def run(self, recipe):
        self.runs.append(recipe)
        measured = SimpleNamespace(accuracy=1, drop=0, speedup=2)
        return SimpleNamespace(number=4, measurement=measured)

    def tune(self, space, **options):
        self.tuned.append((space, options))

    def export(self, number, folder):
        self.exported.append((number, folder))

    def frame(self):
        return None


def test_notebook_reruns_to_the_same_recipe():
    study, again = Asked(), Again()
    made = notebook(study, 2)
    names = ran(made, again)
    assert again.runs == [study.trials[2].recipe]
    assert names["recipe"].id == study.trials[2].recipe.id
    ((space, options),) = again.tuned
    assert space == study.sweep.open_space()
    assert options == {"strategy": "grid", "goal": study.sweep.open_goal()}
    assert names["task"] == (("demo",), {})


def test_notebook_without_search_has_the_recipe_alone():
    again = Again()
    ran(notebook(Asked(), 1, search=False), again)
    assert again.tuned == []
    assert len(again.runs) == 1
    ran(notebook(LookedAt("study")), Again())


def test_saved_notebook_is_valid_and_new(tmp_path):
    import nbformat

    path = save_notebook(Asked(evil=EVIL), tmp_path / "deep" / "done.ipynb", 1)
    made = nbformat.read(path, as_version=4)
    nbformat.validate(made)
    assert all(not cell.get("outputs") for cell in made.cells)
    assert "<img" not in made.cells[0].source
    assert notebook(Asked(), 1) == notebook(Asked(), 1)
    with pytest.raises(UserError, match="is there already"):
        save_notebook(Asked(), path, 1)
    with pytest.raises(UserError, match="is no notebook"):
        save_notebook(Asked(), tmp_path / "done.txt", 1)
    with pytest.raises(UserError, match="no trial 99"):
        notebook(Asked(), 99)


def test_task_code_makes_the_same_task(tmp_path):
    for task in (
        make_task("demo"),
        make_task(str(tmp_path), "glue/sst2", text=("a", "b"), metric="f1", reserve=0.2, labels_map={"x": 1}),
    ):
        again = eval(task_code(task), {"make_task": workbench.make_task})  # noqa: S307
        assert again.to_json() == task.to_json()
    assert task_code(make_task("demo")) == "make_task('demo')"
    assert task_code(make_task(str(tmp_path), "glue/sst2")) == f"make_task({str(tmp_path)!r}, 'glue/sst2')"


def test_long_calls_are_laid_out_and_stay_the_same():
    code = repr(Asked().trials[2].recipe.__class__(*LookedAt().trials[2].recipe.steps, backend=workbench.OpenVINO()))
    assert laid_out("f(1, a=2)") == "f(1, a=2)"
    long = f"g({code}, keep={('x' * 100,)!r})"
    assert len(laid_out(long).splitlines()) == 4
    assert ast.dump(ast.parse(laid_out(long))) == ast.dump(ast.parse(long))
