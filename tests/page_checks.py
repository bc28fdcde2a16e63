"""What the browser's tests share: places of the dashboard's page, and what a page must give everybody who uses it."""

from __future__ import annotations

import re
from typing import Any

#: What of the page is ours: the figures' inside is plotly's.
OURS = {"include": [[".wb-dashboard"]], "exclude": [[".js-plotly-plot"]]}

#: Gives the elements that reach out of the window to the right and make the page scroll sideways.
SIDEWAYS = "() => document.documentElement.scrollWidth > window.innerWidth + 1"


def violations(page: Any) -> list[str]:
    """What axe finds serious or critical in what is ours of the page and seen; a line for each element."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, OURS, {"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['impact']} {rule['id']}: {node['html'][:160]} ({node['failureSummary'][:200]})"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def ours(text):
    """Whether a console error may come from this package: sockets that a reload closes do not."""
    return not re.search(r"WebSocket|Failed to load resource|net::ERR_", text)


def outside(url):
    return url.startswith(("http://", "https://", "ws:", "wss:")) and "//127.0.0.1:" not in url


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def shown(page):
    """What is in the open tab; labels such as "Trials" are in the rail as well."""
    return page.locator(".wb-view-box:visible")


def part(page, name):
    """The button that folds a part of the rail, or a group of techniques."""
    return page.locator(".wb-fold").filter(has_text=re.compile(f"^{name}"))


def unfold(page, name):
    if part(page, name).first.get_attribute("aria-expanded") == "false":
        part(page, name).first.click()


def foot(page):
    return page.locator(".wb-foot .wb-status")


def points(page):
    """Markers of trials: the legends' keys and the front's line have none in the plot area."""
    return page.locator(".wb-plot .cartesianlayer .scatterlayer .point")
