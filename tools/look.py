"""Look at every built page as a browser does; a check for developers, not in `make test`.

    python -m tools.look [_build/html]

Needs what requirements-browser.txt names and a Chromium (on PATH, or CHROMIUM=/path/to/it).
Each page is opened from disk at 1280 and 390 pixels, light and dark. Complaints: console
errors, requests to elsewhere, anything wider than the window, formulas that failed,
sliders that move nothing, links and anchors that lead nowhere, images without alt text,
display formulas that are cut at 1280 pixels, and what axe-core (AXE=/path/to/axe.min.js, or
the one that was installed) calls serious or critical. Screenshots go to _build/look.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

from tools import notebooks

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HERE = ("file:", "data:", "blob:", "about:")
NOT_CONTENT = {"search.html", "genindex.html", "index.html"}  # Sphinx wrote them

WIDER = """() => {
  const room = document.documentElement.clientWidth + 1;
  if (document.documentElement.scrollWidth <= room) return [];
  const scrolls = e => e && (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX)
    || scrolls(e.parentElement));
  return [...document.querySelectorAll("body *")]
    .filter(e => e.getBoundingClientRect().right > room && !scrolls(e.parentElement))
    .slice(0, 4).map(e => e.tagName.toLowerCase() + "." + e.getAttribute("class"));
}"""
SETTLED = """() => window.MathJax && MathJax.startup
  ? MathJax.startup.promise.then(() => true) : true"""
MOVED = """() => [...document.querySelectorAll("input[type=range]")].filter(slider => {
  const figure = slider.closest("figure, .cell_output, div");
  const before = figure.innerHTML;
  slider.value = slider.value === slider.max ? slider.min : slider.max;
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  return figure.innerHTML === before;
}).length"""

CUT = """() => [...document.querySelectorAll('mjx-container[display="true"]')]
  .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
  .map(e => e.textContent.slice(0, 40))"""
AXE = """() => axe.run(document, {preload: false, resultTypes: ["violations"]}).then(found =>
  found.violations.filter(v => ["serious", "critical"].includes(v.impact)).map(v =>
    `axe, ${v.impact}: ${v.id}, ${v.nodes.length} times, as ${v.nodes[0].target}`))"""


@cache
def soup(page: Path) -> BeautifulSoup:
    """A page, parsed."""
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(page: Path) -> frozenset[str]:
    """The places in a page that a link can lead to."""
    found = soup(page).find_all(lambda tag: tag.has_attr("id") or tag.has_attr("name"))
    return frozenset(str(tag.get("id") or tag.get("name")) for tag in found)


def dead_links(page: Path) -> Iterator[str]:
    """Links inside the book that lead nowhere."""
    for link in soup(page).find_all("a", href=True):
        address = urlsplit(link["href"])
        if address.scheme or address.netloc:
            continue
        target = (
            (page.parent / unquote(address.path)).resolve() if address.path else page
        )
        if not target.exists():
            yield f"link to {link['href']}, which is not there"
        elif address.fragment and target.suffix == ".html":
            if unquote(address.fragment) not in anchors(target):
                yield f"link to {link['href']}: no such place in the page"


def nameless_images(page: Path) -> Iterator[str]:
    """Pictures that a screen reader cannot say."""
    article = soup(page).find("article") or soup(page)
    for image in article.find_all(["img", "svg", "canvas"]):
        said = image.get("alt") or image.get("aria-label") or ""
        hidden = (
            image.get("aria-hidden") == "true" or image.get("role") == "presentation"
        )
        if hidden or _labelled_above(image):
            continue
        if not said.strip() or re.search(r"\.(svg|png)$|^[0-9a-f]{20,}", said):
            yield f"<{image.name}> with alt text {said[:60]!r}"


def _labelled_above(tag: Tag) -> bool:
    parents = (
        p for p in tag.parents if p.name in ("svg", "figure", "div", "button", "a")
    )
    return any(p.get("aria-label") or p.get("aria-labelledby") for p in parents)


def looked_at(
    browser: Any, page: Path, width: int, scheme: str, shots: Path, axe: str
) -> list[str]:
    """Open one page once; what is wrong with it."""
    said: list[str] = []
    view = {"width": width, "height": 900}
    context = browser.new_context(viewport=view, color_scheme=scheme)
    tab = context.new_page()
    tab.on("console", lambda m: m.type == "error" and said.append(f"console: {m.text}"))
    tab.on("pageerror", lambda error: said.append(f"console: {error}"))

    def ask(route: Any) -> None:
        lost = lost_file(page, route.request.url)  # 404.html names files from the root
        if lost:
            route.fulfill(path=str(lost))
        elif route.request.url.startswith(HERE):
            route.continue_()
        else:
            said.append(f"asks {route.request.url}")
            route.abort()

    tab.route("**/*", ask)
    tab.goto(page.as_uri(), wait_until="load")
    tab.evaluate(SETTLED)
    if width == max(WIDTHS):
        said += [f"a formula is cut: {what}" for what in tab.evaluate(CUT)]
    for what in tab.evaluate(WIDER):
        said.append(f"wider than the window: {what}")
    failed = tab.locator("mjx-merror").count()
    if failed:
        said.append(f"{failed} formulas failed")
    shots.mkdir(parents=True, exist_ok=True)
    name = f"{page.parent.name}-{page.stem}-{width}-{scheme}.png"
    tab.screenshot(path=str(shots / name), full_page=True)
    tab.wait_for_timeout(200)  # the picture resized the page: formulas are fitted again
    tab.evaluate(axe)
    said += tab.evaluate(AXE)
    still = tab.evaluate(MOVED)
    if still:
        said.append(f"{still} sliders move nothing")
    context.close()
    return said


def chromium() -> str | None:
    """A Chromium of this machine."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for b in BROWSERS if (found := shutil.which(b))), None)


