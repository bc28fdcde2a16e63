"""Counts with bars: the counting by hand, the text escaped, the download readable."""

from __future__ import annotations

import io
import urllib.parse

import pandas as pd
import pytest

from workbench.plots.bars import bars_html, counts_frame, csv_link, histogram

EVIL = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    ("values", "bars", "expected"),
    [
        ([], 5, {}),
        ([3], 5, {"3": 1}),
        ([1, 2, 2, 4], 5, {"1": 1, "2": 2, "3": 0, "4": 1}),
        ([1, 2, 2, 9, 10], 5, {"1–2": 3, "3–4": 0, "5–6": 0, "7–8": 0, "9–10": 2}),
        ([101, 128], 8, {"101–120": 1, "121–140": 1}),
        ([128], 1, {"1–200": 1}),
    ],
)
def test_histogram(values, bars, expected):
    found = histogram(values, bars)
    assert found == expected
    assert sum(found.values()) == len(values)
    assert len(found) <= max(bars, 1)


def test_bars_say_count_and_share():
    page = bars_html({"good": 3, EVIL: 1}, "Label")
    assert ">3 <" in page
    assert "75.0%" in page
    assert "25.0%" in page
    assert "width:33.3%" in page
    assert "<img" not in page
    assert "&lt;img" in page


def test_a_download_gives_the_numbers_back_and_no_formula():
    frame = counts_frame({"=1+1": 3, 'a "b", <c>': 1}, "label")
    link = csv_link(frame, 'x"><script>')
    assert "<script>" not in link
    written = urllib.parse.unquote(link.split("utf-8,")[1].split('"')[0])
    again = pd.read_csv(io.StringIO(written))
    assert list(again["label"]) == ["'=1+1", 'a "b", <c>']
    assert list(again["examples"]) == [3, 1]
