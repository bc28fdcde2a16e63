"""The dashboard in a real Chromium against a real Voila: choose, start, watch, stop, click, reload.

Every assertion is about what the page shows. Chromium is `$WORKBENCH_CHROMIUM` or the one on the path.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from workbench.study import Study
from workbench.widgets.serve import command, write_notebook

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
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    line = command(write_notebook(place, folder), port=port, token=TOKEN)
    process = subprocess.Popen(line, stdout=log, stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}/"
        _wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        for path in folder.iterdir():
            Study(path).stop()


def _wait_for(url, process):
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}static/favicon.ico?token={TOKEN}", timeout=5)
        except OSError as error:
            if getattr(error, "code", None):
                return
            time.sleep(0.3)
        else:
            return
    raise RuntimeError("Voila did not start")


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium: set WORKBENCH_CHROMIUM to its path")
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, address):
    """Opens the dashboard; `opened(query)` gives its page."""
    context = browser.new_context(viewport={"width": 1280, "height": 1600})

    def page(query=""):
        made = context.new_page()
        made.goto(f"{address}?token={TOKEN}{query}", timeout=2 * SOON)
        expect(made.get_by_text("Model and data")).to_be_visible(timeout=2 * SOON)
        return made

    yield page
    context.close()


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def points(page):
    """Markers of trials: the legends' keys and the front's line have none in the plot area."""
    return page.locator(".wb-plot .cartesianlayer .scatterlayer .point")


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
    PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=128, **names).save_pretrained(home / "tiny-bert")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=128, **sizes)
    BertForSequenceClassification(config).save_pretrained(home / "tiny-bert")
    (home / "data").mkdir()
    rows = [f"{'very ' * (i % 3)}{'good' if i % 2 else 'bad'} film,{i % 2}" for i in range(120)]
    for split in ("train", "validation"):
        (home / "data" / f"{split}.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return home / "tiny-bert", home / "data"


def _choose_folder(page, model, data):
    page.get_by_label("Local folder or ONNX file").check()
    for label, text in (("Model", model), ("Data", data)):
        field = page.get_by_label(label, exact=True)
        field.fill(str(text))
        field.press("Tab")


@pytest.mark.parametrize("model", ["folder", pytest.param("demo", marks=pytest.mark.slow)])
def test_choose_start_watch_stop_click_and_reload(opened, folder, request, model):
    page = opened()
    if model == "folder":
        _choose_folder(page, *request.getfixturevalue("tiny"))
    else:
        page.get_by_label("Embedded demo").check()
    study = "tiny-bert" if model == "folder" else "demo"
    for name in ("drop_layers", "static_int8", "dynamic_int8"):
        page.get_by_label(name, exact=True).uncheck()
    page.get_by_label("bf16", exact=True).check()
    for name in ("PyTorch compiled", "OpenVINO"):
        if page.get_by_label(name, exact=False).count():
            page.get_by_label(name, exact=False).first.uncheck()
    expect(button(page, "Stop")).to_be_disabled()
    expect(button(page, "Resume")).to_be_disabled()

    button(page, "Start").dblclick()
    expect(page.locator(".wb-status")).to_contain_text("Running", ignore_case=True, timeout=SOON)
    expect(button(page, "Start")).to_be_disabled()
    assert f"study={study}" in page.url

    expect(page.locator(".wb-trials")).to_contain_text("fp32 · eager", timeout=LATER)
    expect(page.locator(".wb-trials tbody tr").first).to_contain_text("complete", timeout=LATER)
    expect(points(page).first).to_be_visible(timeout=SOON)

    # A reload in the middle is a new kernel: the study stands as it stood, and goes on.
    page.reload(timeout=2 * SOON)
    expect(page.locator(".wb-trials tbody tr").first).to_contain_text("complete", timeout=2 * SOON)
    expect(page.get_by_role("heading", name=f"Compression workbench: {study}")).to_be_visible()
    expect(button(page, "Stop")).to_be_enabled(timeout=SOON)
    page.wait_for_function("document.querySelectorAll('.wb-trials tbody td').length >= 18", timeout=LATER)

    button(page, "Stop").click()
    expect(page.locator(".wb-status")).to_contain_text("idle", ignore_case=True, timeout=SOON)
    expect(button(page, "Start")).to_be_enabled(timeout=SOON)
    expect(button(page, "Stop")).to_be_disabled()
    assert Study(folder / study).status().state == "idle"

    _click_a_point(page)
    detail = page.locator(".wb-detail")
    expect(detail.locator("h3")).to_have_text(re.compile(r"Trial \d+: "), timeout=SOON)
    for part in ("Score", "Speed-up", "Recipe(", "backend="):
        expect(detail).to_contain_text(part)
    expect(page.locator(".wb-error")).to_have_count(0)


def _click_a_point(page):
    """The last marker that a click reaches; others may lie under it."""
    for i in reversed(range(points(page).count())):
        box = points(page).nth(i).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_timeout(300)
        page.mouse.down()
        page.mouse.up()
        page.wait_for_timeout(1500)
        if page.locator(".wb-detail h3").count():
            return
    raise AssertionError("no point could be clicked")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes(opened, theme):
    page = opened(f"&study=tiny-bert&theme={theme}")
    expect(points(page).first).to_be_visible(timeout=SOON)
    colours = page.evaluate(
        """() => [
          getComputedStyle(document.querySelector('.wb-card')).backgroundColor,
          getComputedStyle(document.querySelector('.wb-card h3')).color,
          getComputedStyle(document.querySelector('.wb-plot .xtitle')).fill,
        ].map((rgb) => rgb.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3)"""
    )
    card, text, axis = colours
    assert (card > 128, text > 128, axis > 128) == ((True, False, False) if theme == "light" else (False, True, True))


def test_wrong_order_and_wrong_names(opened):
    page = opened("&study=..%2F..%2Fetc")
    expect(page.locator(".wb-error")).to_contain_text("is no name for a study", timeout=SOON)
    page.get_by_label("Local folder or ONNX file").check()
    button(page, "Start").click()
    expect(page.locator(".wb-error").first).to_contain_text("No model is named", timeout=SOON)
    model = page.get_by_label("Model", exact=True)
    model.fill("/nowhere/<b>bold</b>")
    model.press("Enter")
    expect(page.get_by_text("does not exist").first).to_be_visible(timeout=SOON)
    assert page.locator(".wb-error b", has_text="bold").count() == 0


def test_copy_as_python(opened):
    page = opened()
    button(page, "Copy as Python").first.click()
    expect(page.locator(".wb-pre").first).to_have_text("make_task('demo')", timeout=SOON)