def lost_file(page: Path, url: str) -> Path | None:
    """A file that 404.html, opened from disk, asks for by its published address."""
    base = soup(page).find("base", href=True)
    start = f"file://{base['href']}" if base else None
    if start is None or not url.startswith(start):
        return None
    file = page.parent / unquote(urlsplit(url).path).removeprefix(base["href"])
    return file if file.is_file() else None


def axe_script() -> Path | None:
    """The axe-core of this machine: AXE=/path/to/it, or the installed one."""
    named, spec = os.environ.get("AXE"), find_spec("axe_playwright_python")
    if named:
        return Path(named)
    return Path(spec.origin).parent / "axe.min.js" if spec and spec.origin else None


def browser(site: Path, who: str, *packages: str) -> tuple[str, str]:
    """(path of a Chromium, ""), or ("", one line that says what is missing)."""
    missing = [name for name in packages if find_spec(name) is None]
    path = chromium()
    if not (site / "index.html").is_file():
        return "", f"{who}: no pages in {site}: make book first"
    if missing:
        install = ".venv/bin/pip install -r requirements-browser.txt"
        return "", f"{who}: no {' and no '.join(missing)}: {install}"
    if path is None:
        return "", f"{who}: no Chromium found (CHROMIUM=/path/to/it)"
    return path, ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: nothing to complain of; 1: something; 2: it cannot look."""
    parser = argparse.ArgumentParser(prog="python -m tools.look")
    built = notebooks.ROOT / "_build" / "html"
    parser.add_argument("site", nargs="?", type=Path, default=built)
    site = parser.parse_args(arguments).site.resolve()
    pages = [p for p in sorted(site.rglob("*.html")) if "_static" not in p.parts]
    path, problem = browser(site, "tools.look", "playwright")
    axe = axe_script()
    if not problem and (axe is None or not axe.is_file()):
        problem = f"tools.look: no axe-core at {axe} (AXE=/path/to/axe.min.js)"
    if problem or axe is None:
        print(problem, file=sys.stderr)
        return 2
    from playwright.sync_api import sync_playwright

    script = axe.read_text(encoding="utf-8")
    bad = 0
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=FLAGS)
        for page in pages:
            said = [*dead_links(page)]
            said += nameless_images(page)
            for width in WIDTHS:
                for scheme in SCHEMES if page.name not in NOT_CONTENT else ():
                    shots = site.parent / "look"
                    seen = looked_at(opened, page, width, scheme, shots, script)
                    said += [f"{width} px, {scheme}: {what}" for what in seen]
            bad += len(said)
            name = page.relative_to(site)
            print(f"{name}: {'fine' if not said else ''}")
            for what in dict.fromkeys(said):
                print(f"    {what}")
        opened.close()
    print(
        f"{len(pages)} pages, {bad} complaints; screenshots in {site.parent / 'look'}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
