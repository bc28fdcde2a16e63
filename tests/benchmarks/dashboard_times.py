"""How quick the dashboard is: first paint with a cold and a preheated kernel, a click while a sweep runs, a redraw.

    python tests/benchmarks/dashboard_times.py [--repeat 5] [--trials 2000]

First paint is the time from asking Voila for the page to the rail being seen, in a browser that is warm. A click is the
time from a change made in the page to the kernel's answer standing in it, both read by the page's own clock, while the
embedded demo is swept. The redraw is `front_redraw.py`. Wants a quiet machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from voila_page import PATIENCE, chromium, served

from workbench.study import Study, make_task
from workbench.sweep import BACKENDS, space_of
from workbench.tuning.goal import Goal

#: Seconds in which a pool makes its next kernel ready.
HEATING = 15
#: Unfolds or folds the filter and gives the milliseconds until the kernel's answer, a child more or less, is there.
CLICK = """() => new Promise((resolve) => {
  const place = document.querySelector(".wb-filters"), began = performance.now();
  const seen = new MutationObserver(() => { seen.disconnect(); resolve(performance.now() - began); });
  seen.observe(place, { childList: true, subtree: true });
  [...document.querySelectorAll(".wb-explorer .wb-fold")].find((b) => b.textContent.startsWith("Filter")).click();
})"""


def told(what: str, spent: list[float], unit: str, target: float) -> None:
    print(f"{what:38} median {median(spent):7.2f} {unit}, slowest {max(spent):7.2f} {unit} (target {target:g} {unit})")


def first_paint(browser: Any, studies: Path, repeat: int, *, preheat: bool) -> list[float]:
    spent = []
    with served(studies, preheat=preheat) as address:
        for _ in range(repeat):
            if preheat:
                time.sleep(HEATING)
            page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
            began = time.perf_counter()
            page.goto(address, timeout=PATIENCE)
            page.locator(".wb-part").first.wait_for(timeout=PATIENCE)
            spent.append(time.perf_counter() - began)
            page.close()
    return spent


def clicks(browser: Any, studies: Path, repeat: int) -> list[float]:
    """Milliseconds of clicks, two seconds apart, while a sweep of the demo runs."""
    task = make_task("demo")
    task.prepare()
    study = Study(studies / "swept", task)
    study.start(space_of(("bf16", "static_int8", "prune"), BACKENDS), goal=Goal(trials=None))
    spent = []
    try:
        with served(studies) as address:
            page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
            page.goto(f"{address}&study=swept", timeout=PATIENCE)
            page.locator(".wb-plot .scatterlayer .point").first.wait_for(timeout=5 * PATIENCE)
            while len(spent) < repeat and study.status().state == "running":
                spent.append(page.evaluate(CLICK))
                page.wait_for_timeout(2000)
    finally:
        study.stop()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--trials", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        studies = Path(place)
        with chromium() as browser:
            told("first paint, cold kernel", first_paint(browser, studies, options.repeat, preheat=False), "s", 6)
            told("first paint, preheated kernel", first_paint(browser, studies, options.repeat, preheat=True), "s", 2)
            told("click while a sweep runs", clicks(browser, studies, 4 * options.repeat), "ms", 200)
    print(f"redraw of {options.trials:,} trials (target 100 ms):", flush=True)
    redraw = Path(__file__).with_name("front_redraw.py")
    subprocess.run([sys.executable, str(redraw), "--trials", str(options.trials)], check=True)


if __name__ == "__main__":
    main()
