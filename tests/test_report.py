"""The report: what it says, that nothing in it is injected, and that it opens without a network."""

from __future__ import annotations

import os
import re
import shutil
from html.parser import HTMLParser

import pytest
from fake_study import FakeStudy

from workbench.errors import ResourceError
from workbench.report import report_html, write_report
from workbench.tuning.goal import Goal

EVIL = "</script><script>window.evil = 1</script><img src=x onerror=window.evil=1>"


class Reader(HTMLParser):
    """The text outside scripts, and every tag that a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.hidden = [], [], False
        self.feed(page)
        self.words = " ".join("".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        if not self.hidden:
            self.text.append(data + (" " if data.strip() else ""))


def test_report_says_what_it_must(tmp_path):
    path = write_report(FakeStudy(tmp_path / "my-study"), tmp_path / "report.html")
    words = Reader(path.read_text(encoding="utf-8")).words
    for part in (
        "Compression study: my-study",
        "3.33× [3.28, 3.38] faster: static_int8 · openvino",
        "Selection and report used the same examples.",
        "1 % of the 784 right among 872 examples is 7 net flips",
        "The compiler ran out of memory.",
        "OpenVINO has no dynamic INT8",
        "Recipe(StaticInt8(), backend=Openvino())",
        "no machine",
        "ram mb 25,275",
        "Latency is paired",
        "97 % int8, 3 % fp32",
        "11 complete, 1 failed",
    ):
        assert part in words, part
    assert "None" not in words


def test_nothing_is_injected(tmp_path):
    reader = Reader(report_html(FakeStudy(tmp_path / "x", evil=EVIL)))
    assert not [tag for tag, attributes in reader.tags if tag == "img" or "onerror" in attributes]
    assert len([tag for tag, _ in reader.tags if tag == "script"]) == 3
    assert EVIL in reader.words


def test_it_needs_nothing_from_outside():
    page = report_html(FakeStudy())
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert page.count("plotly.js v") == 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_study_that_has_just_begun(count):
    words = Reader(report_html(FakeStudy(count=count))).words
    expected = ["No trial has been measured yet", "Nothing measured so far is better"][min(count, 1)]
    assert (expected in words) == (count < 2)


def test_goal_that_nothing_meets():
    words = Reader(report_html(FakeStudy(count=1, goal=Goal(max_drop=0.0)))).words
    assert "lose at most 0 % of the score" in words


def test_a_report_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_report(FakeStudy(), tmp_path / "file" / "report.html")


def test_a_folder_gets_a_report_inside(tmp_path):
    assert write_report(FakeStudy(), tmp_path) == tmp_path / "report.html"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_off_line(tmp_path, scheme):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("WORKBENCH_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("no Chromium: set WORKBENCH_CHROMIUM to its path")
    path = write_report(FakeStudy(evil=EVIL), tmp_path / "report.html")
    asked: list[str] = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(offline=True, color_scheme=scheme)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector("#front .scatterlayer .point")
        points = page.locator("#front .scatterlayer .point").count()
        page.get_by_label("Show the heights around the goal only").check()
        page.wait_for_selector("text=more below")
        evil = page.evaluate("window.evil")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.close()
    assert asked == [path.as_uri()]
    assert not problems
    assert points >= 11
    assert evil is None
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
