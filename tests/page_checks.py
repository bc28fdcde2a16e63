"""What the browser's tests share: places of the dashboard's page, and what a page must give everybody who uses it.

`violations` looks at the names of controls and the contrast of texts, in the page itself.

A small stand-in for axe, which is not packaged for Python: it knows two rules, but those on every control and every
text that is seen. Left out: the order of headings, landmarks, live regions.
"""

from __future__ import annotations

import re
from typing import Any

#: Gives a list of sentences, one for each violation inside the element that matches `root`.
ACCESSIBILITY = r"""
(root) => {
  const place = document.querySelector(root);
  const found = new Set();
  const seen = (e) => {
    const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    const there = box.width > 1 && box.height > 1 && style.visibility !== "hidden";
    return there && e.checkVisibility({ opacityProperty: true });
  };
  const about = (e) => e.outerHTML.slice(0, 140).replace(/\s+/g, " ");
  const texts = (ids) => ids.split(" ").map((id) => document.getElementById(id)?.textContent || "").join("");
  const named = (e) =>
    (e.getAttribute("aria-label") || "").trim() ||
    texts(e.getAttribute("aria-labelledby") || "") ||
    [...(e.labels || [])].map((label) => label.textContent.trim()).join("") ||
    (["BUTTON", "A"].includes(e.tagName) || e.getAttribute("role") ? e.textContent.trim() : "") ||
    (e.getAttribute("title") || "").trim();
  const controls = "button, a[href], input, select, textarea, [role=tab], [role=button], [role=slider]";
  for (const e of place.querySelectorAll(controls))
    if (seen(e) && e.type !== "hidden" && !e.closest(".js-plotly-plot") && !named(e)) found.add("no name: " + about(e));

  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return text.startsWith("color(srgb") ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const behind = (e) => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => ((c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
  const silent = ":disabled, [aria-disabled=true], script, style, option, .js-plotly-plot";
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), e = walker.currentNode.parentElement;
    if (!text || !e || !seen(e) || e.closest(silent)) continue;
    if (e.closest("label")?.control?.disabled || e.closest("label")?.querySelector("input:disabled")) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const ground = behind(e), both = [light(over(parse(style.color), ground)), light(ground)];
    const [one, two] = both.sort((a, b) => b - a);
    const ratio = (one + 0.05) / (two + 0.05);
    const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if (ratio < needed) found.add(`contrast ${ratio.toFixed(2)} of “${text.slice(0, 50)}” ${style.color}: ${about(e)}`);
  }
  return [...found];
}
"""

#: Gives the elements that reach out of the window to the right and make the page scroll sideways.
SIDEWAYS = "() => document.documentElement.scrollWidth > window.innerWidth + 1"


def violations(page: Any, root: str = ".wb-dashboard") -> list[str]:
    """What `ACCESSIBILITY` finds."""
    return list(page.evaluate(ACCESSIBILITY, root))


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
