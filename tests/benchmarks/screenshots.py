"""Pictures of the dashboard on a real study: the front in light and dark, the sensitivity of its layers, a comparison.

    python tests/benchmarks/screenshots.py runs/mine [--out notebooks] [--size 1280x800]

The study is not changed. The comparison is of the uncompressed model and the trial that the study holds for its best;
the sensitivity shows the newest scan, and is left out, saying so, where there is none. Each picture has to stay below
200 kB, so that a repository can carry it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from voila_page import PATIENCE, chromium, served

from workbench.study import Study

MOST_KB = 200


def shoot(page: Any, path: Path) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)
    page.screenshot(path=path)
    size = path.stat().st_size / 1000
    print(f"{path}  {size:.0f} kB")
    if size > MOST_KB:
        raise SystemExit(f"{path} is larger than {MOST_KB} kB: choose a smaller --size")


def turn(page: Any, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()


def opened(browser: Any, address: str, name: str, theme: str, size: dict[str, int]) -> Any:
    page = browser.new_context(viewport=size).new_page()
    page.goto(f"{address}&study={name}&theme={theme}", timeout=PATIENCE)
    page.locator(".wb-plot .scatterlayer .point").first.wait_for(timeout=PATIENCE)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, default=Path("notebooks"))
    parser.add_argument("--size", default="1280x800")
    options = parser.parse_args()
    study = Study(options.study.absolute())
    width, height = map(int, options.size.split("x"))
    size, best = {"width": width, "height": height}, study.status().best
    with served(study.folder.parent) as address, chromium() as browser:
        page = opened(browser, address, study.name, "dark", size)
        shoot(page, options.out / "dashboard-front-dark.png")
        page = opened(browser, address, study.name, "light", size)
        shoot(page, options.out / "dashboard-front-light.png")
        scans = study.scans()
        if len(scans) and (scans["kind"] == "scan").any():
            turn(page, "Sensitivity")
            page.locator(".wb-view-box:visible .wb-plot .trace").first.wait_for(timeout=PATIENCE)
            shoot(page, options.out / "dashboard-sensitivity.png")
        else:
            print("no scan in this study: no picture of its sensitivity (study.scan(…) makes one)")
        if best:
            turn(page, "Compare")
            chosen = page.locator(".wb-view-box:visible").get_by_label("Compared with it")
            chosen.select_option(value=chosen.locator("option", has_text=f"#{best} ").first.get_attribute("value"))
            page.get_by_role("heading", name="What they answer").wait_for(timeout=PATIENCE)
            shoot(page, options.out / "dashboard-compare.png")


if __name__ == "__main__":
    main()
