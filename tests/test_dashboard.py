"""The dashboard in a real Chromium, in a real Voila and a real JupyterLab: from choosing a model to running its export.

Every assertion is about what the page shows. The model, its label and its data are called what somebody would call
them who wants to run a script in this page; none may run. Chromium is `$WORKBENCH_CHROMIUM` or the one on the path.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from page_checks import SIDEWAYS, button, foot, ours, outside, points, shown, tab, unfold, violations

from workbench.study import Study
from workbench.widgets.serve import command, environment, write_notebook

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1500)]

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

CHROMIUM = os.environ.get("WORKBENCH_CHROMIUM") or shutil.which("chromium")
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
#: Milliseconds for what a kernel does at once, and for what a trial has to be measured for.
SOON, LATER = 60_000, 600_000
TOKEN = "a-token-of-the-test"
#: What would run if it were ever taken for markup, and a folder's name with it.
EVIL = "<img src=x onerror=window.hacked=1>"
MODEL = f"tiny {EVIL} **bold**"
#: Runs a file in an interpreter that cannot import this package.
WITHOUT = (
    "import runpy, sys; sys.modules['workbench'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
TABS = ("Front", "Data", "Sensitivity", "Layers", "Compare", "Playground", "Export", "Studies")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    """Voila on a free port of the loopback address, serving the dashboard on `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = tmp_path_factory.mktemp("voila")
    log = (place / "voila.log").open("wb")
    notebook = write_notebook(place, folder)
    process = subprocess.Popen(command(notebook, port=port, token=TOKEN), stdout=log, stderr=log, env=_env(notebook))
    try:
        url = f"http://127.0.0.1:{port}/"
        _wait_for(f"{url}static/favicon.ico?token={TOKEN}", process)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        for path in folder.iterdir():
            Study(path).stop()


def _env(notebook):
    return {**environment(notebook), "PYTHONPATH": str(Path(__file__).parent.parent)}


def _wait_for(url, process):
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
        except OSError as error:
            if getattr(error, "code", None):
                return
            time.sleep(0.3)
        else:
            return
    raise RuntimeError("the server did not start")


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium: set WORKBENCH_CHROMIUM to its path")
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield opened
        opened.close()


@pytest.fixture
def watched(browser):
    """Opens pages that fail the test at its end where a script ran, our code failed, or something outside was asked."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    wrong = []

    def page():
        made = context.new_page()
        # JupyterLab asks before it leaves a notebook that is not saved; any other dialog is a script that ran.
        made.on(
            "dialog",
            lambda dialog: (
                dialog.accept()
                if dialog.type == "beforeunload"
                else (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss())
            ),
        )
        made.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        made.on("console", lambda said: said.type == "error" and ours(said.text) and wrong.append(said.text))
        made.on("request", lambda request: outside(request.url) and wrong.append(f"asked for {request.url}"))
        return made

    yield page
    for one in context.pages:
        assert one.evaluate("window.hacked") is None
    context.close()
    assert wrong == []


@pytest.fixture
def opened(watched, address):
    """Opens the dashboard; `opened(query)` gives its page."""

    def page(query=""):
        made = watched()
        made.goto(f"{address}?token={TOKEN}{query}", timeout=2 * SOON)
        expect(made.locator(".wb-part").first).to_be_visible(timeout=2 * SOON)
        return made

    return page


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A BERT of two narrow layers, not trained, with its tokenizer and some data: (model folder, data folder)."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    home = tmp_path_factory.mktemp("tiny")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = {word: i for i, word in enumerate([*special, "good", "bad", "very", "not", "film"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=128, **names).save_pretrained(home / MODEL)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    labels = {"id2label": {0: f"bad {EVIL}", 1: "good"}, "label2id": {f"bad {EVIL}": 0, "good": 1}}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=128, **sizes, **labels)
    BertForSequenceClassification(config).save_pretrained(home / MODEL)
    (home / "data").mkdir()
    rows = [f"{'very ' * (i % 3)}{'good' if i % 2 else 'bad'} film {EVIL},{i % 2}" for i in range(120)]
    for split in ("train", "validation"):
        (home / "data" / f"{split}.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return home / MODEL, home / "data"


def _choose_folder(page, model, data):
    page.get_by_label("Local folder or ONNX file").check()
    unfold(page, "Data")
    for label, text in (("Model", model), ("Data", data)):
        field = page.get_by_role("textbox", name=label, exact=True) if label == "Model" else page.get_by_label(label)
        field.first.fill(str(text))
        field.first.press("Tab")


def _tick(page, techniques, runtimes):
    """Exactly these."""
    for group in ("Quantization", "Pruning", "Mixed precision"):
        unfold(page, group)
    expect(page.get_by_label(techniques[0], exact=True)).to_be_visible(timeout=SOON)
    ticked = ("bf16", "dynamic_int8", "static_int8", "PyTorch compiled", "PyTorch eager", "ONNX Runtime", "OpenVINO")
    for name in dict.fromkeys((*ticked, *techniques, *runtimes)):
        box = page.get_by_label(name, exact=True)
        if box.is_enabled():
            box.set_checked(name in techniques or name in runtimes)


@pytest.mark.parametrize("model", ["folder", pytest.param("demo", marks=pytest.mark.slow)])
def test_the_whole_story(opened, folder, request, tmp_path, model):
    page = opened()
    if model == "folder":
        _choose_folder(page, *request.getfixturevalue("tiny"))
    # A study of its own each: two models in one study are two front lines of one.
    name = {"folder": "tiny-bert", "demo": "demo-story"}[model]
    page.get_by_label("Study").first.fill(name)
    page.get_by_label("Study").first.press("Tab")
    _tick(page, ("bf16", "prune", "dynamic_int8"), ("PyTorch eager", "ONNX Runtime"))
    expect(button(page, "Stop")).to_be_disabled()
    expect(button(page, "Resume")).to_be_disabled()

    button(page, "Start").dblclick()
    expect(foot(page)).to_contain_text("Running", ignore_case=True, timeout=SOON)
    expect(button(page, "Start")).to_be_disabled()
    assert f"study={name}" in page.url
    expect(foot(page)).to_contain_text("measured in this study", timeout=LATER)
    expect(points(page).first).to_be_visible(timeout=SOON)

    # A reload in the middle is a new kernel: the study stands as it stood, and goes on.
    page.reload(timeout=2 * SOON)
    expect(foot(page)).to_contain_text("measured in this study", timeout=2 * SOON)
    expect(page.get_by_role("heading", name=f"Compression workbench: {name}")).to_be_visible()
    expect(button(page, "Stop")).to_be_enabled(timeout=SOON)
    button(page, "Stop").click()
    expect(foot(page)).to_contain_text("Idle", ignore_case=True, timeout=SOON)
    expect(button(page, "Stop")).to_be_disabled()
    assert Study(folder / name).status().state == "idle"
    button(page, "Resume").click()
    expect(foot(page)).to_contain_text("Running", ignore_case=True, timeout=SOON)
    expect(foot(page)).to_contain_text(re.compile("[2-9] measured in this study"), timeout=LATER)

    _click_a_point(page)
    detail = page.locator(".wb-detail").first
    for words in ("Score", "Speed-up", "Recipe("):
        expect(detail).to_contain_text(words)

    _compare(page)
    _play(page, f"bad {EVIL}" if model == "folder" else "negative")
    _keep(page)
    # The sweep ends by itself when its twenty trials are done; the demo's would take too long, and is paused.
    if model == "demo":
        button(page, "Pause").click()
    expect(foot(page)).to_contain_text("Idle", ignore_case=True, timeout=LATER)
    _export(page, tmp_path, fresh=model == "demo")
    expect(page.locator(".wb-error:visible")).to_have_count(0)


def _compare(page):
    tab(page, "Compare")
    expect(page.get_by_role("heading", name="Numbers")).to_be_visible(timeout=LATER)
    shown(page).get_by_label("Compared with it").select_option(index=[0, 1])
    expect(page.get_by_role("heading", name="What they answer")).to_be_visible(timeout=LATER)
    expect(page.locator(".wb-matrix").first).to_be_visible(timeout=LATER)
    expect(shown(page).get_by_label("Answers of").locator("option")).to_have_count(1)


def _play(page, label):
    tab(page, "Playground")
    shown(page).get_by_label("Trials", exact=True).select_option(index=0)
    field = shown(page).get_by_label("Text", exact=True)
    field.press_sequentially("good film " + EVIL)
    answers = page.locator(".wb-answers")
    expect(answers).to_contain_text("ms", timeout=LATER)
    # The label is a text like any other.
    expect(answers).to_contain_text(label)


def _keep(page):
    """Scan, choose the two most sensitive layers, and send them to the recipe."""
    tab(page, "Sensitivity")
    shown(page).get_by_label("Technique").select_option("dynamic_int8")
    shown(page).get_by_label("Probe").select_option("nmse")
    shown(page).get_by_label("Examples", exact=True).fill("8")
    button(shown(page), "Scan").click()
    layers = shown(page).get_by_label("Layers", exact=True).locator("option")
    expect(layers.nth(13)).to_be_attached(timeout=LATER)
    shown(page).get_by_label("The most sensitive").fill("2")
    shown(page).get_by_label("The most sensitive").press("Tab")
    button(shown(page), "Choose them").click()
    button(shown(page), "Send to keep").click()
    expect(page.get_by_text("2 layers sent")).to_be_visible(timeout=SOON)
    expect(page.get_by_label("Leave alone")).to_have_value(re.compile(r"\S+, \S+"), timeout=SOON)


def _export(page, tmp_path, *, fresh):
    """Export, and run it: in a `fresh` environment made of nothing but its requirements, which takes minutes, or in
    this one, which is kept from this package."""
    tab(page, "Export")
    expect(button(shown(page), "Export")).to_be_enabled(timeout=SOON)
    button(shown(page), "Export").click()
    said = shown(page).get_by_text("Exported to")
    expect(said).to_be_visible(timeout=LATER)
    place = Path(re.search(r"Exported to (\S+)\. Run it", said.inner_text())[1])
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    line = [sys.executable, "-c", WITHOUT]
    if fresh:
        line = [str(tmp_path / "venv" / "bin" / "python")]
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, env=clean)
        install = [*line, "-m", "pip", "install", "-q", "-r", str(place / "requirements.txt")]
        subprocess.run(install, check=True, env=clean, timeout=1200)
    line += ["run.py", "good film"]
    done = subprocess.run(line, cwd=place, capture_output=True, text=True, timeout=300, env=clean, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search("good|positive|negative", done.stdout), done.stdout


def _click_a_point(page):
    """The last marker that a click reaches; others may lie under it."""
    for i in reversed(range(points(page).count())):
        points(page).nth(i).scroll_into_view_if_needed()
        box = points(page).nth(i).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_timeout(300)
        page.mouse.down()
        page.mouse.up()
        page.wait_for_timeout(1500)
        if page.locator(".wb-detail h3").count():
            return
    raise AssertionError("no point could be clicked")


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 820)])
def test_every_tab_in_its_theme_is_readable_and_named(opened, theme, width):
    page = opened(f"&study=tiny-bert&theme={theme}")
    page.set_viewport_size({"width": width, "height": 900})
    expect(points(page).first).to_be_visible(timeout=SOON)
    axis = page.evaluate("getComputedStyle(document.querySelector('.wb-plot .xtitle')).fill")
    assert (sum(map(int, re.findall(r"\d+", axis)[:3])) > 384) == (theme == "dark")
    for name in ("Model", "Data", "This machine"):
        unfold(page, name)
    wrong = []
    for name in TABS:
        tab(page, name)
        page.wait_for_timeout(1500)
        wrong += [f"{name}: {one}" for one in violations(page)]
        assert not page.evaluate(SIDEWAYS), name
    assert wrong == []


def test_wrong_order_and_wrong_names(opened):
    page = opened("&study=..%2F..%2Fetc")
    expect(page.locator(".wb-error")).to_contain_text("is no name for a study", timeout=SOON)
    page.get_by_label("Local folder or ONNX file").check()
    button(page, "Start").click()
    expect(page.locator(".wb-error").first).to_contain_text("No model is named", timeout=SOON)
    model = page.get_by_role("textbox", name="Model", exact=True)
    model.fill("/nowhere/<b>bold</b>")
    model.press("Enter")
    expect(page.get_by_text("does not exist").first).to_be_visible(timeout=SOON)
    assert page.locator(".wb-error b", has_text="bold").count() == 0


def test_two_people_and_a_wrong_order_of_clicks(opened, tiny, folder):
    """Start twice, another model while it runs, stop by one and by the other, stop when idle."""
    page = opened()
    _choose_folder(page, *tiny)
    page.get_by_label("Study").first.fill("wrong-order")
    page.get_by_label("Study").first.press("Tab")
    _tick(page, ("dynamic_int8",), ("PyTorch eager", "ONNX Runtime"))
    button(page, "Start").dblclick()
    expect(button(page, "Stop")).to_be_enabled(timeout=SOON)
    other = opened("&study=wrong-order")
    expect(foot(other)).to_contain_text("Running", ignore_case=True, timeout=SOON)

    model = page.get_by_role("textbox", name="Model", exact=True)
    model.fill("somewhere/else")
    model.press("Tab")
    expect(foot(page)).to_contain_text("Running", ignore_case=True)

    button(other, "Stop").click()
    # This page may not know yet that there is nothing to stop any more.
    button(page, "Stop").click(force=True)
    for one in (page, other):
        expect(foot(one)).to_contain_text("Idle", ignore_case=True, timeout=SOON)
        button(one, "Stop").click(force=True)
        button(one, "Pause").click(force=True)
        expect(one.locator(".wb-right > .wb-error:visible")).to_have_count(0)


def test_the_page_is_closed_while_it_exports(opened, folder):
    leaving = opened("&study=tiny-bert")
    expect(points(leaving).first).to_be_visible(timeout=SOON)
    tab(leaving, "Export")
    expect(button(shown(leaving), "Export")).to_be_enabled(timeout=SOON)
    button(shown(leaving), "Export").click()
    leaving.close()
    back = opened("&study=tiny-bert")
    expect(points(back).first).to_be_visible(timeout=SOON)
    assert Study(folder / "tiny-bert").status().state == "idle"
    expect(back.locator(".wb-error:visible")).to_have_count(0)


def test_the_open_study_is_deleted(opened, folder):
    tab_of = opened("&study=tiny-bert")
    tab(tab_of, "Studies")
    shown(tab_of).get_by_label("Study", exact=True).select_option(label="tiny-bert (idle)")
    button(tab_of, "Duplicate").click()
    expect(tab_of.get_by_text("tiny-bert-copy").first).to_be_visible(timeout=SOON)
    page = opened("&study=tiny-bert-copy")
    expect(points(page).first).to_be_visible(timeout=SOON)
    tab(page, "Studies")
    shown(page).get_by_label("Study", exact=True).select_option(label="tiny-bert-copy (idle)")
    button(shown(page), "Delete …").click()
    button(page, "Delete for good").click()
    expect(foot(page)).to_contain_text("No study is open", timeout=SOON)
    assert not (folder / "tiny-bert-copy").exists()
    tab(page, "Compare")
    button(page, "Resume").click(force=True)
    expect(page.locator(".wb-error:visible")).to_have_count(0)


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on a free port, in an empty folder: its address and the token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR",
                                                      "JUPYTERLAB_WORKSPACES_DIR")}  # fmt: skip
    line = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
            f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={tmp_path}", "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    env = {**os.environ, **places, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with (tmp_path / "lab.log").open("wb") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, env=env)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", process)
            yield f"http://127.0.0.1:{port}/lab", f"token={TOKEN}"
        finally:
            process.terminate()
            process.wait(20)


def test_jupyterlab(watched, folder, tmp_path, lab):
    """The same widgets in a cell: run it, open the study, choose a trial, turn to another tab."""
    source = f"from workbench.widgets.dashboard import Dashboard\n\nDashboard({str(folder)!r}, study='tiny-bert')"
    # A notebook that names no kernel is asked for one, by a dialog over the page.
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata=kernel)
    nbformat.write(made, tmp_path / "look.ipynb")
    page = watched()
    page.goto("{}/tree/look.ipynb?{}".format(*lab), timeout=2 * SOON)
    page.locator(".jp-CodeCell .cm-content").first.click(timeout=2 * SOON)
    page.wait_for_function("document.querySelector('.jp-NotebookPanel [data-status=idle]')", timeout=2 * SOON)
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".wb-part").first).to_be_visible(timeout=2 * SOON)
    expect(foot(page)).to_contain_text("measured in this study", timeout=SOON)
    expect(points(page).first).to_be_visible(timeout=SOON)
    shown(page).get_by_label("Trial", exact=True).first.select_option(index=2)
    expect(page.locator(".wb-detail h3").first).to_contain_text("Trial 1", timeout=SOON)
    for name in TABS[1:]:
        page.locator(".wb-views [role=tab]").filter(has_text=name).click()
    expect(page.get_by_role("heading", name="Studies")).to_be_visible(timeout=SOON)
    expect(page.locator(".wb-error:visible")).to_have_count(0)


@pytest.mark.slow
def test_the_whole_story_in_jupyterlab(watched, lab, tiny, tmp_path):
    """As in Voila, from the launcher's tile; a reload leaves a notebook whose cell is run once more."""
    page = watched()
    page.goto("{}?{}".format(*lab), timeout=2 * SOON)
    page.locator(".jp-LauncherCard", has_text="Compression Workbench").first.click(timeout=2 * SOON)
    expect(page.locator(".wb-part").first).to_be_visible(timeout=2 * SOON)
    _choose_folder(page, *tiny)
    page.get_by_label("Study").first.fill("lab-story")
    page.get_by_label("Study").first.press("Tab")
    _tick(page, ("bf16", "prune", "dynamic_int8"), ("PyTorch eager", "ONNX Runtime"))
    button(page, "Start").dblclick()
    expect(foot(page)).to_contain_text("measured in this study", timeout=LATER)
    page.reload(timeout=2 * SOON)
    page.locator(".jp-CodeCell .cm-content").first.click(timeout=2 * SOON)
    page.wait_for_function("document.querySelector('.jp-NotebookPanel [data-status=idle]')", timeout=2 * SOON)
    page.wait_for_timeout(2000)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".wb-part").first).to_be_visible(timeout=2 * SOON)
    page.get_by_label("Study").first.fill("lab-story")
    button(page, "Open").first.click()
    expect(foot(page)).to_contain_text("measured in this study", timeout=2 * SOON)
    expect(button(page, "Stop")).to_be_enabled(timeout=SOON)
    button(page, "Stop").click()
    expect(foot(page)).to_contain_text("Idle", ignore_case=True, timeout=SOON)
    button(page, "Resume").click()
    expect(foot(page)).to_contain_text(re.compile("[2-9] measured in this study"), timeout=LATER)

    _click_a_point(page)
    expect(page.locator(".wb-detail").first).to_contain_text("Recipe(")
    _compare(page)
    _play(page, f"bad {EVIL}")
    _keep(page)
    expect(foot(page)).to_contain_text("Idle", ignore_case=True, timeout=LATER)
    _export(page, tmp_path, fresh=False)
    expect(page.locator(".wb-error:visible")).to_have_count(0)


def test_the_tile_in_jupyterlabs_launcher(watched, lab, tmp_path):
    page = watched()
    page.goto("{}?{}".format(*lab), timeout=2 * SOON)
    page.locator(".jp-LauncherCard", has_text="Compression Workbench").first.click(timeout=2 * SOON)
    expect(page.locator(".wb-part").first).to_be_visible(timeout=2 * SOON)
    expect(foot(page)).to_contain_text("No study is open", timeout=SOON)
    # The notebook is saved with its cell: a reload does not lose it.
    (made,) = tmp_path.glob("Untitled*.ipynb")
    assert "Dashboard()" in nbformat.read(made, as_version=4).cells[0].source


def test_copy_as_python(opened):
    page = opened()
    button(page, "Copy as Python").first.click()
    expect(page.locator(".wb-pre").first).to_have_text("describe_model('demo')", timeout=SOON)
